"""Does DNR work? Robust networks of equal training: dense, DNR, magnitude pruning, narrow.

    python -m zoo.studies.dnr --workdir=runs/dnr --output=docs

Runs `train.py` with each recipe and seed below, then attacks what it trained: PGD with 50 steps and
2 restarts on the first 1,000 test images. Channel-pruned networks are evaluated again without their
pruned channels. After each run --output holds dnr.json, the table dnr.md and the pictures of the
layers' densities. Runs that dnr.json holds are not repeated, and one that was stopped goes on from
its last epoch in --workdir.
"""

import csv
import json
import pathlib
import subprocess
import sys

from zoo import environment

if __name__ == "__main__":
    environment.prepare()

import keras
import numpy as np
from absl import flags

from tfsparse import attacks, commandline, cost, pruning
from tfsparse.errors import UsageError
from tfsparse.evaluation import accuracy
from tfsparse.files import replacing, write_bytes
from zoo.data import batches, open_dataset
from zoo.report import density_picture

# (recipe, seeds), shortest first: what the others are compared with comes before them.
ROWS = [
    ("resnet8_dense_robust_cifar10", (0, 1)),
    ("resnet8_dnr10_cifar10", (0, 1, 2)),
    ("resnet8_magnitude10_cifar10", (0, 1, 2)),
    ("resnet8_narrow_cifar10", (0, 1)),
    ("resnet8_dnr30_cifar10", (0, 1)),
    ("resnet8_dnr_channel50_cifar10", (0,)),
    ("vgg16_w16_dense_robust_cifar10", (0,)),
    ("vgg16_w16_dnr10_cifar10", (0,)),
    ("vgg16_w16_dnr5_cifar10", (0,)),
    ("vgg16_w16_magnitude5_cifar10", (0,)),
]
STEPS, RESTARTS, EXAMPLES = 50, 2, 1000
NAME = "dnr"
ROOT = pathlib.Path(__file__).parents[2]

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_string("workdir", None, "Folder of the runs.", required=True)
    flags.DEFINE_string("output", None, "Folder for table, pictures and JSON.", required=True)
    flags.DEFINE_string("data_dir", None, "Where TFDS keeps its data.")
    flags.DEFINE_string("note", "", "What a reader must know of the data, such as its form.")
    flags.DEFINE_list("recipes", [recipe for recipe, _ in ROWS], "Recipes to run.")
    flags.DEFINE_integer("epochs", None, "Epochs of each run, if not those of the recipes.")


def main():
    known = dict(ROWS)
    for recipe in FLAGS.recipes:
        if recipe not in known:
            raise UsageError(f"--recipes are some of {', '.join(known)}. Received: {recipe}")
    output = pathlib.Path(FLAGS.output)
    rows = recorded(output / f"{NAME}.json")
    jobs = [(seed, name) for name in FLAGS.recipes for seed in known[name]]
    for seed, name in sorted(jobs, key=lambda job: job[0]):
        if any((row["recipe"], row["seed"]) == (name, seed) for row in rows):
            continue
        print(f"{name}, seed {seed}", flush=True)
        folder = pathlib.Path(FLAGS.workdir) / f"{name}_seed{seed}"
        train(name, seed, folder)
        rows += evaluate(name, folder)
        rows.sort(key=lambda row: list(known).index(row["recipe"]))
        picture = density_picture(read_history(folder))
        if picture and seed == 0:
            with replacing(output / f"{NAME}_{name}.png") as partial:
                picture.savefig(partial, dpi=100)
        pictures = [each for each in known if (output / f"{NAME}_{each}.png").exists()]
        write_bytes(output / f"{NAME}.json", json.dumps(rows, indent=2) + "\n")
        write_bytes(output / f"{NAME}.md", page(rows, FLAGS.note, pictures))


