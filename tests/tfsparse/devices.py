"""Trains a small network under JAX on one device or all, step by step or in stretches.

    python -m tests.tfsparse.devices OUTPUTS.npz

For test_jax.py, with XLA_FLAGS=--xla_force_host_platform_device_count=8.
"""

import sys
import tempfile

import jax
import keras
import numpy as np
from keras.ops import convert_to_numpy as to_numpy

from tfsparse import attacks, backend, distribution, optimizers, training
from tfsparse.backend import jax as implementation
from tfsparse.batches import PlannedBatches
from tfsparse.checkpoints import Checkpoints
from tfsparse.distillation import Teacher
from tfsparse.pruning import DNRSchedule, Pruner
from zoo import augmentation

STEPS, BATCH = 8, 8


def network(seed=0):
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input((8, 8, 3))
    for filters, strides in ((8, 1), (16, 2)):
        x = keras.layers.Conv2D(filters, 3, strides, use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.5)(x))
    x = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x)


def make_trainer():
    model = network()
    pruner = Pruner(model, DNRSchedule(0.8, 7, 3))
    attack = attacks.pgd(model, 8 / 255, 2)
    optimizer = optimizers.sgd(STEPS, 0.01, 5e-3, ema_momentum=0.9)
    teacher = Teacher([network(seed=1), network(seed=2)])
    return training.Trainer(model, optimizer, attack, pruner, teacher=teacher)


def batches(first=0):
    rng = np.random.default_rng(0)
    arrays = rng.integers(0, 256, (90, 8, 8, 3)).astype(np.uint8), rng.integers(0, 10, 90)
    arrays = tuple(map(keras.ops.convert_to_tensor, arrays))
    plan = (
        rng.integers(0, 90, (STEPS, BATCH)),
        rng.integers(0, 9, (STEPS, BATCH, 2)),
        rng.random((STEPS, BATCH)) < 0.5,
    )
    return PlannedBatches(augmentation.augmented, arrays, [part[first:] for part in plan])


def train(name, steps_per_call, stop=None):
    """Returns {name: array} of all state, of the masks and means, and of the steps after calls.

    Args:
        name: of the distribution.
        steps_per_call: at most.
        stop: None, or the step after which the run is stopped, and continued by a new trainer.
    """
    implementation.STEPS_PER_CALL["cpu"] = steps_per_call
    calls = []

    def after_step(is_last):
        calls.append(trainer.step)
        if trainer.step == stop:
            checkpoints.save()
            raise InterruptedError

    with distribution.scope(name), tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer()
        checkpoints = Checkpoints(folder, trainer)
        try:
            means = trainer.run_epoch(batches(), 0, after_step=after_step)
        except InterruptedError:
            trainer = make_trainer()
            Checkpoints(folder, trainer).restore()
            means = trainer.run_epoch(batches(trainer.batches_done), 0)
        devices = backend.replicas()
    del means["seconds"]
    state = {name: to_numpy(variable) for name, variable in trainer.variables.items()}
    masks = {f"mask{index}": to_numpy(mask) for index, mask in enumerate(trainer.pruner.masks)}
    return {**state, **masks, **means, "calls": calls, "devices": devices}


def main(path):
    with tempfile.TemporaryDirectory() as cache:  # a resumed run compiles the same again
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        runs = {
            "one": train("none", 1),
            "resumed": train("none", 1, stop=4),
            "eight": train("mirrored", 1),
            "eight_stretches": train("mirrored", 4),
            "eight_stretches_resumed": train("mirrored", 4, stop=6),
        }
    np.savez(path, **{f"{run}/{name}": v for run, each in runs.items() for name, v in each.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
