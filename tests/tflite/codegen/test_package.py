"""The package in C: it compiles without warnings, and its bits are those of LiteRT."""

import ctypes
import functools
import json
import pathlib
import re
import subprocess
import tempfile
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

import zoo
from tests.tflite.codegen import reference
from tflite.codegen import bench, emulation, host, package, structs, writing
from tflite.codegen.package import write_package
from tflite.codegen.softmax import exponentials
from tflite.codegen.writing import c_string
from tflite.convert import convert
from tflite.quiet import quiet
from tflite.runtimes import FileModel
from tflite.sources import operator_names
from tfsparse.errors import UsageError
from zoo.figures import golden_images

pytestmark = pytest.mark.skipif(host.compiler() is None, reason="no C compiler")

# Single weights pruned; small convolutions over shifted channels; groups, shuffles, and pooling.
MODELS = {
    "resnet8_dnr10_fashion_mnist_small": "convolve_sparse.c",
    "resnet18_w16_ps4p4_cifar10": "convolve_gathered.c",
    "shufflenet_w80_cifar10": "average_pool.c",
}
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Werror")
SANITIZERS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


class Written:
    """A package that was written, and what LiteRT computes."""

    def __init__(self, name, folder):
        self.name, self.folder = name, folder
        self.content = zoo.load_tflite(name).read_bytes()
        file = FileModel(self.content, "reference")
        self.images = golden_images(file.image_shape, 8)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(package, "TEST_IMAGES", 1)  # emulators take seconds for one
            self.package = write_package(self.content, self.images, folder, name)
        self.expected = file.outputs(self.images)
        self.constants = sum(call.flash_bytes for call in self.package.program.calls)


@pytest.fixture(scope="module")
def packages(tmp_path_factory, study_models):
    return {}, tmp_path_factory


def make(name, packages):
    made, folders = packages
    if name not in made:
        made[name] = Written(name, folders.mktemp("package"))
    return made[name]


@pytest.fixture(params=MODELS)
def written(request, packages):
    return make(request.param, packages)


@pytest.fixture
def small(packages):
    return make(next(iter(MODELS)), packages)


def test_what_is_in_it(written):
    manifest = json.loads((written.folder / "manifest.json").read_text())
    card = zoo.card(written.name)
    assert manifest["model"]["sha256"] == card["tflite"]["sha256"]
    assert manifest["labels"] == card["class_names"]
    assert manifest["buffer"]["bytes"] < 0.7 * card["device"]["arena_bytes"]
    sources = {path.name for path in written.folder.glob("*.c")}
    assert sources == {"model.c", "run.c", "weights.c", "self_test.c", *manifest["kernels"]}
    assert MODELS[written.name] in sources
    licensed = {path.name for path in written.folder.iterdir() if "SPDX" in path.read_text()}
    # The weights and test images are the user's.
    assert licensed == {*manifest["kernels"], "tfsparse_inline.h", "tfsparse_kernels.h"}
    assert set(manifest["kernels"]) < {path.name for path in emulation.KERNELS.glob("*.c")}
    text = (written.folder / "model.c").read_text()
    assert len(re.findall(r"^  tfsparse_", text, re.MULTILINE)) >= len(manifest["layers"])
    assert [int(row) for row in card["golden"]["int8"][0]] == written.expected[0].tolist()


@pytest.mark.parametrize("name", [name for name in MODELS if "ps4p4" not in name])
def test_bits_under_sanitizers(name, packages, tmp_path):
    """Every read and write is inside its array, and no sum overflows."""
    written = make(name, packages)
    program = host.build(written.folder, tmp_path, (*WARNINGS, *SANITIZERS))
    np.testing.assert_array_equal(host.run(program, written.package.images), written.expected)
    assert written.package.checked == len(written.images)
    assert len(np.unique(written.expected)) > 10


