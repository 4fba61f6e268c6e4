"""Adversarial examples within an L_inf ball: FGSM and PGD as compiled functions, and noise.

FGSM and PGD attack the model as it is deployed (inference mode: BatchNorm uses its moving
statistics and nothing in the model changes) and differentiate with respect to the images only.

Sources: FGSM, Goodfellow et al., "Explaining and Harnessing Adversarial Examples", ICLR 2015; PGD,
Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018; one step
from a random start, Wong et al., "Fast is better than free", ICLR 2020; the difference of logits
ratio, Croce and Hein, "Reliable evaluation of adversarial robustness", ICML 2020, equation 6.
"""

import keras
import tensorflow as tf

from tfsparse.errors import UsageError


def _cross_entropy(labels, logits):
    return keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)


def _difference_of_logits_ratio(labels, logits):
    """-(z_y - max of the other z) / (z_1st - z_3rd), which does not depend on the logits' scale.

    If a network is very confident, the gradient of the cross-entropy vanishes in float32.
    """
    highest = tf.math.top_k(logits, 3).values
    is_true = tf.one_hot(labels, tf.shape(logits)[1], True, False)
    true = tf.reduce_sum(tf.where(is_true, logits, 0.0), axis=1)
    other = tf.reduce_max(tf.where(is_true, logits.dtype.min, logits), axis=1)
    return (other - true) / (highest[:, 0] - highest[:, 2] + 1e-12)


LOSSES = {"cross_entropy": _cross_entropy, "dlr": _difference_of_logits_ratio}


def fgsm(model, eps):
    """Returns the fast gradient sign method as `attack(images, labels, seed)`; see `pgd`."""
    return pgd(model, eps, steps=1, step_size=eps, random_start=False)


def pgd(model, eps, steps, step_size=None, random_start=True, loss="cross_entropy"):
    """Returns projected gradient descent on `model` as a compiled function.

    Args:
        model: takes float images [n, h, w, c] in [0, 1] and returns logits [n, classes].
        eps: radius of the L_inf ball for images in [0, 1], such as 8/255.
        steps: number of gradient steps, at least 1.
        step_size: length of a step, in the same unit; None for 1.25 eps with one step (Wong et
            al.) and 2.5 eps / steps with more (Madry et al.).
        random_start: whether to start at a uniformly random point of the ball instead of at the
            image.
        loss: what the attack maximizes: "cross_entropy", or "dlr", the difference of logits ratio,
            which needs at least three classes.

    Returns:
        `attack(images, labels, seed)`, which returns images of the same shape in [0, 1] that differ
        from `images` by at most eps in each value. `labels` are int [n]; `seed` is an int tensor
        [2] that fixes the random start.

    Raises:
        UsageError: if eps, steps, step_size, or loss is out of range.
    """
    if step_size is None:
        step_size = 1.25 * eps if steps == 1 else 2.5 * eps / max(steps, 1)
    if not 0 < eps <= 1 or steps < 1 or step_size <= 0:
        raise UsageError(
            "An attack needs 0 < eps <= 1, steps >= 1 and step_size > 0. "
            f"Received: eps={eps}, steps={steps}, step_size={step_size}"
        )

    if loss not in LOSSES:
        raise UsageError(f"loss must be one of {', '.join(LOSSES)}. Received: {loss!r}")

    def gradient(images, labels):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            logits = tf.cast(model(images, training=False), tf.float32)  # from mixed precision
            losses = LOSSES[loss](labels, logits)
        # Zero if no output depends on the image: there is nothing to attack.
        return tape.gradient(losses, images, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    @tf.function(reduce_retracing=True)
    def attack(images, labels, seed):
        low = tf.maximum(images - eps, 0.0)
        high = tf.minimum(images + eps, 1.0)
        adversarial = images
        if random_start:
            noise = tf.random.stateless_uniform(tf.shape(images), seed, -eps, eps)
            adversarial = tf.clip_by_value(images + noise, low, high)
        # A single step needs no loop, in which XLA would run convolutions on one thread.
        for _ in tf.range(steps) if steps > 1 else [0]:
            step = step_size * tf.sign(gradient(adversarial, labels))
            adversarial = tf.clip_by_value(adversarial + step, low, high)
        return adversarial

    return attack


def uniform_noise(eps):
    """Returns an attack, as `pgd` does, that adds uniform noise from [-eps, eps] to each value."""

    @tf.function(reduce_retracing=True)
    def attack(images, labels, seed):
        noise = tf.random.stateless_uniform(tf.shape(images), seed, -eps, eps)
        return tf.clip_by_value(images + noise, 0.0, 1.0)

    return attack


def gaussian_noise(eps):
    """Returns an attack that adds normal noise of standard deviation eps / 2, clipped to eps."""

    @tf.function(reduce_retracing=True)
    def attack(images, labels, seed):
        noise = tf.random.stateless_normal(tf.shape(images), seed, stddev=eps / 2)
        return tf.clip_by_value(images + tf.clip_by_value(noise, -eps, eps), 0.0, 1.0)

    return attack
