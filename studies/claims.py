"""Do the papers' claims hold, at their width and in networks of a quarter of it?

    python -m studies claims --workdir=runs/claims

Runs `train.py` with each recipe and seed below, the networks trained on clean images, as
`studies.recipe_runs` says. Those trained robustly are in dnr.json of `studies.dnr`, those of full
width in full_width.json of `studies.full_width`, also in --output. After each run, --output has
claims.json and the page claims.md.
"""

import math
import pathlib
from typing import NamedTuple

import numpy as np
from absl import flags

from studies import dnr, full_width, recipe_runs, records
from tfsparse import tables
from tfsparse.errors import UsageError

NAME = "claims"
RECORDS = (NAME, dnr.NAME, full_width.NAME)
KEYS = recipe_runs.KEYS
ROWS = recipe_runs.rows(NAME)  # a verdict needs several seeds of at least one network
MARGIN = 1.0  # a claim is still confirmed this many points below the published figure
# Quantiles of Student's distribution for 95 % intervals, with 1 degree of freedom and more.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)

FLAGS = flags.FLAGS


class Claim(NamedTuple):
    """A paper's statement on a network and its baselines, and which recipes stand for them here.

    text: which networks are compared here.
    published: what the paper says of them at full width; "" if it says nothing.
    recipe: that of the network.
    others: the recipes of the baselines; the mean of their accuracies is compared.
    measure: "clean" or "robust", the accuracy compared.
    points: the published accuracy of the network minus that of the baselines, in points.
    """

    text: str
    published: str
    recipe: str
    others: tuple[str, ...]
    measure: str
    points: float


def read_claims(table):
    """Returns the claims of a table of data/claims.csv, "periodic" or "dnr", list of `Claim`.

    Accuracies of arXiv 2001.10710 are read off its plots, within 0.02 points. The claim of
    arXiv 2011.03083 is that of its abstract.
    """
    found = []
    for name, text, published, recipe, others, measure, points in map(
        dict.values, records.read_csv("claims")
    ):
        if name == table:
            others = tuple(others.split())
            found.append(Claim(text, published, recipe, others, measure, float(points)))
    return found


PERIODIC, DNR = read_claims("periodic"), read_claims("dnr")
FULL_PERIODIC, FULL_DNR = read_claims("periodic_full"), read_claims("dnr_full")
_PSD2 = "resnet18_w16_psd2p8_cifar10"


def define_flags():
    recipe_runs.define_flags(ROWS)


def main():
    robust_runs()  # before anything is trained
    full = recipe_runs.read(full_width.NAME)
    recipe_runs.collect(NAME, ROWS, lambda runs: page(runs, robust_runs(), full))


def robust_runs():
    """Returns the runs of `studies.dnr`; raises a UsageError if there are none on these data."""
    path = pathlib.Path(FLAGS.output) / f"{dnr.NAME}.json"
    runs = recipe_runs.read(dnr.NAME)
    if not runs:
        raise UsageError(f"Run studies.dnr first: {path} has no runs.")
    for run in runs:
        recipe_runs.check_note(run["note"], path)
    return runs


# ---- verdicts ----


def compare(grouped, claim):
    """Returns the difference of a claim's networks and half of its 95 % interval, in points.

    The standard deviation over seeds is pooled over all networks that have several, as if it were
    the same for all: two or three seeds of one network hardly determine it. Half of the interval is
    None if none of the claim's networks has a second seed.
    """
    groups = {
        name: 100 * np.array([row[f"{claim.measure}_accuracy"] for row in rows])
        for name, rows in grouped.items()
    }
    first, others = groups[claim.recipe], [groups[name] for name in claim.others]
    difference = first.mean() - np.mean([other.mean() for other in others])
    if max(map(len, (first, *others))) == 1:
        return difference, None
    freedom = sum(len(values) - 1 for values in groups.values())
    squares = sum(((values - values.mean()) ** 2).sum() for values in groups.values())
    # A mean of n values has 1 / n of their variance, and a mean of k means 1 / k of their mean one.
    runs = 1 / len(first) + np.mean([1 / len(other) for other in others]) / len(others)
    deviation = math.sqrt(squares / freedom * runs)
    return difference, _STUDENT[min(freedom, len(_STUDENT)) - 1] * deviation


def verdict(claim, difference, half):
    """Returns "confirmed", "contradicted" or "open"; see the page."""
    if half is None:
        return "open"
    least = claim.points - MARGIN
    if difference - half > least:
        return "confirmed"
    return "contradicted" if difference + half < least else "open"


def _at_equal_macs(grouped, claim=PERIODIC[-1]):
    """Returns what PSD1_P16 would reach with its baselines' MACs, a str; "" without their runs.

    Accuracy is taken to be linear in the logarithm of the MACs, between PSD1_P16 and PSD2_P8.
    """
    if not {claim.recipe, _PSD2, *claim.others} <= grouped.keys():
        return ""
    macs = {row: runs[0]["macs"] for row, runs in grouped.items()}
    step = claim._replace(recipe=_PSD2, others=(claim.recipe,))
    slope = compare(grouped, step)[0] / math.log(macs[_PSD2] / macs[claim.recipe])
    gains = [slope * math.log(macs[other] / macs[claim.recipe]) for other in claim.others]
    difference, half = compare(grouped, claim)
    difference += np.mean(gains)
    return (
        " Interpolated between PSD1_P16 and PSD2_P8 in the logarithm of MACs, it would gain "
        f"{' and '.join(f'{gain:.2f}' for gain in gains)} points with their MACs, and differ by "
        f"{difference:+.2f} points from the mean of both; with the same interval, the verdict is "
        f"{verdict(claim, difference, half)}."
    )


