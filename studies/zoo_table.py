"""The zoo's models in one table, from their cards.

    python -m studies zoo_table

Writes zoo.md and its pictures.
"""

import itertools

from absl import flags
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, StrMethodFormatter
from matplotlib.transforms import Bbox

from studies import MODELS, records
from tfsparse import tables
from zoo.cards import MAX_GAP, gap_warning, pgd_beside_autoattack
from zoo.models import card, folder_of, list_models

NAME = "zoo"
RECORDS = ()
_HEADER = (
    "name|network|data|loss|epochs|non-zero / dense weights|non-zero / dense MACs, M|clean %"
    "|int8 file %|PGD-50 %|AutoAttack %|int8 file, worst attack %"
    "|weights kB|int8 kB|RAM kB|speed-up"
)
# {picture: (x axis, y axis, title)}
_PICTURES = {
    "zoo_macs": ("nonzero_macs", "clean", "Accuracy against multiply-accumulates"),
    "zoo_flash": ("flash", "clean", "Accuracy against flash, as C"),
    "zoo_instructions": ("instructions", "clean", "Accuracy against instructions, as C"),
    "zoo_kilobytes": ("kilobytes", "clean", "Accuracy against the size of the compressed weights"),
    "zoo_robust": ("clean", "autoattack", "Robust against clean accuracy"),
}
_NETWORKS = {
    "mobilenet_v2": "MobileNetV2",
    "resnet8": "ResNet8",
    "resnet14": "ResNet14",
    "resnet18": "ResNet18",
    "shufflenet": "ShuffleNet",
    "vgg16": "VGG16",
}
# Each kind of magnitude pruning shares a budget among layers in its own way.
_ALGORITHMS = {
    "dnr": "DNR",
    "set": "SET",
    "rigl": "RigL",
    "magnitude": "per-layer magnitude",
    "global_magnitude": "global magnitude",
    "erk_magnitude": "ERK magnitude",
}
_LABELS = {
    "nonzero_macs": "non-zero MACs, M",
    "flash": "flash for code and constants, kB",
    "instructions": "instructions on a Cortex-M4, M",
    "kilobytes": "compressed weights, kB",
    "clean": "clean accuracy, %",
    "pgd": "accuracy under PGD-50, %",
    "autoattack": "accuracy under AutoAttack, %",
}


FLAGS = flags.FLAGS


def define_flags():
    records.define_output()


def main():
    records.write_page(NAME, page())
    save_pictures(FLAGS.output)


def save_pictures(folder):
    """Writes the pictures of the page to a folder."""
    for name in _PICTURES:
        records.save_picture(folder, name, picture(name))


def markdown(cards):
    """Returns the table of these cards, a str of lines, one for each model."""
    return tables.markdown(_HEADER.split("|"), [_row(about) for about in cards])


def is_packaged(name):
    """Whether the model `name` is in the package, and not one that only studies need."""
    return folder_of(name) != MODELS


def page():
    """Returns the Markdown page of all models."""
    pictures = [f"![{title}]({name}.png)" for name, (_, _, title) in _PICTURES.items()]
    resnet8, resnet18 = card("resnet8_cifar10"), card("resnet18_w16_cifar10")
    resnet14, wide = card("resnet14_ps3p3f1_cifar10"), card("resnet18_psd1p16f1_cifar10")
    cards = [card(name) for name in list_models()]
    packaged = [about for about in cards if is_packaged(about["name"])]
    others = [about for about in cards if about not in packaged]
    return records.fill(
        NAME,
        packaged=markdown(packaged),
        reasons=_purposes(packaged),
        others=markdown(others),
        rows=_purposes(others),
        pictures="\n\n".join(pictures),
        resnet8=f"{100 * resnet8['results']['int8']['accuracy']:.1f}",
        note=f", on a {resnet8['note']}" if resnet8["note"] else "",
        resnet14=f"{100 * resnet14['results']['int8']['accuracy']:.1f}",
        resnet14_epochs=resnet14["epochs"],
        resnet18=f"{100 * resnet18['results']['clean']['accuracy']:.1f}",
        epochs=resnet18["epochs"],
        wide=f"{100 * wide['results']['clean']['accuracy']:.1f}",
        wide_epochs=wide["epochs"],
        number=len(packaged),
        more=len(others),
        models=len(cards),
        gap=MAX_GAP,
        flagged=f"{sum(bool(gap_warning(each['results'])) for each in cards)} of {len(cards)}",
        megabytes=f"{sum(map(_bytes, packaged)) / 1e6:.1f}",
    )


