"""Converts a Keras model to a TFLite file, checks it on real images, then writes it.

    python -m tflite.convert --model=model.keras --precision=int8 --output=model.tflite

The file takes one image, [1, h, w, c] in [0, 1] (int8 files: quantised), and gives logits. It is
written only if it agrees with Keras on real images; see tflite/verify.py for the bounds.
"""

import gzip
import hashlib
import importlib.metadata
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

    from zoo.loading import check_fit, find_dataset, find_model, hash_of_weights

from tflite import metadata
from tflite.compact import compact
from tflite.flatbuffer import unpack
from tflite.routes import find_route
from tflite.verify import BOUNDS, EXAMPLES, check_images, check_precision, verify
from tfsparse import commandline, copying, files
from tfsparse.cost import model_cost
from tfsparse.errors import UsageError
from tfsparse.graph import leaf_layers
from tfsparse.layers import PeriodicConv2D

# Operators of the precisions that need calibration, and the type of their inputs and outputs.
QUANTIZED = {
    "int8": (tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.int8),
    "int16x8": (
        tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
        tf.int16,
    ),
}
CALIBRATION_EXAMPLES = 200
WORTH_SPARSE = 0.95  # of the bytes at most, or a file is not stored in the sparse format
# At an agreement of 99 %, 2,000 images measure it to 0.2 points (one standard deviation); 500, to
# 0.4, would let chance decide about the bound.
VERIFICATION_EXAMPLES = EXAMPLES["xnnpack"]


def convert(
    model,
    precision,
    calibration_images=None,
    *,
    float_io=False,
    lowered=True,
    sparse_storage=False,
):
    """Converts a Keras model to TFLite with builtin operators only and batch size 1.

    Sparsity takes the routes of tflite/routes.py.

    Args:
        model: a Keras model with one input of fixed size, [n, h, w, c] in [0, 1], and one output,
            [n, classes].
        precision: "float32"; "float16" (weights stored in 16 bits); "dynamic_range" (weights in 8
            bits, activations in float, rounded to 8 bits before each layer); "int8" (weights and
            activations in 8 bits, biases in 32); or "int16x8" (activations in 16 bits).
        calibration_images: float array [n, h, w, c] in [0, 1] whose activations set the ranges of
            an int8 or int16x8 file; needed for these only.
        float_io: whether an int8 or int16x8 file takes and gives float; the others do anyway.
        lowered: whether periodic layers may become small convolutions.
        sparse_storage: whether kernels with many zeros are stored without them, by TFLite's
            EXPERIMENTAL_SPARSITY. They are filled up again when the file is loaded, so it is no
            faster, and TFLM cannot load it. A file that would hardly be smaller is stored as usual.

    Returns:
        The bytes of the file.

    Raises:
        UsageError: where the model has another interface, weights that are not finite or an
            operation without a builtin operator.
    """
    check_precision(precision)
    _check_model(model)
    network = find_route(full_precision(model), arithmetic(precision), lowered).network
    images = _calibration(precision, calibration_images, model)
    content = _converted(network, precision, images, float_io, sparse=False)
    if sparse_storage:
        sparse = _converted(network, precision, images, float_io, sparse=True)
        if len(sparse) <= WORTH_SPARSE * len(content):
            content = sparse
    return content


def full_precision(model):
    """Returns `model`, or, where layers compute in 16 bits (mixed precision), a float32 copy."""

    def is_short(operation):
        return getattr(operation, "compute_dtype", None) in ("float16", "bfloat16")

    def in_float32(operation):
        changes = {"dtype": "float32"} if is_short(operation) else {}
        return copying.make_again(
            operation, lambda config: type(operation).from_config({**config, **changes})
        )

    if not any(map(is_short, model.layers)):
        return model
    copying.check_model(model)
    return copying.copy_model(model, in_float32, lambda original, _: original.get_weights())


def arithmetic(precision):
    """Returns what the numbers of a file are to `tflite.forms`: "int8" or "float"."""
    return "int8" if precision == "int8" else "float"


def _calibration(precision, images, model):
    if precision not in QUANTIZED:
        return None
    if images is None:
        raise UsageError(f"{precision} needs calibration_images. Received: None")
    check_images(images, model)
    return np.asarray(images, np.float32)


