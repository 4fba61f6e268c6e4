"""AutoAttack through the PyTorch backend, against a closed form and against PGD."""

import keras
import numpy as np
import pytest

from studies.robustness import behind_rounding
from tests.zoo.robustness.known_models import images, linear, margins, subject
from tfsparse import UsageError
from tfsparse.graph import leaf_layers
from tfsparse.layers import PeriodicConv2D
from tfsparse.starts import image_seeds
from zoo.robustness import autoattack, catalogue, runner, square

EPS = 0.02


@pytest.fixture
def torchattacks():
    """The package that has the attack; without it, only our own parts are tested."""
    return pytest.importorskip("torchattacks")


@pytest.mark.usefixtures("torchattacks")
def test_autoattack_on_a_linear_model_is_exact():
    model, weights = linear()
    x = images()
    labels = (x.reshape(len(x), -1) @ weights).argmax(axis=1).astype(np.int32)
    left = margins(weights, x, labels, EPS)
    results = runner.Results(None, {"seed": 0, "batch_size": len(x)}, len(x))
    target = subject(model)
    for name in ("clean", "pgd", "autoattack"):
        attack = catalogue.make(name, target, catalogue.Options(eps=EPS))
        runner.run(target, attack, x, labels, results)
    correct = results.correct("autoattack")
    assert 10 < correct.sum() < 50
    np.testing.assert_array_equal(correct, left > 0)
    assert not (correct & ~results.correct("pgd")).any()


@pytest.mark.usefixtures("torchattacks")
def test_layers_of_ours_run_there():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(8, 3, activation="relu")(inputs)
    x = PeriodicConv2D(8, 3, pattern="PS4_P4", activation="relu")(x)
    model = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Flatten()(x)))
    x = images(8)
    labels = np.asarray(model(x)).argmax(axis=1).astype(np.int32)
    adversarial, misclassified = autoattack.autoattack(model, EPS)(
        x, labels, image_seeds(0, 0, np.arange(len(x)))
    )
    assert np.abs(adversarial - x).max() <= EPS + 1e-6
    there = np.asarray(model(adversarial)).argmax(axis=1) != labels
    assert (there == misclassified).mean() >= 7 / 8


def test_periodic_layers_become_stock_layers_of_the_same_outputs():
    """Also in a model within a model; one with a `call` of its own stays as it is."""

    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    keras.utils.set_random_seed(0)
    inputs = keras.Input((9, 9, 2))
    x = PeriodicConv2D(8, 3, pattern="PS2_P6", strides=2, padding="same")(inputs)
    inner = keras.Model(inputs, PeriodicConv2D(4, 3, activation="relu", use_bias=False)(x))
    model = keras.Model(inputs, keras.layers.Flatten()(inner(inputs)))
    dense = autoattack.with_dense_kernels(model)
    assert not any(isinstance(layer, PeriodicConv2D) for layer in leaf_layers(dense))
    images = np.random.default_rng(0).random((3, 9, 9, 2), np.float32)
    np.testing.assert_allclose(dense(images), model(images), rtol=0, atol=1e-5)
    own = Own(model.inputs, Own(inner.inputs, inner.outputs)(model.inputs[0]))
    assert autoattack.with_dense_kernels(own) is own


def test_a_model_that_differs_between_backends_is_refused():
    logits = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    autoattack.check_logits(logits, logits * (1 + 1e-6))
    with pytest.raises(UsageError, match="20 of 20 images have another class"):
        autoattack.check_logits(logits, -np.sort(-logits)[:, ::-1] - logits)


def test_a_model_whose_classes_flip_between_backends_is_refused():
    logits = np.array([[1000.0, 1000.4, 0, 0]], np.float32)
    with pytest.raises(UsageError, match="1 of 1 images"):
        autoattack.check_logits(logits, logits[:, [1, 0, 2, 3]])
    tied = np.array([[1000.0, 1000.001, 0, 0]], np.float32)
    autoattack.check_logits(tied, tied[:, [1, 0, 2, 3]])


@pytest.mark.usefixtures("torchattacks")
def test_a_model_without_gradients_is_attacked_all_the_same():
    model, _ = linear()
    masked = behind_rounding(model)
    x = images(12)
    labels = np.asarray(masked(x)).argmax(axis=1).astype(np.int32)
    adversarial, misclassified = autoattack.autoattack(masked, 0.1)(
        x, labels, image_seeds(0, 0, np.arange(len(x)))
    )
    assert misclassified.any()  # by Square
    assert np.abs(adversarial - x).max() <= 0.1 + 1e-6


