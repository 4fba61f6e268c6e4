"""Measures the figures on a model's card again and compares them."""

import json

import keras
import numpy as np

import zoo
from tfsparse.errors import UsageError
from tfsparse.files import write_bytes
from tfsparse.tables import aligned
from zoo import adversarial_examples, figures, models
from zoo.architectures.costs import costs
from zoo.cards import gap_warning, threat_model
from zoo.data import open_dataset
from zoo.robustness.subjects import file_subject, model_subject

LOGITS = 2e-3  # of float32 kernels on different processors
COSTS = (
    *("density", "dense_parameters", "parameters", "nonzero_parameters"),
    *("dense_macs", "macs", "nonzero_macs"),
)


def verify(name, data_dir=None, fast=False, autoattack=False, write=False):
    """Compares the card of model `name` with what is measured here.

    Args:
        name: of a zoo model.
        data_dir: where tensorflow-datasets keeps its data, or None.
        fast: measure only what needs no data set.
        autoattack: also measure what takes half an hour each.
        write: add what the card lacks to it, unless one of its figures is wrong. AutoAttack on
            fewer images than it is run on today counts as lacking.

    Returns:
        `(text, wrong)`: the table of all figures, a str of lines, and a list of those that are not
        confirmed, with the difference of an accuracy.
    """
    card, model = zoo.card(name), zoo.load(name)
    data, problem = None, None
    if not fast:
        try:
            data = open_dataset(card["dataset"], data_dir, card["image_size"])
        except UsageError as error:
            problem = f"{error} Or give --fast, which needs no data."
    if autoattack and write:
        card = without_small_autoattack(card)
    measured = measure(name, model, card, data, autoattack)
    keras.backend.clear_session()
    rows = compare(card, measured)
    if any(row[0] == "test_sha256" and row[-1] == "WRONG" for row in rows):
        note = card["note"] and f" ({card['note']})"
        problem = (
            f"The test images of {card['dataset']} here are not those that {name} was measured "
            f"on{note}. Give the --data_dir of those, or --fast."
        )
    failures = ("WRONG",) if write else ("WRONG", "MISSING")
    wrong = [_named(*row[:3]) for row in rows if row[-1] in failures]
    wrong = wrong or (["test images"] if problem else [])
    if write and not wrong:
        card = zoo.card(name)  # read again: another process may have added to it
        if autoattack:
            card = without_small_autoattack(card)
        card = {**completed(card, measured), **_examples(card, model, data_dir)}
        write_bytes(models.path_of_card(name), json.dumps(card, indent=2) + "\n")
    warning = gap_warning({**card["results"], **measured.get("results", {})})
    notes = [problem, warning and f"warning: {warning}"]
    return "\n".join([name, table(rows), *filter(None, notes)]), wrong


def without_small_autoattack(card):
    """Returns the card without an AutoAttack on fewer images than it is run on today."""
    results = card["results"]
    wanted = min(figures.ACCURACIES["autoattack"][2], results["clean"]["examples"])
    if results.get("autoattack", {"examples": wanted})["examples"] >= wanted:
        return card
    removed = ("autoattack", *figures.OLDER)
    return {**card, "results": {k: v for k, v in results.items() if k not in removed}}


def _examples(card, model, data_dir):
    """Makes a model's adversarial examples; returns the entry of its card.

    Returns {} if it has some, or if the images that it was measured on are not here.
    """
    if "examples" in card:
        return {}
    try:
        data = open_dataset(card["dataset"], data_dir, card["image_size"])
    except UsageError:
        return {}
    name, sha256 = card["name"], figures.hash_of_test_set(data)
    if sha256 != card["test_sha256"]:
        return {}
    made = adversarial_examples.make(model, zoo.load_tflite(name).read_bytes(), data)
    return {"examples": adversarial_examples.write(made, name, sha256, models.folder_of(name))}


def measure(name, model, card, data, autoattack=False):
    """Returns what the card says that can be measured, a dict with the card's keys.

    Args:
        name: of the zoo model.
        model: its keras.Model.
        card: its card.
        data: the `zoo.data.Dataset` of the card, or None to measure only what needs no data.
        autoattack: whether to measure `zoo.figures.SLOW`, too.
    """
    content = zoo.load_tflite(name).read_bytes()
    examples = adversarial_examples.read(name)
    few = 1 if data is None else None
    measured = {
        **costs(model, card["model"]),
        "threat_model": threat_model(card["recipe"]),
        "golden": figures.golden(model, content),
        "baseline": figures.baseline(card),
        "c_package": figures.as_c(content, card.get("c_package") if data is None else None),
        "examples": examples and adversarial_examples.confirms(examples, content, few),
    }
    if data is None:
        return measured
    measured["test_sha256"] = figures.hash_of_test_set(data)
    if card.get("test_sha256", measured["test_sha256"]) != measured["test_sha256"]:
        return measured  # accuracies on other images do not compare
    measured["provenance"] = figures.provenance(model, content, data)
    counts = {key: found["examples"] for key, found in card["results"].items()}
    wanted = [key for key in figures.ACCURACIES if autoattack or key not in figures.SLOW]
    wanted = [key for key in wanted if key in counts or key not in figures.OLDER]
    subjects = model_subject(name, model), file_subject(f"{name}.tflite", content)
    results = figures.accuracies(wanted, *subjects, data, card["recipe"]["eps"], counts)
    device = figures.on_device(card["model"], content, data)
    return {**measured, "results": results, "device": device}


