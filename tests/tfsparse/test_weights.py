"""Weight files: exact, readable without tfsparse, bounded in size, checked."""

import gzip
import json
import tracemalloc

import keras
import numpy as np
import pytest

import tfsparse
from tests.tfsparse.weight_files import (
    NAMES,
    RNG,
    assert_equal,
    clear,
    content_of,
    network,
    prune,
    saved,
)
from tfsparse import UsageError
from tfsparse.files import read_tensors, write_tensors
from tfsparse.layers import PeriodicConv2D

PATTERNS = ["PS4_P4", "PSD1_P16", "PS2_P6_F2", "PS5_P3", "pSC4_S7", "PS1_P9_F1"]
PATTERNS.append({"supports": [[[0, 0], [1, 1]], [[2, 2]], [[0, 1]]], "filter_phases": 2})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_round_trip(tmp_path, pattern, name):
    """Against Keras' own files, and in any program that reads safetensors."""
    model = network(pattern, width=7)
    for layer in ("periodic", "dense"):
        kernel = model.get_layer(layer).kernel
        prune(kernel, RNG.random(kernel.shape) < 0.3)
    expected = saved(model)
    model.save_weights(tmp_path / "keras.weights.h5")
    tfsparse.save_weights(model, tmp_path / name)
    clear(model)
    tfsparse.load_weights(model, tmp_path / name)
    assert_equal(model, expected)
    clear(model)
    model.load_weights(tmp_path / "keras.weights.h5")
    assert_equal(model, expected)
    tensors, metadata = content_of(tmp_path / name)
    assert sorted(tensors) == [f"{i:04}/{each.path}" for i, each in enumerate(model.weights)]
    for (_, tensor), values in zip(sorted(tensors.items()), expected, strict=True):
        np.testing.assert_array_equal(tensor, values)
        assert not np.signbit(tensor[tensor == 0]).any()
    layer = model.get_layer("periodic")
    about = json.loads(metadata["periodic"])["0000/periodic/kernel"]
    assert about == {"pattern": layer.pattern.config, "kernel_shape": [3, 3, 6, 7]}
    twin = PeriodicConv2D(7, 3, about["pattern"])  # the file alone gives the dense kernel
    twin.build((None, 8, 8, 6))
    twin.kernel.assign(tensors["0000/periodic/kernel"])
    np.testing.assert_array_equal(twin.dense_kernel(), layer.dense_kernel())


@pytest.mark.parametrize("name", NAMES)
def test_same_weights_give_the_same_bytes(tmp_path, name):
    model, contents = network(), set()
    for index in range(3):
        tfsparse.save_weights(model, tmp_path / str(index) / name)
        contents.add((tmp_path / str(index) / name).read_bytes())
    assert len(contents) == 1


def test_zeros_take_next_to_nothing_in_compressed_files(tmp_path):
    inputs = keras.Input((128,))
    model = keras.Model(inputs, keras.layers.Dense(512)(inputs))
    kernel = model.weights[0]
    prune(kernel, RNG.random(kernel.shape) < 0.05)
    for name in NAMES:
        tfsparse.save_weights(model, tmp_path / name)
    plain, compressed = ((tmp_path / name).stat().st_size for name in NAMES)
    assert plain > 4 * 128 * 512
    assert compressed < 0.1 * plain


def normalized():
    """Layers that derive constants from their weights, in nested models and wrappers, too."""
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Normalization()])
    inputs = keras.Input((5, 3))
    x = keras.layers.Normalization(axis=(1, 2))(inputs)
    x = keras.layers.TimeDistributed(keras.layers.Normalization())(x)
    x = keras.layers.TimeDistributed(inner)(x)
    return keras.Model(inputs, keras.layers.Discretization(bin_boundaries=[0.0, 1.0])(x))


def test_layers_are_finalized_as_by_keras(tmp_path):
    data = RNG.normal(3, 2, (64, 5, 3)).astype("float32")
    model, loaded, by_keras = normalized(), normalized(), normalized()
    model.layers[1].adapt(data)
    for layer in (model.layers[2].layer, model.layers[3].layer.layers[0]):
        layer.adapt(data.reshape(-1, 3))
    model.save_weights(tmp_path / "keras.weights.h5")
    by_keras.load_weights(tmp_path / "keras.weights.h5")
    tfsparse.save_weights(model, tmp_path / "model.safetensors")
    tfsparse.load_weights(loaded, tmp_path / "model.safetensors")
    expected = model(data).numpy()
    assert (normalized()(data).numpy() != expected).any()
    np.testing.assert_array_equal(by_keras(data), expected)
    np.testing.assert_array_equal(loaded(data), expected)


