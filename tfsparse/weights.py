"""Weight files: all weights of a model in one safetensors file, which may be compressed.

A tensor's name is the position of the weight in `model.weights` and its path, such as
"0007/stem_conv/kernel". That of a `PeriodicConv2D`'s kernel holds the weights that its pattern
keeps, as the layer does. The metadata are "periodic", JSON with the pattern and the shape of the
dense kernel for each of those, and "crc32" of all tensors in the order of their names.
"""

import gzip
import json
import math
import os
import pathlib
import re
import textwrap
import zlib

import keras
import numpy as np
import safetensors

from tfsparse.errors import UsageError
from tfsparse.files import tensor_bytes, write_bytes
from tfsparse.graph import leaf_layers, tracked_layers
from tfsparse.layers import PeriodicConv2D

# {Keras' name of a type: safetensors' name}
DTYPES = {
    **{"bool": "BOOL", "bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"},
    **{"int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64"},
    **{"uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64"},
}
_HEADER_BYTES = 1 << 10  # that a weight may take in the file's header; 100 are usual


def save_weights(
    model: keras.Model, filepath: str | os.PathLike[str], dtype: str | None = None
) -> None:
    """Saves the weights of a model to a safetensors file, which is complete or absent.

    All numbers are kept bit for bit except -0.0, which masks make of negative weights and which
    becomes 0.0: equal zeros compress better.

    Args:
        model: built keras.Model.
        filepath: ends in ".safetensors" or, to compress the file with gzip, ".safetensors.gz".
        dtype: "float16" to round float32 weights to it, for a file of half the size; None to store
            all weights as they are.

    Raises:
        UsageError: if the model is not built, the type of a weight is none of `DTYPES`, a weight is
            out of float16's range, or the file cannot be written.
    """
    path, variables = _checked(filepath), _variables(model)
    if dtype not in (None, "float16"):
        raise UsageError(f'dtype must be "float16" or None. Received: {dtype!r}')
    tensors = {}
    for name, variable in variables.items():
        array = np.array(keras.ops.convert_to_numpy(variable), order="C")
        array[array == 0] = 0
        if dtype and array.dtype == np.float32:
            array = _rounded(array, variable)
        tensors[name] = array
    checksum = _checksum(tensor.tobytes() for tensor in tensors.values())
    metadata = {"periodic": json.dumps(_periodic(model, variables)), "crc32": checksum}
    content = tensor_bytes(tensors, metadata)
    write_bytes(path, gzip.compress(content, 9, mtime=0) if path.suffix == ".gz" else content)


def load_weights(model: keras.Model, filepath: str | os.PathLike[str]) -> None:
    """Loads the weights of a file into a model: all of them or, if it raises, none.

    Layers need the names that they had when they were saved, except for the numbers that Keras
    appends to make names unique.

    Args:
        model: built keras.Model with the layers, types and patterns of the one that was saved.
            float32 weights that were saved as float16 are float32 again.
        filepath: of a file that `save_weights` wrote. No more is read, or decompressed, than the
            model's weights and their names take.

    Raises:
        UsageError: if the file is missing, damaged or not a weight file, or is of another model.
    """
    path, variables = _checked(filepath), _variables(model)
    periodic = _periodic(model, variables)
    tensors, patterns = _read(path, _limit(variables, periodic))
    if patterns is None:
        periodic = patterns = {}
    own = [
        _described(name, DTYPES[_dtype(each)], each.shape, periodic.get(name))
        for name, each in variables.items()
    ]
    found = [
        _described(name, each["dtype"], each["shape"], patterns.get(name))
        for name, each in tensors.items()
    ]
    if len(found) != len(own):
        raise _other_model(path, f"{len(found)} weights", len(own))
    for saved, expected in zip(found, own, strict=True):
        if _stem(expected) not in (_stem(saved), _stem(saved.replace(" F16[", " F32["))):
            raise _other_model(path, saved, expected)
    for variable, tensor in zip(variables.values(), tensors.values(), strict=True):
        is_half = tensor["dtype"] == "F16"
        array = np.frombuffer(tensor["data"], "float16" if is_half else np.dtype(_dtype(variable)))
        variable.assign(array.reshape(variable.shape).astype(_dtype(variable), copy=False))
    for layer in tracked_layers(model):
        if layer.weights and hasattr(layer, "finalize_state"):  # such as Normalization
            layer.finalize_state()


