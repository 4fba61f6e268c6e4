"""The pruner: masks over a model's weights, and when and how they change."""

import math

import keras
import numpy as np
import tensorflow as tf

from tfsparse.errors import UsageError
from tfsparse.layers import PeriodicConv2D
from tfsparse.pruning import rewiring
from tfsparse.pruning.policy import ConvolutionPolicy, prunable_layers
from tfsparse.pruning.schedule import DNRSchedule

STRUCTURES = ("irregular", "channel")


class _Mask(keras.constraints.Constraint):
    """Zeros outside the mask, after the weight's own constraint."""

    def __init__(self, constraint, mask):
        self.constraint, self.mask = constraint, mask

    def __call__(self, weight):
        weight = tf.convert_to_tensor(self.constraint(weight) if self.constraint else weight)
        return weight * tf.cast(self.mask, weight.dtype)


class _DynamicL2(keras.regularizers.Regularizer):
    """The weight's own regularisation loss and DNR's dynamic L2 regulariser.

    That is rho / 2 * ||W - Z + U||^2, the term of the augmented Lagrangian that ADMM pruning adds
    to the loss: Z, the target, is the projection of W + U on the current masks, U, the multiplier,
    the sum of what the projections took away. Both change with the masks only. Outside the masks,
    where W and Z are 0, it is constant and left out: its gradient there, rho * U, is no reason to
    regrow.
    """

    def __init__(self, regularizer, rho, mask, target, multiplier):
        self.regularizer, self.rho = regularizer, rho
        self.mask, self.target, self.multiplier = mask, target, multiplier

    def __call__(self, weight):
        loss = self.regularizer(weight) if self.regularizer else 0.0
        distance = weight - self.target + self.multiplier
        distance *= tf.cast(self.mask, distance.dtype)
        return loss + 0.5 * self.rho * tf.reduce_sum(tf.square(distance))