def _bytes(about):
    return about["weights"]["bytes"] + about["tflite"]["bytes"]


def _purposes(cards):
    return "\n".join(f"- `{about['name']}`: {about['purpose']}" for about in cards)


def _row(about):
    whole, arena = about["results"]["clean"]["examples"], about["device"]["arena_bytes"]

    def percent(name):
        result = about["results"].get(name)
        if result is None:
            return ""
        notes = [] if result["examples"] == whole else [f"n={result['examples']:,}"]
        if name == "autoattack":
            warning = " **!**" if gap_warning(about["results"]) else ""
            beside = pgd_beside_autoattack(about["results"])
            notes.insert(0, f"PGD {100 * beside['accuracy']:.1f}{warning}")
        few = f" ({', '.join(notes)})" if notes else ""
        return f"{100 * result['accuracy']:.1f}{few}"

    return [
        f"`{about['name']}`",
        f"{network(about)}, {variant(about)}",
        about["dataset"] + (f" ({about['note']})" if about["note"] else ""),
        about["recipe"]["loss"],
        str(about["epochs"]),
        f"{about['nonzero_parameters']:,} / {about['dense_parameters']:,}",
        f"{about['nonzero_macs'] / 1e6:.1f} / {about['dense_macs'] / 1e6:.1f}",
        *map(percent, ("clean", "int8", "pgd", "autoattack")),
        _worst_on_file(about["deployed"]),
        *(f"{about[kind]['bytes'] / 1000:.0f}" for kind in ("weights", "tflite")),
        "" if arena is None else f"{arena / 1000:.0f}",
        f"{about['device']['latency_ratio']:.2f}x",
    ]


def _worst_on_file(found):
    if not found:
        return ""
    return f"{100 * found[found['worst']]['accuracy']:.1f} (n={found['examples']:,})"


def picture(name):
    """Returns the figure `name` of _PICTURES: a point for each model on CIFAR-10."""
    x_name, y_name, title = _PICTURES[name]
    cards = [about for about in _cards() if y_name == "clean" or is_robust(about)]
    cards = [each for each in cards if None not in (_value(each, x_name), _value(each, y_name))]
    x = [_value(about, x_name) for about in cards]
    return plot(cards, x, y_name, _LABELS[x_name], title, logarithmic=x_name != "clean")


def _cards():
    return [about for about in map(card, list_models()) if about["dataset"] == "cifar10"]


def plot(cards, x, y_name, x_label, title, logarithmic=True):
    """Returns a figure with a point for each model.

    Colors stand for networks, filled marks for robust training, and the words next to a mark for
    the sparsity of the model. Pareto lines show the highest y that each x allows: at most that much
    if x is a cost, or at least that much of another accuracy; among all models, and dense ones, of
    either kind of training.

    Args:
        cards: of the models.
        x: number of each model.
        y_name: the result of the cards that is shown: "clean", "pgd", or "autoattack".
        x_label: of the horizontal axis.
        title: of the figure.
        logarithmic: whether that axis is; then x is a cost, and otherwise an accuracy.
    """
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    networks = sorted({network(about) for about in _cards()})  # the same colors in all pictures
    hues = [f"C{index}" for index in range(10) if index != 7]  # which is the legend's gray
    colors = dict(zip(networks, itertools.cycle(hues), strict=False))
    points = []
    for about, position in zip(cards, x, strict=True):
        y = _value(about, y_name)
        low, high = (100 * bound for bound in about["results"][y_name]["interval"])
        color = colors[network(about)]
        face = color if is_robust(about) else "white"
        bars = [[y - low], [high - y]]
        axes.errorbar(position, y, bars, fmt="o", color=color, mfc=face, elinewidth=0.6)
        points.append((position, y, variant(about), color))
    for name in sorted({network(about) for about in cards}):
        axes.plot([], [], "o", color=colors[name], label=name)
    if not all(map(is_robust, cards)):
        axes.plot([], [], "o", color="gray", label="trained robustly")
        axes.plot([], [], "o", color="gray", mfc="white", label="trained on clean images")
    axes.margins(0.18, 0.1)  # words stand next to their points
    _draw_pareto_lines(axes, cards, points, is_cost=logarithmic)
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
    notes = ", ".join(sorted({"CIFAR-10", *(about["note"] for about in cards)} - {""}))
    axes.set(xlabel=x_label, ylabel=_LABELS[y_name], title=f"{title} ({notes})")
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="lower right", fontsize=8)
    _annotate(figure, axes, points)
    return figure


