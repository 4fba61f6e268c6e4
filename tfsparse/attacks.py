"""Adversarial examples within an L_inf ball: FGSM and PGD as compiled functions, and noise.

N-FGSM, whose examples leave the ball, is for training only. All of them attack the model as it is
deployed (inference mode: BatchNorm uses its moving statistics and nothing in the model changes) and
differentiate with respect to the images only.

Sources: FGSM, Goodfellow et al., "Explaining and Harnessing Adversarial Examples", ICLR 2015; PGD,
Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018; one step
from a random start, Wong et al., "Fast is better than free", ICLR 2020; N-FGSM, de Jorge et al.,
"Make Some Noise", NeurIPS 2022; the difference of logits ratio, Croce and Hein, "Reliable
evaluation of adversarial robustness", ICML 2020, equation 6.
"""

import functools
import numbers
from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from tfsparse import backend
from tfsparse.errors import UsageError
from tfsparse.evaluation import one_output, shapes
from tfsparse.examples import UNIT_RANGE, check_images, check_range, class_labels


def _cross_entropy(labels, logits):
    if logits.shape[1] == 1:  # of two classes; its gradient has the same sign behind a sigmoid
        labels = ops.cast(labels, logits.dtype)
        return ops.binary_crossentropy(labels, logits[:, 0], from_logits=True)
    return keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)


def _difference_of_logits_ratio(labels, logits):
    """-(z_y - max of the other z) / (z_1st - z_3rd), which does not depend on the logits' scale.

    If a network is very confident, the gradient of the cross-entropy vanishes in float32.
    """
    highest, _ = ops.top_k(logits, 3)
    is_true = ops.cast(ops.one_hot(labels, logits.shape[1]), bool)
    true = ops.sum(ops.where(is_true, logits, 0.0), axis=1)
    other = ops.max(ops.where(is_true, np.finfo(np.float32).min, logits), axis=1)
    return (other - true) / (highest[:, 0] - highest[:, 2] + 1e-12)


LOSSES = {"cross_entropy": _cross_entropy, "dlr": _difference_of_logits_ratio}

# Of images, labels, and a seed: tensors or arrays.
Attack: TypeAlias = Callable[[Any, Any, Any], Any]


def fgsm(model: keras.Model, eps: float, input_range: tuple[float, float] = UNIT_RANGE) -> Attack:
    """Returns the fast gradient sign method as `attack(images, labels, seed)`; see `pgd`."""
    return pgd(model, eps, 1, step_size=eps, random_start=False, input_range=input_range)


def nfgsm(model: keras.Model, eps: float, input_range: tuple[float, float] = UNIT_RANGE) -> Attack:
    """Returns N-FGSM as `attack(images, labels, seed)`; see `pgd`.

    It takes one step of eps from uniform noise of up to 2 eps and does not project onto the ball,
    so its images differ from the originals by up to 3 eps. For training only.
    """
    return pgd(
        model, eps, 1, step_size=eps, random_start=2, projected=False, input_range=input_range
    )


def pgd(
    model: keras.Model,
    eps: float,
    steps: int,
    step_size: float | None = None,
    random_start: float = True,
    loss: str = "cross_entropy",
    input_range: tuple[float, float] = UNIT_RANGE,
    projected: bool = True,
) -> Attack:
    """Returns projected gradient descent on `model` as a compiled function.

    Args:
        model: takes float images [n, h, w, c] in `input_range` and returns logits [n, classes].
        eps: radius of the L_inf ball for images in [0, 1], such as 8/255.
        steps: number of gradient steps, at least 1.
        step_size: length of a step, in the same unit; None for `default_step_size`.
        random_start: whether to start at a uniformly random point of the ball instead of at the
            image. A number is the radius of that noise as a multiple of eps.
        loss: what the attack maximizes: "cross_entropy"; "dlr", the difference of logits ratio,
            which needs at least three classes; or a function of labels, int [n], and logits,
            float32 [n, classes], that returns float32 [n].
        input_range: smallest and largest value of an image. `eps` and `step_size` are those of
            images in [0, 1] and are scaled to it.
        projected: whether images stay within the ball; if not, they stay within `input_range`.

    Returns:
        `attack(images, labels, seed)`, which returns images of the same shape in `input_range` that
        differ from `images` by at most eps (scaled) in each value. `labels` are as
        `tfsparse.examples.class_labels` takes them; `seed` is two ints as `tfsparse.backend.seed`
        returns them, which fix the random starts of the batch, or the starts themselves: float
        [n, h, w, c] in [-1, 1], in units of eps, as `tfsparse.starts.random_starts` draws them. It
        raises a UsageError if images or labels do not fit the model; in a function that is being
        compiled, values are not checked, and labels must be int [n].

    Raises:
        UsageError: if eps, steps, step_size, loss, or input_range is out of range.
    """
    _check_eps(eps)
    if not isinstance(steps, (int, np.integer)) or steps < 1:
        raise UsageError(f"steps must be an int, at least 1. Received: {steps!r}")
    if step_size is None:
        step_size = default_step_size(eps, steps)
    if not 0 < step_size < np.inf:
        raise UsageError(f"step_size must be above 0 and finite. Received: {step_size}")
    if not callable(model):
        raise UsageError(f"model must be a keras.Model. Received: {model!r}")
    if not callable(loss) and loss not in LOSSES:
        raise UsageError(f"loss must be one of {', '.join(LOSSES)}. Received: {loss!r}")
    of_images = LOSSES.get(loss, loss)
    low_end, high_end = check_range(input_range)
    eps, step_size = (high_end - low_end) * eps, (high_end - low_end) * step_size

    def start(model, images, labels, seed):
        low, high = ops.full_like(images, low_end), ops.full_like(images, high_end)
        if projected:
            low, high = ops.maximum(images - eps, low), ops.minimum(images + eps, high)
        adversarial = images
        if random_start:
            noise = _uniform(images, seed, random_start * eps)
            adversarial = ops.clip(images + noise, low, high)
        return adversarial, (labels, low, high)

    def step(model, adversarial, labels, low, high):
        def losses(images):
            logits = ops.cast(one_output(model, images), "float32")  # from mixed precision
            return of_images(labels, logits)

        # Zero if no output depends on the image: there is nothing to attack.
        direction = ops.sign(backend.gradient(losses, adversarial))
        return ops.clip(adversarial + step_size * direction, low, high)

    attack = functools.partial(backend.iterated(start, step, steps), model)
    return _checked(attack, (low_end, high_end), model, loss)


