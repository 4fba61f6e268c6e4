"""Accuracy of a model on a data set, clean or under an attack."""

import numpy as np
import tensorflow as tf
import tqdm


@tf.function(reduce_retracing=True)
def logits(model, images):
    """Returns the logits of images (a tensor or an array) in inference mode."""
    return model(images, training=False)


def random_seed(seed, restart):
    """Returns the seed of an attack's restart, below 1000; unique for every seed and restart."""
    return seed * 1000 + restart


def accuracy(model, batches, attack=None, seed=0, restarts=1, description="evaluating"):
    """Returns the fraction of images that `model` classifies correctly.

    Args:
        model: takes float images [n, h, w, c] in [0, 1] and returns logits [n, classes].
        batches: tf.data.Dataset of (images, int labels).
        attack: None, or a function as `tfsparse.attacks.pgd` returns, whose adversarial examples
            are classified instead of the images.
        seed: int that fixes the attack's random starts, together with the index of the batch and
            the restart.
        restarts: how often each image is attacked. It counts as correct if the model classifies
            all of its adversarial examples correctly.
        description: label of the progress bar.

    Returns:
        Float in [0, 1].
    """
    correct = count = 0
    progress = tqdm.tqdm(batches, description, leave=False, disable=None)
    for index, (images, labels) in enumerate(progress):
        held = np.ones(len(labels), bool)
        for restart in range(restarts if attack else 1):
            attacked = images
            if attack:
                attacked = attack(images, labels, tf.constant([random_seed(seed, restart), index]))
            held &= np.argmax(logits(model, attacked), axis=-1) == labels.numpy()
        correct += int(np.sum(held))
        count += len(held)
    return correct / count
