"""The study behind the layers' rule: what it measures and tells; no times."""

import json

from studies.layer_speed import layer_sizes, measure, page
from tests.conftest import ROOT


def test_measures_each_size_of_layer_and_pattern():
    sizes = layer_sizes("resnet18", 64, 32)
    assert list(sizes)[:3] == [(32, 64, 64, 1), (32, 64, 128, 2), (16, 128, 128, 1)]
    assert len(sizes) == 7
    for xla, small in ((False, True), (True, False)):
        rows = measure((4, 64, 64, 1), ["PS4_P4", "PSD1_P16"], 2, xla, 0)
        assert [(row["pattern"], row["rule"]) for row in rows] == [
            ("PS4_P4", small),
            ("PSD1_P16", False),
        ]
        assert rows[0]["saved_per_copy"] == (9 - 4) * 64 / 4
        assert min(row["small_minimum_ms"] for row in rows) > 0


def test_docs_show_what_was_measured():
    runs = json.loads((ROOT / "docs" / "layer_speed.json").read_text())
    text = (ROOT / "docs" / "layer_speed.md").read_text()
    assert text == page(runs)
    rows = [row for run in runs for row in run["layers"]]
    assert f"({rows[0]['saved_per_copy']:.0f})" in text
    # The rule is right where it matters: what it runs as small convolutions is faster, and what it
    # leaves dense would gain little.
    for row in rows:
        ratio = row["dense_minimum_ms"] / row["small_minimum_ms"]
        assert ratio > 0.95 if row["rule"] else ratio < 1.5, row
