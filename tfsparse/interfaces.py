"""What this package needs of TensorFlow Model Optimization, for machines without it. NumPy only.

Classes of the same names and methods as TF-MOT's. A schedule is called with a step, an int, and
returns (should_prune, sparsity). Where TF-MOT is installed, its own classes take the place of
these; see `tfsparse._tfmot`.
"""

import numpy as np


class PrunableLayer:
    """A layer that names the weights that can be pruned."""

    def get_prunable_weights(self):
        """Returns the list of these weights."""
        raise NotImplementedError


class PruningPolicy:
    """Which layers of a model are pruned."""

    def allow_pruning(self, layer):
        """Returns whether `layer` is pruned."""
        raise NotImplementedError

    def ensure_model_supports_pruning(self, model):
        """Raises a ValueError if `model` cannot be pruned."""
        raise NotImplementedError


class PruningSchedule:
    """When pruning happens, and to which sparsity."""

    def __call__(self, step):
        """Returns (whether masks change at `step`, fraction of weights that are zero then)."""
        raise NotImplementedError

    def get_config(self):
        """Returns {"class_name": name, "config": arguments}."""
        raise NotImplementedError

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def _should_prune_in_step(self, step, begin_step, end_step, frequency):
        """Whether `step` is one of begin_step, begin_step + frequency, ..., up to end_step.

        A negative end_step is no end.
        """
        is_in_range = begin_step <= step and (step <= end_step or end_step < 0)
        return is_in_range and (step - begin_step) % frequency == 0

    def _validate_step(self, begin_step, end_step, frequency, allow_negative_1):
        if begin_step < 0:
            raise ValueError(f"begin_step must be at least 0. Received: {begin_step}")
        without_end = allow_negative_1 and end_step == -1
        if not without_end and not 0 <= begin_step <= end_step:
            raise ValueError(
                f"end_step must be at least begin_step, {begin_step}. Received: {end_step}"
            )
        if frequency <= 0:
            raise ValueError(f"frequency must be at least 1. Received: {frequency}")

    def _validate_sparsity(self, sparsity, variable_name):
        if not 0.0 <= sparsity < 1.0:
            raise ValueError(f"{variable_name} must be in range [0,1). Received: {sparsity}")


class PolynomialDecay(PruningSchedule):
    """Sparsity that rises from `initial_sparsity` to `final_sparsity`, at first quickly.

    At step t, between begin_step and end_step, the density above its final value is
    (1 - (t - begin_step) / (end_step - begin_step)) ** power of what it is at the start.

    Reference: Zhu and Gupta, "To prune, or not to prune", 2017, arXiv 1710.01878, equation 1.
    """

    def __init__(
        self, initial_sparsity, final_sparsity, begin_step, end_step, power=3, frequency=100
    ):
        self.initial_sparsity, self.final_sparsity = initial_sparsity, final_sparsity
        self.begin_step, self.end_step = begin_step, end_step
        self.power, self.frequency = power, frequency
        self._validate_step(begin_step, end_step, frequency, False)
        self._validate_sparsity(initial_sparsity, "initial_sparsity")
        self._validate_sparsity(final_sparsity, "final_sparsity")

    def __call__(self, step):
        # In float32, as TF-MOT computes it: the number of weights is rounded from it.
        done = np.float32(step - self.begin_step) / np.float32(self.end_step - self.begin_step)
        left = np.power(np.float32(1) - np.clip(done, 0, 1), np.float32(self.power))
        above = np.float32(self.initial_sparsity - self.final_sparsity)
        sparsity = above * left + np.float32(self.final_sparsity)
        should_prune = self._should_prune_in_step(
            step, self.begin_step, self.end_step, self.frequency
        )
        return should_prune, sparsity

    def get_config(self):
        names = (
            "initial_sparsity",
            "final_sparsity",
            "power",
            "begin_step",
            "end_step",
            "frequency",
        )
        return {
            "class_name": self.__class__.__name__,
            "config": {name: getattr(self, name) for name in names},
        }
