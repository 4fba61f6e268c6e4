"""Packages a model for microcontrollers: as C, or for TensorFlow Lite for Microcontrollers (TFLM).

    tfsparse micro --model=model.keras --output=package
    tfsparse micro --model=resnet8_dnr10_cifar10 --output=package --runtime=c --bench

With --runtime=tflm, writes each form of the model as C++ sources with a self-test, its flash and
RAM measured, verified in TFLM on this machine. Needs the extra `micro`: pip install
'tfsparse[micro]'

With --runtime=c, writes the model's int8 file as C99 whose kernels skip pruned weights, and runs it
on this machine if there is a C compiler. Zoo models and .tflite files need no data set. --bench
runs it on an emulated Cortex-M4 and prints what each layer takes. Needs the extra `bench`: pip
install 'tfsparse[bench]'. A program that has several models in C needs a --prefix for each.
"""

import math
import pathlib

from absl import flags

from zoo.commands.commandline import DATASET

FLAGS = flags.FLAGS
NEEDS_TENSORFLOW = True


def define_flags():
    flags.DEFINE_string(
        "model", None, "Zoo model, .keras file, folder of a run, or .tflite file.", required=True
    )
    flags.DEFINE_string("output", None, "The folder to make.", required=True)
    flags.DEFINE_enum("runtime", "tflm", ["tflm", "c"], "What is to run the model.")
    flags.DEFINE_boolean("bench", False, "Measure the C on an emulated Cortex-M4.")
    flags.DEFINE_string("prefix", "tfsparse", "What all names in the C begin with.")
    flags.DEFINE_string("dataset", None, DATASET)
    flags.DEFINE_string("data_dir", None, "Folder of the data set.")
    flags.DEFINE_integer("image_size", None, "Resize images to this size.", lower_bound=1)


def main():
    from tflite.codegen.writing import check_prefix
    from tfsparse import files
    from tfsparse.errors import UsageError

    for name in ("bench", "prefix"):
        if FLAGS[name].present and FLAGS[name].value and FLAGS.runtime != "c":
            raise UsageError(f"--{name} is for C. Give --runtime=c. Received: --runtime=tflm")
    check_prefix(FLAGS.prefix)
    with files.new_folder(FLAGS.output) as folder:
        report = {"tflm": _write_tflm, "c": _write_c}[FLAGS.runtime](folder)
    print(f"{report} See {FLAGS.output}")


def _write_tflm(folder):
    """Writes the package for TFLM and returns what to print."""
    from tflite.micro import table, write_package
    from tfsparse.errors import UsageError
    from zoo.loading import conversion_images

    if FLAGS.model.endswith(".tflite"):
        raise UsageError(
            "The package for TFLM is made of a Keras model. Give one, or --runtime=c, which takes "
            f"a .tflite file. Received: --model={FLAGS.model}"
        )
    model, data = _find_model_and_data()
    forms, checks = write_package(model, conversion_images(data), folder, _title())
    report = table(forms)
    arenas = {form.name: form.arena_bytes for form in forms}
    if arenas.get("plain", math.inf) < arenas.get("lowered", 0):
        saved = arenas["lowered"] - arenas["plain"]
        report += f"\n\nThe plain form needs {saved:,} bytes less RAM than the lowered one."
    return (
        f"{report}\n\nIn TFLM each form returns the bits of LiteRT's reference kernels on "
        f"{checks[0].examples} images."
    )


def _write_c(folder):
    """Writes the package in C and returns what to print."""
    from tflite.codegen import bench
    from tflite.codegen.package import write_package
    from tflite.codegen.writing import table

    content, images = _find_file_and_images()
    package = write_package(content, images, folder, _title(), FLAGS.prefix)
    if FLAGS.bench:
        report = bench.table(bench.measure(package, folder))
    else:
        report = f"{table(package.program)}\n\nRAM: {package.program.plan.bytes:,} bytes of buffer."
    if not package.checked:
        return f"{report}\n\nThere is no C compiler on this machine, so the C was not run."
    return (
        f"{report}\n\nOn this machine the C returns the bits of LiteRT's reference kernels on "
        f"{package.checked} images."
    )


def _title():
    """Returns the name of the model without its folder, as text that any file can hold."""
    return pathlib.Path(FLAGS.model).resolve().name.encode(errors="replace").decode()


def _find_model_and_data():
    from zoo.loading import find_model_and_data

    return find_model_and_data(FLAGS.model, FLAGS.dataset, FLAGS.data_dir, FLAGS.image_size)


def _find_file_and_images():
    """Returns the bytes of an int8 file, and images in the range that it takes."""
    from tflite import file_metadata
    from tflite.conversion import make_file
    from tflite.runtimes import FileModel
    from tfsparse.errors import UsageError
    from tfsparse.examples import UNIT_RANGE, check_range, from_unit
    from zoo.figures import golden_images
    from zoo.loading import conversion_images, find_file

    content = find_file(FLAGS.model)
    if content is None:
        model, data = _find_model_and_data()
        images = conversion_images(data)
        # Dense kernels: the C skips what a pattern prunes without small convolutions.
        return make_file(model, "int8", images, lowered=False), images.images[:CHECKED_IMAGES]
    for name in ("dataset", "image_size"):
        if FLAGS[name].present:
            received = f"--{name}={FLAGS[name].value}"
            raise UsageError(f"--{name} has no effect with a .tflite file. Received: {received}")
    input_range = check_range(file_metadata.read(content).get("input_range", UNIT_RANGE))
    images = golden_images(FileModel(content, "reference").image_shape, CHECKED_IMAGES)
    return content, from_unit(images, input_range)


CHECKED_IMAGES = 100
