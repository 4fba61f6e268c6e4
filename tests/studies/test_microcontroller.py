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


def test_baselines_cost_no_more(runs):
    models = {run["model"]: run for run in runs}
    found = list(microcontroller.baselines(models))
    assert len(found) % 3 == 0
    for name, cost, best in found:
        assert zoo.card(name)["recipe"]["prune"] != "none" or zoo.card(name)["model"]["pattern"]
        if best:
            spent = [microcontroller.costs(models[each])[cost] for each in (best, name)]
            assert spent[0] <= spent[1]
            assert zoo.card(best)["recipe"]["prune"] == "none"


@pytest.mark.parametrize(
    ("clean", "pgd", "word"),
    [(0.5, 0.0, "better"), (0.1, -0.1, "mixed"), (0.0, 0.0, "mixed"), (0.0, -0.2, "worse")],
)
def test_differences_beyond_chance(clean, pgd, word, monkeypatch):
    def card(name):
        gain = (clean, pgd) if name == "sparse" else (0, 0)
        values = {"int8": (0.4 + gain[0], 10_000), "pgd": (0.3 + gain[1], 1000)}
        return {"results": {k: {"accuracy": a, "examples": n} for k, (a, n) in values.items()}}

    monkeypatch.setattr(zoo, "card", card)
    assert microcontroller.judged("sparse", "dense") == word


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
