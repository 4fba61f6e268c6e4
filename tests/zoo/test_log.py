"""What a training run tells while it trains."""

import csv
import re
import time

import pytest
import tensorflow as tf

from zoo.log import Log

ROW = {
    "loss": 1.5,
    "train_clean_accuracy": 0.6,
    "train_adversarial_accuracy": 0.5,
    "seconds": 3.2,
    "validation_clean_accuracy": 0.7,
    "validation_robust_accuracy": 0.4,
    "density": 0.1,
    "density/stem": 0.9,
}


@pytest.fixture
def clock(monkeypatch):
    """Sets the time that the log sees, in seconds."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_each_epoch_is_printed_and_written(tmp_path, capsys):
    log, history = Log(tmp_path, 2), []
    for epoch in (1, 2):
        history.append({"epoch": epoch, **ROW})
        log.write(history)
    header, first, second = capsys.readouterr().out.splitlines()
    titles = ["loss", "train %", "attacked", "validation %", "attacked", "density %", "time"]
    assert re.split(r"\s{2,}", header)[1:] == [*titles, "time left"]
    assert first.split()[:2] == ["epoch", "1/2"]
    assert second.split() == [
        "epoch",
        "2/2",
        "1.500",
        "60.0",
        "50.0",
        "70.0",
        "40.0",
        "10.00",
        "3",
        "s",
        "0",
        "s",
    ]
    assert len(header) == len(first) == len(second)
    with open(tmp_path / "history.csv", newline="") as file:
        found = list(csv.DictReader(file))
    assert found == [{name: str(value) for name, value in each.items()} for each in history]
    (events,) = (tmp_path / "tensorboard").iterdir()
    scalars = {
        (event.step, value.tag): tf.make_ndarray(value.tensor).item()
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    }
    assert scalars[2, "validation_robust_accuracy"] == pytest.approx(0.4)
    assert len(scalars) == 2 * (1 + len(ROW))


def test_time_left_is_the_median_epoch_times_the_epochs_left(tmp_path, capsys, clock):
    """Epochs 3, 4, and 5 of 200, of 90 s, 20 s, and 30 s with their validation."""
    history = [{"epoch": epoch, **ROW} for epoch in (1, 2)]
    log = Log(tmp_path, 200, history)
    for epoch, seconds in ((3, 90), (4, 20), (5, 30)):
        clock[0] += seconds
        history.append({"epoch": epoch, **ROW})
        log.write(history)
    lines = capsys.readouterr().out.splitlines()
    left = [line.rpartition("  ")[2].strip() for line in lines[1:]]
    assert left == ["4.9 h", "3.0 h", "98 min"]  # 197 x 90 s, 196 x 55 s, 195 x 30 s
    assert max(map(len, lines)) <= 100
