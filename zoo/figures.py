"""Measures the figures of a card: `zoo.publishing` writes them, `zoo.verification` checks them."""

import hashlib
import importlib.metadata
import pathlib
import tempfile

import numpy as np

from tflite import file_metadata
from tflite.arena import arena
from tflite.benchmark import benchmark, facts
from tflite.codegen import bench, package
from tflite.codegen.program import make_program
from tflite.codegen.writing import write_sources
from tflite.conversion import CALIBRATION_EXAMPLES, make_file, producers
from tflite.convert import convert
from tflite.runtimes import FileModel
from tfsparse import optional
from tfsparse.errors import UsageError
from tfsparse.hashing import hash_of_weights
from zoo import models
from zoo.architectures import untrained
from zoo.data import as_float, hash_of_images
from zoo.loading import conversion_images
from zoo.robustness import catalogue, runner
from zoo.robustness.intervals import wilson

# {result: (of the file or of the Keras model, attack, first test images)}
ACCURACIES = {
    "clean": ("model", "clean", None),
    "int8": ("file", "clean", None),
    "pgd": ("model", "pgd", 1000),
    "autoattack": ("model", "autoattack", 1000),
    # Beside an AutoAttack of as many images, on older cards: only figures on the same ones compare.
    "pgd_200": ("model", "pgd", 200),
}
SLOW = ("autoattack",)  # half an hour; it needs PyTorch
OLDER = ("pgd_200",)
POINTS = 0.0005  # by which an accuracy may be off, a fraction
PGD_STEPS, PGD_RESTARTS = 50, 2
BATCH = 250  # rounding depends on it; random starts do not
GOLDEN_IMAGES = 4
LATENCY_SECONDS = 20


def hash_of_test_set(data):
    """Returns the sha256, 64 hexadecimal digits, of a `zoo.data.Dataset`'s test images and labels.

    It tells copies of a data set apart: accuracies on two of them do not compare.
    """
    return hash_of_images(*data.read("test"))


def provenance(model, content, data):
    """Returns what a shipped int8 file is compared with: rows of what it says and what is so.

    Args:
        model: the Keras model that `zoo.load` returns.
        content: bytes of the shipped file.
        data: the `zoo.data.Dataset` whose first training images calibrated it.

    Returns:
        {"source_sha256": (in the file, of the model), "sha256": (of the file, of one made here)};
        None if the file was made by other versions, whose bytes may differ.
    """
    said = file_metadata.read(content)
    if any(said.get(name) != version for name, version in producers().items()):
        return None
    made = make_file(model, "int8", conversion_images(data))
    return {
        "source_sha256": (said.get("source_sha256"), hash_of_weights(model)),
        "sha256": tuple(hashlib.sha256(each).hexdigest() for each in (content, made)),
    }


def golden(model, content):
    """Returns the outputs of model and file for images that need no data set: [images][classes].

    "logits" are those of the Keras model, with 4 decimals; "int8" are the file's output in LiteRT's
    reference kernels, which are the same bits on every machine.
    """
    file = FileModel(content, "reference")
    images = golden_images(file.image_shape)
    return {
        # Not compiled: that takes longer than a few images.
        "logits": np.asarray(model(images, training=False), np.float64).round(4).tolist(),
        "int8": file.outputs(images).tolist(),
    }