def _draw_pareto_lines(axes, cards, points, is_cost):
    """Draws the Pareto lines of points (x, accuracy, ...), to the worst x of all points.

    Robust and other models have lines of their own: robustness costs clean accuracy.
    """
    sign = 1 if is_cost else -1
    worst = max(sign * x for x, *_ in points)
    for robust in (True, False):
        kind = [
            (about, (sign * x, y))
            for about, (x, y, *_) in zip(cards, points, strict=True)
            if is_robust(about) == robust
        ]
        dense = [each for each in kind if is_dense(each[0])]
        for chosen, style in ((kind, "-"), (dense, "--")):
            if line := pareto([point for _, point in chosen]):
                costs, y = zip(*line, (worst, line[-1][1]), strict=True)
                x = [sign * cost for cost in costs]
                axes.step(x, y, style, where="post", color="0.5", linewidth=1, zorder=0)
    for style, label in (("-", "all"), ("--", "dense")):
        axes.plot([], [], style, color="0.5", linewidth=1, label=f"Pareto line, {label} models")


def pareto(points):
    """Returns those points (cost, accuracy) that no cheaper or equally dear one reaches, sorted."""
    found = []
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not found or accuracy > found[-1][1]:
            found.append((cost, accuracy))
    return found


def _annotate(figure, axes, points):
    """Writes the words of points (x, y, words, color) where they cover least."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # all positions stay, when the picture is saved, too
    marks = axes.transData.transform([point[:2] for point in points])
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in marks]
    taken.append(axes.get_legend().get_window_extent())
    places = [(7, -3, "left"), (-7, -3, "right"), (0, 8, "center"), (0, -14, "center")]
    places += [(7, 8, "left"), (-7, 8, "right"), (7, -14, "left"), (-7, -14, "right")]
    places += [(0, 19, "center"), (0, -25, "center"), (12, 17, "left"), (-12, 17, "right")]
    places += [(12, -25, "left"), (-12, -25, "right")]
    scale = figure.dpi / 72  # pixels of a point
    low, high = axes.bbox.x0 + 4, axes.bbox.x1 - 4
    for x, y, words, color in points:
        style = {"fontsize": 8, "color": color, "textcoords": "offset points", "ha": "left"}
        style["bbox"] = {"fc": "white", "ec": "none", "alpha": 0.9, "pad": 0.5}  # over bars
        text = axes.annotate(words, (x, y), (0, 0), **style)
        box, tried = text.get_window_extent(), []
        for place in places:
            shift = {"left": 0, "center": box.width / 2, "right": box.width}[place[2]]
            moved = box.translated(scale * place[0] - shift, scale * place[1])
            outside = moved.x0 < low or moved.x1 > high
            covered = sum(_area(Bbox.intersection(moved, each)) for each in taken)
            tried.append((1e6 * outside + covered, place, moved))
        _, place, moved = min(tried, key=lambda each: each[0])
        text.xyann = place[:2]
        text.set_ha(place[2])
        taken.append(moved.padded(3))


def _area(box):
    return box.width * box.height if box else 0


def is_robust(about):
    return about["recipe"]["loss"] == "hybrid"


def is_dense(about):
    return not about["model"]["pattern"] and about["recipe"]["prune"] == "none"


def network(about):
    """Returns the name of a model's network, with its width unless it is the published one."""
    model = about["model"]
    width = f" of width {model['width']}" if model["width"] else ""
    return f"{_NETWORKS[model['arch']]}{width}"


def variant(about):
    """Returns what makes a model sparse, and what is unusual about its loss."""
    recipe, found = about["recipe"], []
    if about["model"]["pattern"]:
        found.append(str(about["model"]["pattern"]))
    if recipe["prune"] != "none":
        method = _ALGORITHMS[recipe["prune"]]
        unit = ", by channel" if recipe["structure"] == "channel" else ""
        counted = " of MACs" if recipe.get("budget") == "macs" else ""
        found.append(f"{method} {100 * recipe['density']:.0f} %{counted}{unit}")
    found = found or ["dense"]
    if recipe.get("beta", 0.5) != 0.5:  # older cards do not have it
        found.append(f"beta {recipe['beta']:.4g}")
    if recipe.get("teacher"):
        found.append("distilled")
    return ", ".join(found)


def _value(about, name):
    if name in ("flash", "instructions"):
        key, unit = {"flash": ("flash_bytes", 1e3), "instructions": ("instructions", 1e6)}[name]
        return about["c_package"][key] / unit if about["c_package"] else None
    if name == "nonzero_macs":
        return about[name] / 1e6
    if name == "kilobytes":
        return about["weights"]["bytes"] / 1000
    found = about["results"].get(name)
    return 100 * found["accuracy"] if found else None
