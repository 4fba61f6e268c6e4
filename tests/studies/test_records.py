"""The records of runs: read, add, replace, and write with their page."""

import json

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
