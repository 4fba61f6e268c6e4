"""The deployment table on tiny networks; no times."""

import json

import keras
import numpy as np
import pytest

import zoo
from studies import deployment
from tests.studies.conftest import RESULTS
from tflite.arena import arena
from tflite.convert import convert
from tfsparse import UsageError, cost

pytest.importorskip("tflite_micro", reason="there are no wheels for this machine")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((6, 32, 32, 3), np.float32)


def test_networks_are_as_sparse_as_their_form():
    spent = {
        form: cost.model_cost(deployment.untrained("resnet8", 8, form))
        for form in ("dense", "per-layer magnitude 10 %", "DNR channel 50 %", "PS2_P6")
    }
    kernels = {
        form: sum(layer.nonzeros for layer in each.layers if layer.is_convolution)
        for form, each in spent.items()
    }
    assert kernels["per-layer magnitude 10 %"] == pytest.approx(0.1 * kernels["dense"], rel=0.02)
    assert kernels["DNR channel 50 %"] == pytest.approx(0.5 * kernels["dense"], rel=0.1)
    assert spent["PS2_P6"].parameters < 0.45 * spent["dense"].parameters


def test_a_row_has_the_zoo_model_that_fits():
    found = {name: zoo.card(name) for name in zoo.list_models()}
    name = deployment.trained("resnet18", 16, "PSD2_P8")
    assert found[name]["model"]["pattern"] == "PSD2_P8"
    assert found[name]["dataset"] == "cifar10"
    assert deployment.trained("resnet18", 16, "PS2_P6") is None
    assert deployment.trained("resnet8", 64, "dense") is None


@pytest.mark.parametrize("form", ["dense", "DNR 10 %"])
def test_in_tflm(images, form):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(16, 3, padding="same", activation="relu") for _ in range(2)]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((32, 32, 3)), *layers])
    if form == "DNR 10 %":
        kernel = keras.ops.convert_to_numpy(layers[1].kernel).copy()
        kernel[np.random.default_rng(0).random(kernel.shape) > 0.1] = 0
        layers[1].kernel.assign(kernel)
    content = convert(model, "int8", images)
    found = deployment.in_tflm(content, images[:2])
    assert found["steps"] == 0
    assert found["arena"] % 1024 == 0
    assert 32 * 32 * 16 < arena(content, found["arena"]).total <= found["arena"]  # it starts
    assert ("compressed_bytes" in found) == (form != "dense")
    refused = deployment.in_tflm(convert(model, "dynamic_range"), images[:2])
    assert refused["steps"] is None
    assert "TFLM cannot run" in refused["reason"]


@pytest.mark.parametrize("text", ["resnet8", "resnet8:x", "resnet99:16", "resnet8:0"])
def test_networks_that_do_not_exist(text):
    with pytest.raises(UsageError, match=f"ARCHITECTURE:WIDTH.*Received: {text}"):
        deployment._parse(text)


def test_recorded_rows_are_the_models_of_the_zoo():
    for run in json.loads((RESULTS / "deployment.json").read_text()):
        assert [row["form"] for row in run["rows"]] == list(deployment.FORMS)
        network = run["settings"]["arch"], run["settings"]["width"]
        for row in run["rows"]:
            assert row["model"] == deployment.trained(*network, row["form"])
            if row["model"]:  # as the zoo has it now
                results = zoo.card(row["model"])["results"]
                assert row["accuracy"] == pytest.approx(results["clean"]["accuracy"], abs=5e-4)
                assert row["int8_accuracy"] == pytest.approx(results["int8"]["accuracy"], abs=5e-4)