class Pruner:
    """Keeps a model sparse during training.

    Training stays Keras' own: the masks are constraints of the weights, which every Keras optimizer
    applies after its step, and DNR's dynamic L2 regulariser is one of `model.losses`. So weights
    outside the mask are exactly 0 after every step, while the optimizer's momentum of all weights,
    masked ones included, stays alive and says where to regrow. What is left to do is to call
    `update` before each training step; in `model.fit`, `UpdatePruningStep` does it.

    With a `DNRSchedule` the model has its final density from the start, and `update` rewires it;
    with any other TF-MOT schedule (ConstantSparsity, PolynomialDecay) `update` prunes each layer by
    magnitude to the schedule's sparsity. Without a schedule the masks do not change: a sparse model
    is trained on, and what is 0 stays 0.

    Args:
        model: built Keras 3 model. Its weights are masked at once.
        schedule: TF-MOT `PruningSchedule`; None keeps the weights that are not zero now.
        policy: TF-MOT `PruningPolicy` that takes Keras 3 layers; None for `ConvolutionPolicy()`.
        structure: "irregular" prunes single weights, "channel" all weights of an input channel of
            a layer together. The model's first convolution, whose channels are the image's, is not
            pruned by channel.
        rho: weight of DNR's dynamic L2 regulariser.
        seed: int that fixes DNR's random initial masks.

    Raises:
        UsageError: where an argument is out of range, the density leaves a layer without any
            weight, another pruner is attached to the model, or channels cannot be pruned as one:
            those of a periodic layer that differ in their number of weights, or of groups.

    Reference: Kundu et al., "DNR", ASP-DAC 2021, arXiv 2011.03083.
    """

    def __init__(self, model, schedule, policy=None, structure="irregular", rho=1e-4, seed=0):
        if structure not in STRUCTURES:
            raise UsageError(f"structure must be one of {STRUCTURES}. Received: {structure!r}")
        found = prunable_layers(model, policy or ConvolutionPolicy())
        if structure == "channel":
            found = _prunable_by_channel(model, found)
        for _, weight in found:
            if isinstance(weight.constraint, _Mask):
                raise UsageError(
                    f"A pruner prunes {weight.path!r} already. Call its detach() first."
                )
        self.schedule = schedule
        self.structure = structure
        self.rho = rho
        self.layer_names = [layer.name for layer, _ in found]
        self.weights = [weight for _, weight in found]
        # The unit of each weight, flattened; None where each weight is a unit of its own.
        self._units = [_channels(*item) if structure == "channel" else None for item in found]
        self._filters = [_filters(*item) if structure == "irregular" else None for item in found]
        self.masks = [_variable(tf.ones(weight.shape), weight, "mask") for weight in self.weights]
        if schedule is None:
            for mask, weight in zip(self.masks, self.weights, strict=True):
                mask.assign(tf.cast(tf.not_equal(weight, 0), mask.dtype))
        self._last_change = tf.Variable([-1], trainable=False, dtype=tf.int64)
        self._is_dnr = isinstance(schedule, DNRSchedule)
        self._targets, self._multipliers = [], []  # Z and U of the dynamic regulariser
        if self._is_dnr:
            self._draw_masks(np.random.default_rng([seed, 0xD42]))
            self.apply_masks()
            self._targets = [_variable(w, w, "target") for w in self.weights]
            self._multipliers = [
                _variable(tf.zeros(w.shape, w.dtype), w, "multiplier") for w in self.weights
            ]
        self._originals = [(weight.constraint, weight.regularizer) for weight in self.weights]
        for index, (weight, original) in enumerate(zip(self.weights, self._originals, strict=True)):
            weight.constraint = _Mask(original[0], self.masks[index])
            if self._is_dnr:
                state = self.masks[index], self._targets[index], self._multipliers[index]
                weight.regularizer = _DynamicL2(original[1], rho, *state)

    def detach(self):
        """Ends pruning: weights are masked a last time and have their own constraints again."""
        self.apply_masks()
        for weight, original in zip(self.weights, self._originals, strict=True):
            weight.constraint, weight.regularizer = original

    @property
    def variables(self):
        """All state besides the model's own: what a checkpoint must hold."""
        return [self._last_change, *self.masks, *self._targets, *self._multipliers]

    @property
    def density(self):
        """The fraction of prunable weights that exist."""
        ones = sum(int(np.sum(mask.numpy())) for mask in self.masks)
        return ones / sum(mask.shape.num_elements() for mask in self.masks)

    def layer_densities(self):
        """Returns {layer name: fraction of its weights that exist}."""
        means = (float(np.mean(mask.numpy())) for mask in self.masks)
        return dict(zip(self.layer_names, means, strict=True))

    def update(self, step, optimizer):
        """Changes the masks if the schedule asks for it at `step`, once.

        A step that comes again, as after gradients that a LossScaleOptimizer finds too large and
        does not apply, changes nothing.

        Args:
            step: int, the number of training steps done.
            optimizer: the Keras optimizer that trains the model.

        Returns:
            Whether the masks may have changed.

        Raises:
            UsageError: where DNR finds no momentum of a weight in `optimizer`.
        """
        if self.schedule is None:
            return False
        should_prune, sparsity = self.schedule(tf.constant(step))
        if not bool(should_prune) or step == self._last_change.numpy()[0]:
            return False
        self._last_change.assign([step])
        if self._is_dnr:
            self._rewire(self.schedule.prune_rate(step), *self._slots(optimizer))
        else:
            self._prune_by_magnitude(float(sparsity))
        return True

    def apply_masks(self):
        """Sets all weights outside the masks to 0, after something else than training set them."""
        for weight, mask in zip(self.weights, self.masks, strict=True):
            weight.assign(weight * mask)

    def _slots(self, optimizer):
        """Returns what `optimizer` keeps of each pruned weight: momenta, and moving averages."""
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # of a loss scale optimizer
        buffers = getattr(optimizer, "momentums", None) or getattr(optimizer, "_momentums", None)
        if not buffers:
            raise UsageError(
                "DNR regrows weights by momentum and needs an optimizer that has one, such as "
                f"keras.optimizers.SGD(momentum=0.9) or Adam. Received: {optimizer.name}"
            )
        try:
            indices = [optimizer._get_variable_index(weight) for weight in self.weights]
        except KeyError as error:
            raise UsageError(
                "The optimizer does not train all weights that are pruned; build it on the "
                f"trainable variables of the model. Received: {optimizer.name}"
            ) from error
        averages = optimizer._model_variables_moving_average if optimizer.use_ema else []
        return [buffers[i] for i in indices], [averages[i] for i in indices if averages]

    def _total(self):
        """Number of weights that exist at the schedule's target."""
        weights = sum(mask.shape.num_elements() for mask in self.masks)
        return round((1.0 - self.schedule.target_sparsity) * weights)

    def _draw_masks(self, rng):
        counts = [_unit_count(mask, units) for mask, units in self._paired()]
        sizes = [m.shape.num_elements() / n for m, n in zip(self.masks, counts, strict=True)]
        density, total = 1.0 - self.schedule.target_sparsity, self._total()
        if total < sum(sizes):
            raise UsageError(
                f"A density of {density:g} leaves {total} of {sum(np.multiply(counts, sizes)):.0f} "
                f"weights, too few for one unit in each of {len(sizes)} layers. Choose a density "
                f"of at least {sum(sizes) / sum(np.multiply(counts, sizes)):.2g}."
            )
        kept = rewiring.initial_units(counts, sizes, density, total)
        for index, (mask, units) in enumerate(self._paired()):
            filters = self._filters[index]
            active = rewiring.initial_mask(rng, counts[index], kept[index], filters)
            mask.assign(_spread(active, units, mask.shape))

    def _paired(self):
        return zip(self.masks, self._units, strict=True)

    def _rewire(self, prune_rate, momenta, averages):
        if self.schedule.target_sparsity == 0.0:  # nothing is masked: there is nothing to move
            for index in range(len(self.weights)):
                self._project(index)
            return
        states = [
            _layer_state(*map(keras.ops.convert_to_numpy, (mask, weight, momentum)), units)
            for mask, weight, momentum, units in zip(
                self.masks, self.weights, momenta, self._units, strict=True
            )
        ]
        rewired = rewiring.rewire(states, self._total(), prune_rate)
        for index, (survived, active) in enumerate(rewired):
            units, weight, mask = self._units[index], self.weights[index], self.masks[index]
            mask.assign(_spread(active, units, mask.shape))
            self._project(index)
            # Whatever is regrown starts at 0, a weight dropped just now included. So does its
            # momentum: gathered without effect while it was masked, it can exceed any weight
            # where a filter had no weights left and BatchNorm divided by no variance.
            stays = _spread(survived, units, mask.shape)
            weight.assign(weight * stays)
            momenta[index].assign(momenta[index] * (1.0 + stays - mask))
            if averages:
                averages[index].assign(averages[index] * stays)

    def _project(self, index):
        """Z = (W + U) * mask, U = U + W - Z, with the weights as they are before masking."""
        weight, target = self.weights[index], self._targets[index]
        multiplier = self._multipliers[index]
        target.assign((weight + multiplier) * self.masks[index])
        multiplier.assign(multiplier + weight - target)

    def _prune_by_magnitude(self, sparsity):
        for weight, (mask, units) in zip(self.weights, self._paired(), strict=True):
            score = _unit_norm(keras.ops.convert_to_numpy(weight), units)
            keep = max(1, round((1.0 - sparsity) * score.size))
            active = np.zeros(score.size, bool)
            active[np.argsort(-score, kind="stable")[:keep]] = True
            mask.assign(_spread(active, units, mask.shape))
        self.apply_masks()


