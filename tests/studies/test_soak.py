"""Memory that grows is seen to grow."""

import json
import signal
import sys

import numpy as np
import pytest

from studies import soak
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_a_process_that_hoards_is_told_from_one_that_does_not():
    hoard = "import time; kept = []\nfor _ in range(30): kept.append(b'x' * 2**22); time.sleep(0.1)"
    still = "import time; kept = b'x' * 2**26; time.sleep(3)"
    for program, low, high in ((hoard, 0.5, 2.0), (still, -0.02, 0.02)):
        report = soak.watch([sys.executable, "-c", program], 0.1, 60)
        assert report["status"] == 0
        assert len(report["bytes"]) > 10
        assert low < soak.growth(report) < high
    assert report["bytes"][-1] > 2**26


def test_a_process_is_stopped_after_its_time():
    report = soak.watch([sys.executable, "-c", "import time; time.sleep(60)"], 0.1, 1)
    assert report["status"] == -signal.SIGTERM
    assert 1 <= report["seconds"][-1] < 10


def test_a_run_that_fails_leaves_what_was_measured(run, tmp_path):
    (tmp_path / "soak.json").write_text("before")
    (tmp_path / "flags.cfg").write_text("--epochs=none\n")
    arguments = [f"--{name}={tmp_path}" for name in ("workdir", "output")]
    result = run("-m", "studies.soak", f"--flags={tmp_path / 'flags.cfg'}", *arguments)
    assert result.returncode == 1
    assert "train.py ended with status" in result.stderr
    assert "Traceback" not in result.stderr
    assert (tmp_path / "soak.json").read_text() == "before"


def test_growth_of_a_line_and_of_spikes():
    seconds = np.arange(0, 100, 1.0)
    line = {"seconds": seconds.tolist(), "bytes": (1e9 + 1e6 * seconds).tolist()}
    assert soak.growth(line) == pytest.approx(74e6 / 1.062e9, rel=1e-3)
    spikes = {"seconds": seconds.tolist(), "bytes": (1e9 + 1e8 * (seconds % 10 == 0)).tolist()}
    assert abs(soak.growth(spikes)) < 0.01


def test_docs_show_what_was_measured():
    path = ROOT / "docs" / f"{soak.NAME}.json"
    report = json.loads(path.read_text())
    assert path.with_suffix(".md").read_text() == soak.page(report)
    assert abs(soak.growth(report)) < soak.GROWTH
    assert report["seconds"][-1] >= 2 * 3600
