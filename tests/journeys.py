"""Runs the code of a page of docs/journeys or docs/howto."""

import re
import shlex

import tensorflow_datasets as tfds

from tests.conftest import ROOT
from zoo.data import Dataset

PAGES = sorted(path.name for path in (ROOT / "docs" / "journeys").glob("*.md"))


def blocks(page, language):
    """Returns the blocks of code in one language of a page of docs/."""
    text = (ROOT / "docs" / page).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def fewer_images(monkeypatch):
    """Makes data sets small, so that code that uses all of their images takes little time."""
    initialize = Dataset.__init__

    def initialize_smaller(dataset, *arguments, **keywords):
        initialize(dataset, *arguments, **keywords)
        dataset.sizes = {"train": 640, "validation": 64, "test": 64}

    monkeypatch.setattr(Dataset, "__init__", initialize_smaller)


def follow(page, tfsparse, folder, data_dir, monkeypatch, code_first=False, leave_out=()):
    """Runs all commands and then all Python code of a page, in a folder like the project's.

    All of it runs in this process; tests/commands start each command as a user does.

    Args:
        page: path in docs/.
        tfsparse: the fixture.
        folder: new folder in which the code runs.
        data_dir: folder of prepared data sets.
        monkeypatch: the fixture.
        code_first: whether the Python code runs before the commands.
        leave_out: commands, as the page has them, that other tests run.
    """
    for name in ("train.py", "zoo"):
        (folder / name).symlink_to(ROOT / name)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(data_dir))
    code = "".join(blocks(page, "python"))
    if code_first:
        exec(code, {})
    lines = "".join(blocks(page, "sh")).replace("\\\n", "").splitlines()
    assert set(leave_out) <= set(lines)
    for line in lines:
        if line in leave_out:
            continue
        if line.startswith("python train.py "):
            line = line.replace("python train.py", "tfsparse train")
        line = line.replace("--seconds=2 ", "--seconds=0.1 ")  # of each measurement
        program, *arguments = shlex.split(line)
        assert program == "tfsparse", f"a command of another program: {line}"
        status, _, stderr = tfsparse(*arguments)
        assert status == 0, stderr
    if not code_first:
        exec(code, {})
