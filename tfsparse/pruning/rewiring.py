"""Rewiring: which units each layer drops and regrows, and how many. NumPy only.

Sources: Kundu et al., "DNR", ASP-DAC 2021, arXiv 2011.03083, which builds on Dettmers and
Zettlemoyer, "Sparse Networks from Scratch", 2019, arXiv 1907.04840 (sparse momentum). Those keep
the number of weights near its target; here it is met exactly, by largest remainders.
"""

import concurrent.futures
import dataclasses

import numpy as np

from tfsparse import machine
from tfsparse.pruning.budget import allot
from tfsparse.pruning.ranking import top


@dataclasses.dataclass
class LayerState:
    """What an algorithm knows about a layer of n units.

    Attributes:
        active: bool [n], the units that exist.
        weight: float [n], the Frobenius norm of each unit's weights.
        unit_size: weights in a unit.
        kernel_shape: (height, width, channels, filters) of the dense kernel.
        momentum: float [n], the norm of the optimizer's momentum; None if the algorithm reads
            neither momentum nor gradient.
        momentum_mean: mean magnitude of the momentum over active weights.
        gradient: float [n], the norm of the last gradient, up to a factor that all layers share;
            None if the algorithm does not read it.
        unit_cost: what a unit takes of the budget: its weights (None), or its MACs for one image.
    """

    active: np.ndarray
    weight: np.ndarray
    unit_size: float = 1
    kernel_shape: tuple = ()
    momentum: np.ndarray | None = None
    momentum_mean: float = 0.0
    gradient: np.ndarray | None = None
    unit_cost: float | None = None

    def __post_init__(self):
        if self.unit_cost is None:
            self.unit_cost = self.unit_size


def drop(active, score, count):
    """Returns `active` without its `count` units of smallest score; of equals, the first go."""
    indices = np.flatnonzero(active)
    own = score[indices]
    if np.count_nonzero(own < np.inf) < count:  # training has diverged
        return active & ~top(np.where(active, -score, -np.inf), count)
    survived = active.copy()
    survived[indices[top(-own, count)]] = False
    return survived


def in_threads(function, *arguments):
    """Returns [function(...)] of one item of each list, such as layers, computed in parallel."""
    with concurrent.futures.ThreadPoolExecutor(machine.cores()) as pool:
        return list(pool.map(function, *arguments))


def grow(active, score, count):
    """Returns `active` with the `count` inactive units of largest score switched on."""
    return active | top(np.where(active, -np.inf, score), count)


def rewire(layers, drop_scores, grow_scores, prune_rate, total, shares=None):
    """Drops the units of smallest score in each layer and regrows as many of largest score.

    Args:
        layers: list of `LayerState`.
        drop_scores: for each layer float [units]; the smallest of the active units are dropped.
        grow_scores: for each layer float [units], not negative; the largest of the others are
            regrown, units dropped just now included.
        prune_rate: fraction of each layer's active units that is dropped.
        total: the cost of the units that exist afterwards, if `shares` are given.
        shares: float [layers], how layers share the budget of what is regrown; if None, each layer
            regrows as many units as it dropped.

    Returns:
        [(survived, active)] for each layer, both bool [units]: the units that were not dropped,
        and these with the regrown ones.
    """
    if all(layer.active.all() for layer in layers):  # there is nothing to move
        return [(layer.active, layer.active) for layer in layers]
    dropped = _drop_counts(layers, prune_rate, shares)
    survived = in_threads(drop, [layer.active for layer in layers], drop_scores, dropped)
    grown = dropped
    if shares is not None:
        grown = _grow_counts(layers, survived, grow_scores, total, shares)
    active = in_threads(grow, survived, grow_scores, grown)
    return list(zip(survived, active, strict=True))


def _drop_counts(layers, prune_rate, shares):
    """Returns how many units each layer drops. The last unit of a layer always stays.

    A layer drops no more than it could regrow elsewhere. With shares, that holds for a layer that
    is nearly dense (sparsity below 0.2) and is due more than its part; without, for all.
    """
    counts = []
    for index, layer in enumerate(layers):
        units = int(layer.active.sum())
        sparsity = 1.0 - units / layer.active.size
        rate, most = prune_rate, units - 1
        if shares is None:
            most = min(most, layer.active.size - units)
        elif sparsity < 0.2 and shares[index] > 1.0 / len(layers):
            rate = min(sparsity, prune_rate)
        counts.append(min(int(np.ceil(rate * units)), most))
    return counts


def _grow_counts(layers, survived, grow_scores, total, shares):
    """Returns how many units each layer regrows, by `shares`, so that `total` is spent."""
    costs = np.array([layer.unit_cost for layer in layers])
    free = np.array([active.size - active.sum() for active in survived])
    # A unit without momentum has no gradient either: its filter is dead, and it would stay 0.
    alive = np.array(
        [
            np.count_nonzero(~active & (score > 0))
            for active, score in zip(survived, grow_scores, strict=True)
        ]
    )
    quota = total - sum(cost * active.sum() for cost, active in zip(costs, survived, strict=True))
    capacities = np.minimum(alive, np.floor(0.99 * free).astype(np.int64))
    if np.sum(capacities * costs) < quota:
        capacities = free
    return allot(shares, costs, capacities, quota)