# ---- the page ----


def page(runs, robust, full):
    """Returns the Markdown page, from the runs of claims.json, dnr.json, and full_width.json."""
    about, robust_about = recipe_runs.facts(runs), recipe_runs.facts(robust)
    return records.fill(
        NAME,
        full=full_width_section(full),
        note=about["note"],
        epochs=about["epochs"],
        robust_epochs=robust_about["epochs"],
        attack=robust_about["robust_attack"].replace(",", " with"),
        examples=robust_about["robust_examples"],
        periodic=table(PERIODIC, runs),
        equal=_at_equal_macs(recipe_runs.by_row(runs)),
        runs=recipe_runs.table(runs, ["weights", "MACs, M", "clean, %", "n", "hours a run"]),
        dnr=table(DNR, robust),
    )


def full_width_section(runs):
    """Returns what the page says of networks of full width, from the runs of full_width.json."""
    if not runs:
        return (
            "Not measured yet. `python -m studies queue --seconds=600 --workdir=runs/queue` trains "
            "these networks for ten minutes on an accelerator, for 20 or 30 epochs each, and goes "
            "on where it stopped; `python -m studies full_width --workdir=runs/queue` records "
            "them, and `python -m studies pages` shows them here."
        )
    standard = [run for run in runs if "robust_accuracy" not in run]
    robust = [run for run in runs if "robust_accuracy" in run]
    titles = ["epochs", "weights kept", "MACs, M", "clean, %"]
    own = {"epochs": lambda runs: str(runs[0]["epochs"]), "AutoAttack, %": _autoattack}
    parts = []
    if standard:
        shown = recipe_runs.table(standard, [*titles, "n", "hours a run"], own)
        parts += [_about_full(standard), table(FULL_PERIODIC, standard), shown]
    if robust:
        titles += ["robust, %", "AutoAttack, %", "n", "hours a run"]
        shown = recipe_runs.table(robust, titles, own)
        parts += [_about_full(robust), table(FULL_DNR, robust), shown]
    return "\n\n".join(parts)


def _about_full(runs):
    about = recipe_runs.facts(runs)
    robust = "robust_attack" in about
    how = "the hybrid loss and PGD-7" if robust else "clean images"
    accuracy = f"Clean accuracy is on {about['clean_examples']} test images"
    if robust:
        attack = about["robust_attack"].replace(",", " with")
        accuracy += f", robust accuracy under {attack} on the first {about['robust_examples']}"
    return (
        f"Trained with {how} in mixed bfloat16 on CIFAR-10{about['note']}, on "
        f"{about['hardware']}. {accuracy}."
    )


def _autoattack(runs):
    found = [run for run in runs if "autoattack" in run]
    if not found:
        return ""
    images = f"{found[0]['autoattack_examples']:,} images"
    return f"{recipe_runs.mean_text([run['autoattack'] for run in found])} ({images})"


def table(claims, runs):
    """Returns the Markdown table of those of `claims` whose networks all have runs."""
    compared = {row for claim in claims for row in (claim.recipe, *claim.others)}
    grouped = recipe_runs.by_row(run for run in runs if run["row"] in compared)
    lines = [
        _line(claim, grouped) for claim in claims if {claim.recipe, *claim.others} <= grouped.keys()
    ]
    return tables.markdown(
        ["claim", "published", "here", "weights", "MACs", "difference", "n", ""], lines
    )


def _line(claim, grouped):
    first, *others = (grouped[row] for row in (claim.recipe, *claim.others))
    difference, half = compare(grouped, claim)
    interval = "" if half is None else f" ({difference - half:+.2f} to {difference + half:+.2f})"
    weights = macs = ""
    if len(others) == 1:
        ((other, *_),) = others
        ratio = first[0]["nonzero_parameters"] / other["nonzero_parameters"]
        weights = f"{100 * (ratio - 1):+.0f} %"
        is_periodic = claim in (*PERIODIC, *FULL_PERIODIC)
        macs = f"{other['macs'] / first[0]['macs']:.1f}x fewer" if is_periodic else ""
    reached = [
        recipe_runs.mean_text([run[f"{claim.measure}_accuracy"] for run in group])
        for group in (first, *others)
    ]
    return [
        claim.text,
        f"{claim.published} ({claim.points:+.2f})" if claim.points else claim.published,
        f"{reached[0]} vs. {' and '.join(reached[1:])}",
        weights,
        macs,
        f"{difference:+.2f}{interval}",
        ", ".join(str(len(group)) for group in (first, *others)),
        f"**{verdict(claim, difference, half)}**" if claim.published else "",
    ]
