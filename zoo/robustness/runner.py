"""Runs attacks batch by batch and keeps the result of each example, so that runs can continue."""

import json
import os
import pathlib
import time

import numpy as np
import tqdm

from tfsparse.errors import UsageError
from tfsparse.examples import check_images, class_labels
from tfsparse.files import read_tensors, write_tensors
from tfsparse.graph import leaf_layers
from tfsparse.starts import image_seeds

# For each example: not attacked yet; misclassified under the attack; or still classified correctly.
NOT_RUN, MISCLASSIFIED, CORRECT = -1, 0, 1
# Rounding may move an image this far out of the ball.
TOLERANCE = 1e-6


class Results:
    """The result of each of n examples under each attack, in memory and in a file.

    Args:
        path: the .safetensors file, which is continued if it exists; None writes nothing.
        identity: dict for JSON that identifies the model, the data, and the seed.
        count: n.

    Raises:
        UsageError: if the file has another identity or is not a file of results.
    """

    def __init__(self, path, identity, count):
        self._path = path and pathlib.Path(path)
        self.identity = identity
        self._count = count
        self._examples, self._attacks = {}, {}
        if self._path and self._path.exists():
            self._read()

    def _read(self):
        self._examples, self._attacks, there = read_examples(self._path)
        there = {key: there.get(key) for key in self.identity}
        self._check_same("another evaluation", there, self.identity)
        if any(found.shape != (self._count,) for found in self._examples.values()):
            raise UsageError(f"{self._path} is damaged: it lacks examples. Remove the file.")

    def examples(self, name, settings):
        """Returns the int8 array [n] of an attack; NOT_RUN marks the examples that are left.

        Raises:
            UsageError: if there are results of the same attack with other settings.
        """
        there = self._attacks.get(name, {}).get("settings", settings)
        self._check_same(f"{name} with other settings", there, settings)
        if name not in self._attacks:
            self._examples[name] = np.full(self._count, NOT_RUN, np.int8)
            self._attacks[name] = {"settings": settings, "seconds": 0.0, "attacked": 0}
        return self._examples[name]

    def _check_same(self, other, there, here):
        """Raises a `UsageError` unless two dicts, in the file and of this run, are equal."""
        changes = ", ".join(
            f"{key} {there.get(key)} there, {here.get(key)} here"
            for key in here | there
            if there.get(key) != here.get(key)
        )
        if changes:
            raise UsageError(
                f"{self._path} has results of {other} ({changes}). Choose another --json or "
                "remove the file."
            )

    def add(self, name, indices, correct, attacked, seconds):
        """Adds the results of the examples at `indices`, and writes the file.

        Args:
            name: of the attack.
            indices: int array, positions of examples.
            correct: bool array, whether each was classified correctly.
            attacked: number of images that the attack was run on.
            seconds: how long it took.
        """
        self._examples[name][indices] = np.where(correct, CORRECT, MISCLASSIFIED)
        self._attacks[name]["attacked"] += attacked
        self._attacks[name]["seconds"] += seconds
        self._write()

    def finished(self):
        """Returns the names of the attacks that were run on all examples."""
        return [name for name, found in self._examples.items() if (found != NOT_RUN).all()]

    def correct(self, name):
        """Returns a bool array [n]: which examples are classified correctly under an attack."""
        return self._examples[name] == CORRECT

    def about(self, name):
        """Returns an attack's "settings", its "seconds", and how many images it "attacked"."""
        return self._attacks[name]

    def _write(self):
        if self._path:
            metadata = {"identity": self.identity, "attacks": self._attacks}
            metadata = {key: json.dumps(value) for key, value in metadata.items()}
            write_tensors(self._path, self._examples, metadata)


