"""Does a model only hide its gradients? The checks that the field expects, from measured results.

If gradients vanish, shatter, or mislead, attacks that follow them fail, and the model looks robust
although it is not. It then breaks rules that hold for every model with sound gradients.

Sources: Athalye et al., "Obfuscated gradients give a false sense of security", ICML 2018, section
3.1; Carlini et al., "On evaluating adversarial robustness", 2019.
"""

import dataclasses
import itertools

import numpy as np

from zoo.robustness.intervals import paired

PASSED, FAILED = "passed", "failed"
# Multiples of eps; the largest changes any image of most data sets beyond recognition.
EPS_MULTIPLES = (0.25, 0.5, 1, 2, 4, 8, 16)
STEPS = (1, 2, 5, 10, 20, 50, 100)
# How much accuracy the last increase of the steps may still cost.
FLAT = 0.01


@dataclasses.dataclass(frozen=True)
class Check:
    """One rule, the verdict PASSED or FAILED on the model, and the figures behind it."""

    rule: str
    verdict: str
    evidence: str


def checks(correct, eps_sweep, steps_sweep, num_classes):
    """Returns the list of `Check`s of a model.

    Args:
        correct: {attack: bool [n]}, which examples are classified correctly under "clean", "fgsm",
            "pgd", "random", and any of "square" and "transfer".
        eps_sweep: {eps: bool [n]}, the same under PGD with each bound.
        steps_sweep: {steps: bool [n]}, the same under PGD with each number of steps.
        num_classes: of the data set.

    An accuracy counts as lower or higher than another if the 95 % interval of their difference,
    example by example, excludes 0.
    """
    found = [_not_lower("one step (FGSM) is weaker than many (PGD)", correct, "fgsm")]
    for name in ("square", "transfer"):
        if name in correct:
            rule = f"black-box {name} is weaker than white-box PGD"
            found.append(_not_lower(rule, correct, name))
    found.append(_not_lower("random search finds no more than gradients", correct, "random"))
    found.append(_falls_to_nothing(eps_sweep, num_classes))
    found.append(_falls_then_flattens(correct["clean"], steps_sweep))
    return found


def _not_lower(rule, correct, name):
    difference, low, high = paired(correct[name], correct["pgd"])
    evidence = (
        f"accuracy under {name} {_percent(correct[name])}, under PGD {_percent(correct['pgd'])}; "
        f"difference {100 * difference:+.1f} points, 95 % interval {100 * low:+.1f} to "
        f"{100 * high:+.1f}"
    )
    return Check(rule, FAILED if high < 0 else PASSED, evidence)


def _falls_to_nothing(sweep, num_classes):
    bounds = sorted(sweep)
    left = np.mean(sweep[bounds[-1]])
    rises = any(paired(sweep[b], sweep[a])[1] > 0 for a, b in itertools.pairwise(bounds))
    verdict = PASSED if left <= 0.5 / num_classes and not rises else FAILED
    evidence = ", ".join(f"{_percent(sweep[eps])} at {255 * eps:g}/255" for eps in bounds)
    return Check("accuracy falls to 0 as eps grows", verdict, evidence)


def _falls_then_flattens(clean, sweep):
    counts = sorted(sweep)
    falls = paired(clean, sweep[counts[-1]])[1] > 0
    rises = any(paired(sweep[b], sweep[a])[1] > 0 for a, b in itertools.pairwise(counts))
    change, low, _ = paired(sweep[counts[-2]], sweep[counts[-1]])
    is_flat = change <= FLAT or low <= 0
    verdict = PASSED if falls and not rises and is_flat else FAILED
    evidence = ", ".join(f"{_percent(sweep[steps])} at {steps}" for steps in counts)
    return Check("accuracy falls, then flattens, as PGD's steps grow", verdict, evidence)


def _percent(correct):
    return f"{100 * np.mean(correct):.1f} %"
