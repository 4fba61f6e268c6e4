"""The networks that a training run learns from: `train --teacher`."""

import keras
import numpy as np

from tfsparse.distillation import Teacher
from tfsparse.errors import UsageError
from tfsparse.examples import highest_guess
from tfsparse.precision import with_policy
from zoo.data import batches
from zoo.loading import find_model


def find_teacher(names, temperature, weight, dtype_policy):
    """Returns the `tfsparse.distillation.Teacher` of these models, or None if there are none.

    Args:
        names: of zoo models, or paths of .keras files or of runs' folders, a list of str.
        temperature, weight: as in `Teacher`.
        dtype_policy: in which it computes, such as "mixed_bfloat16".

    Raises:
        UsageError: if there is no such model, or they cannot teach together.
    """
    if not names:
        return None
    models = [find_model(name, "teacher")[0] for name in names]
    if dtype_policy != "float32":
        models = [with_policy(model, dtype_policy) for model in models]
    return Teacher(models, temperature, weight)


def check_teacher(teacher, images, labels):
    """Returns a teacher's accuracy on held-out images, a float in [0, 1].

    Args:
        teacher: a `Teacher`.
        images, labels: as a `zoo.data.Dataset` reads them.

    Raises:
        UsageError: if it is no better than a guess.
    """
    correct = sum(
        np.sum(teacher.predicted_classes(some) == keras.ops.convert_to_numpy(its_labels))
        for some, its_labels in batches(images, labels, 500)
    )
    accuracy = float(correct) / len(labels)
    if accuracy <= highest_guess(len(labels), teacher.num_classes):
        raise UsageError(
            f"The teacher is right on {100 * accuracy:.1f} % of the validation images, no more "
            "than a guess. Check that --teacher takes images in [0, 1] and knows the classes of "
            "--dataset."
        )
    return accuracy
