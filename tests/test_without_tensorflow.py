"""Where only NumPy, Keras, and JAX are: training, attacks, and saving; what needs more says so."""

import json

import numpy as np
import pytest

from tests.without_tensorflow import QUICK_XLA

pytest.importorskip("jax")
FLAGS = ["--arch=resnet8", "--width=4", "--prune=dnr", "--loss=hybrid", "--density=0.3"]
FLAGS += ["--epochs=2", "--batch_size=16", "--deterministic"]


@pytest.fixture(scope="module")
def command(run):
    """Returns a function that runs a command without TensorFlow."""

    def command(*arguments):
        module = ("-m", "tests.without_tensorflow")
        return run(*module, *arguments, KERAS_BACKEND="", XLA_FLAGS=QUICK_XLA)

    return command


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "images.npz"
    arrays = {}
    for split, count in (("train", 60), ("test", 20)):
        arrays[f"y_{split}"] = np.arange(count) % 3
        brightness = 60 * arrays[f"y_{split}"][:, None, None, None]
        noise = rng.integers(0, 60, (count, 12, 12, 1))
        arrays[f"x_{split}"] = (brightness + noise).astype(np.uint8)
    np.savez(path, **arrays)
    return path


@pytest.mark.slow
def test_a_run_is_finished_where_tensorflow_is(command, archive, tmp_path, tfsparse):
    workdir = tmp_path / "run"
    train = [*FLAGS, f"--dataset={archive}", f"--workdir={workdir}"]
    done = command("train.py", *train)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "need tensorflow, ai-edge-litert, flatbuffers, matplotlib: where" in done.stdout
    before = json.loads((workdir / "report.json").read_text())
    assert before["density"] == pytest.approx(0.3, abs=1e-3)
    assert "jax" in before["versions"]
    weights = (workdir / "checkpoint.safetensors").read_bytes()

    evaluate = ["evaluate", f"--model={workdir}", f"--dataset={archive}", "--attacks=pgd"]
    done = command("zoo.commands", *evaluate, "--steps=2", "--examples=20")
    assert done.returncode == 0, done.stderr
    assert "pgd" in done.stdout
    done = command(
        "zoo.commands", "convert", f"--model={workdir}", "--precision=int8", "--output=x.tflite"
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "pip install tensorflow ai-edge-litert flatbuffers" in done.stderr

    done = tfsparse("train", *train)
    assert done.returncode == 0, done.stderr
    report = json.loads((workdir / "report.json").read_text())
    assert report["int8"]["passed"]
    for name in ("clean_accuracy", "robust_accuracy", "parameters", "nonzero_parameters"):
        assert report[name] == before[name]
    assert (workdir / "checkpoint.safetensors").read_bytes() == weights
    assert {"model_int8.tflite", "report.html", "tensorboard"} <= {
        p.name for p in workdir.iterdir()
    }


def test_another_data_set_needs_tensorflow_datasets(command, tmp_path):
    done = command("train.py", "--dataset=cifar10", f"--workdir={tmp_path}")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "pip install tensorflow tensorflow-datasets" in line
