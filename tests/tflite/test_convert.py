import dataclasses
import json
import math

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

import zoo
import zoo.data
from tflite import convert as command
from tflite.convert import convert, convert_file
from tflite.runtimes import FileModel
from tflite.verify import (
    BOUNDS,
    Verification,
    _accuracy_loss,
    _agreement,
    _keeps_class,
    verify,
)
from tfsparse.errors import UsageError
from tfsparse.layers import PeriodicConv2D
from zoo import loading

PRECISIONS = list(BOUNDS)
DATASET = "fashion_mnist_small"


def residual_network(seed=0, classes=10):
    keras.utils.set_random_seed(seed)
    image = keras.Input((28, 28, 1))
    x = keras.layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False)(image)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    x = shortcut = keras.layers.ReLU()(x)
    x = keras.layers.Conv2D(32, 3, padding="same", use_bias=False)(x)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    x = keras.layers.ReLU()(keras.layers.Add()([x, shortcut]))
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D(2)(x))
    return keras.Model(image, keras.layers.Dense(classes)(x))


@pytest.fixture(scope="module")
def data():
    return zoo.data.open_dataset(DATASET)


@pytest.fixture(scope="module")
def calibration(data):
    return data.read("train")[0][:100].astype(np.float32) / 255


@pytest.fixture(scope="module")
def held_out(data):
    images, labels = data.read("validation")
    return images[:300].astype(np.float32) / 255, labels[:300]


@pytest.fixture(scope="module")
def network(data):
    model = residual_network()
    images, labels = data.read("train")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss)
    model.fit(images.astype(np.float32) / 255, labels, batch_size=64, epochs=1, verbose=0)
    return model


@pytest.fixture(scope="module")
def content(network, calibration):
    """The network's file in each precision."""
    return {precision: convert(network, precision, calibration) for precision in PRECISIONS}


@pytest.fixture
def run_folder(network, tmp_path):
    """What train.py leaves: a model and a report that says what it was trained on."""
    folder = tmp_path / "run"
    folder.mkdir()
    network.save(folder / "model.keras")
    report = {"dataset": DATASET, "data_dir": None, "image_size": None}
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def operators(content):
    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    return [operator["op_name"] for operator in interpreter._get_ops_details()]


