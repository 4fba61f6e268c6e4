"""The notebook runs from top to bottom, on fewer images, and prints what it stores, but numbers."""

import re

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

PATH = ROOT / "examples" / "quickstart.ipynb"
OPENED = 'data = open_dataset("fashion_mnist_small")'
SMALLER = 'data.sizes = {"train": 1280, "validation": 100, "test": 100}'


def printed(notebook):
    """Returns the first word of each line that each code cell prints, without numbers."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    texts = ["".join(each.get("text", "") for each in cell.outputs) for cell in cells]
    return [
        [re.sub(r"[\d.,]+", "0", line.split()[0]) for line in text.splitlines() if line.strip()]
        for text in texts
    ]


def pictures(notebook):
    outputs = [each for cell in notebook.cells for each in cell.get("outputs", [])]
    return sum("image/png" in each.get("data", {}) for each in outputs)


def test_the_stored_outputs_are_of_one_run_from_top_to_bottom():
    notebook = nbformat.read(PATH, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert pictures(notebook) == 3
    kinds = {each.get("name", each.output_type) for cell in code for each in cell.outputs}
    assert kinds == {"stdout", "display_data"}


@pytest.mark.slow
def test_the_notebook_runs(data_dir, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    stored, run = (nbformat.read(PATH, as_version=4) for _ in range(2))
    assert sum(OPENED in cell.source for cell in run.cells) == 1
    for cell in run.cells:
        cell.source = cell.source.replace(OPENED, f"{OPENED}\n{SMALLER}")
    resources = {"metadata": {"path": tmp_path}}
    NotebookClient(run, timeout=600, kernel_name="python3", resources=resources).execute()
    assert pictures(run) == 3
    for cell in run.cells:
        if "outputs" in cell:
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    expected, found = printed(stored), printed(run)
    assert found[:-1] == expected[:-1]
    assert len(found[-1]) == len(expected[-1]) == 5  # classes of images
    verdict = run.cells[-3].outputs[0].text.splitlines()[-1]
    assert verdict.split() == ["verdict", "passed"]
