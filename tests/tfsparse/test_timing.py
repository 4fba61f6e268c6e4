"""Functions timed in turns."""

import pytest

from tfsparse import timing


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