def fails(*args, **kwargs):
    """The message of the UsageError that the command gives, which fits one line."""
    with pytest.raises(UsageError) as caught:
        convert_file(*map(str, args), **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- conversion ----


@pytest.mark.parametrize("precision", PRECISIONS)
def test_file_agrees_with_keras(network, content, held_out, precision):
    result = verify(content[precision], network, *held_out, precision=precision)
    assert result.passed, result.failures
    assert result.examples == 300
    expected = network(held_out[0]).numpy().argmax(axis=1)
    assert result.keras_accuracy == np.mean(expected == held_out[1]) > 0.2
    assert abs(result.file_accuracy - result.keras_accuracy) <= 0.02


@pytest.mark.parametrize("precision", PRECISIONS)
def test_file_takes_one_image_with_builtin_operators(content, precision):
    found = set(operators(content[precision])) - {"DEQUANTIZE"}  # of float16's weights
    dense = set() if precision == "int8" else {"FULLY_CONNECTED"}
    assert found == {"CONV_2D", "ADD", "MAX_POOL_2D", "RESHAPE"} | dense
    interpreter = Interpreter(model_content=content[precision])
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    assert source["shape"].tolist() == source["shape_signature"].tolist() == [1, 28, 28, 1]
    assert target["shape"].tolist() == [1, 10]
    expected = {"int8": np.int8, "int16x8": np.int16}.get(precision, np.float32)
    assert source["dtype"] is target["dtype"] is expected
    assert list(interpreter.get_signature_list()["serving_default"]["inputs"]) == ["image"]


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
def test_float_input_and_output(network, content, calibration, held_out, precision):
    """Rounding the input and the output is all that the two files do differently."""
    images = held_out[0][:50]
    with_float = FileModel(convert(network, precision, calibration, float_io=True))
    quantised = FileModel(content[precision])
    assert with_float.source.dtype is with_float.target.dtype is np.float32
    np.testing.assert_allclose(with_float(images), quantised(images), rtol=0, atol=1e-4)


def test_the_same_model_gives_the_same_bytes(network, content, calibration):
    assert convert(network, "int8", calibration) == content["int8"]


def test_sparse_storage(calibration, held_out):
    """Smaller, and the same outputs to the bit; of a dense network, the file as it would be."""
    network = residual_network()
    assert convert(network, "float32", sparse_storage=True) == convert(network, "float32")
    kernel = network.layers[4].kernel
    kernel.assign(np.where(np.random.default_rng(0).random(kernel.shape) < 0.1, kernel, 0))
    for precision in ("float32", "int8"):
        dense, sparse = (
            convert(network, precision, calibration, sparse_storage=each) for each in (False, True)
        )
        weight = {"float32": 4, "int8": 1}[precision]
        assert len(dense) - len(sparse) > 0.6 * 0.9 * weight * math.prod(kernel.shape)
        outputs = [
            FileModel(each, "reference").outputs(held_out[0][:20]) for each in (dense, sparse)
        ]
        np.testing.assert_array_equal(*outputs)


def test_sizes(network, content):
    # Besides the weights, 6 kB hold the graph, biases and, in int8, a scale for each channel.
    for precision, width in {"float32": 4, "float16": 2, "int8": 1}.items():
        weights = width * network.count_params()
        assert weights < len(content[precision]) < weights + 6000


class PartialKernel(keras.layers.Layer):
    """A 3x3 convolution of which one weight in `period` exists, the others being zero."""

    def __init__(self, period):
        super().__init__()
        self.period = period

    def build(self, shape):
        self.shape = (3, 3, shape[-1], 64)
        size = int(np.prod(self.shape))
        kept = np.random.default_rng(0).permutation(size)[: size // self.period]
        self.kernel = self.add_weight(shape=(len(kept),), initializer="random_normal")
        self.source = np.full(size, len(kept))  # where each weight is; the last place holds 0
        self.source[kept] = np.arange(len(kept))

    def call(self, x):
        kernel = keras.ops.concatenate([self.kernel, keras.ops.zeros(1)])
        kernel = keras.ops.reshape(keras.ops.take(kernel, self.source), self.shape)
        return keras.ops.conv(x, kernel, padding="same")


# ops.scatter instead of ops.take stays in the file where a result is over 4 times its input.
@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("period", [2, 9, 16])
def test_kernel_taken_from_kept_weights_becomes_a_constant(period, precision, calibration):
    image = keras.Input((28, 28, 1))
    x = keras.layers.Conv2D(64, 3, strides=4)(image)
    x = keras.layers.BatchNormalization()(PartialKernel(period)(x))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x)))
    assert operators(convert(model, precision, calibration)) == ["CONV_2D", "CONV_2D", "MEAN"]


# ---- verification ----


@pytest.mark.parametrize("precision", PRECISIONS)
def test_file_of_another_model_fails(network, calibration, held_out, precision):
    other = convert(residual_network(seed=1), precision, calibration)
    result = verify(other, network, *held_out, precision=precision)
    assert not result.passed
    assert len(result.failures) == 3  # the difference, the agreement and the accuracy


def test_a_file_that_says_the_same_of_every_image_fails(held_out):
    """Large biases alone make logits large, and constant outputs close to them."""
    images, labels = held_out
    keras.utils.set_random_seed(0)
    inputs = keras.Input((28, 28, 1))
    model = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(inputs)))
    kernel, _ = model.get_weights()
    model.set_weights([kernel, np.full(10, 20.0)])
    constant = keras.models.clone_model(model)
    constant.set_weights([0 * kernel, np.full(10, 20.0)])
    labels = np.asarray(model(images)).argmax(axis=1)
    result = verify(convert(constant, "float32"), model, images, labels, precision="int8")
    assert len(result.failures) == 3
    assert result.keras_accuracy == 1.0


@pytest.mark.parametrize(("gap", "is_close"), [(0.02, True), (2.0, False)])
def test_rounding_may_decide_close_calls(gap, is_close):
    """Two files of three classes: in one the first two have changed places."""

    def model(difference):
        inputs = keras.Input((4, 4, 1))
        outputs = keras.layers.Dense(3)(keras.layers.Flatten()(inputs))
        found = keras.Model(inputs, outputs)
        found.layers[-1].set_weights([np.zeros((16, 3)), np.array([0.0, difference, -3.0])])
        return found

    images = np.zeros((10, 4, 4, 1), np.float32)
    content = convert(model(-gap / 2), "float32")
    found = verify(content, model(gap / 2), images, precision="int8")
    assert (found.top1_or_tied, found.top1_or_close) == (0.0, float(is_close))
    assert ("the call is close" in " ".join(found.failures)) != is_close


