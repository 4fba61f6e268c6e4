"""Checkpoints of a training run: one safetensors file with everything needed to go on."""

import json
import os

import keras

from tfsparse.errors import UsageError
from tfsparse.files import read_tensors, write_tensors


def save_checkpoint(path, trainer, epoch, history):
    """Writes the state of `trainer` after `epoch` epochs, and `history`, a list of dicts."""
    tensors = {
        name: keras.ops.convert_to_numpy(variable) for name, variable in trainer.variables.items()
    }
    write_tensors(path, tensors, {"epoch": str(epoch), "history": json.dumps(history)})


def restore_checkpoint(path, trainer):
    """Puts the state saved at `path` into `trainer`; returns `(epoch, history)`.

    Returns `(0, [])` and changes nothing where there is no checkpoint yet.

    Raises:
        UsageError: where the file is damaged or belongs to another model.
    """
    if not os.path.exists(path):
        return 0, []
    tensors, metadata = read_tensors(path)
    variables = trainer.variables
    fits = tensors.keys() == variables.keys() and all(
        tensors[name].shape == tuple(variable.shape) for name, variable in variables.items()
    )
    if not fits:
        raise UsageError(f"The checkpoint {path} belongs to another model; choose another workdir.")
    for name, variable in variables.items():
        variable.assign(tensors[name])
    return int(metadata["epoch"]), json.loads(metadata["history"])
