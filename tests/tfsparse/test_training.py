"""A training step against its formula, and a resumed run against one that was not interrupted."""

import os
import pathlib
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.ops import convert_to_numpy as to_numpy

from tfsparse import UsageError, backend
from tfsparse import checkpoints as checkpointing
from tfsparse.attacks import fgsm
from tfsparse.checkpoints import Checkpoints, Stopped
from tfsparse.optimizers import sgd
from tfsparse.pruning import DNRSchedule, Pruner
from tfsparse.training import Trainer


def linear_model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((28, 28, 1))
    return keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(inputs)))


@pytest.mark.parametrize(("beta", "smoothing"), [(0.0, 0.0), (0.3, 0.0), (1.0, 0.0), (0.3, 0.1)])
def test_step_descends_the_hybrid_loss(fashion_mnist, beta, smoothing):
    images, labels = fashion_mnist[0][:32], fashion_mnist[1][:32]
    model = linear_model()
    w, b = (array.astype(np.float64) for array in model.get_weights())
    attack = fgsm(model, 0.1)
    adversarial = attack(tf.constant(images), tf.constant(labels), tf.constant([0, 0])).numpy()
    trainer = Trainer(model, keras.optimizers.SGD(0.5), attack, None, beta, smoothing)
    batches = tf.data.Dataset.from_tensors((images, labels))
    metrics = trainer.run_epoch(batches, seed=0)

    target = (1 - smoothing) * np.eye(10)[labels] + smoothing / 10
    loss, gradient = 0.0, np.zeros_like(w)
    for weight, x in ((beta, images), (1 - beta, adversarial)):
        x = x.reshape(32, -1)
        logits = x @ w + b
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        loss -= weight * np.mean(np.sum(target * np.log(p), axis=1))
        gradient += weight * x.T @ (p - target) / 32
    assert metrics["loss"] == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(model.get_weights()[0], w - 0.5 * gradient, atol=1e-5)
    names = {"loss", "train_clean_accuracy", "train_adversarial_accuracy", "seconds"}
    assert set(metrics) == names


def test_regularisation_losses_of_layers_count(fashion_mnist):
    model = linear_model()
    model.layers[-1].kernel.regularizer = keras.regularizers.L2(0.5)
    penalty = 0.5 * np.sum(np.square(model.get_weights()[0]))
    batches = tf.data.Dataset.from_tensors((fashion_mnist[0][:8], fashion_mnist[1][:8]))
    plain = Trainer(linear_model(), keras.optimizers.SGD(0.1)).run_epoch(batches, seed=0)
    metrics = Trainer(model, keras.optimizers.SGD(0.1)).run_epoch(batches, seed=0)
    assert metrics["loss"] - plain["loss"] == pytest.approx(penalty, rel=1e-4)
    assert set(metrics) == {"loss", "train_clean_accuracy", "seconds"}


def test_diverged_loss_stops_the_run(fashion_mnist):
    batches = tf.data.Dataset.from_tensors((fashion_mnist[0][:8], fashion_mnist[1][:8])).repeat(3)
    trainer = Trainer(linear_model(), keras.optimizers.SGD(float("inf")))
    with pytest.raises(UsageError, match=r"loss is nan at step \d\. Choose a smaller learning"):
        trainer.run_epoch(batches, seed=0)


def test_a_batch_smaller_than_the_number_of_replicas_is_refused(fashion_mnist, monkeypatch):
    trainer = Trainer(linear_model(), keras.optimizers.SGD(0.1))
    weights = trainer.model.get_weights()
    monkeypatch.setattr(backend, "replicas", lambda: 4)
    data = tf.data.Dataset.from_tensor_slices((fashion_mnist[0][:3], fashion_mnist[1][:3]))
    with pytest.raises(UsageError, match=r"4 replicas share.*a batch of 3.*drop_remainder"):
        trainer.run_epoch(data.batch(4), seed=0)
    for ours, theirs in zip(trainer.model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def make_trainer(
    end_step=8, algorithm=None, structure="unstructured", rate=0.1, optimizer=None, **arguments
):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((28, 28, 1))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(8, 3, 2)(inputs))
    x = keras.layers.Conv2D(16, 3, 2)(keras.layers.ReLU()(x))
    model = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.GlobalMaxPooling2D()(x)))
    schedule = DNRSchedule(0.8, end_step=end_step, frequency=3)
    pruner = Pruner(model, schedule, structure=structure, algorithm=algorithm)
    rate = keras.optimizers.schedules.CosineDecay(rate, 9)
    optimizer = optimizer or keras.optimizers.SGD(rate, momentum=0.9)
    return Trainer(model, optimizer, fgsm(model, 0.05), pruner, **arguments)


def batches_of(images, labels, first=0):
    data = tf.data.Dataset.from_tensor_slices((images[:96], labels[:96])).batch(32)
    return data.skip(first)


