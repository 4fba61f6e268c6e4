"""Commands that regenerate the tables and pictures of docs/results. Not part of the package."""

from zoo.commands import environment

environment.prepare()  # before a study imports TensorFlow
