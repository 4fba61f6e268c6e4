"""Commands that regenerate the pages of docs/results. Not part of the package."""

import pathlib
import sys

from zoo.commands import environment

environment.prepare()  # before a study imports TensorFlow

ROOT = pathlib.Path(__file__).parents[1]
TFSPARSE = (sys.executable, "-c", "from zoo.commands import main; main()")