CALLER = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "model.h"
int main(void) {
  const size_t size = TFSPARSE_BUFFER_BYTES;
  int8_t *buffers[2], logits[2][TFSPARSE_CLASSES] = {{0}};
  for (int i = 0; i < 2; i++) {
    buffers[i] = malloc(size + 4);
    memset(buffers[i], 0x55, size + 4);
    if (fread(buffers[i] + TFSPARSE_IMAGE_OFFSET, TFSPARSE_IMAGE_BYTES, 1, stdin) != 1) return 1;
  }
  const int8_t *const image = buffers[0] + TFSPARSE_IMAGE_OFFSET;
  if (tfsparse_run_in(buffers[0], size - 1, image, logits[0]) != -1) return 2;
  if (tfsparse_run_in(buffers[0] + 1, size, image, logits[0]) != -1) return 3;
  if (tfsparse_run_in(NULL, size, image, logits[0]) != -1) return 3;
  if (logits[0][0] != 0 || buffers[0][size] != 0x55) return 4;
  for (int i = 0; i < 2; i++)
    if (tfsparse_run_in(buffers[i], size, buffers[i] + TFSPARSE_IMAGE_OFFSET, logits[i])) return 5;
  fwrite(logits, sizeof logits, 1, stdout);
  for (int i = 0; i < 2; i++)
    for (int k = 0; k < 4; k++)
      if (buffers[i][size + (size_t)k] != 0x55) return 6;
  return 0;
}
"""


def test_buffers_of_the_caller(small, tmp_path):
    """Nothing is kept elsewhere; the image may lie in the buffer; too small a buffer is refused."""
    (tmp_path / "caller.c").write_text(CALLER)
    sources = [path for path in small.folder.glob("*.c") if path.name != "self_test.c"]
    command = [*host.compiler(), "-std=c99", "-O1", f"-I{small.folder}", tmp_path / "caller.c"]
    subprocess.run([*command, *sources, "-o", tmp_path / "caller"], check=True)
    images = small.package.images[:2].tobytes()
    done = subprocess.run([tmp_path / "caller"], input=images, capture_output=True, check=False)
    assert done.returncode == 0
    assert done.stdout == small.expected[:2].tobytes()


TWO = """
#include <stdio.h>
#include "first/model.h"
#include "second/model.h"
int main(void) {
  static int8_t images[2][FIRST_IMAGE_BYTES], logits[2][FIRST_CLASSES];
  while (fread(images, 1, sizeof images, stdin) == sizeof images) {
    if (first_run(images[0], logits[0]) || second_run(images[1], logits[1])) return 1;
    fwrite(logits, sizeof logits, 1, stdout);
  }
  return 0;
}
"""


def test_two_networks_in_one_program(small, tmp_path):
    """All names of each have its prefix, so neither takes the place of the other."""
    other = flattened_cnn(small.images.shape[1:], small.expected.shape[1])
    content = convert(other, "int8", small.images)
    made, objects = [], []
    for prefix, file in (("first", small.content), ("second", content)):
        folder = tmp_path / prefix
        folder.mkdir()
        made.append(write_package(file, small.images, folder, prefix, prefix))
        build = tmp_path / f"build_{prefix}"
        build.mkdir()
        sources = [path for path in folder.glob("*.c") if path.name != "self_test.c"]
        command = [*host.compiler(), "-std=c99", *WARNINGS, "-c", *sources]
        subprocess.run(command, cwd=build, check=True)
        objects += build.glob("*.o")
    (tmp_path / "two.c").write_text(TWO)
    command = [*host.compiler(), "-std=c99", f"-I{tmp_path}", tmp_path / "two.c", *objects]
    subprocess.run([*command, "-o", tmp_path / "two"], check=True)
    images = np.stack([made[0].images, made[1].images], 1)
    done = subprocess.run([tmp_path / "two"], input=images.tobytes(), capture_output=True)
    assert done.returncode == 0
    logits = np.frombuffer(done.stdout, np.int8).reshape(len(images), 2, -1)
    np.testing.assert_array_equal(logits[:, 0], small.expected)
    np.testing.assert_array_equal(
        logits[:, 1], FileModel(content, "reference").outputs(small.images)
    )
    assert (logits[:, 0] != logits[:, 1]).any()
    for prefix in ("first", "second"):
        texts = [path.read_text() for path in (tmp_path / prefix).iterdir()]
        assert "tfsparse_" not in "".join(texts)


def test_a_prefix_does_not_change_labels():
    text = writing._class_names(["tfsparse_logo", "TFSPARSE_X"], "mine")
    assert "mine_class_names[MINE_CLASSES]" in text
    assert '"tfsparse_logo",\n    "TFSPARSE_X"' in text


def test_prefixes_that_are_refused(small, tmp_path):
    for prefix in ("", "1st", "Two", "a-b", "_a"):
        with pytest.raises(UsageError, match="--prefix must consist of lower-case"):
            write_package(small.content, small.images, tmp_path, "x", prefix)
        assert not list(tmp_path.iterdir())


def flattened_cnn(shape, classes):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(4, 3, 2, activation="relu"), keras.layers.MaxPooling2D(3)]
    layers += [keras.layers.Flatten(), keras.layers.Dense(classes)]
    return keras.Sequential([keras.Input(shape), *layers])


@pytest.mark.parametrize(
    ("shape", "layer", "message"),
    [
        ((1, 900, 2), keras.layers.MaxPooling2D((1, 300)), "0 to 255 as window_width.*300"),
        ((900, 1, 2), keras.layers.AveragePooling2D((300, 1)), "0 to 255 as window_height.*300"),
        ((70_000, 1, 1), keras.layers.Conv2D(2, 1), "0 to 65,535 as input_height.*70,000"),
        ((1, 1, 70_000), keras.layers.Conv2D(2, 1), "0 to 65,535 as input_channels.*70,000"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(shape, layer, message, tmp_path):
    x = layer(inputs := keras.Input(shape))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x)))
    content = convert(model, "int8", np.random.default_rng(0).random((4, *shape), np.float32))
    with pytest.raises(UsageError, match=message) as raised:
        write_package(content, np.zeros((1, *shape)), tmp_path, "x")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_network_of_one_layer_compiles_without_warnings(tmp_path):
    layers = [keras.layers.Conv2D(4, 6), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((6, 6, 3)), *layers])
    images = np.random.default_rng(0).random((8, 6, 6, 3), np.float32)
    package, build = tmp_path / "package", tmp_path / "build"
    package.mkdir()
    build.mkdir()
    made = write_package(convert(model, "int8", images), images, package, "x")
    program = host.build(package, build, WARNINGS)
    np.testing.assert_array_equal(host.run(program, made.images), made.logits)


@pytest.fixture
def emulator():
    for name in ("ziglang", "unicorn", "elftools"):
        pytest.importorskip(name)


@pytest.mark.slow
def test_self_test_on_a_cortex_m4(written, emulator):
    program = emulation.Program(sorted(written.folder.glob("*.c")), "cortex-m4", "main")
    assert program.call("main").result == 0


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cortex-m0", "riscv32"])
def test_self_test_without_instructions_for_signal_processing(small, emulator, target):
    """Plain C computes the same bits."""
    program = emulation.Program(sorted(small.folder.glob("*.c")), target, "main")
    assert program.call("main").result == 0


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["-mcpu=cortex_m4+strict_align", "-DTFSPARSE_DSP=0"])
def test_self_test_without_words_at_any_address(small, emulator, flag):
    sources = sorted(small.folder.glob("*.c"))
    plain, usual = (
        emulation.Program(sources, "cortex-m4", "main", ("-O3", *more)).call("main")
        for more in ((flag,), ())
    )
    assert plain.result == usual.result == 0
    assert plain.instructions > 1.2 * usual.instructions  # it is plain C


def test_sizes_of_structs(emulator, tmp_path):
    lines = ['#include "tfsparse_kernels.h"']
    for name in structs._structs():
        size = structs.size_of(name)
        lines.append(f'_Static_assert(sizeof(tfsparse_{name}) == {size}, "{name}");')
    assert len(lines) == 6
    (tmp_path / "sizes.c").write_text("\n".join(lines))
    emulation.compile_sources(
        [tmp_path / "sizes.c"], "cortex-m4", tmp_path, ("-Wno-c11-extensions",)
    )


def test_self_test(small, tmp_path):
    """Its main returns the number of images whose logits differ."""
    (tmp_path / "good.c").write_text((small.folder / "self_test.c").read_text())
    text = (tmp_path / "good.c").read_text()
    first = int(small.expected[0, 0])
    wrong = text.replace(
        f"expected[IMAGES][TFSPARSE_CLASSES] = {{\n    {{\n    {first},",
        f"expected[IMAGES][TFSPARSE_CLASSES] = {{\n    {{\n    {first ^ 1},",
    )
    (tmp_path / "wrong.c").write_text(wrong)
    sources = [path for path in small.folder.glob("*.c") if path.name != "self_test.c"]
    for name, status in (("good", 0), ("wrong", 1)):
        command = [
            *host.compiler(),
            "-std=c99",
            "-O1",
            f"-I{small.folder}",
            tmp_path / f"{name}.c",
        ]
        subprocess.run([*command, *sources, "-o", tmp_path / name], check=True)
        assert subprocess.run([tmp_path / name], check=False).returncode == status


def test_bench(small, emulator):
    measured = bench.measure(small.package, small.folder)
    layers = measured.layers
    assert len(layers) == len(small.package.program.calls)
    assert 0 <= measured.instructions - sum(layer["instructions"] for layer in layers) < 200
    assert measured.instructions < measured.cycles < 3 * measured.instructions
    assert 2000 < measured.code < 20_000
    assert abs(measured.flash - measured.code - small.constants) < 0.02 * measured.flash + 1000
    assert 100 < measured.stack < 2000
    text = bench.table(measured)
    assert f"{measured.instructions:,}" in text.splitlines()[len(layers) + 1]


def test_a_wrong_kernel_is_found(small, tmp_path, monkeypatch):
    """The check on this machine compares with LiteRT: then nothing is written."""
    monkeypatch.setattr(host, "run", lambda *_: small.expected + 1)
    with pytest.raises(UsageError, match=r"Nothing is written\. .* 8 of 8 images"):
        write_package(small.content, small.images, tmp_path, "changed")


def plain_cnn():
    """What a Keras CNN may have beside what the zoo's networks have."""
    layers = keras.layers
    x = inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu6")(x)
    x = layers.Conv2D(8, 3, 2)(layers.ZeroPadding2D(((0, 1), (1, 2)))(x))
    y = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x)
    z = layers.Conv2D(16, 3, padding="same", dilation_rate=2, activation="relu")(x)
    x = layers.Concatenate()([x, layers.MaxPooling2D(3, 1, padding="same")(y), z])
    x = layers.LeakyReLU(0.1)(layers.Conv2D(12, 3, padding="same", groups=4)(x))
    x = layers.Add()([x, layers.Conv2D(12, 1)(x)])
    x = layers.Cropping2D(1)(layers.AveragePooling2D(2, 1)(x))
    x = layers.Activation("sigmoid")(layers.Dense(10)(layers.Flatten()(x)))
    return keras.Model(inputs, layers.Dense(4)(x))


