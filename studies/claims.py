"""Do the papers' claims hold in networks of a quarter of the width?

    python -m studies.claims --workdir=runs/claims --output=docs

Runs `train.py` with each recipe and seed below, the networks trained on clean images, as
`studies.recipe_runs` says; those trained robustly are in dnr.json of `studies.dnr`, in
--output too. After each run --output holds claims.json and the tables claims.md.
"""

import math
import pathlib
from typing import NamedTuple

import numpy as np
from absl import flags

from studies import dnr, recipe_runs
from tfsparse.errors import UsageError
from tfsparse.files import write_bytes
from zoo.commands import commandline

# {recipe: seeds}. A verdict needs several of one of two networks.
ROWS = {
    "resnet18_w16_cifar10": (0, 1),
    "resnet18_w16_ps4p4_cifar10": (0,),
    "resnet18_w16_psd2p8_cifar10": (0,),
    "resnet18_w16_psd1p16_cifar10": (0, 1),
    "vgg16_w16_cifar10": (0, 1),
    "vgg16_w16_psd2p8_cifar10": (0,),
    "mobilenet_v2_w8_cifar10": (0,),
    "shufflenet_w80_cifar10": (0,),
}
NAME = "claims"
MARGIN = 1.0  # how many points less than published still confirm a claim

FLAGS = flags.FLAGS


class Claim(NamedTuple):
    """What a paper says of a network beside others, and which recipes are its like here.

    text: what is said of the networks here.
    published: what the paper says of them at full width; "" where it says nothing.
    recipe: that of the network.
    others: the recipes that it is compared with, by the mean of their accuracies.
    measure: "clean" or "robust", the accuracy compared.
    points: the published accuracy of the network less that of the others, in points.
    """

    text: str
    published: str
    recipe: str
    others: tuple[str, ...]
    measure: str
    points: float


def _periodic(network, pattern, recipe, dense, reached, dense_reached, savings):
    return Claim(
        f"{network} with {pattern}: {savings}",
        f"{reached:.2f} % instead of {dense_reached:.2f}",
        recipe,
        (dense,),
        "clean",
        reached - dense_reached,
    )


def _clean_and_robust(text, recipe, other, published=""):
    return [
        Claim(f"{text}, {measure} accuracy", published, recipe, (other,), measure, 0.0)
        for measure in ("clean", "robust")
    ]


_R18, _VGG = "resnet18_w16_cifar10", "vgg16_w16_cifar10"
_PSD1, _PSD2 = "resnet18_w16_psd1p16_cifar10", "resnet18_w16_psd2p8_cifar10"
_MOBILENET, _SHUFFLENET = "mobilenet_v2_w8_cifar10", "shufflenet_w80_cifar10"
_EQUAL = "at about equal FLOPs"
# Accuracies read off the plots of arXiv 2001.10710, CIFAR-10, within 0.02 points.
PERIODIC = [
    _periodic(
        *("ResNet18", "PS4_P4", "resnet18_w16_ps4p4_cifar10", _R18, 92.95, 92.84),
        "55 % fewer weights, 2.2x fewer FLOPs",
    ),
    _periodic(
        *("ResNet18", "PSD2_P8", _PSD2, _R18, 92.53, 92.84),
        "67 % fewer weights, 3.0x fewer FLOPs",
    ),
    _periodic(
        *("ResNet18", "PSD1_P16", _PSD1, _R18, 92.01, 92.84),
        "82 % fewer weights, 5.6x fewer FLOPs",
    ),
    _periodic(
        *("VGG16", "PSD2_P8", "vgg16_w16_psd2p8_cifar10", _VGG, 91.90, 92.76),
        "68 % fewer weights, 3.1x fewer FLOPs",
    ),
    Claim(
        f"ResNet18 with PSD1_P16 beside MobileNetV2 {_EQUAL}",
        "92.01 % beside 90.35",
        *(_PSD1, (_MOBILENET,), "clean", 1.66),
    ),
    Claim(
        f"ResNet18 with PSD1_P16 beside ShuffleNet {_EQUAL}",
        "92.01 % beside 88.93",
        *(_PSD1, (_SHUFFLENET,), "clean", 3.08),
    ),
    Claim(
        "ResNet18 with PSD1_P16 beside the mean of both",
        "92.01 % beside 89.64",
        *(_PSD1, (_MOBILENET, _SHUFFLENET), "clean", 2.37),
    ),
]
_R8_ROBUST, _R18_ROBUST, _VGG_ROBUST = (
    f"{network}_dense_robust_cifar10" for network in ("resnet8", "resnet18_w16", "vgg16_w16")
)
_BESIDE = "beside magnitude pruning"
# arXiv 2011.03083, abstract: above 20x compression without significant loss, of VGG16 and ResNet18.
DNR = [
    *_clean_and_robust(
        *("VGG16 with DNR at 5 % beside dense", "vgg16_w16_dnr5_cifar10", _VGG_ROBUST),
        "no significant drop",
    ),
    *_clean_and_robust(
        "VGG16 with DNR at 10 % beside dense", "vgg16_w16_dnr10_cifar10", _VGG_ROBUST
    ),
    *_clean_and_robust(
        "ResNet18 with DNR at 10 % beside dense", "resnet18_w16_dnr10_cifar10", _R18_ROBUST
    ),
    *_clean_and_robust(
        "ResNet18 with DNR by channel at 50 % beside dense",
        *("resnet18_w16_dnr_channel50_cifar10", _R18_ROBUST),
    ),
    *_clean_and_robust(
        "ResNet8 with DNR at 10 % beside dense", "resnet8_dnr10_cifar10", _R8_ROBUST
    ),
    *_clean_and_robust(
        "ResNet8 with DNR at 30 % beside dense", "resnet8_dnr30_cifar10", _R8_ROBUST
    ),
    *_clean_and_robust(
        "ResNet8 with DNR by channel at 50 % beside dense",
        *("resnet8_dnr_channel50_cifar10", _R8_ROBUST),
    ),
    *_clean_and_robust(
        f"VGG16 with DNR at 5 % {_BESIDE}",
        *("vgg16_w16_dnr5_cifar10", "vgg16_w16_magnitude5_cifar10"),
    ),
    *_clean_and_robust(
        f"ResNet8 with DNR at 10 % {_BESIDE}",
        *("resnet8_dnr10_cifar10", "resnet8_magnitude10_cifar10"),
    ),
]
# Quantiles of Student's distribution for 95 % intervals, with 1 degree of freedom and more.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)

