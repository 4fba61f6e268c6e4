"""Packed files: exact, as small as what they hold, readable without tfsparse, checked."""

import json
import re
import zlib

import keras
import numpy as np
import pytest
import safetensors.numpy

import zoo
from tfsparse import UsageError, elias_fano, packed, packing
from tfsparse.files import read_tensors, write_tensors
from tfsparse.layers import PeriodicConv2D
from tfsparse.pruning import DNRSchedule, Pruner

RNG = np.random.default_rng(0)


def network(pattern="PS4_P4", width=8, **options):
    """A periodic convolution, BatchNorm, a dense convolution and a classifier, by names."""
    inputs = keras.Input((8, 8, 6))
    x = PeriodicConv2D(width, 3, pattern, name="periodic", **options)(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Conv2D(16, 3, name="dense")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(10, name="classifier")(x))
    for variable in model.weights:
        variable.assign(RNG.normal(size=variable.shape))
    return model


def prune(variable, keep):
    """Multiplies with a mask, as pruners do: zeros of negative weights are -0.0."""
    variable.assign(variable.numpy() * keep)


def saved(model):
    return [variable.numpy().copy() for variable in model.weights]


def clear(model):
    for variable in model.weights:
        variable.assign(np.full(variable.shape, 7))


def assert_equal(model, expected):
    for variable, values in zip(model.weights, expected, strict=True):
        assert variable.numpy().dtype == values.dtype
        np.testing.assert_array_equal(variable.numpy(), values, err_msg=variable.path)


PATTERNS = ["PS4_P4", "PSD1_P16", "PS2_P6_F2", "PS5_P3", "pSC4_S7", "PS1_P9_F1"]
PATTERNS.append({"supports": [[[0, 0], [1, 1]], [[2, 2]], [[0, 1]]], "filter_phases": 2})


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("density", [1.0, 0.3, 0.05, 0.0])
def test_round_trip(tmp_path, pattern, density):
    model = network(pattern, width=7)
    for name in ("periodic", "dense"):
        kernel = model.get_layer(name).kernel
        prune(kernel, RNG.random(kernel.shape) < density)
    expected = saved(model)
    packed.save_weights(model, tmp_path / "model.safetensors")
    clear(model)
    packed.load_weights(model, tmp_path / "model.safetensors")
    assert_equal(model, expected)


def test_special_numbers_and_types(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(5, dtype="float64")(inputs))
    kernel = np.zeros((4, 5))
    kernel[0] = [np.nan, np.inf, -np.inf, 5e-324, 1.0]
    kernel.view(np.uint64)[1, 0] = 0x7FF8_0000_0000_1234  # a NaN with something in it
    model.layers[-1].kernel.assign(kernel)
    packed.save_weights(model, tmp_path / "model.safetensors")
    clear(model)
    packed.load_weights(model, tmp_path / "model.safetensors")
    assert model.layers[-1].kernel.numpy().tobytes() == kernel.tobytes()


