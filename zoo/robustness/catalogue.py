"""The attacks that `tfsparse evaluate` runs, by name."""

import dataclasses
from collections.abc import Callable

from keras import ops

from tfsparse import attacks
from tfsparse.errors import UsageError
from tfsparse.starts import random_starts
from zoo.robustness import ATTACKS, autoattack, deployed, square
from zoo.robustness.sizes import in_few_sizes

RANDOM_DRAWS = 100
# Of AutoAttack and Square: the most images whose results an interruption loses.
SLOW_BATCH = square.IMAGES_OF_A_SEED


@dataclasses.dataclass(frozen=True)
class Attack:
    """One way to attack a model.

    Attributes:
        name: its name in the results.
        settings: all that its result depends on besides model, images, and seed; a dict for JSON.
        perturb: function of (images, labels, seeds): float32 [n, h, w, c], int32 [n], and int64
            [n, 3] as `tfsparse.starts.image_seeds` returns them. It returns images of the same
            shape, or `(images, misclassified)` if the attack also judges them itself: a bool array
            [n].
        restarts: how often each image is attacked, each time with another seed.
        largest_batch: maximum number of images in a batch; None for as many as fit.
    """

    name: str
    settings: dict
    perturb: Callable
    restarts: int = 1
    largest_batch: int | None = None


@dataclasses.dataclass(frozen=True)
class Options:
    """The settings of attacks; see the flags of `tfsparse evaluate`."""

    eps: float
    steps: int = 50
    restarts: int = 1
    step_size: float | None = None
    queries: int = 5000
    source: object = None  # the Subject on which `transfer` makes its adversarial examples


def make(name, subject, options):
    """Returns the `Attack` called `name` on `subject`.

    Raises:
        UsageError: if there is no such attack, or it cannot attack such a model.
    """
    check_name(name)
    return _MAKERS[name](subject, options)


def check_name(name):
    """Raises a `UsageError` unless there is an attack called `name`."""
    if name not in ATTACKS:
        raise UsageError(f"--attacks are among {', '.join(ATTACKS)}. Received: {name!r}")


def _clean(subject, options):
    return Attack("clean", {}, lambda images, labels, seeds: images)


def _gradients(name, subject):
    """Returns the model whose gradients the attack called `name` follows."""
    try:
        return deployed.gradients_of(subject)
    except UsageError as error:
        raise UsageError(
            f"{name} needs gradients, which {subject.name} does not have. Attack it with transfer "
            f"and square. ({error})"
        ) from error


def _fgsm(subject, options):
    attack = attacks.fgsm(_gradients("fgsm", subject), options.eps)
    return Attack("fgsm", {"eps": options.eps}, of_arrays(attack))


def pgd(subject, options, name="pgd", loss="cross_entropy"):
    """Returns PGD on `subject`; sweeps give each of theirs a name of its own."""
    settings = {
        "eps": options.eps,
        "steps": options.steps,
        "restarts": options.restarts,
        "step_size": options.step_size,
        "loss": loss,
    }
    model = _gradients(name, subject)
    attack = attacks.pgd(model, options.eps, options.steps, options.step_size, loss=loss)
    return Attack(name, settings, of_arrays(attack), options.restarts)


def _pgd_dlr(subject, options):
    if subject.num_classes < 3:
        raise UsageError(f"pgd_dlr needs 3 classes or more. Received: {subject.num_classes}")
    return pgd(subject, options, "pgd_dlr", "dlr")


def _transfer(subject, options):
    if options.source is None or options.source.model is None:
        raise UsageError("transfer needs --source, the Keras model to attack in its place.")
    attack = pgd(options.source, options)
    settings = {**attack.settings, "source": options.source.name}
    settings["source_sha256"] = options.source.sha256
    return dataclasses.replace(attack, name="transfer", settings=settings)


def _diva(subject, options):
    if subject.model or options.source is None:
        raise UsageError(
            "diva attacks a .tflite file whose float model is known. Use pgd, or name that model "
            f"with --source. Received: {subject.name}"
        )
    _gradients("diva", subject)
    settings = {name: getattr(options, name) for name in ("eps", "steps", "restarts", "step_size")}
    settings |= {"loss": "difference of the true class' probabilities"}
    settings |= {"source": options.source.name, "source_sha256": options.source.sha256}
    perturb = of_arrays(deployed.diva(subject, options))
    return Attack("diva", settings, perturb, options.restarts)


def _uniform(subject, options):
    return Attack("uniform", {"eps": options.eps}, of_arrays(attacks.uniform_noise(options.eps)))


def _gaussian(subject, options):
    return Attack("gaussian", {"eps": options.eps}, of_arrays(attacks.gaussian_noise(options.eps)))


def _random(subject, options):
    settings = {"eps": options.eps, "draws": RANDOM_DRAWS}
    perturb = of_arrays(attacks.uniform_noise(options.eps))
    return Attack("random", settings, perturb, restarts=RANDOM_DRAWS)


def _square(subject, options):
    settings = {"eps": options.eps, "queries": options.queries}
    perturb = square.square(subject.logits, options.eps, options.queries)
    return Attack("square", settings, perturb, largest_batch=SLOW_BATCH)


def _autoattack(subject, options):
    if subject.model is None:
        raise UsageError(
            f"autoattack attacks Keras models. Attack {subject.name} with pgd, diva, and square."
        )
    settings = {"eps": options.eps, "version": "standard", "steps": autoattack.STEPS}
    perturb = autoattack.autoattack(subject.model, options.eps)
    if autoattack.device() == "cpu":
        return Attack("autoattack", settings, perturb, largest_batch=SLOW_BATCH)
    # Large batches are faster there, and random numbers are others.
    return Attack("autoattack", {**settings, "device": "cuda"}, perturb)


_MAKERS = {
    "clean": _clean,
    "fgsm": _fgsm,
    "pgd": pgd,
    "pgd_dlr": _pgd_dlr,
    "autoattack": _autoattack,
    "square": _square,
    "transfer": _transfer,
    "diva": _diva,
    "uniform": _uniform,
    "gaussian": _gaussian,
    "random": _random,
}


def of_arrays(attack):
    """Returns an attack of `tfsparse.attacks` as the `perturb` of an `Attack`: of NumPy arrays."""

    def perturb(images, labels, seeds):
        starts = random_starts(seeds, images.shape[1:])
        return ops.convert_to_numpy(in_few_sizes(attack, images, labels, starts))

    return perturb
