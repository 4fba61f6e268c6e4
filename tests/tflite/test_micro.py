"""The package for microcontrollers: what is in it runs in TFLM, and its figures are the file's."""

import hashlib
import json
import re
import shutil
import subprocess

import keras
import numpy as np
import pytest

import zoo
from tflite import micro
from tflite.arena import arena
from tflite.boards import BOARDS, fit_table
from tflite.conversion import Images
from tflite.flatbuffer import unpack
from tflite.micro import make_forms, table, unbeaten, write_package
from tflite.runtimes import FileModel, tflm_interpreter
from tflite.sources import _METHODS, _camel_case, operator_names
from tfsparse.errors import UsageError

pytest.importorskip("tflite_micro", reason="there are no wheels for this machine")

MODEL = "resnet8_dnr10_fashion_mnist_small"
FILES = {
    *("model.tflite", "model.h", "model.cc", "operators.h"),
    *("test_data.h", "test_data.cc", "self_test.h", "self_test.cc"),
}


@pytest.fixture(scope="module")
def images(fashion_mnist, fashion_mnist_training):
    pictures, labels = (array[:60] for array in fashion_mnist)
    return Images(fashion_mnist_training[0][:50], pictures, labels, zoo.card(MODEL)["class_names"])


@pytest.fixture(scope="module")
def written(tmp_path_factory, images):
    """The folder of a package, and its forms."""
    folder = tmp_path_factory.mktemp("package")
    forms, _ = write_package(zoo.load(MODEL), images, folder, MODEL)
    return folder, forms


@pytest.fixture
def package(written):
    return written[0]


def arrays(text):
    """{name: the numbers of a C array} of a source."""
    found = re.findall(r"(\w+)((?:\[\w*\])+) = (\{.*?\});", text, re.DOTALL)
    return {name: np.array(re.findall(r"-?\d+", body), int) for name, _, body in found}


def constants(text):
    return {name: float(value) for name, value in re.findall(r"(k\w+) = (-?[\d.e-]+)f?;", text)}


def test_what_is_in_it(package):
    manifest = json.loads((package / "manifest.json").read_text())
    assert {path.name for path in package.iterdir()} == {"README.md", "manifest.json", *manifest}
    assert set(manifest) == {"plain", "plain_compressed"}, (
        "a pruned network without periodic layers"
    )
    for name, entry in manifest.items():
        assert {path.name for path in (package / name).iterdir()} == FILES
        content = (package / name / "model.tflite").read_bytes()
        assert entry["bytes"] == len(content)
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["operators"] == operator_names(content)
        assert entry["labels"] == zoo.card(MODEL)["class_names"]
        names = re.findall(r'^    "(.+)"', (package / name / "model.h").read_text(), re.MULTILINE)
        assert names == entry["labels"]
        assert arrays((package / name / "model.cc").read_text())["g_model"].tolist() == [*content]
    assert manifest["plain_compressed"]["bytes"] < 0.4 * manifest["plain"]["bytes"]


@pytest.mark.parametrize("form", ["plain", "plain_compressed"])
def test_the_self_test_in_tflm(package, form):
    """What self_test.cc does, from the numbers in the sources and in the stated arena."""
    texts = {name: (package / form / name).read_text() for name in FILES if name != "model.tflite"}
    sizes = constants(texts["model.h"]) | constants(texts["test_data.h"])
    content = bytes(arrays(texts["model.cc"])["g_model"].tolist())
    data = arrays(texts["test_data.cc"])
    count, shape = int(sizes["kTestCount"]), (-1, int(sizes["kInputSize"]))
    inputs = data["g_test_inputs"].reshape(shape).astype(np.int8)
    expected = data["g_test_outputs"].reshape(count, int(sizes["kOutputSize"]))
    assert len(inputs) == count == 4
    assert len(np.unique(expected)) > 10
    interpreter = tflm_interpreter(content, int(sizes["kArenaBytes"]))
    for image, output in zip(inputs, expected, strict=True):
        interpreter.set_input(image.reshape(1, 28, 28, 1), 0)
        interpreter.invoke()
        np.testing.assert_array_equal(interpreter.get_output(0)[0], output)


