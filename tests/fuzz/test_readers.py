"""Readers of foreign data under property-based fuzzing: only our own error comes out.

By default each test tries 300 inputs; `--hypothesis-profile=long` tries 40,000 (conftest.py).
"""

import gzip
import json
import tracemalloc

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import zoo
from tflite import file_metadata
from tflite.convert import convert
from tfsparse import UsageError, load_weights, patterns, save_weights
from tfsparse.layers import PeriodicConv2D
from zoo.cards import read_card

MEMORY = 50e6  # bytes that reading an input of a few kilobytes may take

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=20,
)


def only_ours(function, *arguments):
    """Calls `function`; its result, or None where it refused as it should."""
    tracemalloc.start()
    try:
        return function(*arguments)
    except UsageError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return None
    finally:
        assert tracemalloc.get_traced_memory()[1] < MEMORY
        tracemalloc.stop()


def damaged(content):
    """A strategy of what can become of bytes: cut, changed in places, something put in."""
    places = st.integers(0, len(content) - 1)
    changed = st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=8).map(
        lambda changes: _changed(content, changes)
    )
    put_in = st.tuples(places, st.binary(max_size=16)).map(
        lambda put: content[: put[0]] + put[1] + content[put[0] :]
    )
    return changed | put_in | places.map(lambda end: content[:end]) | st.binary(max_size=200)


def _changed(content, changes):
    content = bytearray(content)
    for place, byte in changes:
        content[place] = byte
    return bytes(content)


# ---- pattern names ----

near_names = st.from_regex(r"(PSD?|pSC)-?[0-9]{0,12}(_[PFS]-?[0-9]{0,12}){0,3}", fullmatch=True)


numbers = st.integers(-1, 3) | st.integers() | st.floats() | json_values
near_supports = st.fixed_dictionaries(
    {"supports": st.lists(st.lists(st.lists(numbers, min_size=2, max_size=2), max_size=3))},
    optional={"filter_phases": numbers},
)


@given(near_names | near_supports | st.text(max_size=30) | json_values)
def test_patterns(value):
    pattern = only_ours(patterns.parse, value)
    if pattern is not None:
        mask = only_ours(pattern.mask, (3, 3), 8, 8)
        assert mask is None or mask.shape == (3, 3, 8, 8)


# ---- cards ----

NAME = zoo.list_models()[0]
CARD = zoo.card(NAME)


def mutated(value, where, new):
    """`value` with what is at a path of keys replaced."""
    if not where or not isinstance(value, dict) or not value:
        return new
    keys = sorted(value)
    key = keys[where[0] % len(keys)]
    return {**value, key: mutated(value[key], where[1:], new)}


@given(
    st.tuples(st.lists(st.integers(0, 30), min_size=1, max_size=2), json_values).map(
        lambda change: json.dumps(mutated(CARD, *change)).encode()
    )
    | damaged(json.dumps(CARD).encode())
)
def test_cards(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "card.json"
    path.write_bytes(content)
    card = only_ours(read_card, path)
    if card is not None:
        for kind in ("weights", "tflite"):
            assert (path.parent / card[kind]["file"]).resolve().parent == path.parent.resolve()


# ---- weights ----


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((8, 8, 4)),
        PeriodicConv2D(8, 3, "PS2_P6"),
        keras.layers.Conv2D(8, 3),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3),
    ]
    model = keras.Sequential(layers)
    kernel = model.layers[1].kernel
    kernel.assign(np.where(np.random.default_rng(0).random(kernel.shape) < 0.1, kernel, 0))
    return model


@pytest.fixture(scope="module")
def content(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_weights(model, path)
    return path.read_bytes()


@given(data=st.data())
def test_weights(model, content, tmp_path_factory, data):
    """Damage before compression, which its checksum cannot notice, and after it."""
    plain = tmp_path_factory.getbasetemp() / "fuzzed.safetensors"
    compressed = plain.with_suffix(".safetensors.gz")
    changed = data.draw(damaged(content))
    plain.write_bytes(changed)
    before = model.get_weights()
    only_ours(load_weights, model, plain)
    compressed.write_bytes(gzip.compress(changed, 1))
    only_ours(load_weights, model, compressed)
    compressed.write_bytes(data.draw(damaged(gzip.compress(content, mtime=0))))
    only_ours(load_weights, model, compressed)
    for weight, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, other)


# ---- metadata of .tflite files ----


@pytest.fixture(scope="module")
def described():
    inputs = keras.Input((4, 4, 1))
    dense = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    about = {"labels": ["a", "b"], "input_range": [0.0, 1.0], "pattern": "PS4_P4", "density": 0.1}
    content = bytes(file_metadata.embed(convert(dense, "float32"), about))
    assert file_metadata.read(content) == about
    return content


@given(data=st.data())
def test_metadata(described, data):
    found = only_ours(file_metadata.read, data.draw(damaged(described)))
    assert found is None or isinstance(found, dict)
