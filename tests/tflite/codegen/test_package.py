"""The package in C: it compiles without warnings, and its bits are those of LiteRT."""

import json
import re
import subprocess

import numpy as np
import pytest

import zoo
from tests.tflite.codegen.models import flattened_cnn
from tests.tflite.codegen.programs import SANITIZED, STRICT
from tflite.codegen import bench, emulation, host, package, writing
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
    "shufflenet_w80_cifar10": "average_pool.c",
}


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
    program = host.build(written.folder, tmp_path, (*STRICT, *SANITIZED))
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
        command = [*host.compiler(), "-std=c99", *STRICT, "-c", *sources]
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


@pytest.mark.parametrize("text", ["plane", 'a "quoted" \\ one', "Größe ??/", "line\nbreak"])
def test_names_of_classes(text, tmp_path):
    """Any text is the same text in C."""
    source, program = tmp_path / "name.c", tmp_path / "name"
    body = f"#include <stdio.h>\nint main(void) {{ return fputs({c_string(text)}, stdout) < 0; }}\n"
    source.write_text(body)
    subprocess.run([*host.compiler(), "-std=c99", source, "-o", program], check=True)
    assert subprocess.run([program], capture_output=True, check=True).stdout == text.encode()
