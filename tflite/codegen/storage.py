"""Stored tensors of a network, and what the tensors of its file are made of."""

from typing import NamedTuple

import numpy as np

from tflite.codegen import layers
from tflite.codegen.layers import Layer

TENSOR = np.int64(1) << 40  # place: tensor * TENSOR + number in the tensor
CONSTANT = np.int64(-1000)  # place of a constant: CONSTANT + its number


class Value(NamedTuple):
    """A tensor of the file.

    Attributes:
        places: int64 array of its shape.
        table: int8 [1 or channels, 256] through which its numbers are to be looked up, or None.
    """

    places: np.ndarray
    table: np.ndarray | None = None


class Storage:
    """The stored tensors and the layers that make them.

    Attributes:
        layers: list of `layers.Layer`s in the order in which they run.
        shapes: (height, width, channels) of each stored tensor.
    """

    def __init__(self):
        self.layers, self.shapes = [], []
        self._tables = {}  # (tensor, bytes of the table) -> tensor

    def new(self, shape):
        """Returns the index of a new stored tensor of a shape [1, ...]."""
        shape = shape[1:] if len(shape) == 4 else (1, 1, int(np.prod(shape)))
        self.shapes.append(tuple(map(int, shape)))
        return len(self.shapes) - 1

    def places(self, tensor, shape):
        return tensor * TENSOR + np.arange(np.prod(shape), dtype=np.int64).reshape(shape)

    def sources(self, places):
        return np.unique(places[places >= 0] // TENSOR).tolist()

    def whole(self, places):
        """Returns the stored tensor that `places` are, all of it and in order, or None."""
        flat = places.ravel()
        tensor = int(flat[0] // TENSOR)
        if flat[0] < 0 or flat.size != np.prod(self.shapes[tensor]):
            return None
        same = (flat == tensor * TENSOR + np.arange(flat.size)).all()
        return tensor if same else None

    def tensor_of(self, value):
        return int(value.places.ravel()[0] // TENSOR)

    def permuted(self, places):
        """Returns `(tensor, order)`: places[..., i] are channel order[i] of a whole stored tensor.

        Order is None for the tensor itself; both are None if it is not that.
        """
        tensor = self.whole(places)
        if tensor is not None:
            return tensor, None
        sources = self.sources(places)
        if len(sources) != 1 or (places < 0).any():
            return None, None
        size = int(np.prod(self.shapes[sources[0]]))
        # A vector is any tensor as one pixel.
        if self.shapes[sources[0]] != places.shape and places.shape != (1, 1, size):
            return None, None
        order = places[0, 0] - sources[0] * TENSOR
        if not np.array_equal(np.sort(order), np.arange(len(order))):
            return None, None
        expected = self.places(sources[0], places.shape)[..., order]
        return (sources[0], order) if np.array_equal(places, expected) else (None, None)

    def stored(self, value, title):
        """Returns a `Value` that is a whole stored tensor, and adds what makes it."""
        value = self.looked_up(value)
        if self.whole(value.places) is not None:
            return value
        return Value(self.places(self.copy(value, title), value.places.shape))

    def looked_up(self, value):
        """Returns a `Value` without a table, and adds the layer that looks its numbers up."""
        if value.table is None:
            return value
        sources, channels = self.sources(value.places), len(value.table)
        is_alone = len(sources) == 1 and not (value.places < 0).any()
        if not is_alone or (channels > 1 and self.whole(value.places) is None):
            value = Value(self.places(self.copy(value, "a table"), value.places.shape), value.table)
            sources = self.sources(value.places)
        (source,) = sources
        key = source, value.table.tobytes()
        if key not in self._tables:
            output = self.new((1, *self.shapes[source]))
            operation = layers.LookUp(value.table, int(np.prod(self.shapes[source])))
            self.layers.append(Layer(operation, (source,), output, "table"))
            self._tables[key] = output
        return Value(value.places + (self._tables[key] - source) * TENSOR)

    def copy(self, value, title):
        """Returns a new tensor of the numbers at a value's places; their table is not applied."""
        places = value.places
        sources = self.sources(places)
        operation = layers.copy_of(places.reshape(-1, places.shape[-1]), sources, TENSOR, CONSTANT)
        shape = places.shape if places.ndim == 4 else (1, *places.shape)
        output = self.new(shape if places.ndim >= 3 else places.shape)
        self.layers.append(Layer(operation, tuple(sources), output, f"copy for {title}"))
        return output