def _converted(network, precision, calibration_images, float_io, sparse):
    # A dynamic batch would add operators that compute shapes and split XNNPACK's partition.
    image = keras.Input(network.inputs[0].shape[1:], batch_size=1, name="image")
    try:
        with quiet():
            converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(image, network(image)))
            _set_precision(converter, precision, calibration_images, float_io, sparse)
            content = converter.convert()
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


def _set_precision(converter, precision, calibration_images, float_io, sparse):
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    optimizations = {
        tf.lite.Optimize.EXPERIMENTAL_SPARSITY: sparse,
        tf.lite.Optimize.DEFAULT: precision != "float32",
    }
    converter.optimizations = [each for each, wanted in optimizations.items() if wanted]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision in QUANTIZED:
        converter.representative_dataset = lambda: ([image[None]] for image in calibration_images)
        operators, io = QUANTIZED[precision]
        converter.target_spec.supported_ops = [operators]
        if not float_io:
            converter.inference_input_type = converter.inference_output_type = io


def _reason(error):
    """What an error of the converter comes to, in one line that names the operations."""
    pattern = r'"([^"@]+)@[^\n]*?\'tf\.(\w+)\' op is neither'
    operations = {f"{name} at {place}" for place, name in re.findall(pattern, str(error))}
    if operations:
        return f"No builtin TFLite operator for: {', '.join(sorted(operations))}"
    return textwrap.shorten(f"{type(error).__name__}: {error}", 400)


def _check_file(content, precision):
    """Refuses custom operators in the file, and layers of a quantised file that remained float."""
    model = unpack(content)
    custom = [code.customCode.decode() for code in model.operatorCodes if code.customCode]
    if custom:
        raise UsageError(f"No builtin TFLite operator for: {', '.join(custom)}")
    if len(model.subgraphs) > 1:
        raise UsageError(
            "The model has loops or branches, whose operators are in graphs of their own in the "
            f"file. Convert one without. Received: {len(model.subgraphs)} graphs"
        )
    if precision not in QUANTIZED:
        return
    graph = model.subgraphs[0]
    edges = {*graph.inputs, *graph.outputs}
    floats = [
        tensor.name.decode()
        for index, tensor in enumerate(graph.tensors)
        if tensor.type == schema.TensorType.FLOAT32 and index not in edges
    ]
    if floats:
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
    float_io=False,
    lowered=True,
    sparse_storage=False,
):
    """What the command does, flag by flag; prints a report and writes `output` if it passes.

    Raises:
        UsageError: where an argument cannot be used or the file fails verification.
    """
    check_precision(precision)
    _check_output(output)
    network, about, data = model_and_data(model, dataset, data_dir, image_size)
    calibration, images, labels = conversion_images(data, calibration_examples)
    content = convert(
        network,
        precision,
        calibration,
        float_io=float_io,
        lowered=lowered,
        sparse_storage=sparse_storage,
    )
    content = metadata.embed(content, file_facts(network, about, data, precision, calibration))
    verifications = [
        verify(content, network, images[:count], labels[:count], precision=precision, runtime=name)
        for name, count in EXAMPLES.items()
        if name != "tflm"
    ]
    notes = find_route(network, arithmetic(precision), lowered).notes
    if sparse_storage:
        used = "used" if has_sparse_tensors(content) else "not used: the file would hardly shrink"
        notes = [*notes, f"sparse storage: {used}"]
    print(report(content, notes, verifications))
    failures = [failure for each in verifications for failure in each.failures]
    if failures:
        raise UsageError(f"Not written: {output}. {' '.join(failures)}")
    files.write_bytes(output, content)


def model_and_data(model, dataset=None, data_dir=None, image_size=None):
    """Returns `(model, about, data)` of what the user called `model`, after checks that they fit.

    The model is a keras.Model, `about` its card, report or {}, and data a `zoo.data.Dataset`.
    """
    network, about = find_model(model)
    _check_model(network)
    network = full_precision(network)
    data = find_dataset(about, model, dataset, data_dir, image_size)
    check_fit(network.inputs[0].shape[1:], network.outputs[0].shape[-1], data)
    return network, about, data


