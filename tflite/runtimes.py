"""A TFLite file as a function from images to logits, in each of the runtimes."""

import re
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tflite.quiet import captured, quiet
from tfsparse.errors import UsageError

with quiet():
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

ARENA_BYTES = 64 << 20  # more than a device with TFLM has; untouched parts cost no memory


class Tensor(NamedTuple):
    """An input or output of a file; `scale` is 0 if its numbers are not quantized."""

    shape: tuple[int, ...]
    dtype: Any
    scale: float
    zero_point: int

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Returns `values`, an array of numbers, in the type of the tensor."""
        if not self.scale:
            return values.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        codes = np.round(values / self.scale + self.zero_point)
        return np.clip(codes, limits.min, limits.max).astype(self.dtype)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Returns the numbers that `codes`, an array of the tensor's type, stand for, float64."""
        if not self.scale:
            return codes.astype(np.float64)
        return self.scale * (codes.astype(np.float64) - self.zero_point)


class Session(NamedTuple):
    """A loaded file: its one input, its one output, and a function that runs it."""

    source: Tensor
    target: Tensor
    run: Callable[[np.ndarray], np.ndarray]  # array of source's shape and type -> array of target's


class FileModel:
    """A classifier of one image in a TFLite file.

    Args:
        content: bytes of the file: one input [1, h, w, c], one output [1, classes], each float or
            quantized.
        runtime: a key of `RUNTIMES`: "xnnpack", LiteRT with the kernels that phones and computers
            use; "reference", LiteRT with its reference kernels; "tflm", TensorFlow Lite for
            Microcontrollers on this machine.

    Attributes:
        image_shape: (h, w, c).
        num_classes: number of outputs.
        source, target: the `Tensor`s of input and output.

    Raises:
        UsageError: if the runtime cannot run the file or is not installed, or if the file has
            another interface.
    """

    def __init__(self, content: bytes, runtime: str = "xnnpack") -> None:
        self.source, self.target, self._run = RUNTIMES[runtime](content)
        self.image_shape, self.num_classes = self.source.shape[1:], self.target.shape[1]

    def __call__(self, images: Any) -> np.ndarray:
        """Returns the logits, float64 [n, classes], of float images [n, h, w, c] in [0, 1]."""
        return self.target.decode(self.outputs(images))

    def outputs(self, images: Any) -> np.ndarray:
        """Returns the outputs without decoding, [n, classes] of the output tensor's type."""
        outputs = np.empty((len(images), self.num_classes), self.target.dtype)
        for row, image in zip(outputs, images, strict=True):
            row[:] = self._run(self.source.encode(np.asarray(image)[None]))[0]
        return outputs


def _litert(content, resolver, threads):
    try:
        with quiet():
            interpreter = Interpreter(
                model_content=content,
                num_threads=threads,
                experimental_op_resolver_type=resolver,
            )
            interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"LiteRT cannot run the file: {_shortened(str(error))}") from error
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    _check_interface([each["shape"] for each in inputs], [each["shape"] for each in outputs])

    def run(codes):
        interpreter.set_tensor(inputs[0]["index"], codes)
        interpreter.invoke()
        return interpreter.get_tensor(outputs[0]["index"])

    source, target = (
        Tensor(tuple(map(int, each["shape"])), each["dtype"], *each["quantization"])
        for each in (inputs[0], outputs[0])
    )
    return Session(source, target, run)


def _tflm(content):
    interpreter = tflm_interpreter(content)
    # TFLM cannot tell how many inputs and outputs there are; LiteRT has checked the file before.
    details = [interpreter.get_input_details(0), interpreter.get_output_details(0)]
    _check_interface(*([each["shape"]] for each in details))

    def run(codes):
        interpreter.set_input(codes, 0)
        with quiet():
            interpreter.invoke()
        return interpreter.get_output(0)

    return Session(*map(_tflm_tensor, details), run)


def _tflm_tensor(details):
    quantization = details["quantization_parameters"]
    numbers = (*quantization["scales"], 0.0)[0], (*quantization["zero_points"], 0)[0]
    return Tensor(tuple(map(int, details["shape"])), details["dtype"], *numbers)


def tflm_interpreter(content, arena_bytes=ARENA_BYTES):
    """Returns TFLM's interpreter of a file.

    Args:
        content: bytes of the file.
        arena_bytes: size of the arena.

    Raises:
        UsageError: if TFLM is not installed or cannot run the file in this arena.
    """
    try:
        with quiet():
            from tflite_micro.python.tflite_micro import runtime
    except ImportError as error:
        raise UsageError(
            "TensorFlow Lite for Microcontrollers is not installed; it exists for Linux. Run: pip "
            f"install 'tfsparse[micro]' ({error})"
        ) from error
    interpreter, failure = None, None
    with captured() as messages:
        try:
            interpreter = runtime.Interpreter.from_bytes(content, arena_size=arena_bytes)
        except RuntimeError as raised:
            failure = raised
    if failure:
        raise UsageError(f"TFLM cannot run the file: {_tflm_reason(messages())}") from failure
    return interpreter


def _tflm_reason(messages):
    """Returns TFLM's messages as one line, without locations in its sources."""
    lines = [re.sub(r"^\S+\.(cc|h):?\d* ", "", line) for line in messages.splitlines()]
    return _shortened(" ".join(filter(None, lines)) or "no reason given")


def _shortened(message):
    return textwrap.shorten(message, 200).rstrip(".")


def _check_interface(*shapes):
    shapes = [tuple(map(int, shape)) for group in shapes for shape in group]
    if [len(shape) for shape in shapes] != [4, 2] or {shape[0] for shape in shapes} != {1}:
        raise UsageError(
            "A file takes one image, (1, height, width, channels), and gives logits, "
            f"(1, classes). Received: inputs and outputs of shapes {shapes}"
        )


RUNTIMES = {
    "xnnpack": lambda content: _litert(content, OpResolverType.AUTO, threads=2),
    "reference": lambda content: _litert(content, OpResolverType.BUILTIN_REF, threads=1),
    "tflm": _tflm,
}