def test_types_that_it_does_not_hold(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(5, dtype="bfloat16")(inputs))
    with pytest.raises(UsageError, match="of bfloat16"):
        packed.save_weights(model, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def bits(count):
    return -(-count // 8)


@pytest.mark.parametrize(
    ("keep", "packing_name", "index"),
    [
        (lambda shape: np.ones(shape), None, 0),
        (lambda shape: RNG.random(shape) < 0.5, "bitmap", bits(3 * 3 * 64 * 32)),
        (lambda shape: np.arange(64)[:, None] % 3 == 0, "channels", bits(64)),
        (lambda shape: np.arange(32) % 4 == 0, "filters", bits(32)),
        (lambda shape: RNG.random(shape) < 0.02, "elias-fano", None),
    ],
)
def test_takes_the_smallest_packing(keep, packing_name, index):
    shape = (3, 3, 64, 32)
    values = (RNG.normal(size=shape) * keep(shape)).astype("float32").ravel()
    found = packing.pack(values, np.arange(values.size), shape)
    assert found.packing == (packing_name or "plain")
    if index is None:
        # The information-theoretic bound is log2 of N over n; Elias-Fano is within 0.6 bits each.
        n, density = np.count_nonzero(values), np.count_nonzero(values) / values.size
        entropy = -np.log2(density) * density - np.log2(1 - density) * (1 - density)
        assert entropy * values.size < 8 * len(found.index) < entropy * values.size + 0.6 * n + 8
    else:
        assert len(found.index) == index


@pytest.mark.parametrize("places", [1, 2, 7, 64, 1000])
def test_elias_fano(places):
    for count in {1, 2, places // 3, places - 1, places} - {0}:
        if count > places:
            continue
        for _ in range(10):
            positions = np.sort(RNG.choice(places, count, replace=False))
            code = elias_fano.encode(positions, places)
            assert len(code) == elias_fano.size(count, places)
            np.testing.assert_array_equal(elias_fano.decode(code, count, places), positions)


MODELS = [
    ("resnet18", {"width": 64, "pattern": "PS4_P4"}, None),
    ("resnet18", {"width": 64, "pattern": "PSD1_P16"}, None),
    ("resnet18", {"width": 16}, 0.1),
    ("resnet18", {"width": 16, "pattern": "PS4_P4"}, 0.3),
    ("resnet8", {}, 0.05),
]


@pytest.mark.parametrize(("arch", "options", "density"), MODELS)
def test_size_is_that_of_values_and_index(tmp_path, arch, options, density):
    model = zoo.build(arch, (32, 32, 3), 10, **options)
    for variable in model.weights:  # BatchNorm's zeros would be left out
        variable.assign(RNG.normal(size=variable.shape))
    if density:
        Pruner(model, DNRSchedule(1 - density, 1, 1))
    packed.save_weights(model, tmp_path / "model.safetensors")
    values = sum(4 * np.count_nonzero(variable.numpy()) for variable in model.weights)
    bitmaps, periods = 0, 0
    for layer in model.layers:
        if isinstance(layer, (PeriodicConv2D, keras.layers.Conv2D)) and density:
            bitmaps += bits(np.prod(layer.kernel.shape))
        if isinstance(layer, PeriodicConv2D):
            periods += bits(9 * layer.pattern.period)
    size = (tmp_path / "model.safetensors").stat().st_size
    assert values <= size <= 1.01 * (values + bitmaps + periods) + 4096


def read_by_the_specification(path):
    """Returns the weights of a packed file, dense; by docs/packed_format.md, not by tfsparse."""
    with safetensors.safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        layers = json.loads(file.metadata()["layers"])
    weights = []

    def take(name, count):
        tensors[name], taken = tensors[name][count:], tensors[name][:count]
        return taken

    def take_bits(count):
        return np.unpackbits(take("index", -(-count // 8)))[:count]

    for description in (text for _, named in layers for text in named.values()):
        dtype, shape, *words = re.fullmatch(r"(\w+)\[([\d,]*)\](.*)", description).groups()
        shape, words = [int(n) for n in shape.split(",") if n], words[0].split()
        exists = np.ones(shape, bool)
        if len(words) % 2:
            period, phases = re.fullmatch(r"\w+_P(\d+?)(?:_F(\d+))?", words.pop(0)).groups()
            period, phases = int(period), int(phases or period)
            supports = take_bits(period * shape[0] * shape[1]).reshape(period, *shape[:2])
            for c, channels in enumerate(np.array_split(np.arange(shape[2]), period)):
                for f, filters in enumerate(np.array_split(np.arange(shape[3]), phases)):
                    support = supports[(c + f * period // phases) % period]
                    exists[:, :, channels[:, None], filters] = support[:, :, None, None]
        stored = exists.copy()
        name, n = (words[0], int(words[1])) if words else ("", exists.sum())
        if name == "bitmap":
            stored[exists] = take_bits(exists.sum())
        elif name == "channels":
            stored &= take_bits(shape[-2])[:, None].astype(bool)
        elif name == "filters":
            stored &= take_bits(shape[-1]).astype(bool)
        elif name == "elias-fano":
            size, low = int(exists.sum()), 0
            while 2 ** (low + 1) <= size / n:
                low += 1
            code = take_bits(n * low + n + ((size - 1) >> low))
            for i, one in enumerate(np.flatnonzero(code[n * low :])):
                places = stored[exists] if i else np.zeros(size, bool)
                low_bits = sum(int(code[i * low + b]) << b for b in range(low))
                places[((one - i) << low) + low_bits] = True
                stored[exists] = places
        weight = np.zeros(shape, dtype)
        weight[stored] = take(f"values.{dtype}", n)
        weights.append(weight)
    assert not any(len(tensor) for tensor in tensors.values())
    return weights


@pytest.mark.parametrize("pattern", ["PS4_P4", "PSD1_P16", "PS2_P6_F2", "PS1_P9_F1"])
def test_reads_as_specified(tmp_path, pattern):
    model = network(pattern, width=24)
    periodic, dense = model.get_layer("periodic"), model.get_layer("dense")
    prune(dense.kernel, RNG.random(dense.kernel.shape) < 0.05)
    packed.save_weights(model, tmp_path / "pruned.safetensors")
    prune(periodic.kernel, RNG.random(periodic.kernel.shape) < 0.5)
    prune(dense.kernel, np.arange(24)[:, None] % 2)
    packed.save_weights(model, tmp_path / "both.safetensors")
    prune(periodic.kernel, periodic.kernel_channels % 2)
    packed.save_weights(model, tmp_path / "channels.safetensors")
    for name in ("both", "channels", "pruned"):
        packed.load_weights(model, tmp_path / f"{name}.safetensors")
        expected = [
            np.array(periodic.dense_kernel()) if variable is periodic.kernel else variable.numpy()
            for variable in model.weights
        ]
        found = read_by_the_specification(tmp_path / f"{name}.safetensors")
        for weight, values in zip(found, expected, strict=True):
            np.testing.assert_array_equal(weight, values)


def test_automatic_names_and_equal_names(tmp_path):
    def build():
        inputs = keras.Input((8, 8, 3))
        part = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 1, name="conv")])
        twin = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 1, name="conv")])
        return keras.Model(inputs, keras.layers.Conv2D(4, 3)(twin(part(inputs))))

    model, twin = build(), build()
    assert [v.path for v in model.weights] != [v.path for v in twin.weights]
    packed.save_weights(model, tmp_path / "model.safetensors")
    packed.load_weights(twin, tmp_path / "model.safetensors")
    assert_equal(twin, saved(model))


def refused(model, path, match):
    before = saved(model)
    with pytest.raises(UsageError, match=match) as error:
        packed.load_weights(model, path)
    assert "\n" not in str(error.value)
    assert_equal(model, before)


OTHERS = [
    (lambda: network("PS2_P6"), r"periodic/kernel float32\[3,3,6,8\] PS4_P4.*PS2_P6"),
    (lambda: network("PS4_P4_F2"), "PS4_P4.*PS4_P4_F2"),
    (lambda: network("PS4_P4", width=9), r"3,3,6,8.*3,3,6,9"),
    (lambda: network("PS4_P4", dtype="float64"), "float32.*float64"),
    (lambda: network("PS4_P4", use_bias=False), "10 weights .* has 9"),
    (lambda: keras.models.clone_model(network(), clone_function=renamed), "dense/kernel.*other/k"),
]


def renamed(layer):
    config = layer.get_config()
    config["name"] = config["name"].replace("dense", "other")
    return layer.__class__.from_config(config)


@pytest.mark.parametrize(("other", "match"), OTHERS)
def test_other_model(tmp_path, other, match):
    packed.save_weights(network(), tmp_path / "model.safetensors")
    refused(other(), tmp_path / "model.safetensors", match)


def test_other_supports(tmp_path):
    first = {"supports": [[[0, 0]], [[1, 1]]]}
    second = {"supports": [[[0, 0]], [[1, 2]]]}
    packed.save_weights(network(first), tmp_path / "model.safetensors")
    refused(network(second), tmp_path / "model.safetensors", "custom_P2 with other supports")


def test_unbuilt_model(tmp_path):
    model = keras.Sequential([keras.layers.Dense(3)])
    with pytest.raises(UsageError, match="Build it first"):
        packed.save_weights(model, tmp_path / "model.safetensors")
    with pytest.raises(UsageError, match="Build it first"):
        packed.load_weights(model, tmp_path / "model.safetensors")


@pytest.fixture(scope="module")
def pruned():
    model = network()
    prune(model.get_layer("dense").kernel, RNG.random((3, 3, 8, 16)) < 0.1)
    return model


def test_every_truncation_and_flipped_byte_is_noticed(tmp_path, pruned):
    path = tmp_path / "model.safetensors"
    packed.save_weights(pruned, path)
    content = path.read_bytes()
    expected = saved(pruned)
    for length in [*range(0, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        refused(pruned, path, "model.safetensors")
    path.write_bytes(content + b"\0")
    refused(pruned, path, "model.safetensors")
    harmless = 0
    for place in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[place] ^= 1 << RNG.integers(8)
        path.write_bytes(damaged)
        try:
            packed.load_weights(pruned, path)
            harmless += 1  # such as a capital letter in "\u002f" of JSON
        except UsageError:
            pass
        assert_equal(pruned, expected)
    assert harmless <= 2


def test_foreign_files(tmp_path, pruned):
    path = tmp_path / "model.safetensors"
    refused(pruned, path, "Cannot read")
    for content in (b"", b"PK\x03\x04 a zip", b"\xff" * 4096, b"\x08" + b"\0" * 7 + b"[[[[[[[["):
        path.write_bytes(content)
        refused(pruned, path, "Cannot read")
    write_tensors(path, {"values.float32": np.zeros(3, np.float32)})
    refused(pruned, path, "holds no packed weights: its format is None")
    bfloat16 = b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    path.write_bytes(len(bfloat16).to_bytes(8, "little") + bfloat16 + b"\0\0")
    refused(pruned, path, "model.safetensors")


def forge(path, change):
    """Rewrites a packed file, with the right checksum, after `change(tensors, metadata)`."""
    tensors, metadata = read_tensors(path)
    change(tensors, metadata)
    checksum = zlib.crc32(metadata.get("layers", "").encode())
    for name in sorted(tensors):
        checksum = zlib.crc32(tensors[name].tobytes(), checksum)
    write_tensors(path, tensors, {**metadata, "crc32": str(checksum)})


def relabel(old, new):
    def change(tensors, metadata):
        assert old in metadata["layers"]
        metadata["layers"] = metadata["layers"].replace(old, new)

    return change


def in_metadata(**entries):
    return lambda tensors, metadata: metadata.update(entries)


def on(name, change):
    return lambda tensors, metadata: tensors.update({name: change(tensors[name])})


FORGERIES = [
    in_metadata(version="2"),
    in_metadata(layers=""),
    in_metadata(layers="{}"),
    in_metadata(layers="7"),
    in_metadata(layers="[" * 100_000),
    in_metadata(layers='[["periodic",["kernel"]]]'),
    in_metadata(layers='[["periodic",{"kernel":[1]}]]'),
    lambda tensors, metadata: metadata.pop("layers"),
    relabel("elias-fano ", "elias-fano 9"),
    relabel("elias-fano ", "elias-fano 99999999999999999"),
    relabel("elias-fano", "bitmap"),
    relabel("elias-fano", "channels"),
    relabel("elias-fano", "plain"),
    relabel("float32[16]", "float32[16] filters 16"),
    relabel("float32[10]", "float32[10] elias-fano 0"),
    on("index", lambda index: index[:-1]),
    on("index", lambda index: np.append(index, np.uint8(0))),
    on("index", lambda index: ~index),
    on("index", lambda index: np.where(np.arange(len(index)) < 5, index, 0).astype(np.uint8)),
    on("index", lambda index: index.astype(np.int64)),
    on("values.float32", lambda values: values[:-1]),
    on("values.float32", lambda values: np.append(values, np.float32(1))),
    on("values.float32", lambda values: values.astype(np.float64)),
    on("values.float32", lambda values: values[None]),
    lambda tensors, metadata: tensors.update(more=np.zeros(1, np.uint8)),
    lambda tensors, metadata: tensors.pop("index"),
]


@pytest.mark.parametrize("change", FORGERIES)
def test_forged_files(tmp_path, pruned, change):
    path = tmp_path / "model.safetensors"
    packed.save_weights(pruned, path)
    forge(path, lambda tensors, metadata: None)
    packed.load_weights(pruned, path)
    forge(path, change)
    refused(pruned, path, "model.safetensors")
