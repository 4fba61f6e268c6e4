"""What takes the place of TF-MOT's classes does the same."""

import pytest
from tensorflow_model_optimization.sparsity import keras as sparsity

from tfsparse import interfaces
from tfsparse._tfmot import ask


@pytest.mark.parametrize("arguments", [(0.0, 0.9, 0, 60), (0.2, 0.55, 7, 31)])
def test_polynomial_decay(arguments):
    ours = interfaces.PolynomialDecay(*arguments, frequency=4)
    theirs = sparsity.PolynomialDecay(*arguments, frequency=4)
    assert ours.get_config() == theirs.get_config()
    steps = range(70)
    assert [bool(ours(step)[0]) for step in steps] == [ask(theirs, step)[0] for step in steps]
    sparsities = [ask(theirs, step)[1] for step in steps]
    assert [float(ours(step)[1]) for step in steps] == pytest.approx(sparsities, abs=1e-7)
    assert float(ours(arguments[3])[1]) == ask(theirs, arguments[3])[1]


@pytest.mark.parametrize(
    "arguments", [(0.0, 1.0, 0, 9), (-0.1, 0.5, 0, 9), (0.0, 0.5, 5, 4), (0.0, 0.5, -1, 4)]
)
def test_what_is_out_of_range_is_refused(arguments):
    for module in (interfaces, sparsity):
        with pytest.raises(ValueError, match=r"step|sparsity"):
            module.PolynomialDecay(*arguments)
