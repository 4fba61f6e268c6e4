"""When a network is rewired, and how much of it moves each time."""

import math
from typing import Any

import numpy as np

from tfsparse._tfmot import PolynomialDecay, PruningSchedule, ask


class DNRSchedule(PruningSchedule):
    """Constant global sparsity, rewired at regular steps with a falling prune rate.

    A TF-MOT `PruningSchedule`: called with a step it returns (should_prune, sparsity). Sparsity is
    constant, since rewiring trains at its target from the first step on. At step `begin_step + k *
    frequency` the fraction `prune_rate(step)` of each layer's active weights is dropped and as
    many are regrown elsewhere; it falls to 0 at `end_step`, so that the connectivity settles.

    Args:
        target_sparsity: fraction of prunable weights that are zero, in [0, 1).
        end_step: last step at which rewiring may happen; the number of training steps minus one
            leaves the last epoch as it is.
        frequency: steps between rewirings, usually those of an epoch.
        begin_step: first step at which rewiring happens, at least 1, since momentum says where to
            regrow; None for `frequency`.
        initial_prune_rate: fraction of active weights dropped at step 0, in [0, 1].
        decay: how it falls: "linear", or "cosine" as in RigL (arXiv 1911.11134, equation 1).

    Raises:
        ValueError: if an argument is out of range.

    Reference: Kundu et al., "DNR", ASP-DAC 2021, arXiv 2011.03083, which does not say how the prune
    rate falls.
    """

    def __init__(
        self,
        target_sparsity: float,
        end_step: int,
        frequency: int,
        begin_step: int | None = None,
        initial_prune_rate: float = 0.5,
        decay: str = "linear",
    ) -> None:
        self.target_sparsity = target_sparsity
        self.frequency = frequency
        self.begin_step = frequency if begin_step is None else begin_step
        self.end_step = end_step
        self.initial_prune_rate = initial_prune_rate
        self.decay = decay
        # A run of a single epoch ends before the first rewiring.
        self._validate_step(self.begin_step, max(end_step, self.begin_step), frequency, False)
        self._validate_sparsity(target_sparsity, "target_sparsity")
        if self.begin_step < 1 or end_step < 0:
            raise ValueError(
                "begin_step must be at least 1 and end_step at least 0. Received: "
                f"begin_step={self.begin_step}, end_step={end_step}"
            )
        if not 0.0 <= initial_prune_rate <= 1.0:
            raise ValueError(
                f"initial_prune_rate must be in range [0,1]. Received: {initial_prune_rate}"
            )
        if decay not in ("linear", "cosine"):
            raise ValueError(f"decay must be 'linear' or 'cosine'. Received: {decay!r}")

    def __call__(self, step: Any) -> tuple[Any, Any]:
        should_prune = self._should_prune_in_step(
            step, self.begin_step, self.end_step, self.frequency
        )
        return should_prune, np.float32(self.target_sparsity)

    def prune_rate(self, step: int) -> float:
        """Returns the fraction of active weights to drop at `step`, a float."""
        left = max(0.0, 1.0 - step / max(self.end_step, 1))
        if self.decay == "cosine":
            left = 0.5 * (1.0 - math.cos(math.pi * left))
        return self.initial_prune_rate * left

    def get_config(self) -> dict[str, Any]:
        return {
            "class_name": self.__class__.__name__,
            "config": {
                "target_sparsity": self.target_sparsity,
                "end_step": self.end_step,
                "frequency": self.frequency,
                "begin_step": self.begin_step,
                "initial_prune_rate": self.initial_prune_rate,
                "decay": self.decay,
            },
        }


def default_schedule(
    algorithm: Any, density: float, steps: int, steps_per_epoch: int
) -> PruningSchedule:
    """Returns the schedule by which `train.py` prunes with an algorithm.

    What rewires does so after each epoch but the last, which trains what is left: DNR with
    DNRSchedule's defaults, others as RigL. What prunes gradually reaches the density after three
    quarters of the steps.

    Args:
        algorithm: `Algorithm`.
        density: fraction of the budget that remains, in (0, 1].
        steps, steps_per_epoch: of the training.
    """
    if algorithm.rewires:
        as_rigl: dict[str, Any] = {"initial_prune_rate": 0.3, "decay": "cosine"}
        own = {} if algorithm.reads == "momentum" else as_rigl
        return DNRSchedule(1 - density, steps - 1, steps_per_epoch, **own)
    # The last change falls on a multiple of the frequency, or the density would not be reached.
    frequency = min(100, max(1, steps // 20))
    end_step = max(frequency, steps * 3 // 4 // frequency * frequency)
    return PolynomialDecay(0.0, 1 - density, 0, end_step, frequency=frequency)


def steps_to_change(schedule, step, most, ahead=0):
    """Returns how many steps from `step` on come before the next at which masks change.

    Args:
        schedule: a `PruningSchedule`.
        step: int; whether masks change at it does not count.
        most: int, at least 1; the result is at most this.
        ahead: steps before a change that also end the count.
    """
    for count in range(1, most):
        asked = range(step + count, step + count + ahead + 1)
        if any(ask(schedule, each)[0] for each in asked):
            return count
    return most
