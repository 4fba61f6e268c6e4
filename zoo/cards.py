"""Cards: JSON objects that say how a model was made and how well it does."""

import json
import pathlib
import re

from tfsparse.errors import UsageError

NAME = r"\w[\w.-]*"  # of a model, and of a file beside its card
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


def read_card(path):
    """Returns the card at `path`, a dict.

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
    return card


def _check(path, prefix, values, fields):
    if not isinstance(values, dict):
        raise _damaged(path, f"{prefix[:-1] or 'it'} is not a JSON object")
    for name, kind in fields.items():
        found = values.get(name)
        # To Python, true is an int.
        if name not in values or not isinstance(found, kind) or isinstance(found, bool):
            raise _damaged(path, f"{prefix}{name} is missing or of another type: {found!r:.60}")


def _damaged(path, why):
    return UsageError(f"{path} is not a card: {why}. Install the package again.")
