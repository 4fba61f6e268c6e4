"""train.py as a user runs it, from a flag file, on the bundled images."""

import csv
import json
import runpy
import shutil
import signal
import sys
import time

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import zoo
from tests import forks
from tests.conftest import ROOT, no_flags
from tests.journeys import fewer_images
from tflite import conversion
from tfsparse import distribution, evaluation, optimizers
from tfsparse.pruning import ALGORITHMS, units

QUICK = ["--flagfile=zoo/recipes/quickstart.cfg", "--epochs=2", "--width=8", "--image_size=10"]


@pytest.fixture(scope="module")
def arguments(data_dir, tmp_path_factory):
    """The flags of the run that the tests share."""
    workdir = tmp_path_factory.mktemp("run") / "quick"
    return [*QUICK, f"--workdir={workdir}", f"--data_dir={data_dir}"]


@pytest.fixture(scope="module")
def finished(tfsparse, arguments):
    """`(workdir, stdout)` of a run that was interrupted after its first epoch and continued."""
    workdir = ROOT / arguments[-2].removeprefix("--workdir=")
    process = forks.Popen([sys.executable, "train.py", *arguments], ROOT)
    while process.poll() is None and not (workdir / "checkpoint.safetensors").exists():
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    result = tfsparse("train", *arguments)
    assert result.returncode == 0, result.stderr
    assert "continues after epoch 1" in result.stdout
    assert "epoch 1/2" not in result.stdout
    assert "epoch 2/2" in result.stdout
    assert result.stderr == ""
    return workdir, result.stdout


@pytest.mark.slow
def test_run_leaves_what_the_readme_promises(finished):
    workdir, stdout = finished
    report = json.loads((workdir / "report.json").read_text())
    prunable = 9 * (8 + 8 * 8 * 2 + 8 * 16 + 16 * 16 + 16 * 32 + 32 * 32) + 8 * 16 + 16 * 32
    assert report["density"] == pytest.approx(0.1, abs=1 / prunable)
    assert 0.2 < report["robust_accuracy"] <= report["clean_accuracy"] < 0.9
    assert report["robust_attack"] == "PGD-20, L_inf 8/255"
    assert report["int8"]["passed"]
    assert report["int8"]["top1_or_tied"] >= 0.98
    # Both files have metadata, of half a kilobyte, and zeros take as much as other weights.
    assert abs(report["int8"]["bytes"] - report["dense_int8"]["bytes"]) < 100
    for line in ("non-zero parameters", "MACs", "int8 .tflite", "clean accuracy", "- top-1"):
        assert line in stdout
    for name in ("model.keras", "best.keras", "model_int8.tflite", "report.html"):
        assert f"wrote {workdir / name} (" in stdout
    notes = [line for line in stdout.splitlines() if not line.startswith("wrote ")]
    assert max(map(len, notes)) <= 100
    with open(workdir / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["validation_robust_accuracy"]) > 0.1
    assert (workdir / "report.html").read_text().count("data:image/png;base64") == 4
    assert list((workdir / "tensorboard").iterdir())
    assert not list(workdir.rglob("partial-*"))
    best = max(rows, key=lambda row: float(row["validation_robust_accuracy"]))
    assert str(report["best_epoch"]) == best["epoch"]
    models = [keras.saving.load_model(workdir / f"{name}.keras") for name in ("model", "best")]
    same = all(
        np.array_equal(*weights)
        for weights in zip(*(model.get_weights() for model in models), strict=True)
    )
    assert same == (best["epoch"] == "2")


