"""A finished run says so at once, and only if it is the run that is asked for."""

import hashlib
import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from zoo import finished

RECIPE = {"density": 0.1, "epochs": 2}
DEFAULTS = {"density": 0.1, "epochs": 10}
FLAGS = ["--arch=resnet8", "--width=8", "--epochs=1"]


def write_run(folder, recipe):
    """Writes what a finished run leaves, with a model of four bytes."""
    for name in finished.FILES:
        (folder / name).write_text(name)
    sha256 = hashlib.sha256(b"model.keras").hexdigest()
    report = {"model_sha256": sha256, "int8": {"passed": True}}
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "flags.json").write_text(json.dumps(recipe))


@pytest.fixture
def workdir(tmp_path):
    write_run(tmp_path, RECIPE)
    return tmp_path


def test_a_finished_run_has_a_summary(workdir):
    assert finished.summary(workdir, RECIPE, DEFAULTS) == "summary.txt"
    (workdir / "flags.json").write_text(json.dumps({"epochs": 2}))  # of an older version
    assert finished.summary(workdir, RECIPE, DEFAULTS) == "summary.txt"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        *((name, None) for name in (*finished.FILES, "flags.json")),
        ("flags.json", '{"density": 0.2, "epochs": 2}'),
        ("flags.json", "[]"),
        ("report.json", "{"),
        ("report.json", '{"model_sha256": "0", "int8": {"passed": true}}'),
        ("model.keras", "another"),
    ],
)
def test_another_or_damaged_run_has_none(workdir, file, content):
    if content is None:
        (workdir / file).unlink()
    else:
        (workdir / file).write_text(content)
    assert finished.summary(workdir, RECIPE, DEFAULTS) is None


def test_a_file_that_failed_its_verification_is_no_end(workdir):
    report = json.loads((workdir / "report.json").read_text())
    (workdir / "report.json").write_text(json.dumps({**report, "int8": {"passed": False}}))
    assert finished.summary(workdir, RECIPE, DEFAULTS) is None


# Records a recipe as train.py does.
RECORD = """
import json, pathlib, sys, train
train.FLAGS(sys.argv)
recipe, _ = train.recipe_flags()
pathlib.Path(train.FLAGS.workdir, "flags.json").write_text(json.dumps(recipe))
"""
COMMAND = """
import sys
from zoo import commands
sys.argv = ["tfsparse", "train", *sys.argv[1:]]
commands.main()
print(sorted({"tensorflow", "keras", "numpy"} & sys.modules.keys()))
"""


def test_the_command_imports_nothing_that_takes_seconds(tmp_path):
    write_run(tmp_path, {})
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for code in (RECORD, COMMAND):
        command = [sys.executable, "-c", code, *FLAGS, f"--workdir={tmp_path}"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
    first, *_, modules = done.stdout.splitlines()
    assert first == f"The run in {tmp_path} is finished; another one needs another --workdir."
    assert "summary.txt" in done.stdout
    assert modules.endswith("[]")
