"""Which units a model starts with if the algorithm rewires. All but `is_trained` is NumPy only."""

import keras
import numpy as np

from tfsparse.errors import UsageError
from tfsparse.pruning.budget import allot, total_cost

CHOICES = (None, "random", "magnitude")


def is_trained(model, weights):
    """Returns whether `model` appears to be trained, or pruned.

    It is if its optimizer has made a step, a one-dimensional weight, such as a bias or BatchNorm's
    gamma, no longer has the one value that it starts with, or one of the `weights` is partly 0.
    """
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and int(optimizer.iterations) > 0:
        return True
    pruned = {id(weight) for weight in weights}
    vectors = [v for v in model.trainable_variables if len(v.shape) == 1 and id(v) not in pruned]
    if any(np.ptp(keras.ops.convert_to_numpy(vector)) > 0 for vector in vectors if vector.shape[0]):
        return True
    return any(_is_partly_zero(keras.ops.convert_to_numpy(weight)) for weight in weights)


def choose(choice, algorithm, layers, filters, density, seed):
    """Returns a bool [units] for each of the `LayerState`s: the units that are on at first.

    Args:
        choice: "random" or "magnitude".
        algorithm: says how many units each layer gets.
        layers: list of `LayerState`.
        filters: of each layer, the filter of each unit, int [units], or None; see `random_mask`.
        density: of all layers together.
        seed: of `numpy.random.default_rng`.

    Raises:
        UsageError: as `budget` does.
    """
    kept = budget(algorithm, layers, density)
    rng = np.random.default_rng(seed)
    if choice == "magnitude":
        return magnitude_masks(rng, layers, kept)
    return [
        random_mask(rng, layer.weight.size, keep, own)
        for layer, keep, own in zip(layers, kept, filters, strict=True)
    ]


def budget(algorithm, layers, density):
    """Returns int [layers], the units that `algorithm` gives each of the `LayerState`s.

    Raises:
        UsageError: if `density` leaves too little for a unit in each layer.
    """
    least = sum(layer.unit_cost for layer in layers)
    if total_cost(layers, density) < least:
        raise UsageError(
            f"A density of {density:g} leaves too little for one unit in each of {len(layers)} "
            f"layers. Choose a density of at least {least / total_cost(layers, 1.0):.2g}."
        )
    return checked_budget(algorithm, layers, density)


def checked_budget(algorithm, layers, density):
    """Returns what `algorithm.budget` does; raises a `UsageError` if that is no number of units."""
    kept = np.asarray(algorithm.budget(layers, density))
    most = np.array([layer.weight.size for layer in layers])
    is_whole = kept.shape == most.shape and kept.dtype.kind in "iu"
    if not is_whole or (kept < 0).any() or (kept > most).any():
        raise UsageError(
            f"{type(algorithm).__name__}.budget must return an int for each of {len(most)} layers, "
            f"from 0 to its units {most.tolist()}. Received: {kept.tolist()}"
        )
    return kept


def random_mask(rng, count, keep, filters=None):
    """Returns bool [count] with `keep` units on, drawn at random from `rng`.

    A filter without weights has no gradient behind a ReLU, and never gets one. So each filter has
    a unit if there are enough of them; `filters`, int [count], is the filter of each unit.
    """
    order = rng.permutation(count)
    if filters is not None:
        first = np.unique(filters[order], return_index=True)[1]  # of each filter, in random order
        if len(first) <= keep:
            order = np.concatenate([order[first], np.delete(order, first)])
    active = np.zeros(count, bool)
    active[order[:keep]] = True
    return active


def magnitude_masks(rng, layers, kept):
    """Returns a bool [units] for each `LayerState`: the units that a trained model goes on with.

    These are the largest of each layer, as many as `kept` says. If the units that are not 0 are no
    more in total, all of them stay, and units that are 0, drawn at random, make up the number.

    Args:
        rng: NumPy generator.
        layers: list of `LayerState`.
        kept: int [layers], the units of each layer, at least 1.
    """
    costs = np.array([layer.unit_cost for layer in layers])
    counts = np.array([np.count_nonzero(layer.weight) for layer in layers])
    missing = np.sum((kept - counts) * costs)
    if missing > -1e-6:
        free = np.array([layer.weight.size for layer in layers]) - counts
        kept = counts + allot(np.maximum(kept - counts, 0) * costs, costs, free, missing)
    masks = []
    for layer, keep in zip(layers, np.maximum(kept, 1), strict=True):
        order = rng.permutation(layer.weight.size)  # of those that are 0
        order = order[np.argsort(-layer.weight[order], kind="stable")]
        masks.append(np.zeros(order.size, bool))
        masks[-1][order[:keep]] = True
    return masks


def _is_partly_zero(values):
    return 0 < np.count_nonzero(values) < values.size