def test_the_accuracy_may_fall_by_what_few_images_cannot_tell():
    def loss(lost, examples):
        error = np.sqrt(lost) / examples
        shares = (1, 1, 1, 0.8, 0.8 - lost / examples)
        found = Verification("int8", "xnnpack", examples, 0, 0, *shares)
        losses = {"accuracy_loss": lost / examples, "accuracy_error": error}
        return dataclasses.replace(found, **losses).passed

    assert loss(10, 2000)  # half a point
    assert loss(16, 2000)  # 0.8 points, with a standard error of 0.2
    assert not loss(30, 2000)
    assert loss(100, 20_000)
    assert not loss(160, 20_000)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_one_layer_perturbed_fails(network, calibration, held_out, precision):
    other = keras.models.clone_model(network)
    other.set_weights(network.get_weights())
    kernel = other.layers[4].kernel  # the second convolution
    kernel.assign(keras.ops.roll(kernel, 1, axis=3))
    perturbed = convert(other, precision, calibration)
    assert not verify(perturbed, network, *held_out, precision=precision).passed


def test_float_weights_in_a_float32_file_may_not_be_rounded(network, content, held_out):
    result = verify(content["float16"], network, *held_out, precision="float32")
    assert not result.passed
    assert "largest difference" in result.failures[0]


class Undefined(keras.layers.Layer):
    def call(self, x):
        return keras.ops.sqrt(x - 1e6)


@pytest.mark.parametrize("both", [True, False])
def test_nan_fails(network, held_out, both):
    image = keras.Input((28, 28, 1))
    undefined = keras.Model(image, Undefined()(network(image)))
    model = undefined if both else network
    result = verify(convert(undefined, "float32"), model, *held_out, precision="float32")
    assert np.isnan(result.largest_difference)
    assert result.top1_agreement == 0
    assert "not finite" in result.failures[0]


def test_ties_are_told_apart_from_agreement():
    keras_logits = np.array([[0.0, 2.0, 1.9], [0.0, 2.0, 1.9], [5.0, 1.0, 1.0], [1.0, 5.0, np.nan]])
    file_logits = np.array([[2.0, 2.0, 1.0], [0.0, 2.0, 1.0], [5.0, 6.0, 5.0], [1.0, 5.0, 0.0]])
    assert _agreement(keras_logits, file_logits) == 1 / 4  # the second row only
    assert list(_keeps_class(keras_logits, file_logits)) == [True, True, False, False]
    # The same for every class is no answer.
    assert not _keeps_class(keras_logits, np.ones((4, 3))).any()


def test_a_tie_is_half_right():
    keras_logits = np.array([[2.0, 1.0, 0.0], [2.0, 1.0, 0.0], [2.0, 1.0, 0.0], [2.0, 1.0, 0.0]])
    file_logits = np.array([[2.0, 2.0, 0.0], [2.0, 2.0, 0.0], [1.0, 2.0, 0.0], [2.0, 2.0, 2.0]])
    labels = np.array([0, 1, 1, 0])
    # Keras is right of images 0 and 3; the file by 1/2, 1/2, 1 and 1/3.
    loss, error = _accuracy_loss(keras_logits, file_logits, labels)
    assert loss == pytest.approx((1 / 2 - 1 / 2 - 1 + 2 / 3) / 4)
    assert error == pytest.approx(np.sqrt(1 / 4 + 1 / 4 + 1 + 4 / 9) / 4)


def test_accuracy_needs_labels(network, content, held_out):
    result = verify(content["float32"], network, held_out[0][:5], precision="float32")
    assert result.keras_accuracy is None
    assert result.file_accuracy is None


