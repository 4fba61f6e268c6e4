"""The code in the docs runs as written, on fewer images."""

import keras
import numpy as np
import pytest

from tests.journeys import PAGES, blocks, follow


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1], ids=["fit", "loop"])
def test_pruning(index, tmp_path, monkeypatch, fashion_mnist):
    images, labels = fashion_mnist
    images = np.repeat(np.pad(images[:130], [(0, 0), (2, 2), (2, 2), (0, 0)]), 3, axis=-1)
    images = (255 * images).astype("uint8"), labels[:130, None]
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: (images, None))
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(blocks("pruning.md", "python")[index], names)
    pruner = names["pruner"]
    assert (
        int(names["model"].optimizer.iterations if index == 0 else names["optimizer"].iterations)
        == 10
    )
    assert pruner.density == pytest.approx(0.1, abs=1e-4)
    for weight, mask in zip(pruner.weights, pruner.masks, strict=True):
        kernel, mask = keras.ops.convert_to_numpy(weight), mask.numpy()
        assert (kernel[mask == 0] == 0).all()
        assert np.count_nonzero(kernel) > 0.9 * mask.sum()
    if index == 0:
        kernel = keras.saving.load_model(tmp_path / "sparse.keras").layers[1].kernel
        assert np.count_nonzero(kernel) <= pruner.masks[1].numpy().sum()


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page != "train.md"])
def test_journey(page, command, tmp_path, data_dir, monkeypatch):
    """tests/test_docs_train.py has that of training, which takes longest."""
    if page == "device.md":
        pytest.importorskip("tflite_micro")
    follow(page, command, tmp_path, data_dir, monkeypatch)
    assert page != "own_model.md" or (tmp_path / "small_int8.tflite").exists()
