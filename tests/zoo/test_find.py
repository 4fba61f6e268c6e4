"""Models of the zoo by what they need and what they can do."""

import json

import pytest

import zoo
from tflite.boards import BOARDS, find_board
from tfsparse import UsageError
from zoo import models
from zoo.cards import Card

CARDS = [zoo.card(name) for name in zoo.list_models()]


@pytest.mark.parametrize("robust", [True, False, None])
def test_the_best_comes_first(robust):
    cards = zoo.find(robust=robust)
    ranking = "autoattack" if robust else "clean"
    keys = (ranking, "clean")
    accuracies = [tuple(card["results"][key]["accuracy"] for key in keys) for card in cards]
    assert accuracies == sorted(accuracies, reverse=True)
    losses = {True: {"hybrid"}, False: {"standard"}, None: {"hybrid", "standard"}}[robust]
    assert {card["recipe"]["loss"] for card in cards} == losses
    assert len(cards) == sum(card["recipe"]["loss"] in losses for card in CARDS)


def test_a_model_without_autoattack_comes_last(monkeypatch):
    cards = {name: zoo.card(name) for name in zoo.list_models()}
    best = zoo.find(robust=True)[0]["name"]
    del cards[best]["results"]["autoattack"]
    monkeypatch.setattr(models, "card", cards.get)
    assert zoo.find(robust=True)[-1]["name"] == best


def test_limits_are_met_and_none_is_left_out():
    sizes = {
        card["name"]: (card["tflite"]["bytes"], card["device"]["arena_bytes"]) for card in CARDS
    }
    for limit in (0, 93_296, 10**9):
        assert zoo.list_models(max_flash=limit) == [n for n in sizes if sizes[n][0] <= limit]
    for limit in (20_735, 20_736):
        assert zoo.list_models(max_ram=limit) == [n for n in sizes if sizes[n][1] <= limit]
    instructions = {card["name"]: card["c_package"]["instructions"] for card in CARDS}
    for limit in (0, 3_512_688, 3_512_689):
        few = [n for n in instructions if instructions[n] <= limit]
        assert zoo.list_models(max_instructions=limit) == few
    board = find_board("micro:bit")
    fit = [n for n, (flash, ram) in sizes.items() if flash <= 512 * 1024 and ram <= 128 * 1024]
    assert 0 < len(fit) < len(sizes)
    assert zoo.list_models(board="micro:bit") == fit
    assert board.flash_kb == 512
    (only,) = zoo.find(dataset="fashion_mnist_small")
    assert only["dataset"] == "fashion_mnist_small"


def test_the_robust_models_that_fit_100_kb():
    """The answer of `tfsparse models --robust --max_flash=100k`, from the cards' bytes."""
    found = [card["name"] for card in zoo.find(robust=True, max_flash=100e3, dataset="cifar10")]
    few = [card for card in CARDS if card["tflite"]["bytes"] <= 100_000]
    few = [card for card in few if card["recipe"]["loss"] == "hybrid"]
    assert sorted(found) == sorted(c["name"] for c in few if c["dataset"] == "cifar10")


def test_boards_by_name():
    for board in BOARDS:  # a name that is part of another one, too
        assert find_board(board.name) == board
    for name in ("nucleo", "Commodore 64", None):
        with pytest.raises(UsageError, match=f"board must be one of .*Received: {name!r}"):
            find_board(name)
    with pytest.raises(UsageError, match="max_flash must be a number"):
        zoo.list_models(max_flash="100k")
    with pytest.raises(UsageError, match=r"robust must be True, False, or None. Received: 'no'"):
        zoo.list_models(robust="no")
    with pytest.raises(UsageError, match=r"dataset must be one of cifar10, .*Received: 'mnist'"):
        zoo.find(dataset="mnist")


def test_a_card_prints_as_a_page_and_is_a_dict():
    for card in CARDS:
        lines = str(card).splitlines()
        assert lines[0] == card["name"]
        assert max(map(len, lines)) <= 100
        assert json.loads(json.dumps(card)) == card
    card = zoo.card("resnet8_dnr10_cifar10")
    teachers = ["resnet18_w16_dense_robust_cifar10", "vgg16_w16_dense_robust_cifar10"]
    taught = Card({**card, "recipe": {**card["recipe"], "teacher": teachers}})
    page = " ".join(str(taught).split())
    attacked, dense = (
        zoo.card(name)["results"]["autoattack"]
        for name in ("resnet8_dnr10_cifar10", "resnet8_dense_robust_cifar10")
    )
    for text in (
        "resnet8_dnr10_cifar10 DNR on a microcontroller: about as robust as the dense ResNet8 in",
        "teacher resnet18_w16_dense_robust_cifar10 teacher vgg16_w16_dense_robust_cifar10",
        "pruning dnr, unstructured",
        "data cifar10 (JPEG copy)",
        "weights 9,666 non-zero of 78,714 dense",
        "accuracy, clean 55.14% (n=10,000, 95 % interval 54.2% to 56.1%)",
        f"accuracy, AutoAttack {attacked['accuracy']:.2%} (n={attacked['examples']:,}, ",
        "threat model white box, each value changed by up to 8/255 (L_inf)",
        "as C 24.9 kB of flash, 36.6 kB of RAM, 5.6 M instructions (Cortex-M4)",
        f"clean 64.57%, AutoAttack {dense['accuracy']:.2%} (n={dense['examples']:,})",
        "int8 file, worst attack 23.00% (n=200, ",
        "clean 60.5%, transfer 23.0%, PGD 23.0%, DIVA 60.5%, Square 42.5%",
        "over seeds clean 55.6 ± 0.4%, PGD-50 21.9 ± 0.5% (n=3, ± standard deviation)",
        "up to 8/255",
    ):
        assert text in page
