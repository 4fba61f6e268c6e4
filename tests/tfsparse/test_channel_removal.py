"""remove_channels: the same outputs as the whole model, and sizes worked out by hand."""

import keras
import numpy as np
import pytest
from keras import layers
from keras.ops import convert_to_numpy as to_numpy

import zoo
from tfsparse import UsageError
from tfsparse.cost import model_cost
from tfsparse.layers import PeriodicConv2D, leaf_layers
from tfsparse.pruning import DNRSchedule, Pruner, remove_channels

PRUNABLE = (layers.Conv2D, layers.Dense)


def randomise(model, seed=0):
    """Gives all weights random values that keep activations at about the same size."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if len(weight.shape) > 1:
            inputs = np.prod(weight.shape[:2] if "depthwise" in weight.path else weight.shape[:-1])
            value = rng.normal(0, np.sqrt(2 / inputs), weight.shape)
        elif "variance" in weight.path or "gamma" in weight.path:
            value = rng.uniform(0.5, 1.5, weight.shape)
        else:
            value = rng.normal(0, 0.3, weight.shape)
        weight.assign(value)
    return model


def silence(layer, *channels):
    """Sets the weights of a layer for the given input channels to 0."""
    kernel = to_numpy(layer.kernel).copy()
    if isinstance(layer, PeriodicConv2D):
        kernel[np.isin(layer.kernel_channels, channels)] = 0
    else:
        kernel[..., list(channels), :] = 0
    layer.kernel.assign(kernel)


def prune(model, density, seed=0):
    """Silences random channels of all layers but the first; each keeps one."""
    rng = np.random.default_rng(seed)
    readers = [x for x in leaf_layers(model) if isinstance(x, (*PRUNABLE, PeriodicConv2D))]
    for layer in readers[1:]:
        periodic = isinstance(layer, PeriodicConv2D)
        count = layer.dense_kernel_shape[2] if periodic else layer.kernel.shape[-2]
        order = rng.permutation(count)
        silence(layer, *order[max(1, round(density * count)) :])
    return model


def outputs(model):
    """Returns all outputs for random images, as a list."""
    rng = np.random.default_rng(1)
    images = [rng.normal(size=(2, *x.shape[1:])).astype("float32") for x in model.inputs]
    results = model(images if len(images) > 1 else images[0])
    return [to_numpy(x) for x in keras.tree.flatten(results)]


def assert_equal_outputs(small, model):
    for ours, theirs in zip(outputs(small), outputs(model), strict=True):
        assert np.std(theirs) > 0.01
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * max(1, np.abs(theirs).max()))


def assert_is_smaller_form(small, model):
    """Checks what holds of all models, but for the outputs."""
    assert [x.name for x in leaf_layers(small)] == [x.name for x in leaf_layers(model)]
    assert (small.name, small.input_shape, small.output_shape) == (
        model.name,
        model.input_shape,
        model.output_shape,
    )
    assert not {id(x) for x in small.variables} & {id(x) for x in model.variables}


def channels(model, *names):
    """Returns the output channels of the named layers."""
    return [model.get_layer(name).output.shape[-1] for name in names]


def filters_of(layer, model):
    """Returns which filters of the Conv2D layer in `model` its namesake `layer` has."""
    kernel = to_numpy(model.get_layer(layer.name).bias)
    return [int(np.flatnonzero(kernel == value)[0]) for value in to_numpy(layer.bias)]


ARCHITECTURES = {"vgg16": 8, "resnet18": 8, "resnet8": 8, "mobilenet_v2": 8, "shufflenet": 48}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_networks_of_the_zoo(arch):
    model = randomise(zoo.build(arch, (16, 16, 3), 10, width=ARCHITECTURES[arch]))
    prune(model, 0.25)
    small = remove_channels(model)
    assert_is_smaller_form(small, model)
    assert_equal_outputs(small, model)
    cost, before = model_cost(small), model_cost(model)
    assert cost.parameters < before.parameters
    assert cost.macs < before.macs


def test_what_the_pruner_zeroes(tmp_path):
    model = randomise(zoo.build("vgg16", (8, 8, 3), 10, width=8))
    schedule = DNRSchedule(0.5, end_step=9, frequency=1)
    pruner = Pruner(model, schedule, structure="channel")
    small = remove_channels(model)
    assert_equal_outputs(small, model)
    # In a chain each convolution keeps the channels that the next one reads; the last one all.
    masks = [to_numpy(mask).any(axis=(0, 1, 3)) for mask in pruner.masks]
    kept = [*(int(mask.sum()) for mask in masks), 64]
    convolutions = [layer for layer in small.layers if isinstance(layer, layers.Conv2D)]
    assert [layer.filters for layer in convolutions] == kept
    pairs = zip([3, *kept[:-1]], kept, strict=True)
    weights = sum(9 * inputs * filters for inputs, filters in pairs)
    assert small.count_params() == weights + 4 * sum(kept) + 64 * 10 + 10
    small.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    assert loaded.count_params() == small.count_params()
    assert_equal_outputs(loaded, model)


def test_sizes_and_weights_of_three_layers_by_hand():
    model = keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            layers.Conv2D(4, 3, padding="same", name="first"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.Conv2D(5, 3, padding="same", name="second"),
            layers.Flatten(),
            layers.Dense(2, name="scores"),
        ]
    )
    randomise(model)
    first, norm, second, scores = (
        model.get_layer(name) for name in ("first", "norm", "second", "scores")
    )
    silence(second, 1)
    kernel = to_numpy(second.kernel).copy()
    kernel[:, :, 3, 1:] = 0  # only filter 0 reads channel 3
    second.kernel.assign(kernel)
    silence(scores, *range(0, 16 * 5, 5))  # and filter 0 is read at no position
    small = remove_channels(model)
    assert type(small) is keras.Sequential
    assert_is_smaller_form(small, model)
    assert_equal_outputs(small, model)
    expected = [
        to_numpy(first.kernel)[..., [0, 2]],
        to_numpy(first.bias)[[0, 2]],
        *(weight[[0, 2]] for weight in norm.get_weights()),
        kernel[:, :, [0, 2]][..., 1:],
        to_numpy(second.bias)[1:],
        to_numpy(scores.kernel).reshape(16, 5, 2)[:, 1:].reshape(64, 2),
        to_numpy(scores.bias),
    ]
    assert small.count_params() == (27 * 2 + 2) + 4 * 2 + (9 * 2 * 4 + 4) + (64 * 2 + 2)
    weights = [array for layer in small.layers for array in layer.get_weights()]
    for ours, theirs in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def conv(filters, name, size=3, **arguments):
    return layers.Conv2D(filters, size, padding="same", name=name, **arguments)


def residual():
    """stem -> + -> + -> head, with two convolutions in each of the branches."""
    inputs = keras.Input((6, 6, 3))
    x = conv(6, "stem")(inputs)
    for name in ("a", "b"):
        y = layers.ReLU()(layers.BatchNormalization(name=f"norm_{name}")(x))
        y = conv(4, f"in_{name}", activation="relu")(y)
        x = layers.Add(name=f"add_{name}")([x, conv(6, f"out_{name}")(y)])
    x = layers.GlobalAveragePooling2D()(x)
    return randomise(keras.Model(inputs, layers.Dense(3, name="head")(x)))


def test_an_addition_keeps_what_any_of_its_readers_reads():
    model = residual()
    silence(model.get_layer("in_a"), 0, 1, 2, 3)
    silence(model.get_layer("in_b"), 0, 1, 2, 4)
    silence(model.get_layer("head"), 0, 2, 3, 4)
    silence(model.get_layer("out_a"), 1)
    silence(model.get_layer("out_b"), 0, 1, 2)
    small = remove_channels(model)
    # 0 and 2 are read by nobody, 1 by the head, 3 by in_b, 4 by in_a, 5 by all.
    for name in ("stem", "out_a", "out_b"):
        assert filters_of(small.get_layer(name), model) == [1, 3, 4, 5]
    assert filters_of(small.get_layer("in_a"), model) == [0, 2, 3]
    assert filters_of(small.get_layer("in_b"), model) == [3]
    assert small.get_layer("in_a").kernel.shape == (3, 3, 4, 3)
    assert small.get_layer("head").kernel.shape == (4, 3)
    assert channels(small, "norm_a", "add_a", "norm_b", "add_b") == [4, 4, 4, 4]
    assert_equal_outputs(small, model)


def everything():
    """Two images, two outputs, and all kinds of layers that channels are followed through."""
    first, second = keras.Input((9, 8, 3), name="one"), keras.Input((9, 8, 3), name="two")
    x = conv(8, "left")(first)
    x = layers.MaxPooling2D(2, padding="same")(layers.LeakyReLU()(x))
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu", name="depthwise")(
        layers.ZeroPadding2D(1)(x)
    )
    y = layers.Dropout(0.2)(conv(6, "right", strides=2)(second))
    z = layers.Concatenate(name="both")([x, y])
    z = keras.ops.relu(layers.BatchNormalization(name="norm")(z))
    a, b = z[..., :12], z[:, :, :, 12:]
    a = layers.Activation("tanh")(conv(6, "part_a")(a))
    b = layers.AveragePooling2D(1)(conv(6, "part_b", 1, activation="sigmoid")(b))
    z = layers.Multiply(name="product")([a + b, layers.Maximum()([a, 0.5 * y])])
    up = layers.Cropping2D(1)(layers.UpSampling2D(2)(z))
    z = layers.Concatenate(axis=1, name="stacked")([z, up[:, :, 1:5]])
    scores = layers.Dense(5, activation="relu", name="hidden")(layers.Flatten()(z))
    scores = layers.Dense(2, activation="softmax", name="scores")(scores)
    return keras.Model([first, second], [scores, conv(2, "map")(up)], name="everything")


def test_layers_that_channels_are_followed_through():
    model = randomise(everything())
    # In `both`, left's channel k is 2k and 2k + 1, right's is 16 + k; part_b starts at 12.
    silence(model.get_layer("part_a"), 0, 1, 2, 4, 5, 9)  # left's 0 and 2, halves of its 1 and 4
    silence(model.get_layer("part_b"), 0, 1, 2, 4, 5, 6)  # left's 6, a half of 7; right's 0, 1, 2
    silence(model.get_layer("map"), 0, 1, 3, 5)
    positions = model.get_layer("hidden").kernel.shape[0] // 6
    silence(model.get_layer("hidden"), *(6 * p + c for p in range(positions) for c in (0, 1, 2)))
    silence(model.get_layer("scores"), 4)
    small = remove_channels(model)
    assert_is_smaller_form(small, model)
    assert_equal_outputs(small, model)
    # The product's 0 and 1 are read by neither hidden nor map. Its 2 is, so right's 2 stays.
    for name in ("part_a", "part_b", "right"):
        assert filters_of(small.get_layer(name), model) == [2, 3, 4, 5]
    assert filters_of(small.get_layer("left"), model) == [1, 3, 4, 5, 7]
    assert channels(small, "depthwise", "both", "norm", "product", "stacked") == [10, 14, 14, 4, 4]
    assert filters_of(small.get_layer("hidden"), model) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("parts", "axis", "silent", "sizes"),
    [
        (2, -1, (0, 5), [3, 3]),
        (2, 3, (0, 1), [2, 4]),
        ([3, 4], -1, (1, 2, 4, 5), [1, 1, 2]),
        ([3, 4], -1, (3,), [3, 1, 4]),  # a tensor keeps a channel
        (4, -1, (0, 2, 4, 6), [1, 1, 1, 1]),
        (2, 1, (2, 3), [8, 8]),  # of rows: not followed
    ],
)
def test_splits(parts, axis, silent, sizes):
    inputs = keras.Input((6, 6, 3))
    split = keras.ops.split(conv(8, "before")(inputs), parts, axis=axis)
    convs = [conv(2, f"part_{index}")(part) for index, part in enumerate(split)]
    joined = [layers.GlobalAveragePooling2D()(x) for x in convs]
    model = randomise(keras.Model(inputs, layers.Dense(2)(layers.Concatenate()(joined))))
    first = 0
    for index, part in enumerate(split):
        inside = range(part.shape[-1])
        number = [first + c if axis != 1 else c for c in inside]
        silence(model.get_layer(f"part_{index}"), *(c for c in inside if number[c] in silent))
        first += part.shape[-1]
    small = remove_channels(model)
    kernels = [small.get_layer(f"part_{index}").kernel for index in range(len(split))]
    assert [kernel.shape[2] for kernel in kernels] == sizes
    assert_equal_outputs(small, model)


@pytest.mark.parametrize(
    "between",
    [
        lambda x: layers.LayerNormalization()(x),
        lambda x: layers.Lambda(lambda x: x - keras.ops.mean(x, -1, keepdims=True))(x),
        lambda x: layers.Softmax()(x),
        lambda x: layers.Activation("softmax")(x),
        lambda x: conv(6, "mixing", activation="softmax")(x),
        lambda x: layers.DepthwiseConv2D(3, activation="softmax")(x),
        lambda x: conv(6, "grouped", groups=3)(x),
        lambda x: layers.Conv2DTranspose(6, 3, padding="same")(x),
        lambda x: layers.SeparableConv2D(6, 3, padding="same")(x),
        lambda x: layers.Permute((2, 1, 3))(x),
        lambda x: layers.Reshape((3, 12, 6))(x),
        lambda x: layers.BatchNormalization(axis=1)(x),
        lambda x: layers.PReLU()(x),
        lambda x: layers.Flatten(data_format="channels_first")(x),
        lambda x: layers.GlobalAveragePooling2D(data_format="channels_first")(x),
        lambda x: layers.Dropout(0.1, noise_shape=(None, 1, 1, 6))(x),
        lambda x: x[..., ::-1],
        lambda x: x[:, 1],
        lambda x: keras.ops.stack([x[..., 0], x[..., 2], x[..., 5]], axis=-1),
        lambda x: x * np.arange(6, dtype="float32"),
        lambda x: x * keras.ops.max(x, axis=-1, keepdims=True),
        lambda x: keras.ops.flip(x, axis=-1),
        lambda x: keras.ops.pad(x, [[0, 0], [0, 0], [0, 0], [1, 2]]),
    ],
)
def test_other_layers_keep_their_tensors_whole(between):
    inputs = keras.Input((6, 6, 3))
    x = conv(6, "first")(inputs)
    x = conv(6, "before")(x)
    x = between(x)
    after = layers.Dense(7, name="after")(x)
    model = keras.Model(inputs, layers.Dense(3, name="last")(after))
    randomise(model)
    silence(model.get_layer("before"), 1, 2)
    silence(model.get_layer("after"), 0, 1)
    silence(model.get_layer("last"), 3)
    small = remove_channels(model)
    assert channels(small, "first", "before", "after") == [4, 6, 6]
    assert_equal_outputs(small, model)


def test_shared_layers_and_nested_models():
    shared = conv(6, "shared", activation="relu")
    norm = layers.BatchNormalization(name="norm")
    nested_inputs = keras.Input((None, None, 6), name="nested_inputs")
    nested = keras.Model(nested_inputs, norm(conv(6, "inner")(nested_inputs)), name="nested")
    block = keras.Sequential([keras.Input((5, 5, 6)), conv(6, "deep"), layers.ReLU()], name="block")
    inputs = keras.Input((5, 5, 3))
    x = shared(conv(6, "stem")(inputs))
    x = block(nested(x, training=False))
    x = norm(shared(x))
    x = layers.Flatten()(conv(4, "last")(nested(x)))
    model = randomise(keras.Model(inputs, layers.Dense(2, name="scores")(x)))
    assert_equal_outputs(remove_channels(model), model)
    # `norm` and `nested` are called twice, so what they, `inner` and `shared` put out is one group,
    # read by inner, deep and last. The stem and deep are another, read by shared.
    silence(shared, 2, 5)
    silence(nested.get_layer("inner"), 2, 5)
    silence(block.get_layer("deep"), 3, 5)
    silence(model.get_layer("last"), 2, 5)
    small = remove_channels(model)
    assert_is_smaller_form(small, model)
    assert_equal_outputs(small, model)
    found = {layer.name: layer for layer in leaf_layers(small)}
    sizes = {"stem": (3, 4), "shared": (4, 5), "inner": (5, 5), "deep": (5, 4), "last": (5, 4)}
    assert sizes == {name: found[name].kernel.shape[2:] for name in sizes}
    assert small.get_layer("nested").get_layer("norm") is small.get_layer("norm")


def periodic_chain(width=16):
    """first -> periodic -> last, with a pattern of 4 of 9 taps."""
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU()(conv(width, "first")(inputs))
    x = PeriodicConv2D(
        width,
        3,
        "PS4_P4",
        2,
        "same",
        activation="relu",
        kernel_regularizer=keras.regularizers.L2(0.1),
        name="periodic",
    )(x)
    x = layers.GlobalAveragePooling2D()(conv(4, "last")(x))
    return randomise(keras.Model(inputs, layers.Dense(2)(x)))


@pytest.mark.parametrize(("read", "written", "converts"), [(10, 10, True), (11, 11, False)])
def test_a_periodic_layer_is_converted_where_that_saves(read, written, converts):
    model = periodic_chain()
    periodic = model.get_layer("periodic")
    assert periodic.count_params() == 4 * 16 * 16 + 16
    silence(periodic, *range(read, 16))
    silence(model.get_layer("last"), *range(written, 16))
    small = remove_channels(model)
    assert_is_smaller_form(small, model)
    assert_equal_outputs(small, model)
    layer = small.get_layer("periodic")
    if not converts:  # 9 * 11 * 11 > 4 * 16 * 16
        assert type(layer) is PeriodicConv2D
        assert small.count_params() == model.count_params()
        return
    assert type(layer) is layers.Conv2D
    assert layer.count_params() == 9 * read * written + written
    assert channels(small, "first", "periodic") == [read, written]
    assert layer.strides == (2, 2)
    assert layer.activation is keras.activations.relu
    assert layer.kernel_regularizer.l2 == pytest.approx(0.1)


def test_a_periodic_layer_that_loses_nothing_stays_periodic():
    model = periodic_chain()
    silence(model.get_layer("first"), 0)  # an input of the model, which stays
    silence(model.get_layer("last"), 0)
    model = keras.Model(
        model.input, [model.output, model.get_layer("periodic").output], name="two_outputs"
    )
    small = remove_channels(model)
    assert type(small.get_layer("periodic")) is PeriodicConv2D
    assert small.get_layer("periodic").count_params() == 4 * 16 * 16 + 16
    assert_equal_outputs(small, model)


def test_each_tensor_keeps_a_channel_that_computes_what_it_did():
    inputs = keras.Input((5, 5, 3))
    x = conv(4, "stem")(inputs)
    dead = conv(3, "dead_2", activation="relu")(conv(5, "dead_1", activation="exponential")(x))
    joined = layers.Concatenate(name="joined")([dead, conv(4, "alive")(x)])
    model = randomise(keras.Model(inputs, layers.Dense(2, name="scores")(joined)))
    silence(model.get_layer("scores"), 0, 1, 2)
    silence(model.get_layer("dead_2"), 1, 2, 3, 4)
    small = remove_channels(model)
    assert channels(small, "dead_1", "dead_2", "joined") == [1, 1, 5]
    assert_equal_outputs(small, model)
    before = keras.Model(model.input, dead)
    after = keras.Model(small.input, small.get_layer("dead_2").output)
    np.testing.assert_allclose(outputs(after)[0][..., 0], outputs(before)[0][..., 0], atol=1e-5)


def test_arguments_are_kept():
    inputs = keras.Input((7, 7, 3))
    x = layers.Conv2D(
        6,
        (3, 5),
        strides=(2, 1),
        dilation_rate=1,
        activation="elu",
        use_bias=False,
        kernel_regularizer=keras.regularizers.L1(0.1),
        kernel_constraint=keras.constraints.MaxNorm(9),
        dtype=keras.DTypePolicy("mixed_bfloat16"),
        trainable=False,
        name="first",
    )(inputs)
    x = layers.BatchNormalization(momentum=0.7, epsilon=0.01, scale=False, name="norm")(x)
    model = keras.Model(inputs, conv(2, "last", kernel_initializer="he_normal")(x))
    randomise(model)
    model.get_layer("norm").trainable = False
    silence(model.get_layer("last"), 0, 3)
    small = remove_channels(model)
    for layer, new in zip(model.layers, small.layers, strict=True):
        config = layer.get_config()
        if layer.name == "first":
            assert config.pop("filters") == 6
            assert new.filters == 4
        assert {key: new.get_config()[key] for key in config} == config
        assert [v.trainable for v in new.variables] == [v.trainable for v in layer.variables]
        assert [v.dtype for v in new.variables] == [v.dtype for v in layer.variables]


def test_an_equal_copy_where_nothing_can_go():
    model = randomise(zoo.build("resnet8", (8, 8, 3), 10, width=4, pattern="PS4_P4"))
    copy = remove_channels(model)
    assert_is_smaller_form(copy, model)
    assert [x.get_config() for x in copy.layers] == [x.get_config() for x in model.layers]
    for ours, theirs in zip(copy.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_original_is_left_as_it_is():
    model = prune(randomise(everything()), 0.4)
    model.compile("sgd", loss=lambda labels, scores: 0.0)
    config, weights = model.get_config(), model.get_weights()
    calls = [len(layer._inbound_nodes) for layer in leaf_layers(model)]
    small = remove_channels(model)
    assert small.count_params() < model.count_params()
    assert not small.compiled
    assert model.compiled
    for variable in small.variables:
        variable.assign(variable + 1)
    assert model.get_config() == config
    assert calls == [len(layer._inbound_nodes) for layer in leaf_layers(model)]
    for after, before in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(after, before)


def random_model(rng):
    """A random network of up to a dozen layers over tensors of one height and width."""
    inputs = keras.Input((5, 5, 3))
    tensors = [inputs, layers.Conv2D(int(rng.integers(3, 7)), 1)(inputs)]
    shared = []

    def pick():
        return tensors[-1 - int(rng.integers(min(3, len(tensors))))]

    def like(x):
        """A tensor with the channels of `x`: one that exists or the output of a convolution."""
        found = [y for y in tensors if y.shape == x.shape and y is not x]
        return found[int(rng.integers(len(found)))] if found else new_conv(pick(), x.shape[-1])

    def new_conv(x, filters=None):
        kind = PeriodicConv2D if rng.random() < 0.3 else layers.Conv2D
        activation = ["relu", "tanh", None][int(rng.integers(3))]
        filters = filters or int(rng.integers(3, 9))
        shared.append(kind(filters, 3, padding="same", activation=activation))
        return shared[-1](x)

    def again(x):
        found = [y for y in shared if y.input_spec.axes[-1] == x.shape[-1]]
        return found[int(rng.integers(len(found)))](x) if found else new_conv(x)

    steps = [
        new_conv,
        new_conv,
        again,
        lambda x: layers.BatchNormalization()(x),
        lambda x: layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x),
        lambda x: layers.Add()([x, like(x)]),
        lambda x: x * like(x) + 0.5,
        lambda x: layers.Concatenate()([x, pick()]),
        lambda x: keras.ops.concatenate([x[..., 1:], pick()[..., :2]], axis=-1),
        lambda x: layers.ReLU()(layers.MaxPooling2D(3, 1, "same")(x)),
        lambda x: layers.LayerNormalization()(x),
        lambda x: layers.Reshape(x.shape[1:])(layers.Permute((2, 1, 3))(x)),
    ]
    for _ in range(int(rng.integers(4, 11))):
        tensors.append(steps[int(rng.integers(len(steps)))](pick()))
    head = layers.Flatten() if rng.random() < 0.5 else layers.GlobalAveragePooling2D()
    outputs = [layers.Dense(3)(head(new_conv(x))) for x in tensors[-2:]]
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("seed", range(24))
def test_random_graphs(seed):
    rng = np.random.default_rng(seed)
    model = prune(randomise(random_model(rng), seed), float(rng.uniform(0.2, 0.7)), seed)
    small = remove_channels(model)
    assert_is_smaller_form(small, model)
    assert small.count_params() <= model.count_params()
    assert_equal_outputs(small, model)
    if not any(isinstance(layer, PeriodicConv2D) for layer in small.layers):
        assert remove_channels(small).count_params() == small.count_params()


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.convolution = layers.Conv2D(4, 3)

    def call(self, inputs):
        return self.convolution(inputs)


def with_another_rank():
    nested = keras.Sequential([keras.Input((1,)), layers.Dense(2)], name="nested")
    inputs = keras.Input(())
    return keras.Model(inputs, nested(inputs))


def with_unknown_function():
    def own(x):
        return x

    return keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(4, 3, name="own", activation=own)]
    )


@pytest.mark.parametrize(
    ("build", "received"),
    [
        (Subclassed, "of class Subclassed"),
        (lambda: keras.Sequential([keras.Input((8, 8, 3)), Subclassed()]), "of class Subclassed"),
        (lambda: keras.Sequential([layers.Conv2D(4, 3)], name="raw"), "raw is not built"),
        (lambda: layers.Conv2D(4, 3), "of class Conv2D"),
        (lambda: "model.keras", "'model.keras' of class str"),
        (with_unknown_function, "Layer own"),
        (with_another_rank, "Model nested is called with other inputs"),
    ],
)
def test_what_cannot_be_copied_is_named(build, received):
    with pytest.raises(UsageError, match=received) as caught:
        remove_channels(build())
    assert "\n" not in str(caught.value)
