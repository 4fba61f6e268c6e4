"""How much faster are periodic networks in LiteRT than the same network dense?

    python -m studies pattern_speed --arch=resnet18 --width=64 --precision=float32

Builds the network with each pattern, converts it, and runs all files in turns in one process, once
for each number of --threads. The weights are random, which changes no operator and so no time.
Adds to pattern_speed.json and writes pattern_speed.md.
"""

import keras
import numpy as np
import tqdm
from absl import flags

from studies import records, speed
from tflite.benchmark import benchmark, facts
from tflite.convert import convert
from tfsparse import tables
from tfsparse.cost import model_cost
from zoo.architectures import untrained

NAME = "pattern_speed"
PATTERNS = [*speed.PATTERNS, *speed.TWO_PHASES, "PS1_P9_F3"]
FLAGS = flags.FLAGS


def define_flags():
    speed.define_flags(PATTERNS, seconds=60)
    flags.DEFINE_enum("precision", "float32", ["float32", "int8"], "Arithmetic of the files.")
    flags.DEFINE_multi_integer("threads", [1], "Threads of an inference.", lower_bound=1)


def main():
    files, costs = {}, {}
    chosen = [speed.DENSE, *speed.chosen_patterns()]
    for pattern in tqdm.tqdm(chosen, "converting", leave=False, disable=None):
        model = network(FLAGS.arch, FLAGS.width, FLAGS.size, pattern)
        costs[pattern] = model_cost(model)
        files[pattern] = file_of(model, FLAGS.precision)
    for threads in FLAGS.threads:
        rows = benchmark(files, threads, FLAGS.seconds)
        for row in rows:
            row["parameters"] = costs[row["name"]].parameters
            row["macs"] = costs[row["name"]].macs
        settings = speed.settings("arch", "width", "size", "precision") | {"threads": threads}
        run = {"settings": settings, "machine": facts(), "files": rows}
        records.record(FLAGS.output, NAME, [run], page)
        print(table(run))


def network(arch, width, size, pattern):
    """Returns the untrained network with a pattern, or "dense"; the same weights in each call."""
    keras.utils.set_random_seed(0)
    architecture = {"arch": arch, "input_shape": (size, size, 3), "num_classes": speed.CLASSES}
    pattern = None if pattern == speed.DENSE else pattern
    return untrained({**architecture, "width": width, "pattern": pattern})


def file_of(model, precision):
    """Returns the bytes of the .tflite file of a model, calibrated on random images."""
    images = np.random.default_rng(0).random((8, *model.input_shape[1:]), np.float32)
    return convert(model, precision, images if precision == "int8" else None)


def table(run):
    """Returns the Markdown table of one run."""
    dense = run["files"][0]
    words = (
        "{arch} of width {width}, images of {size}x{size}, {precision}, batch 1, {threads} thread"
    ).format(**run["settings"]) + ("s" if run["settings"]["threads"] > 1 else "")
    header = (
        "pattern|fewer MACs|speed-up (minimum)|speed-up (median)|minimum, ms|median, ms"
        "|fewer parameters|smaller file|file, kB|on XNNPACK"
    )
    rows = [
        [
            row["name"],
            f"{dense['macs'] / row['macs']:.2f}x",
            f"{row['minimum_speedup']:.2f}x",
            f"{row['median_speedup']:.2f}x",
            f"{row['minimum_ms']:.2f}",
            f"{row['median_ms']:.2f}",
            f"{dense['parameters'] / row['parameters']:.2f}x",
            f"{dense['file_bytes'] / row['file_bytes']:.2f}x",
            f"{row['file_bytes'] / 1000:,.0f}",
            f"{row['delegated_fraction']:.0%}",
        ]
        for row in run["files"]
    ]
    runs = f"{dense['runs']:,} runs of each file in turns"
    return speed.title(words, run["machine"], runs) + tables.markdown(header.split("|"), rows)


page = records.page_of_tables(NAME, table)
