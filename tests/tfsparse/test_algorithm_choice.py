"""Which algorithm goes with which schedule."""

import keras
import pytest

from tfsparse import UsageError
from tfsparse._tfmot import PolynomialDecay
from tfsparse.pruning import ALGORITHMS, DNR, DNRSchedule, Magnitude, Pruner, RigL

REWIRING = [name for name, algorithm in ALGORITHMS.items() if algorithm().rewires]


def small_model():
    return keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Conv2D(8, 3), keras.layers.Flatten()]
    )


def test_the_algorithm_follows_from_the_schedule():
    model = small_model()
    for schedule, algorithm in ((DNRSchedule(0.7, 9, 3), DNR), (None, Magnitude)):
        pruner = Pruner(model, schedule)
        assert type(pruner.algorithm) is algorithm
        pruner.detach()
    pruner = Pruner(model, PolynomialDecay(0.2, 0.7, 2, 8))
    assert type(pruner.algorithm) is Magnitude


@pytest.mark.parametrize("name", REWIRING)
def test_rewiring_needs_a_prune_rate(name):
    algorithm = ALGORITHMS[name]
    for schedule, received in ((PolynomialDecay(0.2, 0.7, 2, 8), "PolynomialDecay"), (None, None)):
        message = (
            f"{algorithm.__name__} rewires and needs a schedule with a prune rate, such as "
            f"DNRSchedule. Received: {received}"
        )
        with pytest.raises(UsageError, match=f"^{message}$"):
            Pruner(small_model(), schedule, algorithm=algorithm())


@pytest.mark.parametrize(
    ("schedule", "algorithm", "message"),
    [
        (0.5, None, r"schedule must be None or a TF-MOT PruningSchedule, .*Received: 0\.5$"),
        (DNRSchedule, None, "schedule must be .*DNRSchedule'>$"),
        (DNRSchedule(0.7, 9, 3), "rigl", "algorithm must be None or an .*Received: 'rigl'$"),
        (DNRSchedule(0.7, 9, 3), RigL, "algorithm must be None or an .*RigL'>$"),
    ],
)
def test_what_is_no_schedule_or_algorithm_is_refused(schedule, algorithm, message):
    with pytest.raises(UsageError, match=message) as caught:
        Pruner(small_model(), schedule, algorithm=algorithm)
    assert "\n" not in str(caught.value)
