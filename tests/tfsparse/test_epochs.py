"""What is said of an epoch: whether it overfits to its attack, and which one is the best."""

import pytest

from tfsparse.epochs import best_epoch, overfits_attack


def row(clean, trained, held_out):
    return {
        "validation_clean_accuracy": clean,
        "train_adversarial_accuracy": trained,
        "validation_robust_accuracy": held_out,
    }


LEARNED = [row(0.5, 0.3, 0.25), row(0.6, 0.4, 0.35), row(0.7, 0.45, 0.35)]


@pytest.mark.parametrize(
    ("history", "overfits"),
    [
        (LEARNED, False),
        ([*LEARNED, row(0.8, 0.9, 0.02)], True),
        ([*LEARNED, row(0.8, 0.9, 0.02), row(0.9, 0.95, 0.03)], True),  # still
        ([*LEARNED, row(0.8, 0.45, 0.17)], True),  # less than half
        ([*LEARNED, row(0.8, 0.45, 0.18)], False),
        ([*LEARNED, row(0.7, 0.6, 0.45), row(0.8, 0.6, 0.24)], True),  # 21 points, and 36 below
        ([*LEARNED, row(0.7, 0.6, 0.45), row(0.8, 0.43, 0.24)], False),  # the attack finds as much
        ([*LEARNED, row(0.2, 0.1, 0.1)], False),  # diverged: all is lost
        ([*LEARNED, row(0.5, 0.5, 0.1)], False),  # so is clean accuracy
        ([row(0.3, 0.2, 0.01)], False),  # has yet to learn
        ([row(0.1, 0.2, 0.1), row(0.5, 0.3, 0.11)], False),
        # Never better than a guess: VGG16 of width 4, under an attack of one step.
        ([row(0.341, 0.167, 0.08), row(0.356, 0.313, 0.054)], True),
        ([row(0.341, 0.167, 0.08), row(0.356, 0.313, 0.13)], False),  # now it is
        ([row(0.341, 0.1, 0.08), row(0.356, 0.22, 0.08)], False),  # 14 points
        ([row(0.341, 0.33, 0.1), row(0.356, 0.21, 0.0)], True),
        ([row(0.3, 0.2, 0.15), row(0.5, 0.3, 0.01)], True),
    ],
)
def test_catastrophic_overfitting(history, overfits):
    assert overfits_attack(history, chance=0.12) == overfits


def test_few_images_tell_little():
    """Of 7 held-out images of two classes, guessing may get 6 right."""
    history = [row(0.571, 0.6, 0.429), row(0.571, 0.667, 0.429)]
    assert not overfits_attack(history, chance=6 / 7)


def test_a_network_that_has_yet_to_learn_unbalanced_classes():
    """The most frequent class, its only answer so far, is that of 56 % of the images."""
    history = [row(0.559, 0.5, 0.559), row(0.6, 0.545, 0.147)]
    assert not overfits_attack(history, chance=0.559)


def test_a_network_that_has_yet_to_learn_its_attack():
    """It is worse than a guess under the training attack, too."""
    history = [row(0.35, 0.2, 0.0), row(0.37, 0.227, 0.0)]
    assert not overfits_attack(history, chance=0.47)


def test_best_epoch():
    assert best_epoch(LEARNED) == 2
    assert best_epoch([*LEARNED, row(0.8, 0.9, 0.02)]) == 2
    assert best_epoch([{"validation_clean_accuracy": accuracy} for accuracy in (0.5, 0.6)]) == 2
    pruned = [(1.0, 0.9), (0.5, 0.8), (0.1, 0.6), (0.1, 0.7), (0.1, 0.65)]
    history = [{"density": d, "validation_clean_accuracy": a} for d, a in pruned]
    assert [best_epoch(history[:count]) for count in range(1, 6)] == [1, 2, 3, 4, 4]
    # Of channels: about the same density, from which few weights come and go.
    channels = [(1.0, 0.9), (0.49994, 0.5), (0.49999, 0.6), (0.49997, 0.7)]
    history = [{"density": d, "validation_clean_accuracy": a} for d, a in channels]
    assert best_epoch(history) == 4
