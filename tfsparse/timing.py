"""What benchmarks share: functions timed in turns, the processor's name, tables and records."""

import json
import os
import pathlib
import platform
import re
import time

from tfsparse.errors import UsageError
from tfsparse.files import write_bytes


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


# Instruction sets on which the ratio of two times depends: how many numbers a vector has, and
# products of 8-bit integers that are summed in one instruction.
INSTRUCTIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")


def processor():
    """Returns {"cpu": name, "cores": number, "system": name, "python": version} of this machine.

    The name has those of INSTRUCTIONS behind it that the processor has.
    """
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        text = ""
    names = re.findall(r"model name\s*:\s*(.+)", text)
    flags = re.search(r"^(?:flags|Features)\s*:(.+)", text, re.MULTILINE)
    found = [each for each in INSTRUCTIONS if flags and each in flags[1].split()]
    name = names[0] if names else platform.processor() or platform.machine()
    return {
        "cpu": f"{name} ({', '.join(found)})" if found else name,
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def cores():
    """Returns how many processor cores this process may use, which taskset makes fewer."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def aligned(rows):
    """Returns rows of str as a table, the first column left-aligned and the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )


def record(folder, name, run, page):
    """Adds `run` to the JSON file `name`.json in `folder` and writes `page` of all to `name`.md.

    Args:
        run: dict for JSON whose "settings" say what was measured; replaces one of equal settings.
        page: function from the list of runs, ordered by their settings, to Markdown.

    Raises:
        UsageError: where the file is there and cannot be read, or cannot be written.
    """
    path = pathlib.Path(folder) / f"{name}.json"
    try:
        runs = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        runs = [other for other in runs if other["settings"] != run["settings"]] + [run]
        runs.sort(key=lambda each: [str(value) for value in each["settings"].values()])
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"Cannot read the runs in {path}: {error!r}. Remove the file.") from error
    write_bytes(path, json.dumps(runs, indent=2) + "\n")
    write_bytes(path.with_suffix(".md"), page(runs))
