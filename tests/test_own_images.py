"""A folder of one's own images, from training to evaluation, as its page says."""

import json
import shlex

import pytest

from tests.journeys import blocks, follow
from tflite import file_metadata

PAGE = "howto/own_images.md"


@pytest.mark.slow
def test_train_evaluate_and_notice_what_changed(tfsparse, tmp_path, data_dir, monkeypatch):
    """tests/zoo/test_own_data.py compares images and labels with the files."""
    follow(PAGE, tfsparse, tmp_path, data_dir, monkeypatch, code_first=True)
    folder, workdir = tmp_path / "clothes", tmp_path / "runs" / "clothes"
    report = json.loads((workdir / "report.json").read_text())
    assert (report["dataset"], report["recipe"]["dataset"]) == ("clothes", "clothes")
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 10
    assert report["class_names"] == names
    assert json.loads((workdir / "data.json").read_text())["class_names"] == names
    metadata = file_metadata.read((workdir / "model_int8.tflite").read_bytes())
    assert metadata["labels"] == names
    found = json.loads((workdir / "attacks.json").read_text())["results"]["clean"]
    assert found["examples"] == report["clean_examples"] > 30
    assert found["accuracy"] == report["clean_accuracy"]

    # By its hash, this file is in the training split.
    changed = folder / "Bag" / "another.png"
    changed.write_bytes(next((folder / "Bag").iterdir()).read_bytes())
    _, *train = shlex.split(blocks(PAGE, "sh")[0].splitlines()[0])
    status, stdout, stderr = tfsparse(*train)
    assert (status, stdout) == (1, "")
    assert "holds a run on other images: clothes has changed" in stderr
