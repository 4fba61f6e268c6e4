"""How much faster is each layer of a periodic network in LiteRT? The details behind pattern_speed.

    python -m studies layer_speed_litert --arch=resnet18 --width=64 --precision=float32

For each size of periodic layer in a network and each pattern, converts that layer with ReLU and a
mean over the image, and compares it with the dense layer, in turns in one process. Adds to
layer_speed_litert.json and writes layer_speed_litert.md.
"""

import keras
import tqdm
from absl import flags

from studies import records, speed
from studies.pattern_speed import PATTERNS, file_of
from tflite.benchmark import benchmark, facts
from tflite.convert import arithmetic
from tflite.lowering import best_form
from tfsparse.layers import PeriodicConv2D

NAME = "layer_speed_litert"
FLAGS = flags.FLAGS


def define_flags():
    speed.define_flags(PATTERNS, seconds=5)
    flags.DEFINE_enum("precision", "float32", ["float32", "int8"], "Arithmetic of the files.")


def main():
    chosen, rows = speed.chosen_patterns(), []
    counts = speed.layer_sizes(FLAGS.arch, FLAGS.width, FLAGS.size)
    for size, count in tqdm.tqdm(counts.items(), "layers", leave=False, disable=None):
        measured = measure(size, chosen, FLAGS.precision, FLAGS.seconds)
        rows += [{"count": count, **row} for row in measured]
    settings = speed.settings("arch", "width", "size", "precision")
    run = {"settings": settings, "machine": facts(), "layers": rows}
    records.record(FLAGS.output, NAME, [run], page)
    print(table(run))


def measure(size, chosen, precision, seconds):
    """Returns a dict for each of the patterns `chosen`, all measured in turns, on one thread."""
    models = {name: single_layer(*size, name) for name in (speed.DENSE, *chosen)}
    contents = {name: file_of(model, precision) for name, model in models.items()}
    dense, *others = benchmark(contents, 1, seconds)
    return [
        {
            **dict(zip(speed.SIZE, size, strict=True)),
            "pattern": row["name"],
            "form": form(models[row["name"]], precision),
            "dense_minimum_ms": dense["minimum_ms"],
            "minimum_ms": row["minimum_ms"],
            "runs": row["runs"],
        }
        for row in others
    ]


def single_layer(height, channels, filters, stride, pattern):
    """Returns a model of one convolution with random weights, ReLU and the mean over the image."""
    keras.utils.set_random_seed(0)
    options = {"strides": stride, "padding": "same", "bias_initializer": "random_normal"}
    if pattern == speed.DENSE:
        layer = keras.layers.Conv2D(filters, 3, **options)
    else:
        layer = PeriodicConv2D(filters, 3, pattern, **options)
    inputs = keras.Input((height, height, channels))
    outputs = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(layer(inputs)))
    return keras.Model(inputs, outputs)


def form(model, precision):
    """Returns how the periodic layer of `model` runs: "dense", "shifted" or "sliced"."""
    found = best_form(model.layers[1], model.layers[1].input.shape, arithmetic(precision))
    return "dense" if found is None else "sliced" if found.sliced else "shifted"


def table(run):
    """Returns the Markdown table of one run."""
    words = "Layers of {arch} of width {width}, images of {size}x{size}, {precision}".format(
        **run["settings"]
    )
    runs = f"at least {min(row['runs'] for row in run['layers'])} runs of each"
    cells = speed.layer_table(run["layers"], _cell, digits=2, total=True)
    return speed.title(words, run["machine"], runs) + cells


def _cell(row):
    return f"{row['dense_minimum_ms'] / row['minimum_ms']:.2f}x {row['form']}"


page = records.page_of_tables(NAME, table)
