"""The benchmark of TFLite files: order, arithmetic, and delegation; no times."""

import gzip
import sys

import keras
import numpy as np
import pytest

from tflite.benchmark import benchmark, delegation, summary
from tflite.memory import peak_memory
from tflite.quiet import quiet
from tfsparse import UsageError

with quiet():
    import tensorflow as tf


def converted(model):
    with quiet():
        return tf.lite.TFLiteConverter.from_keras_model(model).convert()


@pytest.fixture(scope="module")
def contents():
    """Two networks that XNNPACK runs as a whole: one convolution, and two inputs added."""
    keras.utils.set_random_seed(0)
    image, other = (keras.Input((8, 8, 3), batch_size=1) for _ in range(2))
    plain = keras.Model(image, keras.layers.Conv2D(4, 3)(image))
    added = keras.layers.Add()([image, keras.layers.Conv2D(3, 3, padding="same")(other)])
    return {"plain": converted(plain), "two inputs": converted(keras.Model([image, other], added))}


def test_summary_of_raw_samples():
    rng = np.random.default_rng(0)
    samples = {name: rng.random(100).tolist() for name in ("first", "second")}
    result = summary(samples)
    first, second = (np.sort(samples[name]) for name in samples)
    assert result["second"]["runs"] == 100
    assert result["second"]["minimum_ms"] == pytest.approx(1000 * second[0])
    assert result["second"]["median_ms"] == pytest.approx(500 * (second[49] + second[50]))
    # Nine tenths of the way from the first of 100 to the last: a tenth of a step past the 90th.
    assert result["second"]["p90_ms"] == pytest.approx(900 * second[89] + 100 * second[90])
    assert result["second"]["minimum_speedup"] == pytest.approx(first[0] / second[0])
    assert result["second"]["median_speedup"] == pytest.approx(np.median(first) / np.median(second))
    assert result["first"]["minimum_speedup"] == result["first"]["median_speedup"] == 1


def test_rows_describe_their_files(contents):
    rows = benchmark(contents, threads=2, seconds=0.05)
    assert [row["name"] for row in rows] == list(contents)
    for row, content, operators in zip(rows, contents.values(), (1, 2), strict=True):
        assert row["file_bytes"] == len(content)
        assert row["gzip_bytes"] == len(gzip.compress(content, mtime=0))
        assert (row["operators"], row["delegated_fraction"]) == (operators, 1)
        assert row["one_delegate"]
        assert row["threads"] == 2
        assert 0 < row["minimum_ms"] <= row["median_ms"] <= row["p90_ms"]
        for kind in ("minimum", "median"):
            ratio = rows[0][f"{kind}_ms"] / row[f"{kind}_ms"]
            assert row[f"{kind}_speedup"] == pytest.approx(ratio)


def test_operators_that_xnnpack_does_not_run_are_counted():
    """XNNPACK has no cumulative sum: of three operators it leaves the one in the middle."""
    image = keras.Input((8, 8, 3), batch_size=1)
    x = keras.ops.cumsum(keras.layers.Conv2D(4, 3)(image), axis=2)
    model = keras.Model(image, keras.layers.Conv2D(4, 3)(x))
    (row,) = benchmark({"split": converted(model)}, seconds=0)
    assert (row["operators"], row["one_delegate"]) == (3, False)
    assert row["delegated_fraction"] == pytest.approx(2 / 3)


@pytest.mark.skipif(sys.platform != "linux", reason="measured on Linux only")
def test_peak_memory_holds_weights_and_activations():
    """8 MB more of weights, or 16 MB of activations, show; XNNPACK packs weights into its own."""

    def peak(filters, size):
        image = keras.Input((size, size, 16), batch_size=1)
        return peak_memory(converted(keras.Model(image, keras.layers.Conv2D(filters, 5)(image))))

    small = peak(16, 8)
    assert 6e6 < peak(16 * 320, 8) - small < 30e6
    assert 6e6 < peak(16, 360) - small < 40e6


def operator(name, inputs, outputs):
    return {"op_name": name, "inputs": np.array(inputs), "outputs": np.array(outputs)}


def test_delegation_of_graphs():
    """A diamond: 0 -> 1, 1 -> 2, 1 -> 3, (2, 3) -> 4; tensor 9 is a constant."""
    graph = [
        operator("CONV_2D", [0, 9], [1]),
        operator("CONV_2D", [1, 9], [2]),
        operator("CUMSUM", [1], [3]),
        operator("ADD", [2, 3], [4]),
    ]
    expected = {"operators": 4, "delegated_fraction": 0, "one_delegate": False}
    assert delegation(graph) == expected
    whole = operator("DELEGATE", [0, 9], [4])
    assert delegation([*graph, whole]) == {
        **expected,
        "delegated_fraction": 1,
        "one_delegate": True,
    }
    convolutions = operator("DELEGATE", [0, 9], [1, 2])
    assert delegation([*graph, convolutions]) == {**expected, "delegated_fraction": 0.5}
    parts = [operator("DELEGATE", [0, 9], [1]), operator("DELEGATE", [1, 9], [4])]
    assert delegation([*graph, *parts]) == {**expected, "delegated_fraction": 1}


def test_what_cannot_be_measured_is_named(contents):
    with pytest.raises(UsageError, match="LiteRT cannot run noise"):
        benchmark({**contents, "noise": bytes(range(256))})
    with pytest.raises(UsageError, match="at least one file"):
        benchmark({})
    with pytest.raises(UsageError, match="Received: 0"):
        benchmark(contents, threads=0)
