"""What a training run achieved: measured, summarized, and shown on a page."""

import json
import re
import types

import keras
import numpy as np
import pytest

import zoo
from tfsparse import attacks
from tfsparse.evaluation import predictions
from tfsparse.starts import image_seeds, random_starts
from zoo import finished, models, outcome, runs
from zoo.data import batches
from zoo.robustness.flips import Flips

EPS = 0.1


@pytest.fixture(scope="module")
def model():
    inputs = keras.Input((4, 4, 1))
    dense = keras.layers.Dense(3)
    model = keras.Model(inputs, dense(keras.layers.Flatten()(inputs)))
    dense.set_weights([np.random.default_rng(0).normal(size=(16, 3)), np.zeros(3)])
    return model


def test_success_rate_and_accuracies_are_those_of_numpy(model):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (300, 4, 4, 1)).astype(np.uint8)
    weights = model.get_weights()[0]
    labels = ((images / 255).reshape(300, -1) @ weights).argmax(axis=1).astype(np.int32)
    labels[::3] = rng.integers(0, 3, 100)
    attack = outcome.test_attack(model, EPS)
    clean = predictions(model, batches(images, labels, 500))
    found = outcome.evaluate(clean, model, attack, images, EPS, seed=5)

    x = (images / 255).astype(np.float32)
    starts = random_starts(image_seeds(5, 0, np.arange(300)), x.shape[1:])
    adversarial = np.asarray(attack(x, labels, starts))
    before, after = ((each.reshape(300, -1) @ weights).argmax(1) for each in (x, adversarial))
    right = before == labels
    flipped = right & (after != labels)
    assert 0.1 < flipped.sum() / right.sum() < 0.9
    assert found["success_rate"] == pytest.approx(flipped.sum() / right.sum())
    assert found["clean_accuracy"] == pytest.approx(right.mean())
    assert found["robust_accuracy"] == pytest.approx((after == labels).mean())
    assert found["majority_accuracy"] == max((labels == each).mean() for each in range(3))
    assert found.keys() == set(outcome.MEASURED)
    threat = found["threat_model"]
    assert (threat["eps"], threat["steps"], threat["examples"]) == (EPS, 20, 300)
    assert threat["step_size"] == attacks.default_step_size(EPS, 20) == 2.5 * EPS / 20


def test_dense_baseline_is_the_card_of_the_same_network_data_and_loss():
    card = zoo.card("resnet8_dnr10_cifar10")
    found = models.dense_baseline(card["model"], "cifar10", "hybrid")
    assert found["name"] == "resnet8_dense_robust_cifar10"
    assert found["clean_accuracy"] == zoo.card(found["name"])["results"]["clean"]["accuracy"]
    assert models.dense_baseline(card["model"], "cifar10", "standard")["name"] == "resnet8_cifar10"
    assert models.dense_baseline(card["model"], "cifar100", "hybrid") is None
    assert models.dense_baseline({**card["model"], "width": 7}, "cifar10", "hybrid") is None


def int8_facts(failures=()):
    verification = types.SimpleNamespace(top1_agreement=0.9, top1_or_tied=0.95, examples=100)
    conversion = types.SimpleNamespace(
        content=bytes(5000), verifications=[verification], failures=failures
    )
    return outcome.int8_facts(conversion, np.random.default_rng(0).bytes(10_000))


def test_facts_of_the_int8_file():
    facts = int8_facts()
    assert facts["int8"].pop("gzip_bytes") < 100  # of zeros
    assert facts["dense_int8"].pop("gzip_bytes") > 10_000  # of noise
    assert facts == {
        "int8": {
            "bytes": 5000,
            "top1_agreement": 0.9,
            "top1_or_tied": 0.95,
            "verification_examples": 100,
            "passed": True,
        },
        "dense_int8": {"bytes": 10_000},
    }
    assert not int8_facts(["too far"])["int8"]["passed"]


