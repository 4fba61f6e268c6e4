"""The page on training runs as written."""

import pytest

from tests.journeys import follow


@pytest.mark.slow
def test_journey(tfsparse, tmp_path, data_dir, monkeypatch):
    follow("train.md", tfsparse, tmp_path, data_dir, monkeypatch)
    for name in ("first", "second", "periodic"):
        assert (tmp_path / "runs" / name / "model_int8.tflite").exists()
    assert (tmp_path / "runs" / "first" / "attacks.json").exists()
