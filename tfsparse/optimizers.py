"""The optimizer of all recipes: SGD with a learning rate that changes over training."""

import keras

from tfsparse.errors import UsageError

SCHEDULES = ("one_cycle", "cosine", "piecewise")


def sgd(
    steps: int,
    learning_rate: float,
    weight_decay: float,
    schedule: str = "one_cycle",
    ema_momentum: float = 0.0,
) -> keras.optimizers.SGD:
    """Returns SGD with Nesterov momentum 0.9 and a learning rate that changes over training.

    Args:
        steps: training steps, at least 1.
        learning_rate: its peak.
        weight_decay: decoupled; multiplied by the learning rate at each step. It does not apply to
            BatchNorm and biases.
        schedule: "one_cycle" rises linearly for a tenth of the steps and falls to 0 along a cosine,
            "cosine" falls from the start, "piecewise" is divided by 10 after half and after three
            quarters of the steps.
        ema_momentum: momentum of the moving average of the weights, in [0, 1); 0 for none. See
            `Trainer.averaged_weights`.

    Raises:
        UsageError: if an argument is out of range.
    """
    if schedule not in SCHEDULES:
        raise UsageError(f"schedule must be one of {', '.join(SCHEDULES)}. Received: {schedule!r}")
    if steps < 1 or learning_rate <= 0 or weight_decay < 0 or not 0 <= ema_momentum < 1:
        raise UsageError(
            "sgd needs steps >= 1, learning_rate > 0, weight_decay >= 0 and 0 <= ema_momentum < 1. "
            f"Received: steps={steps}, learning_rate={learning_rate}, "
            f"weight_decay={weight_decay}, ema_momentum={ema_momentum}"
        )
    if schedule == "piecewise":
        rate = keras.optimizers.schedules.PiecewiseConstantDecay(
            [steps // 2, steps * 3 // 4], [learning_rate, learning_rate / 10, learning_rate / 100]
        )
    else:
        warm_up = steps // 10 if schedule == "one_cycle" else 0
        rate = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warm_up else learning_rate,
            decay_steps=steps - warm_up,
            warmup_target=learning_rate if warm_up else None,
            warmup_steps=warm_up,
        )
    optimizer = keras.optimizers.SGD(
        rate,
        momentum=0.9,
        nesterov=True,
        weight_decay=weight_decay,
        use_ema=ema_momentum > 0,
        ema_momentum=ema_momentum,
    )
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer
