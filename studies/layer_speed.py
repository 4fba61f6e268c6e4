"""Does a periodic layer train faster as small convolutions or with its dense kernel?

    python -m studies.layer_speed --arch=resnet18 --width=64 --output=docs

What the rule in `tfsparse.layers` rests on: for each size of periodic layer in a network and each
pattern, the forward and backward pass as small convolutions beside that of the dense layer, in
turns in one process. Adds to --output/layer_speed.json and writes --output/layer_speed.md.
"""

import collections

import keras
import numpy as np
import tensorflow as tf
import tqdm
from absl import flags

import zoo
from studies.training_speed import PATTERNS
from tfsparse import patterns, timing
from tfsparse.layers import PeriodicConv2D
from zoo.commands import commandline

NAME, DENSE = "layer_speed", "dense"
ALL = [*PATTERNS, "PS4_P4_F2", "PS2_P6_F2", "PS1_P9_F2"]
SETTINGS = ("arch", "width", "batch_size", "size", "xla")

SIZE = ("image_size", "channels", "filters", "stride")

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_enum("arch", "resnet18", sorted(zoo.ARCHITECTURES), "Whose layers to measure.")
    flags.DEFINE_integer("width", 64, "Channels of the first stage.", lower_bound=1)
    flags.DEFINE_list("patterns", ALL, "Patterns to measure.")
    flags.DEFINE_integer("batch_size", 64, "Images per step.", lower_bound=1)
    flags.DEFINE_integer("size", 32, "Height and width of an image.", lower_bound=1)
    flags.DEFINE_bool("xla", False, "Whether XLA compiles the layers.")
    flags.DEFINE_float("seconds", 5.0, "How long to measure each size of layer.", lower_bound=0)
    flags.DEFINE_string("output", None, "Folder for tables and JSON.", required=True)


def main():
    tf.get_logger().setLevel("ERROR")  # every layer compiles functions of its own, on purpose
    for pattern in FLAGS.patterns:
        patterns.parse(pattern)
    settings = {name: FLAGS[name].value for name in SETTINGS}
    sizes = layer_sizes(FLAGS.arch, FLAGS.width, FLAGS.size)
    rows = [
        row
        for size in tqdm.tqdm(sizes, "layers", leave=False, disable=None)
        for row in measure(size, FLAGS.patterns, FLAGS.batch_size, FLAGS.xla, FLAGS.seconds)
    ]
    run = {"settings": settings, "machine": machine.facts(), "layers": rows}
    records.record(FLAGS.output, NAME, run, page)
    print(table(run))


def layer_sizes(arch, width, size):
    """Returns {(image size, channels, filters, stride): how many such layers a network has}."""
    model = zoo.build(arch, (size, size, 3), 10, width, "PS4_P4")
    layers = [layer for layer in model.layers if isinstance(layer, PeriodicConv2D)]
    return collections.Counter(
        (*layer.input.shape[2:], layer.filters, layer.strides[0]) for layer in layers
    )


def by_size(rows):
    """Returns {values of SIZE: the rows that have them}, in the order of `rows`."""
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in SIZE), []).append(row)
    return groups


def measure(size, chosen, batch_size, xla, seconds):
    """Returns a dict for each of the patterns `chosen`, all measured in turns."""
    height, channels, filters, stride = size
    images = np.random.default_rng(0).random((batch_size, height, height, channels), np.float32)
    dense = keras.layers.Conv2D(filters, 3, stride, "same", use_bias=False)
    layers = {
        pattern: PeriodicConv2D(filters, 3, pattern, stride, "same", use_bias=False)
        for pattern in chosen
    }
    for layer in (dense, *layers.values()):
        layer.build(images.shape)
    rule = {pattern: runs_small(layer, images, xla) for pattern, layer in layers.items()}
    for layer in layers.values():
        layer.runs_dense = lambda inputs: False
    steps = {name: step(layer, images, xla) for name, layer in {DENSE: dense, **layers}.items()}
    samples = timing.interleaved(steps, seconds)
    milliseconds = {name: 1e3 * float(np.min(values)) for name, values in samples.items()}
    return [
        {
            **dict(zip(SIZE, size, strict=True)),
            "pattern": pattern,
            "steps": len(samples[DENSE]),
            "dense_minimum_ms": milliseconds[DENSE],
            "small_minimum_ms": milliseconds[pattern],
            "saved_per_copy": layers[pattern].saved_per_copy,
            "rule": rule[pattern],
        }
        for pattern in chosen
    ]


def runs_small(layer, images, xla):
    """Returns whether the layer's rule chooses small convolutions."""
    choices = []

    @tf.function(jit_compile=xla)
    def ask(inputs):
        choices.append(not layer.runs_dense(inputs))

    ask(images)
    return choices[0]


def step(layer, images, xla):
    """Returns a function that runs `layer` forward and backward."""
    images = tf.constant(images)
    upstream = tf.random.stateless_normal(layer.compute_output_shape(images.shape), [0, 0])

    @tf.function(jit_compile=xla)
    def run():
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images)
        return tape.gradient(outputs, [images, layer.kernel.value], upstream)

    return lambda: run()[1].numpy()  # which waits until it is there


def page(runs):
    """Returns the Markdown page of the runs in the JSON file."""
    introduction = (
        "# Layers as small convolutions\n\n"
        "Forward and backward pass of one layer: how many times faster it is as small convolutions "
        "than the dense layer is, minimum over runs in turns, and in brackets the multiplications "
        "saved for each number copied, by which the layer chooses. **Bold**: what it chooses to "
        "run as small convolutions.\n\n"
    )
    return introduction + "\n".join(table(run) for run in runs)


def table(run):
    """Returns the Markdown table of one run: a row for each size, a column for each pattern."""
    settings, facts, rows = run["settings"], run["machine"], run["layers"]
    chosen = list(dict.fromkeys(row["pattern"] for row in rows))
    lines = [
        f"**Layers of {settings['arch']} of width {settings['width']}, {settings['batch_size']} "
        f"images of {settings['size']}x{settings['size']}, {'with' if settings['xla'] else 'no'} "
        f"XLA** ({facts['cpu']}, {facts['cores']} cores; at least "
        f"{min(row['steps'] for row in rows)} runs of each)",
        "",
        f"| image | channels | filters | stride | dense, ms | {' | '.join(chosen)} |",
        "|---|" + "---|" * (4 + len(chosen)),
    ]
    for size, group in by_size(rows).items():
        cells = [f"{size[0]}x{size[0]}", *size[1:], f"{group[0]['dense_minimum_ms']:.1f}"]
        for row in group:
            ratio = f"{row['dense_minimum_ms'] / row['small_minimum_ms']:.2f}x"
            ratio = f"**{ratio}**" if row["rule"] else ratio
            cells.append(f"{ratio} ({row['saved_per_copy']:.0f})")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    commandline.run(sys.modules[__name__])