@pytest.mark.parametrize(
    ("size", "pool", "strides"), [((8, 8), 3, 2), ((7, 9), 2, 2), ((5, 6), 3, 1), ((6, 7), 1, 3)]
)
def test_average_pooling_is_tensorflow_s(size, pool, strides):
    inputs = np.random.default_rng(0).random((2, *size, 3), np.float32)
    expected = keras.layers.AveragePooling2D(pool, strides, "same")(inputs)
    found = autoattack.AveragePooling2D(pool, strides, "same")(inputs)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def of_all_kinds(conv):
    """Returns convolutions of each padding, stride, dilation, and group."""
    return [
        *(conv(8, 3, strides=2, padding="same", activation="relu"), conv(8, 2, strides=2)),
        *(conv(8, (3, 2), padding="same", groups=4), conv(8, (1, 3), use_bias=False)),
        conv(8, 3, padding="same", dilation_rate=2),
    ]


@pytest.mark.usefixtures("torchattacks")
@pytest.mark.parametrize("kind", ["convolution", "average pooling"])
def test_layers_that_keras_computes_in_another_way_there(kind):
    keras.utils.set_random_seed(0)
    layers = {
        "convolution": of_all_kinds(keras.layers.Conv2D),
        "average pooling": [keras.layers.AveragePooling2D(3, 2, "same")],
    }[kind]
    model = keras.Sequential(
        [keras.Input((23, 18, 3)), *layers, keras.layers.Flatten(), keras.layers.Dense(4)]
    )
    x = np.random.default_rng(0).random((4, 23, 18, 3), np.float32)
    wrong = (np.argmax(model(x), axis=1) + 1) % 4  # nothing is left to attack
    # Which compares the logits of the two backends.
    perturb = autoattack.autoattack(model, 0.01)
    adversarial, misclassified = perturb(x, wrong, image_seeds(0, 0, np.arange(len(x))))
    assert misclassified.all()
    np.testing.assert_allclose(adversarial, x, atol=1e-6)


def test_too_few_classes():
    autoattack.check_classes(4)
    with pytest.raises(UsageError, match=r"4 classes or more\. .* Received: 3"):
        autoattack.check_classes(3)


@pytest.mark.usefixtures("torchattacks")
def test_too_few_classes_of_a_model():
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    with pytest.raises(UsageError, match=r"4 classes or more\. .* Received: 3"):
        autoattack.autoattack(model, EPS)


def test_our_pgd_finds_what_torchattacks_finds(torchattacks):
    """The same attack of another implementation, on the same two-layer network."""
    import torch

    model, first, second = two_layers()
    eps = 0.01
    x = images(200)
    labels = np.asarray(model(x)).argmax(axis=1).astype(np.int32)

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Parameter(torch.from_numpy(first))
            self.second = torch.nn.Parameter(torch.from_numpy(second))

        def forward(self, images):
            return torch.relu(images.flatten(1) @ self.first) @ self.second

    theirs = torchattacks.PGD(Classifier(), eps=eps, alpha=2.5 * eps / 20, steps=20)
    adversarial = theirs(torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(labels).long())
    theirs = np.asarray(model(adversarial.permute(0, 2, 3, 1).numpy())).argmax(axis=1) == labels
    attack = catalogue.make("pgd", subject(model), catalogue.Options(eps=eps, steps=20))
    ours = (
        np.asarray(model(attack.perturb(x, labels, image_seeds(0, 0, np.arange(len(x)))))).argmax(
            axis=1
        )
        == labels
    )
    assert 20 < ours.sum() < 180
    assert abs(int(ours.sum()) - int(theirs.sum())) <= 2
    assert (ours != theirs).sum() <= 4


def two_layers():
    """Returns a network of two layers without biases, and its weights."""
    rng = np.random.default_rng(3)
    first = rng.normal(size=(64, 32)).astype(np.float32)
    first -= first.mean(axis=0)  # blind to the gray that all images have in common
    second = rng.normal(size=(32, 5)).astype(np.float32)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Dense(32, use_bias=False, activation="relu")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(5, use_bias=False)(x))
    model.set_weights([first, second])
    return model, first, second


def test_ties_of_quantized_logits_go_to_the_first():
    logits = np.array([[3.0, 3.0, 1.0], [1.0, 3.0, 3.0], [0.0, 0.0, 0.0]])
    ranked = square.ranked(logits)
    assert (ranked.argmax(axis=1) == logits.argmax(axis=1)).all()
    assert all(len(set(row)) == 3 for row in ranked.tolist())
    np.testing.assert_allclose(ranked, logits, atol=1e-4)
