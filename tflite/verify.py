"""Verifies on real images that a TFLite file computes what its Keras model computes.

Phones and computers run LiteRT's default kernels, those of XNNPACK. LiteRT's reference kernels
compute what TFLM computes, bit-identical in int8; they are many times slower and so run on fewer
images.
"""

import dataclasses
import math
from typing import Any

import keras
import numpy as np

from tflite.runtimes import FileModel
from tfsparse.errors import UsageError
from tfsparse.evaluation import decision_threshold, one_output
from tfsparse.examples import UNIT_RANGE, check_images, class_labels, highest_chance, interface
from tfsparse.precision import full_precision

BATCH = 100
# Number of images for each runtime: reference kernels take up to a second per image.
EXAMPLES = {"xnnpack": 2000, "reference": 100, "tflm": 100}
# A file that agrees with Keras on 99 % of all images agrees on 96 of 100 or more with a probability
# of 99.7 %.
FEW = 500
TOP1_OR_CLOSE = 0.99
TOP1_OR_CLOSE_OF_FEW = 0.96


@dataclasses.dataclass(frozen=True)
class Bounds:
    """The bounds that a file must not exceed.

    Differences are fractions of the root mean square of Keras' logits after each image's mean is
    subtracted: the part of the logits that distinguishes classes. Of a model of one output, they
    are fractions of its standard deviation over the images.

    Attributes:
        difference: largest allowed difference.
        kind: which difference `difference` bounds, "largest" or "mean".
        top1_or_close: smallest allowed `Verification.top1_or_close`, 0 to 1.
        accuracy_loss: largest allowed `Verification.accuracy_loss`, a fraction, to which twice
            its standard error is added.
    """

    difference: float
    kind: str
    top1_or_close: float = TOP1_OR_CLOSE
    accuracy_loss: float = 0.005


# float32: both sides add the same products in a different order; measured differences are below
#   1e-5.
# float16: weights are rounded to 11 significant bits, about 5e-4 each. The errors mostly average
#   out; measured differences are a few 1e-3 of the logits' scale.
# int8: every activation is rounded to one of 256 values, so single logits may be far off and the
#   largest difference says little. The mean catches a wrong file even if the classes agree, as they
#   do if a model predicts one class for all images. A correct conversion of a trained network
#   changes the class of few images, all of them near-ties. The number of near-ties depends on the
#   network. A ShuffleNet of 170,000 weights on CIFAR-10 has 15 %: its file agrees on 96 % of all
#   images and 99.5 % of the others, without loss of accuracy. Simulated with ranges for each
#   channel, which files cannot have, it would agree on 97.5 %.
# dynamic_range: weights and inputs of layers are rounded to one of 256 values, outputs are not.
# int16x8: weights are rounded to one of 256 values, activations have 16 bits.
BOUNDS = {
    "float32": Bounds(difference=1e-4, kind="largest"),
    "float16": Bounds(difference=2e-2, kind="largest"),
    "dynamic_range": Bounds(difference=0.2, kind="mean"),
    "int8": Bounds(difference=0.2, kind="mean"),
    "int16x8": Bounds(difference=0.1, kind="mean"),
}