def test_automatic_names_and_equal_names(tmp_path):
    def build():
        inputs = keras.Input((8, 8, 3))
        part = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 1, name="conv")])
        twin = keras.Sequential([keras.Input((8, 8, 3)), PeriodicConv2D(4, 3, "PS2_P2")])
        return keras.Model(inputs, keras.layers.Conv2D(4, 3)(twin(part(inputs))))

    model, twin = build(), build()
    assert [v.path for v in model.weights] != [v.path for v in twin.weights]
    tfsparse.save_weights(model, tmp_path / "model.safetensors")
    tfsparse.load_weights(twin, tmp_path / "model.safetensors")
    assert_equal(twin, saved(model))
    # As another program would write it.
    tensors, _ = read_tensors(tmp_path / "model.safetensors")
    clear(twin)
    write_tensors(tmp_path / "model.safetensors", tensors)
    tfsparse.load_weights(twin, tmp_path / "model.safetensors")
    assert_equal(twin, saved(model))


def refused(model, path, match):
    before = saved(model)
    with pytest.raises(UsageError, match=match) as error:
        tfsparse.load_weights(model, path)
    assert "\n" not in str(error.value)
    assert_equal(model, before)


OTHERS = [
    (lambda: network("PS2_P4"), r"periodic/kernel F32\[192\] .*PS4_P4.*F32\[96\].*PS2_P4"),
    (lambda: network("PS4_P4_F2"), "PS4_P4.*PS4_P4_F2"),
    (lambda: network("PS4_P4", width=9), r"3, 3, 6, 8.*3, 3, 6, 9"),
    (lambda: network("PS4_P4", dtype="float64"), "F32.*F64"),
    (lambda: network("PS4_P4", use_bias=False), "10 weights, and the model 9"),
    (lambda: keras.models.clone_model(network(), clone_function=renamed), "dense/kernel.*other/k"),
    (lambda: keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), "more than .* bytes"),
]


def renamed(layer):
    config = layer.get_config()
    config["name"] = config["name"].replace("dense", "other")
    return layer.__class__.from_config(config)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("other", "match"), OTHERS)
def test_other_model(tmp_path, other, match, name):
    tfsparse.save_weights(network(), tmp_path / name)
    refused(other(), tmp_path / name, f"of another model: it has .*{match}")


def test_other_supports(tmp_path):
    first = {"supports": [[[0, 0]], [[1, 1]]]}
    second = {"supports": [[[0, 0]], [[1, 2]]]}
    tfsparse.save_weights(network(first), tmp_path / "model.safetensors")
    refused(network(second), tmp_path / "model.safetensors", r"\[1, 1\].*\[1, 2\]")


def test_unbuilt_model(tmp_path):
    model = keras.Sequential([keras.layers.Dense(3)])
    with pytest.raises(UsageError, match="Build it first"):
        tfsparse.save_weights(model, tmp_path / "model.safetensors")
    with pytest.raises(UsageError, match="Build it first"):
        tfsparse.load_weights(model, tmp_path / "model.safetensors")


@pytest.fixture(scope="module")
def pruned():
    model = network()
    prune(model.get_layer("dense").kernel, RNG.random((3, 3, 8, 16)) < 0.1)
    return model


@pytest.mark.parametrize("path", ["model.weights.h5", "model", "model.gz"])
def test_names_of_files(tmp_path, pruned, path):
    with pytest.raises(UsageError, match=rf"\.safetensors\.gz\. Received: .*{path}"):
        tfsparse.save_weights(pruned, tmp_path / path)
    assert not list(tmp_path.iterdir())
    refused(pruned, str(tmp_path / path), r"end in \.safetensors")


