"""The papers' own experiments as flags of train.py, and how long a GPU would take for each.

    python -m studies papers

The recipes zoo/recipes/papers/periodic.cfg and dnr.cfg train the dense baselines of the two papers;
the flags of a row, after one of them, make it any other experiment. Counts the MACs of each
network, and from them the operations of its training. Nothing is trained. Writes papers.md.
"""

from studies import ROOT, costs, records
from tfsparse import tables

NAME = "papers"
RECORDS = ()
FOLDER = ROOT / "zoo" / "recipes" / "papers"
# Side of an image, classes, and images that train.py trains on: nine tenths.
DATASETS = {
    "cifar10": (32, 10, 45_000),
    "cifar100": (32, 100, 45_000),
    "tiny_imagenet": (64, 200, 90_000),
}
TFLOPS = 10  # what the GPU sustains, 10^12 operations a second
TWO_TAPS = {"pSC2", "PS2_P6", "PSD2_P8", "PSD2_P16"}
BASELINES = {
    "mobilenet_v2": {},
    # One and a half times the published width: about the paper's multiply-accumulates.
    "shufflenet": {"width": "304"},
}
PRUNED = (
    {},
    {"prune": "dnr", "density": "0.05"},
    {"prune": "dnr", "structure": "channel", "density": "0.5"},
)


def define_flags():
    records.define_output()


def main():
    records.write_page(NAME, page())


def read(recipe):
    """Returns the flags of a recipe in FOLDER, {name: str}."""
    lines = (FOLDER / f"{recipe}.cfg").read_text(encoding="utf-8").splitlines()
    return dict(line[2:].split("=", 1) for line in lines if line.startswith("--"))


def rows():
    """Returns the rows of both papers: list of (recipe, {flag to add: str})."""
    found = []
    for dataset in ("cifar10", "tiny_imagenet"):
        for arch, variants in costs.PUBLISHED.items():
            for variant in variants:
                more = {"pattern": variant} if variant != "dense" else {}
                if variant in TWO_TAPS:
                    more |= {"epochs": "120", "batch_size": "64"}
                found.append(("periodic", {"arch": arch, **more, "dataset": dataset}))
        for arch, more in BASELINES.items():
            found.append(("periodic", {"arch": arch, **more, "dataset": dataset}))
    for arch, datasets in (("vgg16", list(DATASETS)), ("resnet18", ["cifar10", "cifar100"])):
        for dataset in datasets:
            found += [("dnr", {"arch": arch, **more, "dataset": dataset}) for more in PRUNED]
    recipes = {recipe: read(recipe) for recipe in ("periodic", "dnr")}
    return [
        (recipe, {name: value for name, value in own.items() if recipes[recipe].get(name) != value})
        for recipe, own in found
    ]


def operations(flags, macs):
    """Returns the floating-point operations of a training, two for each MAC.

    An image costs a forward pass and two backward passes of the same size, to weights and to
    inputs. The hybrid loss also trains on its adversarial example, and each step of the attack
    costs a forward and a backward pass.

    Args:
        flags: {flag of train.py: str}.
        macs: of the dense network, for one image.
    """
    passes = 3
    if flags["loss"] == "hybrid":
        passes = 3 * 2 + 2 * int(flags["attack_steps"])
    *_, images = DATASETS[flags["dataset"]]
    return 2 * macs * passes * images * int(flags["epochs"])


def page():
    """Returns the Markdown page."""
    lines = []
    for recipe, own in rows():
        settings = read(recipe) | own
        side, classes, _ = DATASETS[settings["dataset"]]
        width = int(settings["width"]) if "width" in settings else None
        macs = costs.count(settings["arch"], side, classes, width=width).macs
        spent = operations(settings, macs)
        added = " ".join(f"--{name}={value}" for name, value in own.items())
        line = [recipe, f"`{added}`" if added else "", f"{macs / 1e6:,.0f}", settings["epochs"]]
        lines.append([*line, f"{spent / 1e15:,.0f}", f"{spent / (TFLOPS * 1e12) / 3600:.1f}"])
    header = "recipe|flags to add|MACs of the dense network, M|epochs|PFLOP|GPU hours"
    return records.fill(NAME, tflops=TFLOPS, rows=tables.markdown(header.split("|"), lines))
