"""The profile of single layers in LiteRT: what it measures and tells; no times."""

import json

from studies.layer_speed_litert import layer_sizes, measure, page, table
from tests.conftest import ROOT


def test_measures_each_size_of_layer_and_pattern():
    assert layer_sizes("vgg16", 64, 32)[(4, 512, 512, 1)] == 2
    rows = measure((8, 64, 64, 1), ["PS4_P4_F1", "pSC4"], "float32", 0)
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
    facts = {"cpu": "a processor", "cores": 2}
    lines = table({"settings": settings, "machine": facts, "layers": rows}).splitlines()
    assert "4.00x shifted" in lines[4]
    assert lines[-1] == "| all | | | | | 9.00 | 3.00x |"


def test_docs_show_what_was_measured():
    runs = json.loads((ROOT / "docs" / "layer_speed_litert.json").read_text())
    assert (ROOT / "docs" / "layer_speed_litert.md").read_text() == page(runs)
    for row in (row for run in runs for row in run["layers"]):
        # What the converter's rule chose is not slower than the dense layer.
        assert row["minimum_ms"] < 1.1 * row["dense_minimum_ms"], row