@pytest.mark.slow
def test_a_plain_cnn(tmp_path):
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).random((20, 12, 12, 3), np.float32)
    content = convert(plain_cnn(), "int8", images)
    folder = tmp_path / "package"
    folder.mkdir()
    made = write_package(content, images, folder, "plain")
    program = host.build(folder, tmp_path, (*WARNINGS, *SANITIZERS))
    expected = FileModel(content, "reference").outputs(images)
    np.testing.assert_array_equal(host.run(program, made.images), expected)
    assert len(np.unique(expected)) > 10


def by_the_stock_converter(images):
    """A file of TensorFlow's converter alone, with operators that ours does not write."""
    layers = keras.layers
    x = inputs = keras.Input((10, 10, 3), batch_size=1)
    x = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0])(x)
    x = layers.BatchNormalization()(layers.Conv2D(6, 3, activation="relu")(x))
    x = layers.Permute((2, 1, 3))(layers.Activation("tanh")(layers.MaxPooling2D()(x)))
    x = layers.Dense(21, activation="relu")(layers.Flatten()(x))
    model = keras.Model(inputs, layers.Softmax()(layers.Dense(7)(x)))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense):
            layer.kernel.assign(4 * layer.kernel)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return converter.convert()


def test_a_file_whose_batch_is_not_fixed(tmp_path):
    model = flattened_cnn((12, 12, 1), 3)
    model.export(tmp_path / "saved", verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved"))
    images = np.random.default_rng(0).random((8, 12, 12, 1), np.float32)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = converter.convert()
    (tmp_path / "package").mkdir()
    with pytest.raises(UsageError, match=r"SHAPE.*Convert the model with a batch of one"):
        write_package(content, images, tmp_path / "package", "x")


def test_a_file_of_the_stock_converter(tmp_path):
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).random((30, 10, 10, 3), np.float32)
    content = by_the_stock_converter(images)
    names = operator_names(content)
    assert {"FULLY_CONNECTED", "SOFTMAX", "SUB", "TRANSPOSE"} <= set(names)
    (tmp_path / "package").mkdir()
    made = write_package(content, images, tmp_path / "package", "foreign")
    assert made.checked == 30
    assert len(np.unique(made.logits)) > 20
    kernels = [call.kernel for call in made.program.calls]
    assert "copy" not in kernels  # the transposition is in the weights


