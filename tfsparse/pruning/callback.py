"""Pruning in `model.fit`."""

from typing import Any

import keras

from tfsparse import backend
from tfsparse.errors import UsageError
from tfsparse.pruning import optimizer_state
from tfsparse.pruning.pruner import Pruner


class UpdatePruningStep(keras.callbacks.Callback):
    """Updates a pruner before each training step of `model.fit`.

    Named after TF-MOT's callback of the same task. The step is the number of batches that the
    optimizer has been trained on, so that pruning goes on where it was when `fit` is called again.

    If another callback sets the model's weights, such as `EarlyStopping`, `BackupAndRestore`, or
    `SwapEMAWeights`, the masks follow (see `Pruner.adopt_weights`), in any order of the callbacks.
    The moving averages of an optimizer with `use_ema` are masked, too.

    Args:
        pruner: `tfsparse.pruning.Pruner` of the model.

    Raises:
        UsageError: if it is something else.

    Examples:
        >>> schedule = tfsparse.pruning.DNRSchedule(0.9, end_step=4500, frequency=450)
        >>> pruner = tfsparse.pruning.Pruner(model, schedule)
        >>> model.fit(data, epochs=11, callbacks=[tfsparse.pruning.UpdatePruningStep(pruner)])
    """

    def __init__(self, pruner: Pruner) -> None:
        super().__init__()
        if not isinstance(pruner, Pruner):
            raise UsageError(
                "UpdatePruningStep takes the tfsparse.pruning.Pruner of the model. Received: an "
                f"object of class {type(pruner).__name__}"
            )
        self.pruner = pruner
        self._is_first_step = True

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Has Keras trace the training step with the masks.

        Raises:
            UsageError: if Keras' backend is not TensorFlow, steps would pass between updates, the
                optimizer has not what the algorithm reads, a pruned layer is frozen, or the pruner
                is detached.
        """
        if backend.NAME != "tensorflow":  # in JAX, `fit` compiles the masks as constants
            raise UsageError(
                "Pruning in model.fit needs KERAS_BACKEND=tensorflow. Train with "
                f"tfsparse.training.Trainer instead. Received: {backend.NAME}"
            )
        model, pruner = self.model, self.pruner
        if model.steps_per_execution > 1:
            raise UsageError(
                "Pruning is updated before every step and needs steps_per_execution=1. Received: "
                f"{model.steps_per_execution}"
            )
        if pruner.algorithm.reads and not model.optimizer.built:
            with model.distribute_strategy.scope():
                model.optimizer.build(model.trainable_variables)
        pruner.check(model.optimizer, model.trainable_variables)
        pruner.trace_in(model)
        pruner.adopt_weights()
        self._is_first_step = True

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.pruner.adopt_weights()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        optimizer = self.model.optimizer
        self.pruner.update(optimizer_state.steps_done(optimizer), optimizer)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.pruner.after_step(self.model.optimizer, check=self._is_first_step)
        self._is_first_step = False
