"""Copies of models in another float type: in float32, to convert them, or in mixed precision."""

import contextlib
import functools

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
    copy = with_policy(model, "float32")
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


def with_policy(model, policy):
    """Returns a copy of `model` whose layers compute in a dtype policy.

    Args:
        model: a functional or Sequential Keras model.
        policy: name of a policy, such as "mixed_bfloat16".

    Raises:
        UsageError: if the model cannot be copied layer by layer.
    """
    return copying.copy_model(model, functools.partial(_made_again, policy=policy))


def _made_again(operation, policy):
    if isinstance(operation, keras.layers.InputLayer):
        policy = keras.dtype_policies.get(policy).variable_dtype  # it has a type, not a policy
    if type(operation) is keras.layers.Lambda:
        return copying.clone(operation, policy)
    return copying.make_again(
        operation, lambda config: type(operation).from_config(_with_policy(config, policy))
    )


def _with_policy(config, policy):
    """Returns a layer's configuration with `policy` as every dtype in it of a float type."""
    if isinstance(config, dict):
        return {
            key: policy if key == "dtype" and _is_float(value) else _with_policy(value, policy)
            for key, value in config.items()
        }
    if isinstance(config, list | tuple):
        return type(config)(_with_policy(value, policy) for value in config)
    return config


def _is_float(dtype):
    """Whether a dtype in a configuration, a name or a serialized policy, is of floats."""
    if isinstance(dtype, dict):
        dtype = dtype.get("config", {}).get("name")
    return str(dtype).removeprefix("mixed_") in ("float32", *OTHERS)
