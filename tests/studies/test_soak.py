"""Memory that grows is seen to grow."""

import signal
import sys

import numpy as np
import pytest

from studies import soak
from tfsparse import UsageError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_a_process_that_hoards_is_told_from_one_that_does_not():
    hoard = "import time\nkept = []\n"
    hoard += "for _ in range(30): kept.append(b'x' * 2**22); time.sleep(0.03)"
    still = "import time; kept = b'x' * 2**26; time.sleep(3)"
    # An operating system may take memory from a process that does not use it, so below 0 is fine.
    for program, low, high in ((hoard, 0.5, 2.0), (still, -1.0, 0.02)):
        report = soak.watch([sys.executable, "-c", program], 0.05, 60)
        assert report["status"] == 0
        assert len(report["bytes"]) > 10
        assert low < soak.growth(report) < high
    assert max(report["bytes"]) > 2**26


def test_a_process_is_stopped_after_its_time():
    report = soak.watch([sys.executable, "-c", "import time; time.sleep(60)"], 0.05, 0.3)
    assert report["status"] == -signal.SIGTERM
    assert 0.3 <= report["seconds"][-1] < 10


def test_growth_of_a_line_and_of_spikes():
    seconds = np.arange(0, 100, 1.0)
    line = {"seconds": seconds.tolist(), "bytes": (1e9 + 1e6 * seconds).tolist()}
    assert soak.growth(line) == pytest.approx(74e6 / 1.062e9, rel=1e-3)
    spikes = {"seconds": seconds.tolist(), "bytes": (1e9 + 1e8 * (seconds % 10 == 0)).tolist()}
    assert abs(soak.growth(spikes)) < 0.01


@pytest.mark.parametrize(
    ("status", "growing", "message"),
    [
        (1, 0, "train.py ended with status 1; nothing was written"),
        (0, 1e7, "Memory grew by 45.7 %"),
        (128 + signal.SIGTERM, 0, None),
    ],
)
def test_a_run_that_fails_or_grows_is_an_error(
    status, growing, message, run_study, tmp_path, monkeypatch
):
    seconds = np.arange(0, 100, 1.0)
    found = {"seconds": seconds.tolist(), "bytes": (1e9 + growing * seconds).tolist()}
    monkeypatch.setattr(soak, "watch", lambda *_: {**found, "status": status})
    arguments = ["--flags=x.cfg", f"--workdir={tmp_path / 'run'}", f"--output={tmp_path}"]
    if message:
        with pytest.raises(UsageError, match=message):
            run_study(soak, *arguments)
    else:
        run_study(soak, *arguments)
    written = {path.name for path in tmp_path.iterdir()}
    assert written == (set() if status == 1 else {"soak.json", "soak.md", "soak.png"})
