"""What a training run logs and reports."""

import csv
import json
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfsparse import UsageError
from tfsparse.attacks import fgsm
from zoo import runs

RECIPE = {"density": 0.1, "epochs": 2, "arch": "resnet8", "width": 8}
DEFAULTS = {"density": 0.1, "epochs": 10, "arch": "resnet8", "width": None}


def row(epoch, trained=0.5, robust=0.4):
    return {
        "epoch": epoch,
        "loss": 1.5,
        "train_clean_accuracy": 0.6,
        "train_adversarial_accuracy": trained,
        "seconds": 3.2,
        "validation_robust_accuracy": robust,
        "density": 0.1,
        "density/stem": 0.9,
    }


def test_the_same_recipe_or_a_new_folder_is_accepted(tmp_path):
    runs.check_recipe(tmp_path / "new", RECIPE, DEFAULTS)
    (tmp_path / "flags.json").write_text(json.dumps(RECIPE))
    runs.check_recipe(tmp_path, RECIPE, DEFAULTS)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"density": 0.2}, r"\(--density=0.1 there, 0.2 here\)"),
        (
            {"density": 0.2, "epochs": 3, "arch": "vgg16", "width": 16},
            r"--arch=resnet8 there, vgg16 here, and 1 more\)",
        ),
    ],
)
def test_another_recipe_is_refused(tmp_path, changes, named):
    (tmp_path / "flags.json").write_text(json.dumps(RECIPE))
    with pytest.raises(UsageError, match=named):
        runs.check_recipe(tmp_path, {**RECIPE, **changes}, DEFAULTS)


def test_a_flag_younger_than_the_run_had_its_default(tmp_path):
    (tmp_path / "flags.json").write_text(json.dumps({"epochs": 2, "arch": "resnet8", "width": 8}))
    runs.check_recipe(tmp_path, RECIPE, DEFAULTS)
    with pytest.raises(UsageError, match=r"--density=0\.1 there, 0\.2 here"):
        runs.check_recipe(tmp_path, {**RECIPE, "density": 0.2}, DEFAULTS)


@pytest.mark.parametrize("content", ["{", "7", "[1]"])
def test_damaged_flags_are_refused(tmp_path, content):
    (tmp_path / "flags.json").write_text(content)
    with pytest.raises(UsageError, match=r"Cannot read .*flags\.json"):
        runs.check_recipe(tmp_path, RECIPE, DEFAULTS)


def test_each_epoch_is_printed_and_written(tmp_path, capsys):
    log, history = runs.Log(tmp_path, 2), []
    for epoch in (1, 2):
        history.append(row(epoch))
        log.write(history)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == (
        "epoch 2/2: loss 1.500, train clean 60.0 %, train adversarial 50.0 %, "
        "validation robust 40.0 %, density 10.00 %, 3 s"
    )
    with open(tmp_path / "history.csv", newline="") as file:
        found = list(csv.DictReader(file))
    assert found == [{name: str(value) for name, value in each.items()} for each in history]
    (events,) = (tmp_path / "tensorboard").iterdir()
    scalars = {
        (event.step, value.tag): tf.make_ndarray(value.tensor).item()
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    }
    assert scalars[2, "validation_robust_accuracy"] == pytest.approx(0.4)
    assert len(scalars) == 2 * len(row(1))


def int8_facts(failures=()):
    verification = types.SimpleNamespace(top1_agreement=0.9, top1_or_tied=0.95, examples=100)
    conversion = types.SimpleNamespace(
        content=bytes(5000), verifications=[verification], failures=failures
    )
    return runs.int8_facts(conversion, np.random.default_rng(0).bytes(10_000))


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
        "robust_accuracy": 0.4,
        "robust_attack": "PGD-20, L_inf 8/255",
        "robust_examples": 250,
        "model": {"arch": "resnet8"},
        "dataset": "fashion_mnist_small",
        "recipe": {"density": 0.1},
        "versions": {"numpy": "2"},
    }


def test_closing_table_has_this_network_beside_the_dense_one(report):
    cells = {
        line[:30].strip(): line[30:].split() for line in runs.closing_table(report).splitlines()
    }
    assert cells["non-zero parameters"] == ["2,000", "500", "4.00x"]
    assert cells["non-zero MACs"] == ["10,000", "2,500", "4.00x"]
    assert cells["int8 .tflite, bytes*"] == ["10,000", "5,000", "2.00x"]
    assert cells["clean accuracy, 1,000 images"] == ["70.00", "%"]
    assert cells["PGD-20, L_inf 8/255, 250"] == ["40.00", "%"]


def test_report_is_json_and_a_page(tmp_path, report):
    runs.write_report(tmp_path, report, [row(1), row(2)], None)
    assert json.loads((tmp_path / "report.json").read_text()) == report
    page = (tmp_path / "report.html").read_text()
    assert "resnet8 on fashion_mnist_small" in page
    assert page.count("data:image/png;base64") == 2  # without adversarial examples


def test_adversarial_examples_are_of_images_that_are_classified_correctly():
    """A model that sees class 1 in bright images and class 0 in dark ones."""
    inputs = keras.Input((4, 4, 1))
    dense = keras.layers.Dense(2)
    model = keras.Model(inputs, dense(keras.layers.Flatten()(inputs)))
    dense.set_weights([np.tile([0.0, 1.0], (16, 1)), np.array([8.0, 0.0])])
    images = np.full((6, 4, 4, 1), 250, np.uint8)
    images[:3] = 100
    dataset = types.SimpleNamespace(class_names=["dark", "bright"])
    seen = []

    def attack(images, labels, seed):
        seen.append(
            (np.asarray(images).mean(axis=(1, 2, 3)).round(2).tolist(), np.asarray(labels).tolist())
        )
        return fgsm(model, 0.2)(images, labels, seed)

    labels = np.array([0, 1, 0, 1, 0, 1])
    for count, expected in ((8, [0, 2, 3, 5]), (2, [0, 2])):
        figure = runs.adversarial_examples(
            model, images, labels, attack, dataset, 0.2, seed=0, count=count
        )
        assert figure is not None
        values = [round(float(images[index].mean()) / 255, 2) for index in expected]
        assert seen.pop() == (pytest.approx(values), [int(labels[index]) for index in expected])
    assert runs.adversarial_examples(model, images, 1 - labels, attack, dataset, 0.2, 0) is not None
    wrong = np.array([1, 1, 1, 0, 0, 0])
    assert runs.adversarial_examples(model, images, wrong, attack, dataset, 0.2, 0) is None
