"""Commands that regenerate the pages of docs/results. Not part of the package.

The models that only studies need are in models/, which is not part of the package either.
"""

import pathlib
import sys

from zoo.commands import environment

environment.prepare_command()  # before a study imports TensorFlow

ROOT = pathlib.Path(__file__).parents[1]
MODELS = pathlib.Path(__file__).parent / "models"  # cards/, weights/, and examples/
TFSPARSE = (sys.executable, "-c", "from zoo.commands import main; main()")
