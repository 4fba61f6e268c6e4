"""What do label smoothing and weight averaging bring to a small network?

    python -m studies.training_choices --workdir=runs/training_choices --output=docs

Runs `train.py` with each recipe and seed below, as `studies.recipe_runs` says. After each run
--output holds training_choices.json and the table training_choices.md.
"""

import pathlib

import numpy as np
from absl import flags

from studies import recipe_runs
from tfsparse.files import write_bytes
from zoo.commands import commandline

PLAIN = "resnet8_short_cifar10"
# {recipe: seeds}
ROWS = {
    PLAIN: (0, 1),
    "resnet8_short_smoothing_cifar10": (0, 1),
    "resnet8_short_average_cifar10": (0, 1),
}
NAME = "training_choices"

FLAGS = flags.FLAGS


def main():
    output = pathlib.Path(FLAGS.output)

    def report(rows):
        write_bytes(output / f"{NAME}.md", page(rows))

    report(recipe_runs.collect(output / f"{NAME}.json", ROWS, report))


def page(rows):
    """Returns the Markdown page of all rows: mean and spread over the seeds of each recipe."""
    first = rows[0]
    hardware = " or ".join(sorted({row["hardware"] for row in rows}))
    lines = [
        "# Choices in training",
        "",
        "From `python -m studies.training_choices --workdir=runs/training_choices "
        f"--output=docs`: ResNet8 on CIFAR-10{recipe_runs.note(rows)}, {first['epochs']} epochs "
        f"on clean images, trained on {hardware}. Clean accuracy on {first['clean_examples']:,} "
        "test images, mean ± sample standard deviation over n seeds, and its difference from "
        f"{PLAIN} in points. Each row is `python train.py --flagfile=zoo/recipes/ROW.cfg --seed=0` "
        "and so on, and has at most one flag more than that.",
        "",
        "| row | clean, % | difference | n | hours a run |",
        "|---|---|---|---|---|",
    ]
    grouped = recipe_runs.by(rows, "row")
    means = {
        name: np.mean([row["clean_accuracy"] for row in group]) for name, group in grouped.items()
    }
    for name, group in grouped.items():
        is_compared = PLAIN in means and name != PLAIN
        difference = f"{100 * (means[name] - means[PLAIN]):+.2f}" if is_compared else ""
        lines.append(
            f"| {name} | {recipe_runs.mean_text([row['clean_accuracy'] for row in group])} "
            f"| {difference} | {len(group)} | {np.mean([row['hours'] for row in group]):.1f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    commandline.run(sys.modules[__name__])
