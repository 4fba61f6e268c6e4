"""Labels in every form that Keras takes, and images in any range, wherever the library takes them.

Each form of the same labels must give the same result, and what is no label one line.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.zoo.robustness.known_models import subject as subject_of
from tflite.convert import convert
from tflite.verify import verify
from tfsparse import UsageError, attacks, training
from tfsparse.evaluation import accuracy, decision_threshold
from tfsparse.examples import class_labels, highest_chance, highest_guess
from zoo.robustness import catalogue, runner
from zoo.robustness.intervals import wilson

CLASSES, EPS = 4, 0.1


def one_hot(labels):
    return np.eye(CLASSES)[labels]


FORMS = {
    "column": lambda y: y[:, None],
    "one_hot": one_hot,
    "one_hot_float16": lambda y: one_hot(y).astype(np.float16),
    "one_hot_int": lambda y: one_hot(y).astype(np.uint8),
    "one_hot_bool": lambda y: one_hot(y).astype(bool),
    **{
        dtype: lambda y, dtype=dtype: y.astype(dtype)
        for dtype in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
    },
    "column_uint8": lambda y: y[:, None].astype(np.uint8),
}
# Labels of three images and what the line must say.
WRONG = {
    "too_few": ([0, 1], r"must have the shape \(3,\).*Received: \(2,\)"),
    "square": (np.zeros((3, 3), int), r"Received: \(3, 3\)"),
    "no_class": ([0, 1, 4], "among 0 to 3. Received: 4"),
    "negative": ([0, -1, 1], "Received: -1"),
    "float": ([0.0, 1.0, 2.0], "must be integers, or one-hot. Received: float"),
    "nan": ([0.0, np.nan, 1.0], "must be integers"),
    "smoothed": (0.9 * one_hot([0, 1, 2]) + 0.025, "one-hot: a single 1 in each row"),
    "two_ones": (one_hot([0, 1, 2]) + one_hot([1, 2, 3]), "a single 1"),
    "one_hot_nan": (one_hot([0, 1, 2]) * np.nan, "a single 1"),
    "text": (["a", "b", "c"], "must be integers"),
}
IMAGES = {
    "bytes": (lambda x: (255 * x).astype(np.uint8), "divide 8-bit images by 255.*uint8"),
    "0_to_255": (lambda x: 255 * x, "divide 8-bit images by 255.*float32 from"),
    "nan": (lambda x: np.where(x > 0.5, np.float32(np.nan), x), "nan"),
    "other_size": (lambda x: x[:, :4], r"\(n, 8, 8, 1\) with n > 0"),
    "none": (lambda x: x[:0], "n > 0"),
}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(CLASSES)]
    return keras.Sequential(layers)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((40, 8, 8, 1), np.float32)


@pytest.fixture(scope="module")
def labels(model, images):
    """The model's own classes, but for every fourth image."""
    found = np.asarray(model(images)).argmax(axis=1)
    found[::4] = (found[::4] + 1) % CLASSES
    return found


def takers(model):
    """{name: function of images and labels} of all that takes them; each returns numbers."""
    content = convert(model, "float32")

    def verified(images, labels):
        found = verify(content, model, images, labels, precision="float32")
        return [found.keras_accuracy, found.file_accuracy, found.accuracy_loss]

    def batches(images, labels):
        return tf.data.Dataset.from_tensors((images, labels))

    def evaluated(images, labels):
        results = runner.Results(None, {"seed": 0, "batch_size": 16}, len(images))
        subject = subject_of(model)
        for name in ("clean", "fgsm"):
            attack = catalogue.make(name, subject, catalogue.Options(EPS))
            runner.run(subject, attack, images, labels, results)
        return [*results.correct("clean"), *results.correct("fgsm")]

    def trained(images, labels):
        copy = keras.models.clone_model(model)
        copy.set_weights(model.get_weights())
        attack = attacks.fgsm(copy, EPS)
        trainer = training.Trainer(copy, keras.optimizers.SGD(0.1), attack)
        found = trainer.run_epoch(batches(images, labels), 0)
        return [found["loss"], found["train_clean_accuracy"]]

    attack = attacks.pgd(model, EPS, 2)
    return {
        "verify": verified,
        "accuracy": lambda *data: [accuracy(model, batches(*data), attack)],
        "attack": lambda *data: attack(*data, tf.constant([0, 0])),
        "evaluation": evaluated,
        "trainer": trained,
    }


TAKERS = ("verify", "accuracy", "attack", "evaluation", "trainer")


@pytest.fixture(scope="module")
def all_takers(model):
    found = takers(model)
    assert tuple(found) == TAKERS
    return found


@pytest.mark.parametrize("form", FORMS)
def test_a_form_of_labels_is_their_classes(labels, form):
    found = class_labels(FORMS[form](labels), len(labels), CLASSES)
    np.testing.assert_array_equal(found, labels)
    assert found.dtype == np.int32


@pytest.mark.parametrize("taker", TAKERS)
def test_all_forms_of_labels_give_the_same(all_takers, images, labels, taker):
    expected = np.asarray(all_takers[taker](images, labels))
    for form in ("column", "one_hot", "one_hot_int", "uint8", "int64"):
        found = all_takers[taker](images, FORMS[form](labels))
        np.testing.assert_array_equal(found, expected, err_msg=form)
    if taker == "verify":
        assert list(expected) == [0.75, 0.75, 0.0]


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_label_is_refused(wrong):
    labels, message = WRONG[wrong]
    with pytest.raises(UsageError, match=message):
        class_labels(labels, 3, CLASSES)


