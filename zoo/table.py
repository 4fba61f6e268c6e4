"""The zoo's models beside each other, from their cards.

python -m zoo.table                # prints the README's table
python -m zoo.table --output=docs  # writes zoo.md and its pictures, too
"""

import pathlib

from zoo import environment

if __name__ == "__main__":
    environment.prepare()

from absl import flags
from matplotlib.figure import Figure

from tfsparse import commandline
from tfsparse.files import replacing, write_bytes
from zoo.models import card, list_models

FLAGS = flags.FLAGS
_HEADER = (
    "| name | data | loss | weights kept / dense | MACs kept / dense, M | clean % | int8 file % "
    "| PGD-50 % | AutoAttack % | int8 kB | faster |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)
_PAGE = """\
# The zoo's models

From their cards by `python -m zoo.table --output=docs`; `python -m zoo.verify` measures the \
figures again.

{table}

*Clean* and *int8 file* are the accuracies of the Keras model and of its file on all test images, \
PGD-50 has 2 restarts, AutoAttack is the standard version, both with the L_inf bound of the card, \
8/255 for all that are trained robustly. Each cell has its number of images n where it is not all \
of the test set. 95 % intervals (Wilson) are in the cards, and the bars in the pictures. *Kept* \
are weights that are not zero, and multiply-accumulates (MACs) with them. *Faster* is the latency \
of the dense network by the file's, int8, LiteRT, one thread.

{pictures}
"""
# {picture: (x axis, y axis, title)}
_PICTURES = {
    "zoo_macs": ("nonzero_macs", "clean", "Accuracy against multiply-accumulates"),
    "zoo_kilobytes": ("kilobytes", "clean", "Accuracy against the size of the packed weights"),
    "zoo_robust": ("clean", "pgd", "Robust against clean accuracy"),
}
_LABELS = {
    "nonzero_macs": "MACs with kept weights, M",
    "kilobytes": "packed weights, kB",
    "clean": "clean accuracy, %",
    "pgd": "accuracy under PGD-50, %",
}


def define_flags():
    flags.DEFINE_string("output", None, "Folder for zoo.md and its pictures.")


def main():
    print(markdown())
    if FLAGS.output:
        output = pathlib.Path(FLAGS.output)
        write_bytes(output / "zoo.md", page())
        for name in _PICTURES:
            with replacing(output / f"{name}.png") as partial:
                picture(name).savefig(partial, dpi=100)


def markdown():
    """Returns the table, a str of lines, one for each model."""
    return "\n".join([*_HEADER, *(_row(card(name)) for name in list_models())])


def page():
    """Returns the Markdown page of all models."""
    pictures = [f"![{title}]({name}.png)" for name, (_, _, title) in _PICTURES.items()]
    return _PAGE.format(table=markdown(), pictures="\n\n".join(pictures))


def _row(about):
    whole = about["results"]["clean"]["examples"]

    def percent(name):
        result = about["results"].get(name)
        if result is None:
            return ""
        few = "" if result["examples"] == whole else f" (n={result['examples']:,})"
        return f"{100 * result['accuracy']:.1f}{few}"

    cells = [
        f"`{about['name']}`",
        about["dataset"] + (f" ({about['note']})" if about["note"] else ""),
        about["recipe"]["loss"],
        f"{about['nonzero_parameters']:,} / {about['dense_parameters']:,}",
        f"{about['nonzero_macs'] / 1e6:.1f} / {about['dense_macs'] / 1e6:.1f}",
        *map(percent, ("clean", "int8", "pgd", "autoattack")),
        f"{about['tflite']['bytes'] / 1000:.0f}",
        f"{about['device']['latency_ratio']:.2f}x",
    ]
    return f"| {' | '.join(cells)} |"


def picture(name):
    """Returns the figure `name` of _PICTURES: a point for each model on CIFAR-10."""
    x_name, y_name, title = _PICTURES[name]
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    cards = [about for about in map(card, list_models()) if about["dataset"] == "cifar10"]
    for about in cards:
        robust = about["recipe"]["loss"] == "hybrid"
        if y_name == "pgd" and not robust:
            continue
        x, y = _value(about, x_name), _value(about, y_name)
        low, high = (100 * bound for bound in about["results"][y_name]["interval"])
        mark, colour = ("o", "tab:red") if robust else ("s", "tab:blue")
        axes.errorbar(x, y, [[y - low], [high - y]], fmt=mark, color=colour, elinewidth=0.6)
        label = about["name"].removesuffix("_cifar10")
        axes.annotate(label, (x, y), (4, 4), textcoords="offset points", fontsize=7)
    axes.plot([], [], "o", color="tab:red", label="trained robustly")
    if y_name != "pgd":
        axes.plot([], [], "s", color="tab:blue", label="trained on clean images")
    if x_name != "clean":
        axes.set_xscale("log")
    notes = ", ".join(sorted({"CIFAR-10", *(about["note"] for about in cards)} - {""}))
    axes.set(xlabel=_LABELS[x_name], ylabel=_LABELS[y_name], title=f"{title} ({notes})")
    axes.margins(0.25, 0.15)  # names stand right of their points
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="lower right", fontsize=8)
    return figure


def _value(about, name):
    if name == "nonzero_macs":
        return about[name] / 1e6
    if name == "kilobytes":
        return about["weights"]["bytes"] / 1000
    return 100 * about["results"][name]["accuracy"]


if __name__ == "__main__":
    define_flags()
    commandline.run(main)