def _prunable_by_channel(model, found):
    """Returns `found` without the model's first convolution, after a check of the channels."""
    (stem, _), *_ = prunable_layers(model, ConvolutionPolicy())
    found = [(layer, weight) for layer, weight in found if layer is not stem]
    if not found:
        raise UsageError("Pruning by channel needs a second layer that can be pruned.")
    for layer, weight in found:
        if getattr(layer, "groups", 1) > 1:
            raise UsageError(
                f"Layer {layer.name!r} is of {layer.groups} groups and cannot be pruned by "
                "channel; leave it out by a policy, or use structure 'irregular'."
            )
        sizes = np.bincount(_channels(layer, weight))
        if len(set(sizes)) > 1:
            raise UsageError(
                f"Layer {layer.name!r} has between {sizes.min()} and {sizes.max()} weights per "
                "channel and cannot be pruned by channel; use another pattern, or structure "
                "'irregular'."
            )
    return found


def _channels(layer, weight):
    """Returns the input channel of each weight, flattened."""
    if isinstance(layer, PeriodicConv2D):
        return layer.kernel_channels
    channel_axis = np.arange(weight.shape[-2])[:, None]
    return np.broadcast_to(channel_axis, tuple(weight.shape)).ravel()


def _filters(layer, weight):
    """Returns the filter of each weight, flattened."""
    if isinstance(layer, PeriodicConv2D):
        return layer.kernel_positions % layer.filters
    return np.arange(math.prod(weight.shape)) % weight.shape[-1]


def _variable(value, weight, role):
    # Keras variables of one model have unique paths.
    name = f"{weight.path}/{role}".replace("/", "_")
    return tf.Variable(tf.convert_to_tensor(value), trainable=False, name=name)


def _unit_count(mask, units):
    return mask.shape.num_elements() if units is None else int(units.max()) + 1


def _spread(active, units, shape):
    """Returns the mask of weights, float32 of `shape`, for the bool [units] `active`."""
    return (active if units is None else active[units]).reshape(shape).astype(np.float32)


def _unit_norm(values, units):
    """Returns the Frobenius norm of each unit of `values`."""
    if units is None:
        return np.abs(values).ravel()
    return np.sqrt(np.bincount(units, np.square(values, dtype=np.float64).ravel()))


def _layer_state(mask, weight, momentum, units):
    on = mask.ravel() > 0
    active = on if units is None else np.bincount(units, on) > 0
    return rewiring.LayerState(
        active=active,
        weight_score=_unit_norm(weight, units),
        momentum_score=_unit_norm(momentum, units),
        momentum_mean=float(np.mean(np.abs(momentum).ravel()[on])),
        unit_size=mask.size / active.size,
    )
