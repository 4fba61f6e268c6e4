"""Files are complete or absent."""

import hashlib
import sys

import numpy as np
import pytest

from tfsparse import UsageError
from tfsparse.files import (
    new_folder,
    read_tensors,
    replacing,
    sha256_of,
    write_bytes,
    write_tensors,
)


def test_failure_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    write_bytes(path, "old")

    def fail():
        with replacing(path) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
    assert path.read_text() == "old"


def test_same_tensors_give_the_same_bytes(tmp_path):
    tensors = {name: np.arange(5.0) for name in "bca"}
    metadata = {name: f'"{name}" of ü' for name in "qwertyuiop"}
    contents = set()
    for index in range(5):
        write_tensors(tmp_path / str(index), tensors, metadata)
        contents.add((tmp_path / str(index)).read_bytes())
    assert len(contents) == 1
    found, read = read_tensors(tmp_path / "0")
    assert read == metadata
    assert all(np.array_equal(found[name], tensors[name]) for name in tensors)
    assert int.from_bytes(contents.pop()[:8], "little") % 8 == 0


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"Cannot write .*file/below"):
        write_bytes(tmp_path / "file" / "below", b"")


def test_tensors_round_trip(tmp_path):
    tensors = {"a": np.arange(6, dtype=np.int64).reshape(2, 3), "b/c": np.float32([])}
    write_tensors(tmp_path / "t.safetensors", tensors, {"epoch": "3"})
    found, metadata = read_tensors(tmp_path / "t.safetensors")
    assert metadata == {"epoch": "3"}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype
    write_tensors(tmp_path / "t.safetensors", tensors)
    assert read_tensors(tmp_path / "t.safetensors")[1] == {}


@pytest.mark.parametrize("size", [0, 5, (1 << 20) + 1])
def test_sha256_is_of_all_bytes(tmp_path, size):
    content = np.random.default_rng(0).bytes(size)
    write_bytes(tmp_path / "file", content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("content", [b"", b"not tensors", b"\xff" * 64])
def test_foreign_files(tmp_path, content):
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(UsageError, match="Cannot read the tensors of"):
        read_tensors(tmp_path / "t")
    with pytest.raises(UsageError, match="missing"):
        read_tensors(tmp_path / "missing")


def test_new_folder_is_whole_or_absent(tmp_path):
    def fill(path, fail=False):
        with new_folder(path) as folder:
            (folder / "file").write_text("x")
            if fail:
                raise RuntimeError

    with pytest.raises(RuntimeError):
        fill(tmp_path / "a" / "b", fail=True)
    assert list((tmp_path / "a").iterdir()) == []
    fill(tmp_path / "a" / "b")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["file"]
    (tmp_path / "empty").mkdir()
    fill(tmp_path / "empty")
    for path in (tmp_path / "empty", tmp_path / "empty" / "file"):
        with pytest.raises(UsageError, match="new or empty"):
            fill(path)
    with pytest.raises(UsageError, match="Cannot write"):
        fill(tmp_path / "empty" / "file" / "below")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "empty"]


FULL_DISK = """
import pathlib, resource, sys
import keras
from tfsparse import UsageError, files

folder = pathlib.Path(sys.argv[1])
keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(512, 3)])
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # writing more fails as on a full disk

def save(path):
    with files.replacing(path) as partial:
        model.save(partial)

def fill(path):
    with files.new_folder(path) as partial:
        (partial / "small").write_bytes(b"x")
        (partial / "large").write_bytes(b"x" * 5000)

for name, write in {
    "bytes": lambda path: files.write_bytes(path, b"x" * 5000),
    "model.keras": save,
    "folder": fill,
}.items():
    try:
        write(folder / name)
        print(name, "was written")
    except UsageError as error:
        print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="file sizes cannot be limited")
def test_a_full_disk_leaves_what_was_there(tmp_path, run):
    (tmp_path / "bytes").write_bytes(b"before")
    result = run("-c", FULL_DISK, tmp_path)
    lines = result.stdout.splitlines()
    assert len(lines) == 3, result.stderr
    assert all(line.startswith("Cannot write") for line in lines)
    assert all("space" in line for line in lines)
    assert [path.name for path in tmp_path.rglob("*")] == ["bytes"]
    assert (tmp_path / "bytes").read_bytes() == b"before"


def test_tensors_of_a_type_that_numpy_lacks_are_refused(tmp_path):
    header = b'{"a":{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}}'
    path = tmp_path / "t.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(UsageError, match="Cannot read the tensors"):
        read_tensors(path)
