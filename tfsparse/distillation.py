"""Knowledge distillation: a small network learns from the outputs of larger ones.

With temperature T, the logits z of the teachers and s of the student, and the label t, the loss of
an image is

    (1 - w) * CE(s, t) + w * T^2 * CE(s / T, mean over the teachers of softmax(z / T))

after Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv 1503.02531, section 2:
the gradient of the second term would shrink as 1 / T^2. Student and teachers see the same crop of
an image (Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", CVPR
2022).

Of an adversarial image, the student learns what the teachers say of the clean one, as in
adversarially robust distillation (Goldblum et al., AAAI 2020, arXiv 1905.09747) and RSLAD (Zi et
al., ICCV 2021, arXiv 2108.07969). Both differ in their weights, and RSLAD in its attack, which
uses no labels.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfsparse import backend
from tfsparse.errors import UsageError
from tfsparse.evaluation import ends_in, one_output
from tfsparse.examples import interface


class Teacher:
    """Trained networks whose outputs are a student's soft labels.

    Args:
        models: Keras models from images in [0, 1] to logits [n, classes], at least one, of the
            same sizes. They do not change.
        temperature: T, above 0, by which logits are divided. Higher ones spread the probabilities.
        weight: w, the share of the soft labels in the loss, in (0, 1].

    Attributes:
        image_shape: (h, w, c) of the images.
        num_classes: number of logits.
        variables: of all models.

    Raises:
        UsageError: if an argument is out of range or the models differ in their sizes.
    """

    def __init__(
        self, models: Sequence[keras.Model], temperature: float = 4.0, weight: float = 0.9
    ) -> None:
        if isinstance(models, keras.Model):
            raise UsageError(f"models must be a list, such as [{models.name}].")
        for model in models:
            if getattr(model, "outputs", None) and ends_in(model, "softmax"):
                raise UsageError(
                    f"A teacher returns logits. The last layer of {model.name} is a softmax: leave "
                    "it out, with keras.Model(inputs, outputs of the layer before)."
                )
        if not 0 < temperature < np.inf or not 0 < weight <= 1:
            raise UsageError(
                "A teacher needs temperature > 0 and 0 < weight <= 1. "
                f"Received: temperature={temperature}, weight={weight}"
            )
        sizes = [interface(model) for model in models]
        if len(set(sizes)) != 1 or sizes[0][1] < 2:
            raise UsageError(
                "Teachers are one or more models of images of one shape and of the same classes, "
                f"at least two. Received: {', '.join(map(str, sizes)) or 'none'}"
            )
        self.models = list(models)
        self.temperature, self.weight = temperature, weight
        self.image_shape, self.num_classes = sizes[0]
        self.variables = [variable for model in models for variable in model.variables]
        self._soft_labels = backend.compiled(_soft_labels)

    def check_student(self, model: keras.Model) -> None:
        """Raises a `UsageError` unless it can teach `model`, which is not one of the teachers."""
        own = {id(variable) for variable in self.variables}
        if any(id(variable) in own for variable in model.variables):
            raise UsageError(
                f"The student {model.name} shares variables with its teacher. Teach a copy of it."
            )
        if getattr(model, "outputs", None):
            self.check_sizes(*interface(model))

    def check_sizes(self, image_shape: tuple[int, ...], num_classes: int) -> None:
        """Raises a `UsageError` unless it can teach a model of these sizes."""
        own, student = (*self.image_shape, self.num_classes), (*image_shape, num_classes)
        if any(None not in pair and len(set(pair)) > 1 for pair in zip(own, student, strict=True)):
            raise UsageError(
                f"The teacher takes images of shape {self.image_shape} and tells "
                f"{self.num_classes} classes apart; the student, {tuple(image_shape)} and "
                f"{num_classes}. Choose a teacher of the student's images and classes."
            )

    def predicted_classes(self, images: Any) -> np.ndarray:
        """Returns the classes that the teachers find most probable, int [n]."""
        return ops.convert_to_numpy(self.soft_labels(images)).argmax(axis=1)

    def soft_labels(self, images: Any) -> Any:
        """Returns the teachers' mean probabilities at the temperature, float32 [n, classes]."""
        return self._soft_labels(self, images)

    def losses(self, hard: Any, soft_labels: Any, logits: Any) -> Any:
        """Returns the loss of each image, float32 [n].

        Args:
            hard: float32 [n], the cross-entropy with the labels.
            soft_labels: as `soft_labels` returns them.
            logits: float32 [n, classes], of the student.
        """
        soft = keras.losses.categorical_crossentropy(
            soft_labels, logits / self.temperature, from_logits=True
        )
        return (1 - self.weight) * hard + self.weight * self.temperature**2 * soft


def _soft_labels(teacher, images):
    logits = [ops.cast(one_output(model, images), "float32") for model in teacher.models]
    return ops.mean(ops.softmax(ops.stack(logits) / teacher.temperature, axis=-1), axis=0)
