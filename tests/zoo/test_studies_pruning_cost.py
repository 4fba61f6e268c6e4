"""The study of what pruning costs: that it measures; no times."""

import json

import pytest


@pytest.mark.slow
def test_command_line(run, tmp_path):
    arguments = ["--archs=resnet8", "--batch_size=4", "--images=400", "--seconds=0"]
    done = run("-m", "zoo.studies.pruning_cost", *arguments, f"--output={tmp_path}")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "pruning_cost.json").read_text())["networks"]
    assert row["step_ratio"] == pytest.approx(row["dnr_step_ms"] / row["dense_step_ms"])
    expected = row["rewiring_ms"] / (100 * row["dnr_step_ms"])  # 400 images are 100 steps
    assert row["rewiring_share"] == pytest.approx(expected)
    assert row["memory_ratio"] == pytest.approx(row["dnr_peak_mb"] / row["dense_peak_mb"])
    assert row["dense_peak_mb"] > 200
    assert done.stdout.strip() == (tmp_path / "pruning_cost.md").read_text().strip()