def test_constants_turn_outputs_into_logits(package, fashion_mnist):
    sizes = constants((package / "plain" / "model.h").read_text())
    images = fashion_mnist[0][:20]
    codes = np.round(images / sizes["kInputScale"]) + sizes["kInputZeroPoint"]
    file = FileModel((package / "plain" / "model.tflite").read_bytes(), "tflm")
    np.testing.assert_array_equal(file.source.encode(images), codes)
    logits = sizes["kOutputScale"] * (file.outputs(images) - sizes["kOutputZeroPoint"])
    expected = zoo.load(MODEL)(images).numpy()
    assert np.abs(logits - expected).mean() < 0.05 * np.abs(expected).max()


# What the sources use of TFLM, with its signatures.
TFLM_HEADERS = {
    "micro_mutable_op_resolver.h": """
#pragma once
enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 };
#define TF_LITE_ENSURE_STATUS(a) do { if ((a) != kTfLiteOk) return kTfLiteError; } while (false)
namespace tflite {
template <unsigned int count> class MicroMutableOpResolver {
 public:
  TfLiteStatus AddAdd();
  TfLiteStatus AddConv2D();
  TfLiteStatus AddDecode();
  TfLiteStatus AddMean();
  TfLiteStatus AddMul();
  TfLiteStatus AddReshape();
};
}
""",
    "micro_interpreter.h": """
#pragma once
#include <cstddef>
#include <cstdint>
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
struct TfLiteTensor { union { int8_t* int8; } data; };
namespace tflite {
struct Model;
class MicroInterpreter {
 public:
  template <unsigned int count>
  MicroInterpreter(const Model*, const MicroMutableOpResolver<count>&, uint8_t*, size_t);
  TfLiteStatus AllocateTensors();
  TfLiteStatus Invoke();
  TfLiteTensor* input(size_t);
  TfLiteTensor* output(size_t);
};
}
""",
    "micro_log.h": "#pragma once\nvoid MicroPrintf(const char*, ...);\n",
    "../schema/schema_generated.h": """
#pragma once
namespace tflite { struct Model; const Model* GetModel(const void*); }
""",
}


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")
@pytest.mark.parametrize("name", ["model.cc", "test_data.cc", "self_test.cc"])
def test_sources_compile(package, name, tmp_path):
    headers = tmp_path / "tensorflow" / "lite" / "micro"
    (headers.parent / "schema").mkdir(parents=True)
    headers.mkdir()
    for header, text in TFLM_HEADERS.items():
        (headers / header).write_text(text)
    path = package / "plain_compressed" / name
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{tmp_path}"]
    command = ["g++", *flags, "-c", "-o", str(tmp_path / "x.o"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_resolver_has_the_operators_of_the_file(package):
    for form in ("plain", "plain_compressed"):
        text = (package / form / "operators.h").read_text()
        methods = re.findall(r"resolver\.Add(\w+)\(\)", text)
        names = operator_names((package / form / "model.tflite").read_bytes())
        assert len(methods) == len(names) == int(re.search(r"Resolver<(\d+)>", text)[1])
        assert ("Decode" in methods) == (form == "plain_compressed")


@pytest.mark.parametrize(
    ("operator", "method"),
    [
        ("CONV_2D", "Conv2D"),
        ("DEPTHWISE_CONV_2D", "DepthwiseConv2D"),
        ("MAX_POOL_2D", "MaxPool2D"),
        ("FULLY_CONNECTED", "FullyConnected"),
        ("RELU6", "Relu6"),
        ("PADV2", "PadV2"),
        ("STRIDED_SLICE", "StridedSlice"),
        ("CONCATENATION", "Concatenation"),
        ("BATCH_MATMUL", "BatchMatMul"),
        ("CUMSUM", "CumSum"),
    ],
)
def test_names_of_methods(operator, method):
    assert _METHODS.get(operator, _camel_case(operator)) == method


STACKS = {
    "small convolutions": lambda x: [keras.layers.Conv2D(4, 1) for _ in range(20)],
    "depthwise": lambda x: [keras.layers.DepthwiseConv2D(3, padding="same") for _ in range(12)],
}


@pytest.mark.parametrize("stack", STACKS)
def test_the_stated_arena_is_enough(stack):
    """Where planning takes more than what is kept, as in many small layers."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 4))
    for layer in STACKS[stack](x):
        x = layer(x)
    model = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(x)))
    images = np.random.default_rng(0).random((4, 8, 8, 4), np.float32)
    for form in make_forms(model, images):
        assert form.arena.total <= form.smallest_arena <= form.arena_bytes
        arena(form.content, form.smallest_arena)
        arena(form.content, form.arena_bytes)


def test_a_form_of_other_bits_is_refused(monkeypatch, written, images):
    form = written[1][0]
    kernels = micro.difference
    monkeypatch.setattr(micro, "difference", lambda a, b: kernels(a, b) + 1)
    with pytest.raises(UsageError, match=r"Nothing is written\. plain: .* 1 steps"):
        micro.check([form], zoo.load(MODEL), images.images, images.labels)


@pytest.mark.parametrize(
    ("ram", "verdict"),
    [(300_000, "fits: 5% of flash, 57%"), (450_000, "tight: "), (600_000, "does not fit: ")],
)
def test_boards_are_judged_by_their_largest_bank(ram, verdict):
    """The STM32H743 has 1 MB, of which 512 KB in one piece."""
    lines = fit_table({"plain": (100_000, ram)}).splitlines()
    (row,) = [line for line in lines if "H743" in line]
    assert "1,024 (512)" in row
    assert verdict in row
    assert len(lines) == 2 + len(BOARDS)
    assert all(board.source.startswith("https://") for board in BOARDS)


def test_forms_of_a_periodic_network():
    """Fewer operations and bytes for more RAM: all forms are offered, and compute the same."""
    keras.utils.set_random_seed(0)
    model = zoo.build("resnet8", (32, 32, 3), 10, 16, "PS4_P4")
    images = np.random.default_rng(0).random((10, 32, 32, 3), np.float32)
    found = make_forms(model, images)
    forms = {form.name: form for form in found}
    assert list(forms) == ["plain", "plain_compressed", "lowered", "lowered_compressed"]
    assert list(forms) == [line.split()[0] for line in table(found).splitlines()[1:]]
    lowered, plain = forms["lowered"], forms["plain"]
    assert len(lowered.content) < 0.85 * len(plain.content)
    assert lowered.macs < plain.macs == 12_501_632
    assert lowered.arena_bytes > plain.arena_bytes
    expected = model(images).numpy()
    for form in found:
        logits = FileModel(form.content, "tflm")(images)
        assert np.abs(logits - expected).mean() < 0.05 * np.abs(expected).max()


class Costs:
    """What forms are compared by, alone."""

    def __init__(self, *costs):
        self.costs = costs


def test_forms_that_others_beat_are_left_out():
    small, fast, same, worse = Costs(5, 1, 9), Costs(9, 1, 5), Costs(5, 1, 9), Costs(9, 1, 9)
    assert unbeaten([small, fast, same, worse]) == [small, fast]
    assert unbeaten([worse, same, fast]) == [same, fast]


def test_a_dense_network_has_one_form():
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).random((10, 8, 8, 3), np.float32)
    layers = [keras.layers.Conv2D(8, 3), keras.layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers, keras.layers.Dense(10)])
    (form,) = make_forms(model, images)
    assert (form.name, form.decoded) == ("plain", 0)
    assert unpack(form.content).subgraphs[0].operators