@pytest.mark.parametrize("pattern", ["PS4_P4", "PSD2_P4", "PS1_P3_F1", "PS2_P4_F2"])
def test_lowered_periodic_layers(pattern, calibration, held_out):
    """Both strides, more inputs to a concatenation than one, and only the kept weights."""
    keras.utils.set_random_seed(0)
    image = keras.Input((28, 28, 1))
    x = keras.layers.Conv2D(128, 3, 4, activation="relu")(image)
    for strides in (1, 2):
        layer = PeriodicConv2D(128, 3, pattern, strides, "same", use_bias=False)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(layer(x)))
    model = keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(x)))
    images = held_out[0][:50]
    content = convert(model, "float32")
    assert verify(content, model, images, precision="float32").passed
    # Layers of so few filters a phase that a dense convolution is faster store all taps.
    stored = model.count_params() if "D" not in pattern else math.inf
    assert len(content) <= 4 * stored + 20_000
    content = convert(model, "int8", calibration)
    # The classes of an untrained network are close calls: the difference has to do.
    assert verify(content, model, images, precision="int8").mean_difference < 0.1
    # In int8 four filter phases of 7x7 pixels are faster dense.
    assert len(content) <= stored + 30_000 or "_F" not in pattern


@pytest.mark.parametrize("arch", sorted(zoo.ARCHITECTURES))
def test_architectures(arch, held_out):
    keras.utils.set_random_seed(0)
    model = zoo.build(arch, (28, 28, 1), 10, width=48 if arch == "shufflenet" else 8)
    content = convert(model, "float32")
    assert verify(content, model, held_out[0][:50], precision="float32").passed


# ---- errors of the functions ----


def test_models_that_cannot_be_converted():
    images = [keras.Input((8, 8, 1)), keras.Input((8, 8, 1))]
    two = keras.Model(images, keras.layers.Flatten()(keras.layers.Add()(images)))
    with pytest.raises(UsageError, match=r"one input.*Received: 2"):
        convert(two, "float32")
    image = keras.Input((None, None, 1))
    sizeless = keras.Model(image, keras.layers.GlobalMaxPooling2D()(image))
    with pytest.raises(UsageError, match="known size"):
        convert(sizeless, "float32")
    with pytest.raises(UsageError, match="one output"):
        convert(keras.Model(image := keras.Input((8, 8, 1)), image * 2), "float32")
    with pytest.raises(UsageError, match="inputs are unknown"):
        convert(keras.Sequential([keras.layers.Flatten()]), "float32")


def test_operation_without_builtin_operator_is_named():
    class Quantile(keras.layers.Layer):
        def call(self, x):
            return keras.ops.erfinv(x)

    image = keras.Input((8, 8, 1))
    model = keras.Model(image, keras.layers.Flatten()(Quantile(name="probit")(image)))
    with pytest.raises(UsageError, match=r"operator for: Erfinv at .*probit"):
        convert(model, "float32")


def test_weights_that_are_not_finite_are_named(calibration):
    model = residual_network()
    model.layers[1].kernel.assign(model.layers[1].kernel * np.nan)
    with pytest.raises(UsageError, match=r"conv2d.*/kernel is not finite"):
        convert(model, "int8", calibration)


def test_images_that_do_not_fit(network, content):
    for precision in ("int8", "int16x8"):
        with pytest.raises(UsageError, match="needs calibration_images"):
            convert(network, precision)
    for images, message in [
        (np.zeros((3, 32, 32, 1)), r"\(n, 28, 28, 1\).*\(3, 32, 32, 1\)"),
        (np.zeros((0, 28, 28, 1)), "n > 0"),
        (np.zeros((3, 28, 28, 1), np.uint8), "uint8"),
        (np.full((3, 28, 28, 1), 255.0), "255.0"),
        (np.full((3, 28, 28, 1), np.nan), "nan"),
    ]:
        with pytest.raises(UsageError, match=message):
            convert(network, "int8", images)
        with pytest.raises(UsageError, match=message):
            verify(content["int8"], network, images, precision="int8")


def test_files_that_do_not_fit(network, held_out):
    with pytest.raises(UsageError, match="LiteRT cannot run"):
        verify(b"no flatbuffer at all", network, *held_out, precision="int8")
    eleven = convert(residual_network(classes=11), "float32")
    with pytest.raises(UsageError, match=r"\(300, 11\).*\(300, 10\)"):
        verify(eleven, network, *held_out, precision="float32")


# ---- the command ----


