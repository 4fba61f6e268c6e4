"""train.py as a user runs it, from a flag file, on the bundled images."""

import csv
import json
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from tests.conftest import ROOT

QUICK = ["--flagfile=zoo/recipes/quickstart.cfg", "--epochs=2", "--width=8"]


@pytest.fixture(scope="module")
def workdir(run, data_dir, tmp_path_factory):
    """A finished run, interrupted after its first epoch and continued, and what it printed."""
    workdir = tmp_path_factory.mktemp("run") / "quick"
    arguments = ["train.py", *QUICK, f"--workdir={workdir}", f"--data_dir={data_dir}"]
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        # Where the tests run in the background, their children would ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not (workdir / "checkpoint.safetensors").exists():
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    result = run(*arguments)
    assert result.returncode == 0, result.stderr
    assert "epoch 1/2" not in result.stdout
    assert "epoch 2/2" in result.stdout
    return workdir, result


@pytest.mark.slow
def test_run_leaves_what_the_readme_promises(workdir):
    workdir, result = workdir
    report = json.loads((workdir / "report.json").read_text())
    prunable = 9 * (8 + 8 * 8 * 2 + 8 * 16 + 16 * 16 + 16 * 32 + 32 * 32) + 8 * 16 + 16 * 32
    assert report["density"] == pytest.approx(0.1, abs=1 / prunable)
    assert 0.2 < report["robust_accuracy"] <= report["clean_accuracy"] < 0.9
    assert report["robust_attack"] == "PGD-20, L_inf 8/255"
    assert report["int8"]["passed"]
    assert report["int8"]["top1_or_tied"] >= 0.98
    for line in ("non-zero parameters", "MACs", "int8 .tflite", "clean accuracy"):
        assert line in result.stdout
    with open(workdir / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["validation_robust_accuracy"]) > 0.1
    assert (workdir / "report.html").read_text().count("data:image/png;base64") == 3
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


@pytest.mark.slow
def test_model_loads_and_its_zeros_and_its_tflite_agree(workdir, fashion_mnist):
    workdir, _ = workdir
    model = keras.saving.load_model(workdir / "model.keras")
    report = json.loads((workdir / "report.json").read_text())
    kernels = [layer.kernel for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    ones = sum(int(np.count_nonzero(keras.ops.convert_to_numpy(kernel))) for kernel in kernels)
    size = sum(int(np.prod(kernel.shape)) for kernel in kernels)
    assert round(report["density"] * size) == round(0.1 * size)
    # A regrown weight whose filter died at once stays 0, though its mask is 1.
    assert 0.98 * round(0.1 * size) <= ones <= round(0.1 * size)
    interpreter = Interpreter(str(workdir / "model_int8.tflite"))
    interpreter.allocate_tensors()
    assert interpreter.get_input_details()[0]["dtype"] is np.int8
    assert list(interpreter.get_input_details()[0]["shape"]) == [1, 28, 28, 1]


@pytest.mark.slow
def test_finished_run_is_evaluated_again_and_another_recipe_is_refused(run, workdir, data_dir):
    workdir, first = workdir
    arguments = ["train.py", *QUICK, f"--workdir={workdir}", f"--data_dir={data_dir}"]
    again = run(*arguments)
    assert again.returncode == 0, again.stderr
    assert "epoch" not in again.stdout
    assert first.stdout.endswith(again.stdout)  # all but the line of the second epoch
    other = run(*arguments, "--density=0.2")
    assert other.returncode == 1
    assert "holds a run of another recipe (--density=0.1 there, 0.2 here)" in other.stderr


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_ends_in_float32(run, tmp_path, data_dir, policy):
    arguments = [f"--workdir={tmp_path / 'run'}", f"--data_dir={data_dir}", "--width=4"]
    arguments += ["--prune=dnr", "--density=0.5", "--ema_momentum=0.9", "--epochs=1"]
    result = run("train.py", *arguments, f"--dtype_policy={policy}")
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["clean_accuracy"] > 0.3
    for name in ("model", "best"):
        model = keras.saving.load_model(tmp_path / "run" / f"{name}.keras")
        assert {layer.compute_dtype for layer in model.layers} == {"float32"}
        kernels = [layer.kernel for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
        ones = sum(np.count_nonzero(kernel) for kernel in map(np.asarray, kernels))
        assert ones / sum(map(np.size, kernels)) == pytest.approx(0.5, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "status", "named"),
    [("--frobnicate=1", 2, "frobnicate"), ("--density=1.5", 1, "Received: 1.5")],
)
def test_errors_are_one_line(run, tmp_path, flag, status, named):
    """In a process of its own; tests/test_bad_input.py has all cases."""
    result = run("train.py", f"--workdir={tmp_path / 'run'}", flag)
    assert result.returncode == status
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert named in line
    assert result.stdout == ""
    assert not (tmp_path / "run").exists()


def test_recipes_name_flags_that_exist():
    source = (ROOT / "train.py").read_text()
    for recipe in (ROOT / "zoo" / "recipes").glob("*.cfg"):  # papers: test_recipes.py
        lines = recipe.read_text().splitlines()
        assert lines[0].startswith("# ")
        assert any(str(recipe.relative_to(ROOT)) in line for line in lines if line[0] == "#")
        for line in lines:
            if line.startswith("--"):
                assert f'"{line[2:].split("=")[0]}"' in source
