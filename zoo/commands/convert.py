"""Converts a Keras model to a .tflite file, verifies it on real images, then writes it.

    tfsparse convert --model=model.keras --precision=int8 --output=model.tflite

The file takes one image, [1, h, w, c] in [0, 1] or in --input_range (int8 files: quantized), and
returns logits. It is written only if it agrees with Keras on the test images; tflite/verify.py has
the bounds.
"""

import os
import pathlib

from absl import flags

from zoo.commands import commandline
from zoo.commands.commandline import DATASET

FLAGS = flags.FLAGS
NEEDS_TENSORFLOW = True
PRECISIONS = ("float32", "float16", "dynamic_range", "int8", "int16x8")


def define_flags():
    flags.DEFINE_string("model", None, "Zoo model, .keras file, or folder of a run.", required=True)
    flags.DEFINE_enum("precision", None, PRECISIONS, "Precision of the weights.", required=True)
    flags.DEFINE_string("output", None, "The .tflite file to write.", required=True)
    flags.DEFINE_string("dataset", None, DATASET)
    flags.DEFINE_string("data_dir", None, "Folder of the data set.")
    flags.DEFINE_integer("image_size", None, "Resize images to this size.", lower_bound=1)
    commandline.define_input_range()
    flags.DEFINE_integer(
        "calibration_examples", 200, "Training images that set the int8 ranges.", lower_bound=1
    )
    flags.DEFINE_boolean("float_io", False, "Give int8 and int16x8 files float inputs and outputs.")
    flags.DEFINE_boolean(
        "lowered", True, "Convert periodic layers to small convolutions if that should be faster."
    )
    flags.DEFINE_boolean(
        "sparse_storage", False, "Store kernels without their zeros if that is smaller."
    )


def main():
    from tflite.conversion import convert_and_verify
    from tfsparse import files
    from tfsparse.errors import UsageError
    from zoo.loading import conversion_images, find_model_and_data

    check_output(FLAGS.output)
    model, data = find_model_and_data(FLAGS.model, FLAGS.dataset, FLAGS.data_dir, FLAGS.image_size)
    conversion = convert_and_verify(
        model,
        FLAGS.precision,
        conversion_images(data, FLAGS.calibration_examples, FLAGS.input_range or (0, 1)),
        float_io=FLAGS.float_io,
        lowered=FLAGS.lowered,
        sparse_storage=FLAGS.sparse_storage,
    )
    print(conversion.report)
    if conversion.failures:
        raise UsageError(f"Not written: {FLAGS.output}. {' '.join(conversion.failures)}")
    files.write_bytes(FLAGS.output, conversion.content)
    print(f"\n{files.written(FLAGS.output)}")


def check_output(output):
    """Raises a `UsageError` unless a .tflite file can be written to `output`."""
    from tfsparse.errors import UsageError

    path = pathlib.Path(output).absolute()
    if path.suffix != ".tflite" or path.is_dir():
        raise UsageError(f"--output must name a file that ends with .tflite. Received: {output}")
    folder = next(parent for parent in path.parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"Cannot write to {folder}. Choose another --output. Received: {output}")
