"""Writes a Keras model as ONNX, as a SavedModel of TensorFlow, or for LiteRT with float weights.

    tfsparse export --model=resnet8_cifar10 --format=onnx --output=model.onnx

The result is run and compared with Keras on random images before it gets its name. `tfsparse
convert` makes the smaller files for phones and microcontrollers.
"""

import pathlib

from absl import flags

FLAGS = flags.FLAGS
NEEDS_TENSORFLOW = True


def define_flags():
    flags.DEFINE_string("model", None, "Zoo model, .keras file, or folder of a run.", required=True)
    flags.DEFINE_enum("format", None, ["onnx", "saved_model", "litert"], "Format.", required=True)
    flags.DEFINE_string(
        "output", None, "The .onnx or .tflite file to write, or the folder.", required=True
    )


def main():
    from tflite.export import EXAMPLES, export_model
    from zoo.loading import find_model

    model, _ = find_model(FLAGS.model)
    difference = export_model(model, FLAGS.format, FLAGS.output)
    path = pathlib.Path(FLAGS.output)
    parts = [each for each in (path.rglob("*") if path.is_dir() else [path]) if each.is_file()]
    size = sum(each.stat().st_size for each in parts)
    print(
        f"wrote {path} ({size / 1000:,.0f} kB); its outputs differ from Keras' by at most "
        f"{difference:.0e} of the largest on {EXAMPLES} random images"
    )
