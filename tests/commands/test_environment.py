"""Which of TensorFlow's settings a command and a program of one's own make, and which they keep."""

import os

import pytest

from zoo.commands import environment

NAME = "TF_ENABLE_ONEDNN_OPTS"


@pytest.mark.parametrize(("before", "after"), [({}, "1"), ({NAME: "0"}, "0")])
def test_a_command_turns_onednn_on_unless_the_user_has_decided(
    tfsparse, monkeypatch, before, after
):
    variables = {name: value for name, value in os.environ.items() if name != NAME}
    monkeypatch.setattr(os, "environ", {**variables, **before})
    status, *_ = tfsparse("models", "--dataset=cifar10")
    assert status == 0
    assert os.environ[NAME] == after


def test_a_program_of_ones_own_keeps_tensorflows_choice(monkeypatch):
    """With oneDNN on, `Model.fit` of a narrow network may crash."""
    monkeypatch.setattr(os, "environ", {"PATH": os.environ["PATH"]})
    environment.prepare()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
    assert NAME not in os.environ
