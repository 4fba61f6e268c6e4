"""The studies of single layers, in training and in LiteRT: what they measure; no times."""

import numpy as np
import pytest

from studies import layer_speed, layer_speed_litert, speed
from tflite import benchmark
from tfsparse.layers import PeriodicConv2D


def test_sizes_of_layers():
    sizes = speed.layer_sizes("resnet18", 64, 32)
    assert list(sizes)[:3] == [(32, 64, 64, 1), (32, 64, 128, 2), (16, 128, 128, 1)]
    assert list(sizes.values()) == [4, 1, 3, 1, 3, 1, 3]


def test_measures_each_pattern(eager):
    rows = layer_speed.measure((4, 64, 64, 1), ["PS4_P4", "PSD1_P16"], 2, False, 0)
    assert [(row["pattern"], row["rule"]) for row in rows] == [
        ("PS4_P4", True),
        ("PSD1_P16", False),
    ]
    assert rows[0]["saved_per_copy"] == (9 - 4) * 64 / 4
    assert min(row["small_minimum_ms"] for row in rows) > 0


@pytest.mark.parametrize("xla", [False, True])
def test_the_rule_depends_on_xla(xla):
    layer = PeriodicConv2D(64, 3, "PS4_P4", padding="same", use_bias=False)
    images = np.zeros((2, 4, 4, 64), np.float32)
    layer.build(images.shape)
    assert layer_speed.runs_small(layer, images, xla) == (not xla)


def test_measures_each_pattern_in_litert(monkeypatch):
    monkeypatch.setattr(benchmark, "peak_memory", lambda *_: None)  # of a process of its own
    rows = layer_speed_litert.measure((8, 64, 64, 1), ["PS4_P4_F1", "pSC4"], "float32", 0)
    assert [(row["pattern"], row["form"]) for row in rows] == [
        ("PS4_P4_F1", "shifted"),
        ("pSC4", "dense"),
    ]


def test_table_adds_up_the_layers_of_a_network():
    settings = {"arch": "resnet8", "width": 8, "size": 8, "precision": "int8"}
    layer = {"image_size": 8, "channels": 8, "filters": 8, "stride": 1, "pattern": "PS4_P4"}
    layer |= {"form": "shifted", "runs": 3}
    rows = [
        {**layer, "count": 2, "dense_minimum_ms": 4.0, "minimum_ms": 1.0},
        {**layer, "channels": 4, "count": 1, "dense_minimum_ms": 1.0, "minimum_ms": 1.0},
    ]
    run = {"settings": settings, "machine": {"cpu": "a processor", "cores": 2}, "layers": rows}
    lines = layer_speed_litert.table(run).splitlines()
    assert lines[4].startswith("| 2 | 8x8 | 8 | 8 | 1 | 4.00 | 4.00x shifted |")
    assert lines[-1] == "| all |  |  |  |  | 9.00 | 3.00x |"
