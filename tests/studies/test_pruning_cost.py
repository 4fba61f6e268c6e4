"""The study of what pruning costs: that it measures, and what it tells; no times."""

import json

import pytest

from studies.pruning_cost import peak_memory, table, times
from tests.conftest import ROOT


def test_measures_steps_rewiring_and_memory():
    row = times("resnet8", batch_size=4, steps=100, seconds=0)
    assert row["step_ratio"] == pytest.approx(row["dnr_step_ms"] / row["dense_step_ms"])
    expected = row["rewiring_ms"] / (100 * row["dnr_step_ms"])
    assert row["rewiring_share"] == pytest.approx(expected)
    assert peak_memory("resnet8", 4, pruned=True) > 200


def test_docs_show_what_was_measured():
    run = json.loads((ROOT / "docs" / "pruning_cost.json").read_text())
    assert (ROOT / "docs" / "pruning_cost.md").read_text() == table(run)
