"""The trained models that ship in this package.

A model NAME is three files: its card, `cards/NAME.json`, its weights,
`weights/NAME.safetensors.gz`, and its int8 file, `weights/NAME_int8.tflite`. A fourth,
`examples/NAME.npz`, has adversarial examples to look at.

The environment variable TFSPARSE_MODELS names a folder of further models, with the same three
folders. They are then found by name wherever those of the package are.
"""

import contextlib
import difflib
import math
import numbers
import os
import pathlib
from typing import Any

import keras

from tflite.boards import find_board
from tfsparse import files, load_weights, pruning
from tfsparse.errors import UsageError
from zoo.architectures import build
from zoo.cards import RESTORE, Card, read_card

_FOLDER = pathlib.Path(__file__).parent
FURTHER = "TFSPARSE_MODELS"  # the environment variable


def list_models(**conditions: Any) -> list[str]:
    """Returns the names of the trained models, a sorted list of str.

    Args:
        conditions: as `find` takes them; without any, all models are listed.
    """
    if conditions:
        return sorted(card["name"] for card in find(**conditions))
    return sorted(_paths())


def _paths():
    """Returns {name: path of its card} of all models."""
    folders = dict.fromkeys([folder_of_own_models(), _FOLDER])  # a package's name stays its model's
    paths = [path for each in folders for path in (each / "cards").glob("*.json")]
    # If `tfsparse publish` is killed, it may leave an incomplete card beside the others.
    return {path.stem: path for path in paths if not path.name.startswith(files.PARTIAL)}


def folder_of_own_models() -> pathlib.Path:
    """Returns the folder that the environment variable names, or else that of the package.

    Raises:
        UsageError: if there is no such folder.
    """
    further = os.environ.get(FURTHER)
    if not further:
        return _FOLDER
    try:
        return _existing_folder(further)
    except (OSError, RuntimeError) as error:  # a name that is too long, a loop of links, ~nobody
        raise UsageError(
            f"The environment variable {FURTHER} must name a folder that exists, such as one with "
            f"the models' cards/, weights/, and examples/, or an empty one. Received: {further}"
        ) from error


def _existing_folder(name):
    folder = pathlib.Path(name).expanduser().resolve(strict=True)
    os.listdir(folder)  # raises an error if it is none or may not be read
    return folder


def find(
    robust: bool | None = None,
    dataset: str | None = None,
    max_flash: float | None = None,
    max_ram: float | None = None,
    board: str | None = None,
    max_instructions: float | None = None,
) -> list[Card]:
    """Returns the cards of the trained models that meet all conditions, the most accurate first.

    Args:
        robust: True for models that were trained on adversarial images, too, which are ordered by
            their accuracy under AutoAttack, and where that is equal by their clean accuracy; False
            for the others; None for all, which, as the others, are ordered by their clean accuracy.
        dataset: name of the data set.
        max_flash: most bytes of the int8 file.
        max_ram: most bytes of RAM that the int8 file needs in TFLM.
        board: name of a board in `tflite.boards.BOARDS`, or a part of it, such as "micro:bit":
            flash and the largest bank of RAM must have room for the model.
        max_instructions: most instructions that one image takes on a Cortex-M4, as C.

    Raises:
        UsageError: if no model of the zoo has the data set, there is no such board, a limit is not
            a number, or `robust` is none of the above.
    """
    if robust not in (True, False, None):
        raise UsageError(f"robust must be True, False, or None. Received: {robust!r}")
    cards = [card(name) for name in list_models()]
    datasets = sorted({each["dataset"] for each in cards})
    if dataset is not None and dataset not in datasets:
        raise UsageError(f"dataset must be one of {', '.join(datasets)}. Received: {dataset!r}")
    most_flash = _most("max_flash", max_flash)
    most_ram = _most("max_ram", max_ram)
    most_instructions = _most("max_instructions", max_instructions)
    if board is not None:
        found = find_board(board)
        most_flash = min(most_flash, 1024 * found.flash_kb)
        most_ram = min(most_ram, 1024 * found.bank_kb)
    ranking = "autoattack" if robust else "clean"
    return sorted(
        (
            each
            for each in cards
            if robust in (None, each["recipe"]["loss"] == "hybrid")
            and dataset in (None, each["dataset"])
            and each["tflite"]["bytes"] <= most_flash
            and (each["device"]["arena_bytes"] or math.inf) <= most_ram
            and (_instructions(each) or math.inf) <= most_instructions
        ),
        key=lambda each: [_accuracy(each, ranking), _accuracy(each, "clean")],
        reverse=True,
    )


def _most(name, limit):
    if limit is None:
        return math.inf
    if not isinstance(limit, numbers.Real):
        raise UsageError(f"{name} must be a number. Received: {limit!r}")
    return limit


def _accuracy(card, name):
    """Returns an accuracy; -1 if it was not measured, as AutoAttack right after publishing."""
    return card["results"].get(name, {"accuracy": -1})["accuracy"]


def _instructions(card):
    return (card.get("c_package") or {}).get("instructions")


