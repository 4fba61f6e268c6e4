"""Runs attacks batch by batch and keeps what each example did, so that a run can be continued."""

import json
import os
import pathlib
import time

import numpy as np
import tqdm

from tfsparse.errors import UsageError
from tfsparse.evaluation import random_seed
from tfsparse.files import read_tensors, write_tensors
from tfsparse.graph import leaf_layers

# For each example: not attacked yet, misclassified, or classified correctly whatever was tried.
NOT_RUN, FOOLED, HELD = -1, 0, 1
# Rounding may take an image this far out of the ball.
TOLERANCE = 1e-6


class Results:
    """What each of n examples did under each attack, in memory and in a file.

    Args:
        path: the .safetensors file; None keeps nothing. What is there is continued.
        identity: dict for JSON that says which model, data and seed the results are of.
        count: n.

    Raises:
        UsageError: where the file is of another identity, or is not one of these.
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
        differing = [key for key in self.identity if there.get(key) != self.identity[key]]
        if differing:
            changes = ", ".join(
                f"{key} {there.get(key)} there, {self.identity[key]} here" for key in differing
            )
            raise UsageError(
                f"{self._path} has results of another evaluation ({changes}). Choose another "
                "--json or remove the file."
            )
        if any(held.shape != (self._count,) for held in self._examples.values()):
            raise UsageError(f"{self._path} is damaged: it lacks examples. Remove the file.")

    def examples(self, name, settings):
        """Returns the int8 array [n] of an attack, NOT_RUN where it has yet to be run.

        Raises:
            UsageError: where there are results of the same attack with other settings.
        """
        there = self._attacks.get(name, {}).get("settings", settings)
        differing = [key for key in settings | there if settings.get(key) != there.get(key)]
        if differing:
            changes = ", ".join(
                f"{key} {there.get(key)} there, {settings.get(key)} here" for key in differing
            )
            raise UsageError(
                f"{self._path} has results of {name} with other settings ({changes}). Choose "
                "another --json or remove the file."
            )
        if name not in self._attacks:
            self._examples[name] = np.full(self._count, NOT_RUN, np.int8)
            self._attacks[name] = {"settings": settings, "seconds": 0.0, "attacked": 0}
        return self._examples[name]

    def add(self, name, indices, held, attacked, seconds):
        """Notes which of the examples at `indices` held, and writes the file.

        Args:
            name: of the attack.
            indices: int array, positions of examples.
            held: bool array, whether each was classified correctly.
            attacked: how many images the attack was run on.
            seconds: how long it took.
        """
        self._examples[name][indices] = np.where(held, HELD, FOOLED)
        self._attacks[name]["attacked"] += attacked
        self._attacks[name]["seconds"] += seconds
        self._write()

    def finished(self):
        """Returns the names of the attacks that all examples were tried with."""
        return [name for name, held in self._examples.items() if (held != NOT_RUN).all()]

    def correct(self, name):
        """Returns the bool array [n] of what an attack left correctly classified."""
        return self._examples[name] == HELD

    def about(self, name):
        """Returns the settings of an attack, its seconds, and the number of images attacked."""
        return self._attacks[name]

    def _write(self):
        if self._path:
            metadata = {"identity": self.identity, "attacks": self._attacks}
            metadata = {key: json.dumps(value) for key, value in metadata.items()}
            write_tensors(self._path, self._examples, metadata)


def read_examples(path):
    """Returns what `Results` wrote: {attack: int8 [n]}, {attack: its settings}, the identity.

    Raises:
        UsageError: where the file is missing or another one.
    """
    tensors, metadata = read_tensors(path)
    try:
        attacks = json.loads(metadata["attacks"])
        examples = {name: np.array(tensors[name], np.int8) for name in attacks}
        if not all(isinstance(about["settings"], dict) for about in attacks.values()):
            raise TypeError("the settings of an attack are none")
        return examples, attacks, dict(json.loads(metadata["identity"]))
    except (AttributeError, KeyError, ValueError, TypeError) as error:
        raise UsageError(f"{path} has no results of zoo.evaluate: {error!r}") from error


def run(subject, attack, images, labels, results, prefix=""):
    """Runs `attack` on all examples that `subject` classifies correctly as they are.

    Args:
        subject: a `zoo.robustness.subjects.Subject`.
        attack: a `zoo.robustness.catalogue.Attack`.
        images: float32 [n, h, w, c] in [0, 1].
        labels: int32 [n].
        results: `Results`, whose identity has the "seed" and the "batch_size"; they hold those of
            the attack "clean" unless this is it.
        prefix: goes before the attack's name in `results`, where they are of several subjects.

    Raises:
        UsageError: where an adversarial example leaves the ball or [0, 1].
    """
    name = prefix + attack.name
    seed, batch_size = results.identity["seed"], results.identity["batch_size"]
    examples = results.examples(name, {**attack.settings, "sha256": subject.sha256})
    clean = attack.name == "clean"
    attackable = np.ones(len(labels), bool) if clean else results.correct(f"{prefix}clean")
    size = min(batch_size, attack.largest_batch or batch_size)
    starts = range(0, len(labels), size)
    done = sum((examples[start : start + size] != NOT_RUN).all() for start in starts)
    with tqdm.tqdm(total=len(starts), desc=name, initial=done, leave=False, disable=None) as bar:
        for index, start in enumerate(starts):
            batch = np.arange(start, min(start + size, len(labels)))
            if (examples[batch] != NOT_RUN).all():
                continue
            begin = time.perf_counter()
            held = attackable[batch]
            attacked = int(held.sum())
            for restart in range(attack.restarts):
                left = batch[held]
                if len(left):
                    own_seed = random_seed(seed, restart)
                    held[held] = _held(subject, attack, images[left], labels[left], own_seed, index)
            results.add(name, batch, held, attacked, time.perf_counter() - begin)
            bar.update()


def _held(subject, attack, images, labels, seed, index):
    """Returns which images `subject` still classifies correctly after one attack, bool [n]."""
    adversarial = attack.perturb(images, labels, seed, index)
    fooled = np.zeros(len(labels), bool)
    if isinstance(adversarial, tuple):
        adversarial, fooled = adversarial
    check_examples(attack, images, adversarial)
    return (subject.logits(adversarial).argmax(axis=1) == labels) & ~fooled


def check_examples(attack, images, adversarial):
    """Raises a `UsageError` unless the adversarial images are within the attack's bounds."""
    distance = np.abs(adversarial - images).max()
    bound = attack.settings.get("eps", 0.0)
    low, high = adversarial.min(), adversarial.max()
    if not (distance <= bound + TOLERANCE and low >= -TOLERANCE and high <= 1 + TOLERANCE):
        raise UsageError(
            f"The attack {attack.name} made images at a distance of {distance:.6f}, {bound:.6f} "
            f"being allowed, with values from {low:.6f} to {high:.6f}. Its results do not count."
        )


def fitting_batch(model):
    """Returns how many images of a model fit into an eighth of this machine's memory, 1 to 250.

    Attacks keep the outputs of all layers for the gradient; with what convolutions need besides
    they are taken to need four times that. Files are run image by image.
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
