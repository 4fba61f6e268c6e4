"""Does DNR work? Robust networks of equal training: dense, DNR, magnitude pruning, narrow.

    python -m studies.dnr --workdir=runs/dnr --output=docs

Runs `train.py` with each recipe and seed below and attacks what it trained, as
`studies.recipe_runs` says. After each run --output holds dnr.json, the table dnr.md and the
pictures of the layers' densities.
"""

import pathlib

import numpy as np
from absl import flags

from studies import recipe_runs
from tfsparse.files import replacing, write_bytes
from zoo.commands import commandline
from zoo.report import density_picture

# {recipe: seeds}, shortest first: what the others are compared with comes before them.
ROWS = {
    "resnet8_dense_robust_cifar10": (0, 1),
    "resnet8_dnr10_cifar10": (0, 1, 2),
    "resnet8_magnitude10_cifar10": (0, 1, 2),
    "resnet8_narrow_cifar10": (0, 1),
    "resnet8_dnr30_cifar10": (0, 1),
    "resnet8_dnr_channel50_cifar10": (0,),
    "vgg16_w16_dense_robust_cifar10": (0,),
    "vgg16_w16_dnr10_cifar10": (0,),
    "vgg16_w16_dnr5_cifar10": (0, 1),
    "vgg16_w16_magnitude5_cifar10": (0,),
    "resnet18_w16_dense_robust_cifar10": (0,),
    "resnet18_w16_dnr10_cifar10": (0,),
    "resnet18_w16_dnr_channel50_cifar10": (0,),
    "resnet18_w16_psd2p8_dnr30_cifar10": (0,),
}
NAME = "dnr"

FLAGS = flags.FLAGS


def main():
    output = pathlib.Path(FLAGS.output)

    def report(rows):
        for recipe in ROWS:
            folder = pathlib.Path(FLAGS.workdir) / f"{recipe}_seed0"
            is_done = (folder / "report.json").exists()
            if is_done and (picture := density_picture(recipe_runs.read_history(folder))):
                with replacing(output / f"{NAME}_{recipe}.png") as partial:
                    picture.savefig(partial, dpi=100)
        write_bytes(output / f"{NAME}.md", page(rows, pictures(output)))

    report(recipe_runs.collect(output / f"{NAME}.json", ROWS, report))


def pictures(output):
    """Returns the recipes of whose densities there is a picture in the folder `output`."""
    return [recipe for recipe in ROWS if (output / f"{NAME}_{recipe}.png").exists()]


def page(rows, pictures):
    """Returns the Markdown page of all rows, with the pictures of those recipes' densities."""
    parts = [table(rows)]
    if pictures:
        parts += ["## Share of each layer's weights that exist, over the epochs (seed 0)\n"]
        parts += [f"{each}\n\n![Densities of {each}]({NAME}_{each}.png)\n" for each in pictures]
    return "\n".join(parts)


def table(rows):
    """Returns the Markdown table of all rows: mean and spread over the seeds of each recipe."""
    first = rows[0]
    hardware = " or ".join(sorted({row["hardware"] for row in rows}))
    lines = [
        "# DNR beside its rivals",
        "",
        f"CIFAR-10{recipe_runs.note(rows)}, hybrid loss with a one-step attack, L_inf 8/255, "
        f"{first['epochs']} epochs each, trained on {hardware}. Clean accuracy on "
        f"{first['clean_examples']:,} test images, robust under {first['robust_attack']} on the "
        f"first {first['robust_examples']:,}. Mean ± sample standard deviation over n seeds. "
        "Each row is `python train.py --flagfile=zoo/recipes/ROW.cfg --seed=0` and so on.",
        "",
        "| row | weights kept | MACs, M | clean, % | robust, % | n | hours a run |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, group in recipe_runs.by(rows, "row").items():
        lines.append(
            f"| {name} | {group[0]['nonzero_parameters']:,} of {group[0]['parameters']:,} "
            f"| {group[0]['macs'] / 1e6:.2f} "
            f"| {recipe_runs.mean_text([row['clean_accuracy'] for row in group])} "
            f"| {recipe_runs.mean_text([row['robust_accuracy'] for row in group])} | {len(group)} "
            f"| {np.mean([row['hours'] for row in group]):.1f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    commandline.run(sys.modules[__name__])
