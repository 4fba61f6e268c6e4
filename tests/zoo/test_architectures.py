"""Architectures: published sizes, other widths and image sizes, and patterns."""

import keras
import numpy as np
import pytest

import zoo
from tfsparse import UsageError
from tfsparse.cost import model_cost
from zoo.architectures import untrained

# Convolution weights in millions and GMACs at 32x32 as published (IEEE TC 2020, arXiv 2001.10710).
# The MACs are read off a plot.
PUBLISHED = [
    ("resnet18", None, 11.159, 0.559),
    ("resnet18", "PS4_P4", 5.056, 0.253),
    ("resnet18", "PS2_P6", 2.615, 0.130),
    ("resnet18", "PSD2_P8", 3.683, 0.184),
    ("resnet18", "PSD1_P16", 2.005, 0.100),
    ("vgg16", None, 14.710, 0.314),
    ("vgg16", "PS1_P9", 1.636, 0.037),
    ("vgg16", "PSD4_P16", 7.050, 0.152),
    ("vgg16", "PSD1_P8", 3.270, 0.071),
    ("mobilenet_v2", None, None, 0.090),
]


@pytest.mark.parametrize(("arch", "pattern", "millions", "gmacs"), PUBLISHED)
def test_published_sizes(arch, pattern, millions, gmacs):
    cost = model_cost(zoo.build(arch, (32, 32, 3), 10, pattern=pattern))
    if millions:
        assert round(cost.conv_parameters / 1e6, 3) == millions
    assert cost.macs / 1e9 == pytest.approx(gmacs, abs=0.015 * gmacs + 0.0005)  # as printed


def test_resnet8_is_mlperf_tinys():
    model = zoo.build("resnet8", (32, 32, 3), 10)
    stem, classifier = 9 * 3 * 16, 64 * 10
    stages = 9 * (16 * 16 * 2 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64) + 16 * 32 + 32 * 64
    kernels = _kernels("resnet8")
    assert kernels == stem + stages + classifier
    assert model_cost(model).macs == pytest.approx(12.5e6, rel=0.01)
    # ResNet14 has a second block in each stage, of two convolutions.
    assert _kernels("resnet14") == kernels + 2 * 9 * (16 * 16 + 32 * 32 + 64 * 64)


def _kernels(arch):
    """Returns how many weights the kernels of a network have."""
    cost = model_cost(zoo.build(arch, (32, 32, 3), 10))
    return sum(layer.parameters for layer in cost.layers)


@pytest.mark.parametrize("depth", [8, 14, 18])
def test_a_residual_network_has_as_many_layers_as_its_name_says(depth):
    """As He et al. count: all layers with weights but the 1x1 convolutions of shortcuts."""
    layers = zoo.build(f"resnet{depth}", (32, 32, 3), 10, width=8).layers
    spatial = [each for each in layers if getattr(each, "kernel_size", None) == (3, 3)]
    assert len(spatial) + 1 == depth


@pytest.mark.parametrize("arch", sorted(zoo.ARCHITECTURES))
@pytest.mark.parametrize("input_shape", [(28, 28, 1), (64, 64, 3), (9, 17, 2)])
def test_any_size_width_and_class_count(arch, input_shape):
    width = 48 if input_shape[0] == 28 else 56
    model = zoo.build(arch, input_shape, 7, width)
    assert model.output_shape == (None, 7)
    if width == 48:
        assert model(np.zeros((2, *input_shape), "float32")).shape == (2, 7)
    assert len({variable.path for variable in model.variables}) == len(model.variables)
    stem = next(each for each in model.layers if isinstance(each, keras.layers.Conv2D))
    assert stem.filters == (24 if arch == "shufflenet" else width)


@pytest.mark.parametrize("arch", ["resnet8", "resnet18", "vgg16"])
def test_pattern_makes_all_spatial_convolutions_but_the_first_periodic(arch):
    dense = zoo.build(arch, (32, 32, 3), 10, width=16)
    periodic = zoo.build(arch, (32, 32, 3), 10, width=16, pattern="PS2_P6")
    first, *spatial = [
        layer.name
        for layer in dense.layers
        if isinstance(layer, keras.layers.Conv2D) and layer.kernel_size != (1, 1)
    ]
    found = [layer.name for layer in periodic.layers if type(layer).__name__ == "PeriodicConv2D"]
    assert found == spatial
    assert type(periodic.get_layer(first)) is keras.layers.Conv2D


