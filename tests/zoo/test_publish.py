"""`zoo.publish`: what it writes loads again, and a run that does not fit together is refused."""

import json
import shutil

import keras
import numpy as np
import pytest

import zoo
from tflite import metadata
from tflite.convert import convert, file_facts
from tfsparse import UsageError, pruning
from zoo import figures, models, publish, verify
from zoo.data import open_dataset

SHIPPED = "resnet8_dnr10_fashion_mnist_small"


@pytest.fixture(params=pruning.STRUCTURES)
def workdir(request, tmp_path, fashion_mnist, data_dir):
    """What train.py leaves of a network whose channels are pruned, or just weights.

    The folder has the name of a model of the zoo, as recipes give it.
    """
    workdir = tmp_path / SHIPPED
    workdir.mkdir()
    keras.utils.set_random_seed(0)
    architecture = {
        **{"arch": "resnet8", "input_shape": [28, 28, 1], "num_classes": 10},
        **{"width": 4, "pattern": None},
    }
    model = zoo.build(**architecture)
    schedule = pruning.DNRSchedule(0.5, end_step=9, frequency=1)
    pruning.Pruner(model, schedule, structure=request.param).detach()
    model.save(workdir / "model.keras")
    calibration = fashion_mnist[0][:50]
    content = convert(model, "int8", calibration)
    data = open_dataset("fashion_mnist_small", data_dir)
    facts = file_facts(model, {}, data, "int8", calibration)
    (workdir / "model_int8.tflite").write_bytes(metadata.embed(content, facts))
    report = {
        **{key: zoo.card(SHIPPED)[key] for key in publish._COPIED},
        "recipe": {**zoo.card(SHIPPED)["recipe"], "structure": request.param},
        **{"model": architecture, "seed": 7, "epochs": 6, "seconds_per_epoch": 600.0},
        **{"data_dir": str(data_dir), "int8": {"passed": True}},
    }
    (workdir / "report.json").write_text(json.dumps(report))
    return workdir


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty zoo, whose attacks and benchmarks are short."""
    monkeypatch.setattr(figures, "PGD_STEPS", 1)
    monkeypatch.setattr(figures, "LATENCY_SECONDS", 0.1)
    return tmp_path / "zoo"


def test_what_is_published_loads_and_is_true(workdir, folder, monkeypatch):
    # From the folder of the runs, where the run's name is also that of a model.
    monkeypatch.chdir(workdir.parent)
    publish.publish(workdir.relative_to(workdir.parent), "mine", "n", None, folder)
    monkeypatch.setattr(models, "_FOLDER", folder)
    assert zoo.list_models() == ["mine"]
    card, model = zoo.card("mine"), zoo.load("mine")
    assert (card["seed"], card["hours"], card["note"]) == (7, 1.0, "n")
    images = figures.golden_images((28, 28, 1))
    trained = keras.saving.load_model(workdir / "model.keras")
    expected, found = np.asarray(trained(images)), np.asarray(model(images))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    content = zoo.load_tflite("mine").read_bytes()
    assert content == (workdir / "model_int8.tflite").read_bytes()
    costs = figures.costs(model, card["model"])
    rows = verify.compare(card, {**costs, "golden": figures.golden(model, content)})
    assert {verdict for *_, verdict in rows} == {"ok"}
    assert card["parameters"] == model.count_params()
    assert card["results"]["clean"]["examples"] == card["results"]["pgd"]["examples"] == 1000
    assert "robust to L_inf perturbations of up to 8/255" in card["limits"]
    with pytest.raises(UsageError, match=r"mine\.json is there already"):
        publish.publish(workdir, "mine", "n", None, folder)


def test_a_file_of_another_model_is_refused(workdir, folder):
    shutil.copy(zoo.load_tflite(SHIPPED), workdir / "model_int8.tflite")
    with pytest.raises(UsageError, match=r"model_int8\.tflite was not made from the model\.keras"):
        publish.publish(workdir, "mine", "", None, folder)
    assert not folder.exists()


def test_a_run_whose_file_was_not_verified_is_refused(workdir, folder):
    report = json.loads((workdir / "report.json").read_text())
    (workdir / "report.json").write_text(json.dumps({**report, "int8": {"passed": False}}))
    (workdir / "model_int8.tflite").unlink()
    with pytest.raises(UsageError, match="did not agree with its model"):
        publish.publish(workdir, "mine", "", None, folder)


@pytest.mark.parametrize("missing", ["report.json", "model_int8.tflite"])
def test_a_run_that_is_not_finished_is_refused(workdir, folder, missing):
    (workdir / missing).unlink()
    with pytest.raises(UsageError, match="finished run"):
        publish.publish(workdir, "mine", "", None, folder)
    assert not folder.exists()
