"""The papers' rows as flags: all are accepted, and one of each kind takes a step."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags

import train
import zoo
from studies import costs, papers
from tests.conftest import ROOT
from tfsparse import attacks
from tfsparse.cost import model_cost
from tfsparse.optimizers import sgd
from tfsparse.training import Trainer
from zoo import train_flags

# {kind: (recipe, flags to add)}
KINDS = {
    "periodic": ("periodic", {"pattern": "PSD2_P8", "epochs": "120", "batch_size": "64"}),
    "random": ("periodic", {"arch": "vgg16", "pattern": "pSC4", "dataset": "tiny_imagenet"}),
    "MobileNetV2": ("periodic", {"arch": "mobilenet_v2"}),
    "ShuffleNet": ("periodic", {"arch": "shufflenet", "width": "304"}),
    "dense, robust": ("dnr", {"dataset": "cifar100"}),
    "unstructured DNR": ("dnr", {"prune": "dnr", "density": "0.05"}),
    "channel DNR": ("dnr", {"prune": "dnr", "structure": "channel", "density": "0.5"}),
}


@pytest.fixture
def parse(monkeypatch):
    """Returns a function that parses the flags of a row as train.py does, after its checks."""
    monkeypatch.chdir(ROOT)

    def parse(recipe, own, **others):
        arguments = [f"--{name}={value}" for name, value in (own | others).items()]
        flags.FLAGS(["train.py", f"--flagfile=zoo/recipes/{recipe}.cfg", *arguments])
        train_flags.check(flags.FLAGS)
        return flags.FLAGS

    yield parse
    flags.FLAGS.unparse_flags()


def test_all_rows_are_there():
    settings = [papers.read(recipe) | own for recipe, own in papers.rows()]
    assert len({tuple(sorted(each.items())) for each in settings}) == len(settings) == 71
    patterns = list(costs.PUBLISHED["resnet18"])
    assert len(patterns) == 13
    datasets = "cifar10", "tiny_imagenet"
    periodic = {
        *((a, p, d) for a in ("resnet18", "vgg16") for d in datasets for p in patterns),
        *((a, "dense", d) for a in ("mobilenet_v2", "shufflenet") for d in datasets),
    }
    names = "arch", "pattern", "dataset"
    clean = [each for each in settings if each["loss"] == "standard"]
    assert {tuple(each.get(name, "dense") for name in names) for each in clean} == periodic
    for each in clean:
        two = each.get("pattern", "").lstrip("pPSDC").startswith("2")
        assert (each["epochs"], each["batch_size"]) == (("120", "64") if two else ("150", "128"))
    robust = [each for each in settings if each["loss"] == "hybrid"]
    names = "arch", "dataset", "structure", "density"
    assert {tuple(each.get(name) for name in names) for each in robust} == {
        (arch, dataset, structure, density)
        for structure, density in ((None, None), (None, "0.05"), ("channel", "0.5"))
        for arch, dataset in (
            *(("resnet18", "cifar10"), ("resnet18", "cifar100"), ("vgg16", "cifar10")),
            *(("vgg16", "cifar100"), ("vgg16", "tiny_imagenet")),
        )
    }
    for kind in KINDS.values():
        assert kind in papers.rows()


@pytest.mark.parametrize(
    "name",
    [
        *sorted(path.stem for path in (ROOT / "zoo" / "recipes").glob("*.cfg")),
        *(f"papers/{path.stem}" for path in (ROOT / "zoo" / "recipes" / "papers").glob("*.cfg")),
    ],
)
def test_recipes_are_read(name, parse):
    assert parse(name, {}).workdir == f"runs/{name}"
    lines = (ROOT / "zoo" / "recipes" / f"{name}.cfg").read_text().splitlines()
    assert f"#   python train.py --flagfile=zoo/recipes/{name}.cfg" in lines


def test_rows_are_accepted(parse):
    for recipe, own in papers.rows():
        values = parse(f"papers/{recipe}", own)
        for name, value in (papers.read(recipe) | own).items():
            if name in ("arch", "pattern", "dataset", "prune", "structure", "epochs"):
                assert str(values[name].value) == value
        flags.FLAGS.unparse_flags()


@pytest.mark.parametrize("kind", KINDS)
def test_a_step(kind, parse, eager):
    """Of a narrow network and a short attack, without compiling, which takes longer."""
    recipe, own = KINDS[kind]
    width = 48 if own.get("arch") == "shufflenet" else 8
    few = {"attack_steps": 1} if recipe == "dnr" else {}
    values = parse(f"papers/{recipe}", own, width=width, **few)
    side, classes, _ = papers.DATASETS[values.dataset]
    keras.utils.set_random_seed(0)
    model = zoo.build(values.arch, (side, side, 3), classes, values.width, values.pattern)
    pruner = train.make_pruner(model, steps=4, steps_per_epoch=2)
    attack = None
    if values.loss == "hybrid":
        attack = attacks.pgd(model, values.eps, values.attack_steps)
    optimizer = sgd(4, values.learning_rate, values.weight_decay, values.schedule)
    trainer = Trainer(model, optimizer, attack, pruner)
    images = np.random.default_rng(0).random((2, side, side, 3), np.float32)
    batches = tf.data.Dataset.from_tensors((images, np.array([0, classes - 1])))
    assert np.isfinite(trainer.run_epoch(batches, seed=0)["loss"])
    assert (pruner is None) == (values.prune == "none")
    if pruner:
        assert pruner.density == pytest.approx(values.density, abs=0.01)


def test_operations_of_a_step_by_hand():
    settings = {"loss": "hybrid", "attack_steps": "7", "dataset": "cifar10", "epochs": "2"}
    assert papers.operations(settings, 5) == 2 * 5 * (2 + 4 + 14) * 45_000 * 2
    settings["loss"] = "standard"
    assert papers.operations(settings, 5) == 2 * 5 * 3 * 45_000 * 2


def test_operations_of_a_step_are_what_tensorflow_s_profiler_counts():
    """Which counts biases, BatchNorm and the loss, too."""
    model = zoo.build("vgg16", (32, 32, 3), 10, 8)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function(input_signature=[tf.TensorSpec((1, 32, 32, 3)), tf.TensorSpec((1,), tf.int64)])
    def step(images, labels):
        with tf.GradientTape() as tape:
            value = loss(labels, model(images, training=True))
        return tape.gradient(value, model.trainable_variables)

    profiler = tf.compat.v1.profiler
    options = {**profiler.ProfileOptionBuilder.float_operation(), "output": "none"}
    counted = profiler.profile(step.get_concrete_function().graph, options=options)
    settings = {"loss": "standard", "dataset": "cifar10", "epochs": "1"}
    stated = papers.operations(settings, model_cost(model).macs) / 45_000
    assert stated <= counted.total_float_ops <= 1.05 * stated
