"""Trains a sparse, robust CNN from a flag file and converts it to a verified .tflite file.

    tfsparse train --flagfile=quickstart
    python train.py --flagfile=zoo/recipes/quickstart.cfg  # the same, in a checkout

Running the same command again continues the run. Afterwards --workdir holds model.keras, best.keras
(from the epoch with the best validation accuracy: robust accuracy if the loss is hybrid),
model_int8.tflite, history.csv, report.json, report.html, summary.txt, checkpoint.safetensors,
flags.json, data.json (the names of the classes), and tensorboard/.
"""

import json
import pathlib
import sys

from absl import flags

from zoo import finished
from zoo.commands import commandline
from zoo.commands.commandline import define_fraction

# What needs TensorFlow is imported in the functions that use it: --help answers at once.
ARCHITECTURES = ("mobilenet_v2", "resnet14", "resnet18", "resnet8", "shufflenet", "vgg16")
ALGORITHMS = ("none", "dnr", "magnitude", "global_magnitude", "erk_magnitude", "set", "rigl")
STRUCTURES = ("unstructured", "channel")
BUDGETS = ("weights", "macs")
ATTACKS = ("pgd", "nfgsm")
ACTIONS = ("restore", "stop", "continue")
DTYPE_POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")
SCHEDULES = ("one_cycle", "cosine", "piecewise")
STRATEGIES = ("none", "mirrored", "multi_worker")
FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Folder of the run; continues a run that is there.")
flags.DEFINE_string("dataset", "fashion_mnist_small", "TFDS name, folder of images, or .npz file.")
flags.DEFINE_string("data_dir", None, "Folder of TFDS's data; by default TFDS's own.")
flags.DEFINE_integer("image_size", None, "Height and width to which images are resized.")
define_fraction("validation_fraction", None, "Of a folder or .npz file's images; by default 0.1.")
flags.DEFINE_boolean("augment", True, "Random crops (padding 4) and horizontal flips.")
flags.DEFINE_enum("arch", "resnet8", ARCHITECTURES, "Network architecture.")
flags.DEFINE_integer("width", None, "Channels of the first stage; by default the published width.")
flags.DEFINE_string("pattern", None, "Periodic pattern of spatial convolutions, such as PSD2_P8.")
flags.DEFINE_enum("prune", "none", ALGORITHMS, "Pruning during training.")
flags.DEFINE_enum("structure", "unstructured", STRUCTURES, "What is pruned together.")
define_fraction("density", 0.1, "Fraction of the prunable budget that remains, (0, 1].")
flags.DEFINE_enum("budget", "weights", BUDGETS, "What density is of: weights, or MACs.")
flags.DEFINE_enum("loss", "standard", ["standard", "hybrid"], "hybrid: clean and adversarial.")
define_fraction("beta", 0.5, "Weight of the clean images in the hybrid loss, [0, 1).")
define_fraction("eps", 8 / 255, "L_inf bound of all attacks; images are in [0, 1].")
flags.DEFINE_enum("attack", "pgd", ATTACKS, "In training; nfgsm: one step from larger noise.")
flags.DEFINE_integer("attack_steps", 1, "PGD steps of the training attack, from a random start.")
flags.DEFINE_enum("on_overfitting", "restore", ACTIONS, "restore: go back, one more attack step.")
flags.DEFINE_integer("epochs", 10, "Training epochs.")
flags.DEFINE_integer("batch_size", 128, "Images per training step.")
define_fraction("learning_rate", 0.1, "Its peak.")
flags.DEFINE_enum("schedule", "one_cycle", SCHEDULES, "Learning rate schedule.")
define_fraction("label_smoothing", 0, "Share of a label that is spread over all classes.")
flags.DEFINE_list("teacher", [], "Models to learn from: zoo names, .keras files, runs' folders.")
define_fraction("temperature", 4, "By which the logits of teacher and student are divided.")
define_fraction("teacher_weight", 0.9, "Share of the teacher's soft labels in the loss, (0, 1].")
define_fraction("ema_momentum", 0, "Momentum of the moving average of the weights; 0 for none.")
define_fraction("weight_decay", 5e-3, "Decoupled, times the learning rate at each step.")
flags.DEFINE_integer("seed", 0, "Fixes initial weights, masks, data order, and attacks.")
flags.DEFINE_enum("distribution", "none", STRATEGIES, "All GPUs, or several machines.")
flags.DEFINE_enum("dtype_policy", "float32", DTYPE_POLICIES, "Keras' dtype policy.")
flags.DEFINE_boolean("synchronized", False, "Synchronize BatchNorm statistics over replicas.")
flags.DEFINE_boolean("deterministic", False, "The same bits in each run on one machine; slower.")
define_fraction("checkpoint_minutes", 10, "Between checkpoints, besides one after each epoch.")

