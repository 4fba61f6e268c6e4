"""`tfsparse benchmark`: the printed tables and the JSON file."""

import json

import keras
import pytest

from tflite.convert import convert


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two .tflite files: a convolution, and a convolution and an addition."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    convolved = keras.layers.Conv2D(3, 3, padding="same")(image)
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / "plain.tflite", folder / "added.tflite"]
    for path, last in zip(paths, (convolved, keras.layers.Add()([image, convolved])), strict=True):
        model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(last))
        path.write_bytes(convert(model, "float32"))
    return paths


def test_table_and_json(tfsparse, files, tmp_path):
    output = tmp_path / "new" / "times.json"
    models = f"--models={files[0]},{files[1]}"
    status, out, err = tfsparse("benchmark", models, "--seconds=0.1", f"--json={output}")
    assert (status, err) == (0, "")
    written = json.loads(output.read_text())
    assert [row["name"] for row in written["models"]] == [str(path) for path in files]
    assert {"cpu", "cores", "ai-edge-litert"} <= written["machine"].keys()
    lines = out.splitlines()
    assert len(lines) == 5
    assert f"{written['models'][0]['runs']} runs of each file" in lines[0]
    assert len({len(line) for line in lines[2:]}) == 1  # aligned
    for row, line in zip(written["models"], lines[3:], strict=True):
        assert line.split()[:2] == [row["name"], f"{row['minimum_ms']:.3f}"]


def test_operators(tfsparse, files, tmp_path):
    output = tmp_path / "times.json"
    flags = [f"--models={files[1]}", "--operators", "--seconds=0.1", f"--json={output}"]
    status, out, err = tfsparse("benchmark", *flags)
    assert (status, err) == (0, "")
    (row,) = json.loads(output.read_text())["models"]
    titles = ["0 CONV_2D 1x8x8x3", "1 ADD 1x8x8x3", "2 MEAN 1x3"]
    assert [each["operator"] for each in row["operator_times"]] == titles
    for line, title in zip(out.splitlines()[-3:], titles, strict=True):
        assert line.startswith(f"{title} ")


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ("none.tflite", "error: Cannot read none.tflite"),
        ("{other}", "error: LiteRT cannot run"),
        ("{other},{other}", "error: Give each file once. Received twice:"),
    ],
)
def test_errors(tfsparse, models, message, tmp_path):
    other = tmp_path / "README.md"
    other.write_text("no model")
    status, out, err = tfsparse("benchmark", f"--models={models.format(other=other)}")
    assert (status, out) == (1, "")
    assert err.startswith(message)
    assert len(err.splitlines()) == 1
