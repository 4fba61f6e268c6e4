"""The LiteRT benchmark of patterns on a tiny network, and the tables in the docs."""

import json

import numpy as np
import pytest

from tests.conftest import ROOT
from tflite import pattern_speed


@pytest.mark.slow
def test_command_line(run, tmp_path):
    arguments = ["--arch=resnet8", "--width=16", "--size=8", "--seconds=0", f"--output={tmp_path}"]
    for precision in ("float32", "int8"):
        flags = [*arguments, "--patterns=PS1_P9_F1", f"--precision={precision}"]
        done = run("-m", "tflite.pattern_speed", *flags)
        assert done.returncode == 0, done.stderr
    runs = json.loads((tmp_path / "pattern_speed.json").read_text())
    assert [entry["settings"]["precision"] for entry in runs] == ["float32", "int8"]
    for entry in runs:
        dense, periodic = entry["files"]
        assert (dense["name"], periodic["name"]) == ("dense", "PS1_P9_F1")
        assert dense["minimum_speedup"] == 1
        assert periodic["macs"] < dense["macs"]
        ratio = dense["minimum_ms"] / periodic["minimum_ms"]
        assert periodic["minimum_speedup"] == pytest.approx(ratio)
        assert dense["one_delegate"]
        assert periodic["one_delegate"]
    assert pattern_speed.table(runs[1]) in (tmp_path / "pattern_speed.md").read_text()
    assert done.stdout.strip() == pattern_speed.table(runs[1]).strip()


def test_random_networks_have_nothing_to_leave_out():
    """A BatchNorm of 1 and 0 would be no operator at all."""
    model = pattern_speed.network("resnet8", 4, 8, "PS4_P4")
    for layer in model.layers:
        if "norm" in layer.name and layer.weights:
            for weight in layer.get_weights():
                assert len(np.unique(weight)) == len(weight)
                assert not {0.0, 1.0} & set(weight)


def test_docs_show_what_was_measured():
    runs = json.loads((ROOT / "docs" / "pattern_speed.json").read_text())
    assert (ROOT / "docs" / "pattern_speed.md").read_text() == pattern_speed.page(runs)
    for entry in runs:
        assert entry["files"][0]["name"] == "dense"
