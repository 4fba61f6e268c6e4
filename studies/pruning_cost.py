"""What does pruning cost in training? Time of a step, of a rewiring, and peak memory.

    python -m studies pruning_cost

Trains networks with the hybrid loss (one attack step), dense and with DNR, on random images. The
steps of the two run in turns in one process; the rewiring is compared with an epoch of --images
images; peak memory is that of two separate processes, each after some steps and, with DNR, a
rewiring (Linux only). Adds to pruning_cost.json and writes pruning_cost.md.
"""

import multiprocessing
import pathlib
import re
import time

import keras
import numpy as np
import tensorflow as tf
import tqdm
from absl import flags

import zoo
from studies import records
from tfsparse import attacks, machine, pruning, tables, timing
from tfsparse.optimizers import sgd
from tfsparse.training import Trainer

NAME = "pruning_cost"
NETWORKS = {"resnet8": None, "resnet18": 16, "vgg16": 16}  # with their width
DENSITY = 0.1
EPS = 8 / 255
COLUMNS = {
    "step_ratio": ("step with DNR / without (minimum)", "{:.3f}"),
    "median_step_ratio": ("(median)", "{:.3f}"),
    "dnr_step_ms": ("step, ms", "{:.0f}"),
    "rewiring_ms": ("rewiring, ms", "{:.0f}"),
    "rewiring_share": ("of an epoch", "{:.3%}"),
    "dnr_peak_mb": ("peak memory, MB", "{:.0f}"),
    "memory_ratio": ("with DNR / without", "{:.3f}"),
}

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_list("archs", list(NETWORKS), "Networks to measure.")
    flags.DEFINE_integer("batch_size", 128, "Images per step.", lower_bound=1)
    flags.DEFINE_integer("images", 45_000, "Images of an epoch.", lower_bound=1)
    flags.DEFINE_float("seconds", 60.0, "How long to measure the steps of a network.")
    records.define_output()


def main():
    rows = []
    for arch in tqdm.tqdm(FLAGS.archs, "networks", leave=False, disable=None):
        steps = -(-FLAGS.images // FLAGS.batch_size)
        rows.append({"arch": arch, "width": NETWORKS[arch]})
        rows[-1] |= times(arch, FLAGS.batch_size, steps, FLAGS.seconds)
        rows[-1] |= memory(arch, FLAGS.batch_size)
    settings = {"batch_size": FLAGS.batch_size, "images": FLAGS.images, "density": DENSITY}
    run = {"settings": settings, "machine": machine.facts(), "networks": rows}
    records.record(FLAGS.output, NAME, [run], page)
    print(table(run))


def trainer(arch, batch_size, pruned):
    """Returns a `Trainer` with the hybrid loss, and a batch of random images and labels."""
    keras.utils.set_random_seed(0)
    model = zoo.build(arch, (32, 32, 3), 10, NETWORKS[arch])
    pruner = None
    if pruned:
        pruner = pruning.Pruner(model, pruning.DNRSchedule(1 - DENSITY, 10**6, 1))
    optimizer = sgd(1000, 0.1, 5e-4)
    rng = np.random.default_rng(0)
    images = tf.constant(rng.random((batch_size, 32, 32, 3), np.float32))
    labels = tf.constant(rng.integers(10, size=batch_size))
    return Trainer(model, optimizer, attacks.pgd(model, EPS, 1), pruner), (images, labels)


def times(arch, batch_size, steps, seconds):
    """Returns the times of a step with and without pruning and of a rewiring, in ms."""
    trainers = {name: trainer(arch, batch_size, name == "dnr") for name in ("dense", "dnr")}
    functions = {
        name: lambda each=each, batch=batch: each._train_step(*batch, tf.constant([0, 0])).numpy()
        for name, (each, batch) in trainers.items()
    }
    samples = timing.interleaved(functions, seconds, 2)
    minimum = {name: 1e3 * min(values) for name, values in samples.items()}
    ratios = np.divide(samples["dnr"], samples["dense"])  # of consecutive steps
    pruned = trainers["dnr"][0]
    rewirings = []
    for step in range(1, 6):
        start = time.perf_counter()
        pruned.pruner.update(step, pruned.optimizer)
        rewirings.append(1e3 * (time.perf_counter() - start))
    return {
        "steps": len(ratios),
        "dense_step_ms": minimum["dense"],
        "dnr_step_ms": minimum["dnr"],
        "step_ratio": minimum["dnr"] / minimum["dense"],
        "median_step_ratio": float(np.median(ratios)),
        "rewiring_ms": float(np.median(rewirings)),
        "rewiring_share": float(np.median(rewirings)) / (steps * minimum["dnr"]),
    }


def memory(arch, batch_size):
    """Returns the peak memory of training with and without pruning, in MB."""
    context = multiprocessing.get_context("spawn")
    peaks = {}
    for name in ("dense", "dnr"):
        with context.Pool(1) as pool:
            peaks[name] = pool.apply(peak_memory, (arch, batch_size, name == "dnr"))
    return {
        "dense_peak_mb": peaks["dense"],
        "dnr_peak_mb": peaks["dnr"],
        "memory_ratio": peaks["dnr"] / peaks["dense"],
    }


def peak_memory(arch, batch_size, pruned):
    """Trains some steps and returns the largest memory this process had, in MB."""
    each, batch = trainer(arch, batch_size, pruned)
    for step in range(4):
        if pruned:
            each.pruner.update(step, each.optimizer)
        each._train_step(*batch, tf.constant([0, step])).numpy()
    # Not getrusage's ru_maxrss, which starts at the peak of the parent process.
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e6


def table(run):
    """Returns the Markdown table of one run."""
    settings, facts, networks = run["settings"], run["machine"], run["networks"]
    words = (
        f"**Batches of {settings['batch_size']} images of 32x32, DNR at a density of "
        f"{settings['density']}, epochs of {settings['images']:,} images** ({facts['cpu']}, "
        f"{facts['cores']} cores; at least {min(row['steps'] for row in networks)} steps of each "
        "in turns)\n\n"
    )
    rows = [
        [
            row["arch"] + (f", width {row['width']}" if row["width"] else ""),
            *(form.format(row[key]) for key, (_, form) in COLUMNS.items()),
        ]
        for row in networks
    ]
    return words + tables.markdown(["network", *(title for title, _ in COLUMNS.values())], rows)


page = records.page_of_tables(NAME, table)
