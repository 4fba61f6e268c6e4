"""The records of the studies: JSON files of runs, and the Markdown pages made from them."""

import csv
import json
import pathlib

from absl import flags

from tfsparse.errors import UsageError
from tfsparse.files import locked, replacing, write_bytes

FOLDER = pathlib.Path(__file__).parent
DEFAULT_KEYS = ("settings",)

flags.disclaim_key_flags()  # a flag that this module defines belongs to the study


def define_output():
    """Defines --output."""
    flags.DEFINE_string("output", "docs/results", "Folder of the page and its JSON record.")


def define_data():
    """Defines --data_dir and --note."""
    flags.DEFINE_string("data_dir", None, "Folder of the TFDS data sets.")
    flags.DEFINE_string("note", "", "What a reader must know about the data, such as its form.")


def read(folder, name, keys=DEFAULT_KEYS):
    """Returns the runs in the record `name`.json in `folder`, a list of dicts; [] without a file.

    Args:
        folder: path of the folder.
        name: of the study.
        keys: entries that every run has and that together identify it.

    Raises:
        UsageError: if the file cannot be read or is not such a list.
    """
    path = pathlib.Path(folder) / f"{name}.json"
    if not path.exists():
        return []
    try:
        runs = json.loads(path.read_text(encoding="utf-8"))
        for run in runs:
            _identity(run, keys)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"Cannot read the runs in {path}: {error!r}. Remove or repair the file."
        ) from error
    return runs


def record(folder, name, new, page, keys=DEFAULT_KEYS, order=None):
    """Adds runs to the record `name`.json in `folder` and writes the page of all runs, if any.

    If several processes add runs to one record at once, it gets them all.

    Args:
        new: list of runs, dicts for JSON; each replaces the run of equal `keys`.
        page: function from the list of all runs to Markdown, or None.
        keys: as in `read`.
        order: sort key of the runs; without it, new runs come last.

    Returns:
        All runs, a list of dicts.
    """
    with locked(folder):  # other processes add runs, too
        runs = read(folder, name, keys)
        for run in new:
            same = [i for i, old in enumerate(runs) if _identity(old, keys) == _identity(run, keys)]
            if same:
                runs[same[0]] = run
            else:
                runs.append(run)
        if order:
            runs.sort(key=order)
        path = pathlib.Path(folder) / f"{name}.json"
        if new:
            write_bytes(path, json.dumps(runs, indent=2) + "\n")
        if runs and page:
            write_bytes(path.with_suffix(".md"), page(runs))
    return runs


def write_page(name, text):
    """Writes the page `name`.md to --output."""
    write_bytes(pathlib.Path(flags.FLAGS.output) / f"{name}.md", text)


def save_picture(folder, name, figure):
    """Writes a figure of matplotlib's as `name`.png to a folder."""
    with replacing(pathlib.Path(folder) / f"{name}.png") as partial:
        figure.savefig(partial, dpi=100)


def fill(name, **fields):
    """Returns the Markdown of the template `name`.md with its {fields} filled in."""
    return (FOLDER / "templates" / f"{name}.md").read_text(encoding="utf-8").format(**fields)


def page_of_tables(name, table):
    """Returns the page of a study whose template has {tables} only, made by `table` of each run."""
    return lambda runs: fill(name, tables="\n\n".join(map(table, runs)))


def read_csv(name):
    """Returns the rows of data/`name`.csv, a list of dicts of str."""
    with open(FOLDER / "data" / f"{name}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _identity(run, keys):
    return [run[key] for key in keys]
