"""What a training run says before it trains: on what, with what, and what will happen."""

import textwrap

from tfsparse.summaries import COLUMNS
from tfsparse.tables import aligned

_LABEL = 10  # columns of a label


def banner(recipe, hardware, versions, dataset, cost, done=0, taught=None, slow_bfloat16=False):
    """Returns what a run begins with, a str of lines of at most 100 columns.

    Args:
        recipe: {flag of train.py: value}.
        hardware: as `tfsparse.machine.hardware` returns it.
        versions: {package: version}.
        dataset: a `zoo.data.Dataset`.
        cost: the `tfsparse.cost.ModelCost` of the network.
        done: epochs that are done before.
        taught: accuracy of the teachers on the validation images, or None.
        slow_bfloat16: as `tfsparse.machine.has_slow_bfloat16` returns it.
    """
    used = [name for name in ("keras", "tensorflow", "jax") if name in versions]
    lines = {
        "device": f"{hardware}; {' on '.join(f'{name} {versions[name]}' for name in used)}",
        "data": _data(dataset),
        "network": _network(recipe, cost),
        "pruning": _pruning(recipe),
        "training": _training(recipe, dataset),
        "then": "evaluation on the test set, conversion to int8, verification, report",
        "time": "shown with the first steps, and what is left after each epoch",
    }
    if taught:
        lines["training"] += f", right on {100 * taught:.1f} % of the validation images"
    if slow_bfloat16 and recipe["dtype_policy"] == "mixed_bfloat16":
        lines["note"] = (
            "this processor has no AVX-512, and bfloat16 takes about ten times as long as float32: "
            "pass --dtype_policy=float32 to be faster, with another --workdir"
        )
    if done:
        lines["training"] += f"; continues after epoch {done}"
    rows = []
    for label, text in lines.items():
        first, *rest = textwrap.wrap(text, COLUMNS - _LABEL)
        rows += [[label, first], *(["", line] for line in rest)]
    return aligned(rows, left=2)


def _data(dataset):
    sizes = ", ".join(f"{count:,} {split}" for split, count in dataset.sizes.items())
    shape = " x ".join(map(str, dataset.image_shape))
    return f"{dataset.name}: {sizes} images, {shape}, {dataset.num_classes} classes"


def _network(recipe, cost):
    width = f" of width {recipe['width']}" if recipe["width"] else ""
    pattern = f" with periodic kernels {recipe['pattern']}" if recipe["pattern"] else ""
    return (
        f"{recipe['arch']}{width}{pattern}: {cost.parameters:,} parameters, "
        f"{cost.macs / 1e6:,.1f} M MACs"
    )


def _pruning(recipe):
    if recipe["prune"] == "none":
        return "none"
    budget = {"weights": "weights", "macs": "MACs"}[recipe["budget"]]
    return (
        f"{recipe['prune']}, {recipe['structure']}, to a density of {100 * recipe['density']:.4g} "
        f"% of the {budget} of convolutions"
    )


def _training(recipe, dataset):
    steps = dataset.sizes["train"] // recipe["batch_size"]
    epochs = f"{recipe['epochs']} epoch{'s' * (recipe['epochs'] > 1)}"
    text = f"{epochs} of {steps:,} steps, {recipe['batch_size']} images each; "
    if recipe["loss"] == "standard":
        text += "standard loss"
    else:
        attack = {"pgd": f"PGD-{recipe['attack_steps']}", "nfgsm": "N-FGSM"}[recipe["attack"]]
        clean = 100 * recipe["beta"]
        text += f"hybrid loss, {clean:.4g} % clean and {100 - clean:.4g} % adversarial: "
        text += f"{attack}, L_inf {255 * recipe['eps']:.4g}/255"
    if recipe["teacher"]:
        weight = f"{recipe['teacher_weight']:.4g}"
        text += f"; soft labels, weight {weight}, of {', '.join(recipe['teacher'])}"
    return text
