"""Prints the README's table of trained models from their cards: `python -m zoo.table`."""

from zoo.models import card, list_models

_HEADER = (
    "| name | data | weights kept / dense | MACs kept / dense, M | clean % | PGD-20 % | int8 kB |",
    "|---|---|---|---|---|---|---|",
)


def markdown():
    """Returns the table, a str of lines, one for each model."""
    return "\n".join([*_HEADER, *(_row(card(name)) for name in list_models())])


def _row(model):
    weights = f"{model['nonzero_parameters']:,} / {model['dense_parameters']:,}"
    macs = f"{model['nonzero_macs'] / 1e6:.1f} / {model['dense_macs'] / 1e6:.1f}"
    robust = f"{100 * model['robust_accuracy']:.1f} (n={model['robust_examples']:,})"
    clean = f"{100 * model['clean_accuracy']:.1f} (n={model['clean_examples']:,})"
    data = model["dataset"] + (f" ({model['note']})" if model["note"] else "")
    cells = [f"`{model['name']}`", data, weights, macs, clean, robust]
    return f"| {' | '.join(cells)} | {model['tflite']['bytes'] / 1000:.0f} |"


if __name__ == "__main__":
    print(markdown())
