"""Packages a model for TensorFlow Lite for Microcontrollers (TFLM).

    tfsparse micro --model=model.keras --output=package

Writes each form of the model as C++ sources with a self-test, its flash and RAM measured, verified
in TFLM on this machine. Needs the extra `micro`: pip install 'tfsparse[micro]'
"""

import math

from absl import flags

from zoo.commands.commandline import DATASET

FLAGS = flags.FLAGS
NEEDS_TENSORFLOW = True


def define_flags():
    flags.DEFINE_string("model", None, "Zoo model, .keras file, or folder of a run.", required=True)
    flags.DEFINE_string("output", None, "The folder to make.", required=True)
    flags.DEFINE_string("dataset", None, DATASET)
    flags.DEFINE_string("data_dir", None, "Folder of the data set.")
    flags.DEFINE_integer("image_size", None, "Resize images to this size.", lower_bound=1)


def main():
    from tflite.micro import table, write_package
    from tfsparse import files
    from zoo.loading import conversion_images, find_model_and_data

    with files.new_folder(FLAGS.output) as folder:
        model, data = find_model_and_data(
            FLAGS.model, FLAGS.dataset, FLAGS.data_dir, FLAGS.image_size
        )
        forms, checks = write_package(model, conversion_images(data), folder, FLAGS.model)
    print(table(forms))
    arenas = {form.name: form.arena_bytes for form in forms}
    if arenas.get("plain", math.inf) < arenas.get("lowered", 0):
        saved = arenas["lowered"] - arenas["plain"]
        print(f"\nThe plain form needs {saved:,} bytes less RAM than the lowered one.")
    print(
        "\nIn TFLM each form returns the bits of LiteRT's reference kernels on "
        f"{checks[0].examples} images. See {FLAGS.output}"
    )
