"""Trains a sparse, robust CNN from a flag file and hands over a verified .tflite.

    python train.py --flagfile=zoo/recipes/quickstart.cfg

Reads top to bottom: flags, data, model, training, evaluation, export. Running the same command
again continues where the run stopped. In --workdir afterwards: model.keras, best.keras (that of the
epoch with the best held-out accuracy, robust if trained to be), model_int8.tflite, history.csv,
report.json, report.html, checkpoint.safetensors, flags.json, tensorboard/.
"""

import collections
import csv
import gzip
import importlib.metadata
import json
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow leaves oneDNN off on some processors on which it makes a training step 1.5x faster.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

from tflite.quiet import quiet

with quiet():  # TensorFlow reports missing GPUs on import, at any log level
    import keras
    import numpy as np
    import tensorflow as tf
    from absl import flags

    import zoo
    import zoo.report
    from tflite import file_metadata
    from tflite.convert import as_float, conversion_images, convert, file_facts
    from tflite.verify import EXAMPLES, verify
    from tfsparse import attacks, commandline, cost, distribution, patterns, pruning, timing
    from tfsparse._tfmot import PolynomialDecay
    from tfsparse.checkpoints import Checkpoints
    from tfsparse.errors import UsageError
    from tfsparse.evaluation import accuracy
    from tfsparse.files import replacing, write_bytes
    from tfsparse.training import SCHEDULES, Trainer, best_epoch, overfits_attack, sgd
    from zoo.architectures import untrained
    from zoo.data import batches, on_cpu, open_dataset, training_batches

DTYPE_POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")
FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Folder of the run; continues a run that is there.")
flags.DEFINE_string("dataset", "fashion_mnist_small", "Image classification set of TFDS.")
flags.DEFINE_string("data_dir", None, "Where TFDS keeps its data; default is TFDS's own.")
flags.DEFINE_integer("image_size", None, "Height and width that images are resized to.")
flags.DEFINE_boolean("augment", True, "Random crops (padding 4) and horizontal flips.")
flags.DEFINE_enum("arch", "resnet8", sorted(zoo.ARCHITECTURES), "Network architecture.")
flags.DEFINE_integer("width", None, "Channels of the first stage; default is the published width.")
flags.DEFINE_string("pattern", None, "Periodic pattern of spatial convolutions, such as PSD2_P8.")
flags.DEFINE_enum("prune", "none", ["none", "dnr", "magnitude"], "Pruning during training.")
flags.DEFINE_enum("structure", "irregular", pruning.STRUCTURES, "What is pruned as one.")
commandline.define_fraction("density", 0.1, "Fraction of prunable weights that remain, (0, 1].")
flags.DEFINE_enum("loss", "standard", ["standard", "hybrid"], "hybrid: clean and adversarial.")
commandline.define_fraction("eps", 8 / 255, "L_inf bound of all attacks; images are in [0, 1].")
flags.DEFINE_integer("attack_steps", 1, "PGD steps of the training attack, from a random start.")
flags.DEFINE_integer("epochs", 10, "Training epochs.")
flags.DEFINE_integer("batch_size", 128, "Images per training step.")
commandline.define_fraction("learning_rate", 0.1, "Its peak.")
flags.DEFINE_enum("schedule", "one_cycle", SCHEDULES, "How the learning rate changes.")
commandline.define_fraction("label_smoothing", 0, "Share of a label spread over all classes.")
commandline.define_fraction("ema_momentum", 0, "Of the weights' moving average; 0 for none.")
commandline.define_fraction("weight_decay", 5e-3, "Decoupled, times the learning rate each step.")
flags.DEFINE_integer("seed", 0, "Fixes initial weights, masks, data order and attacks.")
flags.DEFINE_enum("distribution", "none", distribution.STRATEGIES, "Over GPUs, or machines too.")
flags.DEFINE_enum("dtype_policy", "float32", DTYPE_POLICIES, "Keras': mixed ones train faster.")
flags.DEFINE_boolean("synchronized", False, "BatchNorm's statistics are those of all replicas.")
flags.DEFINE_boolean("deterministic", False, "The same bits in each run on one machine; slower.")
commandline.define_fraction("checkpoint_minutes", 10, "Besides the end of each epoch.")

