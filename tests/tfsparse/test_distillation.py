"""Distillation against its formula in NumPy, under both backends, and what it refuses."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.ops import convert_to_numpy as to_numpy

from tests.tfsparse.test_training import linear_model
from tfsparse import UsageError
from tfsparse.attacks import fgsm
from tfsparse.checkpoints import Checkpoints
from tfsparse.distillation import Teacher
from tfsparse.precision import with_policy
from tfsparse.training import Trainer

IMAGES = np.random.default_rng(0).random((16, 28, 28, 1), np.float32)
LABELS = np.random.default_rng(1).integers(0, 10, 16)
BATCHES = [(tf.constant(IMAGES), tf.constant(LABELS))]


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def affine(model, images):
    kernel, bias = (array.astype(np.float64) for array in model.get_weights())
    return images.reshape(len(images), -1) @ kernel + bias


def teachers():
    """Two linear models of other weights, which tell classes apart with some confidence."""
    models = [linear_model(), linear_model()]
    for index, model in enumerate(models):
        rng = np.random.default_rng(index)
        model.set_weights([rng.normal(0, 0.3, weight.shape) for weight in model.get_weights()])
    return models


@pytest.mark.parametrize("is_attacked", [False, True])
@pytest.mark.parametrize(("temperature", "weight"), [(1.0, 1.0), (4.0, 0.9), (0.5, 0.3)])
def test_step_descends_the_loss_of_distillation(temperature, weight, is_attacked):
    student, models = linear_model(), teachers()
    before = [to_numpy(variable) for model in models for variable in model.variables]
    kernel = student.get_weights()[0].astype(np.float64)
    soft = np.mean([softmax(affine(each, IMAGES) / temperature) for each in models], axis=0)
    hard = np.eye(10)[LABELS]
    attack = fgsm(student, 0.1) if is_attacked else None
    batches = [IMAGES, to_numpy(attack(IMAGES, LABELS, (0, 0)))] if attack else [IMAGES]
    loss, gradient = 0.0, 0.0
    for x in batches:  # the teachers see the clean images only
        logits = affine(student, x)
        p, p_soft = softmax(logits), softmax(logits / temperature)
        losses = -(1 - weight) * (hard * np.log(p)).sum(1)
        losses -= weight * temperature**2 * (soft * np.log(p_soft)).sum(1)
        loss += losses.mean() / len(batches)
        error = (1 - weight) * (p - hard) + weight * temperature * (p_soft - soft)
        gradient += x.reshape(16, -1).T @ error / 16 / len(batches)

    teacher = Teacher(models, temperature, weight)
    trainer = Trainer(student, keras.optimizers.SGD(0.1), attack, teacher=teacher)
    metrics = trainer.run_epoch(BATCHES, seed=0)
    assert metrics["loss"] == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(student.get_weights()[0], kernel - 0.1 * gradient, atol=1e-5)
    np.testing.assert_allclose(to_numpy(teacher.soft_labels(IMAGES)), soft, atol=1e-5)
    after = [to_numpy(variable) for model in models for variable in model.variables]
    for ours, theirs in zip(after, before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_student_learns_what_its_teacher_says_and_no_label_did():
    """Without labels: those of the batch are wrong for all images."""
    teacher = teachers()[0]
    classes = affine(teacher, IMAGES).argmax(axis=1)
    batches = [(tf.constant(IMAGES), tf.constant((classes + 1) % 10))]
    student = linear_model()
    trainer = Trainer(student, keras.optimizers.Adam(0.01), teacher=Teacher([teacher], 2.0, 1.0))
    for _ in range(60):
        trainer.run_epoch(batches, seed=0)
    assert (affine(student, IMAGES).argmax(axis=1) == classes).all()


def test_a_teacher_may_compute_in_16_bits():
    model = teachers()[0]
    exact = to_numpy(Teacher([model]).soft_labels(IMAGES))
    copy = with_policy(model, "mixed_bfloat16")
    assert {layer.compute_dtype for layer in copy.layers[1:]} == {"bfloat16"}
    assert copy.inputs[0].dtype == "float32"
    found = to_numpy(Teacher([copy]).soft_labels(IMAGES))
    assert found.dtype == np.float32
    assert 0 < np.abs(found - exact).max() < 0.02


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"temperature": 0}, "temperature=0"),
        ({"temperature": np.inf}, "temperature=inf"),
        ({"weight": 0}, "weight=0"),
        ({"weight": 1.5}, "weight=1.5"),
    ],
)
def test_refused_settings(arguments, line):
    with pytest.raises(UsageError, match=f"Received: .*{line}"):
        Teacher([linear_model()], **arguments)


def network(shape, classes):
    inputs = keras.Input(shape)
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    return keras.Model(inputs, keras.layers.Dense(classes)(pooled))


@pytest.mark.parametrize(
    ("shape", "classes"), [((32, 32, 1), 10), ((28, 28, 3), 10), ((28, 28, 1), 9)]
)
def test_refused_models(shape, classes):
    other = network(shape, classes)
    with pytest.raises(UsageError, match="one or more models of images of one shape"):
        Teacher([linear_model(), other])
    with pytest.raises(UsageError, match=rf"tells {classes} classes apart.*\(28, 28, 1\) and 10"):
        Trainer(linear_model(), keras.optimizers.SGD(0.1), teacher=Teacher([other]))


def test_other_numbers_of_teachers():
    with pytest.raises(UsageError, match="Received: none"):
        Teacher([])
    with pytest.raises(UsageError, match="at least two"):
        Teacher([network((28, 28, 1), 1)])


@pytest.mark.parametrize("kind", ["activation", "layer", "operation", "nested"])
def test_a_teacher_of_probabilities_is_refused(kind):
    inputs = keras.Input((28, 28, 1))
    logits = keras.layers.Dense(10)(keras.layers.Flatten()(inputs))
    outputs = {
        "activation": keras.layers.Activation("softmax"),
        "layer": keras.layers.Softmax(),
        "operation": keras.ops.softmax,
        "nested": keras.Sequential([keras.layers.Dense(10, activation="softmax")]),
    }[kind](logits)
    with pytest.raises(UsageError, match="A teacher returns logits"):
        Teacher([keras.Model(inputs, outputs)])


def test_a_network_does_not_teach_itself():
    model = linear_model()
    with pytest.raises(UsageError, match="shares variables with its teacher"):
        Trainer(model, keras.optimizers.SGD(0.1), teacher=Teacher([model]))


class Subclass(keras.Model):
    """A student whose inputs and outputs are known when it is called."""

    def __init__(self, classes):
        super().__init__()
        self.layer = keras.layers.Dense(classes)

    def call(self, images, training=False):
        return self.layer(keras.ops.reshape(images, (-1, 784)))


def test_a_student_of_a_class_of_its_own():
    for classes in (10, 9):
        student = Subclass(classes)
        student(IMAGES)
        teacher = Teacher(teachers())
        trainer = Trainer(student, keras.optimizers.SGD(0.1), teacher=teacher)
        if classes == 10:
            assert trainer.run_epoch(BATCHES, seed=0)["loss"] > 0
        else:
            with pytest.raises(UsageError, match=r"the student, \(28, 28, 1\) and 9"):
                trainer.run_epoch(BATCHES, seed=0)


def test_a_teacher_of_images_of_any_size_fits():
    teacher = Teacher([network((None, None, 1), 10)])
    Trainer(linear_model(), keras.optimizers.SGD(0.1), teacher=teacher).run_epoch(BATCHES, seed=0)


@pytest.mark.parametrize("change", ["weights", "temperature", "none"])
def test_a_run_continues_with_the_same_teacher_only(tmp_path, change):
    def trainer(teacher):
        return Trainer(linear_model(), keras.optimizers.SGD(0.1), teacher=teacher)

    models = teachers()
    Checkpoints(tmp_path, trainer(Teacher(models[:1], 4.0))).save()
    Checkpoints(tmp_path, trainer(Teacher(models[:1], 4.0))).restore()
    other = {
        "weights": Teacher(models[1:], 4.0),
        "temperature": Teacher(models[:1], 3.0),
        "none": None,
    }[change]
    with pytest.raises(UsageError, match="was written with teacher"):
        Checkpoints(tmp_path, trainer(other)).restore()
    Checkpoints(tmp_path, trainer(other)).restore(unchecked=("teacher",))
