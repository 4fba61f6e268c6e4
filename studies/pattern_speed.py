"""How much faster are periodic networks in LiteRT than the same network dense?

    python -m studies.pattern_speed --arch=resnet18 --width=64 --precision=float32 --output=docs

Builds the network with each pattern, converts it as `tflite.convert` does, and runs all files in
turns in one process, once for each number of --threads. The weights are random: they change no
operator, and so no time. Adds to --output/pattern_speed.json and writes --output/pattern_speed.md,
the tables of all that is in it.
"""

import os

import numpy as np
from absl import flags

from tflite.quiet import quiet


with quiet():
    import keras
    import tqdm

    import zoo
    from tflite.benchmark import benchmark, machine
    from tflite.convert import convert
    from zoo.commands import commandline
from tfsparse import patterns, timing
    from tfsparse.cost import model_cost

DENSE = "dense"
PATTERNS = [
    *(DENSE, "PS4_P4", "PS2_P6", "PS1_P9", "PSD1_P16"),
    *("PS4_P4_F1", "PS2_P6_F1", "PS1_P9_F1", "PSD1_P16_F1"),
    *("PS4_P4_F2", "PS2_P6_F2", "PS1_P9_F2", "PS1_P9_F3"),
]
NAME = "pattern_speed"
_SETTINGS = ("arch", "width", "size", "precision")

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_enum("arch", "resnet18", sorted(zoo.ARCHITECTURES), "Network architecture.")
    flags.DEFINE_integer("width", 64, "Channels of the first stage.", lower_bound=1)
    flags.DEFINE_integer("size", 32, "Height and width of the images.", lower_bound=1)
    flags.DEFINE_enum("precision", "float32", ["float32", "int8"], "Arithmetic of the files.")
    flags.DEFINE_multi_integer("threads", [1], "Threads of an inference.", lower_bound=1)
    flags.DEFINE_list("patterns", PATTERNS, "Patterns to measure; 'dense' is none and comes first.")
    flags.DEFINE_float("seconds", 60, "How long all files are run together.", lower_bound=0)
    flags.DEFINE_string("output", None, "Folder for table and JSON.", required=True)


def main():
    chosen = [DENSE, *(pattern for pattern in FLAGS.patterns if pattern != DENSE)]
    for pattern in chosen[1:]:
        patterns.parse(pattern)
    files, costs = {}, {}
    for pattern in tqdm.tqdm(chosen, "converting", leave=False, disable=None):
        model = network(FLAGS.arch, FLAGS.width, FLAGS.size, pattern)
        costs[pattern] = model_cost(model)
        files[pattern] = file_of(model, FLAGS.precision)
    for threads in FLAGS.threads:
        rows = benchmark(files, threads, FLAGS.seconds)
        for row in rows:
            row["parameters"] = costs[row["name"]].parameters
            row["macs"] = costs[row["name"]].macs
        settings = {**{name: FLAGS[name].value for name in _SETTINGS}, "threads": threads}
        run = {"settings": settings, "machine": machine(), "files": rows}
        records.record(FLAGS.output, NAME, run, page)
        print(table(run))


def network(arch, width, size, pattern):
    """Returns a network of random weights; one-dimensional ones are neither 0 nor 1.

    Left at 0 and 1, as before training, the converter would leave operators out.
    """
    keras.utils.set_random_seed(0)
    periodic = None if pattern == DENSE else pattern
    model = zoo.build(arch, (size, size, 3), 10, width, periodic)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


def file_of(model, precision):
    images = np.random.default_rng(0).random((8, *model.input_shape[1:]), np.float32)
    return convert(model, precision, images if precision == "int8" else None)


def page(runs):
    """Returns the Markdown page of the runs in the JSON file."""
    introduction = (
        "# Speed of the patterns in LiteRT\n\n"
        "Whole networks beside the dense one, all files of a table in turns in one process. "
        "*fewer* and *smaller* are ratios to the dense network.\n\n"
    )
    return introduction + "\n".join(table(run) for run in runs)


def table(run):
    """Returns the Markdown table of one run, a dict of the JSON file."""
    settings, facts, (dense, *_) = run["settings"], run["machine"], run["files"]
    threads = "1 thread" if settings["threads"] == 1 else f"{settings['threads']} threads"
    lines = [
        f"**{settings['arch']} of width {settings['width']}, images of {settings['size']}x"
        f"{settings['size']}, {settings['precision']}, batch 1, {threads}** ({facts['cpu']}, "
        f"{facts['cores']} cores; {dense['runs']:,} runs of each file in turns)",
        "",
        "| pattern | fewer MACs | faster (minimum) | faster (median) | minimum, ms | median, ms "
        "| fewer parameters | smaller file | file, kB | on XNNPACK |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in run["files"]:
        cells = [
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
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    commandline.run(sys.modules[__name__])
