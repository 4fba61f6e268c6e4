"""Writes all pages of docs/results again from their records, without measuring.

python -m studies pages

Pictures that show cards, or cards and records, are drawn again, too.
"""

import importlib
import pathlib

from absl import flags

from studies import records
from tfsparse.files import write_bytes

STUDIES = (
    *("accuracy", "claims", "costs", "dependencies", "deployment", "dnr", "field", "interruption"),
    *("layer_speed", "layer_speed_litert", "microcontroller", "microcontroller_layers"),
    *("papers", "pattern_speed", "pruning_cost", "robustness", "soak", "training_choices"),
    *("training_speed", "zoo_table"),
)

FLAGS = flags.FLAGS


def define_flags():
    records.define_output()


def main():
    for study in STUDIES:
        name, text = page(study, FLAGS.output)
        write_bytes(pathlib.Path(FLAGS.output) / f"{name}.md", text)
        module = importlib.import_module(f"studies.{study}")
        if hasattr(module, "save_pictures"):
            module.save_pictures(FLAGS.output)


def page(study, folder):
    """Returns the file name, without suffix, and the Markdown page of a module in STUDIES.

    Args:
        study: name of the module. Its `page` takes the runs of each of its RECORDS.
        folder: where the records are.
    """
    module = importlib.import_module(f"studies.{study}")
    names = getattr(module, "RECORDS", (module.NAME,))
    keys = getattr(module, "KEYS", records.DEFAULT_KEYS)
    return module.NAME, module.page(*(records.read(folder, name, keys) for name in names))
