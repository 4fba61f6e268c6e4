"""A training step and a rewiring under the backend of KERAS_BACKEND, for test_backends.py.

python -m tests.tfsparse.step_of_each_backend INPUTS.npz OUTPUTS.npz
"""

import sys

import keras
import numpy as np
from keras.ops import convert_to_numpy as to_numpy

import zoo
from tfsparse import attacks, optimizers, training
from tfsparse.distillation import Teacher
from tfsparse.pruning import DNRSchedule, Pruner

NETWORKS = {
    "dense": {"arch": "resnet8"},
    "periodic": {"arch": "resnet18", "width": 16, "pattern": "PS4_P4"},
}


def build(network):
    return zoo.build(input_shape=(16, 16, 3), num_classes=10, **NETWORKS[network])


def linear(kernel):
    inputs = keras.Input((16, 16, 3))
    layer = keras.layers.Dense(10, use_bias=False)
    model = keras.Model(inputs, layer(keras.layers.Flatten()(inputs)))
    model.set_weights([kernel])
    return model


def main(inputs, outputs):
    given, found = dict(np.load(inputs)), {}
    for network in NETWORKS:
        model = build(network)
        model.set_weights([given[f"{network}/{i}"] for i in range(len(model.weights))])
        pruner = Pruner(model, DNRSchedule(0.8, 10, 2), initial_masks="magnitude")
        # Of a gradient of about 0, the backends may see different signs: more so with more steps.
        attack = attacks.pgd(model, 8 / 255, 1)
        start = keras.ops.convert_to_tensor(given["start"])
        handed = lambda images, labels, seed, attack=attack, start=start: attack(  # noqa: E731
            images, labels, start
        )
        optimizer = optimizers.sgd(20, 0.1, 5e-3, "cosine")
        teacher = Teacher([linear(given["teacher"])])
        trainer = training.Trainer(model, optimizer, handed, pruner, teacher=teacher)
        batches = [(given["images"], given["labels"])]
        found[f"{network}/loss"] = trainer.run_epoch(batches, seed=0)["loss"]
        for index, weight in enumerate(model.weights):
            found[f"{network}/{index}"] = to_numpy(weight)
        # The same weights and momenta, to the bit, for the rewiring.
        rng = np.random.default_rng(1)
        momenta = trainer.optimizer.momentums
        for variable in [*pruner.weights, *momenta]:
            variable.assign(rng.normal(size=variable.shape).round(2))
        pruner.apply_masks()
        pruner.update(2, trainer.optimizer)
        for index, mask in enumerate(pruner.masks):
            found[f"{network}/mask/{index}"] = to_numpy(mask)
    np.savez(outputs, **found)


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    main(*sys.argv[1:])
