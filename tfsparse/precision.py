"""Turns models that compute in 16 bits (Keras' mixed precision) into float32 models."""

from tfsparse import copying


def full_precision(model):
    """Returns `model`, or a float32 copy if any of its layers computes in 16 bits.

    Raises:
        UsageError: if the model cannot be copied layer by layer.
    """

    def is_short(operation):
        return getattr(operation, "compute_dtype", None) in ("float16", "bfloat16")

    def in_float32(operation):
        changes = {"dtype": "float32"} if is_short(operation) else {}
        return copying.make_again(
            operation, lambda config: type(operation).from_config({**config, **changes})
        )

    if not any(map(is_short, model.layers)):
        return model
    copying.check_model(model)
    return copying.copy_model(model, in_float32, lambda original, _: original.get_weights())
