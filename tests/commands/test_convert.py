"""`tfsparse convert`: the report, what is written, and what is refused."""

import json
import re

import pytest

from tests.tflite.networks import residual_network
from tflite import conversion
from tflite.convert import convert
from zoo import loading

DATASET = "fashion_mnist_small"


@pytest.fixture
def run_folder(tmp_path, data_dir, fashion_mnist):
    """What train.py leaves: a model and a report that says what it was trained on."""
    folder = tmp_path / "run"
    folder.mkdir()
    residual_network().save(folder / "model.keras")
    report = {"dataset": DATASET, "data_dir": str(data_dir), "image_size": None}
    (folder / "report.json").write_text(json.dumps(report))
    return folder


@pytest.fixture
def fails(tfsparse):
    """The one line with which the command refuses."""

    def fails(model, precision, output, *arguments):
        flags = [f"--model={model}", f"--precision={precision}", f"--output={output}"]
        status, _, err = tfsparse("convert", *flags, *arguments)
        assert status == (2 if "flag --precision" in err else 1)
        (line,) = err.splitlines()
        assert line.startswith("error: ")
        return line

    return fails


def test_report_and_file(tfsparse, run_folder, tmp_path):
    output = tmp_path / "new" / "x.tflite"
    flags = ["--precision=float16", f"--output={output}", f"--model={run_folder / 'model.keras'}"]
    status, out, err = tfsparse("convert", *flags)
    assert (status, err) == (0, "")
    compared = ["", "float16", "- top-1", "- accuracy", "- largest"]
    starts = [re.match(r"(- )?\S*", line)[0] for line in out.splitlines()]
    assert starts == [
        *("precision", "sparsity", "file", "gzip"),
        *(2 * compared),
        *("", "verdict", "warning"),  # untrained
        *("", "wrote"),
    ]
    bullets = [line for line in out.splitlines() if line.startswith("- ")]
    assert all("(at " in line and len(line) <= 100 for line in bullets)  # the bounds
    assert f"{output.stat().st_size:,} bytes" in out
    assert f"wrote {output} ({-(-output.stat().st_size // 1000)} kB)" in out
    assert len(list(output.parent.iterdir())) == 1


def test_sabotaged_file_is_not_written(fails, run_folder, tmp_path, monkeypatch):
    other = convert(residual_network(seed=1), "float32")
    monkeypatch.setattr(conversion, "convert", lambda *_, **__: other)
    output = tmp_path / "new" / "x.tflite"
    message = fails(run_folder / "model.keras", "float32", output)
    assert "Not written" in message
    assert "largest difference" in message
    assert "99%" in message
    assert not output.parent.exists()


def test_the_dataset_is_the_flag_the_report_or_the_card(run_folder, monkeypatch):
    class OpenedError(Exception):
        pass

    def open_dataset(name, data_dir, image_size):
        raise OpenedError(name, data_dir, image_size)

    def opened(model, **kwargs):
        with pytest.raises(OpenedError) as caught:
            loading.find_model_and_data(str(model), **kwargs)
        return caught.value.args

    monkeypatch.setattr(loading, "open_dataset", open_dataset)
    monkeypatch.setattr(loading, "list_models", lambda: ["NAME"])
    monkeypatch.setattr(loading, "load", lambda _: residual_network())
    monkeypatch.setattr(loading, "card", lambda _: {"dataset": "cards"})
    report = {"dataset": "reports", "data_dir": "there", "image_size": 32}
    (run_folder / "report.json").write_text(json.dumps(report))
    model = run_folder / "model.keras"
    assert opened(model) == ("reports", "there", 32)
    assert opened(model, data_dir="here") == ("reports", "here", 32)
    assert opened(model, dataset="flags") == ("flags", None, None)
    assert opened(run_folder) == ("reports", "there", 32)
    assert opened("NAME") == ("cards", None, None)


def test_arguments_that_cannot_be_used(fails, run_folder, tmp_path):
    model, output = run_folder / "model.keras", tmp_path / "x.tflite"
    noise = tmp_path / "noise.keras"
    noise.write_bytes(bytes(range(256)))
    before = sorted(tmp_path.rglob("*"))

    assert "float64" in fails(model, "float64", output)
    assert "There is no file" in fails(tmp_path / "none.keras", "int8", output)
    (tmp_path / "empty").mkdir()
    assert "empty/model.keras" in fails(tmp_path / "empty", "int8", output)
    (tmp_path / "empty").rmdir()
    assert "Keras cannot load" in fails(noise, "int8", output)
    assert "`tfsparse models` lists the models" in fails("resnet99", "int8", output)
    assert "ends with .tflite" in fails(model, "int8", tmp_path / "x.bin")
    assert "Cannot write" in fails(model, "int8", noise / "x.tflite")
    assert "cifar11" in fails(model, "int8", output, "--dataset=cifar11")
    assert "(32, 32, 1)" in fails(model, "int8", output, "--image_size=32")

    (run_folder / "report.json").write_text("{")
    assert "Cannot read" in fails(model, "int8", output)
    (run_folder / "report.json").unlink()
    assert "Give --dataset" in fails(model, "int8", output)
    before.remove(run_folder / "report.json")
    assert sorted(tmp_path.rglob("*")) == before


def test_class_count_that_does_not_fit(fails, tmp_path, data_dir):
    residual_network(classes=11).save(tmp_path / "model.keras")
    flags = [f"--dataset={DATASET}", f"--data_dir={data_dir}"]
    message = fails(tmp_path / "model.keras", "int8", tmp_path / "x.tflite", *flags)
    assert "11 classes" in message