def golden_images(shape, count=GOLDEN_IMAGES):
    """Returns float32 images in [0, 1], [count, h, w, c]; the first are the same for any count."""
    # Blocks of pixels: networks respond more to these than to noise.
    height, width, channels = shape
    coarse = np.random.default_rng(0).random((count, 4, 4, channels), np.float32)
    return coarse[:, np.arange(height) * 4 // height][:, :, np.arange(width) * 4 // width]


def accuracies(names, model, file, data, eps, counts=()):
    """Returns {name: {"accuracy", "interval", "examples", settings...}} for names of ACCURACIES.

    Args:
        names: the accuracies to measure.
        model, file: the `zoo.robustness.subjects.Subject`s of a Keras model and its int8 file.
        data: a `zoo.data.Dataset`, whose first test images are taken.
        eps: L_inf bound of the attacks.
        counts: {name: number of images}, where it is not that of ACCURACIES.

    Raises:
        UsageError: if AutoAttack is in `names` and not installed.
    """
    images, labels = data.read("test")
    images = as_float(images)
    options = catalogue.Options(eps, PGD_STEPS, PGD_RESTARTS)
    found, runs = {}, {}
    for name in names:
        kind, attack, count = ACCURACIES[name]
        count = dict(counts).get(name, count) or len(labels)
        # An attack is not repeated on the first of the images that it was run on.
        if len(runs.get((kind, attack), ([],))[0]) < count:
            subject = {"model": model, "file": file}[kind]
            few = images[:count], labels[:count]
            runs[kind, attack] = _correct(subject, attack, options, *few)
        correct, settings = runs[kind, attack]
        correct = correct[:count]
        found[name] = {
            "accuracy": float(np.mean(correct)),
            "interval": wilson(int(correct.sum()), len(correct)),
            "examples": len(correct),
            **settings,
        }
    return found


def _correct(subject, attack, options, images, labels):
    """Returns which images are classified correctly under an attack, and its settings."""
    identity = {"seed": 0, "batch_size": BATCH}
    results = runner.Results(None, identity, len(labels))
    for name in dict.fromkeys(["clean", attack]):
        runner.run(subject, catalogue.make(name, subject, options), images, labels, results)
    settings = {**identity, **results.about(attack)["settings"]}
    return results.correct(attack), {k: v for k, v in settings.items() if k != "sha256"}


def is_same_accuracy(claim, result):
    """Whether nothing that a card says about an accuracy contradicts the measured one."""
    accuracy, examples = claim.get("accuracy", result["accuracy"]), result["examples"]
    is_close = abs(accuracy - result["accuracy"]) <= max(POINTS, 1 / examples) + 1e-9
    interval = wilson(round(accuracy * examples), examples)
    is_close &= np.allclose(claim.get("interval", interval), interval)
    settings = claim.keys() - {"accuracy", "interval"}
    return bool(is_close) and all(claim[key] == result.get(key) for key in settings)


def on_device(architecture, content, data):
    """Returns the RAM that an int8 file needs in TFLM, and its speed-up over the dense network.

    Returns:
        "arena_bytes": None if TFLM is not installed or cannot run the file.
        "latency_ratio": the dense network's minimum latency / this file's, on one thread.
        "runs", "machine": how often each was run, in turns, and on which machine.
    """
    calibration = as_float(data.read("train", CALIBRATION_EXAMPLES)[0])
    dense = untrained(architecture | {"pattern": None}, calibration)
    dense = convert(dense, "int8", calibration)
    _, measured = benchmark({"dense": dense, "model": content}, 1, LATENCY_SECONDS)
    try:
        arena_bytes = arena(content).total
    except UsageError:
        arena_bytes = None
    return {
        "arena_bytes": arena_bytes,
        "latency_ratio": measured["minimum_speedup"],
        "runs": measured["runs"],
        "machine": facts(),
    }


def as_c(content, known=None):
    """Returns what an int8 file takes as C on an emulated Cortex-M4: see `tflite.codegen.bench`.

    Args:
        content: bytes of the file.
        known: what the card says, or None. It is returned if the sources and the compiler are those
            that it was measured with, which takes a second instead of ten.

    Returns:
        "instructions" of one image, "flash_bytes" of code and constants, "ram_bytes" of buffer and
        stack, "sha256" of the sources, and "compiler"; None if the extra `bench` is not installed,
        or if the file cannot be written as C.

    Raises:
        UsageError: if the C does not return what LiteRT's reference kernels do.
    """
    if not optional.are_installed("elftools", "unicorn", "ziglang"):
        return None
    try:
        program = make_program(content)
    except UsageError:
        return None
    file = FileModel(content, "reference")
    images = golden_images(file.image_shape)
    codes = np.concatenate([file.source.encode(image[None]) for image in images])
    made = package.Package(program, codes, file.outputs(images), checked=0)
    with tempfile.TemporaryDirectory() as folder:
        write_sources(program, content, codes, made.logits, pathlib.Path(folder), "model")
        identity = {
            "sha256": package.hash_of_sources(folder),
            "compiler": f"zig {importlib.metadata.version('ziglang')}",
        }
        if is_same_code(known, identity):
            return known
        measured = bench.measure(made, folder)
    return {
        "instructions": measured.instructions,
        "flash_bytes": measured.flash,
        "ram_bytes": measured.ram,
        **identity,
    }


def is_same_code(known, found):
    """Whether two results of `as_c`, or None, are of the same sources and compiler."""
    keys = ("sha256", "compiler")
    return bool(known and found) and all(known[key] == found[key] for key in keys)


def baseline(card):
    """Returns the dense model of the zoo that a sparse one is compared with, and its accuracies.

    Returns:
        "model", its name; "clean" and "autoattack", its accuracies, the latter on the first
        "autoattack_examples" test images; None if not measured. None if
        `card` is that of a dense model, or if the zoo has no dense model of the same network, loss,
        and data.
    """
    found = models.dense_baseline(card["model"], card["dataset"], card["recipe"]["loss"])
    if not found or found["name"] == card["name"] or found["note"] != card["note"]:
        return None
    attacked = {key: found[key] for key in ("autoattack", "autoattack_examples")}
    return {"model": found["name"], "clean": found["clean_accuracy"], **attacked}
