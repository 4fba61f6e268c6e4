"""Which layers of a Keras 3 model are pruned."""

import keras

from tfsparse._tfmot import PrunableLayer, PruningPolicy
from tfsparse.errors import UsageError
from tfsparse.graph import leaf_layers, tracked_layers


class ConvolutionPolicy(PruningPolicy):
    """A TF-MOT `PruningPolicy` for Keras 3: all 2D convolutions, and layers that are prunable.

    Dense layers and depthwise convolutions, which hold few weights and lose much without them,
    are left alone, and so are biases and BatchNorm.
    """

    def allow_pruning(self, layer: keras.layers.Layer) -> bool:
        """Returns whether the kernel of `layer` is pruned."""
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        return isinstance(layer, (keras.layers.Conv2D, PrunableLayer)) and not depthwise

    def ensure_model_supports_pruning(self, model: keras.Model) -> None:
        """Raises UsageError if `model` is not a built Keras 3 model."""
        if not isinstance(model, keras.Model) or not model.built:
            raise UsageError(f"Pruning needs a built Keras 3 model. Received: {model!r}")


def all_layers(model):
    """Yields the layers of a model, each followed by the layers inside it."""
    for layer in leaf_layers(model):
        yield layer
        yield from tracked_layers(layer)


def prunable_layers(model, policy):
    """Returns [(layer, weight variable)] of all trainable weights that `policy` lets be pruned.

    Layers inside models, layers and wrappers are found, too, and each layer once.

    Raises:
        UsageError: if there is none, or a layer that `policy` allows has no kernel.
    """
    if not isinstance(policy, PruningPolicy):
        raise UsageError(
            "policy must be a TF-MOT PruningPolicy, such as ConvolutionPolicy(). Received: "
            f"{policy!r}"
        )
    policy.ensure_model_supports_pruning(model)
    allowed = [layer for layer in all_layers(model) if policy.allow_pruning(layer)]
    if not any(layer.built for layer in allowed):
        raise UsageError(
            f"Model {model.name!r} has no layer that can be pruned. Give the pruner a policy that "
            f"allows one. Received: policy={type(policy).__name__}"
        )
    found = {
        id(weight): (layer, weight)
        for layer in allowed
        for weight in _prunable_weights(layer, policy)
        if weight.trainable
    }
    if not found:
        raise UsageError(f"All layers of model {model.name!r} that could be pruned are frozen.")
    return list(found.values())


def _prunable_weights(layer, policy):
    if not layer.built or not layer.weights:  # one that is never called is not built
        return []
    if isinstance(layer, PrunableLayer):
        return layer.get_prunable_weights()
    kernel = getattr(layer, "kernel", None)
    if kernel is None:
        raise UsageError(
            f"Layer {layer.name!r} has no kernel that could be pruned. Leave it out of "
            f"{type(policy).__name__}, or make it a TF-MOT PrunableLayer."
        )
    return [kernel]
