"""A package for TensorFlow Lite for Microcontrollers: files, C++ sources, a self-test, costs.

The model is converted to int8 in each form that may be the best one for a device: periodic layers
as small convolutions or as dense kernels, and kernels with or without their zeros. A form is
omitted if another one is at least as good in flash, RAM, and operations. Each form runs in TFLM on
this machine, where its outputs must be bit-identical to those of LiteRT's reference kernels.
"""

import dataclasses
import hashlib
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tflite import file_metadata
from tflite.arena import Arena, arena, smallest_arena
from tflite.boards import fit_table
from tflite.conversion import Images, file_facts
from tflite.convert import convert
from tflite.decode import CUSTOM_CODE, compress
from tflite.flatbuffer import operator_name, unpack
from tflite.routes import find_route
from tflite.runtimes import FileModel
from tflite.sources import fill, operator_names, sources
from tflite.verify import EXAMPLES, Verification, verify
from tfsparse import files, tables
from tfsparse.cost import model_cost
from tfsparse.errors import UsageError
from tfsparse.graph import leaf_layers
from tfsparse.layers import PeriodicConv2D
from tfsparse.precision import full_precision

TEST_IMAGES = 4
WORTH_DECODING = 0.9  # of the bytes at most; a smaller saving is not worth the RAM and the time


@dataclasses.dataclass(frozen=True)
class Form:
    """One form of a model for TFLM.

    Attributes:
        name: "plain", "lowered", "plain_compressed", or "lowered_compressed".
        content: bytes of the int8 file.
        reference: bytes of the same file without compression, which LiteRT can run.
        arena: its `tflite.arena.Arena`.
        smallest_arena: size in bytes of the smallest arena in which TFLM runs it here.
        macs: multiply-accumulates of one inference, of stored weights.
        decoded: number of weights, zeros included, that one inference decodes.
    """

    name: str
    content: bytes
    reference: bytes
    arena: Arena
    smallest_arena: int
    macs: int
    decoded: int

    @property
    def arena_bytes(self) -> int:
        """Recommended size of the arena in bytes, a multiple of 1,024.

        It is the size that TFLM needs here plus the scratch memory of optimized kernels.
        """
        return 1024 * math.ceil((self.smallest_arena + _largest_buffer(self.reference)) / 1024)

    @property
    def costs(self) -> tuple[int, int, int]:
        """The costs by which forms are compared: bytes of flash, bytes of RAM, operations."""
        return len(self.content), self.arena_bytes, self.macs + self.decoded


def make_forms(
    model: keras.Model, calibration_images: np.ndarray, about: dict[str, Any] | None = None
) -> list[Form]:
    """Returns the `Form`s of a Keras model that no other form dominates, a list.

    Args:
        model: Keras model, as for `tflite.convert.convert`.
        calibration_images: float array [n, h, w, c] in [0, 1].
        about: facts for the files' metadata, or None.

    Raises:
        UsageError: if the model cannot be converted or TFLM cannot run it.
    """
    forms = []
    # The lowering is that for floats: the cost model for int8 is that of phones, whose processors
    # sum four products at once; most microcontrollers sum one or two.
    networks = {"plain": model}
    if any(isinstance(layer, PeriodicConv2D) for layer in leaf_layers(model)):
        networks["lowered"] = find_route(full_precision(model)).network
    for name, network in networks.items():
        content = convert(network, "int8", calibration_images, lowered=False)
        if about:
            content = file_metadata.embed(content, about)
        macs = model_cost(find_route(network, "int8", lowered=False).network).macs
        forms.append(_form(name, content, content, macs))
        small = compress(content)
        if len(small) <= WORTH_DECODING * len(content):
            forms.append(_form(f"{name}_compressed", small, content, macs))
    return unbeaten(forms)


def _form(name, content, reference, macs):
    measured = arena(content)
    smallest = smallest_arena(content, measured)
    decoded = 0 if content is reference else _decoded_weights(content)
    return Form(name, content, reference, measured, smallest, macs, decoded)


