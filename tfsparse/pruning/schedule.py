"""When DNR rewires, and how much of the network it moves each time."""

import tensorflow as tf

from tfsparse._tfmot import PruningSchedule


class DNRSchedule(PruningSchedule):
    """Constant global sparsity, rewired at regular steps with a falling prune rate.

    A TF-MOT `PruningSchedule`: called with a step it returns (should_prune, sparsity). Sparsity is
    constant, since DNR trains at its target from the first step on. At step `begin_step + k *
    frequency` the share `prune_rate(step)` of each layer's active weights is dropped and as many
    are regrown elsewhere; the share falls linearly to 0 at `end_step`, so that the connectivity
    settles.

    Args:
        target_sparsity: fraction of prunable weights that are zero, in [0, 1).
        end_step: last step at which rewiring may happen; the number of training steps minus one
            leaves the last epoch as it is.
        frequency: steps between rewirings, usually those of an epoch.
        begin_step: first step at which rewiring happens, at least 1, since momentum says where to
            regrow; None for `frequency`.
        initial_prune_rate: share of active weights dropped at step 0, in [0, 1].

    Raises:
        ValueError: where an argument is out of range.

    Reference: Kundu et al., "DNR", ASP-DAC 2021, arXiv 2011.03083. The linear decay is a choice of
    ours: the paper does not give one.
    """

    def __init__(
        self, target_sparsity, end_step, frequency, begin_step=None, initial_prune_rate=0.5
    ):
        self.target_sparsity = target_sparsity
        self.frequency = frequency
        self.begin_step = frequency if begin_step is None else begin_step
        self.end_step = end_step
        self.initial_prune_rate = initial_prune_rate
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

    def __call__(self, step):
        should_prune = self._should_prune_in_step(
            step, self.begin_step, self.end_step, self.frequency
        )
        return should_prune, tf.constant(self.target_sparsity, tf.float32)

    def prune_rate(self, step):
        """Returns the share of active weights to drop at `step`, a float."""
        return self.initial_prune_rate * max(0.0, 1.0 - step / max(self.end_step, 1))

    def get_config(self):
        return {
            "class_name": self.__class__.__name__,
            "config": {
                "target_sparsity": self.target_sparsity,
                "end_step": self.end_step,
                "frequency": self.frequency,
                "begin_step": self.begin_step,
                "initial_prune_rate": self.initial_prune_rate,
            },
        }
