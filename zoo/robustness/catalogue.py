"""The attacks that `zoo.evaluate` knows, by name."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from tfsparse import attacks
from tfsparse.errors import UsageError
from zoo.robustness import autoattack, square

WHITE_BOX = ("fgsm", "pgd", "pgd_dlr", "autoattack")
NAMES = ("clean", *WHITE_BOX, "square", "transfer", "uniform", "gaussian", "random")
RANDOM_DRAWS = 100
# Of AutoAttack and Square: the most that is lost where they are interrupted.
SLOW_BATCH = 100


@dataclasses.dataclass(frozen=True)
class Attack:
    """One way to attack a model.

    Attributes:
        name: its name in the results.
        settings: all that its result depends on, beside model, images and seed; a dict for JSON.
        perturb: function of (images, labels, seed, index), the images float32 [n, h, w, c] and
            the index that of the batch, that returns images of the same shape, or
            `(images, fooled)` where the attack judges by itself, too; `fooled` is a bool array.
        restarts: how often each image is attacked, with another seed each time.
        largest_batch: images at once, at most; None for as many as fit.
    """

    name: str
    settings: dict
    perturb: Callable
    restarts: int = 1
    largest_batch: int | None = None


@dataclasses.dataclass(frozen=True)
class Options:
    """The settings of attacks; see the flags of `zoo.evaluate`."""

    eps: float
    steps: int = 50
    restarts: int = 1
    step_size: float | None = None
    queries: int = 5000
    source: object = None  # the Subject on which `transfer` makes its examples


def make(name, subject, options):
    """Returns the `Attack` called `name` on `subject`.

    Raises:
        UsageError: where there is no such attack, or not on such a model.
    """
    if name not in NAMES:
        raise UsageError(f"--attacks are among {', '.join(NAMES)}. Received: {name}")
    if name in WHITE_BOX and subject.model is None:
        raise UsageError(
            f"{name} needs gradients, which {subject.name} does not have. Attack a file by "
            "transfer and square."
        )
    return _MAKERS[name](subject, options)


def _clean(subject, options):
    return Attack("clean", {}, lambda images, labels, seed, index: images)


def _fgsm(subject, options):
    return Attack("fgsm", {"eps": options.eps}, _compiled(attacks.fgsm(subject.model, options.eps)))


def pgd(subject, options, name="pgd", loss="cross_entropy"):
    """Returns PGD on `subject` under a name of its own, for sweeps."""
    settings = {
        "eps": options.eps,
        "steps": options.steps,
        "restarts": options.restarts,
        "step_size": options.step_size,
        "loss": loss,
    }
    attack = attacks.pgd(subject.model, options.eps, options.steps, options.step_size, loss=loss)
    return Attack(name, settings, _compiled(attack), options.restarts)


def _pgd_dlr(subject, options):
    if subject.num_classes < 3:
        raise UsageError(f"pgd_dlr needs 3 classes or more. Received: {subject.num_classes}")
    return pgd(subject, options, "pgd_dlr", "dlr")


def _transfer(subject, options):
    if options.source is None or options.source.model is None:
        raise UsageError("transfer needs --source, the Keras model on which examples are made.")
    attack = pgd(options.source, options)
    settings = {**attack.settings, "source": options.source.name}
    settings["source_sha256"] = options.source.sha256
    return dataclasses.replace(attack, name="transfer", settings=settings)


def _uniform(subject, options):
    return Attack("uniform", {"eps": options.eps}, _compiled(attacks.uniform_noise(options.eps)))


def _gaussian(subject, options):
    return Attack("gaussian", {"eps": options.eps}, _compiled(attacks.gaussian_noise(options.eps)))


def _random(subject, options):
    settings = {"eps": options.eps, "draws": RANDOM_DRAWS}
    perturb = _compiled(attacks.uniform_noise(options.eps))
    return Attack("random", settings, perturb, restarts=RANDOM_DRAWS)


def _square(subject, options):
    settings = {"eps": options.eps, "queries": options.queries}
    perturb = square.square(subject.logits, options.eps, options.queries)
    return Attack("square", settings, perturb, largest_batch=SLOW_BATCH)


def _autoattack(subject, options):
    settings = {"eps": options.eps, "version": "standard", "steps": autoattack.STEPS}
    perturb = autoattack.autoattack(subject.model, options.eps)
    return Attack("autoattack", settings, perturb, largest_batch=SLOW_BATCH)


_MAKERS = {
    "clean": _clean,
    "fgsm": _fgsm,
    "pgd": pgd,
    "pgd_dlr": _pgd_dlr,
    "autoattack": _autoattack,
    "square": _square,
    "transfer": _transfer,
    "uniform": _uniform,
    "gaussian": _gaussian,
    "random": _random,
}


def _compiled(attack):
    """Returns an attack of `tfsparse.attacks` as a function of NumPy arrays."""

    def perturb(images, labels, seed, index):
        return attack(tf.constant(images), tf.constant(labels), tf.constant([seed, index])).numpy()

    return perturb
