"""Arguments out of range end in one line that names them, before anything is computed."""

import keras
import numpy as np
import pytest

import tfsparse
import zoo
from tfsparse import UsageError, attacks, backend
from tfsparse.distillation import Teacher
from tfsparse.evaluation import accuracy
from tfsparse.files import write_bytes
from tfsparse.optimizers import sgd
from tfsparse.pruning import DNR, SET, Algorithm, DNRSchedule, Pruner
from tfsparse.training import Trainer
from zoo.robustness.comparison import compare

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.random((4, 8, 8, 1), np.float32), np.array([0, 1, 2, 1])
EPS, SEED = 8 / 255, backend.seed(0, 0)


def network(outputs=3):
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3)(inputs)
    x = keras.layers.Conv2D(4, 3)(x)
    return keras.Model(inputs, keras.layers.Dense(outputs)(keras.layers.Flatten()(x)))


MODEL = network()


def check(message, function, *arguments, **keywords):
    with pytest.raises(UsageError, match=message) as caught:
        function(*arguments, **keywords)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("message", "batches", "arguments"),
    [
        (r"restarts >= 1.*restarts=0", [(IMAGES, LABELS)], {"restarts": 0}),
        (r"seed >= 0.*seed=-1", [(IMAGES, LABELS)], {"seed": -1}),
        (r"no images to classify.*\[\]", [], {}),
        (r"pairs \(images, labels\).*ndarray", (IMAGES, LABELS), {}),
    ],
)
def test_evaluation(message, batches, arguments):
    check(message, accuracy, MODEL, batches, **arguments)


@pytest.mark.parametrize("eps", [0, -1, 8, float("nan"), "8/255"], ids=str)
@pytest.mark.parametrize(
    "make",
    [
        lambda eps: attacks.pgd(MODEL, eps, 3),
        lambda eps: attacks.nfgsm(MODEL, eps),
        attacks.uniform_noise,
        attacks.gaussian_noise,
    ],
    ids=["pgd", "nfgsm", "uniform", "gaussian"],
)
def test_eps(make, eps):
    check(r"eps must be a number in \(0, 1\].*Received: ", make, eps)


@pytest.mark.parametrize("seed", [0, (0, 1, 2, 3), None, IMAGES[:2], IMAGES.astype(int)], ids=str)
def test_seeds_of_attacks(seed):
    for attack in (attacks.pgd(MODEL, EPS, 1), attacks.uniform_noise(EPS)):
        check(r"seed must be what tfsparse\.backend\.seed", attack, IMAGES, LABELS, seed)


def test_other_arguments_of_attacks():
    for steps in (0, 2.5, "3"):
        check("steps must be an int, at least 1", attacks.pgd, MODEL, EPS, steps)
    check("model must be a keras.Model. Received: 'resnet8'", attacks.pgd, "resnet8", EPS, 3)
    dlr = attacks.pgd(network(2), EPS, 1, loss="dlr")
    check("dlr needs three classes or more. Received: 2", dlr, IMAGES, LABELS % 2, SEED)


@pytest.mark.parametrize(
    "arguments", [{"beta": 2.0}, {"beta": -0.1}, {"label_smoothing": 1.0}], ids=str
)
def test_trainer(arguments):
    (name,) = arguments
    check(f"{name}.*Received: .*{arguments[name]}", Trainer, MODEL, sgd(1, 0.1, 0), **arguments)


def test_optimizers_and_batches_of_a_trainer():
    check("keras.optimizers.Optimizer.*Received: 'sgd'", Trainer, MODEL, "sgd")
    trainer = Trainer(network(), sgd(1, 0.1, 0))
    for batches in ([], (pair for pair in [(IMAGES, LABELS)])):
        check("batches must have a length, at least 1", trainer.run_epoch, batches, 0)
    check(
        "loss is nan at step 1. Look for NaN",
        trainer.run_epoch,
        [(np.full_like(IMAGES, np.nan), LABELS)],
        seed=0,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("learning_rate", -0.1),
        ("weight_decay", -1),
        ("ema_momentum", 1),
        ("schedule", "step"),
    ],
)
def test_sgd(name, value):
    known = {"steps": 10, "learning_rate": 0.1, "weight_decay": 0}
    check(rf"{name}.*Received: .*{value}", sgd, **known | {name: value})


class Odd(SET):
    """Budget or scores are not what they should be."""

    def __init__(self, kept=None, scores=None):
        self._kept, self._scores = kept, scores

    def budget(self, layers, density):
        return super().budget(layers, density) if self._kept is None else self._kept

    def grow_score(self, layer, rng):
        return super().grow_score(layer, rng) if self._scores is None else self._scores


class OddReader(Algorithm):
    reads = "grad"


@pytest.mark.parametrize("kept", [[1, 10**6], [1.5, 2.0], [3], [-1, 5]], ids=str)
def test_budgets_of_own_algorithms(kept):
    schedule = DNRSchedule(0.5, 10, 2)
    message = rf"Odd\.budget must return an int for each of 2 layers.*Received: .*{kept[-1]}"
    check(message, Pruner, MODEL, schedule, algorithm=Odd(kept))


def test_scores_of_own_algorithms():
    model = network()
    pruner = Pruner(model, DNRSchedule(0.5, 10, 2), algorithm=Odd(scores=np.ones(3)))
    optimizer = sgd(10, 0.1, 0)
    optimizer.build(model.trainable_variables)
    message = r"Odd\.grow_score must return a number for each unit of .*Received: \(3,\)"
    check(message, pruner.update, 2, optimizer)


def test_pruners():
    schedule = DNRSchedule(0.5, 10, 2)
    for seed in (-1, None, 0.5):
        check(
            f"seed must be an int, at least 0. Received: {seed}", Pruner, MODEL, schedule, seed=seed
        )
    check("policy must be a TF-MOT", Pruner, MODEL, schedule, policy=lambda layer: True)
    check("reads must be None, .*'grad'", Pruner, MODEL, schedule, algorithm=OddReader())
    check("rho must be at least 0. Received: -1", DNR, -1)


def test_a_teacher_takes_a_list():
    check("models must be a list", Teacher, MODEL)


@pytest.mark.parametrize(
    "arguments", [{"width": "8"}, {"width": 0}, {"num_classes": 10.0}], ids=str
)
def test_networks(arguments):
    (name,) = arguments
    check(
        f"{name} must be an int, at least 1. Received: {arguments[name]!r}",
        zoo.build,
        **{"arch": "resnet8", "input_shape": (8, 8, 1), "num_classes": 10} | arguments,
    )


@pytest.mark.parametrize("content", ["[]", '{"model": {"arch": "resnet8"}}', "{}"])
def test_comparisons(content, tmp_path):
    """A card's model is a dict."""
    path = tmp_path / "x.json"
    path.write_text(content)
    check("x.json is not a file of tfsparse evaluate: it names no model", compare, path, path)


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "run").write_text("")
    path = tmp_path / "run" / "flags.json"
    check("run/flags.json: what should be its folder is a file", write_bytes, path, b"")


def test_a_summary_is_of_a_model():
    check("Received: 'resnet8', a str", tfsparse.summary, "resnet8")
