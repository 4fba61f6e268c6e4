"""How long does a training step take, with each pattern, with a mask instead, and in PyTorch?

    python -m studies training_speed --arch=resnet18

All networks take the same step (forward in training mode, cross-entropy, backward, SGD with
momentum) on the same random images, in turns in one process, so that a machine that slows down
slows all of them. TensorFlow runs with and without XLA, compiled beforehand; the faster of the two
is compared. The variants are:

- the dense network;
- for each pattern the network with periodic layers, and its masked twin: dense layers that multiply
  their kernels by a 0/1 mask in each forward pass, as TF-MOT's pruning wrapper does;
- the dense network in PyTorch, channels last, if its build for CPUs is installed.

Adds to training_speed.json and writes training_speed.md.
"""

import importlib.util
import os
import sys
import time

import keras
import numpy as np
import tensorflow as tf
import tqdm
from absl import flags

import zoo
from studies import records, speed
from tfsparse import machine, patterns, tables, timing
from tfsparse.layers import PeriodicConv2D
from zoo.commands import environment

NAME = "training_speed"
TORCH = "dense in PyTorch"
PLAIN, XLA = "plain", "xla"  # without and with XLA
LEARNING_RATE, MOMENTUM = 0.01, 0.9
COLUMNS = {
    "minimum_speedup_over_dense": "speed-up over dense (minimum)",
    "median_speedup_over_dense": "(median)",
    "minimum_speedup_over_mask": "speed-up over the mask (minimum)",
    "median_speedup_over_mask": "(median)",
    "plain_minimum_ms": "minimum, ms",
    "plain_median_ms": "median, ms",
    "xla_minimum_ms": "XLA, minimum, ms",
    "xla_median_ms": "XLA, median, ms",
}

FLAGS = flags.FLAGS


def define_flags():
    speed.define_flags(speed.PATTERNS, seconds=60, width=None)
    flags.DEFINE_integer("batch_size", 64, "Images per training step.", lower_bound=1)
    flags.DEFINE_integer("threads", None, "Threads; default is each framework's.", lower_bound=1)


def main():
    tf.get_logger().setLevel("ERROR")  # every network compiles functions of its own, on purpose
    if FLAGS.threads:
        tf.config.threading.set_intra_op_parallelism_threads(FLAGS.threads)
        tf.config.threading.set_inter_op_parallelism_threads(FLAGS.threads)
    settings = speed.settings("arch", "width", "batch_size", "size", "threads")
    steps = training_steps(patterns=speed.chosen_patterns(), **settings)
    results = summary(timing.interleaved(steps, FLAGS.seconds))
    run = {"settings": settings, "machine": facts(), "variants": results}
    records.record(FLAGS.output, NAME, [run], page)
    print(table(run))


def facts():
    """Returns what the times depend on: processor, system, environment and versions, a dict."""
    torch = ["torch"] if has_torch() else []
    names = environment.VARIABLES | environment.OF_COMMANDS
    variables = {name: os.environ.get(name, "default") for name in names}
    return {**machine.facts(["tensorflow", "keras", "numpy", *torch]), **variables}


def has_torch():
    """Returns whether PyTorch can be measured: its build for CPUs is installed.

    PyTorch's optimizers import Triton, which its builds for GPUs bring. Imported after TensorFlow,
    Triton crashes the process.
    """
    return bool(importlib.util.find_spec("torch")) and not importlib.util.find_spec("triton")


# ---- the networks and their steps ----


def masked(pattern):
    """Returns the name of the masked twin of `pattern`."""
    return f"{pattern} as a mask"


