"""Images and labels as users hand them over: checked, and labels in one form. NumPy only."""

import numpy as np

from tfsparse.errors import UsageError

UNIT_RANGE = (0, 1)
TOLERANCE = 1e-5  # of the range: the last bits of a conversion to another float type


def class_labels(labels, count, outputs):
    """Returns labels as the index of each image's class, whatever the form that Keras takes.

    Args:
        labels: integers or bools [n] or [n, 1], or one-hot [n, outputs] of any numeric type. A
            model of one output tells two classes apart, 0 and 1, whose labels may also be floats.
        count: n, the number of images.
        outputs: number of outputs of the model.

    Returns:
        int32 [n], in [0, classes).

    Raises:
        UsageError: if they have another shape, or name no class.
    """
    found = np.asarray(labels)
    if found.shape == (count, outputs) and outputs > 1:
        rows = found.astype(np.float64)
        if not (((rows == 0) | (rows == 1)).all() and (rows.sum(axis=1) == 1).all()):
            raise UsageError(
                f"Labels of shape {found.shape} must be one-hot: a single 1 in each row, the rest "
                f"0. Received: {_first_row(found, rows)}"
            )
        return rows.argmax(axis=1).astype(np.int32)
    if found.shape not in ((count,), (count, 1)):
        raise UsageError(
            f"Labels of {count} images must have the shape ({count},), ({count}, 1), or one-hot "
            f"({count}, {outputs}). Received: {found.shape}"
        )
    found = found.reshape(count)
    if found.dtype.kind not in ("iub" if outputs > 1 else "iubf"):
        raise UsageError(
            f"Labels must be integers, or one-hot. Received: {found.dtype}, "
            f"such as {found[:3].tolist()}"
        )
    classes = max(outputs, 2)
    known = (found >= 0) & (found < classes) & (found == np.floor(found))
    if not known.all():
        raise UsageError(
            f"Labels of a model of {outputs} outputs must be among 0 to {classes - 1}. Received: "
            f"{found[~known][0]}"
        )
    return found.astype(np.int32)


def _first_row(found, rows):
    wrong = ((rows != 0) & (rows != 1)).any(axis=1) | (rows.sum(axis=1) != 1)
    return found[wrong][0].tolist()


def interface(model):
    """Returns `(image_shape, outputs)` of a Keras classifier: (h, w, c), and how many outputs.

    A size that the model leaves open is None.

    Raises:
        UsageError: unless the model takes one tensor of images, [n, h, w, c], and returns one of
            logits, [n, outputs].
    """
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs:
        raise UsageError(
            "The model's inputs are unknown. Build it with keras.Input or call it on images first."
        )
    shapes = [tuple(tensor.shape) for tensor in inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise UsageError(
            "A classifier takes one input of images, (batch, height, width, channels). Received: "
            f"{len(shapes)} with shapes {shapes}"
        )
    shapes += [tuple(tensor.shape) for tensor in outputs]
    if len(shapes) != 2 or len(shapes[1]) != 2:
        raise UsageError(
            "A classifier has one output, logits of shape (batch, classes). Received: "
            f"{len(shapes) - 1} with shapes {shapes[1:]}"
        )
    return shapes[0][1:], shapes[1][1]


def check_images(images, shape, input_range=UNIT_RANGE):
    """Raises a `UsageError` unless images are a model's.

    Args:
        images: what should be a float array [n, *shape] with n > 0 and values in `input_range`.
        shape: (h, w, c) of the model's input; None for a size that the model leaves open.
        input_range: smallest and largest value that the model takes.
    """
    images = np.asarray(images)
    fits = len(images.shape) == len(shape) + 1 and all(
        wanted in (None, size) for wanted, size in zip(shape, images.shape[1:], strict=True)
    )
    if not fits or not len(images):
        raise UsageError(
            f"Images must be an array of shape (n, {', '.join(map(str, shape))}) with n > 0, as "
            f"the model's input. Received: {images.shape}"
        )
    low, high = input_range
    slack = TOLERANCE * (high - low)
    # The types of ml_dtypes, such as bfloat16, have the kind "V".
    is_float = images.dtype.kind in "fV"
    smallest, largest = images.min(), images.max()
    if not (is_float and smallest >= low - slack and largest <= high + slack):  # NaN is not in it
        remedy = (
            "divide 8-bit images by 255, or give input_range=(0, 255) for a model that takes these"
            if tuple(input_range) == UNIT_RANGE
            else "as input_range says"
        )
        raise UsageError(
            f"Images must be floats in [{low}, {high}]; {remedy}. Received: {images.dtype} from "
            f"{smallest} to {largest}"
        )


def check_range(input_range):
    """Returns `input_range` as two numbers; raises a `UsageError` unless they are a range."""
    try:
        low, high = (float(value) for value in input_range)
    except (TypeError, ValueError):
        low = high = np.nan
    if not (low < high and np.isfinite([low, high]).all()):
        raise UsageError(
            "input_range must be the smallest and the largest value of an image, such as (0, 255). "
            f"Received: {input_range}"
        )
    return tuple(int(value) if value.is_integer() else value for value in (low, high))


def from_unit(images, input_range):
    """Returns images in [0, 1], a NumPy array, in another range."""
    low, high = input_range
    return images if (low, high) == UNIT_RANGE else low + (high - low) * images


def highest_guess(count, classes):
    """Returns the highest accuracy on `count` images that guessing one of `classes` reaches.

    It is the upper end of the 95 % interval around 1 / classes.
    """
    chance = 1 / max(classes, 2)
    return float(chance + 1.959964 * np.sqrt(chance * (1 - chance) / count))


def highest_chance(labels, classes):
    """Returns the highest accuracy on images that a model reaches without looking at them.

    It guesses, see `highest_guess`, or it always answers the most frequent class.

    Args:
        labels: of the images, int [n], n > 0; an array or a tensor.
        classes: their number.
    """
    labels = np.asarray(labels)
    most = np.bincount(labels).max() / len(labels)
    return max(highest_guess(len(labels), classes), float(most))
