"""How much faster is each layer of a periodic network in LiteRT? The profile behind pattern_speed.

    python -m tflite.layer_speed --arch=resnet18 --width=64 --precision=float32 --output=docs

For each size of periodic layer in a network and each pattern, files of that layer, ReLU and a mean
over the image, converted as `tflite.convert` does, beside the dense layer, in turns in one process.
Adds to --output/layer_speed_litert.json and writes --output/layer_speed_litert.md.
"""

import os

from absl import flags

from tflite.quiet import quiet

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # C++ logs; real errors are exceptions

with quiet():
    import keras
    import tqdm

    import zoo
    from tflite.benchmark import benchmark, machine
    from tflite.forms import best_form
    from tflite.pattern_speed import PATTERNS as NETWORK_PATTERNS
    from tflite.pattern_speed import file_of
    from tfsparse import commandline, patterns, timing
    from tfsparse.layers import PeriodicConv2D
    from zoo.studies.layer_speed import SIZE, by_size, layer_sizes

NAME, DENSE = "layer_speed_litert", "dense"
PATTERNS = [pattern for pattern in NETWORK_PATTERNS if pattern != DENSE]

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_enum("arch", "resnet18", sorted(zoo.ARCHITECTURES), "Whose layers to measure.")
    flags.DEFINE_integer("width", 64, "Channels of the first stage.", lower_bound=1)
    flags.DEFINE_integer("size", 32, "Height and width of the images.", lower_bound=1)
    flags.DEFINE_enum("precision", "float32", ["float32", "int8"], "Arithmetic of the files.")
    flags.DEFINE_list("patterns", PATTERNS, "Patterns to measure.")
    flags.DEFINE_float("seconds", 5, "How long to measure each size of layer.", lower_bound=0)
    flags.DEFINE_string("output", None, "Folder for table and JSON.", required=True)


def main():
    for pattern in FLAGS.patterns:
        patterns.parse(pattern)
    counts = layer_sizes(FLAGS.arch, FLAGS.width, FLAGS.size)
    rows = []
    for size, count in tqdm.tqdm(counts.items(), "layers", leave=False, disable=None):
        measured = measure(size, FLAGS.patterns, FLAGS.precision, FLAGS.seconds)
        rows += [{"count": count, **row} for row in measured]
    settings = {name: FLAGS[name].value for name in ("arch", "width", "size", "precision")}
    run = {"settings": settings, "machine": machine(), "layers": rows}
    timing.record(FLAGS.output, NAME, run, page)
    print(table(run))


def measure(size, chosen, precision, seconds):
    """Returns a dict for each of the patterns `chosen`, all measured in turns, on one thread."""
    models = {name: single_layer(*size, name) for name in (DENSE, *chosen)}
    rows = benchmark(
        {name: file_of(model, precision) for name, model in models.items()}, 1, seconds
    )
    return [
        {
            **dict(zip(SIZE, size, strict=True)),
            "pattern": row["name"],
            "form": form(models[row["name"]], precision),
            "dense_minimum_ms": rows[0]["minimum_ms"],
            "minimum_ms": row["minimum_ms"],
            "runs": row["runs"],
        }
        for row in rows[1:]
    ]


def single_layer(height, channels, filters, stride, pattern):
    """Returns a model of one convolution with random weights, ReLU and the mean over the image."""
    keras.utils.set_random_seed(0)
    options = {"strides": stride, "padding": "same", "bias_initializer": "random_normal"}
    if pattern == DENSE:
        layer = keras.layers.Conv2D(filters, 3, **options)
    else:
        layer = PeriodicConv2D(filters, 3, pattern, **options)
    inputs = keras.Input((height, height, channels))
    outputs = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(layer(inputs)))
    return keras.Model(inputs, outputs)


def form(model, precision):
    """Returns how the periodic layer of `model` runs: "dense", "shifted" or "sliced"."""
    arithmetic = "int8" if precision == "int8" else "float"
    found = best_form(model.layers[1], model.layers[1].input.shape, arithmetic)
    return "dense" if found is None else "sliced" if found.sliced else "shifted"


def page(runs):
    """Returns the Markdown page of the runs in the JSON file."""
    introduction = (
        "# Single layers in LiteRT\n\n"
        "Batch 1, one thread: how many times faster than the dense layer each layer is, minimum "
        "over runs in turns. *dense*: the converter left it one dense convolution, as the faster "
        "one; *shifted* and *sliced* say how its inputs are shifted. The last row is the time of "
        "all these layers of the network together.\n\n"
    )
    return introduction + "\n".join(table(run) for run in runs)


def table(run):
    """Returns the Markdown table of one run: a row for each size, a column for each pattern."""
    settings, facts, rows = run["settings"], run["machine"], run["layers"]
    chosen = list(dict.fromkeys(row["pattern"] for row in rows))
    lines = [
        f"**Layers of {settings['arch']} of width {settings['width']}, images of "
        f"{settings['size']}x{settings['size']}, {settings['precision']}** ({facts['cpu']}, "
        f"{facts['cores']} cores; at least {min(row['runs'] for row in rows)} runs of each)",
        "",
        f"| layers | image | channels | filters | stride | dense, ms | {' | '.join(chosen)} |",
        "|---|" + "---|" * (5 + len(chosen)),
    ]
    groups = by_size(rows)
    for size, group in groups.items():
        dense = group[0]["dense_minimum_ms"]
        cells = [
            f"{group[0]['count']}",
            f"{size[0]}x{size[0]}",
            *map(str, size[1:]),
            f"{dense:.2f}",
        ]
        cells += [f"{dense / row['minimum_ms']:.2f}x {row['form']}" for row in group]
        lines.append(f"| {' | '.join(cells)} |")
    dense = sum(group[0]["count"] * group[0]["dense_minimum_ms"] for group in groups.values())
    totals = [
        sum(row["count"] * row["minimum_ms"] for row in rows if row["pattern"] == pattern)
        for pattern in chosen
    ]
    ratios = " | ".join(f"{dense / total:.2f}x" for total in totals)
    lines.append(f"| all | | | | | {dense:.2f} | {ratios} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    define_flags()
    commandline.run(main)
