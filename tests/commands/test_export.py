"""`tfsparse export`: what other runtimes compute from the file, and what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.tflite.networks import residual_network
from tflite import export
from tflite.export import export_model
from tflite.runtimes import FileModel
from tfsparse import UsageError, layers, optional


@pytest.fixture(scope="module")
def model():
    """A network with a periodic layer, which needs no class of this package to run."""
    keras.utils.set_random_seed(0)
    image = keras.Input((12, 10, 3))
    x = layers.PeriodicConv2D(8, 3, pattern="PS4_P4", padding="same", activation="relu")(image)
    x = keras.layers.BatchNormalization()(x)
    return keras.Model(image, keras.layers.Dense(4)(keras.layers.Flatten()(x)), name="small")


def run_onnx(path, images):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(path))
    # The batch is free: one image at a time gives the same as all at once.
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[None]})[0] for image in images])


def run_saved_model(path, images):
    return keras.layers.TFSMLayer(str(path), call_endpoint="serve")(tf.constant(images))


def run_litert(path, images):
    return FileModel(path.read_bytes(), "reference")(images)


RUN = {
    "onnx": ("m.onnx", run_onnx),
    "saved_model": ("folder", run_saved_model),
    "litert": ("m.tflite", run_litert),
}


@pytest.mark.parametrize("format", RUN)
def test_another_runtime_computes_the_same(format, model, tfsparse, tmp_path):
    name, run = RUN[format]
    if format == "onnx":
        pytest.importorskip("tf2onnx")
    source, path = tmp_path / "model.keras", tmp_path / "new" / name
    model.save(source)
    flags = [f"--model={source}", f"--format={format}", f"--output={path}"]
    status, out, err = tfsparse("export", *flags)
    assert (status, err) == (0, "")
    assert out.startswith(f"wrote {path} (")
    images = np.random.default_rng(1).random((3, 12, 10, 3), np.float32)
    np.testing.assert_allclose(run(path, images), model(images), rtol=0, atol=1e-5)
    assert list(path.parent.iterdir()) == [path]


def test_what_differs_from_keras_is_not_written(model, tmp_path, monkeypatch):
    other = residual_network(seed=1)
    content = export.FORMATS["litert"]._replace(run=lambda path, images: other(images))
    monkeypatch.setitem(export.FORMATS, "litert", content)
    with pytest.raises(UsageError, match=r"Not written.*differ from Keras' by .*1e-04 is allowed"):
        export_model(residual_network(), "litert", tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("format", "name", "line"),
    [
        ("pickle", "m.pkl", "format must be one of onnx, saved_model, litert. Received: 'pickle'"),
        ("litert", "m.onnx", r"A file of litert ends in \.tflite. Received: .*m\.onnx"),
        ("saved_model", "full", "Choose a folder that is new or empty. Received: .*full"),
    ],
)
def test_what_cannot_be_written(format, name, line, model, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UsageError, match=line):
        export_model(model, format, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_missing_packages_are_named(model, tmp_path, monkeypatch):
    monkeypatch.setattr(optional, "are_installed", lambda *modules: modules != ("tf2onnx",))
    with pytest.raises(UsageError, match=r"onnx needs tf2onnx, .* Run: pip install tf2onnx"):
        export_model(model, "onnx", tmp_path / "m.onnx")


def test_what_keras_cannot_export_is_one_line(model, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no\noperator")

    monkeypatch.setattr(keras.Model, "export", refuse)
    with pytest.raises(UsageError, match="RuntimeError: no op"):
        export_model(model, "saved_model", tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_images_of_any_size_are_refused(tmp_path):
    image = keras.Input((None, None, 3))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(image))
    with pytest.raises(UsageError, match="fixed size"):
        export_model(model, "litert", tmp_path / "m.tflite")
