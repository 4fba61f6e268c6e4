"""PGD far above AutoAttack on the same images: the warning is shown wherever both are."""

import copy
import json

import pytest

import zoo
from studies import field, robustness, zoo_table
from tests.studies.conftest import RESULTS
from zoo import models_page, verification
from zoo.cards import gap_warning
from zoo.commands import models as command
from zoo.robustness import pictures

WARNING = "PGD 7.0 points above AutoAttack, more than 6"


@pytest.mark.parametrize(
    ("pgd", "autoattack", "name", "examples", "warning"),
    [
        (0.27, 0.20, "pgd_200", 200, WARNING),
        (0.27, 0.20, "pgd", 200, WARNING),  # as in a report of evaluate
        (0.26, 0.20, "pgd_200", 200, ""),  # not more than 6
        (0.261, 0.20, "pgd_200", 200, WARNING.replace("7.0", "6.1")),
        (0.27, 0.20, "pgd", 1000, ""),  # of other images
        (0.20, 0.27, "pgd_200", 200, ""),
        (None, 0.20, "pgd_200", 200, ""),
        (0.27, None, "pgd_200", 200, ""),
    ],
)
def test_pgd_far_above_autoattack_is_flagged(pgd, autoattack, name, examples, warning):
    results = {
        name: pgd and {"accuracy": pgd, "examples": examples},
        "autoattack": autoattack and {"accuracy": autoattack, "examples": 200},
    }
    assert gap_warning(results) == warning


@pytest.fixture
def overstated():
    """A card whose accuracy under PGD is 7 points above that under AutoAttack."""
    card = copy.deepcopy(zoo.card("resnet8_dnr10_cifar10"))
    results = card["results"]
    results["pgd_200"] = {**results["pgd"], "accuracy": 0.27, "examples": 200}
    results["autoattack"].update(accuracy=0.2, examples=200)
    return card


def test_the_flag_is_wherever_both_figures_are(overstated, monkeypatch):
    card, true = overstated, zoo.card("resnet8_dnr10_cifar10")

    def both(show, flag=WARNING):
        assert flag in str(show(card))
        assert flag not in str(show(true))

    both(str)
    both(lambda about: command.table([about]), "20.0%* !")
    both(models_page._facts)
    both(zoo_table._row, "PGD 27.0 **!**, n=200")
    both(field._own_row, "27.0 **!** (n=200)")
    monkeypatch.setattr(zoo, "load", lambda _: None)
    monkeypatch.setattr(verification, "measure", lambda *_: {"results": {}})
    monkeypatch.setattr(verification, "compare", lambda *_: [])

    def verified(about):
        monkeypatch.setattr(zoo, "card", lambda _: about)
        return verification.verify("any", fast=True)[0]

    both(verified)


def test_the_flag_is_wherever_both_attacks_were_run():
    record = json.loads((RESULTS / "robustness.json").read_text())
    parts = robustness.reports(record)["resnet8_dnr10_cifar10"]
    report = {**parts["white_box"], "sweeps": {}, "masking": []}
    pgd = report["results"]["pgd"]
    for points, count in ((0.06, 0), (0.07, 1)):
        weaker = {**pgd, "accuracy": pgd["accuracy"] - points}
        results = {**report["results"], "autoattack": weaker}
        assert pictures.text({**report, "results": results}).count(f"warning: {WARNING}") == count
        models = {"a": {**parts, "autoattack": {"results": results}}}
        assert robustness._white_box(models, "cifar10").count(" **!**") == count
