"""Does a periodic layer train faster as small convolutions or as one dense convolution?

    python -m studies layer_speed --arch=resnet18 --width=64

Measures what the rule in `tfsparse.layers` is based on: for each size of periodic layer in a
network and each pattern, the time of a forward and backward pass as small convolutions, compared
with that of the dense layer, in turns in one process. Runs under JAX, too (KERAS_BACKEND=jax), and
on its devices. Adds to layer_speed.json and writes layer_speed.md.
"""

import keras
import numpy as np
import tqdm
from absl import flags

from studies import records, speed
from tfsparse import backend, machine, timing
from tfsparse.layers import PeriodicConv2D

NAME = "layer_speed"
FLAGS = flags.FLAGS


def define_flags():
    speed.define_flags([*speed.PATTERNS, *speed.TWO_PHASES], seconds=5)
    flags.DEFINE_integer("batch_size", 64, "Images per step.", lower_bound=1)
    flags.DEFINE_bool("xla", False, "Compile the layers with XLA.")


def main():
    backend.expect_compilations()  # every layer compiles functions of its own
    chosen = speed.chosen_patterns()
    sizes = speed.layer_sizes(FLAGS.arch, FLAGS.width, FLAGS.size)
    rows = [
        row
        for size in tqdm.tqdm(sizes, "layers", leave=False, disable=None)
        for row in measure(size, chosen, FLAGS.batch_size, FLAGS.xla, FLAGS.seconds)
    ]
    settings = speed.settings("arch", "width", "batch_size", "size", "xla")
    if backend.NAME == "jax":
        settings["jax"] = machine.hardware()
    run = {"settings": settings, "machine": machine.facts(), "layers": rows}
    records.record(FLAGS.output, NAME, [run], page)
    print(table(run))


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
    variants = {speed.DENSE: dense, **layers}
    steps = {name: step(layer, images, xla) for name, layer in variants.items()}
    samples = timing.interleaved(steps, seconds)
    milliseconds = {name: 1e3 * float(np.min(values)) for name, values in samples.items()}
    return [
        {
            **dict(zip(speed.SIZE, size, strict=True)),
            "pattern": pattern,
            "steps": len(samples[speed.DENSE]),
            "dense_minimum_ms": milliseconds[speed.DENSE],
            "small_minimum_ms": milliseconds[pattern],
            "saved_per_copy": layers[pattern].saved_per_copy,
            "rule": rule[pattern],
        }
        for pattern in chosen
    ]


def runs_small(layer, images, xla):
    """Returns whether the layer's rule chooses small convolutions."""
    if backend.NAME == "jax":
        return not layer.runs_dense(images)
    import tensorflow as tf

    choices = []

    @tf.function(jit_compile=xla)
    def ask(inputs):
        choices.append(not layer.runs_dense(inputs))

    ask(images)
    return choices[0]


def step(layer, images, xla):
    """Returns a function that runs `layer` forward and backward."""
    if backend.NAME == "jax":
        return _step_in_jax(layer, images)
    import tensorflow as tf

    images = tf.constant(images)
    upstream = tf.random.stateless_normal(layer.compute_output_shape(images.shape), [0, 0])

    @tf.function(jit_compile=xla)
    def run():
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images)
        return tape.gradient(outputs, [images, layer.kernel.value], upstream)

    return lambda: run()[1].numpy()  # which waits for the result


def _step_in_jax(layer, images):
    import jax

    shape = layer.compute_output_shape(images.shape)
    images, upstream = jax.numpy.asarray(images), jax.random.normal(jax.random.key(0), shape)

    @jax.jit
    def run(kernel, images):
        _, back = jax.vjp(lambda *of: layer.stateless_call([of[0]], [], of[1])[0], kernel, images)
        return back(upstream)

    return lambda: jax.block_until_ready(run(layer.kernel.value, images))


def table(run):
    """Returns the Markdown table of one run."""
    settings, rows = run["settings"], run["layers"]
    words = (
        "Layers of {arch} of width {width}, {batch_size} images of {size}x{size}, {} XLA"
    ).format("with" if settings["xla"] else "no", **settings)
    words += f", in JAX on {settings['jax']}" if "jax" in settings else ""
    runs = f"at least {min(row['steps'] for row in rows)} runs of each"
    return speed.title(words, run["machine"], runs) + speed.layer_table(rows, _cell, digits=1)


def _cell(row):
    ratio = f"{row['dense_minimum_ms'] / row['small_minimum_ms']:.2f}x"
    return (f"**{ratio}**" if row["rule"] else ratio) + f" ({row['saved_per_copy']:.0f})"


page = records.page_of_tables(NAME, table)
