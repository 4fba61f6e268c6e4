"""The study of what pruning costs: that it measures, and what it tells; no times."""

import pytest

from studies import pruning_cost
from studies.pruning_cost import peak_memory, times


def test_measures_steps_rewiring_and_memory(eager, monkeypatch):
    monkeypatch.setitem(pruning_cost.NETWORKS, "resnet8", 4)
    row = times("resnet8", batch_size=4, steps=100, seconds=0)
    assert row["step_ratio"] == pytest.approx(row["dnr_step_ms"] / row["dense_step_ms"])
    expected = row["rewiring_ms"] / (100 * row["dnr_step_ms"])
    assert row["rewiring_share"] == pytest.approx(expected)
    assert peak_memory("resnet8", 4, pruned=True) > 200
