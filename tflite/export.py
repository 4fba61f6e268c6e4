"""A Keras model in the formats of other programs: ONNX, TensorFlow's SavedModel, and float LiteRT.

Keras writes the first two, `tflite.convert` the third, which Keras writes from 3.13 on only. They
are run and compared with the model before they get their name.
"""

import contextlib
import pathlib
import textwrap
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np

from tflite.convert import convert
from tflite.quiet import quiet
from tflite.runtimes import FileModel
from tflite.verify import BOUNDS
from tfsparse import files, optional
from tfsparse.errors import UsageError
from tfsparse.evaluation import one_output
from tfsparse.examples import interface
from tfsparse.precision import full_precision

EXAMPLES = 16
BOUND = BOUNDS["float32"].difference  # of the largest output


class Format(NamedTuple):
    """A format: how its files end, the packages that it needs, how they are written and run."""

    suffix: str
    packages: tuple[str, ...]
    write: Callable[[keras.Model, pathlib.Path], object]
    run: Callable[[pathlib.Path, np.ndarray], np.ndarray]


def export_model(model: keras.Model, format: str, path: str | pathlib.Path) -> float:
    """Writes a Keras model in another format, after a comparison with Keras on random images.

    Args:
        model: keras.Model from images of fixed size, [n, h, w, c], to [n, classes]. One that does
            not compute in float32 is written as a float32 copy.
        format: "onnx", a file for ONNX Runtime and others; "saved_model", a folder for TensorFlow;
            or "litert", a file for LiteRT with float weights.
        path: of the file, which ends in ".onnx" or ".tflite", or of the folder, new or empty.

    Returns:
        The largest difference from Keras' outputs on 16 images, as a fraction of the largest
        output. It is at most 1e-4.

    Raises:
        UsageError: if the format is unknown or a package that it needs is not installed; the model
            has another interface or cannot be written; the result differs from Keras or cannot be
            run; or `path` cannot be written.
    """
    made, path = _checked(format, path), pathlib.Path(path)
    shape, _ = interface(model)
    if None in shape:
        raise UsageError(f"Give the model's images a fixed size. Received: a model of {shape}")
    model = full_precision(model)
    images = np.random.default_rng(0).random((EXAMPLES, *shape), np.float32)
    expected = np.asarray(one_output(model, images))
    with _target(path, made) as partial:
        try:
            with quiet():
                made.write(model, partial)
                found = made.run(partial, images)
        except (UsageError, OSError):  # `path` cannot be written
            raise
        except Exception as error:  # converters can break anywhere
            reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200)
            raise UsageError(f"{model.name} cannot be exported as {format}: {reason}") from error
        difference = float(np.abs(found - expected).max() / (np.abs(expected).max() or 1.0))
        if not difference <= BOUND:
            raise UsageError(
                f"Not written: {path}. Its outputs differ from Keras' by {difference:.1e} of the "
                f"largest; {BOUND:.0e} is allowed. Choose another --format."
            )
    return difference


def _checked(format, path):
    if format not in FORMATS:
        raise UsageError(f"format must be one of {', '.join(FORMATS)}. Received: {format!r}")
    made = FORMATS[format]
    if made.suffix and pathlib.Path(path).suffix != made.suffix:
        raise UsageError(f"A file of {format} ends in {made.suffix}. Received: {path}")
    optional.require(f"The format {format}", **{name: name for name in made.packages})
    return made


@contextlib.contextmanager
def _target(path, made):
    """Yields the path that Keras writes to, which gets the name `path` if the block succeeds."""
    if made.suffix:
        with files.replacing(path) as partial:
            yield partial
    else:
        with files.new_folder(path) as partial:
            yield partial


def _write_onnx(model, path):
    model.export(path, format="onnx", verbose=False)


def _write_saved_model(model, path):
    model.export(path, format="tf_saved_model", verbose=False)


def _write_litert(model, path):
    path.write_bytes(convert(model, "float32"))


def _run_onnx(path, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, {session.get_inputs()[0].name: images})
    return outputs


def _run_saved_model(path, images):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))  # whose variables live as long as it does
    return np.asarray(loaded.serve(images))


def _run_litert(path, images):
    return FileModel(path.read_bytes())(images)


FORMATS = {
    "onnx": Format(".onnx", ("onnx", "onnxruntime", "tf2onnx"), _write_onnx, _run_onnx),
    "saved_model": Format("", (), _write_saved_model, _run_saved_model),
    "litert": Format(".tflite", (), _write_litert, _run_litert),
}
