"""Functions timed in turns."""

import time


def interleaved(functions, seconds, warm_up=1):
    """Times functions in turns, in rounds whose order rotates: a slow moment slows all of them.

    Args:
        functions: {key: function without arguments}.
        seconds: rounds begin until so much time has passed; there is at least one.
        warm_up: rounds that are not timed.

    Returns:
        {key: list of seconds}, one for each round.
    """
    for _ in range(warm_up):
        for function in functions.values():
            function()
    keys = list(functions)
    samples = {key: [] for key in keys}
    end = time.perf_counter() + seconds
    while True:
        for key in keys:
            start = time.perf_counter()
            functions[key]()
            samples[key].append(time.perf_counter() - start)
        keys = [*keys[1:], keys[0]]
        if time.perf_counter() >= end:
            return samples
