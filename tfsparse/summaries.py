"""The cost of a model as a table: layer by layer, and in total."""

from tfsparse import energy
from tfsparse.cost import model_cost
from tfsparse.storage import FORMATS
from tfsparse.tables import aligned

_HEADER = ["layer", "kernel", "parameters", "non-zeros", "MACs"]
_TITLES = {"dense": "dense", "csr": "CSR", "bitmap": "bitmap", "periodic": "periodic"}


def summary(model, bits=32, print_fn=print):
    """Prints what `model` costs for one image: a table of its kernels, then memory and energy.

    For each layer with a kernel, and in total, the table has the kernel shape, parameters,
    non-zeros, MACs, and the storage in kbit (1000 bits) in each format of `tfsparse.storage`. A
    layer without a periodic pattern has "-" in that column and counts as dense in its total. DRAM
    traffic and energy below the table are modeled, not measured: see
    `tfsparse.cost.LayerCost.dram_traffic` and `tfsparse.energy`.

    Args:
        model: built functional or Sequential Keras model with a fixed input size.
        bits: of a weight and of an activation: 8, 16, or 32.
        print_fn: function that is called with each line.

    Raises:
        UsageError: if the model is another one, or `bits` another number.

    Example:
        >>> tfsparse.summary(keras.applications.ResNet50())
    """
    cost = model_cost(model)
    closing = _closing(cost, bits)
    for line in [*_table(cost, bits), "", *closing]:
        print_fn(line)


def _table(cost, bits):
    rows = [[*_HEADER, *(f"{_TITLES[name]}, kbit" for name in FORMATS)]]
    for layer in cost.layers:
        shape = "x".join(map(str, layer.kernel_shape))
        rows.append([layer.name, shape, *_figures(layer, layer.parameters, layer.nonzeros, bits)])
    parameters = sum(layer.parameters for layer in cost.layers)
    nonzeros = sum(layer.nonzeros for layer in cost.layers)
    rows.append(["total", "", *_figures(cost, parameters, nonzeros, bits)])
    return aligned(rows, left=2).splitlines()


def _figures(cost, parameters, nonzeros, bits):
    sizes = cost.storage(bits)
    return [
        *(f"{count:,}" for count in (parameters, nonzeros, cost.macs)),
        *("-" if sizes[name] is None else f"{sizes[name] / 1000:,.1f}" for name in FORMATS),
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
