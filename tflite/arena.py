"""Measures how much RAM a TFLite file needs in TensorFlow Lite for Microcontrollers (TFLM)."""

import re
from typing import NamedTuple

import numpy as np

from tflite.quiet import captured
from tflite.runtimes import ARENA_BYTES, tflm_interpreter
from tfsparse.errors import UsageError


class Arena(NamedTuple):
    """Bytes of the arena after one inference on a 64-bit host.

    Attributes:
        total: the whole arena.
        activations: inputs and outputs of the operators, in memory that is reused; the same on
            every device.
        persistent: the interpreter's own data about tensors and operators; less on a 32-bit device,
            whose pointers are half as long.
    """

    total: int
    activations: int
    persistent: int


def smallest_arena(content, measured):
    """Returns the size of an arena in which TFLM runs a file, at most a kilobyte too large.

    It is larger than the measured size: planning takes memory that TFLM frees and does not count.

    Args:
        content: bytes of the file.
        measured: its `Arena`.

    Raises:
        UsageError: if the file does not even run in twice the measured size.
    """
    for size in range(1024 * -(-measured.total // 1024), 2 * measured.total + 8192, 1024):
        try:
            arena(content, size)
            return size
        except UsageError as error:
            reason = error
    raise reason


def arena(content, arena_bytes=ARENA_BYTES):
    """Returns the `Arena` of a file.

    Args:
        content: bytes of the file.
        arena_bytes: size of the arena in which it runs.

    Raises:
        UsageError: if TFLM is not installed or cannot run the file.
    """
    interpreter = tflm_interpreter(content, arena_bytes)
    details = interpreter.get_input_details(0)
    interpreter.set_input(np.zeros(details["shape"], details["dtype"]), 0)
    with captured() as messages:
        try:
            interpreter.invoke()
        except RuntimeError as error:
            raise UsageError(f"TFLM cannot run the file in {arena_bytes:,} bytes.") from error
        interpreter.print_allocations()
    sizes = dict(re.findall(r"Arena allocation (\w+) (\d+) bytes", messages()))
    return Arena(*(int(sizes[name]) for name in ("total", "head", "tail")))
