"""The code in the docs runs as written, on fewer images."""

import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

import zoo
from tests.conftest import ROOT

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1], ids=["fit", "loop"])
def test_pruning(index, tmp_path, monkeypatch, fashion_mnist):
    images, labels = fashion_mnist
    images = np.repeat(np.pad(images[:256], [(0, 0), (2, 2), (2, 2), (0, 0)]), 3, axis=-1)
    images = (255 * images).astype("uint8"), labels[:256, None]
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: (images, None))
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(blocks("pruning.md")[index], names)
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


JOURNEYS = sorted(path.name for path in (ROOT / "docs" / "journeys").glob("*.md"))


@pytest.mark.slow
@pytest.mark.parametrize("page", JOURNEYS)
def test_journey(page, tmp_path, data_dir):
    """All code of a page, in its order, in a folder that looks like the project's."""
    if page == "device.md":
        pytest.importorskip("tflite_micro")
    for name in ("train.py", "zoo"):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = {
        **os.environ,
        "PATH": f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TFDS_DATA_DIR": str(data_dir),
    }
    text = (ROOT / "docs" / "journeys" / page).read_text()
    shell, python = (
        re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) for language in ("sh", "python")
    )
    for command in (["sh", "-ec", "".join(shell)], [sys.executable, "-c", "".join(python)]):
        result = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
        )
        assert result.returncode == 0, result.stderr
    assert page != "own_model.md" or (tmp_path / "small_int8.tflite").exists()


def test_readme_shows_the_figures_of_the_cards():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` ((?:\| [\d.]+ ){5})\|", text, re.MULTILINE)
    assert len(rows) > 5
    for name, figures in rows:
        card = zoo.card(name)
        clean, attacked = (card["results"][key] for key in ("clean", "autoattack"))
        assert attacked["examples"] == 200
        assert figures.strip("| ").split(" | ") == [
            f"{100 * clean['accuracy']:.1f}",
            f"{100 * attacked['accuracy']:.1f}",
            f"{card['tflite']['bytes'] / 1000:.0f}",
            f"{card['nonzero_macs'] / 1e6:.1f}",
            f"{card['device']['arena_bytes'] / 1000:.0f}",
        ]
    assert f"all {len(zoo.list_models())} models" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