@pytest.mark.parametrize(
    ("width", "channels"),
    [
        # Those of the published networks of 0.25, 0.5 and 1 times the width.
        (8, [8, 8, 8, 8, 16, 24, 40, 80]),
        (16, [16, 8, 16, 16, 32, 48, 80, 160]),
        (32, [32, 16, 24, 32, 64, 96, 160, 320]),
    ],
)
def test_channels_of_mobilenet_v2(width, channels):
    model = zoo.build("mobilenet_v2", (32, 32, 3), 10, width=width)
    names = ["stem_conv", *(f"stage{stage}_block1_project_conv" for stage in range(1, 8))]
    assert [model.get_layer(name).filters for name in names] == channels


def test_shufflenet_shuffles():
    model = zoo.build("shufflenet", (8, 8, 3), 2, width=48)
    shuffle = keras.Model(
        model.get_layer("stage1_block2_shuffle_split").input,
        model.get_layer("stage1_block2_shuffle_merge").output,
    )
    x = np.arange(12, dtype="float32").reshape(1, 1, 1, 12) * np.ones((1, 4, 4, 1), "float32")
    expected = np.arange(12).reshape(2, 6).T.ravel()
    np.testing.assert_array_equal(np.array(shuffle(x))[0, 0, 0], expected)


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"arch": "resnet50"}, "Received: 'resnet50'"),
        ({"width": 0}, "Received: 0"),
        ({"num_classes": 0}, "Received: 0"),
        ({"input_shape": (None, 32, 3)}, "Received: (None, 32, 3)"),
        ({"pattern": "PS9"}, "Received: 'PS9'"),
        ({"arch": "mobilenet_v2", "pattern": "PS4_P4"}, "Received: pattern='PS4_P4'"),
        ({"arch": "shufflenet", "pattern": "PS4_P4"}, "Received: pattern='PS4_P4'"),
        ({"arch": "shufflenet", "width": 60}, "Received: 60"),
        ({"arch": "mobilenet_v2", "width": 12}, "multiple of 8. Received: 12"),
    ],
)
def test_what_cannot_be_built_is_refused(arguments, received):
    with pytest.raises(UsageError) as error:
        zoo.build(**{"arch": "resnet8", "input_shape": (32, 32, 3), "num_classes": 10, **arguments})
    assert received in str(error.value)


@pytest.mark.parametrize("pattern", [None, "PSD2_P8"])
def test_untrained_network_has_nothing_that_a_converter_leaves_out(pattern):
    architecture = {"arch": "resnet8", "input_shape": (32, 32, 3), "num_classes": 10, "width": 8}
    model = untrained({**architecture, "pattern": pattern})
    assert model.count_params() == zoo.build(**architecture, pattern=pattern).count_params()
    for variable in model.variables:
        values = keras.ops.convert_to_numpy(variable)
        if variable.name == "kernel":
            assert abs(values.mean()) < values.std(), variable.path  # as initialized
        else:
            assert len(np.unique(values)) == len(values), variable.path
            assert not {0.0, 1.0} & set(values), variable.path


def test_activations_of_an_untrained_network_have_both_signs():
    """As a trained network's: it is what its latency depends on."""
    architecture = {"arch": "shufflenet", "input_shape": (32, 32, 3), "num_classes": 10}
    images = np.random.default_rng(0).random((8, 32, 32, 3), np.float32)
    model = untrained({**architecture, "width": 48}, images)
    norms = [each for each in model.layers if isinstance(each, keras.layers.BatchNormalization)]
    outputs = keras.Model(model.inputs, [norm.output for norm in norms])(images)
    positive = [np.mean(keras.ops.convert_to_numpy(output) > 0) for output in outputs]
    assert len(norms) > 50
    assert 0.4 < np.mean(positive) < 0.6
    assert 0.05 < min(positive) < max(positive) < 0.95
    for norm, output in zip(norms, outputs, strict=True):  # normalized by these images
        mean = keras.ops.mean(output, axis=(0, 1, 2))
        np.testing.assert_allclose(mean, norm.beta, rtol=0, atol=1e-3)
