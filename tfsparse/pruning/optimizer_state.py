"""What pruning reads of a Keras optimizer: momenta, moving averages, and the last gradient."""

import keras
import numpy as np
from keras import ops

from tfsparse.errors import UsageError
from tfsparse.pruning.units import counter, variable_beside


def steps_done(optimizer):
    """Returns the number of batches trained on, an int; as Keras' learning rate schedules count.

    With `gradient_accumulation_steps`, that is more than `optimizer.iterations`.
    """
    return int(_inner(optimizer)._iterations)


def momenta(optimizer, weights, algorithm):
    """Returns the variables of the momenta of `weights`; an empty list if there are none.

    Raises:
        UsageError: if `optimizer` does not train all `weights`, or has not what `algorithm` reads.
    """
    inner = _inner(optimizer)
    found = getattr(inner, "momentums", None) or getattr(inner, "_momentums", None) or []
    indices = _indices(inner, weights)
    found = [found[index] for index in indices if found]
    if algorithm.reads:
        _check(optimizer, found, algorithm)
    return found


def averages(optimizer, weights):
    """Returns the variables of the moving averages of `weights`; an empty list without `use_ema`.

    An optimizer that is not built has none yet.
    """
    optimizer = _inner(optimizer)
    if optimizer is None or not optimizer.built or not optimizer.use_ema:
        return []
    averages = optimizer._model_variables_moving_average
    return [averages[index] for index in _indices(optimizer, weights)]


def _check(optimizer, momenta, algorithm):
    """Raises UsageError if `optimizer`, with `momenta`, has not what `algorithm` reads of it."""
    reader = f"{type(algorithm).__name__} reads the {algorithm.reads}"
    if not momenta:
        raise UsageError(
            f"{reader} and needs an optimizer with momentum, such as "
            f"keras.optimizers.SGD(momentum=0.9) or Adam. Received: {optimizer.name}"
        )
    if algorithm.reads == "gradient":
        _momentum_decay(optimizer)
        accumulated = _inner(optimizer).gradient_accumulation_steps
        if accumulated:
            raise UsageError(
                f"{reader} of each step and needs gradient_accumulation_steps=None. "
                f"Received: {accumulated}"
            )


def _indices(optimizer, weights):
    try:
        return [optimizer._get_variable_index(weight) for weight in weights]
    except KeyError as error:
        raise UsageError(
            "The optimizer does not train all weights that are pruned; build it on the trainable "
            f"variables of the model. Received: {optimizer.name}"
        ) from error


class LastGradient:
    """Recovers the magnitude of the last gradient of `weights` from two successive momenta.

    It is exact but for a factor, the same for all weights: SGD's learning rate, or Adam's
    1 - beta_1. It is of the gradient that the optimizer uses: with `clipnorm` the factor differs
    between variables, and with `clipvalue` large components are equal. `variables` belong in a
    checkpoint.
    """

    # SGD's momentum is   m_t = mu * m_(t-1) - learning_rate * g_t,   Nesterov's too, and
    # Adam's is           m_t = beta_1 * m_(t-1) + (1 - beta_1) * g_t.
    # With d for mu or beta_1, and c for the learning rate or 1 - beta_1, this gives
    #                     c * |g_t| = |m_t - d * m_(t-1)|.
    # Keras' weight decay is decoupled: it acts on the weight alone and is not in m.

    def __init__(self, weights):
        self._step = counter()
        self._momenta = [
            variable_beside(weight, ops.zeros(weight.shape, weight.dtype), "last_momentum")
            for weight in weights
        ]
        self.variables = [self._step, *self._momenta]

    def remember(self, step, momenta):
        """Keeps the momenta before training step `step`."""
        self._step.assign([step])
        for kept, momentum in zip(self._momenta, momenta, strict=True):
            kept.assign(ops.copy(momentum))

    def recall(self, step, optimizer, momenta):
        """Returns the magnitudes of the gradients of the step before `step`, float64 arrays.

        Raises:
            UsageError: if the momenta before it were not kept, or not of such an `optimizer`.
        """
        if ops.convert_to_numpy(self._step)[0] != step - 1:
            raise UsageError(
                "Pruning by gradient needs an update before each step. "
                f"Received: step {step} without step {step - 1}"
            )
        decay = _momentum_decay(optimizer)
        pairs = zip(momenta, self._momenta, strict=True)
        return [np.abs(_float64(now) - decay * _float64(before)) for now, before in pairs]


def _momentum_decay(optimizer):
    """Returns which fraction of its momentum `optimizer` keeps in a step."""
    optimizer = _inner(optimizer)
    if isinstance(optimizer, keras.optimizers.SGD):
        return optimizer.momentum
    if isinstance(optimizer, keras.optimizers.Adam):  # AdamW, too
        return optimizer.beta_1
    raise UsageError(
        "Gradients can be recovered from keras.optimizers.SGD with momentum, Adam and AdamW only. "
        f"Received: {optimizer.name}"
    )


def _inner(optimizer):
    return getattr(optimizer, "inner_optimizer", optimizer)  # of a LossScaleOptimizer


def _float64(variable):
    return ops.convert_to_numpy(variable).astype(np.float64)
