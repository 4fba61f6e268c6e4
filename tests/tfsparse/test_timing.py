"""Functions timed in turns, by what they are called."""

import json
import os
import pathlib
import platform

import pytest

from tfsparse import UsageError, timing


@pytest.mark.parametrize("warm_up", [1, 4])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_round_runs_each_once_and_begins_with_the_next(count, warm_up):
    calls = []
    names = "abc"[:count]
    functions = {name: lambda name=name: calls.append(name) for name in names}
    samples = timing.interleaved(functions, 0.01, warm_up)
    measured = "".join(calls)[warm_up * count :]
    rounds = len(measured) // count
    assert rounds > count
    assert {name: len(values) for name, values in samples.items()} == dict.fromkeys(names, rounds)
    for index in range(rounds):
        turn = index % count
        expected = names[turn:] + names[:turn]
        assert measured[index * count : (index + 1) * count] == expected


def test_without_time_there_is_one_round():
    assert len(timing.interleaved({"a": lambda: None}, 0)["a"]) == 1


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (
            "model name\t: A CPU\nflags\t: fpu avx2 avx512f avx512_vnni sse\n",
            "A CPU (avx2, avx512f, ",
        ),
        ("model name\t: Old\nflags\t: fpu avx\n", "Old"),
        (
            "Features\t: fp asimd asimddp\n",
            f"{platform.processor() or platform.machine()} (asimddp)",
        ),
    ],
)
def test_the_processor_has_what_times_depend_on(text, name, monkeypatch):
    monkeypatch.setattr(pathlib.Path, "read_text", lambda _: text)
    assert timing.processor()["cpu"].startswith(name)
    assert ("(" in timing.processor()["cpu"]) == ("(" in name)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux has it")
def test_cores_are_those_that_this_process_may_use():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert timing.cores() == timing.processor()["cores"] == 1
    finally:
        os.sched_setaffinity(0, before)
    assert timing.cores() == len(before)


def test_columns_are_aligned():
    table = timing.aligned([["", "ms"], ["long name", "1.25"]])
    assert table.splitlines() == ["             ms", "long name  1.25"]


def test_record_adds_and_replaces(tmp_path):
    def page(runs):
        return ", ".join(f"{run['settings']['name']} {run['value']}" for run in runs)

    for name, value in (("b", 1), ("a", 2), ("b", 3)):
        timing.record(tmp_path / "new", "times", {"settings": {"name": name}, "value": value}, page)
    assert (tmp_path / "new" / "times.md").read_text() == "a 2, b 3"
    assert len(json.loads((tmp_path / "new" / "times.json").read_text())) == 2
    for content in ("{", "7", "[7]", '[{"settings": 1}, 2]'):
        (tmp_path / "times.json").write_text(content)
        with pytest.raises(UsageError, match=r"times\.json.*Remove the file"):
            timing.record(tmp_path, "times", {"settings": {}, "value": 1}, page)
        assert (tmp_path / "times.json").read_text() == content