def dense_baseline(architecture: dict[str, Any], dataset: str, loss: str) -> dict[str, Any] | None:
    """Returns what is known of the dense network that a sparse one is compared with, or None.

    Of several it is the one with the highest clean accuracy, of those in the package if any is.

    Args:
        architecture: arguments of `zoo.build` for the sparse one, a dict.
        dataset: name of the data set.
        loss: "standard" or "hybrid", as in training.

    Returns:
        A dict for JSON: the model's "name", the "note" on its data, "clean_accuracy",
        "robust_accuracy", the "robust_attack" of the latter, and the accuracy under "autoattack"
        on the first "autoattack_examples" test images, None if it was not measured.
    """
    dense = {**architecture, "input_shape": list(architecture["input_shape"]), "pattern": None}
    wanted = (dense, dataset, "none", loss)
    found = [
        each
        for each in _readable_cards()
        if (each["model"], each["dataset"], each["recipe"]["prune"], each["recipe"]["loss"])
        == wanted
        and "pgd" in each["results"]
        and not each["recipe"].get("teacher")  # it had help that others did not have
    ]
    if not found:
        return None
    # One of the package if there is one: TFSPARSE_MODELS does not change what their cards say.
    best = max(
        found, key=lambda each: (folder_of(each["name"]) == _FOLDER, _accuracy(each, "clean"))
    )
    clean, attacked = (best["results"][result] for result in ("clean", "pgd"))
    strongest = best["results"].get("autoattack", {})
    return {
        "name": best["name"],
        "note": best["note"],
        "clean_accuracy": clean["accuracy"],
        "robust_accuracy": attacked["accuracy"],
        "robust_attack": f"PGD-{attacked['steps']} x {attacked['restarts']}",
        "autoattack": strongest.get("accuracy"),
        "autoattack_examples": strongest.get("examples"),
    }


def _readable_cards():
    """Yields the cards of all models but damaged ones, which must not stop a run of another."""
    for name in list_models():
        with contextlib.suppress(UsageError):
            yield card(name)


def card(name: str) -> Card:
    """Returns the card of model `name`: what it is, how it was made, how well it does.

    A card is a dict; printed, it is a page.

    Raises:
        UsageError: if there is no model of that name, or its card is damaged.
    """
    return read_card(path_of_card(name))


def path_of_card(name: str) -> pathlib.Path:
    """Returns the path of the card of model `name`, a pathlib.Path.

    Raises:
        UsageError: if there is no model of that name.
    """
    path = _paths().get(name)
    if path is None:
        raise UsageError(
            f"Unknown model. {suggestion(name)} The environment variable {FURTHER} names a folder "
            f"of further models. Received: {name!r}"
        )
    return path


def folder_of(name: str) -> pathlib.Path:
    """Returns the folder that has the cards/, weights/, and examples/ of model `name`."""
    return path_of_card(name).parents[1]


def suggestion(name: str) -> str:
    """Returns a sentence with the names that are most like `name`, or where all are listed."""
    given, names = str(name).casefold(), list_models()
    close = [each for each in names if given and each.startswith(given)]
    close = close or difflib.get_close_matches(given, names)
    if close:
        return f"Did you mean {', '.join(close[:3])}?"
    return "`tfsparse models` lists the models."


def load(name: str, weights: str | None = "trained") -> keras.Model:
    """Returns the Keras model `name`, without its channels if it was pruned by channel.

    Args:
        name: one of `list_models()`.
        weights: "trained", or None for the network before training: randomly initialized, with all
            channels.

    Returns:
        keras.Model that takes float images [n, height, width, channels] in [0, 1] and returns
        logits [n, classes]; `card(name)["class_names"]` names the classes.

    Raises:
        UsageError: if there is no model of that name, its file is not the one of the card, or
            `weights` is neither.
    """
    about = card(name)
    if weights not in ("trained", None):
        raise UsageError(f'weights must be "trained" or None. Received: {weights!r}')
    model = build(**about["model"])
    if weights is None:
        return model
    load_weights(model, checked(name, about["weights"]))
    if about["recipe"].get("structure") == "channel":
        model = pruning.remove_channels(model)
    return model


def load_tflite(name: str) -> pathlib.Path:
    """Returns the path of the int8 .tflite file of model `name`, a pathlib.Path.

    Raises:
        UsageError: if there is no model of that name, or its file is not the one of the card.
    """
    return checked(name, card(name)["tflite"])


def checked(name: str, entry: dict[str, Any], folder: str = "weights") -> pathlib.Path:
    """Returns the path of a file of model `name` after comparing its hash with the card's.

    Args:
        name: of the model.
        entry: of the file in its card: "file", "bytes", and "sha256".
        folder: in which it is, beside that of the card.

    Raises:
        UsageError: if it is missing or another one.
    """
    path = folder_of(name) / folder / entry["file"]
    try:
        size, found = path.stat().st_size, files.sha256_of(path)
    except OSError as error:
        raise UsageError(
            f"Cannot read {path} of model {name}: {error.strerror}. {RESTORE}"
        ) from error
    if (size, found) != (entry["bytes"], entry["sha256"]):
        raise UsageError(
            f"{path} is not the file of model {name}'s card: it has {size:,} bytes and the sha256 "
            f"{found}, expected {entry['bytes']:,} and {entry['sha256']}. {RESTORE}"
        )
    return path
