"""The LiteRT benchmark of patterns on a tiny network."""

import json

import numpy as np
import pytest

from studies import pattern_speed
from tflite import benchmark
from tfsparse import UsageError


def test_each_number_of_threads_is_recorded(run_study, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "peak_memory", lambda *_: None)  # of a process of its own
    arguments = ["--arch=resnet8", "--width=8", "--size=8", "--seconds=0", f"--output={tmp_path}"]
    arguments += ["--patterns=PS1_P9_F1", "--precision=int8", "--threads=1", "--threads=2"]
    run_study(pattern_speed, *arguments)
    runs = json.loads((tmp_path / "pattern_speed.json").read_text())
    assert [run["settings"]["threads"] for run in runs] == [1, 2]
    for run in runs:
        dense, periodic = run["files"]
        assert (dense["name"], periodic["name"]) == ("dense", "PS1_P9_F1")
        assert dense["minimum_speedup"] == 1
        assert periodic["macs"] < dense["macs"]
        ratio = dense["minimum_ms"] / periodic["minimum_ms"]
        assert periodic["minimum_speedup"] == pytest.approx(ratio)
        assert dense["one_delegate"]
        assert periodic["one_delegate"]
    printed, page = capsys.readouterr().out, (tmp_path / "pattern_speed.md").read_text()
    for run in runs:
        assert pattern_speed.table(run) in printed
        assert pattern_speed.table(run) in page


def test_a_pattern_that_does_not_exist(run_study, tmp_path):
    with pytest.raises(UsageError, match=r"A pattern is .* Received: 'PS4P4'"):
        run_study(pattern_speed, "--patterns=PS4P4", f"--output={tmp_path}")
    assert not list(tmp_path.iterdir())


def test_networks_have_the_same_weights_in_each_call():
    first, second = (pattern_speed.network("resnet8", 4, 8, "PS4_P4") for _ in range(2))
    for weight, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, other)
