"""The cost of a model as a table: layer by layer, and in total."""

import textwrap
from collections.abc import Callable

import keras

from tfsparse import energy
from tfsparse.cost import ModelCost, model_cost
from tfsparse.tables import aligned

COLUMNS = 100  # of a terminal

_HEADER = ["layer", "kernel", "parameters", "non-zeros", "MACs"]


def summary(
    model: keras.Model, bits: int = 32, print_fn: Callable[[str], object] = print
) -> ModelCost:
    """Prints what `model` costs for one image: a table of its kernels, then memory and energy.

    For each layer with a kernel, and in total, the table has the kernel shape, parameters,
    non-zeros, MACs, and the storage in kB (1000 bytes): dense, in the smallest format of
    `tfsparse.storage`, and dense with 8 bits for each weight, as in an int8 file. DRAM traffic and
    energy below the table are modeled, not measured: see `tfsparse.cost.LayerCost.dram_traffic` and
    `tfsparse.energy`. No line has more than 100 columns; long names are shortened.

    Args:
        model: built functional or Sequential Keras model with a fixed input size.
        bits: of a weight and of an activation: 8, 16, or 32.
        print_fn: function that is called with each line.

    Returns:
        The `tfsparse.cost.ModelCost` that is printed.

    Raises:
        UsageError: if the model is another one, or `bits` another number.

    Examples:
        >>> cost = tfsparse.summary(keras.applications.ResNet50())
    """
    cost = model_cost(model)
    closing = [line for text in _closing(cost, bits) for line in textwrap.wrap(text, COLUMNS)]
    for line in [*_table(cost, bits), "", *closing]:
        print_fn(line)
    return cost


def _table(cost, bits):
    rows = [[*_HEADER, f"{bits}-bit kB", "smallest kB", "int8 kB"]]
    for layer in cost.layers:
        shape = "x".join(map(str, layer.kernel_shape))
        rows.append([layer.name, shape, *_figures([layer], bits)])
    rows.append(["total", "", *_figures(cost.layers, bits)])
    lines = aligned(rows, left=2).splitlines()
    longest = max(len(row[0]) for row in rows) - max(0, max(map(len, lines)) - COLUMNS)
    for row in rows:
        if len(row[0]) > longest:  # names of one network mostly differ at their ends
            row[0] = "…" + row[0][1 - longest :]
    return aligned(rows, left=2).splitlines()


def _figures(layers, bits):
    sizes = [layer.storage(bits) for layer in layers]
    parameters = sum(layer.parameters for layer in layers)
    nonzeros = sum(layer.nonzeros for layer in layers)
    smallest = sum(min(size for size in each.values() if size is not None) for each in sizes)
    form = ""
    if len(layers) == 1:
        form = next(name for name, size in sizes[0].items() if size == smallest) + " "
    return [
        *(f"{count:,}" for count in (parameters, nonzeros, sum(layer.macs for layer in layers))),
        f"{sum(each['dense'] for each in sizes) / 8000:,.1f}",
        f"{form}{smallest / 8000:,.1f}",
        f"{parameters / 1000:,.1f}",
    ]


def _closing(cost, bits):
    traffic = cost.dram_traffic(bits)
    spent = energy.estimate(cost.nonzero_macs, traffic.words, bits)
    lines = [
        f"All parameters, biases and normalization included: {cost.parameters:,}",
        f"MACs with non-zero weights: {cost.nonzero_macs:,}",
        f"DRAM traffic, {bits}-bit numbers: {traffic.words:,} words of 32 bits "
        f"({traffic.weights / 32:,.0f} weights, {traffic.activations / 32:,.0f} activations). Each "
        "call of a layer reads its input and its kernel, in the smallest format, and writes its "
        "output, once; all operations between layers are fused.",
        f"Energy, modeled: {_microjoules(spent.total)} = arithmetic "
        f"{_microjoules(spent.arithmetic)} + cache {_microjoules(spent.cache)} + DRAM "
        f"{_microjoules(spent.dram)}, of the MACs and words above; {energy.SOURCE}.",
    ]
    if cost.uncounted:
        lines.append(f"Not in the table, as their MACs are unknown: {', '.join(cost.uncounted)}")
    return lines


def _microjoules(picojoules):
    return f"{picojoules / 1e6:,.3f} µJ"
