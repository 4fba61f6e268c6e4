"""Pruning in `model.fit`."""

import keras

from tfsparse.errors import UsageError


class UpdatePruningStep(keras.callbacks.Callback):
    """Updates a pruner before each training step of `model.fit`.

    Named after TF-MOT's callback of the same task. The step is the optimizer's, so that pruning
    goes on where it was when `fit` is called again.

    Args:
        pruner: `tfsparse.pruning.Pruner` of the model.

    Example:
        >>> schedule = tfsparse.pruning.DNRSchedule(0.9, end_step=4500, frequency=450)
        >>> pruner = tfsparse.pruning.Pruner(model, schedule)
        >>> model.fit(data, epochs=11, callbacks=[tfsparse.pruning.UpdatePruningStep(pruner)])
    """

    def __init__(self, pruner):
        super().__init__()
        self.pruner = pruner

    def on_train_begin(self, logs=None):
        """Raises UsageError if steps would pass between updates."""
        if self.model.steps_per_execution > 1:
            raise UsageError(
                "Pruning is updated before every step and needs steps_per_execution=1. Received: "
                f"{self.model.steps_per_execution}"
            )

    def on_train_batch_begin(self, batch, logs=None):
        optimizer = self.model.optimizer
        self.pruner.update(int(optimizer.iterations), optimizer)

    def on_train_end(self, logs=None):
        """Masks the weights: an optimizer with `use_ema` has just put its averages there."""
        self.pruner.apply_masks()
