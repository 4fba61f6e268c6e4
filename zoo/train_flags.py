"""Refuses flags of train.py that no run can have, before anything is read or written."""

import math
import pathlib

from tfsparse import backend, patterns
from tfsparse.errors import UsageError

# (flag, another, the value of the other with which the first has no effect)
_WITHOUT_EFFECT: tuple[tuple[str, str, object], ...] = (
    ("density", "prune", "none"),
    ("structure", "prune", "none"),
    ("budget", "prune", "none"),
    ("beta", "loss", "standard"),
    ("attack", "loss", "standard"),
    ("attack_steps", "loss", "standard"),
    ("on_overfitting", "loss", "standard"),
    ("attack_steps", "attack", "nfgsm"),
    ("synchronized", "distribution", "none"),
    ("temperature", "teacher", []),
    ("teacher_weight", "teacher", []),
    ("label_smoothing", "teacher_weight", 1),
)


def check(flags):
    """Raises a `UsageError` if one of train.py's flags, absl's FlagValues, is out of range."""
    for name, (fits, allowed) in _ranges(flags).items():
        if not fits:
            received = flags[name].value
            raise UsageError(f"--{name} must be {allowed}. Received: {received}")
    if flags.pattern is not None:
        patterns.parse(flags.pattern)
    for name, other, value in _WITHOUT_EFFECT:
        if flags[name].present and flags[other].value == value:
            raise UsageError(
                f"--{name} has no effect {_condition(other, value)}. "
                f"Received: --{name}={flags[name].value}"
            )


def _condition(flag, value):
    return f"with --{flag}={value}" if value else f"without --{flag}"


def _differ(models):
    """Returns whether no two names of models are of one file; a run's folder has model.keras."""
    paths = [pathlib.Path(name.removesuffix("/model.keras")).absolute() for name in models]
    return len(set(paths)) == len(paths)


def _ranges(flags):
    """Returns {flag: (whether its value is allowed, what is)}."""
    return {
        "density": (1e-9 < flags.density <= 1, "in (0, 1]"),
        "beta": (0 <= flags.beta < 1, "in [0, 1)"),
        "eps": (0 < flags.eps <= 1, "in (0, 1]"),
        "learning_rate": (0 < flags.learning_rate < math.inf, "above 0 and finite"),
        "label_smoothing": (0 <= flags.label_smoothing < 1, "in [0, 1)"),
        "temperature": (0 < flags.temperature < math.inf, "above 0 and finite"),
        "teacher_weight": (0 < flags.teacher_weight <= 1, "in (0, 1]"),
        "ema_momentum": (0 <= flags.ema_momentum < 1, "in [0, 1)"),
        "weight_decay": (0 <= flags.weight_decay < math.inf, "at least 0 and finite"),
        "attack_steps": (flags.attack_steps >= 1, "at least 1"),
        "epochs": (flags.epochs >= 1, "at least 1"),
        "batch_size": (flags.batch_size >= 1, "at least 1"),
        "seed": (0 <= flags.seed < 2**31, "from 0 to 2147483647"),
        "checkpoint_minutes": (flags.checkpoint_minutes >= 0, "at least 0"),
        "image_size": (flags.image_size is None or flags.image_size >= 1, "at least 1"),
        "teacher": (_differ(flags.teacher), "a list of different models"),
        "width": (flags.width is None or 1 <= flags.width <= 4096, "from 1 to 4096"),
        "workdir": (bool(flags.workdir), "the folder of the run"),
    }


def check_batch_size(flags, images, replicas):
    """Raises a `UsageError` if a batch is larger than the training set or too small to share.

    Args:
        flags: absl's FlagValues.
        images: number of training images.
        replicas: devices that share a batch.
    """
    if flags.batch_size > images:
        raise UsageError(
            f"--batch_size={flags.batch_size} is more than the {images} training "
            f"images of {flags.dataset}."
        )
    if flags.batch_size < replicas:
        raise UsageError(
            f"--batch_size={flags.batch_size} is shared by {replicas} devices, each of which needs "
            "an image."
        )
    if backend.NAME == "jax" and flags.batch_size % replicas:
        raise UsageError(
            f"--batch_size must be a multiple of the {replicas} devices. Received: "
            f"{flags.batch_size}"
        )
