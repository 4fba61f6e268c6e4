"""Adversarial examples that a model's card comes with, and what its int8 file makes of them.

They are stored as perturbations, which are small, beside the images that they are added to.
"""

import io
import pathlib
from typing import NamedTuple

import numpy as np

from tfsparse import attacks
from tfsparse.files import sha256_of, write_bytes
from tfsparse.starts import image_seeds, random_starts
from zoo import models
from zoo.data import as_float

FOLDER = "examples"  # of the zoo
IMAGES = 8
EPS = (0, 1, 2, 4, 8, 16)  # in 1/255
STEPS = 20  # of PGD, from one random start


class Examples(NamedTuple):
    """Test images of a model, attacked with several bounds.

    Attributes:
        images: uint8 [n, h, w, c], the first test images of different classes.
        labels: int [n], their classes.
        perturbations: int8 [len(EPS), n, h, w, c]: what is added to the images, at most EPS.
        outputs: int8 [len(EPS), n, classes], of the int8 file in LiteRT's reference kernels.
        logits: float [len(EPS), n, classes], what the outputs stand for.
    """

    images: np.ndarray
    labels: np.ndarray
    perturbations: np.ndarray
    outputs: np.ndarray
    logits: np.ndarray

    def attacked(self, index):
        """Returns the images under EPS[index], uint8 [n, h, w, c]."""
        return (self.images.astype(np.int16) + self.perturbations[index]).astype(np.uint8)


def make(model, content, data):
    """Returns the `Examples` of a Keras model and the bytes of its int8 file.

    PGD attacks the Keras model. Its results are rounded to whole gray levels, as a camera's images
    are, and given to the file.

    Args:
        model: a keras.Model of images in [0, 1].
        content: bytes of the file.
        data: the `zoo.data.Dataset` of both.
    """
    from tflite.runtimes import FileModel

    images, labels = data.read("test")
    chosen = np.sort(np.unique(labels, return_index=True)[1])[:IMAGES]
    images, labels = images[chosen], labels[chosen]
    starts = random_starts(image_seeds(0, 0, chosen), images.shape[1:])
    perturbations = [np.zeros(images.shape, np.int8)]
    for eps in EPS[1:]:
        attack = attacks.pgd(model, eps / 255, STEPS)
        attacked = np.asarray(attack(as_float(images), labels, starts))
        perturbations.append(np.round(255 * attacked - images.astype(np.float32)).astype(np.int8))
    file = FileModel(content, "reference")
    made = Examples(images, labels, np.stack(perturbations), None, None)
    outputs = np.stack([file.outputs(as_float(made.attacked(index))) for index in range(len(EPS))])
    return made._replace(outputs=outputs, logits=file.target.decode(outputs))


def confirms(examples, content, count=None):
    """Whether perturbations are within their bounds and the outputs are those of the int8 file.

    Args:
        examples: the `Examples`.
        content: bytes of the file.
        count: of how many images the outputs are compared; None for all.
    """
    from tflite.runtimes import FileModel

    file = FileModel(content, "reference")
    for index, eps in enumerate(EPS):
        perturbed = examples.images.astype(np.int16) + examples.perturbations[index]
        found = file.outputs(as_float(examples.attacked(index)[:count]))
        if (
            np.abs(examples.perturbations[index].astype(np.int16)).max() > eps
            or not (perturbed.min() >= 0 and perturbed.max() <= 255)
            or not np.array_equal(found, examples.outputs[index, :count])
            or not np.allclose(file.target.decode(found), examples.logits[index, :count])
        ):
            return False
    return True


def write(examples, name, test_sha256, folder):
    """Writes the `Examples` of a model; returns the entry of its card.

    The images are in a file of their own, which all models of the data set share.

    Args:
        examples: as `make` returns them.
        name: of the model.
        test_sha256: tells the test images from those of other data sets.
        folder: of the zoo; the files go to its folder examples/.
    """
    folder = pathlib.Path(folder) / FOLDER
    own, shared = folder / f"{name}.npz", folder / f"images_{test_sha256[:16]}.npz"
    if not shared.exists():  # cards of other models name its bytes
        write_bytes(shared, _npz(images=examples.images, labels=examples.labels))
    arrays = {key: getattr(examples, key) for key in ("perturbations", "outputs", "logits")}
    write_bytes(own, _npz(**arrays))
    return {**_entry(own), "images": _entry(shared)}


def read(name):
    """Returns the `Examples` of a zoo model, or None if its card has none.

    Raises:
        UsageError: if there is no model of that name, or a file is not the one of its card.
    """
    entry, arrays = models.card(name).get("examples"), {}
    for each in (entry["images"], entry) if entry else ():
        with np.load(models.checked(name, each, FOLDER), allow_pickle=False) as archive:
            arrays |= dict(archive)
    return Examples(**arrays) if arrays else None


def _npz(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _entry(path):
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)}