@pytest.fixture
def report():
    counts = {"parameters": 1000, "macs": 5000}
    return {
        **int8_facts(),
        **{f"dense_{name}": 2 * value for name, value in counts.items()},
        **counts,
        "nonzero_parameters": 500,
        "nonzero_macs": 2500,
        "clean_accuracy": 0.7,
        "clean_examples": 1000,
        "majority_accuracy": 0.1,
        "robust_accuracy": 0.4,
        "robust_attack": "PGD-20, L_inf 8/255",
        "robust_examples": 250,
        "success_rate": 0.375,
        "threat_model": {
            **{"norm": "L_inf", "eps": 8 / 255, "steps": 20, "step_size": 1 / 255},
            **{"restarts": 1, "random_start": True, "loss": "cross_entropy", "examples": 250},
        },
        "dense_baseline": None,
        "best_epoch": 2,
        "class_names": ["dark", "bright"],
        "model": {"arch": "resnet8"},
        "dataset": "fashion_mnist_small",
        "recipe": {"density": 0.1, "pattern": None},
        "versions": {"numpy": "2"},
    }


def cells(report):
    """Returns {first cell: the other words of the line} of a summary."""
    lines = [re.split(r"\s{2,}", line.strip()) for line in outcome.summary(report).splitlines()]
    return {first: " ".join(rest).split() for first, *rest in lines}


def test_summary_has_this_network_beside_the_dense_one(report):
    found = cells(report)
    assert found["non-zero parameters"] == ["2,000", "500", "4.00x"]
    assert found["non-zero MACs"] == ["10,000", "2,500", "4.00x"]
    assert found["int8 .tflite, bytes*"] == ["10,000", "5,000", "2.00x"]
    assert found["clean accuracy, 1,000 images"] == ["70.00", "%"]
    assert found["always the most frequent class"] == ["10.00", "%"]
    assert found["PGD-20, L_inf 8/255, 250 images"] == ["40.00", "%"]
    assert found["success rate of the attack"] == ["37.50", "%"]
    baseline = models.dense_baseline(
        zoo.card("resnet8_dnr10_cifar10")["model"], "cifar10", "hybrid"
    )
    lines = outcome.summary({**report, "dense_baseline": baseline})
    assert f"{100 * baseline['clean_accuracy']:.2f} %     70.00 %" in lines
    assert "the zoo's resnet8_dense_robust_cifar10 (JPEG copy), PGD-50 x 2" in lines
    assert max(map(len, lines.splitlines())) <= 100


def test_report_is_json_a_page_and_a_summary(tmp_path, report):
    history = [
        {"epoch": epoch, "validation_clean_accuracy": 0.6, "density": 0.1, "density/stem": 0.9}
        for epoch in (1, 2)
    ]
    image = np.zeros((1, 4, 4, 1))
    flips = Flips(image, image, np.array([0]), np.array([1]), np.array([0.5]), np.array([0.5]))
    shown = "int8 file beside Keras:\n- agreement 90 %", (np.array([0, 1]), np.array([0, 1])), flips
    summary = runs.write_report(tmp_path, report, history, *shown)
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert (tmp_path / finished.SUMMARY).read_text() == summary
    assert summary.endswith("int8 file beside Keras:\n- agreement 90 %\n")
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64") == 4
    for text in ("resnet8 on fashion_mnist_small", "37.50 %", "L_inf, eps 8/255", "20 of 1/255"):
        assert text in page
    assert "prefers-color-scheme: dark" in page
    without = runs.write_report(tmp_path, report, history, *shown[:2], None)
    assert without == summary
    assert (tmp_path / "report.html").read_text().count("data:image/png;base64") == 3
    names = {line.split()[1] for line in runs.written(tmp_path).splitlines()}
    assert names == {
        str(tmp_path / f"{name}") for name in ("report.json", "report.html", "summary.txt")
    }
