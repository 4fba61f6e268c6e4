"""Images whose class an attack flips: how many there are, and some to look at."""

from typing import NamedTuple

import numpy as np

from tfsparse.starts import image_seeds

BATCH = 50  # images that are attacked at once, until enough are flipped
MOST = 500  # images that are attacked


class Flips(NamedTuple):
    """Images that a model classifies correctly, and adversarial examples that it does not.

    Attributes:
        images: float32 [n, h, w, c] in [0, 1].
        adversarial: the same after the attack.
        labels: int [n], their classes, which the model predicts for the images.
        predicted: int [n], what it predicts for the adversarial examples.
        confidence: float [n], the probability that it gives to the class, of the images.
        adversarial_confidence: float [n], to the predicted class, of the adversarial examples.
    """

    images: np.ndarray
    adversarial: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    adversarial_confidence: np.ndarray


def find_flips(logits, perturb, images, labels, seed, count=8):
    """Returns the first `count` images, among MOST, whose class an attack flips, as `Flips`.

    Args:
        logits: function from images to a NumPy array [n, classes].
        perturb: as that of a `zoo.robustness.catalogue.Attack`; one restart is made.
        images, labels: float32 [n, h, w, c] in [0, 1] and int [n].
        seed: of the evaluation; so the examples are those that were counted.
        count: how many are looked for.

    Returns:
        The `Flips`, fewer than `count` if there are no more; None if there are none.
    """
    found, missing = [], count
    for start in range(0, min(len(labels), MOST), BATCH):
        indices = np.arange(start, min(start + BATCH, len(labels)))
        clean, true = images[indices], labels[indices]
        # All of them, as attacks are compiled for each size of a batch.
        adversarial = perturb(clean, true, image_seeds(seed, 0, indices))
        before, after = (_probabilities(logits(each)) for each in (clean, adversarial))
        seen = after.argmax(axis=1)
        flipped = np.flatnonzero((before.argmax(axis=1) == true) & (seen != true))[:missing]
        parts = clean, adversarial, true, seen, before.max(axis=1), after.max(axis=1)
        found.append([part[flipped] for part in parts])
        missing -= len(flipped)
        if not missing:
            break
    flips = Flips(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
    return flips if len(flips.labels) else None


def success_rate(clean, attacked):
    """Returns the share of correctly classified images that an attack flips; None without any.

    Args:
        clean, attacked: bool [n], whether an image is classified correctly without and under it.
    """
    return float(np.mean(~attacked[clean])) if clean.any() else None


def _probabilities(logits):
    """Returns the softmax of logits, float64 [n, classes]."""
    logits = logits.astype(np.float64)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