@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize("scale", [0.01, 0.3, 2.0])
@pytest.mark.parametrize("count", [2, 10, 511])
def test_softmax(beta, scale, count):
    """As LiteRT's, whose polynomial and Newton's method in fixed point it follows."""
    rng = np.random.default_rng(0)
    values = rng.normal(0, [[5], [40], [90]], (3, count)).clip(-128, 127).astype(np.int8)
    options = schema.SoftmaxOptionsT()
    options.beta = beta
    tensors = [reference.tensor((1, count), scale, 3)]
    output = reference.tensor((1, count), 1 / 256, -128)
    expected = [reference.run("SOFTMAX", options, tensors, output, [row[None]]) for row in values]
    found = softmax_library()(values, exponentials(scale, beta))
    np.testing.assert_array_equal(found, np.concatenate(expected))


@functools.cache
def softmax_library():
    """The kernel as a function of int8 [n, count] and its table."""
    folder = pathlib.Path(tempfile.mkdtemp())
    command = [
        *host.compiler(),
        "-std=c99",
        "-shared",
        "-fPIC",
        *WARNINGS,
        f"-I{emulation.KERNELS}",
    ]
    source, library = emulation.KERNELS / "softmax.c", folder / "softmax.so"
    subprocess.run([*command, source, "-o", library], check=True)
    kernel = ctypes.CDLL(str(library)).tfsparse_softmax

    def call(values, table):
        rows = [np.ascontiguousarray(row) for row in values]
        for row in rows:
            kernel(
                row.ctypes.data_as(ctypes.c_void_p),
                table.ctypes.data_as(ctypes.c_void_p),
                ctypes.c_int32(len(row)),
                row.ctypes.data_as(ctypes.c_void_p),
            )
        return np.stack(rows)

    return call


