"""Accuracy of a model on a data set, clean or under an attack."""

import numpy as np
import tensorflow as tf
import tqdm


@tf.function(reduce_retracing=True)
def _logits(model, images):
    return model(images, training=False)


def accuracy(model, batches, attack=None, seed=0, description="evaluating"):
    """Returns the fraction of images that `model` classifies correctly.

    Args:
        model: takes float images [n, h, w, c] in [0, 1] and returns logits [n, classes].
        batches: tf.data.Dataset of (images, int labels).
        attack: None, or a function as `tfsparse.attacks.pgd` returns; it makes the images that are
            classified.
        seed: int that, with a batch's index, fixes the attack's random start.
        description: what the progress bar says.

    Returns:
        Float in [0, 1].
    """
    correct = count = 0
    progress = tqdm.tqdm(batches, description, leave=False, disable=None)
    for index, (images, labels) in enumerate(progress):
        if attack is not None:
            images = attack(images, labels, tf.constant([seed, index]))
        predicted = np.argmax(_logits(model, images), axis=-1)
        correct += int(np.sum(predicted == labels.numpy()))
        count += len(predicted)
    return correct / count