_PAGE = """\
# The papers' claims in small networks

From `python -m studies.claims --workdir=runs/claims --output=docs`. ResNet18 and VGG16 of a \
quarter of the papers' width, a sixteenth of their weights, ResNet8, and MobileNetV2 and \
ShuffleNet of such widths that they take 1.3 and 1.1 times the multiply-accumulates of the \
sparsest ResNet18, on CIFAR-10{note}; {epochs} epochs on clean images, {robust_epochs} on \
adversarial ones with the hybrid loss and a one-step attack, where the papers train 120 to 200. \
MobileNetV2 and ShuffleNet are trained in float32, the others on clean images in mixed bfloat16. \
So what is compared is not the accuracy, but what sparsity costs of it.

The difference is the mean accuracy of the first network over its seeds less that of the second, \
or of the mean of several, in points, with its 95 % interval: Student's, of the standard \
deviations over seeds, pooled over all networks of a table that have several: one with a single \
seed is assumed to spread as they do. It is of these test images and says how far other seeds \
would be off, on them. The bound of a verdict is the published difference less a margin of 1 \
point. *Confirmed*: the whole interval is above that bound. *Contradicted*: all of it is below. \
*Open*: the bound lies inside the interval, or none of the networks has a second seed. There is \
no verdict where the paper claims nothing of that network, density and rival.

## Periodic kernels

{periodic}

Published figures are read off the plots of [arXiv 2001.10710](https://arxiv.org/abs/2001.10710), \
whose dense networks have 11.2 and 14.7 million weights. *Weights* and *MACs* are what the first \
network has fewer of than the second, here. The paper's claim of 2.8 % above the compact networks \
is about the mean of what it reports over both: +2.37 points on CIFAR-10, +2.87 with \
Tiny-ImageNet. The verdicts on them are about the size of that lead; an interval on both sides of \
0 does not tell which network is better. Their bound was 0 points, and three seeds were planned of \
the dense ResNet18 and of PSD1_P16, until the first figures were seen; with the bound of 0, an \
interval that has 0 in it is open. The paper's PSD1_P16 takes 11 and 2 % more FLOPs than \
MobileNetV2 and ShuffleNet, the one here fewer than both, which counts against it.{equal}

The runs, clean accuracy on all 10,000 test images, mean ± sample standard deviation over n seeds:

{runs}

## DNR

{dnr}

The claim is that of the abstract of [arXiv 2011.03083](https://arxiv.org/abs/2011.03083), for 20 \
times fewer weights (5 %) in VGG16 and ResNet18 of full width. There, at 5 %, ResNet18 has 87.32 % \
clean, 47.35 % under PGD and 40.41 % under AutoAttack (RobustBench, Kundu2020Tunable), VGG16 \
86.74 % clean; the figures of its dense networks are not known to us. Robust accuracy is that \
under {attack} on the first {examples:,} test images. The runs are those of [dnr.md](dnr.md).

## What is not compared

The papers' networks at their own width, on CIFAR-100 and on Tiny-ImageNet; VGG16 with PSD1_P16; \
patterns that differ in all filters (pSC); ResNet18 with DNR at 5 %. [papers.md](papers.md) lists \
their recipes.
"""


