"""The page on training runs as written, evaluated on fewer images."""

import pytest

from tests.journeys import follow
from zoo.data import Dataset


@pytest.mark.slow
def test_journey(tfsparse, tmp_path, data_dir, monkeypatch):
    read = Dataset.read

    def read_fewer(dataset, split, count=None):
        return read(dataset, split, count if split == "train" else min(count or 200, 200))

    monkeypatch.setattr(Dataset, "read", read_fewer)
    follow("train.md", tfsparse, tmp_path, data_dir, monkeypatch)
    for name in ("first", "second", "periodic"):
        assert (tmp_path / "runs" / name / "model_int8.tflite").exists()
    assert (tmp_path / "runs" / "first" / "attacks.json").exists()