@dataclasses.dataclass(frozen=True)
class Verification:
    """The differences between a file and its Keras model.

    Attributes:
        precision: a key of `BOUNDS`.
        runtime: the runtime that ran the file, a key of `tflite.runtimes.RUNTIMES`.
        examples: number of images compared.
        largest_difference: largest absolute difference of a logit, as a fraction; see `Bounds`. NaN
            if a logit of either side is NaN.
        mean_difference: the same, averaged over images and classes.
        top1_agreement: share of images for which the file predicts Keras' class, 0 to 1. If classes
            have the same output, the first one is predicted.
        top1_or_tied: share of images for which no class has a higher output than Keras' class, and
            at most one of three or more has the same output. Int8 outputs have few values, so ties
            are common.
        top1_or_close: `top1_or_tied` with near-ties counted as agreement: images for which all
            classes that the file gives its highest output are, in Keras, less than the allowed
            difference below the best class, so that rounding may decide between them. The number of
            near-ties depends on the network, not on the file.
        keras_accuracy: accuracy of the Keras model on the labels, 0 to 1; None without labels.
        file_accuracy: accuracy of the file, 0 to 1; None without labels.
        accuracy_loss: `keras_accuracy` - accuracy of the file; here an image whose k best classes
            have the same output counts 1 / k if the right class is among them.
        accuracy_error: standard error of `accuracy_loss`, from the images on which the two differ.
        chance: the highest accuracy that a model reaches without looking at the images; None
            without labels.
        bounds: the `Bounds` that apply.
        at_chance: whether Keras is right no more often than guessing, so that its accuracy says
            nothing; it may be that the model takes images in another range.
    """

    precision: str
    runtime: str
    examples: int
    largest_difference: float
    mean_difference: float
    top1_agreement: float
    top1_or_tied: float
    top1_or_close: float
    keras_accuracy: float | None
    file_accuracy: float | None
    accuracy_loss: float | None = None
    accuracy_error: float | None = None
    chance: float | None = None

    @property
    def bounds(self) -> Bounds:
        bounds = BOUNDS[self.precision]
        if self.examples >= FEW:
            return bounds
        return dataclasses.replace(bounds, top1_or_close=TOP1_OR_CLOSE_OF_FEW)

    @property
    def difference(self) -> float:
        """The difference that `bounds.difference` bounds."""
        kinds = {"largest": self.largest_difference, "mean": self.mean_difference}
        return kinds[self.bounds.kind]

    @property
    def failures(self) -> list[str]:
        """One sentence for each bound that is exceeded; NaN exceeds all bounds."""
        failures = []
        if not math.isfinite(self.largest_difference):
            failures.append("The logits of the model or of the file are not finite numbers.")
        elif not self.difference <= self.bounds.difference:
            failures.append(
                f"The {self.bounds.kind} difference of the logits is {self.difference:.2g} of "
                f"their scale; {self.bounds.difference:.2g} is allowed."
            )
        if not self.top1_or_close >= self.bounds.top1_or_close:
            failures.append(
                "Keras' class has the file's highest output, or is a near-tie, on "
                f"{self.top1_or_close:.2%} of the images; at least "
                f"{self.bounds.top1_or_close:.0%} are required."
            )
        loss, error = self.accuracy_loss, self.accuracy_error
        if loss is not None and error is not None and not self._keeps_accuracy(loss, error):
            failures.append(
                f"The file classifies {self.file_accuracy:.2%} of the images correctly, Keras "
                f"{self.keras_accuracy:.2%}. If a tie counts as half right, the loss is "
                f"{100 * loss:.2f} ± {100 * error:.2f} points; "
                f"{100 * self.bounds.accuracy_loss:.1f} plus twice the error are allowed."
            )
        return failures

    def _keeps_accuracy(self, loss, error):
        return loss - 2 * error <= self.bounds.accuracy_loss

    @property
    def at_chance(self) -> bool:
        if self.keras_accuracy is None or self.chance is None:
            return False
        return self.keras_accuracy <= self.chance

    @property
    def passed(self) -> bool:
        return not self.failures


def verify(
    content: bytes,
    model: keras.Model,
    images: np.ndarray,
    labels: Any = None,
    *,
    precision: str,
    runtime: str = "xnnpack",
    input_range: tuple[float, float] = UNIT_RANGE,
) -> Verification:
    """Runs a TFLite file on `images` and compares it with its Keras model.

    Args:
        content: bytes of the file, as `tflite.convert.convert` returns them.
        model: the Keras model; [n, h, w, c] images in `input_range` to [n, classes] logits. With
            one output, [n, 1], it tells two classes apart. A model that does not compute in float32
            is compared as a float32 copy.
        images: float array [n, h, w, c] in `input_range`.
        labels: optional, as `tfsparse.examples.class_labels` takes them.
        precision: a key of `BOUNDS`.
        runtime: a key of `tflite.runtimes.RUNTIMES`.
        input_range: smallest and largest value of the images.

    Returns:
        A `Verification`; `.passed` and `.failures` hold the verdict.

    Raises:
        UsageError: if images or labels do not fit the model, or if the bytes are not a TFLite file
            that fits it.
    """
    check_precision(precision)
    shape, outputs = interface(model)
    check_images(images, shape, input_range)
    images = np.asarray(images, np.float32)
    if labels is not None:
        labels = class_labels(labels, len(images), outputs)
    expected = _keras_logits(full_precision(model), images)
    file = FileModel(content, runtime)
    if file.image_shape != images.shape[1:]:
        raise UsageError(
            f"The file takes images of shape {file.image_shape}, not {images.shape[1:]}. Convert "
            "the file from this model."
        )
    actual = file(images)
    if actual.shape != expected.shape:
        raise UsageError(
            f"The file's outputs have shape {actual.shape}, those of the Keras model "
            f"{expected.shape}. Convert the file from this model."
        )
    difference = np.abs(actual - expected)
    if outputs == 1:
        scale = expected.std()
        expected, actual = (
            _two_classes(each, decision_threshold(model)) for each in (expected, actual)
        )
    else:
        scale = np.sqrt(np.mean(np.square(expected - expected.mean(axis=1, keepdims=True))))
    accuracy_loss, accuracy_error = _accuracy_loss(expected, actual, labels)
    is_kept = _keeps_class(expected, actual)
    is_close = _is_near_tie(expected, actual, BOUNDS[precision].difference * scale)
    return Verification(
        precision=precision,
        runtime=runtime,
        examples=len(images),
        largest_difference=_fraction(difference.max(), scale),
        mean_difference=_fraction(difference.mean(), scale),
        top1_agreement=_agreement(expected, actual),
        top1_or_tied=float(np.mean(is_kept)),
        top1_or_close=float(np.mean(is_kept | is_close)),
        keras_accuracy=_accuracy(expected, labels),
        file_accuracy=_accuracy(actual, labels),
        accuracy_loss=accuracy_loss,
        accuracy_error=accuracy_error,
        chance=None if labels is None else highest_chance(labels, expected.shape[1]),
    )


