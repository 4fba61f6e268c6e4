"""The studies of C on an emulated Cortex-M4: their pages, pictures, and one small measurement."""

import json

import numpy as np
import pytest

import zoo
from studies import microcontroller, microcontroller_layers, records
from tests.studies.conftest import RESULTS
from tflite.codegen import host
from tflite.runtimes import FileModel
from zoo.data import as_float, open_dataset

MODEL = "resnet8_dnr10_fashion_mnist_small"


@pytest.fixture(scope="module")
def runs():
    return records.read(RESULTS, microcontroller.NAME, microcontroller.KEYS)


def test_all_outputs_are_exact(runs):
    for run in runs:
        card = zoo.card(run["model"])
        assert (run["images"], run["different"]) == (1000, 0)
        assert sum(layer["macs"] for layer in run["layers"]) == run["macs"]
        assert run["macs"] <= card["nonzero_macs"]
    assert len(runs) >= 26


# {model: (flash, clean, under PGD, whether it is dense)}
FAMILY = {
    "narrow": (10, 0.4, 0.2, True),
    "wide": (1000, 0.8, 0.3, True),
    "poor": (500, 0.3, 0.1, True),
    "good": (100, 0.7, 0.25, False),
    "equal": (100, 0.6, 0.25, False),
    "bad": (100, 0.5, 0.25, False),
    "other": (100, 0.7, 0.15, False),
    "tiny": (5, 0.4, 0.2, False),
    "huge": (5000, 0.8, 0.3, False),
}


@pytest.fixture
def family(monkeypatch):
    def card(name):
        _, clean, pgd, dense = FAMILY[name]
        results = {"int8": (clean, 10_000), "pgd": (pgd, 1000)}
        return {
            "dataset": "cifar10",
            "nonzero_parameters": 1,
            "recipe": {"loss": "hybrid", "prune": "none" if dense else "dnr"},
            "model": {"pattern": None},
            "results": {k: {"accuracy": a, "examples": n} for k, (a, n) in results.items()},
        }

    monkeypatch.setattr(zoo, "card", card)
    names = ("buffer", "stack", "instructions", "macs")
    return {
        name: {"model": name, "flash": 1000 * flash, **dict.fromkeys(names, 1)}
        for name, (flash, *_) in FAMILY.items()
    }


def test_dense_networks_of_equal_cost(family):
    """Halfway on a logarithmic axis, without one that a cheaper one beats."""
    found = {name: microcontroller.dense_accuracy(family, name, "flash", "int8") for name in FAMILY}
    assert found["good"] == pytest.approx(60)
    assert found["tiny"] is None
    assert found["huge"] == pytest.approx(80)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        *(("good", "better"), ("equal", "mixed"), ("bad", "worse"), ("other", "mixed")),
        *(("tiny", "mixed"), ("huge", "mixed")),
    ],
)
def test_differences_beyond_chance(name, word, family):
    assert microcontroller.judged(family, name, "flash") == word


@pytest.mark.parametrize("name", ["microcontroller_flash", "microcontroller_instructions"])
def test_pictures_show_the_robust_models(name, runs):
    (axes,) = microcontroller.picture(name, runs).axes
    robust = [run["model"] for run in runs if zoo.card(run["model"])["recipe"]["loss"] == "hybrid"]
    robust = [each for each in robust if zoo.card(each)["dataset"] == "cifar10"]
    assert len(axes.texts) == len(robust)


@pytest.mark.slow
@pytest.mark.skipif(host.compiler() is None, reason="no C compiler")
def test_measuring(run_study, tmp_path, data_dir, monkeypatch):
    for module in ("ziglang", "unicorn", "elftools"):
        pytest.importorskip(module)
    output, work = tmp_path / "results", tmp_path / "work"
    images = as_float(open_dataset("fashion_mnist_small", data_dir).read("test", 12)[0])
    content = zoo.load_tflite(MODEL).read_bytes()
    outputs = FileModel(content, "reference").outputs(images)
    outputs[3, 4] += 1  # so that a difference is seen
    work.mkdir()
    np.save(work / f"{MODEL}_{zoo.card(MODEL)['tflite']['sha256'][:16]}.npy", outputs)
    flags = [f"--models={MODEL}", "--exact_images=12", f"--workdir={work}"]
    run_study(microcontroller, *flags, f"--output={output}", f"--data_dir={data_dir}")
    (run,) = json.loads((output / "microcontroller.json").read_text())
    assert (run["images"], run["different"]) == (12, 1)
    assert MODEL in (output / "microcontroller.md").read_text()
    monkeypatch.setattr(host, "build", None)  # the same C is not measured again
    assert microcontroller.measure(MODEL, run) == run


@pytest.mark.skipif(host.compiler() is None, reason="no C compiler")
def test_a_layer():
    for module in ("ziglang", "unicorn", "elftools"):
        pytest.importorskip(module)
    row = microcontroller_layers.measure(8, 16, "PS2_P4")
    assert row["macs"] == 8 * 8 * 16 * 16 * 2
    assert row["macs"] < row["instructions"] < 6 * row["macs"]


def test_cards_have_the_figures_of_the_record(runs):
    """If the generated C has changed, `tfsparse verify --fast --write` measures the cards'."""
    for run in runs:
        spent = zoo.card(run["model"])["c_package"]
        assert spent["instructions"] == run["instructions"]
        assert (spent["flash_bytes"], spent["ram_bytes"]) == (
            run["flash"],
            run["buffer"] + run["stack"],
        )
