"""What the pictures of reports show, read back from Matplotlib."""

import keras
import numpy as np
import pytest

from tfsparse import pruning
from zoo import pictures
from zoo.robustness.flips import Flips


@pytest.fixture(scope="module")
def network():
    """A network whose layers have names in no order of the alphabet."""
    x = image = keras.Input((8, 8, 1))
    for name in ("zebra", "ant", "mole", "bee"):
        x = keras.layers.Conv2D(4, 3, padding="same", name=name)(x)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))


def test_the_rows_of_the_heat_map_are_the_layers_in_order(network):
    schedule = pruning.DNRSchedule(0.5, end_step=10, frequency=5)
    pruner = pruning.Pruner(network, schedule)
    names = list(pruner.layer_densities())
    assert names == [layer.name for layer in network.layers if layer.name in names]
    rng = np.random.default_rng(0)
    history = [
        {"epoch": epoch, "density": 0.5, **{f"density/{name}": rng.random() for name in names}}
        for epoch in (1, 2, 3)
    ]
    history[1][f"density/{names[1]}"] = 0.0  # a layer without weights
    axes, *_ = pictures.density_picture(history).axes
    (image,) = axes.images
    expected = [[100 * row[key] for row in history] for key in [f"density/{n}" for n in names]]
    np.testing.assert_allclose(image.get_array()[:-1].filled(0), expected)
    assert image.get_array().mask.sum() == 1
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [*names, "all layers"]
    top, bottom = sorted(axes.get_ylim())
    assert axes.yaxis_inverted()
    assert (top, bottom) == (-0.5, len(names) + 0.5)


def test_no_heat_map_without_pruning():
    assert pictures.density_picture([{"epoch": 1, "loss": 1.0}]) is None


@pytest.mark.parametrize("count", [3, 30, 200])
def test_confusion_matrix(count):
    """Against a loop; numbers for few classes, names for some, neither for many."""
    rng = np.random.default_rng(0)
    labels = np.arange(4 * count) % (count - 1)  # the last class has no image
    predicted = np.where(rng.random(4 * count) < 0.7, labels, rng.integers(0, count, 4 * count))
    names = [f"class {index}" for index in range(count)]
    axes, *_ = pictures.confusion_picture(labels, predicted, names).axes
    (image,) = axes.images
    expected = np.zeros((count, count))
    for true, seen in zip(labels, predicted, strict=True):
        expected[true, seen] += 100 / (labels == true).sum()
    np.testing.assert_allclose(image.get_array(), expected)
    texts = [text.get_text() for text in axes.texts if text.get_text()]
    shown = [f"{share:.0f}" for share in expected.ravel() if share > 0]
    assert texts == (shown if count == 3 else [])
    assert ("class 1" in [each.get_text() for each in axes.get_yticklabels()]) == (count < 200)

    np.fill_diagonal(expected, 0)
    counts = expected / 100 * np.bincount(labels, minlength=count)[:, None]
    true, seen = np.unravel_index(np.argmax(counts.round(6)), counts.shape)
    caption = pictures.confusion_caption(labels, predicted, names)
    assert f"{names[true]} as {names[seen]} ({expected[true, seen]:.0f} %)" in caption


def test_adversarial_examples_have_both_classes_and_confidences():
    rng = np.random.default_rng(0)
    images = rng.random((2, 4, 4, 3)).astype(np.float32)
    noise = rng.uniform(-0.1, 0.1, images.shape).astype(np.float32)
    flips = Flips(images, images + noise, np.array([0, 1]), np.array([1, 0]), *[[0.9, 0.6]] * 2)
    names = ["ant", "a rather long name of a class"]
    axes = [ax for ax in pictures.adversarial_picture(flips, names, 0.1).axes if ax.get_visible()]
    assert [ax.get_title() for ax in axes] == [
        *("ant\n90 %", "a rather long…\n60 %", "", ""),
        *("a rather long…\n90 %", "ant\n60 %"),
    ]
    shown = [np.asarray(ax.images[0].get_array()) for ax in axes]
    np.testing.assert_allclose(shown[0], images[0])
    np.testing.assert_allclose(shown[2], np.clip(noise[0] / 0.2 + 0.5, 0, 1), atol=1e-5)
