"""Trains a small network on one replica or two, for tests/tfsparse/test_distribution.py.

python -m tests.tfsparse.replicas mirrored|multi_worker PREFIX
"""

import sys

import keras
import numpy as np
import tensorflow as tf

from tfsparse import attacks, distribution, optimizers, training
from tfsparse.distillation import Teacher
from tfsparse.pruning import DNRSchedule, Pruner


def main(name, prefix):
    if name == "multi_worker":
        train(distribution.scope(name), prefix)
        return
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    train(strategy.scope(), prefix)
    train(strategy.scope(), f"{prefix}_own", own=True)


def train(scope, prefix, own=False):
    """Trains with the hybrid loss, a teacher, and DNR; saves all variables as PREFIX_REPLICA.npz.

    BatchNorm is that of the whole batch. The attack has no random start, which would differ for
    each replica.

    Args:
        scope: the strategy's.
        prefix: of the files' paths.
        own: one step on clean images instead, in which each replica has the BatchNorm of its own
            images, as is the default. The moving statistics are in PREFIX_norm.npz, too.
    """
    with scope:
        model = network(synchronized=not own)
        pruner = Pruner(model, DNRSchedule(0.8, 7, 3))
        attack = None if own else attacks.pgd(model, 8 / 255, 1, random_start=False)
        teacher = None if own else Teacher([network(synchronized=False, seed=1)])
        optimizer = optimizers.sgd(8, 0.01, 5e-3)
        trainer = training.Trainer(model, optimizer, attack, pruner, teacher=teacher)
        rng = np.random.default_rng(0)
        # Of several brightnesses: then the halves of a batch have statistics of their own.
        images = rng.random((88, 1, 1, 1), np.float32) * rng.random((88, 8, 8, 3), np.float32)
        labels = rng.integers(0, 10, 88)
        data = tf.data.Dataset.from_tensor_slices((images, labels))
        means = trainer.run_epoch(data.take(10).batch(10) if own else data.batch(11), 0)
        strategy = tf.distribute.get_strategy()
        replicas = [
            strategy.experimental_local_results(v if isinstance(v, tf.Variable) else v.value)
            for v in trainer.variables.values()
        ]
        for index in range(len(replicas[0])):
            values = [copies[index].numpy() for copies in replicas]
            count = strategy.num_replicas_in_sync
            np.savez(f"{prefix}_{index}", *values, loss=means["loss"], count=count)
        if own:
            norm = model.layers[2]
            np.savez(f"{prefix}_norm", mean=norm.moving_mean, variance=norm.moving_variance)


def network(synchronized, seed=0):
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input((8, 8, 3))
    for filters, strides in ((8, 1), (16, 2)):
        x = keras.layers.Conv2D(filters, 3, strides, use_bias=False)(x)
        norm = keras.layers.BatchNormalization(momentum=0.5, synchronized=synchronized)
        x = keras.layers.ReLU()(norm(x))
    x = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x)


if __name__ == "__main__":
    main(*sys.argv[1:])