# Robust accuracy during training is a guide only; the test set's is reported.
VALIDATION_ATTACK_STEPS, VALIDATION_ATTACK_EXAMPLES = 5, 500
# Where a run reads and writes does not make it another run, and what has stopped may continue.
NOT_RECIPE = ("workdir", "data_dir", "checkpoint_minutes", "deterministic", "distribution")
NOT_RECIPE += ("on_overfitting",)
VERSIONED = {
    "tensorflow": ("tfsparse", "keras", "tensorflow", "ai-edge-litert", "numpy"),
    "jax": ("tfsparse", "keras", "jax", "numpy"),
}


def main():
    """The whole run, from top to bottom."""
    import keras
    import numpy as np

    from tfsparse import backend, distribution, machine
    from tfsparse.cost import model_cost
    from tfsparse.epochs import best_epoch
    from tfsparse.errors import UsageError
    from tfsparse.evaluation import predictions
    from tfsparse.files import sha256_of, write_bytes
    from tfsparse.hashing import hash_of_weights
    from zoo import banner, outcome, runs, train_flags
    from zoo.architectures import untrained
    from zoo.architectures.costs import costs
    from zoo.data import batches, open_dataset, resident
    from zoo.loading import conversion_images
    from zoo.models import dense_baseline, folder_of_own_models
    from zoo.teachers import check_teacher

    # --- flags ---------------------------------------------------------------------------------
    train_flags.check(FLAGS)
    folder_of_own_models()  # raises its error now, not when the report needs the zoo
    workdir = pathlib.Path(FLAGS.workdir)
    recipe, defaults = recipe_flags()
    runs.check_recipe(workdir, recipe, defaults)
    versions = machine.versions(VERSIONED[backend.NAME])
    if FLAGS.deterministic:
        backend.make_deterministic()

    # A cluster whose workers are done cannot start again: then the chief finishes by itself.
    is_trained = (workdir / "model.keras").exists()
    is_multi_worker = FLAGS.distribution == "multi_worker"
    if is_trained and is_multi_worker and not distribution.is_chief_of_cluster():
        return
    with distribution.scope("none" if is_trained else FLAGS.distribution):
        # --- data ------------------------------------------------------------------------------
        dataset = open_dataset(
            FLAGS.dataset, FLAGS.data_dir, FLAGS.image_size, FLAGS.validation_fraction
        )
        steps_per_epoch = dataset.sizes["train"] // FLAGS.batch_size
        train_flags.check_batch_size(FLAGS, dataset.sizes["train"], backend.replicas())
        steps = steps_per_epoch * FLAGS.epochs
        data_facts = runs.check_data(workdir, dataset)
        if is_finished():
            return
        training_data, held_out = (
            resident(*dataset.read(part)) for part in ("train", "validation")
        )

        architecture = {
            "arch": FLAGS.arch,
            "input_shape": dataset.image_shape,
            "num_classes": dataset.num_classes,
            "width": FLAGS.width,
            "pattern": FLAGS.pattern,
        }

        # --- training --------------------------------------------------------------------------
        is_done = None
        while not is_done:  # again if it goes back to an epoch before it overfitted
            trainer, checkpoints = set_up(workdir, architecture, steps, steps_per_epoch, is_trained)
            if is_trained and checkpoints.epoch < FLAGS.epochs:
                raise UsageError(
                    f"{workdir} has a trained model.keras but no checkpoint of its last epoch. "
                    "This run would train again and overwrite it. Choose another --workdir."
                )
            taught = check_teacher(trainer.teacher, *held_out) if trainer.teacher else None
            if distribution.is_chief() and is_done is None:
                write_bytes(workdir / "flags.json", json.dumps(recipe, indent=2) + "\n")
                write_bytes(workdir / "data.json", json.dumps(data_facts, indent=2) + "\n")
                about = recipe, machine.hardware(), versions, dataset, model_cost(trainer.model)
                about += checkpoints.epoch, taught, machine.has_slow_bfloat16()
                if not is_trained:
                    print(f"{banner.banner(*about)}\n", flush=True)
            is_done = train(training_data, held_out, trainer, checkpoints, workdir)
        if not distribution.is_chief():
            return
        runs.save_model(trainer.model, workdir / "model.keras")
    # --- evaluation: the test set is read here, once -------------------------------------------
    backend.use_full_precision()  # so that figures are the same on every device
    model = keras.saving.load_model(workdir / "model.keras", compile=False)  # on one device
    sha256 = hash_of_weights(model)
    known = runs.read_evaluation(workdir, sha256)  # under another backend
    images, labels = dataset.read("test")
    attack = outcome.test_attack(model, FLAGS.eps)
    print("\nevaluating on the test set", flush=True)
    clean = predictions(model, batches(images, labels, 500))
    evaluation = {name: known[name] for name in outcome.MEASURED if known}
    if not known:
        evaluation = outcome.evaluate(clean, model, attack, images, FLAGS.eps, FLAGS.seed)
    if checkpoints.recoveries:
        recipe["recoveries"] = checkpoints.recoveries
    facts = {
        **costs(model, architecture),
        "dense_baseline": dense_baseline(architecture, dataset.name, FLAGS.loss),
        "epochs": FLAGS.epochs,
        "best_epoch": best_epoch(checkpoints.history),
        # The median: a machine that has other work now and then does not make it longer.
        "seconds_per_epoch": float(np.median([row["seconds"] for row in checkpoints.history])),
        "seed": FLAGS.seed,
        "dataset": FLAGS.dataset,
        "data_dir": FLAGS.data_dir,
        "image_size": FLAGS.image_size,
        "class_names": dataset.class_names,
        "model": architecture,
        "recipe": recipe,
        "hardware": known.get("hardware") or machine.hardware(),
        "versions": {**versions, **known.get("versions", {})},
    }
    if backend.NAME != "tensorflow":  # which converts
        facts["weights_sha256"] = sha256
        command = [sys.executable, __file__, *sys.argv[1:]]
        return runs.finish(workdir, {**evaluation, **facts}, command)

    # --- export --------------------------------------------------------------------------------
    from tflite.conversion import convert_and_verify, make_file, results

    print("converting to int8 and verifying", flush=True)
    for_conversion = conversion_images(dataset)
    conversion = convert_and_verify(model, "int8", for_conversion)
    if not conversion.failures:
        write_bytes(workdir / "model_int8.tflite", conversion.content)
    dense_int8 = make_file(untrained({**architecture, "pattern": None}), "int8", for_conversion)

    # --- report --------------------------------------------------------------------------------
    report = {**evaluation, **outcome.int8_facts(conversion, dense_int8), **facts}
    report["model_sha256"] = sha256_of(workdir / "model.keras")
    flips = outcome.find_flips(model, attack, images, labels, FLAGS.seed)
    shown = results(conversion.verifications[0]), clean, flips
    print(f"\n{runs.write_report(workdir, report, checkpoints.history, *shown)}")
    print(runs.written(workdir))
    if conversion.failures:
        raise UsageError(
            f"Everything but model_int8.tflite is in {workdir}: the file does not agree with "
            f"Keras. {' '.join(conversion.failures)}"
        )


