"""Why channels and filters without weights stay."""

import collections

import numpy as np

from tfsparse import graph
from tfsparse.channels.rules import FILTERS
from tfsparse.channels.tracing import reads


def what_stays(model, trace, kept, whole):
    """Yields a line for each layer whose input channels or filters without weights stay.

    Args:
        model: the Keras model.
        trace: its `Trace`.
        kept: what the trace's `kept()` returned.
        whole: set of periodic layers that stay whole.
    """
    roots, reasons = trace.roots(), _reasons(trace, kept)
    for layer in dict.fromkeys(graph.leaf_layers(model)):
        if not isinstance(layer, FILTERS) or getattr(layer, "kernel", None) is None:
            continue
        weights = reads(layer)
        if layer not in trace.layers:
            why = "as a Conv2D, it would be no smaller" if layer in whole else "it is not followed"
            silent = int(np.sum(~weights.any(axis=1)))
            if silent:
                yield f"{_count(layer, silent, len(weights), 'input channels')}: {why}"
            continue
        for axis, kind in ((1, "input channels"), (0, "filters")):
            numbers = trace.layers[layer][1 - axis]
            silent = numbers[~weights.any(axis=axis) & kept[numbers]]
            found = collections.Counter(why for c in silent for why in reasons[roots[c]])
            if found:
                whys = ", ".join(f"{why} ({count})" for why, count in found.items())
                yield f"{_count(layer, len(silent), len(numbers), kind)}: read {whys}"


def _count(layer, silent, total, kind):
    return f"{layer.name}: {silent} of {total} {kind} without weights stay"


def _reasons(trace, kept):
    """Returns {root: list of reasons to stay, each of which continues "read "}."""
    roots, found = trace.roots(), collections.defaultdict(dict)
    for channels, reason in trace.reads:
        for root in roots[channels]:
            found[root][reason] = None
    for layer, (inputs, outputs) in trace.layers.items():
        if isinstance(layer, FILTERS):
            for root in roots[inputs[reads(layer)[:, kept[outputs]].any(axis=1)]]:
                found[root][f"by {layer.name}"] = None
    for root in trace.lonely:
        found[root]["by nothing, but a tensor needs a channel"] = None
    return found
