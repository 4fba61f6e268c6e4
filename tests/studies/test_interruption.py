"""Commands that are killed, and the comparison of their results."""

import sys

import numpy as np
import pytest

from studies import interruption
from tests import forks

# Counts to 20 in a file, and continues where it was killed.
COUNT = """
import os, pathlib, sys, time
path = pathlib.Path(sys.argv[1]) / "count"
path.parent.mkdir(exist_ok=True)
start = int(path.read_text()) if path.exists() else 0
for number in range(start, 20):
    time.sleep(0.01)
    path.with_suffix(".new").write_text(str(number + 1))
    os.replace(path.with_suffix(".new"), path)
"""
FORGET = COUNT.replace("str(number + 1)", "str(number + 1 - bool(start))")  # is off by one

SMALLER = {
    "training": ["--image_size=8", "--width=4", "--epochs=1", "--batch_size=256"],
    "evaluation": ["--attacks=pgd,gaussian", "--steps=5", "--examples=60"],
    "conversion": [],
}


@pytest.mark.parametrize(("program", "different"), [(COUNT, False), (FORGET, True)])
def test_a_command_that_forgets_is_found(program, different, tmp_path, monkeypatch):
    command = (
        lambda folder: [sys.executable, "-c", program, str(folder)],
        lambda folder: {"count": (folder / "count").read_text()},
    )
    monkeypatch.setitem(interruption.COMMANDS, "counting", command)
    found = interruption.compare("counting", tmp_path, kills=6, seed=0)
    assert len(found["kills"]) >= 6
    assert {kill["signal"] for kill in found["kills"]} == {"SIGKILL", "SIGTERM"}
    assert found["compared"] == 1
    assert found["runs"] >= 1
    assert bool(found["different"]) == different


@pytest.mark.slow
@pytest.mark.parametrize("name", interruption.COMMANDS)
def test_killed_commands_end_to_the_bit_as_one_that_was_not(name, tmp_path, data_dir, monkeypatch):
    command, outcome = interruption.COMMANDS[name]
    small = (lambda folder: [*command(folder), *SMALLER[name]], outcome)
    monkeypatch.setitem(interruption.COMMANDS, name, small)
    monkeypatch.setattr(interruption.subprocess, "Popen", forks.Popen)
    found = interruption.compare(name, tmp_path, kills=1, seed=0, data_dir=data_dir)
    assert found["different"] == []
    assert len(found["kills"]) == 1
    assert found["compared"] > {"training": 50, "evaluation": 4, "conversion": 0}[name]


def test_one_bit_is_a_difference():
    weights = np.ones(3, np.float32)
    other = weights.copy()
    other.view(np.int32)[1] ^= 1
    assert interruption.same(weights.copy(), weights)
    assert not interruption.same(other, weights)
    assert not interruption.same(None, weights)
    assert not interruption.same("0.1", "0.10")
    assert not interruption.same(b"\0", b"\1")
