"""Cards: JSON objects that say how a model was made and how well it does."""

import json
import pathlib
import re
import textwrap
from typing import Any

from tfsparse.errors import UsageError
from tfsparse.tables import aligned

NAME = r"\w[\w.-]*"  # of a model, and of a file beside its card
RESTORE = "Install the package again, or restore the file if it is one of your own models."
MAX_BYTES = 1 << 20  # of a card; those of this package have some thousand
MAX_SIZE = 1 << 16  # of an image's side, a width, and a number of classes
# What reading a model needs, and of which types it is.
_MODEL = {
    "arch": str,
    "input_shape": list,
    "num_classes": int,
    "width": (int, type(None)),
    "pattern": (str, dict, type(None)),
}
_FILE = {"file": str, "bytes": int, "sha256": str}
_FIELDS = {
    **{"name": str, "note": str, "dataset": str, "image_size": (int, type(None))},
    **{"class_names": list, "recipe": dict, "results": dict},
}
MAX_GAP = 6.0  # points by which PGD may exceed AutoAttack before it misleads
# The results of a card, on its page.
_ATTACKS = {
    "clean": "clean",
    "int8": "int8 file, clean",
    "pgd": "PGD-{steps} x {restarts}",
    "pgd_200": "PGD-{steps} x {restarts}",
    "autoattack": "AutoAttack",
}


# Attacks on the int8 file itself.
_ON_FILE = {
    "clean": "clean",
    "transfer": "transfer",
    "pgd": "PGD",
    "diva": "DIVA",
    "square": "Square",
}


class Card(dict[str, Any]):
    """A card: a dict that prints as a page of at most 100 columns."""

    def __str__(self) -> str:
        purpose = textwrap.wrap(self.get("purpose", ""), 100)
        return "\n".join(
            [self["name"], *purpose, "", aligned(_lines(self), left=2), "", _prose(self)]
        )


def _lines(card):
    """Returns the rows of a card's page, [what, figure]."""
    model, recipe = card["model"], card["recipe"]
    height, width, channels = model["input_shape"]
    note = f" ({card['note']})" if card["note"] else ""
    pattern = f", {model['pattern']}" if model["pattern"] else ""
    pruned = f"{recipe['prune']}, {recipe['structure']}" if recipe["prune"] != "none" else "none"
    rows = [
        ["network", f"{model['arch']}, width {model['width'] or 'as published'}{pattern}"],
        ["pruning", pruned],
        ["data", f"{card['dataset']}{note}"],
        ["images", f"{height} x {width} x {channels}, {model['num_classes']} classes"],
        ["training", f"{recipe['loss']} loss, {card['epochs']} epochs"],
        *(["teacher", name] for name in recipe.get("teacher", [])),
        ["threat model", threat_model(recipe)],
        [
            "weights",
            f"{card['nonzero_parameters']:,} non-zero of {card['dense_parameters']:,} dense",
        ],
        ["MACs", f"{card['nonzero_macs']:,} non-zero of {card['dense_macs']:,} dense"],
        ["int8 file", f"{card['tflite']['bytes']:,} bytes"],
        ["RAM in TFLM", f"{card['device']['arena_bytes'] or 0:,} bytes"],
        *_as_c(card.get("c_package")),
    ]
    for name, found in card["results"].items():
        low, high = found["interval"]
        settings = _ATTACKS[name].format(**found)
        images = f"n={found['examples']:,}, 95 % interval {low:.1%} to {high:.1%}"
        rows.append([f"accuracy, {settings}", f"{found['accuracy']:.2%}  ({images})"])
    if warning := gap_warning(card["results"]):
        rows.append(["warning", warning])
    return rows + deployed(card) + spread(card) + _baseline(card.get("baseline"))


def _as_c(spent):
    if not spent:
        return []
    flash, ram = (f"{spent[key] / 1000:,.1f} kB" for key in ("flash_bytes", "ram_bytes"))
    instructions = f"{spent['instructions'] / 1e6:.1f} M instructions (Cortex-M4)"
    return [["as C", f"{flash} of flash, {ram} of RAM, {instructions}"]]


def _baseline(dense):
    if not dense:
        return []
    known = [f"clean {dense['clean']:.2%}"]
    if dense["autoattack"] is not None:
        known += [f"AutoAttack {dense['autoattack']:.2%} (n={dense['autoattack_examples']:,})"]
    return [["dense baseline", dense["model"]], ["its accuracy", ", ".join(known)]]