# Robust accuracy while training is a guide only; the test set's is what is reported.
VALIDATION_ATTACK_STEPS, VALIDATION_ATTACK_EXAMPLES = 5, 500
TEST_ATTACK_STEPS, TEST_ATTACK_EXAMPLES = 20, 1000
# Where a run writes and reads does not make it another run.
NOT_RECIPE = ("workdir", "data_dir", "checkpoint_minutes", "deterministic", "distribution")
VERSIONED = ("tfsparse", "keras", "tensorflow", "ai-edge-litert", "numpy")
OVERFITTED = (
    "warning: catastrophic overfitting: the training attack no longer finds what PGD finds. "
    "Use --attack_steps=2 or more, or a smaller --learning_rate. best.keras is of epoch {best}."
)
EXAMPLES_CAPTION = (
    "Test images that the model classifies correctly, the perturbation that PGD finds for them, "
    "and the result, with the class that the model sees."
)


def main():
    # --- flags ---------------------------------------------------------------------------------
    check_flags()
    workdir = pathlib.Path(FLAGS.workdir)
    own_flags = FLAGS.get_key_flags_for_module(sys.modules[__name__])
    recipe = {flag.name: flag.value for flag in own_flags if flag.name not in NOT_RECIPE}
    check_workdir(workdir, recipe)
    versions = installed_versions()
    if FLAGS.deterministic:
        tf.config.experimental.enable_op_determinism()

    # A cluster whose workers are done cannot start again: then the chief finishes by itself.
    is_trained = (workdir / "model.keras").exists()
    is_multi_worker = FLAGS.distribution == "multi_worker"
    if is_trained and is_multi_worker and not distribution.is_chief_of_cluster():
        return
    with distribution.scope("none" if is_trained else FLAGS.distribution):
        # --- data ------------------------------------------------------------------------------
        dataset = open_dataset(FLAGS.dataset, FLAGS.data_dir, FLAGS.image_size)
        steps_per_epoch = dataset.sizes["train"] // FLAGS.batch_size
        if steps_per_epoch == 0:
            raise UsageError(
                f"--batch_size={FLAGS.batch_size} is more than the {dataset.sizes['train']} "
                f"training images of {FLAGS.dataset}."
            )
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if FLAGS.batch_size < replicas:
            raise UsageError(
                f"--batch_size={FLAGS.batch_size} is shared by {replicas} devices, each of which "
                "needs an image."
            )
        steps = steps_per_epoch * FLAGS.epochs
        training_data, held_out = (on_cpu(*dataset.read(part)) for part in ("train", "validation"))

        # --- model -----------------------------------------------------------------------------
        architecture = {
            "arch": FLAGS.arch,
            "input_shape": dataset.image_shape,
            "num_classes": dataset.num_classes,
            "width": FLAGS.width,
            "pattern": FLAGS.pattern,
        }
        keras.utils.set_random_seed(FLAGS.seed)  # fixes the initial weights
        model = build(architecture, FLAGS.dtype_policy)
        synchronize(model)
        pruner = make_pruner(model, steps, steps_per_epoch)
        optimizer = sgd(
            steps, FLAGS.learning_rate, FLAGS.weight_decay, FLAGS.schedule, FLAGS.ema_momentum
        )
        if FLAGS.dtype_policy == "mixed_float16":  # in which small gradients would be 0
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        attack = None
        if FLAGS.loss == "hybrid":
            attack = attacks.pgd(model, FLAGS.eps, FLAGS.attack_steps)
        trainer = Trainer(model, optimizer, attack, pruner, label_smoothing=FLAGS.label_smoothing)
        checkpoints = Checkpoints(workdir, trainer, FLAGS.checkpoint_minutes)
        checkpoints.restore()
        if is_trained and checkpoints.epoch < FLAGS.epochs:
            raise UsageError(
                f"{workdir} has a trained model.keras and no checkpoint of its last epoch, from "
                "which this run would train again and write over it. Choose another --workdir."
            )

        # --- training --------------------------------------------------------------------------
        if distribution.is_chief():
            write_bytes(workdir / "flags.json", json.dumps(recipe, indent=2) + "\n")
        train(training_data, held_out, trainer, checkpoints, workdir)
        if not distribution.is_chief():
            return
        save(model, workdir / "model.keras")
    # --- evaluation: the test set is read here, once -------------------------------------------
    model = keras.saving.load_model(workdir / "model.keras", compile=False)  # on one device
    images, labels = dataset.read("test")
    few = images[:TEST_ATTACK_EXAMPLES], labels[:TEST_ATTACK_EXAMPLES]
    test_attack = attacks.pgd(model, FLAGS.eps, TEST_ATTACK_STEPS)
    print("evaluating on the test set")
    clean = accuracy(model, batches(images, labels, 500))
    robust = accuracy(model, batches(*few, 250), test_attack, FLAGS.seed)

    # --- export --------------------------------------------------------------------------------
    print("converting to int8 and verifying")
    calibration, *verification_data = conversion_images(dataset)
    int8 = convert(model, "int8", calibration)
    about = file_facts(model, {"model": architecture}, dataset, "int8", calibration)
    int8 = file_metadata.embed(int8, about)
    verification, *others = (
        verify(
            int8,
            model,
            *(array[:examples] for array in verification_data),
            precision="int8",
            runtime=runtime,
        )
        for runtime, examples in EXAMPLES.items()
        if runtime != "tflm"
    )
    failures = [failure for each in (verification, *others) for failure in each.failures]
    if not failures:
        write_bytes(workdir / "model_int8.tflite", int8)
    dense = untrained(architecture | {"pattern": None})
    dense_int8 = convert(dense, "int8", calibration)

    # --- report --------------------------------------------------------------------------------
    model_cost, dense_cost = cost.model_cost(model), cost.model_cost(dense)
    report = {
        "clean_accuracy": clean,
        "clean_examples": len(images),
        "robust_accuracy": robust,
        "robust_attack": f"PGD-{TEST_ATTACK_STEPS}, L_inf {FLAGS.eps * 255:.4g}/255",
        "robust_examples": len(few[0]),
        "int8": {
            "bytes": len(int8),
            "gzip_bytes": len(gzip.compress(int8)),
            "top1_agreement": verification.top1_agreement,
            "top1_or_tied": verification.top1_or_tied,
            "verification_examples": verification.examples,
            "passed": not failures,
        },
        "dense_int8": {"bytes": len(dense_int8), "gzip_bytes": len(gzip.compress(dense_int8))},
        "density": pruner.density if pruner else 1.0,
        "parameters": model_cost.parameters,
        "nonzero_parameters": model_cost.nonzeros,
        "macs": model_cost.macs,
        "nonzero_macs": model_cost.nonzero_macs,
        "dense_parameters": dense_cost.parameters,
        "dense_macs": dense_cost.macs,
        "epochs": FLAGS.epochs,
        "best_epoch": best_epoch(checkpoints.history),
        # Of the middle one: a machine that has other work now and then does not make it longer.
        "seconds_per_epoch": float(np.median([row["seconds"] for row in checkpoints.history])),
        "seed": FLAGS.seed,
        "dataset": FLAGS.dataset,
        "data_dir": FLAGS.data_dir,
        "image_size": FLAGS.image_size,
        "class_names": dataset.class_names,
        "model": architecture,
        "recipe": recipe,
        "hardware": hardware(),
        "versions": versions,
    }
    write_bytes(workdir / "report.json", json.dumps(report, indent=2) + "\n")
    table = closing_table(report)
    pictures = [
        (zoo.report.accuracy_picture(checkpoints.history), "Accuracy over epochs."),
        (zoo.report.density_picture(checkpoints.history), "Density of each layer over epochs."),
        (adversarial_examples(model, few, test_attack, dataset), EXAMPLES_CAPTION),
    ]
    title = f"{FLAGS.arch} on {FLAGS.dataset}"
    facts = {name: str(value) for name, value in {**recipe, **versions}.items()}
    shown = [(figure, caption) for figure, caption in pictures if figure]
    write_bytes(workdir / "report.html", zoo.report.page(title, facts, table, shown))
    print_table(table)
    if failures:
        raise UsageError(
            f"Everything but model_int8.tflite is in {workdir}: the file does not agree with "
            f"Keras. {' '.join(failures)}"
        )
    print(f"\nmodel, .tflite, history and report.html are in {workdir}")


