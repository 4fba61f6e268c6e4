"""A TFLite file as a function from images to logits, run in LiteRT."""

import textwrap

import numpy as np

from tflite.quiet import quiet
from tfsparse.errors import UsageError

with quiet():
    from ai_edge_litert.interpreter import Interpreter


class LiteRTModel:
    """A classifier of one image in a TFLite file.

    Args:
        content: the bytes of the file: one input [1, h, w, c], one output [1, classes], each float
            or quantised.
        threads: of the interpreter, at least 1.

    Attributes:
        image_shape: (h, w, c).
        num_classes: of the output.

    Raises:
        UsageError: where LiteRT cannot run the file, or it has another interface.
    """

    def __init__(self, content, threads=2):
        try:
            with quiet():
                self._interpreter = Interpreter(model_content=content, num_threads=threads)
                self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            reason = textwrap.shorten(str(error), 200).rstrip(".")
            raise UsageError(f"LiteRT cannot run the file: {reason}") from error
        inputs, outputs = (
            self._interpreter.get_input_details(),
            self._interpreter.get_output_details(),
        )
        shapes = [tuple(map(int, tensor["shape"])) for tensor in (*inputs, *outputs)]
        if [len(shape) for shape in shapes] != [4, 2] or {shape[0] for shape in shapes} != {1}:
            raise UsageError(
                "A file takes one image, (1, height, width, channels), and gives logits, "
                f"(1, classes). Received: inputs and outputs of shapes {shapes}"
            )
        self._source, self._target = inputs[0], outputs[0]
        self.image_shape, self.num_classes = shapes[0][1:], shapes[1][1]

    def __call__(self, images):
        """Returns the logits, float64 [n, classes], of float images [n, h, w, c] in [0, 1]."""
        logits = np.empty((len(images), self.num_classes))
        for row, image in zip(logits, images, strict=True):
            codes = _encode(np.asarray(image)[None], self._source)
            self._interpreter.set_tensor(self._source["index"], codes)
            self._interpreter.invoke()
            row[:] = _decode(self._interpreter.get_tensor(self._target["index"])[0], self._target)
        return logits


def _encode(values, tensor):
    """`values` in the type that `tensor` of the file has."""
    if np.issubdtype(tensor["dtype"], np.floating):
        return values.astype(tensor["dtype"])
    scale, zero_point = tensor["quantization"]
    limits = np.iinfo(tensor["dtype"])
    codes = np.round(values / scale + zero_point)
    return np.clip(codes, limits.min, limits.max).astype(tensor["dtype"])


def _decode(values, tensor):
    """The numbers that `values` of `tensor` stand for, float64."""
    if np.issubdtype(tensor["dtype"], np.floating):
        return values.astype(np.float64)
    scale, zero_point = tensor["quantization"]
    return scale * (values.astype(np.float64) - zero_point)
