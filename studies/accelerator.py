r"""How fast does a GPU train, attack, and rewire, and how long does the first step take?

    KERAS_BACKEND=jax python -m studies accelerator

Measures, in one process and on images drawn at random: training steps of the dense network, of the
one with a periodic pattern, and with the hybrid loss; DNR's rewiring; and the first step, which is
compiled, then again from JAX's compilation cache. Prints a table and writes accelerator.json. On a
CPU, choose a small network:

    KERAS_BACKEND=jax python -m studies accelerator --arch=resnet8 --width=4 --size=8 \
        --images=64 --batch_size=8 --attack_steps=2
"""

import json
import tempfile
import time

import keras
import numpy as np
from absl import flags

import zoo
from tfsparse import attacks, backend, machine, optimizers, tables, training
from tfsparse.errors import UsageError
from tfsparse.files import write_bytes
from tfsparse.pruning import DNRSchedule, Pruner
from zoo.data import resident, training_batches

FLAGS = flags.FLAGS
CLASSES, EPS, REWIRINGS = 10, 8 / 255, 5
POLICIES = ("mixed_bfloat16", "float32")


def define_flags():
    flags.DEFINE_enum("arch", "resnet18", sorted(zoo.ARCHITECTURES), "Network architecture.")
    flags.DEFINE_integer("width", None, "Channels of the first stage.", lower_bound=1)
    flags.DEFINE_string("pattern", "PSD1_P16", "Periodic pattern to compare with dense.")
    flags.DEFINE_integer("size", 32, "Height and width of the images.", lower_bound=1)
    flags.DEFINE_integer("images", 50_000, "Images of an epoch.", lower_bound=1)
    flags.DEFINE_integer("batch_size", 256, "Images per step.", lower_bound=1)
    flags.DEFINE_integer("attack_steps", 7, "PGD steps of the hybrid loss.", lower_bound=1)
    flags.DEFINE_enum("dtype_policy", "mixed_bfloat16", POLICIES, "Keras' dtype policy.")
    flags.DEFINE_string("output", "accelerator.json", "File of the figures.")


def main():
    if backend.NAME != "jax":
        raise UsageError(f"Set KERAS_BACKEND=jax. Received: {backend.NAME}")
    if FLAGS.batch_size > FLAGS.images:
        raise UsageError(f"--batch_size must be at most {FLAGS.images}, --images.")
    started = time.perf_counter()
    figures = measure()
    names = ("arch", "width", "pattern", "size", "images", "batch_size", "attack_steps")
    report = {
        "settings": {name: FLAGS[name].value for name in (*names, "dtype_policy")},
        "figures": figures,
        "hardware": machine.hardware(),
        "versions": machine.versions(["keras", "jax", "jaxlib", "numpy"]),
        "seconds": time.perf_counter() - started,
    }
    write_bytes(FLAGS.output, json.dumps(report, indent=2) + "\n")
    print(tables.aligned(table(figures)))
    print(f"\n{report['hardware']}; JAX {report['versions']['jax']}; {report['seconds']:.0f} s")


def measure():
    """Returns {figure: number}; times in seconds."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    rng = np.random.default_rng(0)
    shape = (FLAGS.images, FLAGS.size, FLAGS.size, 3)
    data = resident(
        rng.integers(0, 256, shape, np.uint8), rng.integers(0, CLASSES, FLAGS.images, np.int32)
    )
    with tempfile.TemporaryDirectory() as cache:
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
        compilation_cache.reset_cache()  # or one that the environment names stays in use
        trainer = make_trainer()
        first = {"first_step": first_steps(trainer, data)}
        dense_seconds = epoch(trainer, data)
        jax.clear_caches()  # those of this process; the files stay
        trainer = make_trainer()
        first["first_step_from_cache"] = first_steps(trainer, data)
        trainer = make_trainer(pattern=FLAGS.pattern)
        first_steps(trainer, data)
        periodic_seconds = epoch(trainer, data)
        trainer = make_trainer(hybrid=True)
        first_steps(trainer, data)
        hybrid_seconds = epoch(trainer, data)
        rewiring_seconds = rewiring(trainer)
    steps = FLAGS.images // FLAGS.batch_size
    return {
        "images_per_second": steps * FLAGS.batch_size / dense_seconds,
        "dense_step": dense_seconds / steps,
        "periodic_step": periodic_seconds / steps,
        "hybrid_epoch": hybrid_seconds * FLAGS.images / (steps * FLAGS.batch_size),
        "weights_rewired": sum(int(np.prod(weight.shape)) for weight in trainer.pruner.weights),
        "rewiring": rewiring_seconds,
        **first,
    }


def make_trainer(pattern=None, hybrid=False):
    """Returns a new `Trainer`: of the standard loss or, with DNR to 10 %, of the hybrid loss."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(FLAGS.dtype_policy)
    try:
        model = zoo.build(
            FLAGS.arch, (FLAGS.size, FLAGS.size, 3), CLASSES, FLAGS.width, pattern=pattern
        )
    finally:
        keras.config.set_dtype_policy("float32")
    optimizer = optimizers.sgd(10**6, 0.01, 5e-3)
    if not hybrid:
        return training.Trainer(model, optimizer)
    attack = attacks.pgd(model, EPS, FLAGS.attack_steps)
    # Masks change only when `rewiring` asks for it.
    pruner = Pruner(model, DNRSchedule(0.9, 10**6, 1, begin_step=10**5))
    return training.Trainer(model, optimizer, attack, pruner)


def first_steps(trainer, data):
    """Returns how long the first call takes: its functions are compiled."""
    batches = training_batches(*data, FLAGS.batch_size, 0, 0)
    count = min(backend.steps_per_call(), len(batches))
    batches.plan = [part[:count] for part in batches.plan]
    return trainer.run_epoch(batches, 0)["seconds"]


def epoch(trainer, data):
    """Returns how long an epoch takes, without compilation."""
    return trainer.run_epoch(training_batches(*data, FLAGS.batch_size, 0, 1), 0)["seconds"]


def rewiring(trainer):
    """Returns the median time of rewiring all layers, from masks to masks on the device."""
    samples = []
    for step in range(10**5, 10**5 + REWIRINGS + 1):
        start = time.perf_counter()
        trainer.pruner.update(step, trainer.optimizer)
        for mask in trainer.pruner.masks:
            mask.value.block_until_ready()
        samples.append(time.perf_counter() - start)
    return float(np.median(samples[1:]))  # in the first, functions are compiled


def table(figures):
    """Returns rows of str, with the goals for ResNet18 of width 64 on one H100 or H200."""
    speed_up = figures["dense_step"] / figures["periodic_step"]
    return [
        ("", "measured", "goal", "floor"),
        ("standard, dense, images/s", f"{figures['images_per_second']:,.0f}", "80,000", "50,000"),
        (f"{FLAGS.pattern} over dense, training step", f"{speed_up:.2f}x", "1.5x", "1.0x"),
        (
            f"hybrid, PGD-{FLAGS.attack_steps}, s an epoch of {FLAGS.images:,}",
            f"{figures['hybrid_epoch']:.2f}",
            "3.0",
            "4.5",
        ),
        (
            f"rewiring of {figures['weights_rewired']:,} weights, s",
            f"{figures['rewiring']:.3f}",
            "0.05",
            "0.15",
        ),
        ("first step, compiled, s", f"{figures['first_step']:.1f}", "20", "45"),
        ("again, from the cache, s", f"{figures['first_step_from_cache']:.1f}", "5", "15"),
    ]