def train(training_data, held_out, trainer, checkpoints, workdir):
    """Trains to the last epoch. Several workers all do the same, and the chief alone writes."""
    model, pruner, history = trainer.model, trainer.pruner, checkpoints.history
    is_chief = distribution.is_chief()
    tensorboard = tf.summary.create_file_writer(str(workdir / "tensorboard")) if is_chief else None
    attacked = tuple(array[:VALIDATION_ATTACK_EXAMPLES] for array in held_out)
    attack = attacks.pgd(model, FLAGS.eps, VALIDATION_ATTACK_STEPS)
    with checkpoints:  # which saves what is done before it ends the run on a signal
        for epoch in range(checkpoints.epoch, FLAGS.epochs):
            data = training_batches(
                *training_data,
                FLAGS.batch_size,
                FLAGS.seed,
                epoch,
                FLAGS.augment,
                first=trainer.batches_done,
            )
            title = f"epoch {epoch + 1}/{FLAGS.epochs}"
            means = trainer.run_epoch(data, FLAGS.seed, title, checkpoints.after_step)
            row = {"epoch": epoch + 1, **means}
            with trainer.averaged_weights():
                row["validation_clean_accuracy"] = accuracy(model, batches(*held_out, 500))
                if trainer.attack:
                    row["validation_robust_accuracy"] = accuracy(
                        model, batches(*attacked, 250), attack, FLAGS.seed
                    )
            if pruner:
                row["density"] = pruner.density
                densities = pruner.layer_densities()
                row.update({f"density/{name}": value for name, value in densities.items()})
            history.append(row)
            if is_chief:
                log_epoch(row, workdir, history, tensorboard)
                best = best_epoch(history)
                if trainer.attack and overfits_attack(history):
                    print(OVERFITTED.format(best=best))
                if best == epoch + 1:
                    with trainer.averaged_weights():
                        save(model, workdir / "best.keras")
            checkpoints.after_epoch()
    trainer.average_weights()