def main():
    output = pathlib.Path(FLAGS.output)
    robust_path = output / f"{dnr.NAME}.json"

    def robust():
        rows = recipe_runs.recorded(robust_path)
        if not rows:
            raise UsageError(f"Run studies.dnr first: {robust_path} has no rows.")
        if notes := {row["note"] for row in rows} - {FLAGS.note}:
            raise UsageError(
                f"{robust_path} has runs on other data: --note={min(notes)!r} there, "
                f"{FLAGS.note!r} here. Give that --note, if it is true of the data here, or "
                "another --output."
            )
        return rows

    def report(rows):
        write_bytes(output / f"{NAME}.md", page(rows, robust()))

    robust()  # before anything is trained
    report(recipe_runs.collect(output / f"{NAME}.json", ROWS, report))


def page(rows, robust_rows):
    """Returns the Markdown page of both tables, from the rows of claims.json and of dnr.json."""
    return _PAGE.format(
        note=recipe_runs.note(rows),
        epochs=rows[0]["epochs"],
        robust_epochs=robust_rows[0]["epochs"],
        attack=robust_rows[0]["robust_attack"].replace(",", " with"),
        examples=robust_rows[0]["robust_examples"],
        periodic=table(PERIODIC, rows),
        equal=_at_equal_macs(recipe_runs.by(rows, "row")),
        runs=_runs(rows),
        dnr=table(DNR, robust_rows),
    )


def table(claims, rows):
    """Returns the Markdown table of those of `claims` of which all networks are in `rows`."""
    lines = [
        "| claim | published | here | weights | MACs | difference | n | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    compared = {name for claim in claims for name in (claim.recipe, *claim.others)}
    grouped = recipe_runs.by((row for row in rows if row["row"] in compared), "row")
    for claim in claims:
        if {claim.recipe, *claim.others} <= grouped.keys():
            lines.append(_line(claim, grouped))
    return "\n".join(lines)


def _line(claim, grouped):
    first, *others = (grouped[name] for name in (claim.recipe, *claim.others))
    difference, half = compare(grouped, claim)
    interval = "" if half is None else f" ({difference - half:+.2f} to {difference + half:+.2f})"
    published = f"{claim.published} ({claim.points:+.2f})" if claim.points else claim.published
    weights = macs = ""
    if len(others) == 1:
        ((other, *_),) = others
        weights = (
            f"{100 * (first[0]['nonzero_parameters'] / other['nonzero_parameters'] - 1):+.0f} %"
        )
        macs = f"{other['macs'] / first[0]['macs']:.1f}x fewer" if claim in PERIODIC else ""
    reached = [
        recipe_runs.mean_text([row[f"{claim.measure}_accuracy"] for row in rows])
        for rows in (first, *others)
    ]
    cells = [
        claim.text,
        published,
        f"{reached[0]} beside {' and '.join(reached[1:])}",
        weights,
        macs,
        f"{difference:+.2f}{interval}",
        ", ".join(str(len(rows)) for rows in (first, *others)),
        f"**{verdict(claim, difference, half)}**" if claim.published else "",
    ]
    return f"| {' | '.join(cells)} |"


def compare(grouped, claim):
    """Returns the difference of a claim's networks and half of its 95 % interval, in points.

    The standard deviation over seeds is pooled over all networks that have several, as if it were
    the same for all: two or three seeds of one network say next to nothing of it. Half of the
    interval is None where none of them has a second seed, which would show whether it is.
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
    # The variance of a mean of n values is that of one by n; of a mean of k means, their mean by k.
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
    """Returns what PSD1_P16 would reach with its rivals' multiply-accumulates, or "" without runs.

    Accuracy is taken to be linear in the logarithm of the MACs, between PSD1_P16 and PSD2_P8.
    """
    if not {claim.recipe, _PSD2, *claim.others} <= grouped.keys():
        return ""
    macs = {name: rows[0]["macs"] for name, rows in grouped.items()}
    step = claim._replace(recipe=_PSD2, others=(claim.recipe,))
    slope = compare(grouped, step)[0] / math.log(macs[_PSD2] / macs[claim.recipe])
    gains = [slope * math.log(macs[other] / macs[claim.recipe]) for other in claim.others]
    difference, half = compare(grouped, claim)
    difference += np.mean(gains)
    return (
        " Interpolated between PSD1_P16 and PSD2_P8 in the logarithm of MACs, it would have "
        f"{' and '.join(f'{gain:.2f}' for gain in gains)} points more at theirs, and be "
        f"{difference:+.2f} points beside the mean of both; with the same interval that is "
        f"{verdict(claim, difference, half)}."
    )


def _runs(rows):
    lines = [
        "| row | weights | MACs, M | clean, % | n | hours a run |",
        "|---|---|---|---|---|---|",
    ]
    for name, group in recipe_runs.by(rows, "row").items():
        accuracies = recipe_runs.mean_text([row["clean_accuracy"] for row in group])
        hours = np.mean([row["hours"] for row in group])
        lines.append(
            f"| {name} | {group[0]['parameters']:,} | {group[0]['macs'] / 1e6:.2f} | {accuracies} "
            f"| {len(group)} | {hours:.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    commandline.run(sys.modules[__name__])
