"""The study of the zoo's robustness: its masked model, and its page."""

import functools
import json

import keras
import numpy as np
import pytest

import zoo
from studies import robustness
from tests.studies.conftest import RESULTS
from tfsparse import UsageError
from tfsparse.attacks import fgsm
from zoo.robustness.subjects import find_subject

MODEL = "resnet8_dnr10_fashion_mnist_small"


def test_masked_model_rounds_and_has_no_gradient(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.random((20, 28, 28, 1), np.float32)
    labels = rng.integers(10, size=20).astype(np.int32)
    model = zoo.load(MODEL)
    robustness.behind_rounding(model).save(tmp_path / "masked.keras")
    masked = keras.saving.load_model(tmp_path / "masked.keras", safe_mode=True)
    rounded = np.round(images * 7) / 7
    np.testing.assert_allclose(masked(images), model(rounded), rtol=0, atol=1e-4)
    adversarial = fgsm(masked, 0.1)(images, labels, np.array([0, 0])).numpy()
    np.testing.assert_array_equal(adversarial, images)


def test_only_a_model_that_changed_is_attacked_again(tmp_path, monkeypatch):
    monkeypatch.setattr(robustness, "evaluate", lambda model, path, *_: (model, path.name))
    for part, suffix in (("white_box", ""), ("file", ".tflite")):
        known = {"sha256": find_subject(MODEL + suffix).sha256}
        assert robustness.part_of(MODEL, part, known, tmp_path) is known
        again = (MODEL + suffix, f"{MODEL}_{part}.json")
        for other in (None, {"sha256": "0"}):
            assert robustness.part_of(MODEL, part, other, tmp_path) == again


def test_square_attacks_the_file_alone(tmp_path, monkeypatch, study_flags):
    """Its float model, which takes longer, is not attacked beside it."""
    few = {"square": (".tflite", ["--examples=4"], "clean,uniform")}  # which needs no PyTorch
    monkeypatch.setattr(robustness, "PARTS", few)
    study_flags(robustness, f"--models={MODEL}", f"--workdir={tmp_path}")
    report = robustness.part_of(MODEL, "square", None, tmp_path)
    assert report["model"] == f"{MODEL}.tflite"
    assert report["sha256"] == zoo.card(MODEL)["tflite"]["sha256"]
    assert set(report["results"]) == {"clean", "uniform"}


def test_models_that_are_not_asked_for_are_kept(tmp_path, monkeypatch, run_study):
    path = RESULTS / f"{robustness.NAME}.json"
    (tmp_path / path.name).write_bytes(path.read_bytes())
    runs = json.loads(path.read_text())
    before = robustness.reports(runs)
    *_, name = (name for name, parts in before.items() if "file" in parts)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(robustness, "part_of", lambda name, part, *_: before[name][part])
    monkeypatch.setattr(robustness, "evaluate", interrupted)  # the checks for masking
    arguments = [f"--models={name}", f"--workdir={tmp_path}", f"--output={tmp_path}"]
    with pytest.raises(KeyboardInterrupt):
        run_study(robustness, *arguments, f"--note={runs[0]['note']}")
    assert json.loads((tmp_path / path.name).read_text()) == runs


def test_runs_on_other_data_are_not_mixed(tmp_path, run_study):
    path = RESULTS / f"{robustness.NAME}.json"
    (tmp_path / path.name).write_bytes(path.read_bytes())
    arguments = [f"--models={MODEL}", f"--workdir={tmp_path}", f"--output={tmp_path}"]
    with pytest.raises(UsageError, match="runs on other data: --note="):
        run_study(robustness, *arguments, "--note=others")


def test_records_are_of_the_models_in_the_zoo():
    """Of those with all parts by their hash, of the others by their accuracy under PGD.

    Random starts of the record are drawn for each batch, those of the cards for each image.
    """
    found = robustness.reports(json.loads((RESULTS / f"{robustness.NAME}.json").read_text()))
    hashed = functools.cache(lambda name: find_subject(name).sha256)
    for name, parts in found.items():
        pgd = zoo.card(name)["results"]["pgd"]
        recorded = parts["white_box"]["results"]["pgd"]["accuracy"]
        assert recorded == pytest.approx(pgd["accuracy"], abs=0.004)
        if "autoattack" in parts:
            results = parts["autoattack"]["results"]
            assert results["autoattack"]["accuracy"] <= results["pgd"]["accuracy"]
            for part, (suffix, *_) in robustness.PARTS.items():
                assert parts[part]["sha256"] == hashed(name + suffix)
