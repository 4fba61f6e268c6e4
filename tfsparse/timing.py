"""Functions timed against each other, and times as people read them."""

import time


def interleaved(functions, seconds, warm_up=1):
    """Times functions in rounds, so that a slow moment of the machine affects all of them.

    Each round runs every function once; the first function of a round rotates.

    Args:
        functions: {key: function without arguments}.
        seconds: no round begins after this time, except the first.
        warm_up: number of rounds before, which are not timed.

    Returns:
        {key: list of seconds, one per round}.
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


def duration(seconds):
    """Returns a time as people read it, in a unit that fits: "45 s", "12 min", "3.5 h"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
