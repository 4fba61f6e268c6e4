"""The page on training runs as written, on fewer images."""

import pytest

from tests.journeys import fewer_images, follow

# tests/test_train.py trains by this recipe, with the same kind of flags after it.
RECIPE = (
    "python train.py --flagfile=zoo/recipes/quickstart.cfg --width=8 --epochs=1 "
    "--workdir=runs/second"
)


@pytest.mark.slow
def test_journey(tfsparse, tmp_path, data_dir, monkeypatch):
    fewer_images(monkeypatch)
    follow("journeys/train.md", tfsparse, tmp_path, data_dir, monkeypatch, leave_out=[RECIPE])
    for name in ("first", "periodic"):
        assert (tmp_path / "runs" / name / "model_int8.tflite").exists()
    assert (tmp_path / "runs" / "first" / "attacks.json").exists()
