"""The pictures and the page that show how a training run went."""

import base64
import html
import io

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #222 }
table { border-collapse: collapse } td { padding: .3rem 1rem; border-bottom: 1px solid #ddd;
        text-align: right } td:first-child { text-align: left } tr:first-child { font-weight: bold }
img { width: 100%; height: auto } figure { margin: 2rem 0 } figcaption { color: #555 }
"""


def accuracy_picture(history):
    """Returns a figure of the accuracies over epochs; `history` is the rows of history.csv."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    epochs = [row["epoch"] for row in history]
    curves = {
        "train_clean_accuracy": ("clean, training", "tab:blue", "--"),
        "validation_clean_accuracy": ("clean, validation", "tab:blue", "-"),
        "train_adversarial_accuracy": ("under the training attack, training", "tab:red", "--"),
        "validation_robust_accuracy": ("under PGD, validation", "tab:red", "-"),
    }
    for name, (label, color, line) in curves.items():
        if name in history[0]:
            values = [100 * row[name] for row in history]
            axes.plot(epochs, values, line, color=color, label=label, marker="o", markersize=4)
    axes.set(xlabel="epoch", ylabel="accuracy in %")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def density_picture(history):
    """Returns a figure of each layer's density over epochs, or None if nothing is pruned."""
    names = [name for name in history[0] if name.startswith("density/")]
    if not names:
        return None
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    epochs = [row["epoch"] for row in history]
    for index, name in enumerate(names):
        color = colormaps["viridis"](index / max(len(names) - 1, 1))
        values = [100 * row[name] for row in history]
        axes.plot(epochs, values, color=color, label=name.removeprefix("density/"), marker="o")
    axes.plot(epochs, [100 * row["density"] for row in history], "k--", label="all layers")
    axes.set(xlabel="epoch", ylabel="density in %", yscale="log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(LogFormatter())  # numbers between those, on less than a decade
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def adversarial_picture(images, adversarial, titles, eps):
    """Returns a figure of images above their perturbations and adversarial examples.

    Args:
        images: float [n, h, w, c] in [0, 1].
        adversarial: the same images after the attack.
        titles: n pairs of str, the classes that the model predicts for the image and for the
            adversarial example.
        eps: bound of the perturbation, which is shown with -eps as black and eps as white.
    """
    count = len(images)
    figure = Figure(figsize=(1.6 * count, 5.6), layout="constrained")
    axes = figure.subplots(3, count, squeeze=False)
    rows = (images, (adversarial - images) / (2 * eps) + 0.5, adversarial)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            picture = np.clip(picture, 0.0, 1.0)
            shown = picture[..., 0] if picture.shape[-1] == 1 else picture
            axes[row, column].imshow(shown, cmap="gray", vmin=0.0, vmax=1.0)
            axes[row, column].set(xticks=[], yticks=[])
    for column, (before, after) in enumerate(titles):
        axes[0, column].set_title(before, fontsize="small")
        color = "black" if after == before else "tab:red"
        axes[2, column].set_title(after, fontsize="small", color=color)
    for row, label in enumerate(("image", "perturbation, enlarged", "adversarial example")):
        axes[row, 0].set_ylabel(label, fontsize="small")
    return figure


def page(title, facts, table, pictures):
    """Returns a self-contained HTML page.

    Args:
        title: str.
        facts: dict of str to str, shown as a list.
        table: list of rows of str; the first is the header.
        pictures: list of (figure, caption).
    """
    items = "".join(
        f"<li>{html.escape(name)}: {html.escape(value)}</li>" for name, value in facts.items()
    )
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table
    )
    figures = "".join(
        f'<figure><img alt="{html.escape(caption)}" src="data:image/png;base64,{_png(figure)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for figure, caption in pictures
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>"
        f"<table>{rows}</table>{figures}<ul>{items}</ul>"
        "</html>\n"
    )


def _png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
