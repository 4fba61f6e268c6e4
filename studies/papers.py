"""The papers' own experiments as recipes: what each is, and how long a GPU would take.

    python -m studies.papers --output=docs

Counts the MACs of the network in each recipe in zoo/recipes/papers/, and from them the operations
of its training. Nothing is trained. Writes --output/papers.md.
"""

import pathlib

from absl import flags

import zoo
from tfsparse import cost
from tfsparse.files import write_bytes
from zoo.commands import commandline

NAME = "papers"
ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "zoo" / "recipes" / "papers"
SHARED = ("periodic", "dnr")  # what recipes have in common; none themselves
# Shape of an image, classes, images that train.py trains on: nine tenths.
DATASETS = {
    "cifar10": ((32, 32, 3), 10, 45_000),
    "cifar100": ((32, 32, 3), 100, 45_000),
    "tiny_imagenet": ((64, 64, 3), 200, 90_000),
}

TFLOPS = 10  # what the GPU sustains, 10^12 operations a second

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_string("output", None, "Folder for the table.", required=True)


def main():
    write_bytes(pathlib.Path(FLAGS.output) / f"{NAME}.md", page())


def recipes():
    """Returns {name: {flag: str}} of all recipes, those that they include among them."""
    paths = sorted(FOLDER.glob("*.cfg"))
    return {path.stem: read(path) for path in paths if path.stem not in SHARED}


def read(path):
    """Returns {flag: str} of a flag file and the ones that it includes."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("--"):
            name, value = line[2:].split("=", 1)
            found |= read(ROOT / value) if name == "flagfile" else {name: value}
    return found


def operations(recipe, macs):
    """Returns the floating-point operations of training with a recipe, two for each MAC.

    An image costs a forward pass and two of the same size backwards, to weights and to inputs. With
    the hybrid loss there is its adversarial twin too, and each step of the attack on it costs a
    forward and a backward pass.
    """
    passes = 3
    if recipe["loss"] == "hybrid":
        passes = 3 * 2 + 2 * int(recipe["attack_steps"])
    *_, images = DATASETS[recipe["dataset"]]
    return 2 * macs * passes * images * int(recipe["epochs"])


def page():
    """Returns the Markdown page."""
    lines = [
        "# The papers' experiments",
        "",
        "From `python -m studies.papers`: `python train.py "
        "--flagfile=zoo/recipes/papers/ROW.cfg` trains a network of the papers at its full "
        "width, on their data set. The rows of the periodic paper have its epochs, batches and "
        "peak learning rate, but this project's schedule, a tenth after half and after three "
        "quarters of the epochs (theirs: a fifth after 40, 80, 100, 115, 130 and 140), and its "
        "optimizer: Nesterov momentum, decoupled weight decay, none of it on biases and "
        "BatchNorm. Its epochs are known of the rows with two and with four taps; that those "
        "with one tap, the dense ones and its rivals, MobileNetV2 and ShuffleNet, are trained "
        "alike is our reading. The rows of DNR have its density, epochs and batches; 50 % of "
        "the channels, an attack of seven steps in training, a loss of which half is clean, and"
        " a peak learning rate of 0.1 are our reading, for which we have no source. Hours are "
        "computed, from the operations of a dense network's training, which TensorFlow's "
        f"profiler confirms in the tests, and a GPU that sustains {TFLOPS} TFLOPS, half of the"
        " float32 peak of an NVIDIA A100. Depthwise convolutions wait for memory, so that the "
        "hours of MobileNetV2 and ShuffleNet are a lower bound. No row has been trained here. "
        "What runs of the same methods reach on smaller networks is in [claims.md](claims.md), "
        "[dnr.md](dnr.md) and [pattern_accuracy.md](pattern_accuracy.md).",
        "",
        "| row | data set | MACs of the dense network, M | epochs | PFLOP | GPU hours |",
        "|---|---|---|---|---|---|",
    ]
    macs = {}
    for name, recipe in recipes().items():
        shape, classes, _ = DATASETS[recipe["dataset"]]
        width = int(recipe["width"]) if "width" in recipe else None
        network = recipe["arch"], shape, classes, width
        if network not in macs:
            macs[network] = cost.model_cost(zoo.build(*network)).macs
        spent = operations(recipe, macs[network])
        lines.append(
            f"| {name} | {recipe['dataset']} | {macs[network] / 1e6:,.0f} | {recipe['epochs']} "
            f"| {spent / 1e15:,.0f} | {spent / (TFLOPS * 1e12) / 3600:.1f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    commandline.run(sys.modules[__name__])
