"""The one recorder of the studies' runs."""

import json

import pytest

from studies import records
from tfsparse import UsageError


def page(runs):
    return ", ".join(f"{run['settings']['name']} {run['value']}" for run in runs)


def test_a_run_is_added_or_replaces_one_of_the_same_settings(tmp_path):
    for name, value in (("b", 1), ("a", 2), ("b", 3)):
        run = {"settings": {"name": name}, "value": value}
        records.record(tmp_path / "new", "times", run, page)
    assert (tmp_path / "new" / "times.md").read_text() == "a 2, b 3"
    assert len(json.loads((tmp_path / "new" / "times.json").read_text())) == 2


@pytest.mark.parametrize("content", ["{", "7", "[7]", '[{"settings": 1}, 2]'])
def test_a_damaged_record_is_refused_and_left_as_it_is(tmp_path, content):
    (tmp_path / "times.json").write_text(content)
    with pytest.raises(UsageError, match=r"times\.json.*Remove the file"):
        records.record(tmp_path, "times", {"settings": {}, "value": 1}, page)
    assert (tmp_path / "times.json").read_text() == content