def share_of_nonzeros(model):
    """Returns the non-zero share of a model's convolution kernels, and how many weights they are.

    The project's own count is not used.
    """
    kernels = [layer.kernel for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    kernels = [keras.ops.convert_to_numpy(kernel) for kernel in kernels]
    size = sum(kernel.size for kernel in kernels)
    return sum(map(np.count_nonzero, kernels)) / size, size


@pytest.mark.slow
def test_model_loads_and_its_zeros_and_its_tflite_agree(finished):
    workdir, _ = finished
    share, size = share_of_nonzeros(keras.saving.load_model(workdir / "model.keras"))
    report = json.loads((workdir / "report.json").read_text())
    assert round(report["density"] * size) == round(0.1 * size)
    # A regrown weight whose filter died at once stays 0, though its mask is 1.
    assert 0.98 * round(0.1 * size) <= round(share * size) <= round(0.1 * size)
    interpreter = Interpreter(str(workdir / "model_int8.tflite"))
    interpreter.allocate_tensors()
    assert interpreter.get_input_details()[0]["dtype"] is np.int8
    assert list(interpreter.get_input_details()[0]["shape"]) == [1, 10, 10, 1]


@pytest.mark.slow
def test_finished_run_says_so_at_once_and_another_recipe_is_refused(
    finished, arguments, tfsparse, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "accuracy", None)  # not evaluated again
        status, stdout, _ = tfsparse("train", *arguments)
    assert status == 0
    first, summary = stdout.split("\n", 1)
    assert first.startswith(f"The run in {finished[0]} is finished")
    assert summary in finished[1]  # what the run said itself, after the line of its last epoch
    status, stdout, stderr = tfsparse("train", *arguments, "--density=0.2")
    assert (status, stdout) == (1, "")
    assert "holds a run of another recipe (--density=0.1 there, 0.2 here)" in stderr


@pytest.mark.slow
def test_mixed_precision_ends_in_float32(finished, tfsparse, tmp_path, data_dir, monkeypatch):
    """float16, which also scales the loss; with a teacher, which computes in the same precision.

    tests/test_numbers.py has bfloat16.
    """
    arguments = [f"--workdir={tmp_path / 'run'}", f"--data_dir={data_dir}", "--width=4"]
    arguments += ["--image_size=10", "--noaugment", "--prune=dnr", "--density=0.5", "--epochs=1"]
    arguments += [f"--teacher={tmp_path}", "--ema_momentum=0.9", "--dtype_policy=mixed_float16"]
    arguments += ["--batch_size=16"]
    shutil.copy(finished[0] / "model.keras", tmp_path)
    fewer_images(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(conversion, "convert_and_verify", lambda *_: sys.exit(3))
        status, stdout, stderr = tfsparse("train", *arguments)
    assert status == 3, stderr
    assert f"soft labels, weight 0.9, of {tmp_path}, right on" in " ".join(stdout.split())
    for name in ("model", "best"):
        model = keras.saving.load_model(tmp_path / "run" / f"{name}.keras")
        assert {layer.compute_dtype for layer in model.layers} == {"float32"}
        assert share_of_nonzeros(model)[0] == pytest.approx(0.5, abs=0.02)
    # What is trained needs no teacher to be converted, as on another machine.
    (tmp_path / "model.keras").unlink()
    status, _, stderr = tfsparse("train", *arguments)
    assert status == 0, stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["clean_accuracy"] > 0.3
    assert (tmp_path / "run" / "summary.txt").exists()


def test_an_error_of_a_process_is_one_line(run, tmp_path):
    """tests/commands/test_bad_input.py has all cases, in one process."""
    result = run("train.py", f"--workdir={tmp_path / 'run'}", "--density=1.5")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert "Received: 1.5" in line
    assert result.stdout == ""
    assert not (tmp_path / "run").exists()


@pytest.fixture
def script():
    """The global names of train.py, whose flags are defined during the test."""
    with no_flags():
        yield runpy.run_path(str(ROOT / "train.py"))


def test_recipes_are_flags_of_train(script):
    """Those of the papers: tests/studies/test_papers.py."""
    for recipe in (ROOT / "zoo" / "recipes").glob("*.cfg"):
        lines = recipe.read_text().splitlines()
        assert lines[0].startswith("# ")
        assert any(str(recipe.relative_to(ROOT)) in line for line in lines if line[0] == "#")
        # An unknown flag or an unusable value would raise.
        assert script["FLAGS"](["train.py", f"--flagfile={recipe}"]) == ["train.py"]


def test_choices_are_those_of_the_library(script):
    """train.py names them again, as its help must not import TensorFlow."""
    assert script["SCHEDULES"] == optimizers.SCHEDULES
    assert script["STRATEGIES"] == distribution.STRATEGIES
    assert script["BUDGETS"] == units.BUDGETS
    assert script["STRUCTURES"] == units.STRUCTURES
    assert script["ALGORITHMS"] == ("none", *ALGORITHMS)
    assert script["ARCHITECTURES"] == tuple(sorted(zoo.ARCHITECTURES))
