"""Are the cards true? Measures again what they claim.

    python -m zoo.verify                                     # all models, on their data sets
    python -m zoo.verify resnet8_dnr10_cifar10 --autoattack  # a quarter of an hour more
    python -m zoo.verify --fast                              # without data, seconds

Prints each figure beside the card's. Fails where an accuracy is off by more than 0.05 points, or by
more than one example where few are attacked (0.1 points of 1,000 and 0.5 of 200, which the rounding
of another processor can make), or was measured in another way; or where anything else that does not
depend on the machine is off at all, or missing. Latency is shown and not judged.

--write adds what a card lacks, and changes nothing else, unless a figure of the card is off.
"""

import json
import pathlib

import keras
import numpy as np
import tensorflow as tf
from absl import flags

import zoo
from tfsparse.errors import UsageError
from tfsparse.files import write_bytes
from zoo import figures
from zoo.commands import commandline
from zoo.data import open_dataset
from zoo.robustness.intervals import wilson
from zoo.robustness.square import import_torch
from zoo.robustness.subjects import file_subject, model_subject

FLAGS = flags.FLAGS
POINTS = 0.0005  # of an accuracy, a fraction
LOGITS = 2e-3  # of float32 kernels on different processors
COSTS = (
    *("density", "dense_parameters", "parameters", "nonzero_parameters"),
    *("dense_macs", "macs", "nonzero_macs"),
)


def define_flags():
    flags.DEFINE_boolean("fast", False, "Only what needs no data set.")
    flags.DEFINE_boolean("autoattack", False, "AutoAttack, too.")
    flags.DEFINE_boolean("write", False, "Add what is missing to the cards.")
    flags.DEFINE_string("data_dir", None, "Where TFDS keeps its data.")


def main(names):
    tf.get_logger().setLevel("ERROR")  # every attack compiles a function of its own, on purpose
    for name in names:
        zoo.card(name)  # which says so where there is none
    if FLAGS.autoattack and not FLAGS.fast:
        import_torch("autoattack")  # which says so where it is not installed
    wrong = []
    for name in names or zoo.list_models():
        card, keras_model = zoo.card(name), zoo.load(name)
        data, problem = find_data(card)
        measured = measure(name, keras_model, card, data)
        rows = compare(card, measured)
        print(f"{name}\n{table(rows)}\n", flush=True)
        if ("test_sha256", "WRONG") in ((figure, verdict) for figure, *_, verdict in rows):
            note = card["note"] and f" ({card['note']})"
            problem = (
                f"The test images of {card['dataset']} here are not those that {name} was measured "
                f"on{note}. Give the --data_dir of those, or --fast."
            )
        failures = ("WRONG",) if FLAGS.write else ("WRONG", "MISSING")
        off = [f"{name}: {figure}" for figure, _, _, verdict in rows if verdict in failures]
        if problem:
            print(f"{problem}\n")
            off = off or [f"{name}: test images"]
        if FLAGS.write and not off:
            path = pathlib.Path(__file__).parent / "cards" / f"{name}.json"
            card = zoo.card(name)  # read again: another process may have added to it
            write_bytes(path, json.dumps(completed(card, measured), indent=2) + "\n")
        wrong += off
        keras.backend.clear_session()
    if wrong:
        raise UsageError(
            f"{len(wrong)} figures are not those of the cards, or not known to be: "
            f"{', '.join(wrong)}. The tables above say why; --write adds what is MISSING."
        )


def find_data(card):
    """Returns the data set of a card and None, or None and why it cannot be opened."""
    if FLAGS.fast:
        return None, None
    try:
        return open_dataset(card["dataset"], FLAGS.data_dir, card["image_size"]), None
    except UsageError as error:
        return None, f"{error} Or give --fast, which needs no data."


