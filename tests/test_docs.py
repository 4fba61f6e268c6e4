"""The code in the docs runs as written, on fewer images."""

import re
import shlex
import subprocess

import keras
import numpy as np
import pytest
import tensorflow_datasets as tfds

import zoo
from tests.conftest import ROOT
from tests.journeys import PAGES, blocks, fewer_images, follow
from tflite.codegen.host import compiler
from tflite.runtimes import FileModel

DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1], ids=["fit", "loop"])
def test_pruning(index, tmp_path, monkeypatch, fashion_mnist):
    images, labels = fashion_mnist
    images = np.repeat(np.pad(images[:130], [(0, 0), (2, 2), (2, 2), (0, 0)]), 3, axis=-1)
    images = (255 * images).astype("uint8"), labels[:130, None]
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: (images, None))
    monkeypatch.chdir(tmp_path)
    names = {}
    page = ["pruning.md", "howto/training_loop.md"][index]
    keras.utils.set_random_seed(0)
    exec(blocks(page, "python")[0], names)
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
def test_journey(page, tfsparse, tmp_path, data_dir, monkeypatch):
    """tests/test_docs_train.py has that of training, which takes longest."""
    if page == "device.md":
        pytest.importorskip("tflite_micro")
    if page != "use.md":  # which checks a card
        fewer_images(monkeypatch)
    follow(f"journeys/{page}", tfsparse, tmp_path, data_dir, monkeypatch)
    assert page != "own_model.md" or (tmp_path / "small_int8.tflite").exists()


@pytest.mark.slow
def test_how_to_write_an_algorithm(tfsparse, tmp_path, data_dir, monkeypatch):
    follow("howto/algorithm.md", tfsparse, tmp_path, data_dir, monkeypatch)


@pytest.mark.slow
def test_how_to_use_a_board(tfsparse, tmp_path, data_dir, monkeypatch):
    """The program in C is compiled here, and finds the class that LiteRT's kernels find."""
    follow("howto/board.md", tfsparse, tmp_path, data_dir, monkeypatch)
    (program,) = blocks("howto/board.md", "c")
    (tmp_path / "main.c").write_text(program)
    sources = [path for path in (tmp_path / "package").glob("*.c") if path.stem != "self_test"]
    options = ["-O1", f"-I{tmp_path / 'package'}", "-o", tmp_path / "a.out"]
    subprocess.run([*compiler(), *options, tmp_path / "main.c", *sources], check=True)
    found = subprocess.run([tmp_path / "a.out"], capture_output=True, text=True, check=True)
    card = zoo.card("resnet8_dnr10_fashion_mnist_small")
    file = FileModel(zoo.load_tflite(card["name"]).read_bytes(), "reference")
    image = (np.arange(28 * 28) % 256).reshape(1, 28, 28, 1) / 255
    assert found.stdout.strip() == card["class_names"][file(image).argmax()]


README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_shows_the_figures_of_the_cards():
    rows = re.findall(r"^\| `(\w+)` ((?:\| [\d.]+ ){5})\|", README, re.MULTILINE)
    assert len(rows) == 8
    many = re.search(r"on the first 200, or 1,000 \(([^)]*)\)", README)[1]
    for name, figures in rows:
        card = zoo.card(name)
        clean, attacked = (card["results"][key] for key in ("clean", "autoattack"))
        assert attacked["examples"] == (1000 if f"`{name}`" in many else 200)
        assert figures.strip("| ").split(" | ") == [
            f"{100 * clean['accuracy']:.1f}",
            f"{100 * attacked['accuracy']:.1f}",
            f"{card['tflite']['bytes'] / 1000:.0f}",
            f"{card['device']['arena_bytes'] / 1000:.0f}",
            f"{card['nonzero_macs'] / 1e6:.1f}",
        ]
    assert f"All {len(zoo.list_models())} models" in README


def test_readme_says_what_the_claims_page_says():
    page = (ROOT / "docs" / "results" / "claims.md").read_text(encoding="utf-8")
    verdicts = [page.count(f"| **{verdict}** |") for verdict in ("contradicted", "open")]
    assert verdicts == [5, 4]
    assert "five are contradicted and four open" in README
    for published, here in (("(+0.11)", "-1.44 ("), ("(-0.86)", "-2.74 ("), ("(-0.83)", "-3.42 (")):
        assert f"{published} | " in page
        assert f"| {here}" in page
    assert (
        "cost 1.4 to 3.4 points of accuracy, where the paper has 0.1 gained to 0.9 lost" in README
    )
    for figure in ("-6.01 (", "-4.40 ("):
        assert f"| {figure}" in page
    assert "costs 6.0 points clean and 4.4 robust" in README


@pytest.mark.slow
def test_the_code_of_the_readme(tfsparse, tmp_path, data_dir, monkeypatch):
    """But for its own tests and the quick start, which tests/test_train.py has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(data_dir))
    fewer_images(monkeypatch)
    keras.utils.set_random_seed(0)
    exec("".join(blocks("../README.md", "python")), {})
    commands = "".join(blocks("../README.md", "sh")).splitlines()
    for line in commands:
        if line.startswith("tfsparse "):
            status, _, stderr = tfsparse(*shlex.split(line)[1:])
            assert status == 0, stderr
    assert (tmp_path / "package" / "model.c").exists()
    assert any("tfsparse train --flagfile=quickstart" in line for line in commands)


@pytest.mark.slow
def test_the_hint_keeps_tensorflow_quiet(run):
    (hint,) = [block for block in blocks("journeys/use.md", "python") if "environment" in block]
    done = run("-c", f"{hint}\nimport keras, tfsparse\nkeras.ops.zeros(1)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
