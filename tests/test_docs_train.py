"""The page on training runs as written, on fewer images."""

import pytest

from tests.journeys import fewer_images, follow


@pytest.mark.slow
def test_journey(tfsparse, tmp_path, data_dir, monkeypatch):
    fewer_images(monkeypatch)
    follow("journeys/train.md", tfsparse, tmp_path, data_dir, monkeypatch)
    for name in ("first", "second", "periodic"):
        assert (tmp_path / "runs" / name / "model_int8.tflite").exists()
    assert (tmp_path / "runs" / "first" / "attacks.json").exists()
