"""Converts a Keras model to a TFLite file, checks it on real images, then writes it.

    python -m tflite.convert --model=model.keras --precision=int8 --output=model.tflite

The file takes one image, [1, h, w, c] in [0, 1] (int8 files: quantised), and gives logits. It is
written only if it agrees with Keras on real images; see tflite/verify.py for the bounds.
"""

import gzip
import os
import pathlib
import re
import textwrap

import numpy as np
from absl import flags

from tflite.quiet import quiet

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # C++ logs; real errors are exceptions

with quiet():  # TensorFlow reports missing GPUs on import, at any log level
    import keras
    import tensorflow as tf
    from ai_edge_litert import schema_py_generated as schema

    from zoo.loading import check_fit, find_dataset, find_model

from tflite.compact import compact
from tflite.lowering import lower
from tflite.verify import BOUNDS, check_images, check_precision, verify
from tfsparse import commandline, files
from tfsparse.errors import UsageError
from tfsparse.layers import PeriodicConv2D, leaf_layers

CALIBRATION_EXAMPLES = 200
# At an agreement of 98 %, 2,000 images measure it to 0.3 points (one standard deviation); 500, to
# 0.6, would let chance decide about the bound.
VERIFICATION_EXAMPLES = 2000


def convert(model, precision, calibration_images=None):
    """Converts a Keras model to TFLite with builtin operators only and batch size 1.

    Args:
        model: a Keras model with one input of fixed size, [n, h, w, c] in [0, 1], and one output,
            [n, classes].
        precision: "float32"; "float16" (weights stored in 16 bits); or "int8" (weights, biases
            aside, activations, input and output in 8 bits).
        calibration_images: float array [n, h, w, c] in [0, 1] whose activations set the ranges of
            an int8 file; needed for int8 only.

    Returns:
        The bytes of the file.

    Raises:
        UsageError: where the model has another interface, weights that are not finite or an
            operation without a builtin operator.
    """
    check_precision(precision)
    _check_model(model)
    # A dynamic batch would add operators that compute shapes and split XNNPACK's partition.
    image = keras.Input(model.inputs[0].shape[1:], batch_size=1)
    try:
        with quiet():
            network = model
            if any(isinstance(layer, PeriodicConv2D) for layer in leaf_layers(model)):
                network = lower(model, "int8" if precision == "int8" else "float")
            converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(image, network(image)))
            _set_precision(converter, precision, calibration_images, model)
            content = converter.convert()
    except UsageError:
        raise
    except Exception as error:  # anything that a layer or the converter can raise
        raise UsageError(f"Cannot convert the model to {precision}. {_reason(error)}") from error
    _check_file(content, precision)
    return compact(content)


