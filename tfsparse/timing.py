"""What benchmarks share: functions timed in turns, the processor's name, aligned tables."""

import os
import pathlib
import platform
import re
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


def processor():
    """Returns {"cpu": name, "cores": number, "system": name, "python": version} of this machine."""
    try:
        names = re.findall(r"model name\s*:\s*(.+)", pathlib.Path("/proc/cpuinfo").read_text())
    except OSError:  # not Linux
        names = []
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def aligned(rows):
    """Returns rows of str as a table, the first column left-aligned and the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )
