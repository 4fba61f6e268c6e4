"""What tests of studies share: the committed records, and a study run in this process."""

import pytest
import tensorflow as tf
from absl import flags

from tests.conftest import ROOT

RESULTS = ROOT / "docs" / "results"
BASELINE = set(flags.FLAGS)


@pytest.fixture
def eager():
    """Runs functions without compiling them, which takes longer than a few steps."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def study_flags():
    """Returns a function that defines and parses the flags of a study's module, for one test."""
    others = {name: flags.FLAGS[name] for name in set(flags.FLAGS) - BASELINE}  # of other modules
    for name in others:
        delattr(flags.FLAGS, name)

    def parse(module, *arguments):
        module.define_flags()
        flags.FLAGS(["study", *arguments])

    yield parse
    for name in set(flags.FLAGS) - BASELINE:
        delattr(flags.FLAGS, name)
    for name, flag in others.items():
        flags.FLAGS[name] = flag
    flags.FLAGS.unparse_flags()


@pytest.fixture
def run_study(study_flags):
    """Returns a function that runs a study's module with flags."""

    def run(module, *arguments):
        study_flags(module, *arguments)
        module.main()

    return run