def _checked(filepath):
    path = pathlib.Path(filepath)
    if not path.name.endswith((".safetensors", ".safetensors.gz")):
        raise UsageError(
            f"Weight files end in .safetensors or .safetensors.gz. Received: {filepath}"
        )
    return path


def _variables(model):
    """Returns {name in the file: variable}, in the order of the names."""
    if not model.built:
        raise UsageError(f"The model {model.name} has no weights yet. Build it first.")
    for each in model.weights:
        if _dtype(each) not in DTYPES:
            raise UsageError(
                f"Weight files hold {', '.join(DTYPES)}. Build the model with these types. "
                f"Received: {each.path} of {_dtype(each)}"
            )
    named = {f"{index:04}/{each.path}": each for index, each in enumerate(model.weights)}
    return dict(sorted(named.items()))


def _rounded(array, variable):
    """Returns a float32 array as float16."""
    with np.errstate(over="ignore"):
        rounded = array.astype("float16")
    if (np.isinf(rounded) & np.isfinite(array)).any():
        raise UsageError(
            f"float16 holds numbers up to {np.finfo('float16').max:.0f}. Save the model without "
            f"dtype. Received: {variable.path} with {np.abs(array).max():.4g}"
        )
    return rounded


def _dtype(variable):
    return keras.backend.standardize_dtype(variable.dtype)


def _periodic(model, variables):
    """Returns {name: pattern and shape of the dense kernel} of periodic kernels, JSON objects."""
    layers = {
        id(layer.kernel): layer for layer in leaf_layers(model) if isinstance(layer, PeriodicConv2D)
    }
    return {
        name: {"pattern": layer.pattern.config, "kernel_shape": list(layer.dense_kernel_shape)}
        for name, variable in variables.items()
        if (layer := layers.get(id(variable)))
    }


def _checksum(parts):
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return str(checksum)


def _limit(variables, periodic):
    """Returns how many bytes the weights of a model may take in a file, uncompressed."""
    sizes = (math.prod(each.shape) * np.dtype(_dtype(each)).itemsize for each in variables.values())
    return sum(sizes) + 2 * len(json.dumps(periodic)) + _HEADER_BYTES * (len(variables) + 1)


def _read(path, limit):
    """Returns tensors and patterns of a file, checked.

    Returns:
        `(tensors, periodic)`: {name: {"dtype", "shape", "data"}} in the order of the names, and
        the metadata entry "periodic"; None if another program wrote the file, without metadata.
    """
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            content = file.read(limit + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, error) from error
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror}. Check the path.") from error
    if len(content) > limit:
        raise _other_model(path, f"more than {limit:,} bytes", "fewer")
    try:
        tensors = dict(sorted(safetensors.deserialize(content), key=lambda item: item[0]))
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = header.get("__metadata__", {})
        periodic = dict(json.loads(metadata["periodic"])) if "periodic" in metadata else None
    except (safetensors.SafetensorError, ValueError, TypeError, RecursionError) as error:
        raise _damaged(path, error) from error
    if metadata and metadata.get("crc32") != _checksum(each["data"] for each in tensors.values()):
        raise _damaged(path, "its checksum is not that of its tensors")
    return tensors, periodic


def _described(name, dtype, shape, pattern):
    """Returns what loading compares, such as "0007/stem_conv/kernel F32[3,3,3,16]"."""
    text = f"{name} {dtype}[{','.join(map(str, shape))}]"
    return f"{text} {json.dumps(pattern, sort_keys=True)}" if pattern else text


def _stem(text):
    """Returns `text` without the numbers that make Keras' automatic names unique."""
    return re.sub(r"_[0-9]+(?=/)", "", text)


def _damaged(path, why):
    why = textwrap.shorten(str(why), 200)  # it may quote the file
    return UsageError(f"{path} is damaged or not a weight file: {why}. Copy or save it again.")


def _other_model(path, found, expected):
    found, expected = (textwrap.shorten(str(each), 300) for each in (found, expected))
    return UsageError(
        f"{path} is of another model: it has {found}, and the model {expected}. Build the model "
        "that was saved."
    )