def default_step_size(eps: float, steps: int) -> float:
    """Returns 1.25 eps with one step (Wong et al.), 2.5 eps / steps with more (Madry et al.)."""
    return 1.25 * eps if steps == 1 else 2.5 * eps / max(steps, 1)


def _check_eps(eps):
    if not isinstance(eps, numbers.Real) or not 0 < eps <= 1:
        raise UsageError(
            f"eps must be a number in (0, 1], such as 8/255, of images in [0, 1]. Received: {eps!r}"
        )


def _checked(attack, input_range, model=None, loss=None):
    """Returns `attack`, which takes tensors, as a function that checks what it is handed."""

    def checked(images, labels, seed):
        if not backend.is_traced(images):
            shape, outputs = shapes(model, images) if model else (np.shape(images)[1:], None)
            check_images(images, shape, input_range)
            if model:
                labels = class_labels(labels, len(images), outputs)
            if loss == "dlr" and outputs < 3:
                raise UsageError(f"The loss dlr needs three classes or more. Received: {outputs}")
            _check_seed(seed, np.shape(images))
            images, labels = ops.convert_to_tensor(images), ops.convert_to_tensor(labels)
            seed = ops.convert_to_tensor(seed)
        return attack(images, labels, seed)

    checked.input_range = input_range
    return checked


def _check_seed(seed, shape):
    """Raises a `UsageError` unless `seed` is one of a batch, or a random start for each image."""
    found = np.asarray(seed)
    if not (
        (found.shape == np.shape(backend.seed(0, 0)) and found.dtype.kind in "iu")
        or (found.shape == tuple(shape) and found.dtype.kind in "fV")
    ):
        raise UsageError(
            "seed must be what tfsparse.backend.seed(seed, step) returns, or random starts, floats "
            f"of the images' shape {tuple(shape)}. Received: {found.dtype} of shape {found.shape}"
        )


def _uniform(images, seed, eps):
    """Returns noise of the images' shape in [-eps, eps]; `seed` is as attacks take it."""
    if "float" in keras.backend.standardize_dtype(seed.dtype):
        return eps * ops.cast(seed, images.dtype)
    return backend.uniform(images, seed, -eps, eps)


def _normal(images, seed, deviation):
    """Returns normal noise of the images' shape; of random starts, it takes the quantiles."""
    if "float" in keras.backend.standardize_dtype(seed.dtype):
        return deviation * 2**0.5 * ops.erfinv(ops.cast(seed, images.dtype))
    return backend.normal(images, seed, deviation)


def uniform_noise(eps: float, input_range: tuple[float, float] = UNIT_RANGE) -> Attack:
    """Returns an attack, as `pgd` does, that adds uniform noise from [-eps, eps] to each value.

    Raises:
        UsageError: if eps or input_range is out of range.
    """
    _check_eps(eps)
    low, high = check_range(input_range)
    eps = (high - low) * eps

    @backend.compiled_for_batches
    def attack(_, images, labels, seed):
        return ops.clip(images + _uniform(images, seed, eps), low, high)

    return _checked(functools.partial(attack, None), (low, high))


def gaussian_noise(eps: float, input_range: tuple[float, float] = UNIT_RANGE) -> Attack:
    """Returns an attack that adds normal noise of standard deviation eps / 2, clipped to eps.

    Raises:
        UsageError: if eps or input_range is out of range.
    """
    _check_eps(eps)
    low, high = check_range(input_range)
    eps = (high - low) * eps

    @backend.compiled_for_batches
    def attack(_, images, labels, seed):
        noise = ops.clip(_normal(images, seed, eps / 2), -eps, eps)
        return ops.clip(images + noise, low, high)

    return _checked(functools.partial(attack, None), (low, high))
