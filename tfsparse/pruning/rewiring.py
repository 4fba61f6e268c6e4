"""DNR's rewiring: how many units each layer drops and regrows, and which. NumPy only.

A *unit* is what is pruned as one: a weight, or all weights of an input channel. A layer has units
of one size, in weights.

Source: Kundu et al., "DNR", ASP-DAC 2021, arXiv 2011.03083, which builds on Dettmers and
Zettlemoyer, "Sparse Networks from Scratch", 2019, arXiv 1907.04840 (sparse momentum). Those keep
the number of weights near its target; here it is met exactly, by largest remainders.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass
class LayerState:
    """What rewiring needs to know about a layer.

    Attributes:
        active: bool [units], the units that exist.
        weight_score: float [units], the Frobenius norm of each unit's weights.
        momentum_score: float [units], that of its momentum.
        momentum_mean: mean magnitude of the momentum over active weights.
        unit_size: weights in a unit.
    """

    active: np.ndarray
    weight_score: np.ndarray
    momentum_score: np.ndarray
    momentum_mean: float
    unit_size: float


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
        or all capacities where these are fewer; with larger units less than one unit is left over.
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


def initial_units(unit_counts, unit_sizes, density, total):
    """Returns how many units each layer starts with: `density` in each, `total` weights in all.

    Every layer has at least one.
    """
    counts, sizes = np.asarray(unit_counts), np.asarray(unit_sizes, float)
    shares = np.maximum(density * counts * sizes - sizes, 0.0)
    return 1 + allot(shares, sizes, counts - 1, total - sizes.sum())


def initial_mask(rng, count, keep, filters=None):
    """Returns bool [count] with `keep` units on, drawn at random from `rng`.

    A filter without weights has no gradient behind a ReLU, and never gets one. So each filter has
    a unit where there are enough of them; `filters`, int [count], is the filter of each unit.
    """
    order = rng.permutation(count)
    if filters is not None:
        first = np.unique(filters[order], return_index=True)[1]  # of each filter, in random order
        if len(first) <= keep:
            order = np.concatenate([order[first], np.delete(order, first)])
    active = np.zeros(count, bool)
    active[order[:keep]] = True
    return active


def drop_counts(layers, shares, prune_rate):
    """Returns how many units each layer drops.

    A layer that is nearly dense (sparsity below 0.2) and has more than its part of the momentum
    gives up no more than its sparsity, since it could not take in what it is due. The last unit of
    a layer always stays.
    """
    counts = []
    for layer, share in zip(layers, shares, strict=True):
        units = int(layer.active.sum())
        sparsity = 1.0 - units / layer.active.size
        rate = prune_rate
        if sparsity < 0.2 and share > 1.0 / len(layers):
            rate = min(sparsity, prune_rate)
        counts.append(min(int(np.ceil(rate * units)), units - 1))
    return counts


def drop(layer, count):
    """Returns `layer.active` without its `count` units of smallest weight."""
    score = np.where(layer.active, layer.weight_score, np.inf)
    active = layer.active.copy()
    active[np.argsort(score, kind="stable")[:count]] = False
    return active


def grow(layer, active, count):
    """Returns `active` with the `count` inactive units of largest momentum switched on."""
    score = np.where(active, -np.inf, layer.momentum_score)
    active = active.copy()
    active[np.argsort(-score, kind="stable")[:count]] = True
    return active


def rewire(layers, total, prune_rate):
    """Drops the smallest units of each layer and regrows as many where momentum is largest.

    The normalised momentum mu_l = m_l / sum_j m_j of a layer is its share of what is regrown,
    with m_l its mean momentum over active weights.

    Args:
        layers: list of `LayerState`.
        total: the number of weights that exist afterwards.
        prune_rate: share of each layer's active units that is dropped.

    Returns:
        [(survived, active)] for each layer, both bool [units]: the units that were not dropped,
        and these with the regrown ones.
    """
    means = np.array([layer.momentum_mean for layer in layers])
    sizes = np.array([layer.unit_size for layer in layers])
    shares = means / means.sum() if means.sum() > 0 else np.full(len(layers), 1.0 / len(layers))
    counts = drop_counts(layers, shares, prune_rate)
    survived = [drop(layer, count) for layer, count in zip(layers, counts, strict=True)]
    free = np.array([active.size - active.sum() for active in survived])
    # A unit without momentum has no gradient either: its filter is dead, and it would stay 0.
    alive = np.array(
        [
            np.count_nonzero(~active & (layer.momentum_score > 0))
            for layer, active in zip(layers, survived, strict=True)
        ]
    )
    quota = total - sum(size * active.sum() for size, active in zip(sizes, survived, strict=True))
    capacities = np.minimum(alive, np.floor(0.99 * free).astype(np.int64))
    if np.sum(capacities * sizes) < quota:
        capacities = free
    grown = allot(shares, sizes, capacities, quota)
    return [
        (active, grow(layer, active, count))
        for layer, active, count in zip(layers, survived, grown, strict=True)
    ]