@pytest.mark.parametrize("taker", TAKERS)
def test_all_refuse_what_is_no_label(all_takers, images, taker):
    for wrong in ("square", "no_class", "float", "smoothed"):
        labels, message = WRONG[wrong]
        with pytest.raises(UsageError, match=message):
            all_takers[taker](images[:3], labels)


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("wrong", IMAGES)
def test_all_refuse_what_is_no_image(all_takers, images, labels, wrong, taker):
    if wrong == "other_size" and taker == "trainer":
        pytest.skip("Keras' own error says it")
    change, message = IMAGES[wrong]
    found = change(images)
    with pytest.raises(UsageError, match=message):
        all_takers[taker](found, labels[: len(found)])


def test_labels_of_one_output_are_0_and_1():
    for labels in ([0, 1], [[0], [1]], [0.0, 1.0], [False, True], np.array([[0.0], [1.0]])):
        assert class_labels(labels, 2, 1).tolist() == [0, 1]
    with pytest.raises(UsageError, match=r"among 0 to 1\. Received: 2"):
        class_labels([0, 2], 2, 1)
    with pytest.raises(UsageError, match=r"Received: 0\.5"):
        class_labels([0, 0.5], 2, 1)


def one_output(kind):
    """A model of one output that is as it is called: which of two images is brighter."""
    image = keras.Input((8, 8, 1))
    dense = keras.layers.Dense(1, activation="sigmoid" if kind == "activation" else None)
    x = dense(keras.layers.Flatten()(image))
    if kind == "layer":
        x = keras.layers.Activation("sigmoid")(x)
    if kind == "operation":
        x = keras.ops.sigmoid(x)
    model = keras.Model(image, x)
    if kind == "nested":
        image = keras.Input((8, 8, 1))
        model = keras.Model(image, one_output("activation")(image))
    model.set_weights([np.full((64, 1), 0.5), np.array([-16.0])])
    return model


@pytest.mark.parametrize("kind", ["activation", "layer", "operation", "nested", "logit"])
def test_one_output_tells_two_classes_apart(images, kind):
    model = one_output(kind)
    labels = (images.mean(axis=(1, 2, 3)) > 0.5).astype(int)
    assert decision_threshold(model) == (0.0 if kind == "logit" else 0.5)
    batches = tf.data.Dataset.from_tensors((images, labels[:, None]))
    assert accuracy(model, batches) == 1.0
    assert accuracy(model, batches, attacks.fgsm(model, 3 * EPS)) == 0.0
    found = verify(convert(model, "float32"), model, images, labels, precision="float32")
    assert found.passed, found.failures
    assert found.keras_accuracy == found.file_accuracy == 1.0
    assert verify(convert(model, "int8", images), model, images, labels, precision="int8").passed


@pytest.mark.parametrize("kind", ["activation", "logit"])
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_constant_file_of_one_output_fails(images, kind, precision):
    model, constant = one_output(kind), one_output(kind)
    constant.set_weights([np.zeros((64, 1)), np.zeros(1)])
    labels = (images.mean(axis=(1, 2, 3)) > 0.5).astype(int)
    content = convert(constant, "float32")
    assert not verify(content, model, images, precision=precision).passed
    found = verify(content, model, images, labels, precision=precision)
    assert len(found.failures) == 3
    assert found.file_accuracy == np.mean(labels == 0)


def test_a_trainer_needs_an_output_for_each_class(images):
    model = one_output("logit")
    trainer = training.Trainer(model, keras.optimizers.SGD(0.1))
    batches = tf.data.Dataset.from_tensors((images, np.ones(len(images), int)))
    with pytest.raises(UsageError, match="an output for each class"):
        trainer.run_epoch(batches, 0)


@pytest.mark.parametrize("attack", ["pgd", "uniform_noise", "gaussian_noise"])
def test_attacks_in_another_range_are_those_of_the_unit_range(model, images, labels, attack):
    """A model of images in 0..255 that divides by 255 is the same model."""
    image = keras.Input((8, 8, 1))
    other = keras.Model(image, model(keras.layers.Rescaling(1 / 255)(image)))
    seed = tf.constant([0, 1])

    def attacked(model, images, **options):
        settings = {"steps": 3, "random_start": False} if attack == "pgd" else {}
        arguments = (model, EPS) if attack == "pgd" else (EPS,)
        make = getattr(attacks, attack)
        return make(*arguments, **settings, **options)(images, labels, seed).numpy()

    expected = attacked(model, images)
    found = attacked(other, 255 * images, input_range=(0, 255))
    np.testing.assert_allclose(found / 255, expected, atol=1e-5)
    batches = tf.data.Dataset.from_tensors((255 * images, labels))
    assert accuracy(other, batches, input_range=(0, 255)) == 0.75
    with pytest.raises(UsageError, match=r"floats in \[0, 255\]; as input_range says"):
        accuracy(other, batches.map(lambda x, y: (2 * x, y)), input_range=(0, 255))


@pytest.mark.parametrize("wrong", [(0,), (1, 0), (0, np.nan), (0, np.inf), None, 255])
def test_ranges_that_are_none(model, wrong):
    with pytest.raises(UsageError, match="input_range must be"):
        attacks.pgd(model, EPS, 1, input_range=wrong)


def test_chance_level_is_what_guessing_reaches():
    balanced = np.arange(100) % 10
    for correct in range(100):
        low, high = wilson(correct, 100)
        is_near = low <= 0.1 <= high
        assert (correct / 100 <= highest_chance(balanced, 10)) == (is_near or correct < 10)
    assert 0.5 < highest_chance(np.arange(1000) % 2, 1) < 0.55  # one output: two classes


def test_chance_level_is_what_always_the_same_answer_reaches():
    labels = np.array([0] * 260 + [1] * 130 + [2] * 50)
    assert highest_chance(labels, 3) == 260 / 440
    assert highest_guess(440, 3) == highest_chance(np.arange(440) % 3, 3) < 0.4