def recipe_flags():
    """Returns {flag: value} of what makes this run another one than others, and {flag: default}."""
    own = FLAGS.get_key_flags_for_module(sys.modules[__name__])
    recipe = {flag.name: flag.value for flag in own if flag.name not in NOT_RECIPE}
    return recipe, {flag.name: flag.default for flag in own}


def is_finished():
    """Returns whether the run in --workdir is finished, and then prints its summary."""
    workdir = pathlib.Path(FLAGS.workdir or "")
    summary = finished.summary(workdir, *recipe_flags())
    if summary:
        print(f"The run in {workdir} is finished; another one needs another --workdir.\n")
        print(summary, end="")
    return bool(summary)


def is_finished_at_once():
    """The same before TensorFlow is imported; images of one's own may have changed since then."""
    return not pathlib.Path(FLAGS.dataset).expanduser().exists() and is_finished()


def set_up(workdir, architecture, steps, steps_per_epoch, is_trained):
    """Returns the `Trainer` and `Checkpoints` of the run, at the state of its newest checkpoint."""
    import keras

    from tfsparse.checkpoints import Checkpoints
    from tfsparse.optimizers import sgd
    from tfsparse.training import Trainer
    from zoo.architectures import build_for_training
    from zoo.overfitting import training_attack
    from zoo.teachers import find_teacher

    keras.utils.set_random_seed(FLAGS.seed)  # fixes the initial weights
    model = build_for_training(architecture, FLAGS.dtype_policy, FLAGS.synchronized)
    pruner = make_pruner(model, steps, steps_per_epoch)
    optimizer = sgd(
        steps, FLAGS.learning_rate, FLAGS.weight_decay, FLAGS.schedule, FLAGS.ema_momentum
    )
    if FLAGS.dtype_policy == "mixed_float16":  # in which small gradients would be 0
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    kind = FLAGS.attack, FLAGS.attack_steps, FLAGS.eps
    attack = training_attack(model, *kind) if FLAGS.loss == "hybrid" else None
    teacher = None  # a run that is trained needs it no longer
    if not is_trained:
        settings = FLAGS.temperature, FLAGS.teacher_weight, FLAGS.dtype_policy
        teacher = find_teacher(FLAGS.teacher, *settings)
    weights = FLAGS.beta, FLAGS.label_smoothing
    trainer = Trainer(model, optimizer, attack, pruner, *weights, teacher)
    checkpoints = Checkpoints(workdir, trainer, FLAGS.checkpoint_minutes)
    checkpoints.restore(unchecked=("teacher",) if is_trained else ())
    if checkpoints.recoveries:
        trainer.attack = training_attack(model, *kind, checkpoints.recoveries)
    return trainer, checkpoints


