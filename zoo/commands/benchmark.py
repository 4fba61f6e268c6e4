"""Times .tflite files against each other in LiteRT, and says whether XNNPACK runs all of each.

    tfsparse benchmark --models=dense.tflite,sparse.tflite --threads=1 --json=times.json

All files are run in turns in one process, each once in a round. Speed-ups are those over the first
file. With --operators, each operator of each file is also timed by itself.
"""

import json
import pathlib

from absl import flags

FLAGS = flags.FLAGS
NEEDS_TENSORFLOW = True


def define_flags():
    flags.DEFINE_list("models", None, "TFLite files; the first is the baseline.", required=True)
    flags.DEFINE_integer("threads", 1, "Threads of an interpreter.", lower_bound=1)
    flags.DEFINE_float("seconds", 10.0, "How long to run all files together.", lower_bound=0)
    flags.DEFINE_boolean("operators", False, "Also time each operator by itself.")
    flags.DEFINE_string("json", None, "Also write the results to this file.")


def main():
    from tflite.benchmark import benchmark, facts, operator_times
    from tfsparse import files

    contents = read_files(FLAGS.models)
    results = benchmark(contents, FLAGS.threads, FLAGS.seconds)
    about = facts()
    print(f"{about['cpu']}, {about['cores']} cores, {FLAGS.threads} thread(s) used;", end=" ")
    print(f"{results[0]['runs']} runs of each file\n\n{table(results)}")
    if FLAGS.operators:
        for row in results:
            content = contents[row["name"]]
            row["operator_times"] = operator_times(content, FLAGS.threads, FLAGS.seconds)
            print(f"\n{row['name']}, each operator by itself\n")
            print(operator_table(row["operator_times"]))
    if FLAGS.json:
        content = {"machine": about, "models": results}
        files.write_bytes(FLAGS.json, json.dumps(content, indent=2) + "\n")


def read_files(paths):
    """Returns {path: bytes}.

    Raises:
        UsageError: if a path is given twice or cannot be read.
    """
    from tfsparse.errors import UsageError

    contents = {}
    for path in paths:
        if path in contents:
            raise UsageError(f"Give each file once. Received twice: {path}")
        try:
            contents[path] = pathlib.Path(path).read_bytes()
        except OSError as error:
            raise UsageError(f"Cannot read {path}: {error.strerror}. Check --models.") from error
    return contents


def table(results):
    """Returns the aligned table of what `benchmark` returned, a str of lines."""
    from tfsparse import tables

    header = (
        "name|min ms|median ms|p90 ms|speedup (min)|(median)|bytes|gzip|peak kB|operators|XNNPACK"
    )
    rows = [header.split("|")]
    for row in results:
        delegated = "all" if row["one_delegate"] else f"{row['delegated_fraction']:.0%}, in parts"
        times = [f"{row[key]:.3f}" for key in ("minimum_ms", "median_ms", "p90_ms")]
        speedups = [f"{row[key]:.2f}" for key in ("minimum_speedup", "median_speedup")]
        sizes = [f"{row[key]:,}" for key in ("file_bytes", "gzip_bytes")]
        peak = row["peak_memory_bytes"]
        sizes += [f"{peak // 1000:,}" if peak else "", str(row["operators"])]
        rows.append([row["name"], *times, *speedups, *sizes, delegated])
    return tables.aligned(rows)


def operator_table(rows):
    """Returns the aligned table of what `operator_times` returned, a str of lines."""
    from tfsparse import tables

    cells = [["operator", "min ms", "median ms", "share"]]
    for row in rows:
        times = [f"{row[key]:.4f}" for key in ("minimum_ms", "median_ms")]
        cells.append([row["operator"], *times, f"{row['share']:.1%}"])
    return tables.aligned(cells)
