"""How the optimizer keeps pruned weights at 0, and what Keras adds to the loss."""

import keras
from keras import ops

from tfsparse import backend


class Mask(keras.constraints.Constraint):
    """Zeros outside the mask, after the weight's own constraint."""

    def __init__(self, constraint, mask):
        self.constraint, self.mask = constraint, mask

    def __call__(self, weight):
        weight = ops.convert_to_tensor(self.constraint(weight) if self.constraint else weight)
        mask = ops.convert_to_tensor(self.mask)
        return ops.where(mask > 0, weight, ops.zeros_like(weight))


class Sum(keras.regularizers.Regularizer):
    """The weight's own regularizer and the algorithm's."""

    def __init__(self, own, other):
        self.own, self.other = own, other

    def __call__(self, weight):
        return (self.own(weight) if self.own else 0.0) + self.other(weight)


class Finder:
    """A compiled function without arguments: is any weight outside its mask not 0?"""

    def __init__(self, weights, masks):
        self.variables = [*weights, *masks]
        self._count = len(weights)
        self._find = backend.compiled(Finder._any_outside)

    def __call__(self):
        return bool(self._find(self))

    def _any_outside(self):
        pairs = zip(self.variables[: self._count], self.variables[self._count :], strict=True)
        outside = [
            ops.any((ops.convert_to_tensor(weight) != 0) & (ops.convert_to_tensor(mask) <= 0))
            for weight, mask in pairs
        ]
        return ops.any(ops.stack(outside))