def _check_model(model):
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs:
        raise UsageError(
            "The model's inputs are unknown. Build it with keras.Input or call it on images first."
        )
    shapes = [tuple(tensor.shape) for tensor in inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or None in shapes[0][1:]:
        raise UsageError(
            "Conversion needs a model with one input of known size, (batch, height, width, "
            f"channels). Received: {len(shapes)} with shapes {shapes}"
        )
    shapes = [tuple(tensor.shape) for tensor in outputs]
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise UsageError(
            "Conversion needs a model with one output, logits of shape (batch, classes). "
            f"Received: {len(shapes)} with shapes {shapes}"
        )
    for weight in model.weights:
        # Calibration and quantisation give plausible files of models that diverged.
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
            raise UsageError(f"The weight {weight.path} is not finite. Use an earlier checkpoint.")


def _set_precision(converter, precision, calibration_images, model):
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if precision == "float32":
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
        return
    if calibration_images is None:
        raise UsageError("int8 needs calibration_images. Received: None")
    check_images(calibration_images, model)
    images = np.asarray(calibration_images, np.float32)
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8


def _reason(error):
    """What an error of the converter comes to, in one line that names the operations."""
    pattern = r'"([^"@]+)@[^\n]*?\'tf\.(\w+)\' op is neither'
    operations = {f"{name} at {place}" for place, name in re.findall(pattern, str(error))}
    if operations:
        return f"No builtin TFLite operator for: {', '.join(sorted(operations))}"
    return textwrap.shorten(f"{type(error).__name__}: {error}", 400)


def _check_file(content, precision):
    """Refuses custom operators in the file, and tensors of an int8 file that remained float."""
    model = schema.Model.GetRootAsModel(content, 0)
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    custom = [c.CustomCode().decode() for c in codes if c.CustomCode()]
    if custom:
        raise UsageError(f"No builtin TFLite operator for: {', '.join(custom)}")
    graph = model.Subgraphs(0)
    tensors = [graph.Tensors(i) for i in range(graph.TensorsLength())]
    floats = [t.Name().decode() for t in tensors if t.Type() == schema.TensorType.FLOAT32]
    if precision == "int8" and floats:
        raise UsageError(f"The converter left tensors in float: {', '.join(floats[:3])}")


# ---- the command ----


def convert_file(
    model,
    precision,
    output,
    dataset=None,
    data_dir=None,
    image_size=None,
    calibration_examples=CALIBRATION_EXAMPLES,
):
    """What the command does, flag by flag; prints a report and writes `output` if it passes.

    Raises:
        UsageError: where an argument cannot be used or the file fails verification.
    """
    check_precision(precision)
    _check_output(output)
    network, about = find_model(model)
    _check_model(network)
    data = find_dataset(about, model, dataset, data_dir, image_size)
    check_fit(network.inputs[0].shape[1:], network.outputs[0].shape[-1], data)
    calibration, images, labels = conversion_images(data, calibration_examples)
    content = convert(network, precision, calibration)
    verification = verify(content, network, images, labels, precision=precision)
    print(report(content, verification))
    if not verification.passed:
        raise UsageError(f"Not written: {output}. {' '.join(verification.failures)}")
    files.write_bytes(output, content)


def report(content, verification):
    """The printed table: sizes, differences with their bounds, accuracies, verdict."""
    limits = {verification.bounds.kind: f" (at most {verification.bounds.difference:.0e})"}
    lines = {
        "precision": verification.precision,
        "file size": f"{len(content):,} bytes",
        "gzip size": f"{len(gzip.compress(content, mtime=0)):,} bytes",
        "compared on": f"{verification.examples} images",
        "largest difference": f"{verification.largest_difference:.1e}{limits.get('largest', '')}",
        "mean difference": f"{verification.mean_difference:.1e}{limits.get('mean', '')}",
        "top-1 agreement": f"{verification.top1_agreement:.2%}",
        "the same or tied": f"{verification.top1_or_tied:.2%}"
        f" (at least {verification.bounds.top1_or_tied:.0%})",
        "accuracy in Keras": f"{verification.keras_accuracy:.2%}",
        "accuracy of the file": f"{verification.file_accuracy:.2%}",
        "verdict": "passed" if verification.passed else "FAILED",
    }
    return "\n".join(f"{name:<22}{value}" for name, value in lines.items())


def _check_output(output):
    path = pathlib.Path(output).absolute()
    if path.suffix != ".tflite" or path.is_dir():
        raise UsageError(f"--output must name a file that ends with .tflite. Received: {output}")
    folder = next(parent for parent in path.parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"Cannot write to {folder}. Choose another --output. Received: {output}")


def conversion_images(data, calibration_examples=CALIBRATION_EXAMPLES):
    """Reads the images with which a file is calibrated and those on which it is verified.

    Args:
        data: a `zoo.data.Dataset`.
        calibration_examples: number of images to calibrate with: the first training images.

    Returns:
        `(calibration, images, labels)`; images are float32 [n, h, w, c] in [0, 1], labels int32
        [n]. Verification takes the first VERIFICATION_EXAMPLES validation images; where there are
        fewer, training images that do not calibrate make up the number.
    """
    images, labels = data.read("validation", VERIFICATION_EXAMPLES)
    missing = VERIFICATION_EXAMPLES - len(images)
    train_images, train_labels = data.read("train", calibration_examples + missing)
    calibration, more = np.split(train_images, [calibration_examples])
    images = np.concatenate([images, more])
    labels = np.concatenate([labels, train_labels[calibration_examples:]])
    return as_float(calibration), as_float(images), labels


def as_float(images):
    """Returns 8-bit images as float32 in [0, 1]."""
    return images.astype(np.float32) / 255


def define_flags():
    """Defines the command's flags; not done on import, as train.py has flags of the same names."""
    flags.DEFINE_string("model", None, "A .keras file or the name of a zoo model.", required=True)
    flags.DEFINE_enum("precision", None, list(BOUNDS), "Type of the weights.", required=True)
    flags.DEFINE_string("output", None, "The .tflite file to write.", required=True)
    flags.DEFINE_string("dataset", None, "Data set; default: the one the model was trained on.")
    flags.DEFINE_string("data_dir", None, "Folder of the data set.")
    flags.DEFINE_integer("image_size", None, "Resize images to this size.", lower_bound=1)
    flags.DEFINE_integer(
        "calibration_examples",
        CALIBRATION_EXAMPLES,
        "Training images that set the int8 ranges.",
        lower_bound=1,
    )


def main():
    options = flags.FLAGS
    convert_file(
        options.model,
        options.precision,
        options.output,
        options.dataset,
        options.data_dir,
        options.image_size,
        options.calibration_examples,
    )


if __name__ == "__main__":
    define_flags()
    commandline.run(main)
