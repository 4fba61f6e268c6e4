"""Few sizes of batches where a compiler takes long for each: on accelerators."""

import numpy as np

from tfsparse import backend

MULTIPLE = 250


def in_few_sizes(function, *arrays):
    """Returns `function(*arrays)`, a tensor or array [n, ...], of NumPy arrays [n, ...].

    How many images of a batch withstand an attack differs from batch to batch. Off the CPU, copies
    of the first ones make up a multiple of MULTIPLE, whose results are left out.
    """
    count = len(arrays[0])
    if backend.device_kind() == "cpu":
        return function(*arrays)
    rows = np.arange(-(-count // MULTIPLE) * MULTIPLE) % count
    return function(*(array[rows] for array in arrays))[:count]