def unbeaten(forms: Sequence[Form]) -> list[Form]:
    """Returns the `Form`s that no other one dominates; of equal ones, the first."""
    return [
        form
        for index, form in enumerate(forms)
        if not any(_beats(other, form) for other in forms)
        and all(other.costs != form.costs for other in forms[:index])
    ]


def _beats(other, form):
    """Returns whether no cost of `other` is higher than that of `form` and one is lower."""
    pairs = list(zip(other.costs, form.costs, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _decoded_weights(content):
    model = unpack(content)
    graph = model.subgraphs[0]
    return sum(
        math.prod(map(int, graph.tensors[int(index)].shape))
        for operator in graph.operators
        if operator_name(model.operatorCodes[operator.opcodeIndex]) == CUSTOM_CODE.decode()
        for index in operator.outputs
    )


def _largest_buffer(content):
    """Returns the size in bytes of the largest scratch buffer that CMSIS-NN may request.

    The sizes are those of arm_convolve_s8_get_buffer_size and
    arm_depthwise_conv_s8_opt_get_buffer_size, the larger of those for the instruction sets DSP and
    MVE. A convolution with k weights per filter unrolls its inputs into 4 k bytes, with k rounded
    up to a multiple of 16. A depthwise one takes 2 bytes per weight, or 4 * 124 per tap.
    """
    model = unpack(content)
    graph = model.subgraphs[0]
    largest = 0
    for operator in graph.operators:
        name = operator_name(model.operatorCodes[operator.opcodeIndex])
        if name in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            shape = [int(size) for size in graph.tensors[int(operator.inputs[1])].shape]
            weights = math.prod(shape[1:])
            if name == "CONV_2D":
                largest = max(largest, 4 * 16 * math.ceil(weights / 16))
            else:
                largest = max(largest, 2 * weights, 4 * 124 * shape[1] * shape[2])
    return largest


def check(
    forms: Sequence[Form], model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> list[Verification]:
    """Compares forms with Keras and with LiteRT.

    Args:
        forms: list of `Form`s.
        model: the Keras model.
        images: float array [n, h, w, c] in [0, 1]; each runtime takes the first of them.
        labels: integer array [n].

    Returns:
        List of the `Verification`s of the forms in TFLM.

    Raises:
        UsageError: if a form exceeds a bound, or if TFLM's outputs are not bit-identical to those
            of LiteRT's reference kernels.
    """
    few = images[: EXAMPLES["tflm"]], labels[: EXAMPLES["tflm"]]
    expected = {}  # {reference: LiteRT's outputs}, shared by forms that differ in storage only
    checks, failures = [], []
    for form in forms:
        if form.reference not in expected:
            phone = verify(form.reference, model, images, labels, precision="int8")
            failures += phone.failures
            expected[form.reference] = FileModel(form.reference, "reference").outputs(few[0])
        micro = verify(form.content, model, *few, precision="int8", runtime="tflm")
        failures += micro.failures
        steps = difference(
            FileModel(form.content, "tflm").outputs(few[0]), expected[form.reference]
        )
        checks.append(micro)
        if steps:
            failures.append(
                f"{form.name}: an output in TFLM is {steps} steps from that of LiteRT's reference "
                "kernels. A layer that is not a convolution may be rounded differently in TFLM."
            )
    if failures:
        raise UsageError(f"Nothing is written. {' '.join(failures)}")
    return checks


def difference(outputs: np.ndarray, others: np.ndarray) -> int:
    """Returns the largest difference of two integer arrays, an int."""
    return int(np.abs(outputs.astype(np.int64) - others).max())


# ---- the package ----


def write_package(
    model: keras.Model, images: Images, folder: pathlib.Path, name: str
) -> tuple[list[Form], list[Verification]]:
    """Converts a Keras model in its forms, verifies them, and writes them to `folder`.

    Args:
        model: Keras model in float32, as for `tflite.convert.convert`.
        images: `tflite.conversion.Images`.
        folder: pathlib.Path of an empty folder.
        name: of the model, for the package's README.

    Returns:
        `(forms, verifications)`: the `Form`s, and the `Verification` of each in TFLM.

    Raises:
        UsageError: if a form fails verification.
    """
    forms = make_forms(model, images.calibration, file_facts(model, "int8", images))
    checks = check(forms, model, images.images, images.labels)
    for form in forms:
        _write_form(folder / form.name, form, images.images[:TEST_IMAGES])
    manifest = {form.name: _entry(form, each) for form, each in zip(forms, checks, strict=True)}
    files.write_bytes(folder / "manifest.json", json.dumps(manifest, indent=2) + "\n")
    files.write_bytes(folder / "README.md", readme(name, forms))
    return forms, checks


def _write_form(folder, form, images):
    file = FileModel(form.content, "tflm")
    inputs = file.source.encode(images)
    texts = sources(
        form.content,
        file.source,
        file.target,
        form.arena_bytes,
        inputs,
        file.outputs(images),
        file_metadata.read(form.content).get("labels"),
    )
    files.write_bytes(folder / "model.tflite", form.content)
    for name, text in texts.items():
        files.write_bytes(folder / name, text)


def _entry(form, verification):
    """Returns the manifest's entry of a form, a dict."""
    file = FileModel(form.content, "tflm")
    tensors = {"input": file.source, "output": file.target}
    return {
        "bytes": len(form.content),
        "sha256": hashlib.sha256(form.content).hexdigest(),
        "labels": file_metadata.read(form.content).get("labels"),
        "operators": operator_names(form.content),
        "macs": form.macs,
        "decoded_weights": form.decoded,
        "arena": {
            **form.arena._asdict(),
            "smallest": form.smallest_arena,
            "recommended": form.arena_bytes,
        },
        **{
            name: {
                "shape": list(tensor.shape),
                "type": "int8",
                "scale": float(tensor.scale),
                "zero_point": int(tensor.zero_point),
            }
            for name, tensor in tensors.items()
        },
        "verification": {
            "examples": verification.examples,
            "same_bits_as_litert_reference_kernels": True,  # `check` ensures it
            "top1_agreement": verification.top1_agreement,
            "top1_or_tied": verification.top1_or_tied,
            "keras_accuracy": verification.keras_accuracy,
            "tflm_accuracy": verification.file_accuracy,
        },
    }


def table(forms: Sequence[Form]) -> str:
    """Returns the aligned table of the forms' costs, a str of lines."""
    rows = [["form", "flash, bytes", "arena, bytes", "activations", "MACs", "weights decoded"]]
    for form in forms:
        numbers = (
            len(form.content),
            form.arena_bytes,
            form.arena.activations,
            form.macs,
            form.decoded,
        )
        rows.append([form.name, *(f"{number:,}" for number in numbers)])
    return tables.aligned(rows)


def readme(model: str, forms: Sequence[Form]) -> str:
    """Returns the package's README.md: contents, how to add it to a project, memory it takes."""
    costs = {form.name: (len(form.content), form.arena_bytes) for form in forms}
    values = {
        "model": model,
        "forms": "\n".join(f"- `{form.name}`: {_DESCRIPTIONS[form.name]}" for form in forms),
        "table": table(forms),
        "fit": fit_table(costs),
    }
    return fill("README.md", values)


_DESCRIPTIONS = {
    "plain": "dense kernels.",
    "lowered": "periodic layers as small convolutions: the fewest operations.",
    "plain_compressed": "dense kernels stored without their zeros, which TFLM expands layer by "
    "layer at run time: less flash, more RAM and time. It needs TFLM's operator DECODE, of 2025.",
    "lowered_compressed": "small convolutions, and kernels stored without their zeros, as in "
    "`plain_compressed`.",
}
