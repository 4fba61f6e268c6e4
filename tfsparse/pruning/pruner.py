"""The pruner: masks over a model's weights, which change as algorithm and schedule say."""

import keras
import numpy as np
import tensorflow as tf

from tfsparse.errors import UsageError
from tfsparse.pruning import algorithms, rewiring
from tfsparse.pruning.budget import total_weights
from tfsparse.pruning.optimizer_state import LastGradient, slots
from tfsparse.pruning.policy import ConvolutionPolicy, prunable_layers
from tfsparse.pruning.units import STRUCTURES, Units, prunable_by_channel, variable_beside


class _Mask(keras.constraints.Constraint):
    """Zeros outside the mask, after the weight's own constraint."""

    def __init__(self, constraint, mask):
        self.constraint, self.mask = constraint, mask

    def __call__(self, weight):
        weight = tf.convert_to_tensor(self.constraint(weight) if self.constraint else weight)
        return weight * tf.cast(self.mask, weight.dtype)


class _Sum(keras.regularizers.Regularizer):
    """The weight's own regularizer and the algorithm's."""

    def __init__(self, own, other):
        self.own, self.other = own, other

    def __call__(self, weight):
        return (self.own(weight) if self.own else 0.0) + self.other(weight)


class Pruner:
    """Keeps a model sparse during training.

    Training stays Keras' own: the masks are constraints of the weights, which every Keras optimizer
    applies after its step, and the algorithm's regularizer is one of `model.losses`. So weights
    outside the mask are exactly 0 after every step, while the optimizer's momentum of all weights,
    masked ones included, stays alive and says where to regrow. What remains is to call `update`
    before each training step; in `model.fit`, `UpdatePruningStep` does it.

    An algorithm that rewires (DNR, SET, RigL) gives the model its final density from the start; the
    others prune gradually, to the schedule's sparsity. Without a schedule the masks do not change:
    a sparse model is trained on, and what is 0 stays 0.

    Args:
        model: built Keras 3 model. Its weights are masked at once.
        schedule: TF-MOT `PruningSchedule`, called with a step for (whether to prune, sparsity).
            To rewire it also has a `target_sparsity` and a `prune_rate(step)`, as `DNRSchedule`
            has. None keeps the weights that are not zero now.
        policy: TF-MOT `PruningPolicy` that takes Keras 3 layers; None for `ConvolutionPolicy()`.
        structure: "unstructured" prunes single weights, "channel" all weights of an input channel
            of a layer together. The model's first convolution, whose channels are the image's, is
            not pruned by channel.
        algorithm: `Algorithm`; None for `DNR()` if the schedule has a prune rate, else for
            `Magnitude()`.
        seed: int, not negative, that fixes what is random: initial masks, and what SET regrows.

    Raises:
        UsageError: if an argument is out of range, the algorithm rewires and the schedule has no
            prune rate, the density leaves a layer without any weight, another pruner is attached to
            the model, or channels cannot be pruned as one: those of a periodic layer that differ in
            their number of weights, or of groups.
    """

    def __init__(
        self, model, schedule, policy=None, structure="unstructured", algorithm=None, seed=0
    ):
        if structure not in STRUCTURES:
            raise UsageError(f"structure must be one of {STRUCTURES}. Received: {structure!r}")
        self.algorithm = algorithms.resolve(algorithm, schedule)
        found = prunable_layers(model, policy or ConvolutionPolicy())
        if structure == "channel":
            found = prunable_by_channel(model, found)
        for _, weight in found:
            if isinstance(weight.constraint, _Mask):
                raise UsageError(
                    f"A pruner prunes {weight.path!r} already. Call its detach() first."
                )
        self.schedule = schedule
        self.structure = structure
        self.layer_names = [layer.name for layer, _ in found]
        self.weights = [weight for _, weight in found]
        self.masks = [variable_beside(w, tf.ones(w.shape), "mask") for w in self.weights]
        self._seed = [seed, 0xD42]
        self._units = [Units(*item, structure) for item in found]
        self._last_change = tf.Variable([-1], trainable=False, dtype=tf.int64)
        if schedule is None:
            for mask, weight in zip(self.masks, self.weights, strict=True):
                mask.assign(tf.cast(tf.not_equal(weight, 0), mask.dtype))
        elif self.algorithm.rewires:
            self._draw_masks()
            self.apply_masks()
        self._gradient = LastGradient(self.weights) if self.algorithm.reads == "gradient" else None
        self._originals = [(weight.constraint, weight.regularizer) for weight in self.weights]
        pairs = list(zip(self.weights, self.masks, strict=True))
        self._regularizers = [self.algorithm.regularizer(*pair) for pair in pairs]
        for (weight, mask), regularizer in zip(pairs, self._regularizers, strict=True):
            weight.constraint = _Mask(weight.constraint, mask)
            if regularizer:
                weight.regularizer = _Sum(weight.regularizer, regularizer)

    def detach(self):
        """Ends pruning: weights are masked a last time and have their own constraints again."""
        self.apply_masks()
        for weight, original in zip(self.weights, self._originals, strict=True):
            weight.constraint, weight.regularizer = original

    @property
    def variables(self):
        """All state besides the model's own: what a checkpoint must hold."""
        holders = [holder for holder in (*self._regularizers, self._gradient) if holder]
        others = [variable for holder in holders for variable in holder.variables]
        return [self._last_change, *self.masks, *others]

    @property
    def density(self):
        """Kept weights / all weights of the layers that are pruned."""
        ones = sum(int(np.sum(mask.numpy())) for mask in self.masks)
        return ones / sum(mask.shape.num_elements() for mask in self.masks)

    def layer_densities(self):
        """Returns {layer name: kept weights / all weights of its kernel}."""
        means = (float(np.mean(mask.numpy())) for mask in self.masks)
        return dict(zip(self.layer_names, means, strict=True))

    def update(self, step, optimizer):
        """Changes the masks if the schedule asks for it at `step`, once.

        A step that comes again, such as one whose gradients a LossScaleOptimizer found too large
        and did not apply, changes nothing.

        Args:
            step: int, the number of training steps done.
            optimizer: the Keras optimizer that trains the model.

        Returns:
            Whether the masks may have changed.

        Raises:
            UsageError: if the algorithm reads momentum or gradient and `optimizer` has none.
        """
        if self.schedule is None:
            return False
        should_prune, sparsity = self.schedule(tf.constant(step))
        changes = bool(should_prune) and step != self._last_change.numpy()[0]
        if changes:
            self._change_masks(step, 1.0 - float(sparsity), optimizer)
            self._last_change.assign([step])
        if self._gradient and bool(self.schedule(tf.constant(step + 1))[0]):
            # Before the first step `fit` has not built the optimizer, whose momenta will be 0.
            built = optimizer.built
            momenta = self._slots(optimizer)[0] if built else map(tf.zeros_like, self.weights)
            self._gradient.remember(step, momenta)
        return changes

    def apply_masks(self):
        """Sets all weights outside the masks to 0, after something else than training set them."""
        for weight, mask in zip(self.weights, self.masks, strict=True):
            weight.assign(weight * mask)

    def _slots(self, optimizer):
        """Returns the momenta and the moving averages of the weights, after a check."""
        reads = self.algorithm.reads
        momenta, averages = slots(optimizer, self.weights)
        if reads and not momenta:
            raise UsageError(
                f"{type(self.algorithm).__name__} reads the {reads} and needs an optimizer with "
                "momentum, such as keras.optimizers.SGD(momentum=0.9) or Adam. "
                f"Received: {optimizer.name}"
            )
        return momenta, averages

    def _states(self, momenta=None, gradients=None):
        """Returns each layer as the algorithm sees it."""
        states = []
        for index, units in enumerate(self._units):
            mask, weight = self.masks[index].numpy(), self.weights[index]
            state = rewiring.LayerState(
                active=units.active(mask),
                weight=units.norm(keras.ops.convert_to_numpy(weight)),
                unit_size=units.size,
                kernel_shape=units.kernel_shape,
            )
            if momenta:
                momentum = keras.ops.convert_to_numpy(momenta[index])
                state.momentum = units.norm(momentum)
                state.momentum_mean = float(np.mean(np.abs(momentum)[mask > 0]))
            if gradients:
                state.gradient = units.norm(gradients[index])
            states.append(state)
        return states

    def _draw_masks(self):
        states, density = self._states(), 1.0 - self.schedule.target_sparsity
        total, weights = total_weights(states, density), total_weights(states, 1.0)
        least = sum(state.unit_size for state in states)
        if total < least:
            raise UsageError(
                f"A density of {density:g} leaves {total} of {weights} weights, too few for one "
                f"unit in each of {len(states)} layers. Choose a density of at least "
                f"{least / weights:.2g}."
            )
        rng = np.random.default_rng(self._seed)
        kept = self.algorithm.budget(states, density)
        for mask, units, keep in zip(self.masks, self._units, kept, strict=True):
            active = rewiring.initial_mask(rng, units.count, keep, units.filters)
            mask.assign(units.spread(active))

    def _change_masks(self, step, density, optimizer):
        algorithm, momenta, averages, gradients = self.algorithm, [], [], []
        if algorithm.rewires or algorithm.reads:
            momenta, averages = self._slots(optimizer)
        if self._gradient:
            gradients = self._gradient.recall(step, optimizer, momenta)
        states = self._states(momenta if algorithm.reads else None, gradients)
        rng = np.random.default_rng([*self._seed, step])
        drop_scores = [algorithm.drop_score(state, rng) for state in states]
        if algorithm.rewires:
            changes = rewiring.rewire(
                states,
                drop_scores,
                [algorithm.grow_score(state, rng) for state in states],
                self.schedule.prune_rate(step),
                total_weights(states, 1.0 - self.schedule.target_sparsity),
                algorithm.regrowth_shares(states),
            )
        else:
            kept = map(rewiring.top, drop_scores, algorithm.budget(states, density))
            changes, momenta, averages = [(active, active) for active in kept], [], []
        for index, (survived, active) in enumerate(changes):
            units, weight, mask = self._units[index], self.weights[index], self.masks[index]
            mask.assign(units.spread(active))
            if self._regularizers[index]:
                self._regularizers[index].update()
            # Whatever is regrown starts at 0, a weight dropped just now included. So does its
            # momentum: gathered without effect while it was masked, it can exceed any weight
            # if a filter had no weights left and BatchNorm divided by no variance.
            stays = units.spread(survived)
            weight.assign(weight * stays)
            if momenta:
                momenta[index].assign(momenta[index] * (1.0 + stays - mask))
            if averages:
                averages[index].assign(averages[index] * stays)
