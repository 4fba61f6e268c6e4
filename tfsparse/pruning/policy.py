"""Which layers of a Keras 3 model are pruned."""

import keras

from tfsparse._tfmot import PrunableLayer, PruningPolicy
from tfsparse.errors import UsageError
from tfsparse.graph import leaf_layers


class ConvolutionPolicy(PruningPolicy):
    """A TF-MOT `PruningPolicy` for Keras 3: all 2D convolutions, and layers that are prunable.

    Dense layers and depthwise convolutions, which hold few weights and lose much without them,
    are left alone, and so are biases and BatchNorm.
    """

    def allow_pruning(self, layer):
        """Returns whether the kernel of `layer` is pruned."""
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        return isinstance(layer, (keras.layers.Conv2D, PrunableLayer)) and not depthwise

    def ensure_model_supports_pruning(self, model):
        """Raises UsageError if `model` is not a built Keras 3 model with a layer to prune."""
        if not isinstance(model, keras.Model) or not model.built:
            raise UsageError(f"Pruning needs a built Keras 3 model. Received: {model!r}")
        if not any(self.allow_pruning(layer) for layer in leaf_layers(model)):
            raise UsageError(f"Model {model.name!r} has no layer that can be pruned.")


def prunable_layers(model, policy):
    """Returns [(layer, weight variable)] of all trainable weights that `policy` lets be pruned.

    Layers of a model within the model are found, too, and each layer once.
    """
    policy.ensure_model_supports_pruning(model)
    found = {
        id(weight): (layer, weight)
        for layer in leaf_layers(model)
        if policy.allow_pruning(layer)
        for weight in (
            layer.get_prunable_weights() if isinstance(layer, PrunableLayer) else [layer.kernel]
        )
        if weight.trainable
    }
    if not found:
        raise UsageError(f"All layers of model {model.name!r} that could be pruned are frozen.")
    return list(found.values())
