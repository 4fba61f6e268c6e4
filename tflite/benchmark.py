"""Measures how fast TFLite files are in LiteRT, and whether XNNPACK runs all of their operators.

All files run in one process, each once per round, so that a slow moment of the machine affects all
of them.
"""

import gzip
import textwrap

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tflite.memory import peak_memory
from tflite.operators import single_operators
from tflite.quiet import quiet
from tfsparse import machine, timing
from tfsparse.errors import UsageError

WARM_UP_ROUNDS = 5  # the first runs of a file allocate and touch its memory
DELEGATE = "DELEGATE"  # LiteRT's name for the operator that replaces those that XNNPACK runs


def benchmark(contents, threads=1, seconds=10):
    """Measures TFLite files against each other, on random inputs.

    Args:
        contents: {name: bytes of a TFLite file}, at least one; speed-ups are over the first.
        threads: number of threads of each interpreter, at least 1.
        seconds: total running time of all files; each runs at least once.

    Returns:
        List of dicts, one per file, in order:
            name: as given.
            minimum_ms, median_ms, p90_ms: time of one inference, over all `runs`.
            minimum_speedup, median_speedup: time of the first file / time of this one.
            file_bytes, gzip_bytes: size of the file and of the file compressed.
            operators: number of operators in the file.
            delegated_fraction: share of them that XNNPACK runs, 0 to 1.
            one_delegate: whether all of them are in one XNNPACK delegate.
            peak_memory_bytes: memory for loading and running the file; None except on Linux.
            threads: as given.
            runs: number of runs of each file.

    Raises:
        UsageError: if LiteRT cannot run a file, or if there is no file or no thread.
    """
    if not contents:
        raise UsageError("Give at least one file to measure. Received: none")
    if threads < 1:
        raise UsageError(f"threads must be at least 1. Received: {threads}")
    interpreters = {name: _interpreter(name, contents[name], threads) for name in contents}
    invocations = {name: each.invoke for name, each in interpreters.items()}
    samples = timing.interleaved(invocations, seconds, WARM_UP_ROUNDS)
    times = summary(samples)
    return [
        {
            "name": name,
            **times[name],
            "file_bytes": len(contents[name]),
            "gzip_bytes": len(gzip.compress(contents[name], mtime=0)),
            **delegation(interpreters[name]._get_ops_details()),
            "peak_memory_bytes": peak_memory(contents[name], threads),
            "threads": threads,
        }
        for name in contents
    ]


def operator_times(content, threads=1, seconds=10):
    """Measures each operator of a TFLite file in isolation, on random inputs.

    LiteRT's Python interface has no profiler. An operator in isolation is not fused with others and
    its inputs stay in the cache, so the sum may be more or less than the time of the file.

    Args:
        content: bytes of a TFLite file.
        threads: number of threads of each interpreter, at least 1.
        seconds: total running time of all operators; each runs at least once.

    Returns:
        List of dicts, in the order of the file: "operator", its title as in
        `tflite.operators.single_operators`; "minimum_ms", "median_ms", "p90_ms", and "runs"; and
        "share", its share of the sum of all minima.

    Raises:
        UsageError: if LiteRT cannot run an operator.
    """
    interpreters = {
        title: _interpreter(title, each, threads)
        for title, each in single_operators(content).items()
    }
    invocations = {title: each.invoke for title, each in interpreters.items()}
    times = summary(timing.interleaved(invocations, seconds, WARM_UP_ROUNDS))
    whole = sum(row["minimum_ms"] for row in times.values())
    keys = ("minimum_ms", "median_ms", "p90_ms", "runs")
    return [
        {
            "operator": title,
            **{key: row[key] for key in keys},
            "share": row["minimum_ms"] / whole,
        }
        for title, row in times.items()
    ]


def summary(samples):
    """Returns {name: times in ms, speed-ups over the first name, runs} of {name: seconds}."""
    times = {
        name: {
            "minimum_ms": 1e3 * min(values),
            "median_ms": 1e3 * float(np.median(values)),
            "p90_ms": 1e3 * float(np.percentile(values, 90)),
            "runs": len(values),
        }
        for name, values in samples.items()
    }
    first = next(iter(times.values()))
    for row in times.values():
        for kind in ("minimum", "median"):
            row[f"{kind}_speedup"] = first[f"{kind}_ms"] / row[f"{kind}_ms"]
    return times


def delegation(operators):
    """Counts the operators of a file, and those that a delegate runs.

    Args:
        operators: list of dicts with "op_name", "inputs", and "outputs" (indices of tensors), as
            `_get_ops_details` of an interpreter returns them: the operators, then the delegates.

    Returns:
        {"operators", "delegated_fraction", "one_delegate"}; see `benchmark`.
    """
    delegates = [each for each in operators if each["op_name"] == DELEGATE]
    own = [each for each in operators if each["op_name"] != DELEGATE]
    producers = {int(tensor): i for i, each in enumerate(own) for tensor in each["outputs"]}
    delegated = set()
    for delegate in delegates:
        # A delegate replaces all operators between its outputs and its inputs.
        inputs = {int(tensor) for tensor in delegate["inputs"]}
        pending = [int(tensor) for tensor in delegate["outputs"]]
        while pending:
            tensor = pending.pop()
            operator = producers.get(tensor)
            if tensor in inputs or operator is None or operator in delegated:
                continue
            delegated.add(operator)
            pending.extend(int(tensor) for tensor in own[operator]["inputs"])
    return {
        "operators": len(own),
        "delegated_fraction": len(delegated) / len(own) if own else 0.0,
        "one_delegate": len(delegates) == 1 and len(delegated) == len(own),
    }


def _interpreter(name, content, threads):
    """Returns an interpreter of the file with random inputs set."""
    try:
        with quiet():
            interpreter = Interpreter(model_content=content, num_threads=threads)
            interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        reason = textwrap.shorten(str(error), 200).rstrip(".")
        raise UsageError(f"LiteRT cannot run {name}: {reason}. Give TFLite files.") from error
    rng = np.random.default_rng(0)
    for tensor in interpreter.get_input_details():
        interpreter.set_tensor(tensor["index"], _random(rng, tensor["shape"], tensor["dtype"]))
    return interpreter


def _random(rng, shape, dtype):
    if np.issubdtype(dtype, np.floating):
        return rng.random(shape).astype(dtype)
    if dtype in (np.int8, np.uint8, np.int16):
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    return np.zeros(shape, dtype)  # such as indices, for which only 0 is sure to be valid


def facts():
    """Returns the facts on which the times depend: processor, cores, system, versions; a dict."""
    return machine.facts(("ai-edge-litert", "numpy"))
