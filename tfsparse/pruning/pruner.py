"""The pruner: masks over a model's weights, which change as algorithm and schedule say."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.ops import convert_to_numpy as to_numpy

from tfsparse import _tfmot
from tfsparse.errors import UsageError
from tfsparse.pruning import algorithms, constraints, initial, optimizer_state, rewiring
from tfsparse.pruning.budget import total_cost
from tfsparse.pruning.policy import ConvolutionPolicy, prunable_layers
from tfsparse.pruning.ranking import top
from tfsparse.pruning.schedule import steps_to_change
from tfsparse.pruning.units import (
    STRUCTURES,
    Units,
    counter,
    names_of,
    prunable_by_channel,
    variable_beside,
    weight_costs,
)


class Pruner:
    """Keeps a model sparse during training.

    Training stays Keras' own: the masks are constraints of the weights, which every Keras optimizer
    applies after its step, and the algorithm's regularizer is one of `model.losses`. So weights
    outside the mask are exactly 0 after every step, while the optimizer's momentum of all weights,
    masked ones included, stays alive and says where to regrow. What remains is to call `update`
    before each training step; in `model.fit`, `UpdatePruningStep` does it.

    An algorithm that rewires (DNR, SET, RigL) gives the model its final density from the start; the
    others prune gradually, to the schedule's sparsity, and what is 0 from the start stays 0.
    Without a schedule the masks do not change: a sparse model is trained on.

    The masks can be told from the weights' exact zeros. So if something other than training sets
    the weights, such as a Keras callback that restores them, the masks follow: see `adopt_weights`.

    Args:
        model: built Keras 3 model. Its weights are masked at once.
        schedule: TF-MOT `PruningSchedule`, called with a step for (whether to prune, sparsity).
            To rewire it also has a `target_sparsity` and a `prune_rate(step)`, as `DNRSchedule`
            has. None keeps the weights that are not zero now.
        policy: TF-MOT `PruningPolicy` that takes Keras 3 layers; None for `ConvolutionPolicy()`.
        structure: "unstructured" prunes single weights, "channel" all weights of an input channel
            of a layer together. Layers that read an input of the model, whose channels are the
            image's, are not pruned by channel.
        algorithm: `Algorithm`; None for `DNR()` if the schedule has a prune rate, else for
            `Magnitude()`.
        seed: int, not negative, that fixes what is random: initial masks, and what SET regrows.
        initial_masks: how an algorithm that rewires chooses the weights to start with. "random"
            draws them and suits a model that is not trained. "magnitude" keeps the largest weights
            of each layer; if no more weights than the density allows are not 0, it keeps all of
            these, and zeros drawn at random fill up the number. None for "magnitude" if the model
            appears to be trained (see `tfsparse.pruning.initial.is_trained`), else "random".
        budget: what the schedule's sparsity is of, and layers share: "weights", or "macs", the
            multiply-accumulates for one image, of which a weight of an early layer takes more than
            one of a late layer.

    Raises:
        UsageError: if an argument is out of range, the algorithm rewires and the schedule has no
            prune rate, the density leaves a layer without any weight, another pruner is attached to
            the model, or channels cannot be pruned as one: those of a periodic layer that differ in
            their number of weights, or of groups.
    """

    def __init__(
        self,
        model: keras.Model,
        schedule: _tfmot.PruningSchedule | None,
        policy: _tfmot.PruningPolicy | None = None,
        structure: str = "unstructured",
        algorithm: algorithms.Algorithm | None = None,
        seed: int = 0,
        initial_masks: str | None = None,
        budget: str = "weights",
    ) -> None:
        _check_arguments(structure, initial_masks, seed)
        self.algorithm = algorithms.resolve(algorithm, schedule)
        found = prunable_layers(model, policy or ConvolutionPolicy())
        if structure == "channel":
            found = prunable_by_channel(model, found)
        _check_unpruned(weight for _, weight in found)
        self.schedule = schedule
        self.structure = structure
        self.layer_names = names_of(layer for layer, _ in found)
        self.weights = [weight for _, weight in found]
        self.masks = [variable_beside(w, np.ones(w.shape, "f4"), "mask") for w in self.weights]
        self._seed = [seed, 0xD42]
        self._units = [Units(layer, weight, structure) for layer, weight in found]
        self._weight_costs = weight_costs(model, found, budget)
        self._most_units = [units.count for units in self._units]
        self._originals = [(weight.constraint, weight.regularizer) for weight in self.weights]
        self._regularizers: list[Any] = []
        self._last_change = counter()
        # The step of the last update, and whether the weights were seen to be masked after it.
        self._last_update: int | None = None
        self._is_checked = False
        self._fitted: Any = None
        self._train_function: Any = None
        if self.algorithm.rewires:
            is_trained = initial.is_trained(model, self.weights)
            choice = initial_masks or ("magnitude" if is_trained else "random")
            self._set_masks(self._initial_masks(choice))
        else:
            self._set_masks(map(self._support, range(len(found))))
        self.apply_masks()
        is_read = self.algorithm.reads == "gradient"
        self._gradient = optimizer_state.LastGradient(self.weights) if is_read else None
        self._attach()
        self._is_outside = constraints.Finder(self.weights, self.masks)

    def _attach(self):
        """Puts the masks and the algorithm's regularizers on the weights."""
        pairs = list(zip(self.weights, self.masks, strict=True))
        self._regularizers = [self.algorithm.regularizer(*pair) for pair in pairs]
        for (weight, mask), regularizer in zip(pairs, self._regularizers, strict=True):
            weight.constraint = constraints.Mask(weight.constraint, mask)
            if regularizer:
                weight.regularizer = constraints.Sum(weight.regularizer, regularizer)

    def detach(self) -> None:
        """Ends pruning: weights have their own constraints and regularizers again.

        All weights stay as they are. If something other than training has set them, such as
        `EarlyStopping(restore_best_weights=True)`, the masks become those of the weights. A
        `tf.function` that was traced before goes on applying the masks; make it again.
        """
        if not self._is_attached():
            return
        if self._is_outside():
            self._set_masks(map(self._support, range(len(self.weights))))
        for weight, original in zip(self.weights, self._originals, strict=True):
            weight.constraint, weight.regularizer = original
        if self._fitted is not None:
            self._fitted.make_train_function(force=True)

    @property
    def variables(self) -> list[Any]:
        """All state besides the model's own: what a checkpoint must hold."""
        holders = [holder for holder in (*self._regularizers, self._gradient) if holder]
        others = [variable for holder in holders for variable in holder.variables]
        return [self._last_change, *self.masks, *others]

    @property
    def density(self) -> float:
        """Kept / all of what the budget counts, weights or MACs, of the layers that are pruned."""
        pairs = list(zip(self._weight_costs, self._kept(), strict=True))
        kept = sum(cost * int(np.sum(mask)) for cost, mask in pairs)
        return kept / sum(cost * mask.size for cost, mask in pairs)

    def layer_densities(self) -> dict[str, float]:
        """Returns {layer name: kept weights / all weights of its kernel}."""
        return dict(zip(self.layer_names, map(float, map(np.mean, self._kept())), strict=True))

    def update(self, step: int, optimizer: keras.optimizers.Optimizer) -> bool:
        """Changes the masks if the schedule asks for it at `step`, once.

        A step that comes again, such as one whose gradients a LossScaleOptimizer found too large
        and did not apply, changes nothing.

        Args:
            step: int, the number of training steps done.
            optimizer: the Keras optimizer that trains the model.

        Returns:
            Whether the masks may have changed.

        Raises:
            UsageError: if the algorithm reads momentum or gradient and `optimizer` has none, a
                weight is not 0 outside its mask after a training step, or the pruner is detached.
        """
        if self._last_update is None or not self._is_attached():
            self.check(optimizer)
            self.adopt_weights()
        elif step < self._last_update:  # counted anew, by a new optimizer
            self.adopt_weights()
            self._last_change.assign([-1])
            self._note_zeros()
        elif self._last_update == step or self._is_checked:
            if self._is_outside():
                self.adopt_weights()
        else:
            self.check_step()
        self._last_update, self._is_checked = step, False
        if self.schedule is None:
            return False
        should_prune, sparsity = _tfmot.ask(self.schedule, step)
        changes = should_prune and step != to_numpy(self._last_change)[0]
        if changes:
            self._change_masks(step, 1.0 - sparsity, optimizer)
            self._last_change.assign([step])
        if self._gradient and _tfmot.ask(self.schedule, step + 1)[0]:
            # Before the first step `fit` has not built the optimizer, whose momenta will be 0.
            built = optimizer.built
            zeros = (ops.zeros(weight.shape, weight.dtype) for weight in self.weights)
            momenta = self._momenta(optimizer) if built else zeros
            self._gradient.remember(step, momenta)
        return changes

    def steps_to_update(self, step: int, most: int) -> int:
        """Returns how many steps from `step` on need no `update` but the one before the first.

        Args:
            step: int, the number of training steps done; `update` was called with it.
            most: int, at least 1; the result is at most this.
        """
        ahead = 1 if self._gradient else 0  # before it is read, momenta are kept
        return steps_to_change(self.schedule, step, most, ahead) if self.schedule else most

    def apply_masks(self) -> None:
        """Sets all weights outside the masks to 0.

        Call it in a loop of your own after an optimizer with `use_ema` has put its moving averages
        in the place of the weights.
        """
        for weight, mask in zip(self.weights, self.masks, strict=True):
            weight.assign(weight * mask)

    def adopt_weights(self) -> None:
        """Makes the masks those of weights that something other than training has set.

        Call it in a loop of your own after you have loaded weights; `UpdatePruningStep` calls it.
        An algorithm that rewires keeps its density: if some weights outside the masks are not 0,
        its masks are chosen as `initial_masks="magnitude"` says, so a model of that density goes on
        with the weights that it has. Otherwise what is 0 stays 0, unless the weight has a
        constraint of its own, which may have set it to 0. The dynamic regularizer of layers whose
        masks change starts anew.
        """
        is_outside = self._is_outside()
        if self.algorithm.rewires:
            if is_outside:
                self._set_masks(self._initial_masks("magnitude"))
                self.apply_masks()
            return
        own = [constraint is not None for constraint, _ in self._originals]
        masks = list(map(to_numpy, self.masks))
        self._set_masks(
            mask if has_constraint and not is_outside else self._support(index)
            for index, (mask, has_constraint) in enumerate(zip(masks, own, strict=True))
        )

    def check(
        self, optimizer: keras.optimizers.Optimizer, variables: Iterable[Any] | None = None
    ) -> None:
        """Raises UsageError if training could not prune as it should.

        Args:
            optimizer: the Keras optimizer that trains the model; what it must have is checked only
                if it is built.
            variables: the variables that are trained; None for those that are not frozen.
        """
        if not self._is_attached():
            raise UsageError("This pruner is detached. Make a new one to go on pruning.")
        trained = None if variables is None else {id(variable) for variable in variables}
        for name, weight in zip(self.layer_names, self.weights, strict=True):
            if not weight.trainable or (trained is not None and id(weight) not in trained):
                raise UsageError(
                    f"Layer {name!r} is pruned but not trained. Freeze it before the pruner is "
                    "made, or leave it out by a policy."
                )
        if self.algorithm.reads and optimizer.built:
            self._momenta(optimizer)

    def trace_in(self, model: keras.Model) -> None:
        """Has Keras trace the training step of `model` anew, unless it has the masks in it."""
        if self._fitted is not model or model.train_function is not self._train_function:
            model.make_train_function(force=True)
            self._fitted, self._train_function = model, model.train_function

    def check_step(self) -> None:
        """Raises UsageError if weights outside the masks are not 0 after a training step."""
        if self._is_outside():
            raise UsageError(
                "Pruned weights are not 0 after a training step. Compile the model or make your "
                "tf.function again after the pruner is made; if you have loaded weights, call the "
                "pruner's adopt_weights()."
            )

    def after_step(self, optimizer: keras.optimizers.Optimizer, check: bool = False) -> None:
        """Masks the optimizer's moving averages, which Keras updates before it masks the weights.

        Only `UpdatePruningStep` need call it. From here to the next `update`, weights that are not
        0 outside the masks are not this step's: the masks follow them.

        Args:
            optimizer: the Keras optimizer that trains the model.
            check: whether to call `check_step`.
        """
        if check:
            self.check_step()
        self._is_checked = True
        averages = optimizer_state.averages(optimizer, self.weights)
        for average, mask in zip(averages, self.masks, strict=bool(averages)):
            average.assign(average * mask)

    def _momenta(self, optimizer):
        return optimizer_state.momenta(optimizer, self.weights, self.algorithm)

    def _states(self, momenta=None, gradients=None):
        """Returns each layer as the algorithm sees it."""
        none = [None] * len(self._units)
        return rewiring.in_threads(
            Units.state,
            self._units,
            list(map(to_numpy, self.masks)),
            list(map(to_numpy, self.weights)),
            self._weight_costs,
            list(map(to_numpy, momenta)) if momenta else none,
            gradients or none,
        )

    def _is_attached(self):
        constraint = self.weights[0].constraint
        return isinstance(constraint, constraints.Mask) and constraint.mask is self.masks[0]

    def _kept(self):
        """Returns the masks; those of the weights if some are not 0 outside the pruner's."""
        if self._is_outside():
            return [self._support(index) for index in range(len(self.weights))]
        return list(map(to_numpy, self.masks))

    def _support(self, index):
        """Returns the mask of the units of a layer that are not 0; of all if none is."""
        nonzero = to_numpy(self.weights[index]) != 0
        if self.schedule is None:
            return nonzero.astype(np.float32)
        units = self._units[index]
        return units.spread(units.active(nonzero) | (not nonzero.any()))

    def _initial_masks(self, choice):
        """Returns the masks that `initial_masks` describes."""
        density = 1.0 - self.schedule.target_sparsity
        layers = self._states(), [units.filters for units in self._units]
        chosen = initial.choose(choice, self.algorithm, *layers, density, self._seed)
        return [units.spread(each) for units, each in zip(self._units, chosen, strict=True)]

    def _set_masks(self, masks):
        changed = False
        for index, mask in enumerate(masks):
            if (mask != to_numpy(self.masks[index])).any():
                changed = True
                self.masks[index].assign(mask)
                if self._regularizers and self._regularizers[index]:
                    self._regularizers[index].restart()
        if not self.algorithm.rewires and changed:
            self._note_zeros()

    def _note_zeros(self):
        """What is 0 now stays 0, even if a gradual schedule asks for more weights."""
        pairs = zip(self._units, self.masks, strict=True)
        self._most_units = [units.active(to_numpy(mask)).sum() for units, mask in pairs]

    def _scores(self, method, states, rng):
        """Returns the scores of one of the algorithm's methods, float [units] of each layer."""
        scores = [np.asarray(getattr(self.algorithm, method)(state, rng)) for state in states]
        for name, score, state in zip(self.layer_names, scores, states, strict=True):
            if score.shape != state.active.shape:
                raise UsageError(
                    f"{type(self.algorithm).__name__}.{method} must return a number for each unit "
                    f"of {name}, shape {state.active.shape}. Received: {score.shape}"
                )
        return scores

    def _change_masks(self, step, density, optimizer):
        algorithm, momenta, gradients = self.algorithm, [], []
        if algorithm.rewires or algorithm.reads:
            momenta = self._momenta(optimizer)
        if self._gradient:
            gradients = self._gradient.recall(step, optimizer, momenta)
        states = self._states(momenta if algorithm.reads else None, gradients)
        rng = np.random.default_rng([*self._seed, step])
        drop_scores = self._scores("drop_score", states, rng)
        if algorithm.rewires:
            changes = rewiring.rewire(
                states,
                drop_scores,
                self._scores("grow_score", states, rng),
                self.schedule.prune_rate(step),
                total_cost(states, 1.0 - self.schedule.target_sparsity),
                algorithm.regrowth_shares(states),
            )
        else:
            kept = initial.checked_budget(algorithm, states, density)
            kept = np.minimum(kept, self._most_units)
            changes, momenta = [(each, each) for each in map(top, drop_scores, kept)], []
        averages = optimizer_state.averages(optimizer, self.weights)
        for index, (survived, active) in enumerate(changes):
            units, weight = self._units[index], self.weights[index]
            mask, stays = units.spread(active), units.spread(survived)
            self.masks[index].assign(mask)
            if self._regularizers[index]:
                self._regularizers[index].update()
            # Whatever is regrown starts at 0, a weight dropped just now included. So does its
            # momentum: gathered without effect while it was masked, it can exceed any weight
            # if a filter had no weights left and BatchNorm divided by no variance.
            weight.assign(weight * stays)
            if momenta:
                momenta[index].assign(momenta[index] * (1.0 + stays - mask))
            if averages:
                averages[index].assign(averages[index] * stays)


def _check_arguments(structure, initial_masks, seed):
    if structure not in STRUCTURES:
        raise UsageError(f"structure must be one of {STRUCTURES}. Received: {structure!r}")
    if initial_masks not in initial.CHOICES:
        raise UsageError(
            f"initial_masks must be one of {initial.CHOICES}. Received: {initial_masks!r}"
        )
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise UsageError(f"seed must be an int, at least 0. Received: {seed!r}")


def _check_unpruned(weights):
    """Raises a `UsageError` if a pruner is attached to one of the weights."""
    for weight in weights:
        if isinstance(weight.constraint, constraints.Mask):
            raise UsageError(f"A pruner prunes {weight.path!r} already. Call its detach() first.")
