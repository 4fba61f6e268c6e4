"""What a training run achieved: its figures on the test set, and the summary that shows them."""

import gzip

import numpy as np
from keras.ops import convert_to_numpy as to_numpy

from tfsparse import attacks, tables
from tfsparse.evaluation import logits, predictions
from zoo.augmentation import as_float
from zoo.data import batches
from zoo.robustness import catalogue, flips

ATTACK_STEPS, ATTACK_EXAMPLES = 20, 1000
# What `evaluate` measures; another backend that continues the run does not measure it again.
MEASURED = (
    *("clean_accuracy", "clean_examples", "majority_accuracy"),
    *("robust_accuracy", "robust_attack", "robust_examples", "success_rate", "threat_model"),
)


def test_attack(model, eps):
    """Returns the attack on the test set, as `tfsparse.attacks.pgd` does."""
    return attacks.pgd(model, eps, ATTACK_STEPS)


def evaluate(clean, model, attack, images, eps, seed):
    """Measures a model on the test set.

    Args:
        clean: `(labels, predicted)` of the images, as `tfsparse.evaluation.predictions` returns.
        model: Keras model.
        attack: its `test_attack`, which is run on the first ATTACK_EXAMPLES images.
        images: uint8 [n, h, w, c].
        eps: bound of the attack.
        seed: of the attack's random starts.

    Returns:
        {name of MEASURED: value}: accuracies as fractions; "majority_accuracy" is that of always
        answering the most frequent class of `labels`; "success_rate" is the share of correctly
        classified images that the attack flips, or None if there are none.
    """
    labels, predicted = clean
    clean = labels == predicted
    few = images[:ATTACK_EXAMPLES], labels[:ATTACK_EXAMPLES]
    robust = np.equal(*predictions(model, batches(*few, 250), attack, seed))
    return {
        "clean_accuracy": float(np.mean(clean)),
        "clean_examples": len(images),
        "majority_accuracy": float(np.bincount(labels).max() / len(labels)),
        "robust_accuracy": float(np.mean(robust)),
        "robust_attack": f"PGD-{ATTACK_STEPS}, L_inf {eps * 255:.4g}/255",
        "robust_examples": len(robust),
        "success_rate": flips.success_rate(clean[: len(robust)], robust),
        "threat_model": {
            "norm": "L_inf",
            "eps": eps,
            "steps": ATTACK_STEPS,
            "step_size": attacks.default_step_size(eps, ATTACK_STEPS),
            "restarts": 1,
            "random_start": True,
            "loss": "cross_entropy",
            "examples": len(robust),
        },
    }


def find_flips(model, attack, images, labels, seed):
    """Returns the `zoo.robustness.flips.Flips` of test images, or None; arguments as above."""
    few = as_float(images[:ATTACK_EXAMPLES]), labels[:ATTACK_EXAMPLES]
    attack = catalogue.of_arrays(attack)
    return flips.find_flips(lambda x: to_numpy(logits(model, x)), attack, *few, seed)


def int8_facts(conversion, dense_content):
    """Returns what report.json says about the int8 file and that of the dense network, a dict."""
    verification, content = conversion.verifications[0], conversion.content
    return {
        "int8": {
            "bytes": len(content),
            "gzip_bytes": len(gzip.compress(content)),
            "top1_agreement": verification.top1_agreement,
            "top1_or_tied": verification.top1_or_tied,
            "verification_examples": verification.examples,
            "passed": not conversion.failures,
        },
        "dense_int8": {
            "bytes": len(dense_content),
            "gzip_bytes": len(gzip.compress(dense_content)),
        },
    }


# ---- the summary ----


def summary(report):
    """Returns the table that ends a run and what it leaves open, a str of lines."""
    return "\n".join([tables.aligned(rows(report)), *(f"* {note}" for note in notes(report))])


def rows(report):
    """Returns the rows of the table, lists of str: this network beside the dense one."""
    sizes = [
        ("parameters", report["dense_parameters"], report["parameters"]),
        ("non-zero parameters", report["dense_parameters"], report["nonzero_parameters"]),
        ("MACs", report["dense_macs"], report["macs"]),
        ("non-zero MACs", report["dense_macs"], report["nonzero_macs"]),
    ]
    if "int8" in report:
        int8, dense = report["int8"], report["dense_int8"]
        sizes += [
            ("int8 .tflite, bytes*", dense["bytes"], int8["bytes"]),
            ("int8 .tflite gzipped, bytes*", dense["gzip_bytes"], int8["gzip_bytes"]),
        ]
    baseline = report.get("dense_baseline") or {}
    star = "*" if baseline else ""
    clean, robust = (percent(baseline.get(f"{name}_accuracy")) for name in ("clean", "robust"))
    return [
        ("", "dense", "this model", "ratio"),
        *(
            (name, f"{before:,}", f"{after:,}", f"{before / after:.2f}x")
            for name, before, after in sizes
        ),
        (
            f"clean accuracy, {report['clean_examples']:,} images{star}",
            clean,
            percent(report["clean_accuracy"]),
            "",
        ),
        ("  always the most frequent class", "", percent(report["majority_accuracy"]), ""),
        (
            f"{report['robust_attack']}, {report['robust_examples']:,} images{star}",
            robust,
            percent(report["robust_accuracy"]),
            "",
        ),
        ("  success rate of the attack", "", percent(report["success_rate"]), ""),
    ]


def notes(report):
    """Returns what the table's stars stand for, a list of str."""
    found = []
    if "int8" in report:
        found.append("the dense file has untrained weights")
    if baseline := report.get("dense_baseline"):
        note = f" ({baseline['note']})" if baseline["note"] else ""
        found.append(f"accuracy of the zoo's {baseline['name']}{note}, {baseline['robust_attack']}")
    return found


def percent(share):
    """Returns a fraction in percent, a str; "" for None."""
    return "" if share is None else f"{100 * share:.2f} %"