def hardware():
    """Returns what this machine trains on, a str."""
    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    names = collections.Counter(each.get("device_name", "GPU") for each in details)
    gpus = [f"{count} x {name}" for name, count in names.items()]
    cores = timing.cores()
    return ", ".join([*gpus, f"{cores} CPU core{'s' * (cores > 1)}", timing.processor()["cpu"]])


def build(architecture, dtype_policy):
    """Returns the network, of layers that compute in `dtype_policy`."""
    keras.config.set_dtype_policy(dtype_policy)
    try:
        return zoo.build(**architecture)
    finally:
        keras.config.set_dtype_policy("float32")


def save(model, path):
    """Saves the network, of layers that compute in float32 whatever they were trained in."""
    policies = [layer.dtype_policy for layer in model.layers]
    try:
        for layer in model.layers:
            layer.dtype_policy = "float32"
        with replacing(path) as partial:
            model.save(partial)
    finally:
        for layer, policy in zip(model.layers, policies, strict=True):
            layer.dtype_policy = policy


def synchronize(model):
    """Has BatchNormalization layers normalise by the whole batch, if the flags say so."""
    for layer in model.layers:
        if FLAGS.synchronized and isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


def check_flags():
    """Refuses flags that are out of range before anything is read or written."""
    ranges = {
        "density": (1e-9 < FLAGS.density <= 1, "in (0, 1]"),
        "eps": (0 < FLAGS.eps <= 1, "in (0, 1]"),
        "learning_rate": (0 < FLAGS.learning_rate < np.inf, "above 0 and finite"),
        "label_smoothing": (0 <= FLAGS.label_smoothing < 1, "in [0, 1)"),
        "ema_momentum": (0 <= FLAGS.ema_momentum < 1, "in [0, 1)"),
        "weight_decay": (0 <= FLAGS.weight_decay < np.inf, "at least 0 and finite"),
        "attack_steps": (FLAGS.attack_steps >= 1, "at least 1"),
        "epochs": (FLAGS.epochs >= 1, "at least 1"),
        "batch_size": (FLAGS.batch_size >= 1, "at least 1"),
        "seed": (0 <= FLAGS.seed < 2**31, "from 0 to 2147483647"),
        "checkpoint_minutes": (FLAGS.checkpoint_minutes >= 0, "at least 0"),
        "image_size": (FLAGS.image_size is None or FLAGS.image_size >= 1, "at least 1"),
        "width": (FLAGS.width is None or 1 <= FLAGS.width <= 4096, "from 1 to 4096"),
        "workdir": (bool(FLAGS.workdir), "the folder of the run"),
    }
    for name, (fits, allowed) in ranges.items():
        if not fits:
            received = FLAGS[name].value
            raise UsageError(f"--{name} must be {allowed}. Received: {received}")
    if FLAGS.pattern is not None:
        patterns.parse(FLAGS.pattern)
    for name, needed in {
        "density": ("prune", "none"),
        "structure": ("prune", "none"),
        "attack_steps": ("loss", "standard"),
        "synchronized": ("distribution", "none"),
    }.items():
        if FLAGS[name].present and FLAGS[needed[0]].value == needed[1]:
            raise UsageError(
                f"--{name} means nothing with --{needed[0]}={needed[1]}. "
                f"Received: --{name}={FLAGS[name].value}"
            )