def read_examples(path):
    """Returns what `Results` wrote: {attack: int8 [n]}, {attack: its `about`}, and the identity.

    Raises:
        UsageError: if the file is missing or is not a file of results.
    """
    tensors, metadata = read_tensors(path)
    try:
        attacks = json.loads(metadata["attacks"])
        examples = {name: np.array(tensors[name], np.int8) for name in attacks}
        if not all(isinstance(about["settings"], dict) for about in attacks.values()):
            raise TypeError("the settings of an attack are not a dict")
        return examples, attacks, dict(json.loads(metadata["identity"]))
    except (AttributeError, KeyError, ValueError, TypeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise UsageError(f"{path} has no results of tfsparse evaluate: {reason}") from error


def run(subject, attack, images, labels, results, prefix=""):
    """Runs `attack` on all examples that `subject` classifies correctly as they are.

    An example gets the same seed whichever others are in its batch or have left it.

    Args:
        subject: a `zoo.robustness.subjects.Subject`.
        attack: a `zoo.robustness.catalogue.Attack`.
        images: float [n, h, w, c] in [0, 1].
        labels: as `tfsparse.examples.class_labels` takes them.
        results: `Results`, whose identity has "seed" and "batch_size". They must have the results
            of the attack "clean", unless this is that attack.
        prefix: precedes the attack's name in `results`, to tell several subjects apart.

    Raises:
        UsageError: if images or labels do not fit the subject, or an adversarial example leaves
            the ball or [0, 1].
    """
    check_images(images, subject.image_shape)
    images = np.asarray(images, np.float32)
    labels = class_labels(labels, len(images), subject.num_classes)
    name = prefix + attack.name
    seed, batch_size = results.identity["seed"], results.identity["batch_size"]
    examples = results.examples(name, {**attack.settings, "sha256": subject.sha256})
    clean = attack.name == "clean"
    attackable = np.ones(len(labels), bool) if clean else results.correct(f"{prefix}clean")
    size = min(batch_size, attack.largest_batch or batch_size)
    starts = range(0, len(labels), size)
    done = sum((examples[start : start + size] != NOT_RUN).all() for start in starts)
    with tqdm.tqdm(total=len(starts), desc=name, initial=done, leave=False, disable=None) as bar:
        for start in starts:
            batch = np.arange(start, min(start + size, len(labels)))
            if (examples[batch] != NOT_RUN).all():
                continue
            begin = time.perf_counter()
            correct = attackable[batch]
            attacked = int(correct.sum())
            for restart in range(attack.restarts):
                left = batch[correct]
                if len(left):
                    seeds = image_seeds(seed, restart, left)
                    attempt = images[left], labels[left], seeds
                    correct[correct] = _still_correct(subject, attack, *attempt)
            results.add(name, batch, correct, attacked, time.perf_counter() - begin)
            bar.update()


def _still_correct(subject, attack, images, labels, seeds):
    """Returns which images `subject` still classifies correctly after one attack, bool [n]."""
    adversarial = attack.perturb(images, labels, seeds)
    misclassified = np.zeros(len(labels), bool)
    if isinstance(adversarial, tuple):
        adversarial, misclassified = adversarial
    check_examples(attack, images, adversarial)
    return (subject.logits(adversarial).argmax(axis=1) == labels) & ~misclassified


def check_examples(attack, images, adversarial):
    """Raises a `UsageError` unless the adversarial images are within the attack's bounds."""
    distance = np.abs(adversarial - images).max()
    bound = attack.settings.get("eps", 0.0)
    low, high = adversarial.min(), adversarial.max()
    if not (distance <= bound + TOLERANCE and low >= -TOLERANCE and high <= 1 + TOLERANCE):
        raise UsageError(
            f"The attack {attack.name} made images at a distance of {distance:.6f} with values "
            f"from {low:.6f} to {high:.6f}, outside of its bounds {bound:.6f} and [0, 1]. Its "
            "results do not count."
        )


def fitting_batch(model):
    """Returns how many images fit into an eighth of this machine's memory, 1 to 250.

    Attacks keep the outputs of all layers for the gradient; as convolutions need memory of their
    own, four times that is assumed. A file, whose `model` is None, runs image by image.
    """
    if model is None:
        return 250
    sizes = [np.prod(layer.output.shape[1:]) for layer in leaf_layers(model) if _has_output(layer)]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 8
    return int(np.clip(memory / (4 * 4 * sum(sizes)), 1, 250))


def _has_output(layer):
    try:
        return None not in layer.output.shape[1:]
    except (AttributeError, ValueError):
        return False
