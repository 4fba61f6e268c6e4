"""The structs of tfsparse_kernels.h: what their fields can hold, and their sizes."""

import functools
import re

from tflite.codegen.emulation import KERNELS
from tfsparse.errors import UsageError

_BITS = {"int8_t": 8, "uint8_t": 8, "int16_t": 16, "uint16_t": 16, "int32_t": 32, "uint32_t": 32}
_POINTER = 32


def check(struct, fields):
    """Raises a `UsageError` if a number does not fit its field.

    Args:
        struct: name of the C type without its prefix.
        fields: {field: number, or of a pointer the name of an array or 0}.
    """
    kinds = _structs()[struct]
    numbers = {name: value for name, value in fields.items() if not kinds[name].endswith("*")}
    for name, value in numbers.items():
        low, high = _range(kinds[name])
        if not low <= value <= high:
            raise UsageError(
                f"The kernels in C take {low:,} to {high:,} as {name} of a {struct}. Received: "
                f"{value:,}"
            )


def size_of(struct):
    """Returns the bytes of a struct where a pointer has 32 bits."""
    bits = [_POINTER if kind.endswith("*") else _BITS[kind] for kind in _structs()[struct].values()]
    # The fields are in an order that needs no padding but at the end.
    return -(-sum(bits) // max(bits)) * max(bits) // 8


def _range(kind):
    bits = _BITS[kind]
    return (0, 2**bits - 1) if kind.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


@functools.cache
def _structs():
    """Returns {struct: {field: type}}; the type of a pointer ends with *."""
    text = (KERNELS / "tfsparse_kernels.h").read_text(encoding="utf-8")
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    found = {}
    for body, name in re.findall(r"typedef struct \{(.*?)\} tfsparse_(\w+);", text, re.DOTALL):
        found[name] = {}
        for kind, names in re.findall(r"(?:const )?(\w+) ([^;]+);", body):
            for field in names.split(","):
                pointer = "*" if "*" in field else ""
                found[name][field.strip(" *")] = kind + pointer
    return found