def training_steps(arch, width, patterns, batch_size, size, threads=None):
    """Returns {(variant, mode): function that trains one step and returns its loss}, compiled.

    The modes "plain" and "xla" of a variant train the same network; PyTorch has "plain" only. A
    line on stderr says how long each compilation took.

    Raises:
        UsageError: if an argument is out of range or a pattern does not fit.
    """
    networks = {speed.DENSE: zoo.build(arch, (size, size, 3), speed.CLASSES, width)}
    for pattern in patterns:
        network = zoo.build(arch, (size, size, 3), speed.CLASSES, width, pattern)
        networks |= {pattern: network, masked(pattern): masked_twin(network)}
    rng = np.random.default_rng(0)
    images = rng.random((batch_size, size, size, 3), np.float32)
    labels = rng.integers(speed.CLASSES, size=batch_size)
    steps = {
        (name, mode): tensorflow_step(network, images, labels, xla=mode == XLA)
        for name, network in networks.items()
        for mode in (PLAIN, XLA)
    }
    if arch in ("resnet18", "vgg16") and has_torch():
        equivalent = torch_network(arch, networks[speed.DENSE].layers[2].filters)
        steps[TORCH, PLAIN] = torch_step(equivalent, images, labels, threads)
    for (name, mode), step in tqdm.tqdm(steps.items(), "compiling", leave=False, disable=None):
        start = time.perf_counter()
        step()
        spent = time.perf_counter() - start
        tqdm.tqdm.write(f"{name}, {mode}: first step after {spent:.1f} s", file=sys.stderr)
    return steps


def tensorflow_step(model, images, labels, xla):
    """Returns a function that trains `model` for one step and returns the loss."""
    images, labels = tf.constant(images), tf.constant(labels)
    optimizer = keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM)
    optimizer.build(model.trainable_variables)

    @tf.function(jit_compile=xla)
    def step():
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            loss = tf.reduce_mean(losses)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)
        return loss

    return lambda: float(step())


