"""Pruning algorithms. Each is an object: what it drops and regrows, from which budget.

When weights are pruned, and how many, is the schedule's matter; see docs/pruning.md.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from tfsparse.errors import UsageError
from tfsparse.pruning import budget
from tfsparse.pruning.rewiring import LayerState
from tfsparse.pruning.units import variable_beside


class Algorithm:
    """What a pruning algorithm consists of. Subclasses override what they do differently.

    An algorithm without a grow score prunes gradually: at each step of the schedule each layer
    keeps its units of largest drop score. One with a grow score *rewires*: the model has its final
    density from the start, on random masks, and at each step of the schedule the units of smallest
    drop score are dropped and as many are regrown.

    Attributes:
        reads: "momentum" or "gradient" if the scores need that, else None.
    """

    reads: str | None = None

    def drop_score(self, layer: LayerState, rng: np.random.Generator) -> np.ndarray:
        """Returns float [units]; units of small score go first. By default their magnitude."""
        return layer.weight

    # A method as `drop_score` if the algorithm rewires: float [units], not negative; units of large
    # score come first.
    grow_score: Callable[..., np.ndarray] | None = None

    def budget(self, layers: list[LayerState], density: float) -> np.ndarray:
        """Returns int [layers], the units that each layer keeps at a density of all weights."""
        raise NotImplementedError(f"{type(self).__name__} needs a method budget(layers, density).")

    def regrowth_shares(self, layers: list[LayerState]) -> np.ndarray | None:
        """Returns float [layers], how what is regrown is shared among layers.

        By default None: each layer regrows as many units as it dropped.
        """

    def regularizer(self, weight: Any, mask: Any) -> Any:
        """Returns a Keras regularizer of `weight`, or None.

        It has besides `variables`, a list for checkpoints, and two methods without arguments:
        `update()`, called when `mask` has changed and `weight` is not yet masked, and `restart()`,
        called when something other than training has set `weight`, and `mask` has changed.
        """

    @property
    def rewires(self) -> bool:
        """Whether units are regrown."""
        return self.grow_score is not None


class Magnitude(Algorithm):
    """Prunes the weights of smallest magnitude, to one density in each layer."""

    budget = staticmethod(budget.rounded)


class GlobalMagnitude(Algorithm):
    """Prunes the weights of smallest magnitude of the whole model.

    Each layer keeps at least one unit. Units of several weights are compared by their root mean
    square, so that their size does not matter.
    """

    budget = staticmethod(budget.ranked)


class ERKMagnitude(Algorithm):
    """Prunes by magnitude, to the Erdos-Renyi-Kernel densities of Evci et al., ICML 2020."""

    budget = staticmethod(budget.erdos_renyi_kernel)


class SET(Algorithm):
    """Sparse evolutionary training: regrows at random.

    Reference: Mocanu et al., Nature Communications 2018, arXiv 1707.04780.
    """

    budget = staticmethod(budget.erdos_renyi_kernel)

    def grow_score(self, layer, rng):
        return rng.random(layer.active.size)


class RigL(Algorithm):
    """The rigged lottery: regrows where the gradient of the last step is largest.

    The optimizer is SGD with momentum, Adam or AdamW, from whose momenta the gradient is recovered,
    up to a factor. `clipvalue` makes large gradients equal.

    Reference: Evci et al., ICML 2020, arXiv 1911.11134. There the gradient is of a batch that is
    not trained on, and a weight that is dropped and regrown at once keeps its value; here it starts
    at 0.
    """

    reads = "gradient"
    budget = staticmethod(budget.erdos_renyi_kernel)

    def grow_score(self, layer, rng):
        return layer.gradient


class DNR(Algorithm):
    """Dynamic network rewiring: regrows where the momentum is largest.

    Layers regrow in proportion to their normalized momentum mu_l = m_l / sum_j m_j, with m_l the
    mean momentum over active weights, so that the budget moves to layers that learn.

    Args:
        rho: weight of the dynamic L2 regularizer, not negative.

    Raises:
        UsageError: if rho is negative.

    Reference: Kundu et al., ASP-DAC 2021, arXiv 2011.03083.
    """

    reads = "momentum"
    budget = staticmethod(budget.uniform)

    def __init__(self, rho: float = 1e-4) -> None:
        if not rho >= 0:
            raise UsageError(f"rho must be at least 0. Received: {rho}")
        self.rho = rho

    def grow_score(self, layer, rng):
        return layer.momentum

    def regrowth_shares(self, layers):
        means = np.array([layer.momentum_mean for layer in layers])
        return means / means.sum() if means.sum() > 0 else np.full(len(layers), 1.0 / len(layers))

    def regularizer(self, weight, mask):
        return DynamicL2(self.rho, weight, mask)


class DynamicL2(keras.regularizers.Regularizer):
    """DNR's dynamic L2 regularizer, rho / 2 * ||W - Z + U||^2.

    That is the term of the augmented Lagrangian that ADMM pruning adds to the loss: Z, the target,
    is the projection of W + U on the current mask, U, the multiplier, the sum of what the
    projections took away. Both change with the mask only. Outside the mask, where W and Z are 0, it
    is constant and left out: its gradient there, rho * U, is no reason to regrow.
    """

    def __init__(self, rho: float, weight: Any, mask: Any) -> None:
        self.rho, self._weight, self._mask = rho, weight, mask
        self.target = variable_beside(weight, weight, "target")
        self.multiplier = variable_beside(
            weight, ops.zeros(weight.shape, weight.dtype), "multiplier"
        )
        self.variables = [self.target, self.multiplier]

    def __call__(self, weight):
        distance = weight - self.target + self.multiplier
        distance *= self._cast_mask()
        return 0.5 * self.rho * ops.sum(ops.square(distance))

    def update(self) -> None:
        """Z = (W + U) * mask, U = U + W - Z, with the weights as they are before masking."""
        self.target.assign((self._weight + self.multiplier) * self._cast_mask())
        self.multiplier.assign(self.multiplier + self._weight - self.target)

    def restart(self) -> None:
        """Z = W * mask, U = 0."""
        self.target.assign(self._weight * self._cast_mask())
        self.multiplier.assign(ops.zeros(self.multiplier.shape, self.multiplier.dtype))

    def _cast_mask(self):
        return ops.cast(self._mask, self.target.dtype)


ALGORITHMS: dict[str, type[Algorithm]] = {
    "dnr": DNR,
    "magnitude": Magnitude,
    "global_magnitude": GlobalMagnitude,
    "erk_magnitude": ERKMagnitude,
    "set": SET,
    "rigl": RigL,
}


def resolve(algorithm: Any, schedule: Any) -> Algorithm:
    """Returns `algorithm`, or for None the default of `schedule`: DNR() if it has a prune rate.

    Raises:
        UsageError: if either is not what it should be, or the algorithm rewires and the schedule
            has no prune rate.
    """
    if schedule is not None and (not callable(schedule) or isinstance(schedule, type)):
        raise UsageError(
            "schedule must be None or a TF-MOT PruningSchedule, which says when to prune and how "
            f"much, such as DNRSchedule(0.9, end_step, frequency). Received: {schedule!r}"
        )
    has_rate = hasattr(schedule, "prune_rate")
    if algorithm is None:
        return DNR() if has_rate else Magnitude()
    if not isinstance(algorithm, Algorithm):
        raise UsageError(
            f"algorithm must be None or an Algorithm, such as RigL(). Received: {algorithm!r}"
        )
    if algorithm.reads not in (None, "momentum", "gradient"):
        raise UsageError(
            f"{type(algorithm).__name__}.reads must be None, 'momentum', or 'gradient'. Received: "
            f"{algorithm.reads!r}"
        )
    if algorithm.rewires and not has_rate:
        raise UsageError(
            f"{type(algorithm).__name__} rewires and needs a schedule with a prune rate, such as "
            f"DNRSchedule. Received: {type(schedule).__name__ if schedule else None}"
        )
    return algorithm
