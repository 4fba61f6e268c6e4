"""The zoo beside published figures."""

import pytest

import zoo
from studies import field, records


def test_bars_are_those_of_the_table_and_the_cards():
    published = records.read_csv("field")
    names = [name for name in zoo.list_models() if zoo.card(name)["dataset"] == "cifar10"]
    robust = [zoo.card(name)["results"] for name in names if zoo.card(name)["recipe"]["eps"]]
    robust = [results for results in robust if results["autoattack"]["accuracy"] > 0]
    expected = [(float(row["clean"]), float(row["autoattack"])) for row in published]
    keys = ("clean", "autoattack")
    expected += [tuple(100 * results[key]["accuracy"] for key in keys) for results in robust]
    (axes,) = field.picture().axes
    widths = [patch.get_width() for patch in axes.patches]
    pairs = list(zip(widths[::2], widths[1::2], strict=True))
    assert sorted(pairs) == [pytest.approx(pair, abs=0.05) for pair in sorted(expected)]
    assert len(axes.get_yticks()) == len(pairs)


def test_every_published_figure_says_where_it_is_from():
    for row in field.published():
        cells = field._published_row(row)
        assert cells[2] == "original"
        assert ("read in" in cells[-1]) != ("table not seen" in cells[-1])
        assert bool(row["paper"]) == bool(row["link"])


def test_sparsity_is_of_the_dense_network():
    about = {"nonzero_parameters": 5, "dense_parameters": 100}
    assert field.sparsity(about) == 95
    assert field.sparsity(zoo.card("resnet8_dense_robust_cifar10")) == 0
