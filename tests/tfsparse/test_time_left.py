"""Times as people read them, and the time left on the progress bar of training."""

import types

import keras
import pytest
import tensorflow as tf
import tqdm

from tfsparse import training
from tfsparse.timing import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0 s"), (99.4, "99 s"), (99.6, "2 min"), (5940, "99 min"), (6000, "1.7 h")),
        *((172_000, "47.8 h"), (172_800, "2.0 days")),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_time_left_is_at_the_pace_after_the_first_step(fashion_mnist, monkeypatch):
    """Steps of 100, 2, 4, and 3 s, the first of which compiles; 6 follow in other epochs."""
    clock = iter([0, 100, 102, 106, 109])
    monkeypatch.setattr(training, "time", types.SimpleNamespace(perf_counter=lambda: next(clock)))
    shown = []
    monkeypatch.setattr(tqdm.tqdm, "set_postfix_str", lambda _, text, refresh: shown.append(text))
    data = tf.data.Dataset.from_tensor_slices((fashion_mnist[0][:32], fashion_mnist[1][:32]))
    inputs = keras.Input((28, 28, 1))
    model = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(inputs)))
    trainer = training.Trainer(model, keras.optimizers.SGD(0.1))
    trainer.run_epoch(data.batch(8), seed=0, steps_after=6)
    left = [text.partition(", ")[2] for text in shown]
    assert left == ["", "16 s left in all", "21 s left in all", "18 s left in all"]
