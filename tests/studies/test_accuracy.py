"""The study of patterns' accuracy: its page is that of its figures."""

import json

from studies import accuracy
from tests.conftest import ROOT


def test_docs_show_what_was_measured():
    path = ROOT / "docs" / f"{accuracy.NAME}.json"
    assert path.with_suffix(".md").read_text() == accuracy.table(json.loads(path.read_text()))


def test_table_has_mean_and_spread():
    run = {
        **{"arch": "resnet8", "dataset": "cifar10", "note": "JPEG copy", "epochs": 8},
        **{"hardware": "2 CPU cores", "test_examples": 10_000, "pattern": "PS4_P4"},
        **{"conv_parameters": 1234, "macs": 5_600_000},
    }
    runs = [{**run, "seed": seed, "test_accuracy": 0.5 + seed / 50} for seed in range(2)]
    lines = accuracy.table(runs).splitlines()
    assert "resnet8 on cifar10 (JPEG copy), 8 epochs" in lines[2]
    assert lines[-1] == "| PS4_P4 | 1,234 | 5.60 | 51.00 ± 1.41 | 2 |"
