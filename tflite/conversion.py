"""From a Keras model and arrays to a verified file: the one way that all commands take."""

import gzip
import hashlib
import importlib.metadata
from typing import Any, NamedTuple

import keras
import numpy as np

from tflite import file_metadata
from tflite.convert import QUANTIZED, arithmetic, convert
from tflite.flatbuffer import unpack
from tflite.routes import find_route
from tflite.verify import EXAMPLES, Verification, verify
from tfsparse.cost import model_cost
from tfsparse.examples import UNIT_RANGE
from tfsparse.graph import leaf_layers
from tfsparse.hashing import hash_of_weights
from tfsparse.layers import PeriodicConv2D
from tfsparse.precision import full_precision

CALIBRATION_EXAMPLES = 200
# At an agreement of 99 %, 2,000 images measure it to 0.2 points (one standard deviation); 500, to
# 0.4, would let chance decide about the bound.
VERIFICATION_EXAMPLES = EXAMPLES["xnnpack"]
AT_CHANCE = (
    "Keras' accuracy is at chance level, so this verdict says little. If the model takes images of "
    "another range than this, give --input_range, such as 0,255."
)


class Images(NamedTuple):
    """The images of a conversion, and what a file says about their data set.

    Attributes:
        calibration: float32 [n, h, w, c] in `input_range`: set the ranges of a quantized file.
        images: float32 [n, h, w, c] in `input_range`: the file is verified on them.
        labels: of `images`, as `tfsparse.examples.class_labels` takes them.
        class_names: list of str, in the order of the logits, or None.
        dataset: name of the data set, or None.
        input_range: smallest and largest value of an image.
    """

    calibration: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    class_names: list[str] | None = None
    dataset: str | None = None
    input_range: tuple[float, float] = UNIT_RANGE


class Conversion(NamedTuple):
    """A file and how it was verified.

    Attributes:
        content: bytes of the file.
        notes: list of str: how each form of sparsity was converted.
        verifications: list of `tflite.verify.Verification`, one for each runtime.
    """

    content: bytes
    notes: list[str]
    verifications: list[Verification]

    @property
    def failures(self) -> list[str]:
        """One sentence for each bound that a runtime exceeds; none if the file is good."""
        return [failure for each in self.verifications for failure in each.failures]

    @property
    def report(self) -> str:
        """What is printed: sizes, sparsity, and each runtime beside Keras, with its bounds."""
        lines = [("precision", self.verifications[0].precision)]
        lines += [("sparsity", note) for note in self.notes]
        lines += [
            ("file size", f"{len(self.content):,} bytes"),
            ("gzip size", f"{len(gzip.compress(self.content, mtime=0)):,} bytes"),
        ]
        text = "\n".join(f"{name:<11}{value}" for name, value in lines)
        parts = [text, *(results(each) for each in self.verifications)]
        parts.append(f"verdict    {'FAILED' if self.failures else 'passed'}")
        if self.verifications[0].at_chance:
            parts[-1] += f"\nwarning    {AT_CHANCE}"
        return "\n\n".join(parts)


def results(verification: Verification) -> str:
    """Returns a heading and three bullets, a str of lines: each result with its bound."""
    bounds, runtime = verification.bounds, verification.runtime
    points = verification.accuracy_loss, verification.accuracy_error  # as there are labels
    loss, error = (100 * each for each in points if each is not None)
    lines = [
        f"{verification.precision} file in LiteRT, {runtime} kernels, beside Keras, "
        f"{verification.examples:,} images:",
        f"- top-1 agreement {_percent(verification.top1_agreement)}, with near-ties "
        f"{_percent(verification.top1_or_close)} (at least {100 * bounds.top1_or_close:.0f} %)",
        f"- accuracy {_percent(verification.file_accuracy)}, Keras "
        f"{_percent(verification.keras_accuracy)}; {0 - loss:+.2f} ± {error:.2f} points if ties "
        f"count half (at least -{100 * bounds.accuracy_loss:.1f} - 2 errors)",
        f"- {bounds.kind} error of the logits {verification.difference:.2g} of their scale "
        f"(at most {bounds.difference:.2g})",
    ]
    return "\n".join(lines)


def _percent(share):
    return f"{100 * share:.2f} %"


def make_file(model: keras.Model, precision: str, images: Images, **options: Any) -> bytes:
    """Returns the bytes of the file with its metadata; arguments as of `convert_and_verify`."""
    options["input_range"] = images.input_range
    content = convert(model, precision, images.calibration, **options)
    return file_metadata.embed(content, file_facts(model, precision, images))


def convert_and_verify(
    model: keras.Model, precision: str, images: Images, **options: Any
) -> Conversion:
    """Converts a Keras model, embeds its metadata, and compares the file with Keras in LiteRT.

    Args:
        model: Keras model; see `tflite.convert.convert`.
        precision: a key of `tflite.verify.BOUNDS`.
        images: the `Images`.
        **options: keyword arguments of `tflite.convert.convert`.

    Returns:
        A `Conversion`; a file with failures should not be used.

    Raises:
        UsageError: if the model cannot be converted or the images do not fit it.
    """
    content = make_file(model, precision, images, **options)
    verifications = [
        verify(
            content,
            model,
            images.images[:count],
            images.labels[:count],
            precision=precision,
            runtime=runtime,
            input_range=images.input_range,
        )
        for runtime, count in EXAMPLES.items()
        if runtime != "tflm"
    ]
    notes = find_route(
        full_precision(model), arithmetic(precision), options.get("lowered", True)
    ).notes
    if options.get("sparse_storage"):
        used = "used" if has_sparse_tensors(content) else "not used: the file would hardly shrink"
        notes = [*notes, f"sparse storage: {used}"]
    return Conversion(content, notes, verifications)


def file_facts(model: keras.Model, precision: str, images: Images) -> dict[str, Any]:
    """Returns the metadata of a file, a dict; see tflite/file_metadata.py."""
    calibrated = None
    if precision in QUANTIZED:
        pixels = np.ascontiguousarray(images.calibration)
        calibrated = {
            "images": f"the first {len(pixels)} of the training split",
            "sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
        }
    return {
        "labels": images.class_names,
        "input_range": list(images.input_range),
        **source_facts(model),
        "dataset": images.dataset,
        "calibration": calibrated,
        **producers(),
    }


def source_facts(model: keras.Model) -> dict[str, Any]:
    """Returns the entries of the metadata that describe the Keras model itself."""
    costs = [layer for layer in model_cost(model).layers if layer.is_convolution]
    weights = sum(layer.parameters for layer in costs)
    return {
        "pattern": _patterns(model),
        "density": sum(layer.nonzeros for layer in costs) / weights if weights else 1.0,
        "source_sha256": hash_of_weights(model),
    }


def producers() -> dict[str, str]:
    """Returns the entries of the metadata that name the versions on which a file's bytes depend."""
    return {
        name: f"{package} {importlib.metadata.version(package)}"
        for name, package in (("producer", "tfsparse"), ("converter", "tensorflow"))
    }


def _patterns(model):
    """Returns the pattern of a model's periodic layers; a list if there are several; or None."""
    layers = [layer for layer in leaf_layers(model) if isinstance(layer, PeriodicConv2D)]
    names = [layer.get_config()["pattern"] for layer in layers]
    different = [name for index, name in enumerate(names) if name not in names[:index]]
    return different if len(different) > 1 else (different or [None])[0]


def has_sparse_tensors(content: bytes) -> bool:
    """Whether a file uses TFLite's own sparse format."""
    return any(tensor.sparsity for tensor in unpack(content).subgraphs[0].tensors)