@pytest.mark.parametrize("text", ["plane", 'a "quoted" \\ one', "Größe ??/", "line\nbreak"])
def test_names_of_classes(text, tmp_path):
    """Any text is the same text in C."""
    source, program = tmp_path / "name.c", tmp_path / "name"
    body = f"#include <stdio.h>\nint main(void) {{ return fputs({c_string(text)}, stdout) < 0; }}\n"
    source.write_text(body)
    subprocess.run([*host.compiler(), "-std=c99", source, "-o", program], check=True)
    assert subprocess.run([program], capture_output=True, check=True).stdout == text.encode()


def float_file():
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3)])
    model.add(keras.layers.Flatten())
    return convert(model, "float32", None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda good: b"", "not a .tflite file"),
        (lambda good: b"\0\0\0\0TFL3", "Cannot read"),
        (lambda good: good[:2000], "Cannot read"),
        (lambda good: pathlib.Path(__file__).read_bytes(), "not a .tflite file"),
        (lambda good: float_file(), r"files in int8.*Received: float32 and float32"),
    ],
    ids=["empty", "identifier only", "cut", "foreign", "float"],
)
def test_files_that_are_refused(make, message, tmp_path):
    content = make(zoo.load_tflite("resnet8_dnr10_fashion_mnist_small").read_bytes())
    with pytest.raises(UsageError, match=message) as raised:
        write_package(content, np.zeros((1, 28, 28, 1)), tmp_path, "x")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())
