"""The page to choose a model from: one HTML file that loads nothing from elsewhere.

Plots are Vega-Lite's. The rest of the page is in templates/, as HTML, CSS, and plain JavaScript.
"""

import base64
import io
import json
import pathlib
import string

import numpy as np

import tfsparse
from tflite.boards import BOARDS
from tfsparse import optional
from zoo import adversarial_examples, models
from zoo.cards import gap_warning, threat_model

_TEMPLATES = pathlib.Path(__file__).parent / "templates"
KINDS = ("dense", "periodic", "weights pruned", "channels pruned", "periodic and pruned")
_RESULTS = {"clean": "clean", "int8": "int8 file, clean", "autoattack": "AutoAttack"}
_CODE = """\
import zoo
model = zoo.load("{name}")
path = zoo.load_tflite("{name}")

tfsparse micro --model={name} --runtime=c --output=package
"""


def page(cards):
    """Returns the page of models, a str of HTML.

    Args:
        cards: of the models, as `zoo.find` returns them; the first is shown first.

    Raises:
        UsageError: if the package that has Vega-Lite is not installed.
    """
    optional.require("The page of models", vl_convert="vl-convert-python")
    import vl_convert

    examples = {card["name"]: adversarial_examples.read(card["name"]) for card in cards}
    # Of the cards of a data set, one with examples comes last: it says which images they are of.
    last = sorted(cards, key=lambda card: examples[card["name"]] is not None)
    data = {
        "kinds": KINDS,
        "eps": adversarial_examples.EPS,
        "boards": [_board(board) for board in BOARDS],
        "datasets": {_dataset(card): _images(card, examples[card["name"]]) for card in last},
        "models": [_model(card, examples[card["name"]]) for card in cards],
    }
    template, style, script = (
        (_TEMPLATES / f"models.{suffix}").read_text(encoding="utf-8")
        for suffix in ("html", "css", "js")
    )
    return string.Template(template).substitute(
        style=style,
        script=script,
        version=tfsparse.__version__,
        steps=adversarial_examples.STEPS,
        # So that no text of a card or the library ends the element that it is in.
        data=json.dumps(data).replace("<", "\\u003c"),
        library=vl_convert.javascript_bundle().replace("</script", "<\\/script"),
    )


def _board(board):
    """Returns a board with its memory in kB, flash and the largest bank of RAM."""
    flash, ram = (1024 * size / 1000 for size in (board.flash_kb, board.bank_kb))
    return {"name": board.name, "processor": board.processor, "flash": flash, "ram": ram}


def _dataset(card):
    return f"{card['dataset']} ({card['note']})" if card["note"] else card["dataset"]


def _images(card, examples):
    """Returns what models of a data set share: its classes, and images in a row."""
    found = {"classes": card["class_names"]}
    if examples:
        found |= {"labels": examples.labels.tolist(), "images": _png(examples.images[None])}
    return found


def _model(card, examples):
    """Returns what the page says of a model, a dict for JSON; figures are in %, kB, or millions."""
    results, spent = card["results"], card.get("c_package") or {}
    arena, name = card["device"]["arena_bytes"], card["name"]
    files = {
        "file": models.load_tflite(name).as_uri(),
        "json": models.path_of_card(name).as_uri(),
    }
    return {
        "name": name,
        "dataset": _dataset(card),
        "robust": card["recipe"]["loss"] == "hybrid",
        "kind": _kind(card),
        "clean": 100 * results["clean"]["accuracy"],
        "autoattack": _scaled(results.get("autoattack", {}).get("accuracy"), 100),
        "c_flash": _scaled(spent.get("flash_bytes"), 1e-3),
        "c_ram": _scaled(spent.get("ram_bytes"), 1e-3),
        "instructions": _scaled(spent.get("instructions"), 1e-6),
        "tflm_flash": card["tflite"]["bytes"] / 1000,
        "tflm_ram": _scaled(arena, 1e-3),
        "macs": card["nonzero_macs"] / 1e6,
        "about": _about(card),
        "facts": _facts(card),
        "code": _CODE.format(name=name),
        "card": str(card),
        "examples": examples and _predictions(examples),
        **files,
    }


def _scaled(value, factor):
    return None if value is None else factor * value


def _kind(card):
    periodic, prune = bool(card["model"]["pattern"]), card["recipe"]["prune"] != "none"
    units = {"channel": "channels", "unstructured": "weights"}[card["recipe"]["structure"]]
    if periodic:
        return "periodic and pruned" if prune else "periodic"
    return f"{units} pruned" if prune else "dense"


def _about(card):
    model, recipe = card["model"], card["recipe"]
    width = f" of width {model['width']}" if model["width"] else ""
    pattern = f" with {model['pattern']}" if model["pattern"] else ""
    pruned = f", pruned by {recipe['prune']}" if recipe["prune"] != "none" else ""
    return f"{model['arch']}{width}{pattern}{pruned}; threat model: {threat_model(recipe)}"


def _facts(card):
    """Returns rows of [what, figure] that the page shows of a chosen model."""
    rows = [
        _fact(name, card["results"][key], card["results"][key]["examples"])
        for key, name in _RESULTS.items()
        if key in card["results"]
    ]
    if found := card.get("deployed"):
        rows.append(_fact("int8 file attacked", found[found["worst"]], found["examples"]))
    if warning := gap_warning(card["results"]):
        rows.append(["warning", warning])
    if found := card.get("seeds"):
        mean, spread = (100 * found["clean"][key] for key in ("mean", "standard_deviation"))
        rows.append([f"clean over {found['n']} seeds", f"{mean:.1f} ± {spread:.1f} %"])
    if card.get("baseline"):
        dense = card["baseline"]
        accuracies = [f"{100 * dense['clean']:.1f} %"]
        if dense["autoattack"] is not None:
            images = f"(n = {dense['autoattack_examples']:,})"
            accuracies += [f"{100 * dense['autoattack']:.1f} % {images}"]
        rows.append(["dense baseline: clean, AutoAttack", ", ".join(accuracies)])
    kept, dense = (f"{card[key]:,}" for key in ("nonzero_parameters", "dense_parameters"))
    rows.append(["non-zero weights", f"{kept} of {dense}"])
    return rows


def _fact(name, result, examples):
    low, high = (100 * bound for bound in result["interval"])
    figure = f"{100 * result['accuracy']:.1f} % ({low:.1f} to {high:.1f})"
    return [f"{name}, n = {examples:,}", figure]


def _predictions(examples):
    """Returns the perturbations as a picture, and the class and probability of each image."""
    shifted = examples.logits - examples.logits.max(axis=-1, keepdims=True)
    probabilities = np.exp(shifted) / np.exp(shifted).sum(axis=-1, keepdims=True)
    return {
        "perturbations": _png(examples.perturbations.view(np.uint8)),  # modulo 256
        "predicted": examples.logits.argmax(axis=-1).tolist(),
        "probability": probabilities.max(axis=-1).round(3).tolist(),
    }


def _png(images):
    """Returns the URL of a picture of images, uint8 [rows, columns, h, w, c]."""
    from PIL import Image

    rows, columns, height, width, channels = images.shape
    picture = images.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)
    buffer = io.BytesIO()
    picture = picture[..., 0] if channels == 1 else picture
    Image.fromarray(picture).save(buffer, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