def test_convert_file(run_folder, tmp_path, capfd):
    convert_file(str(run_folder / "model.keras"), "float16", str(tmp_path / "new" / "x.tflite"))
    captured = capfd.readouterr()
    compared = [
        "",
        "in LiteRT with",
        "largest difference",
        "mean difference",
        "top-1 agreement",
        "the same or tied",
        "or a close call",
        "accuracy in Keras",
        "accuracy of the file",
        "lost, ties half right",
    ]
    assert [line[:22].rstrip() for line in captured.out.splitlines()] == [
        *("precision", "sparsity", "file size", "gzip size"),
        *(2 * compared),
        *("", "verdict"),
    ]
    assert captured.err == ""
    content = (tmp_path / "new" / "x.tflite").read_bytes()
    assert f"{len(content):,} bytes" in captured.out
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_sabotaged_file_is_not_written(run_folder, tmp_path, monkeypatch, capsys):
    other = convert(residual_network(seed=1), "float32")
    monkeypatch.setattr(command, "convert", lambda *_, **__: other)
    output = tmp_path / "new" / "x.tflite"
    message = fails(run_folder / "model.keras", "float32", output)
    assert "Not written" in message
    assert "largest difference" in message
    assert "99%" in message
    assert "FAILED" in capsys.readouterr().out
    assert not output.parent.exists()


def test_the_dataset_is_the_flag_the_report_or_the_card(network, run_folder, monkeypatch):
    def open_dataset(name, data_dir, image_size):
        raise UsageError(name, data_dir, image_size)

    def opened(model, **kwargs):
        with pytest.raises(UsageError) as caught:
            convert_file(str(model), "int8", str(run_folder / "x.tflite"), **kwargs)
        return caught.value.args

    monkeypatch.setattr(loading, "open_dataset", open_dataset)
    monkeypatch.setattr(loading, "list_models", lambda: ["NAME"])
    monkeypatch.setattr(loading, "load", lambda _: network)
    monkeypatch.setattr(loading, "card", lambda _: {"dataset": "cards"})
    report = {"dataset": "reports", "data_dir": "there", "image_size": 32}
    (run_folder / "report.json").write_text(json.dumps(report))
    model = run_folder / "model.keras"
    assert opened(model) == ("reports", "there", 32)
    assert opened(model, data_dir="here") == ("reports", "here", 32)
    assert opened(model, dataset="flags") == ("flags", None, None)
    assert opened(run_folder) == ("reports", "there", 32)
    assert opened("NAME") == ("cards", None, None)


def test_arguments_that_cannot_be_used(run_folder, tmp_path):
    model, output = run_folder / "model.keras", tmp_path / "x.tflite"
    noise = tmp_path / "noise.keras"
    noise.write_bytes(bytes(range(256)))
    before = sorted(tmp_path.rglob("*"))

    assert "float64" in fails(model, "float64", output)
    assert "There is no file" in fails(tmp_path / "none.keras", "int8", output)
    (tmp_path / "empty").mkdir()
    assert "empty/model.keras" in fails(tmp_path / "empty", "int8", output)
    (tmp_path / "empty").rmdir()
    assert "Keras cannot load" in fails(noise, "int8", output)
    assert "such as resnet8_cifar10" in fails("resnet99", "int8", output)
    assert "ends with .tflite" in fails(model, "int8", tmp_path / "x.bin")
    assert "Cannot write" in fails(model, "int8", noise / "x.tflite")
    assert "cifar11" in fails(model, "int8", output, dataset="cifar11")
    assert "(32, 32, 1)" in fails(model, "int8", output, image_size=32)

    (run_folder / "report.json").write_text("{")
    assert "Cannot read" in fails(model, "int8", output)
    (run_folder / "report.json").unlink()
    assert "Give --dataset" in fails(model, "int8", output)
    before.remove(run_folder / "report.json")
    assert sorted(tmp_path.rglob("*")) == before


def test_class_count_that_does_not_fit(tmp_path):
    residual_network(classes=11).save(tmp_path / "model.keras")
    message = fails(tmp_path / "model.keras", "int8", tmp_path / "x.tflite", dataset=DATASET)
    assert "11 classes" in message


def test_command_line(run, run_folder):
    output = run_folder / "x.tflite"
    model, precision = f"--model={run_folder / 'model.keras'}", "--precision=int8"
    done = run(
        "-m", "tflite.convert", model, precision, f"--output={output}", "--calibration_examples=50"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "passed" in done.stdout
    assert output.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("precision", "status", "message"),
    [("int8", 1, "error: There is no file none.keras"), ("int4", 2, "error: flag --precision")],
)
def test_command_line_errors(run, precision, status, message, tmp_path):
    output = tmp_path / "x.tflite"
    arguments = ["--model=none.keras", f"--precision={precision}", f"--output={output}"]
    done = run("-m", "tflite.convert", *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1
    assert not output.exists()