def same_bits(trainer, other):
    assert trainer.variables.keys() == other.variables.keys()
    for name, variable in other.variables.items():
        mine, theirs = to_numpy(trainer.variables[name]), to_numpy(variable)
        np.testing.assert_array_equal(mine, theirs, err_msg=name)


class KilledError(Exception):
    """Stands for a kill after a step."""


def train_three_epochs(folder, trainer, data, stops=()):
    """Trains, or continues, with a checkpoint after each step; returns the history."""
    checkpoints = Checkpoints(folder, trainer, minutes=0)
    checkpoints.restore()

    def after_step(is_last):
        checkpoints.after_step(is_last)
        if trainer.step in stops and trainer.step > first:
            raise KilledError

    first = trainer.step
    for _ in range(checkpoints.epoch, 3):
        batches = batches_of(*data, trainer.batches_done)
        row = trainer.run_epoch(batches, seed=0, after_step=after_step)
        assert row.pop("seconds") > 0
        checkpoints.history.append(row)
        checkpoints.after_epoch()
    return checkpoints.history


@pytest.fixture(scope="module")
def whole(fashion_mnist, tmp_path_factory):
    """The trainer of a run that was not stopped, and its history."""
    tf.config.experimental.enable_op_determinism()
    trainer = make_trainer()
    return trainer, train_three_epochs(tmp_path_factory.mktemp("whole"), trainer, fashion_mnist)


@pytest.mark.slow
@pytest.mark.parametrize("stops", [(3,), (1, 2, 4, 5, 7, 8)])
def test_stopped_run_ends_as_one_that_was_not(whole, fashion_mnist, tmp_path, stops):
    """To the bit: weights, momenta, masks, history; wherever it was stopped, between steps."""
    for _ in stops:
        with pytest.raises(KilledError):
            train_three_epochs(tmp_path, make_trainer(), fashion_mnist, stops)
    stopped = make_trainer()
    assert train_three_epochs(tmp_path, stopped, fashion_mnist) == whole[1]
    assert len(whole[1]) == 3
    same_bits(stopped, whole[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_is_obeyed_after_the_step_and_saved(fashion_mnist, tmp_path, number, capsys):
    trainer = make_trainer()
    before = signal.getsignal(number)

    def after_step(is_last):
        if trainer.step == 2:
            os.kill(os.getpid(), number)
        checkpoints.after_step(is_last)

    with pytest.raises(Stopped) as caught, Checkpoints(tmp_path, trainer) as checkpoints:
        trainer.run_epoch(batches_of(*fashion_mnist), seed=0, after_step=after_step)
    assert caught.value.code == 128 + number
    assert signal.getsignal(number) is before
    assert signal.Signals(number).name in capsys.readouterr().err
    resumed = make_trainer()
    Checkpoints(tmp_path, resumed).restore()
    assert (resumed.step, resumed.batches_done) == (2, 2)
    same_bits(resumed, trainer)


def test_a_good_checkpoint_outlives_a_damaged_one_and_a_full_disk(
    fashion_mnist, tmp_path, monkeypatch, capsys
):
    trainer = make_trainer()
    checkpoints = Checkpoints(tmp_path, trainer)
    checkpoints.save()
    trainer.run_epoch(batches_of(*fashion_mnist), seed=0)
    checkpoints.save()
    checkpoints.path.write_bytes(b"\xff" * 99)

    def restored():
        fresh = make_trainer()
        checkpoints = Checkpoints(tmp_path, fresh)
        checkpoints.restore()
        return checkpoints, fresh

    checkpoints, fresh = restored()
    assert fresh.step == 0
    assert "warning:" in capsys.readouterr().err

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "write_bytes", full)
        with pytest.raises(UsageError, match="No space left"):
            checkpoints.save()
    checkpoints, fresh = restored()
    assert fresh.step == 0
    fresh.run_epoch(batches_of(*fashion_mnist), seed=0)
    checkpoints.save()
    _, fresh = restored()
    assert fresh.step == trainer.step


def test_a_state_that_is_not_finite_is_not_saved(tmp_path):
    trainer = make_trainer()
    checkpoints = Checkpoints(tmp_path, trainer)
    checkpoints.save()
    weight = trainer.model.trainable_variables[0]
    weight.assign(np.full(weight.shape, np.inf))
    with pytest.raises(UsageError, match=r"diverged.*smaller learning rate"):
        checkpoints.save()
    fresh = make_trainer()
    Checkpoints(tmp_path, fresh).restore()
    assert np.isfinite(to_numpy(fresh.model.trainable_variables[0])).all()


@pytest.mark.parametrize("is_long", [True, False])
def test_no_step_is_lost_while_an_epoch_is_validated(fashion_mnist, tmp_path, monkeypatch, is_long):
    """What is killed between a long epoch's last step and `after_epoch` has its steps."""
    monkeypatch.setattr(checkpointing, "BEFORE_VALIDATION_SECONDS", 0 if is_long else 1000)
    trainer = make_trainer()
    checkpoints = Checkpoints(tmp_path, trainer, minutes=1000)
    data = batches_of(*fashion_mnist)
    means = trainer.run_epoch(data, seed=0, after_step=checkpoints.after_step)
    resumed = make_trainer()
    again = Checkpoints(tmp_path, resumed)
    again.restore()
    done = len(data) if is_long else 0
    assert (again.epoch, resumed.batches_done, resumed.step) == (0, done, done)
    rest = batches_of(*fashion_mnist, resumed.batches_done)
    assert resumed.run_epoch(rest, seed=0)["loss"] == means["loss"]
    same_bits(resumed, trainer)


def test_no_checkpoint_is_a_new_run(tmp_path):
    trainer = make_trainer()
    checkpoints = Checkpoints(tmp_path, trainer)
    checkpoints.restore()
    assert (checkpoints.epoch, checkpoints.history, trainer.step) == (0, [], 0)


DAMAGES = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "a digit of the metadata": lambda content: content.replace(b'"epoch":"0"', b'"epoch":"1"'),
    "a bit": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, damage, capsys):
    trainer = make_trainer()
    checkpoints = Checkpoints(tmp_path, trainer)
    checkpoints.save()
    trainer.batches_done = 1
    checkpoints.save()
    checkpoints.path.write_bytes(DAMAGES[damage](checkpoints.path.read_bytes()))
    trainer.batches_done = 7
    Checkpoints(tmp_path, trainer).restore()
    assert trainer.batches_done == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "checkpoint.safetensors" in line
    assert "Continuing from the previous one" in line
    checkpoints.previous.write_bytes(b"")
    with pytest.raises(UsageError, match=r"checkpoint\.safetensors"):
        Checkpoints(tmp_path, trainer).restore()
    checkpoints.path.unlink()
    checkpoints.save()
    Checkpoints(tmp_path, trainer).restore()
    assert trainer.batches_done == 0


