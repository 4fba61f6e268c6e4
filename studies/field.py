"""Where do the zoo's robust models stand beside published ones? A table and a picture.

    python -m studies field

Published figures are in data/field.csv with their sources, the zoo's on its cards. Writes field.md
and field.png.
"""

from typing import NamedTuple

from absl import flags
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from studies import records
from studies.zoo_table import is_robust, network, variant
from tfsparse import tables
from zoo.cards import MAX_GAP, gap_warning, pgd_beside_autoattack
from zoo.models import card, list_models

NAME = "field"
RECORDS = ()
DATASET, EPS = "cifar10", 8 / 255
_HEADER = (
    "network|method|images|epochs|non-zero weights|sparsity, %|clean, %|AutoAttack, %|PGD-50, %"
    "|source"
)
_PUBLISHED, _OURS = "#4c6a92", "#00796b"  # colors

FLAGS = flags.FLAGS


def define_flags():
    records.define_output()


def main():
    records.write_page(NAME, page())
    save_pictures(FLAGS.output)


def save_pictures(folder):
    """Writes the picture of the page to a folder."""
    records.save_picture(folder, NAME, picture())


def published():
    """Returns the rows of data/field.csv, the least sparse first, then the most robust first."""
    rows = records.read_csv(NAME)
    return sorted(rows, key=lambda row: (float(row["sparsity"]), -float(row["autoattack"])))


def ours():
    """Returns the cards of the zoo's robust models on these data, the largest network first."""
    found = [
        about
        for about in map(card, list_models())
        if is_robust(about) and about["dataset"] == DATASET and about["recipe"]["eps"] == EPS
    ]
    return sorted(found, key=lambda about: (-about["dense_parameters"], sparsity(about)))


def sparsity(about):
    """Returns the share of the dense network's weights, in %, that a model lacks or that are 0."""
    return 100 * (1 - about["nonzero_parameters"] / about["dense_parameters"])


# ---- the page ----


def page():
    """Returns the Markdown page."""
    rows = [*map(_published_row, published()), *map(_own_row, ours())]
    cards = ours()
    steps = [about["recipe"]["attack_steps"] for about in cards]
    weights = [about["nonzero_parameters"] for about in cards]
    return records.fill(
        NAME,
        table=tables.markdown(_HEADER.split("|"), rows),
        epochs=_range(about["epochs"] for about in cards),
        steps=f"{_range(steps)} step{'s' * (max(steps) > 1)}",
        fewest=f"{min(weights):,}",
        most=f"{max(weights):,}",
        gap=f"{MAX_GAP:g}",
        note=", ".join(sorted({about["note"] for about in cards} - {""})),
    )


def _range(numbers):
    low, *_, high = sorted({*numbers}) * 2
    return f"{low}" if low == high else f"{low} to {high}"


def _published_row(row):
    paper = f"[{row['paper']}]({row['link']})" if row["link"] else row["paper"]
    read_in = f"; read in {row['read_in']}" if row["read_in"] else "; table not seen"
    return [
        row["network"],
        row["method"],
        "original",
        "",
        "",
        _share(float(row["sparsity"])),
        row["clean"],
        row["autoattack"],
        "",
        (paper + read_in).removeprefix("; "),
    ]


def _own_row(about):
    results = about["results"]
    clean, attacked = results["clean"], results.get("autoattack")
    cells = ["", ""]
    if attacked:
        low, high = (100 * bound for bound in attacked["interval"])
        count = f"n={attacked['examples']:,}"
        cells[0] = f"{100 * attacked['accuracy']:.1f} ({low:.1f} to {high:.1f}, {count})"
        warning = " **!**" if gap_warning(results) else ""
        beside = pgd_beside_autoattack(results)
        cells[1] = f"{100 * beside['accuracy']:.1f}{warning} ({count})"
    return [
        network(about),
        variant(about),
        about["note"] or "original",
        str(about["epochs"]),
        f"{about['nonzero_parameters']:,}",
        _share(sparsity(about)),
        f"{100 * clean['accuracy']:.2f}",
        *cells,
        f"`{about['name']}`",
    ]


def _share(percent):
    return f"{percent:.0f}" if percent else "0 (dense)"


# ---- the picture ----


class Bar(NamedTuple):
    """A row of the picture: accuracies in %, with the words beside them."""

    words: str
    clean: str
    robust: str | None
    interval: tuple[float, float] | None = None
    note: str = ""
    color: str = _PUBLISHED


def picture():
    """Returns a figure of bars: clean accuracy behind accuracy under AutoAttack, one pair a row."""
    rows = [*map(_published_bar, published()), None, *map(_own_bar, ours())]
    figure = Figure(figsize=(8, 0.27 * len(rows) + 1.4), layout="constrained")
    axes = figure.subplots()
    for y, bar in enumerate(rows):
        if bar is None:  # between the two groups
            axes.axhline(y, color="0.7", linewidth=0.8)
        else:
            _draw(axes, y, bar)
    places = [y for y, bar in enumerate(rows) if bar]
    axes.set_yticks(places, [rows[y].words for y in places], fontsize=9)
    axes.tick_params("y", length=0)
    axes.set(xlim=(0, 100), xlabel="accuracy, %", ylim=(len(rows) - 0.4, -0.6))
    axes.grid(alpha=0.3, axis="x")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    notes = ", ".join(sorted({about["note"] or "original images" for about in ours()}))
    handles = [
        Patch(color=_PUBLISHED, label="published, original images"),
        Patch(color=_OURS, label=f"this zoo, {notes}; 95 % intervals, non-zero weights"),
    ]
    title = "CIFAR-10, L_inf 8/255: accuracy under AutoAttack (dark) and clean (light)"
    place = {"loc": "outside upper center", "ncols": 2, "frameon": False, "title": title}
    figure.legend(handles=handles, fontsize=9, title_fontsize=12, **place)
    return figure


def _draw(axes, y, bar):
    axes.barh(y, float(bar.clean), 0.78, color=bar.color, alpha=0.25)
    axes.text(float(bar.clean) + 0.6, y, bar.clean, va="center", fontsize=8, color="0.35")
    axes.text(100, y, bar.note, va="center", ha="right", fontsize=8, color="0.35")
    if bar.robust:
        robust = float(bar.robust)
        axes.barh(y, robust, 0.78, color=bar.color)
        axes.text(1, y, bar.robust, va="center", fontsize=8, color="white")
        if bar.interval:
            low, high = bar.interval
            axes.errorbar(robust, y, xerr=[[robust - low], [high - robust]], color="0.2", lw=1)


def _published_bar(row):
    share = float(row["sparsity"])
    words = f"{row['method']}, {share:.0f} % sparse" if share else f"{row['method']}, dense"
    return Bar(words, row["clean"], row["autoattack"])


def _own_bar(about):
    results = about["results"]
    attacked = results.get("autoattack")
    return Bar(
        f"{network(about)}, {variant(about)}",
        f"{100 * results['clean']['accuracy']:.2f}",
        f"{100 * attacked['accuracy']:.1f}" if attacked else None,
        tuple(100 * bound for bound in attacked["interval"]) if attacked else None,
        f"{about['nonzero_parameters']:,}",
        _OURS,
    )
