"""Checkpoints of a sound epoch: what is gone back to is that state, to the bit."""

import os

import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy

from tests.tfsparse.test_training import batches_of, make_trainer, same_bits
from tfsparse import UsageError, checkpoints
from tfsparse.checkpoints import Checkpoints


def run_epoch(trainer, kept, data, is_sound):
    row = trainer.run_epoch(batches_of(*data), seed=0, after_step=kept.after_step)
    kept.history.append(row)
    kept.after_epoch(is_sound)


@pytest.fixture(autouse=True)
def epochs_are_long(monkeypatch):
    """So each has a checkpoint before its validation."""
    monkeypatch.setattr(checkpoints, "BEFORE_VALIDATION_SECONDS", 0)


@pytest.fixture
def overfitted(fashion_mnist, tmp_path):
    """A run of a sound epoch and one that is not, and its variables after the first."""
    trainer = make_trainer()
    kept = Checkpoints(tmp_path, trainer)
    run_epoch(trainer, kept, fashion_mnist, is_sound=True)
    state = {name: to_numpy(variable) for name, variable in trainer.variables.items()}
    trainer.run_epoch(batches_of(*fashion_mnist), seed=0, after_step=kept.after_step)
    return trainer, kept, state


def restored(folder):
    trainer = make_trainer()
    kept = Checkpoints(folder, trainer)
    kept.restore()
    return trainer, kept


def test_goes_back_to_weights_momenta_masks_and_history(overfitted, fashion_mnist, tmp_path):
    trainer, kept, state = overfitted
    assert trainer.step == 6
    kept.go_back({"epoch": 2})
    trainer, again = restored(tmp_path)
    assert (trainer.step, trainer.batches_done, again.epoch) == (3, 0, 1)
    assert (again.history, again.recoveries) == (kept.history, [{"epoch": 2}])
    for name, value in state.items():
        np.testing.assert_array_equal(to_numpy(trainer.variables[name]), value, err_msg=name)
    # The next epoch, again not sound, is gone back from to the same state; both are remembered.
    trainer.run_epoch(batches_of(*fashion_mnist), seed=0, after_step=again.after_step)
    again.go_back({"epoch": 2, "again": True})
    third, kept = restored(tmp_path)
    assert kept.recoveries == [{"epoch": 2}, {"epoch": 2, "again": True}]
    assert third.step == 3


def test_killed_while_it_goes_back(overfitted, tmp_path, monkeypatch):
    """The epoch that is not sound is still the newest, so its validation is repeated."""
    trainer, kept, _ = overfitted

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            kept.go_back({"epoch": 2})
    again, kept = restored(tmp_path)
    assert (again.step, again.batches_done, kept.epoch, kept.recoveries) == (6, 3, 1, [])
    same_bits(again, trainer)


@pytest.mark.parametrize("has_links", [True, False])
def test_killed_between_the_two_files(fashion_mnist, tmp_path, monkeypatch, has_links):
    """The state to go back to is written first: else it could be older than the newest one."""
    if not has_links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError))
    trainer = make_trainer()
    kept = Checkpoints(tmp_path, trainer)
    copy = checkpoints.copy_file

    def copy_and_die(source, target):
        copy(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "copy_file", copy_and_die)
    with pytest.raises(KeyboardInterrupt):
        run_epoch(trainer, kept, fashion_mnist, is_sound=True)
    again, kept = restored(tmp_path)
    assert (again.batches_done, kept.epoch) == (3, 0)
    monkeypatch.undo()
    again, kept = restored(tmp_path)
    kept.go_back({})
    again, kept = restored(tmp_path)
    assert (again.batches_done, kept.epoch, again.step) == (0, 1, 3)


def test_without_a_sound_epoch_one_line_says_so(tmp_path):
    kept = Checkpoints(tmp_path, make_trainer())
    kept.save()
    with pytest.raises(UsageError, match=r"Cannot read .*checkpoint-sound\.safetensors"):
        kept.go_back({})
