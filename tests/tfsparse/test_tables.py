"""Tables of text."""

from tfsparse import tables


def test_columns_are_aligned():
    table = tables.aligned([["", "ms"], ["long name", "1.25"]])
    assert table.splitlines() == ["             ms", "long name  1.25"]


def test_columns_on_the_left():
    table = tables.aligned([["a", "b", "c"], ["long", "name", "10"]], left=2)
    assert table.splitlines() == ["a     b      c", "long  name  10"]


def test_markdown():
    table = tables.markdown(["name", "ms"], [["a", 1], ["b", 2.5]])
    assert table.splitlines() == ["| name | ms |", "| --- | --- |", "| a | 1 |", "| b | 2.5 |"]
