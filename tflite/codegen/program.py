"""A network as calls in C, and one buffer for all of its tensors."""

import dataclasses

from tflite import file_metadata
from tflite.codegen.calls import make_call
from tflite.codegen.network import read_network
from tflite.codegen.planning import Block, Plan, plan
from tflite.codegen.sparsity import with_supports


@dataclasses.dataclass
class Program:
    """What is written as C.

    Attributes:
        network: the `network.Network`.
        calls: list of `calls.Call`s in the order in which they run.
        plan: the `planning.Plan` of the buffer.
        places: {stored tensor: offset in the buffer}; the logits have none: they go to the caller.
        scratch: {index of a call: offset of its scratch memory in the buffer}.
        facts: the metadata of the file, a dict.
    """

    network: object
    calls: list
    plan: Plan
    places: dict
    scratch: dict
    facts: dict

    @property
    def macs(self):
        """Multiply-accumulates of one image, of weights that are not skipped."""
        return sum(call.macs for call in self.calls)


def make_program(content):
    """Returns the `Program` of the bytes of an int8 .tflite file.

    Raises:
        UsageError: if the file is not one, or has an operator for which there is no kernel.
    """
    facts = file_metadata.read(content)
    network = read_network(content)
    with_supports(network, facts)
    return program_of(network, facts)


def program_of(network, facts):
    """Returns the `Program` of a `network.Network`.

    Args:
        network: the network.
        facts: the metadata of its file, a dict.
    """
    calls = [make_call(layer) for layer in network.layers]
    blocks, tensors = [], {}
    last = {tensor: i for i, call in enumerate(calls) for tensor in call.layer.inputs}
    first = {0: -1, **{call.layer.output: i for i, call in enumerate(calls)}}
    for tensor, start in first.items():
        if tensor != network.target:
            tensors[tensor] = len(blocks)
            blocks.append(Block(network.size(tensor), start, last.get(tensor, start)))
    distances, scratch = {}, {}
    for i, call in enumerate(calls):
        if call.scratch:
            scratch[i] = len(blocks)
            blocks.append(Block(call.scratch, i, i))
        for tensor, distance in zip(call.layer.inputs, call.distances, strict=True):
            if distance is not None and last[tensor] == i and call.layer.output in tensors:
                distances[tensors[tensor], tensors[call.layer.output]] = distance
    found = plan(blocks, distances)
    places = {tensor: found.offsets[block] for tensor, block in tensors.items()}
    used = {i: found.offsets[block] for i, block in scratch.items()}
    return Program(network, calls, found, places, used, facts)
