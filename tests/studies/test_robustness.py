"""The study of the zoo's robustness: its masked model, and its page."""

import json

import keras
import numpy as np
import pytest
from absl import flags

import zoo
from studies import robustness
from tests.conftest import ROOT
from tfsparse import UsageError
from tfsparse.attacks import fgsm
from zoo.robustness.subjects import find_subject

MODEL = "resnet8_dnr10_fashion_mnist_small"


def test_masked_model_rounds_and_has_no_gradient(tmp_path, fashion_mnist):
    images, labels = fashion_mnist[0][:20], fashion_mnist[1][:20].astype(np.int32)
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


def test_models_that_are_not_asked_for_are_kept(tmp_path, monkeypatch):
    path = ROOT / "docs" / f"{robustness.NAME}.json"
    (tmp_path / path.name).write_bytes(path.read_bytes())
    before = json.loads(path.read_text())
    *_, name = (name for name, parts in before["models"].items() if "file" in parts)
    settings = flags.FlagValues()
    for key in ("models", "white_box"):
        flags.DEFINE_list(key, [name] if key == "models" else [], "", flag_values=settings)
    for key, value in (("workdir", tmp_path), ("output", tmp_path), ("note", before["note"])):
        flags.DEFINE_string(key, str(value), "", flag_values=settings)
    settings.mark_as_parsed()
    monkeypatch.setattr(robustness, "FLAGS", settings)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(robustness, "part_of", lambda name, part, *_: before["models"][name][part])
    monkeypatch.setattr(robustness, "evaluate", interrupted)  # what checks for masking
    with pytest.raises(KeyboardInterrupt):
        robustness.main()
    assert json.loads((tmp_path / path.name).read_text()) == before
    settings.note = "others"
    with pytest.raises(UsageError, match="results on other data: --note="):
        robustness.main()


def test_docs_show_what_was_measured():
    path = ROOT / "docs" / f"{robustness.NAME}.json"
    report = json.loads(path.read_text())
    assert path.with_suffix(".md").read_text() == robustness.page(report)
    for name, parts in report["models"].items():
        for part, found in parts.items():  # of the models as the zoo has them now
            assert found["sha256"] == find_subject(name + robustness.PARTS[part][0]).sha256
    complete = [parts for parts in report["models"].values() if "autoattack" in parts]
    assert len(complete) >= 3
    for parts in complete:
        found = parts["autoattack"]["results"]
        assert found["autoattack"]["accuracy"] <= found["pgd"]["accuracy"]
    for title, found in report["masking"].items():
        failed = [check for check in found["masking"] if check["verdict"] == "failed"]
        assert bool(failed) == title.endswith("masked")
