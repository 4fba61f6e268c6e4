"""Packed weight files: of a sparse model the kept weights, and no more index than they need.

A safetensors file that holds in one tensor of each type, "values.float32", the stored numbers of
all weights one after the other, and in the uint8 tensor "index" where they belong: of a periodic
kernel one period of its supports; of a pruned one what `tfsparse.packing` finds smallest. The
metadata entry "layers" says weight by weight what is stored. docs/packed_format.md specifies it;
the tests read it with NumPy and json alone.
"""

import json
import re
import zlib
from typing import NamedTuple

import keras
import numpy as np

from tfsparse import packing, patterns
from tfsparse.errors import UsageError
from tfsparse.files import read_tensors, write_tensors
from tfsparse.graph import leaf_layers
from tfsparse.layers import PeriodicConv2D

FORMAT, VERSION = "tfsparse-packed", "1"
DTYPES = (
    *("float16", "float32", "float64", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)
# What is packed otherwise than plain has packing and number of stored values behind it.
_PACKED = re.compile(rf"(.+) ({'|'.join(packing.PACKINGS[1:])}) ([0-9]{{1,18}})")


def save_weights(model, filepath):
    """Writes the weights of `model` to a packed file, whole or not at all.

    Of a periodic kernel the taps that exist are stored. Whatever has zeros, by whichever pruner, is
    stored without them where that is smaller. All other numbers are kept bit for bit.

    Args:
        model: built Keras model.
        filepath: of the file, usually ending in ".safetensors".

    Raises:
        UsageError: where the model is not built, a weight's type is none of `DTYPES`, or the file
            cannot be written.
    """
    slots = _slots(model)
    layers, values, index = [], {}, [np.zeros(0, np.uint8)]
    for slot in slots:
        if slot.dtype not in DTYPES:
            raise UsageError(
                f"Packed files hold weights of type {', '.join(DTYPES)}. Received: {slot.path} "
                f"of {slot.dtype}"
            )
        numbers = keras.ops.convert_to_numpy(slot.variable).ravel()[slot.order]
        packed = packing.pack(numbers, slot.positions, slot.shape)
        _append(layers, slot, packed)
        values.setdefault(f"values.{slot.dtype}", []).append(packed.numbers)
        index += [slot.period_index(), packed.index]
    tensors = {name: np.concatenate(parts) for name, parts in values.items()}
    tensors["index"] = np.concatenate(index)
    layers = json.dumps(layers, separators=(",", ":"))
    checksum = _checksum(layers, tensors)
    metadata = {"format": FORMAT, "version": VERSION, "layers": layers, "crc32": checksum}
    write_tensors(filepath, tensors, metadata)


def load_weights(model, filepath):
    """Puts the weights of a packed file into `model`: all of them or, where it raises, none.

    Weights go by their order in `model.weights`; their layers need the names with which they were
    saved, but for the numbers that Keras appends to make names unique.

    Args:
        model: built Keras model, of the architecture and the patterns that were saved.
        filepath: of a file that `save_weights` wrote.

    Raises:
        UsageError: where the file is missing, damaged or not a packed file, or is of another model.
    """
    slots = _slots(model)
    tensors, metadata = read_tensors(filepath)
    entries = _entries(filepath, tensors, metadata)
    if len(entries) != len(slots):
        raise UsageError(
            f"{filepath} is of another model: it has {len(entries)} weights and the model "
            f"{model.name} has {len(slots)}. Build the model that was saved."
        )
    file = _Reader(filepath, tensors)
    loaded = [file.read(slot, *entry) for slot, entry in zip(slots, entries, strict=True)]
    file.finish()
    for slot, numbers in zip(slots, loaded, strict=True):
        slot.variable.assign(numbers)


class _Slot(NamedTuple):
    """A weight of a model, as the format sees it.

    Attributes:
        variable: the Keras variable.
        pattern: that of a periodic kernel, else None.
        shape: of the variable; of a periodic kernel, of its dense kernel.
        positions: where its numbers stand in an array of `shape`, flattened; int64, ascending.
        order: where the variable has those numbers, in that order.
    """

    variable: keras.Variable
    pattern: patterns.Pattern | patterns.RandomPattern | None
    shape: tuple
    positions: np.ndarray
    order: np.ndarray | slice

    @property
    def path(self):
        return self.variable.path

    @property
    def dtype(self):
        return keras.backend.standardize_dtype(self.variable.dtype)

    @property
    def description(self):
        """What loading compares, such as "float32[3,3,64,64] PS4_P4"."""
        pattern = f" {self.pattern}" if self.pattern else ""
        return f"{self.dtype}[{','.join(map(str, self.shape))}]{pattern}"

    def period_index(self):
        """Returns one period of supports, a bit for each phase and tap; nothing if not periodic."""
        if not isinstance(self.pattern, patterns.Pattern):
            return np.zeros(0, np.uint8)
        kernel_size = self.shape[:2]
        taps = np.zeros((self.pattern.period, *kernel_size), bool)
        for phase, support in enumerate(self.pattern.supports(kernel_size)):
            taps[phase][tuple(zip(*support, strict=True))] = True
        return np.packbits(taps)


def _slots(model):
    if not model.built:
        raise UsageError(f"The model {model.name} has no weights yet. Build it first.")
    periodic = {
        id(layer.kernel): layer for layer in leaf_layers(model) if isinstance(layer, PeriodicConv2D)
    }
    return [_slot(variable, periodic.get(id(variable))) for variable in model.weights]


def _slot(variable, layer):
    if layer is None:
        shape = tuple(variable.shape)
        return _Slot(variable, None, shape, np.arange(int(np.prod(shape))), slice(None))
    order = np.argsort(layer.kernel_positions)
    positions = layer.kernel_positions[order].astype(np.int64)
    return _Slot(variable, layer.pattern, layer.dense_kernel_shape, positions, order)


def _append(layers, slot, packed):
    """Adds a weight to `layers`, a list of [path of the layer, {weight: what is stored of it}]."""
    layer, _, name = slot.path.rpartition("/")
    if not layers or layers[-1][0] != layer or name in layers[-1][1]:
        layers.append([layer, {}])
    how = f" {packed.packing} {len(packed.numbers)}" if packed.packing != packing.PLAIN else ""
    layers[-1][1][name] = slot.description + how


def _checksum(layers, tensors):
    checksum = zlib.crc32(layers.encode())
    for name in sorted(tensors):
        checksum = zlib.crc32(tensors[name].tobytes(), checksum)
    return str(checksum)


def _entries(filepath, tensors, metadata):
    """Returns [(path, what is stored)] of all weights, after checking that the file is whole."""
    if metadata.get("format") != FORMAT:
        raise UsageError(
            f"{filepath} holds no packed weights: its format is {metadata.get('format')!r}, "
            f"expected {FORMAT!r}."
        )
    if metadata.get("version") != VERSION:
        raise UsageError(
            f"{filepath} is of version {metadata.get('version')!r} of the packed format, this "
            f"tfsparse reads version {VERSION!r}. Install the tfsparse that wrote it."
        )
    for name, tensor in tensors.items():
        dtype = "uint8" if name == "index" else name.removeprefix("values.")
        if tensor.ndim != 1 or tensor.dtype.name != dtype:
            raise _damaged(filepath, f"it has a tensor {name!r} of {tensor.dtype}{tensor.shape}")
    layers = metadata.get("layers", "")
    if metadata.get("crc32") != _checksum(layers, tensors):
        raise _damaged(filepath, "its checksum is wrong")
    try:
        return [
            (f"{layer}/{name}".lstrip("/"), str(stored))
            for layer, weights in json.loads(layers)
            for name, stored in weights.items()
        ]
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(filepath, "its list of layers cannot be read") from error


def _damaged(filepath, why):
    return UsageError(f"{filepath} is damaged: {why}. Fetch or save it again.")


class _Reader:
    """Takes what is stored in a file one weight after the other."""

    def __init__(self, filepath, tensors):
        self._filepath = filepath
        self._left = dict(tensors)

    def read(self, slot, path, stored):
        """Returns the numbers of the variable of `slot`, in its shape."""
        packed = _PACKED.fullmatch(stored)
        description, how, count = packed.groups() if packed else (stored, packing.PLAIN, None)
        count = len(slot.positions) if count is None else int(count)
        if (_stem(path), description) != (_stem(slot.path), slot.description):
            raise self._other_model(f"{path} {description}", f"{slot.path} {slot.description}")
        period = slot.period_index()
        if not np.array_equal(self._take("index", len(period)), period):
            raise self._other_model(f"{path} {description} with other supports", "its own")
        try:
            size = packing.index_size(how, count, slot.positions, slot.shape)
            index, numbers = self._take("index", size), self._take(f"values.{slot.dtype}", count)
            packed = packing.Packed(how, numbers, index)
            numbers = packing.unpack(packed, slot.positions, slot.shape)
        except ValueError as error:
            raise _damaged(self._filepath, f"{path} is {error}") from error
        variable = np.empty_like(numbers)
        variable[slot.order] = numbers
        return variable.reshape(slot.variable.shape)

    def finish(self):
        """Raises where something is left that belongs to no weight."""
        for name, tensor in self._left.items():
            if len(tensor):
                raise _damaged(self._filepath, f"{name} has {len(tensor)} values too many")

    def _take(self, name, count):
        """Returns the next `count` values of a tensor."""
        tensor = self._left.get(name, ())
        if len(tensor) < count:
            raise _damaged(self._filepath, f"{name} has {count - len(tensor)} values too few")
        self._left[name] = tensor[count:]
        return tensor[:count]

    def _other_model(self, found, expected):
        return UsageError(
            f"{self._filepath} is of another model: it has {found}, and the model {expected}. "
            "Build the model that was saved."
        )


def _stem(path):
    """Returns `path` without the numbers that make Keras' automatic names unique."""
    return re.sub(r"_[0-9]+(?=/)", "", path)
