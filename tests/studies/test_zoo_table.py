"""The table and the pictures of the zoo's models."""

import io

import numpy as np
import pytest

import zoo
from studies import zoo_table


@pytest.mark.parametrize("name", ["zoo_macs", "zoo_instructions", "zoo_robust"])
def test_pictures_show_all_cards(name):
    """One mark and one text for each CIFAR-10 model, the robust ones only where that is shown."""
    cards = [card for card in map(zoo.card, zoo.list_models()) if card["dataset"] == "cifar10"]
    if name == "zoo_robust":
        cards = [card for card in cards if card["recipe"]["loss"] == "hybrid"]
    (axes,) = zoo_table.picture(name).axes
    shown = sorted((text.xy[1], text.get_text()) for text in axes.texts)
    key = "autoattack" if name == "zoo_robust" else "clean"
    expected = {card["name"]: 100 * card["results"][key]["accuracy"] for card in cards}
    assert [height for height, _ in shown] == sorted(expected.values())
    words = dict((round(height, 2), text) for height, text in shown)
    for model, text in {
        "resnet8_narrow_cifar10": "dense",
        "resnet8_dnr_channel50_cifar10": "DNR 50 %, by channel",
        "vgg16_w16_magnitude5_cifar10": "per-layer magnitude 5 %",
        "vgg16_w16_dnr10_cifar10": "DNR 10 %",
        "resnet18_w16_psd2p8_cifar10": "PSD2_P8",
    }.items():
        same = [
            each
            for each in expected
            if round(expected[each], 2) == round(expected.get(model, 0), 2)
        ]
        assert len(same) != 1 or words[round(expected[model], 2)] == text
    kinds = {card["recipe"]["loss"] for card in cards}
    lines = [line.get_xydata() for line in axes.lines if line.get_drawstyle() == "steps-post"]
    assert len(lines) == 2 * len(kinds)  # of all models, and of dense ones
    points = {zoo_table._value(card, "clean") for card in cards} | set(expected.values())
    assert all(height in points for line in lines for height in line[:, 1])


@pytest.mark.parametrize("name", zoo_table._PICTURES)
def test_words_are_within_the_axes_as_the_picture_is_saved(name):
    figure = zoo_table.picture(name)
    figure.savefig(io.BytesIO(), dpi=100)  # as `records.save_picture` does
    (axes,) = figure.axes
    for text in axes.texts:
        box = text.get_window_extent()
        assert axes.bbox.x0 + 2 < box.x0 < box.x1 < axes.bbox.x1 - 2, text.get_text()


def test_pareto_points_are_those_that_no_other_dominates():
    rng = np.random.default_rng(0)
    points = [tuple(point) for point in rng.integers(0, 12, (60, 2)).tolist()]
    best = {
        (cost, accuracy)
        for cost, accuracy in points
        if not any(c <= cost and a >= accuracy and (c, a) != (cost, accuracy) for c, a in points)
    }
    assert zoo_table.pareto(points) == sorted(best)
