"""Each row of the papers has a recipe, and each recipe takes a step."""

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
from tfsparse.training import Trainer, sgd


def test_all_rows_are_there():
    patterns = list(costs.PUBLISHED["resnet18"])
    assert len(patterns) == 13
    periodic = {
        (arch, pattern, dataset)
        for arch in ("resnet18", "vgg16")
        for dataset in ("cifar10", "tiny_imagenet")
        for pattern in patterns
    }
    periodic |= {  # its rivals
        (arch, "dense", dataset)
        for arch in ("mobilenet_v2", "shufflenet")
        for dataset in ("cifar10", "tiny_imagenet")
    }
    found = {
        (recipe["arch"], recipe.get("pattern", "dense"), recipe["dataset"])
        for recipe in papers.recipes().values()
        if "prune" not in recipe
    }
    assert found == periodic
    robust = [recipe for recipe in papers.recipes().values() if recipe.get("prune") == "none"]
    dnr = [recipe for recipe in papers.recipes().values() if recipe.get("prune") == "dnr"]
    assert len(dnr) == 10
    assert {recipe["dataset"] for recipe in dnr} == set(papers.DATASETS)
    # What DNR is compared with: the same training without pruning.
    networks = [sorted({(r["arch"], r["dataset"]) for r in rows}) for rows in (dnr, robust)]
    assert networks[0] == networks[1]
    assert len(robust) == 5
    assert {recipe.get("structure", "irregular") for recipe in dnr} == {"irregular", "channel"}
    for name, recipe in papers.recipes().items():
        assert recipe["workdir"] == f"runs/papers/{name}"


@pytest.mark.parametrize(
    "name",
    [
        *sorted(path.stem for path in (ROOT / "zoo" / "recipes").glob("*.cfg")),
        *(f"papers/{name}" for name in papers.recipes()),
    ],
)
def test_recipes_are_read(name, monkeypatch):
    monkeypatch.chdir(ROOT)  # recipes name those that they include from here
    values = flags.FLAGS
    try:
        values(["train.py", f"--flagfile=zoo/recipes/{name}.cfg"])
        train.check_flags()
        assert values.workdir == f"runs/{name}"
    finally:
        values.unparse_flags()


def test_operations_of_a_step_by_hand():
    recipe = {"loss": "hybrid", "attack_steps": "7", "dataset": "cifar10", "epochs": "2"}
    assert papers.operations(recipe, 5) == 2 * 5 * (2 + 4 + 14) * 45_000 * 2
    recipe["loss"] = "standard"
    assert papers.operations(recipe, 5) == 2 * 5 * 3 * 45_000 * 2


@pytest.mark.parametrize("arch", ["resnet18", "vgg16", "mobilenet_v2"])
def test_operations_of_a_step_are_what_tensorflow_s_profiler_counts(arch):
    """Which counts biases, BatchNorm and the loss, too."""
    model = zoo.build(arch, (32, 32, 3), 10, 8)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function(input_signature=[tf.TensorSpec((1, 32, 32, 3)), tf.TensorSpec((1,), tf.int64)])
    def step(images, labels):
        with tf.GradientTape() as tape:
            value = loss(labels, model(images, training=True))
        return tape.gradient(value, model.trainable_variables)

    profiler = tf.compat.v1.profiler
    options = {**profiler.ProfileOptionBuilder.float_operation(), "output": "none"}
    counted = profiler.profile(step.get_concrete_function().graph, options=options)
    recipe = {"loss": "standard", "dataset": "cifar10", "epochs": "1"}
    stated = papers.operations(recipe, model_cost(model).macs) / 45_000
    assert stated <= counted.total_float_ops <= 1.05 * stated


def test_docs_show_the_recipes():
    assert (ROOT / "docs" / "papers.md").read_text() == papers.page()


WIDE = (
    *("resnet18_psd1p16_cifar10", "resnet18_dnrchannel50_cifar10", "vgg16_dnr5_cifar10"),
    *("mobilenet_v2_cifar10", "shufflenet_cifar10"),
)


@pytest.mark.slow
@pytest.mark.parametrize("name", papers.recipes())
def test_a_step(name, monkeypatch):
    """Of a narrow network, and for one recipe of each kind of the papers' own width."""
    monkeypatch.chdir(ROOT)
    tf.config.run_functions_eagerly(True)  # compiling takes longer than the step
    values = flags.FLAGS
    try:
        narrow = [] if name in WIDE else [f"--width={48 if 'shufflenet' in name else 16}"]
        values(["train.py", f"--flagfile=zoo/recipes/papers/{name}.cfg", *narrow])
        train.check_flags()
        shape, classes, _ = papers.DATASETS[values.dataset]
        keras.utils.set_random_seed(0)
        model = zoo.build(values.arch, shape, classes, values.width, values.pattern)
        pruner = train.make_pruner(model, steps=4, steps_per_epoch=2)
        attack = None
        if values.loss == "hybrid":
            attack = attacks.pgd(model, values.eps, values.attack_steps)
        optimizer = sgd(4, values.learning_rate, values.weight_decay, values.schedule)
        trainer = Trainer(model, optimizer, attack, pruner)
        images = np.random.default_rng(0).random((2, *shape), np.float32)
        batches = tf.data.Dataset.from_tensors((images, np.array([0, classes - 1])))
        assert np.isfinite(trainer.run_epoch(batches, seed=0)["loss"])
        if pruner:
            assert pruner.density == pytest.approx(values.density, abs=0.01)
    finally:
        tf.config.run_functions_eagerly(False)
        values.unparse_flags()
