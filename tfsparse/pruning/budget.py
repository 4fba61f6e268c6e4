"""How a budget of weights or MACs is shared among layers, in whole units. NumPy only.

A *unit* is what is pruned as one: a weight, or all weights of an input channel. What each unit of a
layer takes of the budget is its *cost*: its weights, or its multiply-accumulates for one image.
Each function takes a list of `rewiring.LayerState` and a density, the share of the cost of all
units, and returns int [layers], the units that each layer keeps.
"""

import numpy as np

from tfsparse.pruning.ranking import top


def allot(shares, unit_costs, capacities, total):
    """Divides a budget of `total` among layers, in whole units.

    Layers get of it in proportion to `shares`; what a full layer cannot take is shared among the
    others, repeatedly. Fractions of units are settled by largest remainder.

    Args:
        shares: float [layers], not negative.
        unit_costs: float [layers], what a unit takes of the budget.
        capacities: int [layers], the most units a layer can take.
        total: the budget.

    Returns:
        int [layers], units for each layer. If all units cost 1, their sum is `total` exactly, or
        that of all capacities if it is less. Otherwise what is left is too little for a unit.
    """
    shares = np.asarray(shares, float)
    costs = np.asarray(unit_costs, float)
    capacities = np.asarray(capacities)
    room = capacities * costs
    ideal = np.zeros_like(room)
    remaining = min(float(total), room.sum())
    while remaining > 1e-6:
        is_open = room - ideal > 1e-9
        if not is_open.any():
            break
        weights = np.where(is_open, shares, 0.0)
        if weights.sum() == 0.0:
            weights = np.where(is_open, room - ideal, 0.0)
        given = np.minimum(remaining * weights / weights.sum(), room - ideal)
        ideal += given
        remaining -= given.sum()
    units = np.minimum(np.floor(ideal / costs + 1e-9).astype(np.int64), capacities)
    left = total - np.sum(units * costs)
    order = np.argsort(units - ideal / costs, kind="stable")  # largest remainder first
    progress = True
    while progress:
        progress = False
        for layer in order:
            if units[layer] < capacities[layer] and costs[layer] <= left + 1e-6:
                units[layer] += 1
                left -= costs[layer]
                progress = True
    return units


def rounded(layers, density):
    """The density in each layer, rounded to units on its own, at least one unit."""
    return np.array([max(1, round(density * layer.active.size)) for layer in layers])


def uniform(layers, density):
    """The density in each layer, at least one unit, and the exact total."""
    counts, costs, total = _costs(layers, density)
    shares = np.maximum(density * counts * costs - costs, 0.0)
    return 1 + allot(shares, costs, counts - 1, total - costs.sum())


def erdos_renyi_kernel(layers, density):
    """Weights in proportion to the sum of the kernel's dimensions, at most all that a layer has.

    So layer l keeps epsilon * (height + width + channels + filters) weights, and its density is
    that over their product (Evci et al., RigL, ICML 2020, section 3). Epsilon follows from the
    total, which is exact; each layer keeps at least one unit. A periodic layer counts with its
    dense kernel's dimensions, and keeps at most the weights that it stores.
    """
    counts, costs, total = _costs(layers, density)
    shares = [sum(layer.kernel_shape) * layer.unit_cost / layer.unit_size for layer in layers]
    single = np.zeros(len(layers), bool)  # the layers that would be left without a unit
    while True:
        capacities = np.where(single, 0, counts)
        units = single + allot(shares, costs, capacities, total - costs[single].sum())
        if units.all():
            return units
        single |= units == 0


def ranked(layers, density):
    """The units of largest root mean square weight of all layers, and the largest of each."""
    counts, costs, total = _costs(layers, density)
    scores = [layer.weight / np.sqrt(layer.unit_size) for layer in layers]
    for score in scores:
        score[np.argmax(score)] = np.inf
    if (costs == costs[0]).all():  # as of single weights, of which there are millions
        kept = top(np.concatenate(scores), max(int((total + 1e-6) // costs[0]), len(layers)))
        return np.array([np.count_nonzero(part) for part in np.split(kept, np.cumsum(counts)[:-1])])
    owners = np.repeat(np.arange(len(layers)), counts)
    owners = owners[np.argsort(-np.concatenate(scores), kind="stable")]
    kept = np.searchsorted(np.cumsum(costs[owners]), total + 1e-6)
    return np.bincount(owners[: max(kept, len(layers))], minlength=len(layers))


def total_cost(layers, density):
    """Returns the budget: what `density` leaves of the cost of all units, rounded to an int."""
    return round(density * sum(layer.active.size * layer.unit_cost for layer in layers))


def _costs(layers, density):
    """Returns the number of units of each layer, the cost of each of these, and the budget."""
    counts = np.array([layer.active.size for layer in layers])
    costs = np.array([layer.unit_cost for layer in layers], float)
    return counts, costs, total_cost(layers, density)