def completed(card, measured):
    """Returns the card with the measured figures that it lacks, at any depth.

    Those of another C than the one that is generated now count as lacking, and so do those of the
    dense baseline where its own card has others now.
    """
    known = dict(card)
    if known.get("baseline"):
        known["baseline"] = _current(card, measured)
    code = measured.get("c_package")
    if code and not figures.is_same_code(card.get("c_package"), code):
        known["c_package"] = None
    # Files have the others.
    numbers = {key: measured[key] for key in measured if key not in ("provenance", "examples")}
    return _filled(known, numbers)


def _current(card, measured):
    """Returns what a card says of its dense baseline and that one's card confirms."""
    found = measured.get("baseline") or {}
    claimed = card.get("baseline") or {}
    # AutoAttack may not be measured.
    return {key: said for key, said in claimed.items() if found.get(key) in (None, said)} or None


def _filled(card, measured):
    filled = dict(card)
    for key, value in measured.items():
        if isinstance(value, dict):
            filled[key] = _filled(card.get(key) or {}, value)
        elif card.get(key) is None:  # as RAM is if TFLM was not installed
            filled[key] = value
    return filled


def compare(card, measured):
    """Returns rows (figure, on the card, measured, verdict).

    The verdict is "ok", "WRONG", "MISSING" from the card, or "" if the figure is not judged.
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
    if "threat_model" in measured:
        claimed, found = card.get("threat_model"), measured["threat_model"]
        row("threat model", claimed and "stated", "as trained", claimed == found)
    claimed, found = card.get("golden", {}), measured["golden"]
    row("golden logits", *_first("logits", claimed, found), _close(claimed, found))
    is_same = claimed.get("int8") == found["int8"]
    row("golden int8", *_first("int8", claimed, found), is_same)
    baseline = _current(card, measured) or {}
    for key, found in (measured.get("baseline") or {}).items():
        if found is not None:
            row(f"baseline: {key}", baseline.get(key), found, True)
    spent = measured.get("c_package") or {}
    claims = card["c_package"] if figures.is_same_code(card.get("c_package"), spent) else {}
    for key in ("instructions", "flash_bytes", "ram_bytes") if spent else ():
        row(f"as C: {key}", claims.get(key), spent[key], claims.get(key) == spent[key])
    if "examples" in measured:
        stored, good = "examples" in card and "stored", measured["examples"]
        row("adversarial examples", stored or None, "confirmed" if good else "-", bool(good))
    if "provenance" in measured:
        found = measured["provenance"]
        for key, (said, is_so) in (found or {}).items():
            row(f"provenance {key}", said[:12], is_so[:12], said == is_so)
        if not found:
            row("provenance", "made by other versions", None, None)
    if "test_sha256" in measured:
        claimed, found = (each.get("test_sha256") for each in (card, measured))
        row("test_sha256", claimed, found, claimed == found)
    for name, result in measured.get("results", {}).items():
        claim = card.get("results", {}).get(name, {})
        good = figures.is_same_accuracy(claim, result)
        is_missing = good and not claim.keys() >= result.keys()
        claimed = None if is_missing else claim.get("accuracy")
        row(f"{name}, n={result['examples']:,}", claimed, result["accuracy"], good)
    if "results" in measured:
        for name, claim in card.get("results", {}).items():
            if name not in measured["results"]:  # AutoAttack
                row(name, claim.get("accuracy"), "with --autoattack", None)
    for key in ("arena_bytes", "latency_ratio"):
        if "device" in measured:
            claim, value = card.get("device", {}).get(key), measured["device"][key]
            judged = key == "arena_bytes" and value is not None
            row(key, claim, value, claim == value if judged else None)
    return rows


def _named(figure, claimed, found):
    """Returns the name of a figure and, of an accuracy, by how much the measured one differs."""
    is_accuracy = isinstance(claimed, float) and isinstance(found, float)
    return f"{figure} ({found - claimed:+.4f})" if is_accuracy else figure


def _close(claimed, found):
    if "logits" not in claimed:
        return False
    logits = np.array(claimed["logits"])
    return np.allclose(logits, found["logits"], rtol=LOGITS, atol=LOGITS * np.abs(logits).max())


def _first(key, *golden):
    """Returns what a table shows of outputs: the first image's class and score."""
    first = [each[key][0] if key in each else None for each in golden]
    return [each and f"class {int(np.argmax(each))}: {max(each):.4g}" for each in first]


def table(rows):
    """Returns what `compare` returned as an aligned table, a str of lines."""
    cells = [["figure", "card", "measured", ""]]
    cells += [
        [figure, _text(claim), _text(found), verdict] for figure, claim, found, verdict in rows
    ]
    return aligned(cells, left=4)


def _text(value):
    if value is None or isinstance(value, str):
        return value or "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
