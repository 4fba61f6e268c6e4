"""`tfsparse micro`: the printed bill, and folders that cannot be made."""

import json
import os

import keras
import pytest

from tflite.codegen import host
from tfsparse.layers import PeriodicConv2D

pytestmark = pytest.mark.slow

MODEL = "resnet8_dnr10_fashion_mnist_small"


def test_writes_a_package(tfsparse, tmp_path, data_dir):
    pytest.importorskip("tflite_micro", reason="there are no wheels for this machine")
    output = tmp_path / "package"
    flags = [f"--model={MODEL}", f"--output={output}", f"--data_dir={data_dir}"]
    status, out, err = tfsparse("micro", *flags)
    assert (status, err) == (0, "")
    assert {path.name for path in output.iterdir()} == {
        *("README.md", "manifest.json", "plain", "plain_compressed")
    }
    assert out.splitlines()[0].startswith("form  ")
    assert "on 100 images" in out
    assert [path.name for path in tmp_path.iterdir()] == ["package"]


def test_writes_c(tfsparse, tmp_path):
    """Without a data set: the file is the zoo's."""
    output = tmp_path / "package"
    status, out, err = tfsparse("micro", f"--model={MODEL}", f"--output={output}", "--runtime=c")
    assert (status, err) == (0, "")
    assert {"model.h", "model.c", "self_test.c", "CMakeLists.txt"} < set(os.listdir(output))
    lines = out.splitlines()
    assert lines[0].split() == ["operators", "kernel", "output", "MACs", "estimate", "flash"]
    assert any("convolve_sparse" in line for line in lines)
    assert lines[-1].startswith("On this machine the C returns the bits") or not host.compiler()


def test_c_of_a_keras_model(tfsparse, tmp_path, data_dir):
    """It is converted with dense kernels, of which the pattern's weights are kept."""
    keras.utils.set_random_seed(0)
    layers = [PeriodicConv2D(8, 3, pattern="PS2_P4", padding="same"), keras.layers.ReLU()]
    layers += [PeriodicConv2D(8, 3, pattern="PS2_P4", padding="same"), keras.layers.ReLU()]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((28, 28, 1)), *layers])
    model.save(tmp_path / "periodic.keras")
    flags = [f"--model={tmp_path / 'periodic.keras'}", "--dataset=fashion_mnist_small"]
    flags += [f"--data_dir={data_dir}", f"--output={tmp_path / 'package'}", "--runtime=c"]
    status, _, err = tfsparse("micro", *flags)
    assert (status, err) == (0, "")
    manifest = json.loads((tmp_path / "package" / "manifest.json").read_text())
    macs = [layer["macs"] for layer in manifest["layers"] if layer["macs"]]
    assert macs[1] <= 28 * 28 * 8 * 8 * 2
    assert macs[1] > 0.9 * 28 * 28 * 8 * 8 * 2


def test_folders_that_cannot_be_made(tfsparse, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    for output in (tmp_path / "full", tmp_path / "full" / "file"):
        status, _, err = tfsparse("micro", f"--model={MODEL}", f"--output={output}")
        assert status == 1
        assert "new or empty" in err
    status, _, err = tfsparse("micro", "--model=resnet99", f"--output={tmp_path / 'new'}")
    assert status == 1
    assert "resnet99" in err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full"]
