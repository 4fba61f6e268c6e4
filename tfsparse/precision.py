"""Turns models of other float types (mixed precision, float16, bfloat16, float64) into float32."""

import contextlib

import keras

from tfsparse import copying
from tfsparse.errors import UsageError
from tfsparse.graph import tracked_layers

OTHERS = ("float16", "bfloat16", "float64")


@contextlib.contextmanager
def float32_policy():
    """Makes layers that are made within, whatever the user's global policy is, float32."""
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


@float32_policy()
def full_precision(model):
    """Returns `model`, or a float32 copy if any layer in it has or computes another float type.

    Raises:
        UsageError: if the model cannot be copied layer by layer, or a layer chooses its own type.
    """
    if not _other_layers(model):
        return model
    copying.check_model(model)
    copy = copying.copy_model(model, _in_float32)
    left = _other_layers(copy)
    if left:
        raise UsageError(
            f"Layer {left[0].name} of class {type(left[0]).__name__} computes in "
            f"{left[0].compute_dtype}, whatever its configuration says. Make it with "
            'dtype="float32" to convert the model.'
        )
    return copy


def _other_layers(model):
    return [
        layer
        for layer in tracked_layers(model)
        if {layer.compute_dtype, layer.variable_dtype} & set(OTHERS)
    ]


def _in_float32(operation):
    if type(operation) is keras.layers.Lambda:
        return copying.clone(operation, "float32")
    return copying.make_again(
        operation, lambda config: type(operation).from_config(_without_others(config))
    )


def _without_others(config):
    """Returns a layer's configuration with "float32" as every dtype in it of another float type."""
    if isinstance(config, dict):
        return {
            key: "float32" if key == "dtype" and _is_other(value) else _without_others(value)
            for key, value in config.items()
        }
    if isinstance(config, list | tuple):
        return type(config)(map(_without_others, config))
    return config


def _is_other(dtype):
    """Whether a dtype in a configuration, a name or a serialized policy, is another float type."""
    if isinstance(dtype, dict):
        dtype = dtype.get("config", {}).get("name")
    return str(dtype).removeprefix("mixed_") in OTHERS
