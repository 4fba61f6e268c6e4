"""Packs the weights of int8 convolutions into the arrays that the C kernels read."""

import dataclasses

import numpy as np


@dataclasses.dataclass
class Convolution:
    """A convolution of one image with int8 weights, as LiteRT's reference kernels compute it.

    A fully connected layer is a convolution of an image of one pixel.

    Attributes:
        input_shape: (height, width, channels).
        output_shape: (height, width, filters).
        weights: int8 [filters, height, width, channels]; depthwise [1, height, width, channels].
        kept: bool of the same shape, or None: the weights that are not pruned. Weights of 0 may be
            skipped, too.
        bias: int32 [filters], without the input's zero point.
        multiplier: int32 [filters], in Q31.
        shift: int [filters], the power of two; negative is to the right.
        stride: (height, width).
        padding: (top, left).
        input_zero_point, output_zero_point: int8.
        activation: (minimum, maximum) of outputs, int8.
        depthwise: one filter per channel.
    """

    input_shape: tuple
    output_shape: tuple
    weights: np.ndarray
    bias: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray
    stride: tuple = (1, 1)
    padding: tuple = (0, 0)
    input_zero_point: int = 0
    output_zero_point: int = 0
    activation: tuple = (-128, 127)
    depthwise: bool = False
    kept: np.ndarray | None = None


@dataclasses.dataclass
class Packed:
    """A convolution as a call of `tfsparse_KERNEL(input, &layer, output, scratch)`.

    Attributes:
        kernel: name without the prefix, such as "convolve_gathered".
        sources: names of its files in kernels/, beside the header.
        fields: {field of `tfsparse_convolution`: number, or name of an array}.
        arrays: {name: array}, to be written as `const` arrays, aligned to 4 bytes.
        scratch_bytes: what the kernel needs beside input and output.
        in_place: the output may begin where the input begins.
        instructions: estimate for a Cortex-M4.
    """

    kernel: str
    sources: tuple
    fields: dict
    arrays: dict
    scratch_bytes: int
    in_place: bool
    instructions: int

    @property
    def flash_bytes(self):
        """Bytes of the arrays and of the struct, without code."""
        return sum(array.nbytes for array in self.arrays.values()) + 44


def candidates(convolution):
    """Returns a `Packed` from each kernel that can compute this `Convolution`, fastest first."""
    raise NotImplementedError


def pack(convolution, kernel=None):
    """Returns the `Packed` with the fewest instructions, or that of a kernel by name."""
    found = candidates(convolution)
    if kernel is None:
        return found[0]
    return next(packed for packed in found if packed.kernel == kernel)