def check_precision(precision):
    """Raises a `UsageError` unless `precision` is one of `BOUNDS`."""
    if precision not in BOUNDS:
        raise UsageError(f"precision must be one of {', '.join(BOUNDS)}. Received: {precision}")


def _keras_logits(model, images):
    """Returns the logits of the Keras model, float64 [n, classes]."""
    starts = range(0, len(images), BATCH)
    batches = [np.asarray(one_output(model, images[start : start + BATCH])) for start in starts]
    return np.concatenate(batches).astype(np.float64)


def _two_classes(outputs, threshold):
    """Returns two logits, [n, 2], whose higher one is the class that one output, [n, 1], means."""
    return np.concatenate([np.full_like(outputs, threshold), outputs], axis=1)


def _fraction(difference, scale):
    """Returns difference / scale, or the difference if the scale is 0."""
    return float(difference / scale) if scale else float(difference)


def _agreement(expected, actual):
    """Returns the share of rows with the same class in both; rows with a NaN do not agree."""
    same = expected.argmax(axis=1) == actual.argmax(axis=1)
    finite = np.isfinite(expected).all(axis=1) & np.isfinite(actual).all(axis=1)
    return float(np.mean(same & finite))


def _keeps_class(expected, actual):
    """Returns whether no output in a row of `actual` is above that of the expected class, bool [n].

    One other class of three or more may have the same output; with more, or if no class has a
    lower one, the file would hardly predict anything. A row with a NaN does not keep its class.
    """
    chosen = actual[np.arange(len(actual)), expected.argmax(axis=1)]
    finite = np.isfinite(expected).all(axis=1)
    allowed = 2 if actual.shape[1] > 2 else 1
    few = (actual == actual.max(axis=1, keepdims=True)).sum(axis=1) <= allowed
    return finite & few & (chosen >= actual.max(axis=1))


def _is_near_tie(expected, actual, allowed):
    """Returns whether all classes with the file's highest output are near Keras' best, bool [n]."""
    finite = np.isfinite(expected).all(axis=1) & np.isfinite(actual).all(axis=1)
    # Also where all outputs are the same, as those of some untrained networks.
    near = expected >= expected.max(axis=1, keepdims=True) - allowed
    best = actual == actual.max(axis=1, keepdims=True)
    return finite & ~(best & ~near).any(axis=1)


def _accuracy(logits, labels):
    if labels is None:
        return None
    return float(np.mean(logits.argmax(axis=1) == labels))


def _accuracy_loss(expected, actual, labels):
    """Returns how much accuracy `actual` loses against `expected`, and the standard error."""
    if labels is None:
        return None, None
    lost = _chances(expected, labels) - _chances(actual, labels)
    return float(np.mean(lost)), float(np.sqrt(np.sum(np.square(lost))) / len(labels))


def _chances(logits, labels):
    """Returns, for each row, the probability that a class drawn from its best ones is right."""
    best = logits == logits.max(axis=1, keepdims=True)
    right = best[np.arange(len(logits)), labels]
    return right / np.maximum(best.sum(axis=1), 1)
