"""How a budget of weights is shared among layers, in whole units. NumPy only.

A *unit* is what is pruned as one: a weight, or all weights of an input channel. A layer has units
of one size, in weights. Each function takes a list of `rewiring.LayerState` and a density, that of
all their weights together, and returns int [layers], the units that each layer keeps.
"""

import numpy as np


def allot(shares, unit_sizes, capacities, total):
    """Divides `total` weights among layers, in whole units.

    Layers get weights in proportion to `shares`; what a full layer cannot take is shared among the
    others, repeatedly. Fractions of units are settled by largest remainder.

    Args:
        shares: float [layers], not negative.
        unit_sizes: float [layers], weights in a unit.
        capacities: int [layers], the most units a layer can take.
        total: weights to divide.

    Returns:
        int [layers], units for each layer. With units of one weight their sum is `total` exactly,
        or the sum of all capacities if that is less; with larger units less than one unit is left.
    """
    shares = np.asarray(shares, float)
    sizes = np.asarray(unit_sizes, float)
    capacities = np.asarray(capacities)
    room = capacities * sizes
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
    units = np.minimum(np.floor(ideal / sizes + 1e-9).astype(np.int64), capacities)
    left = total - np.sum(units * sizes)
    order = np.argsort(units - ideal / sizes, kind="stable")  # largest remainder first
    progress = True
    while progress:
        progress = False
        for layer in order:
            if units[layer] < capacities[layer] and sizes[layer] <= left + 1e-6:
                units[layer] += 1
                left -= sizes[layer]
                progress = True
    return units


def rounded(layers, density):
    """The density in each layer, rounded to units on its own, at least one unit."""
    return np.array([max(1, round(density * layer.active.size)) for layer in layers])


def uniform(layers, density):
    """The density in each layer, at least one unit, and the exact total."""
    counts, sizes, total = _sizes(layers, density)
    shares = np.maximum(density * counts * sizes - sizes, 0.0)
    return 1 + allot(shares, sizes, counts - 1, total - sizes.sum())


def erdos_renyi_kernel(layers, density):
    """Weights in proportion to the sum of the kernel's dimensions, at most all that a layer has.

    So layer l keeps epsilon * (height + width + channels + filters) weights, and its density is
    that over their product (Evci et al., RigL, ICML 2020, section 3). Epsilon follows from the
    total, which is exact; each layer keeps at least one unit. A periodic layer counts with its
    dense kernel's dimensions, and keeps at most the weights that it stores.
    """
    counts, sizes, total = _sizes(layers, density)
    shares = [sum(layer.kernel_shape) for layer in layers]
    single = np.zeros(len(layers), bool)  # the layers that would be left without a unit
    while True:
        capacities = np.where(single, 0, counts)
        units = single + allot(shares, sizes, capacities, total - sizes[single].sum())
        if units.all():
            return units
        single |= units == 0


def ranked(layers, density):
    """The units of largest root mean square weight of all layers, and the largest of each."""
    counts, sizes, total = _sizes(layers, density)
    scores = [layer.weight / np.sqrt(layer.unit_size) for layer in layers]
    for score in scores:
        score[np.argmax(score)] = np.inf
    owners = np.repeat(np.arange(len(layers)), counts)
    owners = owners[np.argsort(-np.concatenate(scores), kind="stable")]
    kept = np.searchsorted(np.cumsum(sizes[owners]), total + 1e-6)
    return np.bincount(owners[: max(kept, len(layers))], minlength=len(layers))


def total_weights(layers, density):
    """Returns the number of weights that `density` leaves of all layers."""
    return round(density * sum(layer.active.size * layer.unit_size for layer in layers))


def _sizes(layers, density):
    """Returns the number of units of each layer, the weights in each of these, and the total."""
    counts = np.array([layer.active.size for layer in layers])
    sizes = np.array([layer.unit_size for layer in layers], float)
    return counts, sizes, total_weights(layers, density)
