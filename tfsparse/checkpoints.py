"""Checkpoints of a training run: safetensors files with everything needed to continue it.

A run that is stopped and started again continues with the next step and ends like an uninterrupted
one. A checkpoint holds the weights, masks, momenta, dynamic regularizer, learning rate's step, and
the sums of the current epoch. Order, augmentation, and attacks follow from the seed, the epoch, and
the step, so there is no random state to save.
"""

import hashlib
import json
import os
import pathlib
import signal
import sys
import time

import keras
import numpy as np

from tfsparse import distribution
from tfsparse.errors import UsageError
from tfsparse.files import read_tensors, replacing, tensor_bytes

PROGRESS = "progress/sums"


class Stopped(SystemExit):
    """The run was asked to stop and has saved what it did; its code is 128 plus the signal."""


class Checkpoints:
    """The newest checkpoint of a run, and the previous one in case the newest is damaged.

    Args:
        folder: of "checkpoint.safetensors" and "checkpoint-previous.safetensors".
        trainer: the `tfsparse.training.Trainer` whose state they hold.
        minutes: least time between two checkpoints of `after_step` within an epoch.

    Attributes:
        epoch: number of finished epochs.
        history: list of dicts, one per finished epoch.
    """

    def __init__(self, folder, trainer, minutes=10.0):
        self.path = pathlib.Path(folder) / "checkpoint.safetensors"
        self.previous = self.path.with_name("checkpoint-previous.safetensors")
        self.trainer = trainer
        self.epoch, self.history = 0, []
        self._newest_is_whole = False  # as this process has read or written it
        self._minutes = minutes
        self._saved = time.monotonic()
        self._signal = None

    def save(self):
        """Writes the trainer's state, completely or not at all.

        Keeps the previous checkpoint, unless it is damaged. If there are several workers, which all
        hold the same state, only the chief writes.

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
            "batches_done": str(self.trainer.batches_done),
            "seconds": str(self.trainer.seconds),
        }
        metadata["sha256"] = _digest(tensors, metadata)
        with replacing(self.path) as partial:
            partial.write_bytes(tensor_bytes(tensors, metadata))
            if self._newest_is_whole and self.path.exists():
                os.replace(self.path, self.previous)
        self._newest_is_whole = True

    def restore(self):
        """Loads the newest undamaged checkpoint into the trainer; does nothing if there is none.

        Raises:
            UsageError: if all checkpoints are damaged or belong to another model, or if not all
                workers see the same one.
        """
        self._restore()
        distribution.check_same(
            self.trainer.step,
            f"Not all workers see the same checkpoints in {self.path.parent}. Choose a --workdir "
            "on storage that all workers share.",
        )

    def _restore(self):
        damaged = None
        for path in (self.path, self.previous):
            if not path.exists():
                continue
            try:
                tensors, metadata = _read(path)
            except UsageError as error:
                damaged = damaged or error
                continue
            self._assign(path, tensors, metadata)
            self._newest_is_whole = path == self.path
            if path == self.previous:
                reason = damaged or f"{self.path} is missing."
                print(f"warning: {reason} Continuing from the previous one.", file=sys.stderr)
            return
        if damaged:
            raise damaged

    def _assign(self, path, tensors, metadata):
        variables = self.trainer.variables
        sums = tensors.pop(PROGRESS)
        fits = tensors.keys() == variables.keys() and all(
            tensors[name].shape == tuple(variable.shape) for name, variable in variables.items()
        )
        if not fits:
            raise UsageError(
                f"The checkpoint {path} belongs to another model. Choose another --workdir."
            )
        for name, variable in variables.items():
            variable.assign(tensors[name])
        self.trainer.sums, self.trainer.batches_done = sums, int(metadata["batches_done"])
        self.trainer.seconds = float(metadata["seconds"])
        self.epoch, self.history = int(metadata["epoch"]), json.loads(metadata["history"])

    # ---- signals ----

    def __enter__(self):
        """Within the block, SIGTERM and Ctrl-C end the run after the step; see `Stopped`."""
        self._handlers = {
            number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *_):
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _ask(self, number, _):
        if self._signal == signal.SIGINT == number:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait
        self._signal = number

    def after_step(self, is_last):
        """Saves if it is time to, if the epoch is over, or if the run was asked to stop.

        After the last step of an epoch comes the validation, which can take longer than the grace
        period of a run that is asked to stop.

        Raises:
            Stopped: after saving, if the run was asked to stop.
        """
        asked = distribution.any_worker(self._signal)
        if asked or is_last or time.monotonic() - self._saved >= 60 * self._minutes:
            self.save()
        if asked:
            self._stop()

    def after_epoch(self):
        """Saves; called after the row of an epoch was appended to `history`.

        Raises:
            Stopped: after saving, if the run was asked to stop.
        """
        self.epoch += 1
        self.save()
        if distribution.any_worker(self._signal):
            self._stop()

    def _stop(self):
        number = self._signal or signal.SIGTERM  # SIGTERM: another worker got the signal
        name = signal.Signals(number).name
        print(f"stopped by {name}; the same command continues this run", file=sys.stderr)
        raise Stopped(128 + number)


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