def recorded(path):
    """Returns the rows in the JSON file at `path`, if it is there."""
    if not path.exists():
        return []
    try:
        return [dict(row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"Cannot read the rows in {path}: {error!r}. Remove the file.") from error


def train(recipe, seed, folder):
    """Runs train.py to its end, unless it got there before."""
    if (folder / "report.json").exists():
        return
    arguments = [f"--flagfile=zoo/recipes/{recipe}.cfg", f"--workdir={folder.resolve()}"]
    arguments += [f"--seed={seed}"]
    if FLAGS.data_dir:
        arguments += [f"--data_dir={FLAGS.data_dir}"]
    if FLAGS.epochs:
        arguments += [f"--epochs={FLAGS.epochs}"]
    done = subprocess.run([sys.executable, "train.py", *arguments], cwd=ROOT, check=False)
    if not (folder / "report.json").exists():
        raise UsageError(f"train.py ended with status {done.returncode} before {recipe} was done.")


def evaluate(recipe, folder):
    """Returns the rows of a finished run: dicts of what the network costs and reaches."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    models = {recipe: keras.saving.load_model(folder / "model.keras", compile=False)}
    if report["recipe"]["structure"] == "channel":
        models[f"{recipe}, channels removed"] = pruning.remove_channels(models[recipe])
    dataset = open_dataset(report["dataset"], report["data_dir"], report["image_size"])
    images, labels = dataset.read("test")
    rows = []
    for name, model in models.items():
        attack = attacks.pgd(model, report["recipe"]["eps"], STEPS)
        few = batches(images[:EXAMPLES], labels[:EXAMPLES], 250)
        spent = cost.model_cost(model)
        rows.append(
            {
                "recipe": recipe,
                "row": name,
                "seed": report["seed"],
                "epochs": report["epochs"],
                "density": report["density"],
                "parameters": spent.parameters,
                "nonzero_parameters": spent.nonzeros,
                "macs": spent.macs,
                "clean_accuracy": accuracy(model, batches(images, labels, 500)),
                "clean_examples": len(images),
                "robust_accuracy": accuracy(model, few, attack, restarts=RESTARTS),
                "robust_attack": f"PGD-{STEPS}, {RESTARTS} restarts",
                "robust_examples": len(images[:EXAMPLES]),
                "hours": report["seconds_per_epoch"] * report["epochs"] / 3600,
                "hardware": report["hardware"],
            }
        )
    return rows


def read_history(folder):
    with open(folder / "history.csv", newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def page(rows, note, pictures):
    """Returns the Markdown page of all rows, with the pictures of those recipes' densities."""
    parts = [table(rows, note)]
    if pictures:
        parts += ["## Share of each layer's weights that exist, over the epochs (seed 0)\n"]
        parts += [f"{each}\n\n![Densities of {each}]({NAME}_{each}.png)\n" for each in pictures]
    return "\n".join(parts)


def table(rows, note):
    """Returns the Markdown table of all rows: mean and spread over the seeds of each recipe."""
    first = rows[0]
    lines = [
        "# DNR beside its rivals",
        "",
        f"CIFAR-10{f' ({note})' if note else ''}, hybrid loss with a one-step attack, L_inf 8/255, "
        f"{first['epochs']} epochs each, trained on {first['hardware']}. Clean accuracy on "
        f"{first['clean_examples']:,} test images, robust under {first['robust_attack']} on the "
        f"first {first['robust_examples']:,}. Mean ± sample standard deviation over n seeds. "
        "Each row is `python train.py --flagfile=zoo/recipes/ROW.cfg --seed=0` and so on.",
        "",
        "| row | weights kept | MACs, M | clean, % | robust, % | n | hours a run |",
        "|---|---|---|---|---|---|---|",
    ]
    grouped = {}
    for row in rows:
        grouped.setdefault(row["row"], []).append(row)
    for name, group in grouped.items():
        lines.append(
            f"| {name} | {group[0]['nonzero_parameters']:,} of {group[0]['parameters']:,} "
            f"| {group[0]['macs'] / 1e6:.2f} "
            f"| {_mean([row['clean_accuracy'] for row in group])} "
            f"| {_mean([row['robust_accuracy'] for row in group])} | {len(group)} "
            f"| {np.mean([row['hours'] for row in group]):.1f} |"
        )
    return "\n".join(lines) + "\n"


def _mean(fractions):
    values = 100 * np.array(fractions)
    spread = f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""
    return f"{values.mean():.2f}{spread}"


if __name__ == "__main__":
    define_flags()
    commandline.run(main)
