"""Batches that are made where they are used: on the accelerator, from arrays that stay there."""

import functools
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from tfsparse import backend


class Batches(Protocol):
    """Batches of (images, labels), of known number, such as a `tf.data.Dataset`."""

    def __iter__(self) -> Iterator[tuple[Any, Any]]: ...

    def __len__(self) -> int: ...


class PlannedBatches:
    """Batches of (images, labels), each made from the same arrays as its row of a plan says.

    So a training step can make its batch within the same compiled call.

    Args:
        make: function of (arrays, row) that returns (images, labels), in `keras.ops`; one of a
            module, as it is compiled once.
        arrays: tuple of tensors.
        plan: tuple of NumPy arrays [batches, ...]; `row` is a list of a batch's entries.
    """

    def __init__(self, make, arrays, plan):
        self.make, self.arrays, self.plan = make, arrays, [np.asarray(part) for part in plan]

    def __len__(self) -> int:
        return len(self.plan[0])

    def batch(self, index):
        """Returns one of the batches."""
        return _compiled(self.make)(None, self.arrays, [part[index] for part in self.plan])

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return map(self.batch, range(len(self)))


@functools.cache
def _compiled(make):
    return backend.compiled(lambda _, arrays, row: make(arrays, row))
