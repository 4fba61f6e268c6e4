"""Accuracy of a model on a data set, clean or under an attack."""

import numpy as np
import tensorflow as tf
import tqdm


@tf.function(reduce_retracing=True)
def logits(model, images):
    """Returns the logits of images, tensors or arrays, in inference mode."""
    return model(images, training=False)


def random_seed(seed, restart):
    """Returns the seed of an attack's restart: no other seed below 2**31 has it, up to 1000."""
    return seed * 1000 + restart


def accuracy(model, batches, attack=None, seed=0, restarts=1, description="evaluating"):
    """Returns the fraction of images that `model` classifies correctly.

    Args:
        model: takes float images [n, h, w, c] in [0, 1] and returns logits [n, classes].
        batches: tf.data.Dataset of (images, int labels).
        attack: None, or a function as `tfsparse.attacks.pgd` returns; it makes the images that are
            classified.
        seed: int that, with a batch's index and the restart, fixes the attack's random start.
        restarts: how often each image is attacked; what one of the attacks fools counts as fooled.
        description: what the progress bar says.

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
