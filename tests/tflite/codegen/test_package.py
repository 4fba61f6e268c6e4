"""The package in C: it compiles without warnings, and its bits are those of LiteRT."""

import json
import pathlib
import re
import subprocess

import keras
import numpy as np
import pytest

import zoo
from tflite.codegen import bench, emulation, host, package
from tflite.codegen.package import write_package
from tflite.codegen.writing import c_string
from tflite.convert import convert
from tflite.runtimes import FileModel
from tfsparse.errors import UsageError
from zoo.figures import golden_images

pytestmark = pytest.mark.skipif(host.compiler() is None, reason="no C compiler")

# Single weights pruned; small convolutions over shifted channels; groups, shuffles, and pooling.
MODELS = {
    "resnet8_dnr10_fashion_mnist_small": "convolve_sparse.c",
    "resnet18_w16_ps4p4_cifar10": "convolve_gathered.c",
    "shufflenet_w80_cifar10": "convolve_depthwise.c",
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
def packages(tmp_path_factory):
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
    assert sources == {"model.c", "weights.c", "self_test.c", *manifest["kernels"]}
    assert MODELS[written.name] in sources
    assert set(manifest["kernels"]) < {path.name for path in emulation.KERNELS.glob("*.c")}
    text = (written.folder / "model.c").read_text()
    assert len(re.findall(r"^  tfsparse_", text, re.MULTILINE)) >= len(manifest["layers"])
    assert [int(row) for row in card["golden"]["int8"][0]] == written.expected[0].tolist()


def test_bits_under_sanitizers(written, tmp_path):
    """Every read and write is inside its array, and no sum overflows."""
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


@pytest.fixture
def emulator():
    for name in ("ziglang", "unicorn", "elftools"):
        pytest.importorskip(name)


def test_self_test_on_a_cortex_m4(written, emulator):
    program = emulation.Program(sorted(written.folder.glob("*.c")), "cortex-m4", "main")
    assert program.call("main").result == 0


def test_self_test_on_a_cortex_m0(small, emulator):
    """Plain C computes the same bits as the instructions for signal processing."""
    program = emulation.Program(sorted(small.folder.glob("*.c")), "cortex-m0", "main")
    assert program.call("main").result == 0


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
    """The check on this machine compares with LiteRT: then nothing is small."""
    monkeypatch.setattr(host, "run", lambda *_: small.expected + 1)
    with pytest.raises(UsageError, match=r"Nothing is small\. .* 8 of 8 images"):
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
        (lambda good: float_file(), "files in int8"),
    ],
    ids=["empty", "identifier only", "cut", "foreign", "float"],
)
def test_files_that_are_refused(make, message, tmp_path):
    content = make(zoo.load_tflite("resnet8_dnr10_fashion_mnist_small").read_bytes())
    with pytest.raises(UsageError, match=message) as raised:
        write_package(content, np.zeros((1, 28, 28, 1)), tmp_path, "x")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())
