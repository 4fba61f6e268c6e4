"""Overfitting to the attack: a network that does, and what becomes of the run."""

import csv
import shutil
import types

import keras
import numpy as np
import pytest

import zoo.data
from tfsparse import UsageError, attacks
from tfsparse.checkpoints import Checkpoints
from tfsparse.epochs import overfits_attack
from tfsparse.evaluation import accuracy
from tfsparse.training import Trainer
from zoo.data import batches, training_batches
from zoo.overfitting import respond, training_attack

EPS = 0.2


def network():
    """A network without BatchNormalization for 14x14 images of four classes."""
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((14, 14, 1))
    for filters, stride in ((32, 1), (32, 2), (64, 2)):
        x = keras.layers.Conv2D(filters, 3, stride, "same", activation="relu")(x)
    return keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Flatten()(x)))


@pytest.fixture(scope="module")
def data(data_dir):
    """600 training and 400 test images of trousers, sneakers, bags, and boots."""
    dataset = zoo.data.open_dataset("fashion_mnist_small", data_dir, image_size=14)
    found = []
    for split, count in (("train", 600), ("test", 400)):
        images, labels = dataset.read(split)
        chosen = np.flatnonzero(np.isin(labels, (1, 7, 8, 9)))[:count]
        found.append((images[chosen], np.searchsorted((1, 7, 8, 9), labels[chosen]).astype("i4")))
    return found


def start(folder):
    """Returns the run in `folder` at its newest checkpoint, as train.py sets it up."""
    model = network()
    trainer = Trainer(model, keras.optimizers.SGD(0.1, momentum=0.9), attacks.pgd(model, EPS, 3))
    checkpoints = Checkpoints(folder, trainer)
    checkpoints.restore()
    return trainer, checkpoints, attacks.pgd(model, EPS, 5)


def run_epoch(data, trainer, checkpoints, probe):
    """Trains and validates an epoch; returns whether it overfits."""
    training = training_batches(*data[0], 20, 0, checkpoints.epoch, augment=False)
    row = {"epoch": checkpoints.epoch + 1, **trainer.run_epoch(training, seed=0)}
    held_out = batches(*data[1], 200)
    row["validation_clean_accuracy"] = accuracy(trainer.model, held_out)
    row["validation_robust_accuracy"] = accuracy(trainer.model, held_out, probe)
    checkpoints.history.append(row)
    return overfits_attack(checkpoints.history, chance=0.3)


@pytest.mark.slow
def test_what_overfits_to_one_step_is_noticed_within_an_epoch_and_recovers(data, tmp_path):
    """Three epochs under PGD-3 are sound; one step without a random start is what overfits.

    In which epoch it does depends on rounding. In that epoch it must be noticed.
    """
    run = trainer, checkpoints, _ = start(tmp_path)
    for _ in range(3):
        assert not run_epoch(data, *run)
        checkpoints.after_epoch(is_sound=True)
    trainer, checkpoints, _ = run = start(tmp_path)
    trainer.attack = attacks.fgsm(trainer.model, EPS)
    name, chance = "validation_robust_accuracy", 0.3
    while not run_epoch(data, *run):
        assert checkpoints.history[-1][name] > chance
        checkpoints.after_epoch(is_sound=True)
        assert checkpoints.epoch < 20
    sound = checkpoints.epoch
    line, goes_on = respond("restore", checkpoints, 1)
    assert not goes_on
    assert f"catastrophic overfitting in epoch {sound + 1}" in line
    assert line.endswith("Back to the last sound epoch, with PGD-2.")

    trainer, checkpoints, _ = run = start(tmp_path)
    assert (checkpoints.epoch, len(checkpoints.history), trainer.step) == (sound, sound, 30 * sound)
    assert checkpoints.recoveries[0]["attack_steps"] == 2
    trainer.attack = training_attack(trainer.model, "nfgsm", 1, EPS, checkpoints.recoveries)
    run_epoch(data, *run)
    one_step, two_steps = checkpoints.recoveries[0], checkpoints.history[-1]
    assert two_steps["epoch"] == one_step["epoch"] == sound + 1
    assert two_steps[name] > 1.3 * one_step[name]


def test_other_responses():
    row = {"epoch": 1, "validation_robust_accuracy": 0.4, "train_adversarial_accuracy": 0.5}
    history = [row, {**row, "epoch": 2, "validation_robust_accuracy": 0.03}]
    went_back = []
    checkpoints = types.SimpleNamespace(history=history, go_back=went_back.append)
    line, goes_on = respond("continue", checkpoints, 1)
    assert goes_on
    assert "in epoch 2" in line
    assert "3.0% after 40.0%" in line
    remedies = {("stop", 1): "Give --attack_steps=2 ", ("restore", 10): "Continue with --on_over"}
    for (action, steps), remedy in remedies.items():
        with pytest.raises(UsageError, match=rf"Stopped.*{remedy}") as caught:
            respond(action, checkpoints, steps)
        assert "\n" not in str(caught.value)
    assert not went_back


class DoneError(Exception):
    """Training is over; the rest of the command is not tested here."""


@pytest.mark.slow
def test_a_run_that_goes_back_ends_the_same_if_it_is_killed(
    tfsparse, data_dir, tmp_path, monkeypatch
):
    """To the bit. The rule is made to find the second epoch under one step not sound."""
    found = []

    def two_layers(x, width=16, pattern=None):  # resnet8 takes longer
        x = keras.layers.Conv2D(8, 3, 2, activation="relu", name="first")(x)
        return keras.layers.BatchNormalization()(keras.layers.Conv2D(8, 3, name="second")(x))

    def rule(history, chance):
        if len(history) != 2:
            return False
        found.append(history[-1]["train_adversarial_accuracy"])
        return found[-1] == found[0]

    def read(dataset, split, *count, read=zoo.data.Dataset.read):
        if split == "test":
            raise DoneError
        return read(dataset, split, *count)

    def after_step(checkpoints, is_last, after_step=Checkpoints.after_step):
        after_step(checkpoints, is_last)
        assert checkpoints.trainer.beta == 0.3
        done = checkpoints.epoch, checkpoints.trainer.batches_done
        if checkpoints.recoveries and done == (1, 3):
            # What a kill at this moment would leave.
            shutil.copytree(tmp_path / "whole", tmp_path / "killed")

    def train(name):
        arguments = [f"--workdir={tmp_path / name}", f"--data_dir={data_dir}", "--image_size=8"]
        arguments += ["--loss=hybrid", "--beta=0.3", "--prune=dnr", "--density=0.5", "--epochs=3"]
        arguments += ["--batch_size=900", "--checkpoint_minutes=0", "--deterministic"]
        with pytest.raises(DoneError):
            tfsparse("train", *arguments)

    monkeypatch.setattr("tfsparse.epochs.overfits_attack", rule)
    monkeypatch.setattr(zoo.data.Dataset, "read", read)
    monkeypatch.setitem(zoo.ARCHITECTURES, "resnet8", two_layers)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "after_step", after_step)
        train("whole")
    assert len(found) == 2
    assert found[0] != found[1]  # the attack of the second time is another
    train("killed")
    models = [
        keras.saving.load_model(tmp_path / name / "model.keras") for name in ("whole", "killed")
    ]
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one, other)
    rows = []
    for name in ("whole", "killed"):
        with open(tmp_path / name / "history.csv", newline="") as file:
            rows.append([{**row, "seconds": None} for row in csv.DictReader(file)])
    assert rows[0] == rows[1]
    assert [row["epoch"] for row in rows[0]] == ["1", "2", "3"]
