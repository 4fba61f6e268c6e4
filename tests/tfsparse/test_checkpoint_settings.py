"""A checkpoint is refused by a run with other settings, before anything is restored."""

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy

from tests.tfsparse.test_training import make_trainer
from tfsparse import UsageError
from tfsparse.checkpoints import Checkpoints
from tfsparse.pruning import DNR, RigL


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"end_step": 7}, "schedule"),
        ({"algorithm": RigL()}, "algorithm"),
        ({"algorithm": DNR(rho=1e-3)}, "algorithm"),
        ({"structure": "channel"}, "structure"),
        ({"rate": 0.2}, "optimizer.learning_rate"),
        ({"optimizer": keras.optimizers.SGD(0.1, momentum=0.8)}, "optimizer."),
        ({"optimizer": keras.optimizers.Adam(0.1)}, "optimizer"),
        ({"beta": 0.3}, "beta"),
        ({"label_smoothing": 0.1}, "label_smoothing"),
    ],
)
def test_checkpoint_of_other_settings(tmp_path, changes, name):
    Checkpoints(tmp_path, make_trainer()).save()
    trainer = make_trainer(**changes)
    before = [to_numpy(variable) for variable in trainer.variables.values()]
    with pytest.raises(
        UsageError, match=rf"was written with {name}.*This run has {name}"
    ) as caught:
        Checkpoints(tmp_path, trainer).restore()
    assert "\n" not in str(caught.value)
    for variable, value in zip(trainer.variables.values(), before, strict=True):
        np.testing.assert_array_equal(to_numpy(variable), value)


def test_a_learning_rate_that_training_changed_is_no_other_setting(tmp_path):
    def trainer():
        return make_trainer(optimizer=keras.optimizers.SGD(0.1, momentum=0.9))

    first, second, scaled = trainer(), trainer(), trainer()
    checkpoints = Checkpoints(tmp_path, first)
    first.optimizer.learning_rate.assign(0.01)
    checkpoints.save()
    Checkpoints(tmp_path, second).restore()
    assert to_numpy(second.optimizer.learning_rate) == np.float32(0.01)
    scaled.optimizer = keras.optimizers.LossScaleOptimizer(scaled.optimizer)
    with pytest.raises(UsageError, match="LossScaleOptimizer"):
        Checkpoints(tmp_path, scaled).restore()
