"""Real commands that are killed end as if they were not; more kills in docs/interruption.md."""

import json

import numpy as np
import pytest

from studies import interruption
from tests.conftest import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("name", interruption.COMMANDS)
def test_killed_commands_end_to_the_bit_as_one_that_was_not(name, tmp_path, data_dir):
    found = interruption.compare(name, tmp_path, kills=2, seed=0, data_dir=data_dir)
    assert found["different"] == []
    assert len(found["kills"]) == 2
    assert found["compared"] > {"training": 50, "evaluation": 9, "conversion": 0}[name]


def test_one_bit_is_a_difference():
    weights = np.ones(3, np.float32)
    other = weights.copy()
    other.view(np.int32)[1] ^= 1
    assert interruption.same(weights.copy(), weights)
    assert not interruption.same(other, weights)
    assert not interruption.same(None, weights)
    assert not interruption.same("0.1", "0.10")
    assert not interruption.same(b"\0", b"\1")


def test_docs_show_what_was_measured():
    path = ROOT / "docs" / f"{interruption.NAME}.json"
    report = json.loads(path.read_text())
    assert path.with_suffix(".md").read_text() == interruption.page(report)
    assert list(report["commands"]) == list(interruption.COMMANDS)
    for found in report["commands"].values():
        assert found["different"] == []
        assert len(found["kills"]) >= 20
