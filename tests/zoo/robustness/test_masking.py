"""An honest model passes all checks; one that hides its gradients is caught."""

import dataclasses

import keras
import numpy as np
import pytest

import zoo
from tests.zoo.robustness.known_models import subject
from zoo.robustness import catalogue, masking, runner

pytestmark = pytest.mark.slow

NAME = "resnet8_dnr10_fashion_mnist_small"
EPS, COUNT = 8 / 255, 60
STEPS = 20


class Quantize(keras.layers.Layer):
    """Eight levels of gray: the gradient is 0 everywhere."""

    def call(self, images):
        return keras.ops.round(images * 7) / 7


class Saturate(keras.layers.Layer):
    """Nearly a step: where it is flat the gradient is 0 in float32."""

    def call(self, images):
        return keras.ops.sigmoid(4000.0 * (images - 0.5))


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(catalogue, "RANDOM_DRAWS", 20)


def checks(model, fashion_mnist):
    """Returns the checks of a model, with the shortest sweeps: each attack is compiled anew."""
    images, labels = (array[:COUNT] for array in fashion_mnist)
    target = subject(model)
    results = runner.Results(None, {"seed": 0, "batch_size": COUNT}, COUNT)
    options = catalogue.Options(eps=EPS, steps=STEPS)
    attacks = [catalogue.make(name, target, options) for name in ("clean", "fgsm", "pgd", "random")]
    for name, change in {"large": {"eps": 16 * EPS}, "short": {"steps": STEPS // 2}}.items():
        attacks.append(catalogue.pgd(target, dataclasses.replace(options, **change), name))
    for attack in attacks:
        runner.run(target, attack, images, labels, results)
    correct = {attack.name: results.correct(attack.name) for attack in attacks}
    by_eps = {EPS: correct["pgd"], 16 * EPS: correct["large"]}
    by_steps = {STEPS // 2: correct["short"], STEPS: correct["pgd"]}
    return masking.checks(correct, by_eps, by_steps, 10)


def test_an_honest_model_passes(fashion_mnist):
    found = checks(zoo.load(NAME), fashion_mnist)
    assert [check.verdict for check in found] == ["passed"] * 4, found


@pytest.mark.parametrize("layer", [Quantize, Saturate])
def test_a_masked_model_is_caught(fashion_mnist, layer):
    honest = zoo.load(NAME)
    inputs = keras.Input(honest.inputs[0].shape[1:])
    found = checks(keras.Model(inputs, honest(layer()(inputs))), fashion_mnist)
    failed = [check.rule for check in found if check.verdict == "failed"]
    assert "accuracy falls to 0 as eps grows" in failed


@pytest.fixture
def sound():
    """Results as a sound model gives them."""
    order = np.arange(200)
    correct = {"clean": order < 160, "fgsm": order < 100, "pgd": order < 90}
    correct |= {"random": order < 155, "square": order < 110, "transfer": order < 140}
    eps = {0.01: order < 120, 0.03: order < 90, 0.5: order < 0}
    steps = {1: order < 100, 10: order < 91, 20: order < 90}
    return correct, eps, steps


def test_sound_results_pass(sound):
    assert {check.verdict for check in masking.checks(*sound, 10)} == {"passed"}


@pytest.mark.parametrize(
    ("part", "key", "left", "rule"),
    [
        (0, "fgsm", 60, "one step"),
        (0, "square", 60, "black-box square"),
        (0, "transfer", 60, "black-box transfer"),
        (0, "random", 60, "random search"),
        (1, 0.5, 30, "eps grows"),
        (1, 0.01, 60, "eps grows"),
        (2, 10, 120, "flattens"),
        (2, 1, 60, "flattens"),
    ],
)
def test_each_rule_is_checked(sound, part, key, left, rule):
    sound[part][key] = np.arange(200) < left
    failed = [check.rule for check in masking.checks(*sound, 10) if check.verdict == "failed"]
    assert len(failed) == 1
    assert rule in failed[0]


def test_steps_that_do_nothing_fail(sound):
    correct, eps, steps = sound
    steps = dict.fromkeys(steps, correct["clean"])
    failed = [
        check.rule for check in masking.checks(correct, eps, steps, 10) if check.verdict == "failed"
    ]
    assert len(failed) == 1
    assert "flattens" in failed[0]
