import keras
import numpy as np
import pytest

from tflite import file_metadata
from tflite.compact import compact
from tflite.convert import convert
from tflite.runtimes import FileModel
from tfsparse.errors import UsageError


@pytest.fixture(scope="module")
def content():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    return convert(keras.Sequential(layers), "float32")


def test_what_is_embedded_is_read(content):
    facts = {"labels": ["Käse", "b"], "pattern": None, "density": 0.1, "input_range": [0, 1]}
    assert file_metadata.read(content) == {}
    embedded = file_metadata.embed(content, facts)
    assert file_metadata.read(embedded) == file_metadata.read(compact(embedded)) == facts
    images = np.random.default_rng(0).random((5, 8, 8, 1))
    np.testing.assert_array_equal(FileModel(embedded)(images), FileModel(content)(images))


def test_embedding_again_replaces(content):
    facts = {"labels": None, "density": 0.5}
    twice = file_metadata.embed(file_metadata.embed(content, {"labels": ["other"] * 100}), facts)
    assert file_metadata.read(twice) == facts
    assert twice == file_metadata.embed(content, facts)


@pytest.mark.parametrize(
    "damaged", [b"", b"no flatbuffer", bytes(100), b"\xff" * 4 + b"TFL3" + b"\xff" * 99]
)
def test_bytes_that_are_no_file(damaged):
    with pytest.raises(UsageError, match="Cannot read the metadata"):
        file_metadata.read(damaged)


def test_metadata_that_is_no_json(content):
    embedded = file_metadata.embed(content, {"a": 1})
    with pytest.raises(UsageError, match="Cannot read the metadata"):
        file_metadata.read(embedded.replace(b'{"a":1}', b'{"a":1,'))