def file_facts(model, about, data, precision, calibration):
    """Returns what the metadata of a file says; see tflite/metadata.py.

    Args:
        model: the Keras model.
        about: its card or report, or {}.
        data: its `zoo.data.Dataset`.
        precision: of the file.
        calibration: the images that set the ranges, the first of the training split.
    """
    costs = [layer for layer in model_cost(model).layers if layer.is_convolution]
    weights = sum(layer.parameters for layer in costs)
    calibrated = None
    if precision in QUANTIZED:
        calibrated = {
            "images": f"the first {len(calibration)} of the training split",
            "sha256": hashlib.sha256(np.ascontiguousarray(calibration).tobytes()).hexdigest(),
        }
    return {
        "labels": data.class_names,
        "input_range": [0, 1],
        "pattern": _patterns(model),
        "density": sum(layer.nonzeros for layer in costs) / weights if weights else 1.0,
        "dataset": data.name,
        "source_sha256": hash_of_weights(model),
        "calibration": calibrated,
        "producer": f"tfsparse {importlib.metadata.version('tfsparse')}",
    }


def _patterns(model):
    """Returns the name of the pattern of a model's periodic layers; a list of several; or None."""
    layers = [layer for layer in leaf_layers(model) if isinstance(layer, PeriodicConv2D)]
    names = [layer.get_config()["pattern"] for layer in layers]
    different = [name for index, name in enumerate(names) if name not in names[:index]]
    return different if len(different) > 1 else (different or [None])[0]


def has_sparse_tensors(content):
    """Whether TFLite's own sparse format is used in a file."""
    return any(tensor.sparsity for tensor in unpack(content).subgraphs[0].tensors)


def report(content, notes, verifications):
    """Returns the printed table: sizes, sparsity, and each runtime beside Keras, with bounds."""
    first = verifications[0]
    lines = [("precision", first.precision)]
    lines += [("sparsity", note) for note in notes]
    lines += [
        ("file size", f"{len(content):,} bytes"),
        ("gzip size", f"{len(gzip.compress(content, mtime=0)):,} bytes"),
    ]
    for each in verifications:
        limits = {each.bounds.kind: f" (at most {each.bounds.difference:.0e})"}
        lines += [
            ("", ""),
            ("in LiteRT with", f"{each.runtime} kernels, {each.examples} images"),
            ("largest difference", f"{each.largest_difference:.1e}{limits.get('largest', '')}"),
            ("mean difference", f"{each.mean_difference:.1e}{limits.get('mean', '')}"),
            ("top-1 agreement", f"{each.top1_agreement:.2%}"),
            ("the same or tied", f"{each.top1_or_tied:.2%}"),
            (
                "or a close call",
                f"{each.top1_or_close:.2%} (at least {each.bounds.top1_or_close:.0%})",
            ),
            ("accuracy in Keras", f"{each.keras_accuracy:.2%}"),
            ("accuracy of the file", f"{each.file_accuracy:.2%}"),
            (
                "lost, ties half right",
                f"{100 * each.accuracy_loss:.2f} ± {100 * each.accuracy_error:.2f} points (at most "
                f"{100 * each.bounds.accuracy_loss:.1f}, and twice the error)",
            ),
        ]
    passed = all(each.passed for each in verifications)
    lines += [("", ""), ("verdict", "passed" if passed else "FAILED")]
    return "\n".join(f"{name:<22}{value}".rstrip() for name, value in lines)


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
        [n]. Verification takes the first VERIFICATION_EXAMPLES test images, or all there are.
    """
    images, labels = data.read("test", VERIFICATION_EXAMPLES)
    calibration, _ = data.read("train", calibration_examples)
    return as_float(calibration), as_float(images), labels


def as_float(images):
    """Returns 8-bit images as float32 in [0, 1]."""
    return images.astype(np.float32) / 255


def define_flags():
    """Defines the command's flags; not done on import, as train.py has flags of the same names."""
    flags.DEFINE_string("model", None, "Zoo model, .keras file or run's folder.", required=True)
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
    flags.DEFINE_boolean("float_io", False, "Let int8 and int16x8 files take and give float.")
    flags.DEFINE_boolean(
        "lowered", True, "Let periodic layers become small convolutions where these should be fast."
    )
    flags.DEFINE_boolean(
        "sparse_storage", False, "Store kernels without their zeros, if that is smaller."
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
        options.float_io,
        options.lowered,
        options.sparse_storage,
    )


if __name__ == "__main__":
    define_flags()
    commandline.run(main)