def test_checkpoint_of_another_model(tmp_path):
    Checkpoints(tmp_path, Trainer(linear_model(), keras.optimizers.SGD(0.1))).save()
    with pytest.raises(UsageError, match="another model"):
        Checkpoints(tmp_path, make_trainer()).restore()


def convolutional_model():
    """The linear model as one convolution, which can be pruned."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((28, 28, 1))
    return keras.Model(inputs, keras.layers.Flatten()(keras.layers.Conv2D(10, 28)(inputs)))


def test_averaged_weights_follow_their_formula(fashion_mnist):
    """a <- m a + (1 - m) w after each step, the first w as it is; zeros outside the mask."""
    momentum = 0.8
    model = convolutional_model()
    pruner = Pruner(model, DNRSchedule(0.5, 100, 100), seed=0)
    trainer = Trainer(model, sgd(10, 0.1, 0.0, ema_momentum=momentum), pruner=pruner)
    average = None
    for step in range(4):
        images = fashion_mnist[0][step * 16 :][:16], fashion_mnist[1][step * 16 :][:16]
        trainer.run_epoch(tf.data.Dataset.from_tensors(images), seed=0)
        kernel = model.get_weights()[0]
        average = kernel if average is None else momentum * average + (1 - momentum) * kernel
    before = model.get_weights()
    with trainer.averaged_weights():
        averaged = model.get_weights()[0]
    np.testing.assert_allclose(averaged, average, atol=1e-6)
    assert (averaged[pruner.masks[0].numpy() == 0] == 0).all()
    assert np.abs(averaged - before[0]).max() > 1e-4
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_without_averages_the_model_stays_as_it_is(fashion_mnist):
    trainer = Trainer(linear_model(), sgd(10, 0.1, 0.0))
    before = trainer.model.get_weights()
    with trainer.averaged_weights():
        np.testing.assert_array_equal(trainer.model.get_weights()[0], before[0])
    np.testing.assert_array_equal(trainer.model.get_weights()[0], before[0])


def test_what_a_new_mask_prunes_leaves_the_average(fashion_mnist):
    """A weight that was pruned later has an average of its own, which must not show."""
    model = convolutional_model()
    pruner = Pruner(model, DNRSchedule(0.5, 8, 2), seed=0)
    trainer = Trainer(model, sgd(10, 0.1, 0.0, ema_momentum=0.9), pruner=pruner)
    data = tf.data.Dataset.from_tensor_slices((fashion_mnist[0][:96], fashion_mnist[1][:96]))
    trainer.run_epoch(data.batch(16), seed=0)
    with trainer.averaged_weights():
        kernel = model.get_weights()[0]
    mask = pruner.masks[0].numpy()
    assert (kernel[mask == 0] == 0).all()
    assert np.count_nonzero(kernel) > 0