@pytest.mark.parametrize("name", NAMES)
def test_every_truncation_and_flipped_byte_is_noticed(tmp_path, pruned, name):
    path = tmp_path / name
    tfsparse.save_weights(pruned, path)
    content = path.read_bytes()
    expected = saved(pruned)
    for length in [*range(0, len(content), 307), len(content) - 1]:
        path.write_bytes(content[:length])
        refused(pruned, path, name)
    path.write_bytes(content + b"\1")
    refused(pruned, path, name)
    harmless = []
    for place in [*range(10), *range(10, len(content), 17)]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << RNG.integers(8)
        path.write_bytes(damaged)
        try:
            tfsparse.load_weights(pruned, path)
            harmless.append(place)
        except UsageError as error:
            assert "\n" not in str(error)  # noqa: PT017
        assert_equal(pruned, expected)
    if name.endswith(".gz"):
        assert max(harmless, default=0) < 10  # gzip's date and operating system
    else:  # the names of the metadata, or a capital letter in "\u002f" of JSON
        assert len(harmless) <= 5


def test_foreign_files(tmp_path, pruned):
    for name in NAMES:
        refused(pruned, tmp_path / name, "Cannot read .*: No such file or directory.*Check")
        (tmp_path / name).mkdir()
        refused(pruned, tmp_path / name, "Cannot read .*: Is a directory")
        (tmp_path / name).rmdir()
    path = tmp_path / NAMES[0]
    bfloat16 = b'{"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}'
    for content in (
        *(b"", b"PK\x03\x04 a zip", b"\xff" * 4096, b"\x08" + b"\0" * 7 + b"[[[[[[[["),
        *(gzip.compress(b""), len(bfloat16).to_bytes(8, "little") + bfloat16 + b"\0\0"),
    ):
        path.write_bytes(content)
        refused(pruned, path, "damaged or not a weight file|another model: it has 1 weights")
        compressed = path.with_suffix(".safetensors.gz")
        for inside in (content, gzip.compress(content)):
            compressed.write_bytes(inside)
            refused(pruned, compressed, "damaged or not a weight file|another model: it has 1")
    write_tensors(path, {f"a\n{index}": np.zeros(1, np.float32) for index in range(10)})
    refused(pruned, path, r"it has a 0 F32\[1\], and the model 0000/periodic/kernel F32")
    write_tensors(path, {"values": np.zeros(3, np.float32)})
    refused(pruned, path, r"it has 1 weights, and the model 10\. Build the model that was saved")


def test_what_would_decompress_to_gigabytes_is_refused(tmp_path, pruned):
    path = tmp_path / "model.safetensors.gz"
    path.write_bytes(gzip.compress(bytes(1 << 20)) * 4096)  # 4 GiB in 4 MiB
    tracemalloc.start()
    try:
        refused(pruned, path, "more than [0-9,]+ bytes, and the model fewer")
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()


def periodic(value):
    return lambda tensors, metadata: metadata.update(periodic=value)


FORGERIES = [
    *map(periodic, ["", "7", "null", "[", "[1]", "[" * 9000, '{"0000/periodic/kernel":7}', "{}"]),
    periodic('{"0000/periodic/kernel":{"pattern":"PS4_P4","kernel_shape":[3,3,6,9]}}'),
    periodic('{"0000/periodic/kernel":{"pattern":"PS4_P2","kernel_shape":[3,3,6,8]}}'),
    lambda tensors, metadata: metadata.update(crc32="0"),
    lambda tensors, metadata: metadata.pop("crc32"),
    lambda tensors, metadata: tensors.update(more=np.zeros(1, np.uint8)),
    lambda tensors, metadata: tensors.popitem(),
    *(
        lambda tensors, metadata, change=change: tensors.update(
            {"0002/norm/gamma": change(tensors["0002/norm/gamma"])}
        )
        for change in (
            lambda values: values[:-1],
            lambda values: np.append(values, np.float32(1)),
            lambda values: values.astype(np.float64),
            lambda values: values[None],
            lambda values: values.view(np.int32),
            lambda values: values + 1,  # the checksum is that of before
        )
    ),
]


@pytest.mark.parametrize("change", FORGERIES)
def test_forged_files(tmp_path, pruned, change):
    path = tmp_path / "model.safetensors"
    tfsparse.save_weights(pruned, path)
    tensors, metadata = read_tensors(path)
    write_tensors(path, tensors, metadata)
    tfsparse.load_weights(pruned, path)
    change(tensors, metadata)
    write_tensors(path, tensors, metadata)
    refused(pruned, path, "model.safetensors is")
