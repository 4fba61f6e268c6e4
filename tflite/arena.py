"""How much RAM a TFLite file needs in TensorFlow Lite for Microcontrollers (TFLM), measured."""

import re
from typing import NamedTuple

import numpy as np

from tflite.quiet import captured
from tflite.runtimes import tflm_interpreter


class Arena(NamedTuple):
    """Bytes of the arena after one inference on a 64-bit host.

    Attributes:
        total: all of it.
        activations: what operators read and write, planned so that it is used again; the same on
            every device.
        persistent: what the interpreter keeps of tensors and operators; less on a 32-bit device,
            whose pointers are half as long.
    """

    total: int
    activations: int
    persistent: int


def arena(content):
    """Returns the `Arena` of a file's bytes.

    Raises:
        UsageError: where TFLM is not installed or cannot run the file.
    """
    interpreter = tflm_interpreter(content)
    details = interpreter.get_input_details(0)
    interpreter.set_input(np.zeros(details["shape"], details["dtype"]), 0)
    with captured() as messages:
        interpreter.invoke()
        interpreter.print_allocations()
    sizes = dict(re.findall(r"Arena allocation (\w+) (\d+) bytes", messages()))
    return Arena(*(int(sizes[name]) for name in ("total", "head", "tail")))
