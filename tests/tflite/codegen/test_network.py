"""What a file becomes: which operators are one layer, and which weights are kept."""

import numpy as np
import pytest

import zoo
from tflite import file_metadata
from tflite.codegen import layers
from tflite.codegen.cycles import block_cycles
from tflite.codegen.network import read_network
from tflite.codegen.packing import Convolution
from tflite.codegen.sparsity import with_supports
from tflite.codegen.windows import PADDING, find_window
from tfsparse import patterns
from tfsparse.errors import UsageError

pytestmark = pytest.mark.usefixtures("study_models")


def network(name):
    content = zoo.load_tflite(name).read_bytes()
    found = read_network(content)
    with_supports(found, file_metadata.read(content))
    return found


def convolutions(name):
    return [
        layer.operation
        for layer in network(name).layers
        if isinstance(layer.operation, Convolution)
    ]


@pytest.mark.parametrize("name", ["resnet18_w16_ps4p4_cifar10", "resnet8_psd2p8_cifar10"])
def test_periodic_layers(name):
    """Dense kernels and small convolutions become layers that keep what the pattern keeps."""
    config = zoo.card(name)["model"]
    model = zoo.load(name)
    expected = [
        int(np.prod(layer.kernel.shape))
        for layer in model.layers
        if layer.__class__.__name__ == "PeriodicConv2D"
    ]
    pattern = patterns.parse(config["pattern"])
    kept = []
    for made in convolutions(name):
        filters, height, width, channels = made.weights.shape
        if made.kept is not None and not made.kept.all():
            mask = pattern.mask((height, width), channels, filters).transpose(3, 0, 1, 2)
            assert np.array_equal(made.kept, mask)
            assert not made.weights[~made.kept].any()
            kept.append(int(made.kept.sum()))
    assert sorted(kept) == sorted(expected)


def test_operators_become_few_layers():
    """A shuffle, splits, and shifts compute nothing; groups are one convolution."""
    kinds = [type(layer.operation) for layer in network("shufflenet_w80_cifar10").layers]
    assert kinds.count(layers.Copy) == 3  # of convolutions beside pooling
    grouped = [m for m in convolutions("shufflenet_w80_cifar10") if m.kept is not None]
    assert {float(m.kept.mean()) for m in grouped} == {0.5}
    few = network("resnet18_psd1p16f1_cifar10")
    assert not [layer for layer in few.layers if isinstance(layer.operation, layers.Copy)]
    assert len(few.layers) < len(few.graph.operators) / 1.5


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shifts", [(0, 0), (2, 1), (-1, 3)])
def test_windows_over_shifted_channels(stride, shifts):
    """A convolution of two shifted blocks of channels, as one over the stored tensor."""
    rng = np.random.default_rng(0)
    stored = rng.integers(-9, 9, (7, 8, 4))
    places = np.arange(stored.size).reshape(stored.shape)
    padded = np.pad(places, ((4, 4), (4, 4), (0, 0)), constant_values=PADDING)
    shifted = np.concatenate(
        [
            padded[4 + down : 11 + down, 4 - down : 12 - down, 2 * block : 2 * block + 2]
            for block, down in enumerate(shifts)
        ],
        axis=2,
    )
    kernel = rng.integers(-9, 9, (2, 2, 4))
    outputs = ((7 - 2) // stride + 1, (8 - 2) // stride + 1)
    window = find_window(shifted, stored.shape, (2, 2), (stride, stride), (0, 0), outputs)
    assert window.strides == (stride, stride)

    def convolve(image, kernel, padding):
        image = np.pad(image, ((padding[0], 9), (padding[1], 9), (0, 0)))
        return [
            [
                (image[stride * r :, stride * c :][: len(kernel), : kernel.shape[1]] * kernel).sum()
                for c in range(outputs[1])
            ]
            for r in range(outputs[0])
        ]

    moved = np.zeros((*window.kernel_size, 4), int)
    moved[tuple(window.taps.T)] = kernel.ravel()
    numbers = np.where(shifted == PADDING, 0, stored.ravel()[shifted])
    assert convolve(stored, moved, window.padding) == convolve(numbers, kernel, (0, 0))


def test_no_window():
    places = np.arange(75).reshape(5, 5, 3)
    arguments = (places.shape, (3, 3), (1, 1), (0, 0), (3, 3))
    assert find_window(places, *arguments) is not None
    assert find_window(places[::-1], *arguments) is None
    assert find_window(places.transpose(1, 0, 2), *arguments) is None
    assert find_window(places[..., [0, 0, 1]], *arguments) is None
    assert find_window(np.full_like(places, PADDING), *arguments) is None


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_damaged_files():
    """Whatever is damaged, the reader gives a network or says in one line what is wrong."""
    content, rng = zoo.load_tflite("resnet8_narrow_cifar10").read_bytes(), np.random.default_rng(0)
    refusals = []
    for _ in range(60):
        damaged = np.frombuffer(content, np.uint8).copy()
        places = rng.integers(len(content) - 6000, len(content), 3)  # the tables are at the end
        damaged[places] = rng.integers(256, size=3)
        try:
            read_network(damaged.tobytes())
        except UsageError as error:
            refusals.append(str(error))
    assert len(refusals) > 20
    assert not any("\n" in message for message in refusals)


# Little-endian Thumb code and its cycles in Arm's table: ldm and push take 1 + registers, the first
# of several loads 2 and the others 1, ldrd 1 + 2, and smlad, movs, and a branch not taken 1.
CODES = {
    "movs r0, #1": ("0120", 1),
    "ldr r0, [r1]": ("0868", 2),
    "ldr r0, [r1]; ldr r2, [r1, #4]": ("08684a68", 3),
    "ldr.w r3, [r0], #4": ("50f8043b", 2),
    "ldrd r12, lr, [r1], #8": ("f1e802ce", 3),
    "push {r4, r5, lr}": ("30b5", 4),
    "ldm r3, {r4-r11}": ("93e8f00f", 9),
    "smlad r4, r2, r12, r4": ("22fb0c44", 1),
    "sdiv r0, r0, r1": ("90fbf1f0", 7),
    "bne": ("fed1", 1),
}


@pytest.mark.parametrize("code", CODES)
def test_cycles(code):
    words, cycles = CODES[code]
    assert block_cycles(bytes.fromhex(words)) == cycles
