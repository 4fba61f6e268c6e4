"""The records of runs: read, add, replace, and write with their page."""

import json
import multiprocessing
import sys

import pytest

from studies import records
from tfsparse import UsageError


def page(runs):
    return " ".join(str(run["value"]) for run in runs)


def test_a_run_replaces_one_of_equal_settings(tmp_path):
    for width, value in ((1, "a"), (2, "b"), (1, "c")):
        runs = records.record(tmp_path, "x", [{"settings": {"width": width}, "value": value}], page)
    assert [run["value"] for run in runs] == ["c", "b"]
    assert records.read(tmp_path, "x") == runs == json.loads((tmp_path / "x.json").read_text())
    assert (tmp_path / "x.md").read_text() == "c b"


def test_keys_and_order(tmp_path):
    new = [{"row": "b", "seed": 0, "value": 1}, {"row": "a", "seed": 0, "value": 2}]
    runs = records.record(tmp_path, "x", new, page, ("row", "seed"), lambda run: run["row"])
    assert [run["row"] for run in runs] == ["a", "b"]
    new = [{"row": "b", "seed": 1, "value": 3}]
    assert len(records.record(tmp_path, "x", new, page, ("row", "seed"))) == 3


def test_without_new_runs_the_page_alone_is_written(tmp_path):
    assert records.record(tmp_path, "x", [], page) == []
    assert not list(tmp_path.iterdir())
    text = '[{"settings": 0, "value": 4}]'
    (tmp_path / "x.json").write_text(text)
    records.record(tmp_path, "x", [], page)
    assert (tmp_path / "x.json").read_text() == text
    assert (tmp_path / "x.md").read_text() == "4"


@pytest.mark.parametrize("text", ["{", "3", '["a"]', '[{"no": 1}]', '{"settings": 1}'])
def test_a_damaged_record_is_one_error(text, tmp_path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UsageError, match=r"Cannot read the runs in .*x\.json.*Remove or repair"):
        records.record(tmp_path, "x", [{"settings": 0}], page)
    assert (tmp_path / "x.json").read_text() == text


def add(folder, letter):
    for number in range(40):
        records.record(
            folder, "x", [{"settings": f"{letter}{number}"}], lambda runs: str(len(runs))
        )


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not locked there")
def test_of_two_processes_that_add_runs_none_is_lost(tmp_path):
    context = multiprocessing.get_context("fork")  # the only one that need not import it all again
    processes = [context.Process(target=add, args=(tmp_path, letter)) for letter in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=100)
    assert [process.exitcode for process in processes] == [0, 0]
    found = {run["settings"] for run in records.read(tmp_path, "x")}
    assert found == {f"{letter}{number}" for letter in "ab" for number in range(40)}
    assert (tmp_path / "x.md").read_text() == "80"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.json", "x.md"]
