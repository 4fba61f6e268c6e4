"""A program that uses the public API, for mypy; no test runs it. CONTRIBUTING.md has the command.

Each line with an ignored error is wrong on purpose: mypy also fails if it finds no error there, as
it would if the API had no types.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from typing_extensions import assert_type

import tfsparse
import zoo
from tflite.boards import Board, find_board
from tflite.conversion import Conversion, Images, convert_and_verify
from tflite.runtimes import FileModel
from tflite.verify import Verification, verify
from tfsparse import attacks, cost, evaluation, optimizers, patterns, pruning, training
from tfsparse.checkpoints import Checkpoints
from zoo.cards import Card
from zoo.data import Dataset, open_dataset
from zoo.own_data import OwnDataset
from zoo.prediction import Prediction


def models(model: keras.Model) -> None:
    sparse = tfsparse.sparsify(model, "PS4_P4", filter=lambda layer: layer.name != "head")
    assert_type(tfsparse.summary(sparse, bits=8), cost.ModelCost)
    assert_type(cost.model_cost(model).layers, list[cost.LayerCost])
    assert_type(cost.model_cost(model).nonzero_macs, int)
    tfsparse.save_weights(model, pathlib.Path("weights.safetensors"))
    tfsparse.load_weights(model, "weights.safetensors")
    assert_type(patterns.parse("PS4_P4").mask((3, 3), 8, 8), np.ndarray)
    tfsparse.layers.PeriodicConv2D(8, 3, pattern={"supports": [[[0, 0]]]})
    tfsparse.sparsify(model, 4)  # type: ignore[arg-type]
    tfsparse.summary(model, bits="8")  # type: ignore[arg-type]
    tfsparse.layers.PeriodicConv2D(filters="8")  # type: ignore[arg-type]


class Fixed(pruning.Algorithm):
    def budget(self, layers: list[Any], density: float) -> np.ndarray:
        return np.array([round(density * layer.weight.size) for layer in layers])


def train(model: keras.Model, data: list[tuple[Any, Any]]) -> None:
    schedule = pruning.DNRSchedule(0.9, end_step=100, frequency=10)
    pruner = pruning.Pruner(model, schedule, algorithm=Fixed())
    assert_type(pruner.layer_densities(), dict[str, float])
    assert_type(pruning.ALGORITHMS["dnr"](), pruning.Algorithm)
    optimizer = optimizers.sgd(100, 0.1, 5e-4)
    attack = attacks.pgd(model, 8 / 255, steps=3)
    assert_type(attack, Callable[[Any, Any, Any], Any])
    trainer = training.Trainer(model, optimizer, attack, pruner)
    checkpoints = Checkpoints("run", trainer)
    assert_type(
        trainer.run_epoch(data, seed=0, after_step=checkpoints.after_step), dict[str, float]
    )
    assert_type(evaluation.accuracy(model, data, attack, restarts=2), float)
    model.fit(data, callbacks=[pruning.UpdatePruningStep(pruner)])
    pruning.remove_channels(model, print_fn=print)
    attacks.fgsm(model, "8/255")  # type: ignore[arg-type]
    pruning.UpdatePruningStep(schedule)  # type: ignore[arg-type]
    pruning.Pruner(model, schedule, structure=1)  # type: ignore[arg-type]
    pruner.densities()  # type: ignore[attr-defined]


def choose() -> None:
    assert_type(zoo.list_models(robust=True, max_flash=100_000), list[str])
    assert_type(zoo.find(board="micro:bit"), list[Card])
    assert_type(zoo.card("resnet8_cifar10"), Card)
    assert_type(zoo.load_tflite("resnet8_cifar10"), pathlib.Path)
    assert_type(zoo.predict("resnet8_cifar10", "photo.jpg", top=1), list[list[Prediction]])
    data = open_dataset("fashion_mnist_small")
    assert_type(data, Dataset | OwnDataset)
    assert_type(data.read("test", 10), tuple[np.ndarray, np.ndarray])
    zoo.build("resnet8", (28, 28, 1), 10, width=8)
    zoo.find(flash=100_000)  # type: ignore[call-arg]
    zoo.load(zoo.card)  # type: ignore[arg-type]


def deploy(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> None:
    conversion = convert_and_verify(model, "int8", Images(images, images, labels))
    assert_type(conversion, Conversion)
    assert_type(conversion.failures, list[str])
    assert_type(FileModel(conversion.content)(images), np.ndarray)
    found = verify(conversion.content, model, images, precision="int8", runtime="reference")
    assert_type(found, Verification)
    assert_type(found.passed, bool)
    assert_type(find_board("micro:bit"), Board)
    verify(conversion.content, model, images)  # type: ignore[call-arg]
    FileModel("model.tflite")  # type: ignore[arg-type]