class MaskedConv2D(keras.layers.Conv2D):
    """Conv2D with the forward pass of TF-MOT's pruning wrapper, whose mask no longer changes.

    The wrapper stores kernel x mask in the kernel, then calls its layer; gradient and momentum
    stay dense.

    Args:
        mask: array of the kernel's shape, 1 for each weight that exists and 0 for the others.
    """

    def __init__(self, mask, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._mask = mask

    def build(self, input_shape):
        super().build(input_shape)
        self.mask = self.add_weight(name="mask", shape=self._mask.shape, trainable=False)
        self.mask.assign(self._mask)

    def call(self, inputs):
        self.kernel.assign(self.kernel * self.mask)
        return super().call(inputs)


def masked_twin(model):
    """Returns a network with the weights of `model` and masked layers for its periodic ones."""

    def twin(layer):
        if not isinstance(layer, PeriodicConv2D):
            return layer.__class__.from_config(layer.get_config())
        mask = patterns.parse(layer.pattern).mask(layer.kernel_size, *layer.dense_kernel_shape[2:])
        return MaskedConv2D(
            mask,
            layer.filters,
            layer.kernel_size,
            layer.strides,
            layer.padding,
            use_bias=layer.use_bias,
            name=layer.name,
        )

    network = keras.models.clone_model(model, clone_function=twin)
    for layer in model.layers:
        its = network.get_layer(layer.name)
        if isinstance(layer, PeriodicConv2D):
            its.kernel.assign(layer.dense_kernel())
        else:
            its.set_weights(layer.get_weights())
    return network


# ---- PyTorch ----


def torch_step(network, images, labels, threads=None):
    """Returns a function that trains the PyTorch `network` for one step and returns the loss."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    network = network.to(memory_format=torch.channels_last)
    # NHWC in memory, as in TensorFlow, which PyTorch calls NCHW with channels last.
    images, labels = torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels)
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, MOMENTUM)

    def step():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(4 * images - 2), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def torch_network(arch, width, channels=3):
    """Returns the PyTorch equivalent of a network of `zoo.build`, "resnet18" or "vgg16".

    It takes normalized images [n, channels, height, width].
    """
    from torch import nn

    make = {"resnet18": _torch_resnet18, "vgg16": _torch_vgg16}[arch]
    classifier = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, speed.CLASSES)]
    return nn.Sequential(*make(channels, width), *classifier)


def _torch_resnet18(channels, width):
    from torch import nn

    class Block(nn.Module):
        def __init__(self, inputs, outputs, strides):
            super().__init__()
            self.body = nn.Sequential(
                *_torch_conv_norm(inputs, outputs, 3, strides),
                nn.ReLU(inplace=True),
                *_torch_conv_norm(outputs, outputs, 3),
            )
            shortcut = [] if inputs == outputs else _torch_conv_norm(inputs, outputs, 1, strides)
            self.shortcut = nn.Sequential(*shortcut)

        def forward(self, x):
            return nn.functional.relu(self.body(x) + self.shortcut(x), inplace=True)

    layers = [*_torch_conv_norm(channels, width, 3), nn.ReLU(inplace=True), Block(width, width, 1)]
    layers.append(Block(width, width, 1))
    for inputs in (width, 2 * width, 4 * width):
        layers += [Block(inputs, 2 * inputs, 2), Block(2 * inputs, 2 * inputs, 1)]
    return layers


def _torch_vgg16(channels, width):
    from torch import nn

    layers, inputs = [], channels
    for multiple, convolutions in [(1, 2), (2, 2), (4, 3), (8, 3), (8, 3)]:
        for _ in range(convolutions):
            layers += [*_torch_conv_norm(inputs, multiple * width, 3), nn.ReLU(inplace=True)]
            inputs = multiple * width
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
    return layers


def _torch_conv_norm(inputs, outputs, size, strides=1):
    from torch import nn

    convolution = nn.Conv2d(inputs, outputs, size, strides, padding=size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs, eps=1e-3)]


# ---- the figures and the page ----


def summary(samples):
    """Returns the times and speed-ups of each variant.

    Args:
        samples: {(variant, mode): list of seconds}, as `interleaved` returns, "dense" among them.

    Returns:
        List of dicts, one for each variant, in order: "variant"; "steps", the number of steps in
        each mode; and, with "minimum" and "median" as kinds:
            plain_{kind}_ms, xla_{kind}_ms: time of a step without and with XLA; None if the
                variant has no such mode.
            best_{kind}_ms: the smaller of the two.
            {kind}_speedup_over_dense, {kind}_speedup_over_mask: best time of the dense network or
                of the masked twin, divided by this one's; None without a twin.
    """
    rows = {name: {"variant": name} for name, _ in samples}
    for name, row in rows.items():
        row["steps"] = min(len(values) for key, values in samples.items() if key[0] == name)
        for kind, measure in (("minimum", np.min), ("median", np.median)):
            times = {
                mode: 1e3 * float(measure(samples[name, mode])) if (name, mode) in samples else None
                for mode in (PLAIN, XLA)
            }
            row |= {f"{mode}_{kind}_ms": value for mode, value in times.items()}
            row[f"best_{kind}_ms"] = min(value for value in times.values() if value is not None)
    for name, row in rows.items():
        for reference, over in ((speed.DENSE, "dense"), (masked(name), "mask")):
            for kind in ("minimum", "median"):
                best = rows[reference][f"best_{kind}_ms"] if reference in rows else None
                row[f"{kind}_speedup_over_{over}"] = best and best / row[f"best_{kind}_ms"]
    return list(rows.values())


def table(run):
    """Returns the Markdown table of one run."""
    settings, facts = run["settings"], run["machine"]
    words = "{arch} of width {}, {batch_size} images of {size}x{size}".format(
        settings["width"] or "as published", **settings
    )
    runs = (
        f"{settings['threads'] or 'default'} threads, TensorFlow {facts['tensorflow']}; "
        f"{run['variants'][0]['steps']} steps of each in turns"
    )
    rows = [[row["variant"], *(_cell(row[key], key) for key in COLUMNS)] for row in run["variants"]]
    return speed.title(words, facts, runs) + tables.markdown(["network", *COLUMNS.values()], rows)


def _cell(value, key):
    if value is None:
        return "-"
    return f"{value:.0f}" if key.endswith("_ms") else f"{value:.2f}x"


page = records.page_of_tables(NAME, table)