def measure(name, model, card, data):
    """Returns what the card says that can be measured, a dict with the card's keys.

    Args:
        data: the `zoo.data.Dataset` of the card, or None to measure what needs none.
    """
    content = zoo.load_tflite(name).read_bytes()
    measured = {**figures.costs(model, card["model"]), "golden": figures.golden(model, content)}
    if data is None:
        return measured
    measured["test_sha256"] = figures.hash_of_test_set(data)
    if card.get("test_sha256", measured["test_sha256"]) != measured["test_sha256"]:
        return measured  # accuracies on other images do not compare
    wanted = [key for key in figures.ACCURACIES if FLAGS.autoattack or key not in figures.SLOW]
    subjects = model_subject(name, model), file_subject(f"{name}.tflite", content)
    results = figures.accuracies(wanted, *subjects, data, card["recipe"]["eps"])
    device = figures.on_device(card["model"], content, data)
    return {**measured, "results": results, "device": device}


def completed(card, measured):
    """Returns the card with those of the measured figures that it lacks, at any depth."""
    merged = dict(card)
    for key, value in measured.items():
        if isinstance(value, dict):
            merged[key] = completed(card.get(key, {}), value)
        elif card.get(key) is None:  # as RAM is where TFLM was not installed
            merged[key] = value
    return merged


def compare(card, measured):
    """Returns (figure, in the card, measured, verdict) for each.

    The verdict is "ok", "WRONG", "MISSING" in the card, or "" of what is not judged.
    """
    rows = []

    def row(figure, claimed, found, good):
        if good is None:
            verdict = ""
        elif claimed is None:
            verdict = "MISSING"
        else:
            verdict = "ok" if good else "WRONG"
        rows.append((figure, claimed, found, verdict))

    for key in COSTS:
        row(key, card.get(key), measured[key], card.get(key) == measured[key])
    claimed, found = card.get("golden", {}), measured["golden"]
    row("golden logits", *_digests("logits", claimed, found), _close(claimed, found))
    row(
        "golden int8",
        *_digests("int8", claimed, found),
        claimed.get("int8") == found["int8"],
    )
    if "test_sha256" in measured:
        claimed, found = (each.get("test_sha256") for each in (card, measured))
        row("test_sha256", claimed, found, claimed == found)
    for name, result in measured.get("results", {}).items():
        claim = card.get("results", {}).get(name, {})
        good = _is_same_accuracy(claim, result)
        is_missing = good and not claim.keys() >= result.keys()
        claimed = None if is_missing else claim.get("accuracy")
        row(f"{name}, n={result['examples']:,}", claimed, result["accuracy"], good)
    if "results" in measured:
        for name, claim in card.get("results", {}).items():
            if name not in measured["results"]:  # AutoAttack and PGD on its images
                row(name, claim.get("accuracy"), "with --autoattack", None)
    for key in ("arena_bytes", "latency_ratio"):
        if "device" in measured:
            claim, value = card.get("device", {}).get(key), measured["device"][key]
            judged = key == "arena_bytes" and value is not None
            row(key, claim, value, claim == value if judged else None)
    return rows


def _is_same_accuracy(claim, result):
    """Whether nothing that a card says of an accuracy contradicts what was measured."""
    accuracy, examples = claim.get("accuracy", result["accuracy"]), result["examples"]
    is_close = abs(accuracy - result["accuracy"]) <= max(POINTS, 1 / examples) + 1e-9
    interval = wilson(round(accuracy * examples), examples)
    is_close &= np.allclose(claim.get("interval", interval), interval)
    settings = claim.keys() - {"accuracy", "interval"}
    return bool(is_close) and all(claim[key] == result.get(key) for key in settings)


def _close(claimed, found):
    if "logits" not in claimed:
        return False
    logits = np.array(claimed["logits"])
    return np.allclose(logits, found["logits"], rtol=LOGITS, atol=LOGITS * np.abs(logits).max())


def _digests(key, *golden):
    """Returns what a table shows of outputs of four images: the first image's class and score."""
    shown = []
    for each in golden:
        first = each[key][0] if key in each else None
        shown.append(first and f"class {int(np.argmax(first))}: {max(first):.4g}")
    return shown


def table(rows):
    lines = [("figure", "card", "measured", "")]
    lines += [
        (figure, _text(claim), _text(found), verdict) for figure, claim, found, verdict in rows
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _text(value):
    if value is None or isinstance(value, str):
        return value or "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


if __name__ == "__main__":
    define_flags()
    commandline.run(main, names=True)
