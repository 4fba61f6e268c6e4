"""The pictures of reports: what a training run did, what a model confuses, what misleads it.

They are 800 pixels wide on a page, where their text has 10 points or more, on a white ground.
"""

import numpy as np
from matplotlib.colors import LogNorm, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

WIDTH = 8  # inches
NAMED, COUNTED = 40, 20  # the most classes whose names, and whose counts, fit a confusion matrix
NAME_LENGTH = 14  # of a class, in characters

FLIPS_CAPTION = (
    "The first test images that the model classifies correctly until the attack perturbs them, "
    "with the predicted class and its probability, before (above) and after (below). "
    "Perturbations are enlarged: -eps is black, eps is white."
)
_CURVES = {
    "train_clean_accuracy": ("clean, training images", "tab:blue", "--"),
    "validation_clean_accuracy": ("clean, validation images", "tab:blue", "-"),
    "train_adversarial_accuracy": ("under the training attack, training images", "tab:red", "--"),
    "validation_robust_accuracy": ("under PGD, validation images", "tab:red", "-"),
}


def accuracy_picture(history):
    """Returns a figure of the accuracies over epochs; `history` is the rows of history.csv."""
    figure = Figure(figsize=(WIDTH, 4), layout="constrained")
    axes = figure.subplots()
    epochs = [row["epoch"] for row in history]
    for name, (label, color, line) in _CURVES.items():
        if name in history[0]:
            values = [100 * row[name] for row in history]
            axes.plot(epochs, values, line, color=color, label=label, marker="o", markersize=4)
    axes.set(title="Accuracy over epochs", xlabel="epoch", ylabel="accuracy, %")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def density_picture(history):
    """Returns a heat map of each layer's density over epochs, or None if nothing is pruned.

    Layers are in the order of the network, the first one on top; below are all layers together. The
    densities of the last epoch are written on the right. A layer without weights is gray.
    """
    names = [name for name in history[0] if name.startswith("density/")]
    if not names:
        return None
    rows = [*names, "density"]
    densities = np.array([[100 * row[name] for row in history] for name in rows])
    figure = Figure(figsize=(WIDTH, 1.6 + 0.24 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("0.85")
    first, last = history[0]["epoch"] - 0.5, history[-1]["epoch"] + 0.5
    kept = np.ma.masked_equal(densities, 0)
    lowest, highest = kept.min() / 1.01, kept.max()
    image = axes.imshow(
        kept,
        aspect="auto",
        norm=LogNorm(lowest, highest),
        extent=(first, last, len(rows) - 0.5, -0.5),
        interpolation="nearest",
    )
    axes.axhline(len(names) - 0.5, color="white", linewidth=3)
    labels = [*(name.removeprefix("density/") for name in names), "all layers"]
    axes.set_yticks(range(len(rows)), labels)
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(rows)), [f"{value:.3g} %" for value in densities[:, -1]])
    axes.set(title="Density of each layer, kept weights / all weights", xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    bar = figure.colorbar(image, ax=axes, label="density, %", pad=0.02)
    ticks = np.geomspace(lowest, highest, 5)
    bar.set_ticks(ticks, labels=[f"{tick:.3g}" for tick in ticks])
    bar.minorticks_off()
    return figure


def adversarial_picture(flips, class_names, eps):
    """Returns a figure of images above their perturbations and adversarial examples.

    Above an image are its class, which the model predicts, and the probability that it gives to it;
    above an adversarial example the same of the class that the model predicts.

    Args:
        flips: a `zoo.robustness.flips.Flips`.
        class_names: list of str.
        eps: bound of the perturbation, which is shown with -eps as black and eps as white.
    """
    count = len(flips.labels)
    figure = Figure(figsize=(WIDTH, 1.3 + 22 / max(count, 6)), layout="constrained")
    axes = figure.subplots(3, max(count, 6), squeeze=False)
    perturbations = (flips.adversarial - flips.images) / (2 * eps) + 0.5
    for row, pictures in zip(axes, (flips.images, perturbations, flips.adversarial), strict=True):
        for ax, picture in zip(row, pictures, strict=False):
            shown = np.clip(picture[..., 0] if picture.shape[-1] == 1 else picture, 0.0, 1.0)
            ax.imshow(shown, cmap="gray", vmin=0.0, vmax=1.0)
        for index, ax in enumerate(row):
            ax.set(xticks=[], yticks=[])
            ax.set_visible(index < count)
    for row, classes, confidences, color in (
        (axes[0], flips.labels, flips.confidence, "black"),
        (axes[2], flips.predicted, flips.adversarial_confidence, "tab:red"),
    ):
        for ax, index, confidence in zip(row, classes, confidences, strict=False):
            title = f"{_short(class_names[index])}\n{100 * confidence:.0f} %"
            ax.set_title(title, fontsize=9, color=color)
    for row, label in zip(axes, ("image", "perturbation", "adversarial"), strict=True):
        row[0].set_ylabel(label)
    figure.suptitle(f"Images whose class the attack flips, L_inf {255 * eps:.4g}/255")
    return figure


def confusion_picture(labels, predicted, class_names):
    """Returns a confusion matrix: the share of each true class that is taken for each other one.

    The shares are written in the cells of up to 20 classes. More than 40 have numbers instead of
    names.

    Args:
        labels, predicted: int [n], the true and the predicted classes.
        class_names: list of str.
    """
    count = len(class_names)
    counts = _confusions(labels, predicted, count)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = WIDTH if count > 4 else WIDTH / 2
    figure = Figure(figsize=(size, 0.9 * size), layout="constrained")
    axes = figure.subplots()
    # The square root: a class that is rarely confused with another should be seen, too.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    if count <= COUNTED:
        for (row, column), share in np.ndenumerate(shares):
            text = f"{share:.0f}" if share >= 0.5 else ""
            axes.text(column, row, text, ha="center", va="center", color=_ink(share))
    if count <= NAMED:
        names = [_short(name) for name in class_names]
        slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(range(count), names, **(slanted if count <= COUNTED else {"rotation": 90}))
        axes.set_yticks(range(count), names)
    unit = "" if count <= NAMED else ", by its number"
    axes.set(xlabel=f"predicted class{unit}", ylabel=f"true class{unit}")
    axes.set_title(f"Confusion matrix of {len(labels):,} clean test images, % of the true class")
    figure.colorbar(image, ax=axes, label="share of the true class, %", shrink=0.8)
    return figure


def confusion_caption(labels, predicted, class_names, count=5):
    """Returns the caption of `confusion_picture`, with the `count` most frequent confusions."""
    counts = _confusions(labels, predicted, len(class_names))
    totals = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:count]
    pairs = [divmod(int(each), len(class_names)) for each in order]
    mistakes = [
        f"{class_names[true]} as {class_names[seen]} "
        f"({100 * counts[true, seen] / totals[true]:.0f} %)"
        for true, seen in pairs
        if counts[true, seen]
    ]
    text = "A row is a true class, a column what its images are taken for."
    return f"{text} Most frequent: {', '.join(mistakes)}." if mistakes else text


def _confusions(labels, predicted, count):
    """Returns how many images of each class, a row, are taken for each other one, a column."""
    counts = np.zeros((count, count))
    np.add.at(counts, (labels, predicted), 1)
    return counts


def _ink(share):
    return "white" if share > 40 else "black"


def _short(name):
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"
