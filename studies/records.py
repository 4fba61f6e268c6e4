"""The JSON records of the studies: read, add a run, write the page of all runs."""

import json
import pathlib

from tfsparse.errors import UsageError
from tfsparse.files import write_bytes


def record(folder, name, run, page):
    """Adds `run` to the JSON file `name`.json in `folder` and writes `page` of all to `name`.md.

    Args:
        run: dict for JSON whose "settings" say what was measured; replaces one of equal settings.
        page: function from the list of runs, ordered by their settings, to Markdown.

    Raises:
        UsageError: where the file is there and cannot be read, or cannot be written.
    """
    path = pathlib.Path(folder) / f"{name}.json"
    try:
        runs = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        runs = [other for other in runs if other["settings"] != run["settings"]] + [run]
        runs.sort(key=lambda each: [str(value) for value in each["settings"].values()])
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"Cannot read the runs in {path}: {error!r}. Remove the file.") from error
    write_bytes(path, json.dumps(runs, indent=2) + "\n")
    write_bytes(path.with_suffix(".md"), page(runs))