def check_workdir(workdir, recipe):
    """Refuses a folder that holds the run of another recipe."""
    path = workdir / "flags.json"
    if not path.exists():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        before = dict(before)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"Cannot read {path}: {error}. Choose another --workdir.") from error
    # A flag that came after the run had its default.
    before = {name: before.get(name, FLAGS[name].default) for name in recipe}
    differing = [name for name in recipe if before[name] != recipe[name]]
    if differing:
        changes = ", ".join(
            f"--{name}={before[name]} there, {recipe[name]} here" for name in differing[:3]
        )
        if len(differing) > 3:
            changes += f", and {len(differing) - 3} more"
        raise UsageError(
            f"--workdir={workdir} holds a run of another recipe ({changes}). Choose another folder."
        )


def installed_versions():
    """Returns {package: version}, for the report at the end."""
    try:
        return {name: importlib.metadata.version(name) for name in VERSIONED}
    except importlib.metadata.PackageNotFoundError as error:
        raise UsageError(
            f"The package {error.name} is not installed. Run: pip install -e ."
        ) from error


def make_pruner(model, steps, steps_per_epoch):
    if FLAGS.prune == "none":
        return None
    if FLAGS.prune == "dnr":
        # The last epoch trains what the one before it has left.
        schedule = pruning.DNRSchedule(1 - FLAGS.density, steps - 1, steps_per_epoch)
    else:
        # The last change falls on a multiple of the frequency, or the density would not be reached.
        frequency = min(100, max(1, steps // 20))
        end_step = max(frequency, steps * 3 // 4 // frequency * frequency)
        schedule = PolynomialDecay(0.0, 1 - FLAGS.density, 0, end_step, frequency=frequency)
    return pruning.Pruner(model, schedule, structure=FLAGS.structure, seed=FLAGS.seed)


def log_epoch(row, workdir, history, tensorboard):
    """Prints a line, writes history.csv anew and adds to TensorBoard."""
    accuracies = {name: value for name, value in row.items() if name.endswith("accuracy")}
    shown = ", ".join(
        f"{name.removesuffix('_accuracy').replace('_', ' ')} {100 * value:.1f} %"
        for name, value in accuracies.items()
    )
    density = f"density {100 * row['density']:.2f} %, " if "density" in row else ""
    print(
        f"epoch {row['epoch']}/{FLAGS.epochs}: loss {row['loss']:.3f}, {shown}, "
        f"{density}{row['seconds']:.0f} s",
        flush=True,
    )
    with replacing(workdir / "history.csv") as partial, open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, history[0].keys())
        writer.writeheader()
        writer.writerows(history)
    try:
        with tensorboard.as_default(step=row["epoch"]):
            for name, value in row.items():
                tf.summary.scalar(name, value)
        tensorboard.flush()
    except tf.errors.OpError as error:
        raise UsageError(
            f"Cannot write to {workdir / 'tensorboard'}: {error.message}. The same command "
            "continues this run once there is space."
        ) from error


def adversarial_examples(model, data, attack, dataset, count=8):
    """Returns the picture of `count` correctly classified images and what the attack makes."""
    images, labels = as_float(data[0][:200]), data[1][:200]
    before = np.argmax(model(images, training=False), axis=-1)
    chosen = np.flatnonzero(before == labels)[:count]
    if not len(chosen):
        return None
    images, labels = tf.constant(images[chosen]), tf.constant(labels[chosen])
    adversarial = attack(images, labels, tf.constant([FLAGS.seed, 0]))
    after = np.argmax(model(adversarial, training=False), axis=-1)
    titles = [
        (dataset.class_names[label], dataset.class_names[seen])
        for label, seen in zip(labels.numpy(), after, strict=True)
    ]
    return zoo.report.adversarial_picture(images.numpy(), adversarial.numpy(), titles, FLAGS.eps)


def closing_table(report):
    """Returns the rows of the table that ends a run: this network beside the same one dense."""
    int8, dense = report["int8"], report["dense_int8"]
    clean, robust = 100 * report["clean_accuracy"], 100 * report["robust_accuracy"]
    return [
        ("", "dense", "this model", "ratio"),
        *(
            (name, f"{before:,}", f"{after:,}", f"{before / after:.2f}x")
            for name, before, after in [
                ("parameters", report["dense_parameters"], report["parameters"]),
                ("non-zero parameters", report["dense_parameters"], report["nonzero_parameters"]),
                ("MACs with stored weights", report["dense_macs"], report["macs"]),
                ("MACs with non-zero weights", report["dense_macs"], report["nonzero_macs"]),
                ("int8 .tflite, bytes*", dense["bytes"], int8["bytes"]),
                ("int8 .tflite gzipped, bytes*", dense["gzip_bytes"], int8["gzip_bytes"]),
            ]
        ),
        (f"clean accuracy, {report['clean_examples']:,} images", "", f"{clean:.2f} %", ""),
        (f"{report['robust_attack']}, {report['robust_examples']:,}", "", f"{robust:.2f} %", ""),
        ("int8 top-1 agreement with Keras", "", f"{100 * int8['top1_agreement']:.2f} %", ""),
        ("  where ties count", "", f"{100 * int8['top1_or_tied']:.2f} %", ""),
        ("* the dense file is of untrained weights", "", "", ""),
    ]


def print_table(table):
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    print()
    for first, *rest in table:
        cells = (f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True))
        print(f"{first:<{widths[0]}}  " + "  ".join(cells))


if __name__ == "__main__":
    commandline.run(main)
