"""The command line: help, versions, typos, and one run of each command as a user starts it."""

import importlib.metadata
import os
import subprocess
import sys

import pytest
from absl import flags

import zoo
from zoo.commands import COMMANDS, commandline
from zoo.commands import models as models_command

MODEL = "resnet8_dnr10_fashion_mnist_small"
# Prints help and, at the end, which heavy packages were imported for it.
HELP = """
import sys
from zoo.commands import main
try:
    main()
finally:
    print(sorted({"tensorflow", "keras", "numpy", "matplotlib"} & sys.modules.keys()))
"""


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_light(run, command):
    result = run("-c", HELP, *([command] if command else []), "--help")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[-1] == "[]"
    text = "\n".join(lines[:-1])
    assert ("python train.py" if command == "train" else f"tfsparse {command}") in text
    assert all(len(line) <= 100 for line in lines if "(default: " not in line)
    if not command:
        assert all(f"  {name} " in text for name in COMMANDS)


def test_help_of_a_command_lists_its_flags(tfsparse):
    text = tfsparse("evaluate", "--help").stdout
    assert "--eps=fraction\n      L_inf bound; images are in [0, 1]. (default: " in text
    assert (
        "--model=string\n      Zoo model, run's folder, .keras or .tflite file. (required)" in text
    )
    assert "--bits=8|16|32\n      Bits of" in tfsparse("summary", "--help").stdout
    assert "--max_flash=string\n      Most bytes" in tfsparse("models", "--help").stdout


@pytest.mark.parametrize("argument", ["help", "-h", None])
def test_help_without_a_command(tfsparse, argument):
    result = tfsparse(*([argument] if argument else []))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == tfsparse("--help").stdout


def test_version(tfsparse, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", {"tfsparse": "1.2.3"}.get)
    assert tfsparse("--version").stdout == "tfsparse 1.2.3\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["evalute"], "no command 'evalute'. Did you mean evaluate?"),
        (["xyz"], "no command 'xyz'. Run: tfsparse --help"),
        (["evaluate", "--modle=x"], "'modle'. Did you mean: model ?"),
        (["evaluate"], "error: Give --model."),
        (["models", "--robust=maybe"], "flag --robust=maybe: must be true or false"),
        (["models", "resnet8"], "--flag=value. Received: resnet8"),
    ],
)
def test_typos_are_answered_in_one_line(tfsparse, arguments, named):
    result = tfsparse(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert named in line


@pytest.mark.slow
def test_a_reader_that_has_seen_enough():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "zoo.commands", "summary", "--help"]
    result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), ("0.5", 0.5), ("1e-2/2", 0.005), (3, 3.0)]
)
def test_fractions(text, value):
    assert commandline.fraction(text) == value


@pytest.mark.parametrize("text", ["8/0", "x", "1/2/3", ""])
def test_what_is_not_a_fraction(text):
    with pytest.raises(ValueError, match="a number or a fraction such as 8/255"):
        commandline.fraction(text)


# As a user starts them: {command: (arguments, lines that its output has)}. Longer runs of evaluate
# and verify are in their own files.
RUNS = {
    "models": ([], [f"\n{MODEL} "]),
    "summary": (
        [f"--model={MODEL}", "--bits=8"],
        ["\nstem_conv ", "\nMACs with non-zero weights: "],
    ),
    "verify": ([MODEL, "--fast"], ["\ngolden int8  ", " ok\n"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", RUNS)
def test_command_in_a_process_of_its_own(run, fork, command):
    """One imports TensorFlow as all do."""
    arguments, expected = RUNS[command]
    result = (run if command == "verify" else fork)("-m", "zoo.commands", command, *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    assert all(text in result.stdout for text in expected), result.stdout


@pytest.mark.slow
def test_publish_refuses_in_a_process_of_its_own(fork, tmp_path):
    result = fork("-m", "zoo.commands", "publish", f"--workdir={tmp_path}", "--name=x")
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert "--workdir must be the folder of a finished run" in line


def test_models_shows_all_cards(tfsparse):
    rows = [line.split() for line in tfsparse("models").stdout.splitlines()]
    names = [card["name"] for card in zoo.find()]
    assert sorted(names) == zoo.list_models()
    assert [row[0] for row in rows[1 : len(names) + 1]] == names
    card = zoo.card(MODEL)
    row = dict(zip(rows[0], rows[1 + names.index(MODEL)], strict=True))
    assert row["data"] == card["dataset"]
    assert row["robust"] == f"{card['results']['autoattack']['accuracy']:.1%}*"
    assert row["nonzero_macs"] == f"{card['nonzero_macs']:,}"
    card["results"]["autoattack"]["examples"] = 1000
    _, line = models_command.table([card]).splitlines()
    assert line.split()[3] == f"{card['results']['autoattack']['accuracy']:.1%}"
    del card["results"]["autoattack"]
    card["device"]["arena_bytes"] = None
    _, line = models_command.table([card]).splitlines()
    assert line.split().count("-") == 2


def test_models_that_meet_conditions(tfsparse):
    lines = tfsparse("models", "--robust", "--max_flash=100k", "--board=micro:bit").stdout
    names = [card["name"] for card in zoo.find(robust=True, max_flash=100_000, board="micro:bit")]
    assert [line.split()[0] for line in lines.splitlines()[1:-3]] == names
    assert tfsparse("models", "--max_flash=1k").stdout.startswith("No model of the zoo meets")
    status, _, stderr = tfsparse("models", "--max_ram=64 pages")
    assert (status, stderr) == (
        1,
        "error: --max_ram must be a number, 0 or more, such as 100k. Received: 64 pages\n",
    )


def test_models_fit_a_terminal(tfsparse):
    assert max(map(len, tfsparse("models").stdout.splitlines())) <= 100


def test_flags_of_tests_stay(tfsparse):
    before = set(flags.FLAGS)
    tfsparse("models")
    assert set(flags.FLAGS) == before