def train(training_data, held_out, trainer, checkpoints, workdir):
    """Trains to the last epoch. Several workers all do the same; only the chief writes.

    Returns:
        Whether it is done. If not, it went back to an epoch before it overfitted to its attack, and
        the run must be set up again.
    """
    from tfsparse import attacks, distribution
    from tfsparse.epochs import best_epoch, overfits_attack
    from tfsparse.evaluation import accuracy
    from tfsparse.examples import highest_chance
    from zoo import runs
    from zoo.data import batches, training_batches
    from zoo.log import Log
    from zoo.overfitting import respond

    model, pruner, history = trainer.model, trainer.pruner, checkpoints.history
    log = Log(workdir, FLAGS.epochs, history) if distribution.is_chief() else None
    attacked = tuple(array[:VALIDATION_ATTACK_EXAMPLES] for array in held_out)
    attack = attacks.pgd(model, FLAGS.eps, VALIDATION_ATTACK_STEPS)
    chance = highest_chance(attacked[1], model.output_shape[-1])
    with checkpoints:  # on a signal, it saves what is done and ends the run
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
            steps_after = (FLAGS.epochs - epoch - 1) * (len(training_data[0]) // FLAGS.batch_size)
            means = trainer.run_epoch(
                data, FLAGS.seed, title, checkpoints.after_step, steps_after=steps_after
            )
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
            if log:
                log.write(history)
            if overfits := bool(trainer.attack) and overfits_attack(history, chance):
                steps = FLAGS.attack_steps + len(checkpoints.recoveries)
                line, goes_on = respond(FLAGS.on_overfitting, checkpoints, steps)
                if log:
                    print(f"warning: {line}", flush=True)
                if not goes_on:
                    return False
            if log and best_epoch(history) == epoch + 1:
                with trainer.averaged_weights():
                    runs.save_model(model, workdir / "best.keras")
            checkpoints.after_epoch(is_sound=bool(trainer.attack) and not overfits)
    trainer.average_weights()
    return True


def make_pruner(model, steps, steps_per_epoch):
    from tfsparse import pruning

    if FLAGS.prune == "none":
        return None
    algorithm = pruning.ALGORITHMS[FLAGS.prune]()
    schedule = pruning.default_schedule(algorithm, FLAGS.density, steps, steps_per_epoch)
    return pruning.Pruner(
        model,
        schedule,
        structure=FLAGS.structure,
        algorithm=algorithm,
        seed=FLAGS.seed,
        budget=FLAGS.budget,
    )


if __name__ == "__main__":
    commandline.run(sys.modules[__name__])
