"""What tests of studies share: the committed records, and a study run in this process."""

import pytest
import tensorflow as tf
from absl import flags

from tests.conftest import ROOT, no_flags

RESULTS = ROOT / "docs" / "results"


@pytest.fixture(scope="module", autouse=True)
def models_of_studies(study_models):
    """As `python -m studies` finds them."""


@pytest.fixture
def eager():
    """Runs functions without compiling them, which takes longer than a few steps."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def study_flags():
    """Returns a function that defines and parses the flags of a study's module, for one test."""

    def parse(module, *arguments):
        module.define_flags()
        flags.FLAGS(["study", *arguments])

    with no_flags():
        yield parse


@pytest.fixture
def run_study(study_flags):
    """Returns a function that runs a study's module with flags."""

    def run(module, *arguments):
        study_flags(module, *arguments)
        module.main()

    return run