def gap_warning(results):
    """Returns a warning if PGD says much more robust than AutoAttack, a str; "" if not.

    PGD then fails where other attacks do not, as it does if gradients are masked.

    Args:
        results: {name: a dict with "accuracy", a fraction, and "examples"} as on a card, or in a
            report of `zoo.robustness.evaluation`. AutoAttack and PGD compare if both were run on
            the same number of images, which are the first ones of the test set.
    """
    weaker = pgd_beside_autoattack(results)
    if weaker:
        points = 100 * (weaker["accuracy"] - results["autoattack"]["accuracy"])
        if points > MAX_GAP + 1e-9:
            return f"PGD {points:.1f} points above AutoAttack, more than {MAX_GAP:g}"
    return ""


def pgd_beside_autoattack(results):
    """Returns the result of PGD on as many images as AutoAttack's, or None; see `gap_warning`."""
    attacked = results.get("autoattack")
    for name in ("pgd", "pgd_200"):
        weaker = results.get(name)
        if attacked and weaker and weaker["examples"] == attacked["examples"]:
            return weaker
    return None


def deployed(card):
    """Returns what is known of a card's int8 file under attack: rows of [what, figures]."""
    found = card.get("deployed")
    if not found:
        return []
    worst = found[found["worst"]]
    low, high = worst["interval"]
    images = f"n={found['examples']:,}, 95 % interval {low:.1%} to {high:.1%}"
    each = [
        f"{title} {found[name]['accuracy']:.1%}"
        for name, title in _ON_FILE.items()
        if name in found
    ]
    return [
        ["int8 file, worst attack", f"{worst['accuracy']:.2%}  ({images})"],
        ["int8 file, each attack", ", ".join(each)],
    ]


def spread(card):
    """Returns what is known of other seeds of a card's recipe: rows of [what, figures]."""
    found = card.get("seeds")
    if not found:
        return []
    each = [
        f"{title} {100 * found[name]['mean']:.1f} ± {100 * found[name]['standard_deviation']:.1f}%"
        for name, title in (("clean", "clean"), ("pgd", "PGD-50"))
        if name in found
    ]
    return [["over seeds", f"{', '.join(each)}  (n={found['n']}, ± standard deviation)"]]


def threat_model(recipe):
    """Returns what an attacker may do against whom a model was trained, a str of one line."""
    if recipe["loss"] != "hybrid":
        return "none: trained on unchanged images only"
    return f"white box, each value changed by up to {recipe['eps'] * 255:.4g}/255 (L_inf)"


def _prose(card):
    license_line = card["license"] and f"License: {card['license']}"
    paragraphs = card["intended_use"], card["limits"], license_line
    return "\n".join(textwrap.fill(each, 100) for each in paragraphs if each)


def read_card(path):
    """Returns the `Card` at `path`.

    Raises:
        UsageError: if the file cannot be read, or is not a card: a field is missing or of
            another type, or a file of the model is not a plain name.
    """
    path = pathlib.Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise _damaged(path, f"it has more than {MAX_BYTES:,} bytes")
        card = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"Cannot read the card {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "it is not JSON") from error
    _check(path, "", card, {**_FIELDS, "model": dict, "weights": dict, "tflite": dict})
    if card["name"] != path.stem:
        raise _damaged(path, f"its name is {card['name']!r:.80}")
    _check(path, "recipe.", card["recipe"], {"loss": str, "prune": str})
    _check(path, "results.", card["results"], {"clean": dict})
    for name, result in card["results"].items():
        _check(path, f"results.{name}.", result, {"accuracy": (int, float)})
    _check(path, "model.", card["model"], _MODEL)
    model = card["model"]
    sizes = [*model["input_shape"], model["num_classes"], model["width"] or 1]
    if not all(type(size) is int and 0 < size <= MAX_SIZE for size in sizes) or len(sizes) != 5:
        raise _damaged(
            path, f"its sizes {sizes!s:.60} are not three of an image and others, to {MAX_SIZE}"
        )
    for kind in ("weights", "tflite"):
        entry = card[kind]
        _check(path, f"{kind}.", entry, _FILE)
        if not re.fullmatch(NAME, entry["file"], re.ASCII):
            raise _damaged(path, f"{kind}.file={entry['file']!r:.60} is not a file beside it")
        if entry["bytes"] < 0:
            raise _damaged(path, f"{kind}.bytes is negative: {entry['bytes']!r:.60}")
        if not re.fullmatch(r"[0-9a-f]{64}", entry["sha256"]):
            raise _damaged(path, f"{kind}.sha256={entry['sha256']!r:.80} is none")
    return Card(card)


def _check(path, prefix, values, fields):
    if not isinstance(values, dict):
        raise _damaged(path, f"{prefix[:-1] or 'it'} is not a JSON object")
    for name, kind in fields.items():
        found = values.get(name)
        # To Python, true is an int.
        if name not in values or not isinstance(found, kind) or isinstance(found, bool):
            raise _damaged(path, f"{prefix}{name} is missing or of another type: {found!r:.60}")


def _damaged(path, why):
    return UsageError(f"{path} is not a card: {why}. {RESTORE}")
