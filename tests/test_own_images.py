"""A folder of one's own images, from training to evaluation, by the commands that users give."""

import json

import numpy as np
import pytest
from PIL import Image

from tflite import file_metadata

NAMES = ("shirt", "trouser", "bag")  # of the bundled data set's classes 0, 1, and 8


@pytest.fixture(scope="module")
def folder(fashion_mnist_training, tmp_path_factory):
    """Some 900 of the bundled images, as PNG files of one level."""
    root = tmp_path_factory.mktemp("images") / "clothes"
    images, labels = fashion_mnist_training
    for index in np.flatnonzero(np.isin(labels, (0, 1, 8)))[:900]:
        path = root / NAMES[(0, 1, 8).index(labels[index])] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * images[index, ..., 0]).round().astype(np.uint8)).save(path)
    return root


@pytest.mark.slow
def test_train_evaluate_and_notice_what_changed(folder, tfsparse, tmp_path):
    workdir = tmp_path / "run"
    train = ["train", f"--workdir={workdir}", f"--dataset={folder}", "--image_size=12"]
    train += ["--width=4", "--epochs=1", "--batch_size=32", "--validation_fraction=0.2"]
    status, _, stderr = tfsparse(*train)
    assert status == 0, stderr
    report = json.loads((workdir / "report.json").read_text())
    assert report["clean_accuracy"] > 0.5  # of three classes
    assert (report["dataset"], report["recipe"]["dataset"]) == (str(folder), str(folder))
    names = sorted(NAMES)
    assert report["class_names"] == names
    assert json.loads((workdir / "data.json").read_text())["class_names"] == names
    metadata = file_metadata.read((workdir / "model_int8.tflite").read_bytes())
    assert metadata["labels"] == names

    evaluate = ["evaluate", f"--model={workdir / 'model.keras'}", f"--json={tmp_path / 'r.json'}"]
    status, stdout, stderr = tfsparse(*evaluate, "--attacks=clean")
    assert status == 0, stderr
    found = json.loads((tmp_path / "r.json").read_text())["results"]["clean"]
    assert found["examples"] == report["clean_examples"]
    assert found["accuracy"] == report["clean_accuracy"]

    # By its hash, this file is in the training split.
    changed = folder / "bag" / "another.png"
    changed.write_bytes(next((folder / "bag").iterdir()).read_bytes())
    status, stdout, stderr = tfsparse(*train)
    changed.unlink()
    assert (status, stdout) == (1, "")
    assert f"holds a run on other images: {folder} has changed" in stderr
