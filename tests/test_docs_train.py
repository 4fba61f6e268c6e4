"""The page on training runs as written, on fewer images."""

import pytest

from tests.journeys import follow
from zoo.data import Dataset


@pytest.mark.slow
def test_journey(tfsparse, tmp_path, data_dir, monkeypatch):
    initialize = Dataset.__init__

    def initialize_smaller(dataset, *arguments, **keywords):
        initialize(dataset, *arguments, **keywords)
        dataset.sizes = {"train": 1280, "validation": 200, "test": 200}

    monkeypatch.setattr(Dataset, "__init__", initialize_smaller)
    follow("journeys/train.md", tfsparse, tmp_path, data_dir, monkeypatch)
    for name in ("first", "second", "periodic"):
        assert (tmp_path / "runs" / name / "model_int8.tflite").exists()
    assert (tmp_path / "runs" / "first" / "attacks.json").exists()
