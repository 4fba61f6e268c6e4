"""Checkpoints of a training run: safetensors files with everything needed to continue it.

A run that is stopped and started again continues with the next step and ends like an uninterrupted
one. A checkpoint holds the weights, masks, momenta, dynamic regularizer, learning rate's step, and
the sums of the current epoch. Order, augmentation, and attacks follow from the seed, the epoch, and
the step, so there is no random state to save.

A checkpoint also holds the settings of its run: pruning schedule, algorithm, and structure, the
optimizer's hyperparameters, and those of the loss. A run with other settings would be neither the
one that began nor one of its own, so it is refused.
"""

import hashlib
import json
import os
import pathlib
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfsparse import distribution
from tfsparse.errors import UsageError
from tfsparse.files import copy_file, read_tensors, replacing, tensor_bytes
from tfsparse.hashing import hash_of_weights
from tfsparse.training import Trainer

PROGRESS = "progress/sums"
# Since the last checkpoint, for one between an epoch and its validation. On an accelerator, an
# epoch can take less time than two checkpoints of its network.
BEFORE_VALIDATION_SECONDS = 10


class Stopped(SystemExit):
    """The run was asked to stop and has saved what it did; its code is 128 plus the signal."""


class Checkpoints:
    """The newest checkpoint of a run, and the previous one in case the newest is damaged.

    A third one, if asked for, is that of the last epoch that was sound: the state to go back to if
    a later epoch is not.

    Args:
        folder: of "checkpoint.safetensors", "checkpoint-previous.safetensors", and
            "checkpoint-sound.safetensors".
        trainer: the `tfsparse.training.Trainer` whose state they hold.
        minutes: least time between two checkpoints of `after_step` within an epoch.

    Attributes:
        epoch: number of finished epochs.
        history: list of dicts, one per finished epoch.
        recoveries: list of dicts, one for each time that the run went back; see `go_back`.
    """

    def __init__(
        self, folder: str | os.PathLike[str], trainer: Trainer, minutes: float = 10.0
    ) -> None:
        self.path = pathlib.Path(folder) / "checkpoint.safetensors"
        self.previous = self.path.with_name("checkpoint-previous.safetensors")
        self.sound = self.path.with_name("checkpoint-sound.safetensors")
        self.trainer = trainer
        self.epoch = 0
        self.history: list[dict[str, Any]] = []
        self.recoveries: list[dict[str, Any]] = []
        self._settings = settings(trainer)  # now: training may change the learning rate
        self._newest_is_whole = False  # as this process has read or written it
        self._minutes = minutes
        self._saved = time.monotonic()
        self._signal: int | None = None

    def save(self, is_sound: bool = False) -> None:
        """Writes the trainer's state, completely or not at all.

        If it `is_sound`, it becomes the state to go back to. Keeps the previous checkpoint, unless
        it is damaged. If there are several workers, which all hold the same state, only the chief
        writes.

        Raises:
            UsageError: if the state is not finite or cannot be written.
        """
        self._saved = time.monotonic()
        if not distribution.is_chief():
            return
        tensors = {
            name: keras.ops.convert_to_numpy(variable)
            for name, variable in self.trainer.variables.items()
        }
        for name, value in tensors.items():
            if not np.all(np.isfinite(value)):
                raise UsageError(
                    f"The training has diverged: {name} is not finite after step "
                    f"{self.trainer.step}. Choose a smaller learning rate; the previous "
                    "checkpoint is kept."
                )
        tensors[PROGRESS] = self.trainer.sums
        metadata = {
            "epoch": str(self.epoch),
            "history": json.dumps(self.history),
            "recoveries": json.dumps(self.recoveries),
            "batches_done": str(self.trainer.batches_done),
            "seconds": str(self.trainer.seconds),
            "settings": json.dumps(self._settings),
        }
        self._write(tensors, metadata, is_sound)

    def _write(self, tensors, metadata, is_sound=False):
        metadata["sha256"] = _digest(tensors, metadata)
        with replacing(self.path) as partial:
            partial.write_bytes(tensor_bytes(tensors, metadata))
            if is_sound:  # first: a run that is killed between the two repeats the validation
                copy_file(partial, self.sound)
            if self._newest_is_whole and self.path.exists():
                os.replace(self.path, self.previous)
        self._newest_is_whole = True

    def go_back(self, recovery: dict[str, Any]) -> None:
        """Makes the sound checkpoint the newest one, with `recovery` added to its recoveries.

        The trainer stays as it is: to continue, make model, trainer, and checkpoints again and call
        `restore`, as in a new process.

        Args:
            recovery: dict for JSON.

        Raises:
            UsageError: if there is no sound checkpoint or it is damaged.
            Stopped: if the run was asked to stop.
        """
        if distribution.is_chief():
            tensors, metadata = _read(self.sound)
            metadata["recoveries"] = json.dumps([*self.recoveries, recovery])
            self._write(tensors, metadata)
        # The other workers wait here for the chief.
        if distribution.any_worker(self._signal):
            self._stop()

    def restore(self, unchecked: Sequence[str] = ()) -> None:
        """Loads the newest undamaged checkpoint into the trainer; does nothing if there is none.

        Args:
            unchecked: names of `settings` that may be others, in a run that no longer trains.

        Raises:
            UsageError: if all checkpoints are damaged, belong to another model, or are of a run
                with other settings, or if not all workers see the same one.
        """
        self._restore(unchecked)
        distribution.check_same(
            self.trainer.step,
            f"Not all workers see the same checkpoints in {self.path.parent}. Choose a --workdir "
            "on storage that all workers share.",
        )

    def _restore(self, unchecked):
        damaged = None
        for path in (self.path, self.previous):
            if not path.exists():
                continue
            try:
                tensors, metadata = _read(path)
            except UsageError as error:
                damaged = damaged or error
                continue
            self._assign(path, tensors, metadata, unchecked)
            self._newest_is_whole = path == self.path
            if path == self.previous:
                reason = damaged or f"{self.path} is missing."
                print(f"warning: {reason} Continuing from the previous one.", file=sys.stderr)
            return
        if damaged:
            raise damaged

    def _assign(self, path, tensors, metadata, unchecked=()):
        variables = self.trainer.variables
        sums = tensors.pop(PROGRESS)
        expected = {name: tuple(variable.shape) for name, variable in variables.items()}
        found = {name: tensor.shape for name, tensor in tensors.items()}
        if {name for name, _ in expected.items() ^ found.items() if name.startswith("model/")}:
            raise UsageError(
                f"The checkpoint {path} belongs to another model. Choose another --workdir."
            )
        self._check_settings(path, json.loads(metadata.get("settings", "{}")), unchecked)
        if found != expected:
            raise UsageError(
                f"The checkpoint {path} is of a run with other variables. Choose another --workdir."
            )
        for name, variable in variables.items():
            variable.assign(tensors[name])
        self.trainer.sums, self.trainer.batches_done = sums, int(metadata["batches_done"])
        self.trainer.seconds = float(metadata["seconds"])
        self.epoch, self.history = int(metadata["epoch"]), json.loads(metadata["history"])
        self.recoveries = json.loads(metadata.get("recoveries", "[]"))

    def _check_settings(self, path, found, unchecked):
        """Raises a `UsageError` unless the settings `found` in a checkpoint are the run's."""
        expected = {k: v for k, v in self._settings.items() if k not in unchecked}
        # Another version of Keras may have more of them.
        names = [name for name in expected if name in found and found[name] != expected[name]]
        if not found or names:
            what = f"{names[0]}={found[names[0]]}" if names else "no settings"
            now = f" This run has {names[0]}={expected[names[0]]}." if names else ""
            raise UsageError(
                f"The checkpoint {path} was written with {what}.{now} Restore it with the settings "
                "it was written with, or choose another --workdir."
            )

    # ---- signals ----

    def __enter__(self) -> "Checkpoints":
        """Within the block, SIGTERM and Ctrl-C end the run after the step; see `Stopped`."""
        self._handlers = {
            number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _ask(self, number, _):
        if self._signal == signal.SIGINT == number:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait
        self._signal = number

    def after_step(self, is_last: bool) -> None:
        """Saves if it is time to, if a long epoch is over, or if the run was asked to stop.

        After the last step of an epoch comes the validation, which can take longer than the grace
        period of a run that is asked to stop.

        Raises:
            Stopped: after saving, if the run was asked to stop.
        """
        asked = distribution.any_worker(self._signal)
        wait = BEFORE_VALIDATION_SECONDS if is_last else 60 * self._minutes
        if asked or time.monotonic() - self._saved >= wait:
            self.save()
        if asked:
            self._stop()

    def after_epoch(self, is_sound: bool = False) -> None:
        """Saves; called after the row of an epoch was appended to `history`.

        Args:
            is_sound: whether this is a state to go back to.

        Raises:
            Stopped: after saving, if the run was asked to stop.
        """
        self.epoch += 1
        self.save(is_sound)
        if distribution.any_worker(self._signal):
            self._stop()

    def _stop(self):
        number = self._signal or signal.SIGTERM  # SIGTERM: another worker got the signal
        name = signal.Signals(number).name
        print(f"stopped by {name}; the same command continues this run", file=sys.stderr)
        raise Stopped(128 + number)


def settings(trainer):
    """Returns the settings of a `Trainer` that must not change within a run, a dict for JSON."""
    # A LossScaleOptimizer has another one within.
    optimizer = getattr(trainer.optimizer, "inner_optimizer", trainer.optimizer)
    options = _config(optimizer).items()
    found = {
        "attack": trainer.attack is not None,
        "beta": trainer.beta,
        "label_smoothing": trainer.label_smoothing,
        "optimizer": [type(each).__name__ for each in (trainer.optimizer, optimizer)],
        **{f"optimizer.{name}": value for name, value in options if name != "name"},
        "pruner": trainer.pruner is not None,
        "teacher": trainer.teacher
        and {
            "temperature": trainer.teacher.temperature,
            "weight": trainer.teacher.weight,
            "sha256": [hash_of_weights(model) for model in trainer.teacher.models],
        },
    }
    if trainer.pruner:
        algorithm, schedule = trainer.pruner.algorithm, trainer.pruner.schedule
        numbers = {k: v for k, v in vars(algorithm).items() if isinstance(v, (int, float, str))}
        found |= {
            "structure": trainer.pruner.structure,
            "algorithm": [type(algorithm).__name__, numbers],
            "schedule": schedule and [type(schedule).__name__, _config(schedule)],
        }
    return json.loads(json.dumps(found, default=_for_json))


def _config(holder):
    try:
        return holder.get_config()
    except (AttributeError, NotImplementedError):  # a schedule of the user's own
        return {}


def _for_json(value):
    return value.item() if isinstance(value, np.generic) else type(value).__name__


def _read(path):
    tensors, metadata = read_tensors(path)
    if metadata.pop("sha256", None) != _digest(tensors, metadata):
        raise UsageError(
            f"The checkpoint {path} is damaged: its sha256 is not that of its content."
        )
    return tensors, metadata


def _digest(tensors, metadata):
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensors[name]).tobytes())
    return digest.hexdigest()
