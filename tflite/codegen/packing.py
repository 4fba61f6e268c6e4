"""Int8 convolutions, and how a kernel in C is given one."""

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

    @property
    def macs(self):
        """Multiply-accumulates of all weights, for one image."""
        height, width, _ = self.output_shape
        return height * width * self.weights.size

    @property
    def padded_width(self):
        """Columns that the outputs of one row read, padding included."""
        return (self.output_shape[1] - 1) * self.stride[1] + self.weights.shape[2]

    @property
    def is_padded(self):
        """Whether outputs read outside the image."""
        rows = (self.output_shape[0] - 1) * self.stride[0] + self.weights.shape[1]
        fits = rows <= self.input_shape[0] and self.padded_width <= self.input_shape[1]
        return any(self.padding) or not fits


@dataclasses.dataclass
class Packed:
    """A convolution as a call of `tfsparse_KERNEL(input, &layer, output, scratch)`.

    Attributes:
        kernel: name without the prefix, such as "convolve_gathered".
        sources: names of its files in kernels/, beside the headers.
        fields: {field of `tfsparse_convolution`: number, or name of an array}.
        arrays: {name: array}, to be written as `const` arrays, aligned to 4 bytes.
        scratch_bytes: what the kernel needs beside input and output.
        distance: the output may begin at this many bytes before the input, or earlier, or where
            the two do not overlap.
        instructions: estimate for a Cortex-M4.
    """

    kernel: str
    sources: tuple
    fields: dict
    arrays: dict
    scratch_bytes: int
    distance: int
    instructions: int


def pack_plain(convolution):
    """Returns the `Packed` of any `Convolution` for the kernel that skips nothing."""
    fields, arrays = common_fields(convolution)
    kept = True if convolution.kept is None else convolution.kept
    arrays["weights"] = np.where(kept, convolution.weights, 0).astype(np.int8)
    arrays["table"] = np.array([convolution.depthwise], np.uint16)
    fields |= {"weights": "weights", "table": "table"}
    row = convolution.output_shape[1] * convolution.output_shape[2]
    distance = convolution.output_shape[0] * row  # no overlap
    sources = ("convolve_plain.c",)
    return Packed("convolve_plain", sources, fields, arrays, 0, distance, 8 * convolution.macs)


def common_fields(convolution):
    """Returns the fields and arrays that do not depend on the kernel, as two dictionaries."""
    weights = convolution.weights.astype(np.int64)
    axes = (0, 1, 2) if convolution.depthwise else (1, 2, 3)
    bias = convolution.bias - convolution.input_zero_point * weights.sum(axes)
    names = ("height", "width", "channels")
    fields = {f"input_{name}": n for name, n in zip(names, convolution.input_shape, strict=True)}
    fields |= {f"output_{name}": n for name, n in zip(names, convolution.output_shape, strict=True)}
    fields["kernel_height"], fields["kernel_width"] = weights.shape[1:3]
    fields["stride_height"], fields["stride_width"] = convolution.stride
    fields["pad_top"], fields["pad_left"] = convolution.padding
    fields["input_zero_point"] = convolution.input_zero_point
    fields["output_zero_point"] = convolution.output_zero_point
    fields["activation_min"], fields["activation_max"] = convolution.activation
    filters = np.stack([bias, convolution.multiplier], 1).astype(np.int32)
    shift = np.where(filters[:, 1] == 0, 1, -np.asarray(convolution.shift)).astype(np.int8)
    return fields | {"filters": "filters", "shift": "shift"}, {"filters": filters, "shift": shift}
