"""Files are complete or absent."""

import hashlib
import multiprocessing
import os
import sys
import time

import numpy as np
import pytest

from tfsparse import UsageError
from tfsparse.files import (
    PARTIAL,
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
    assert list(tmp_path.iterdir()) == []
    fill(tmp_path / "a" / "b")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["file"]
    (tmp_path / "empty").mkdir()
    fill(tmp_path / "empty")
    for path in (tmp_path / "empty", tmp_path / "empty" / "file"):
        with pytest.raises(UsageError, match="new or empty"):
            fill(path)
    for path in (tmp_path / "empty" / "file" / "below", tmp_path / ("x" * 300)):
        with pytest.raises(UsageError, match="Cannot write"):
            fill(path)
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
def test_a_full_disk_leaves_what_was_there(tmp_path, fork):
    (tmp_path / "bytes").write_bytes(b"before")
    result = fork("-c", FULL_DISK, tmp_path)
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


def write(kind, path, letter, barrier, lines):
    barrier.wait()
    try:
        for _ in range(20 if kind == "file" else 1):
            with (replacing if kind == "file" else new_folder)(path) as partial:
                for part in range(10):
                    with open(partial if kind == "file" else partial / str(part), "a") as stream:
                        stream.write(letter * 1000)
                    time.sleep(0.001 if kind == "file" else 0.02)
        lines.put("")
    except UsageError as error:
        lines.put(str(error))


def write_at_once(kind, path):
    """Two processes write `path`; returns the errors, sorted."""
    context = multiprocessing.get_context("fork")  # the only one that need not import it all again
    barrier, lines = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=write, args=(kind, path, letter, barrier, lines)) for letter in "ab"
    ]
    for process in processes:
        process.start()
    found = sorted(lines.get(timeout=100) for _ in processes)
    for process in processes:
        process.join(timeout=100)
    return found


@pytest.mark.skipif(sys.platform == "win32", reason="processes cannot be forked")
def test_of_two_processes_that_write_a_file_each_writes_a_whole_one(tmp_path):
    assert write_at_once("file", tmp_path / "file") == ["", ""]
    assert (tmp_path / "file").read_text() in ("a" * 10_000, "b" * 10_000)
    assert not list(tmp_path.glob("partial-*"))


@pytest.mark.skipif(sys.platform == "win32", reason="processes cannot be forked")
def test_of_two_processes_that_write_a_folder_one_wins(tmp_path):
    silent, line = write_at_once("folder", tmp_path / "folder")
    assert silent == ""
    assert line == f"Choose a folder that is new or empty. Received: {tmp_path / 'folder'}"
    contents = {path.read_text() for path in (tmp_path / "folder").iterdir()}
    assert len(contents) == 1
    assert len(list((tmp_path / "folder").iterdir())) == 10
    assert not list(tmp_path.glob("partial-*"))


def test_leftovers_of_killed_processes_go_after_a_day(tmp_path):
    old = ["partial-0123abcd-file", "partial-89abcdef-folder"]
    others = ["partial-0123abcd-a-file", "partial-file", "partial-0123abcd-file2", "file-old"]
    for name in (*old, *others, "partial-00000000-file"):
        folder = "folder" in name
        (tmp_path / name).mkdir() if folder else (tmp_path / name).write_text("half")
        if folder:
            (tmp_path / name / "half").write_text("half")
        if name in (*old, *others):
            os.utime(tmp_path / name, (time.time() - 25 * 3600,) * 2)
    write_bytes(tmp_path / "file", "new")
    with new_folder(tmp_path / "folder"):
        pass
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"file", "folder", "partial-00000000-file", *others}


def test_the_partial_name_keeps_prefix_and_suffix(tmp_path):
    with replacing(tmp_path / "model.weights.h5") as one, replacing(one.parent / "b") as two:
        assert one.name.startswith(PARTIAL)
        assert one.name.endswith(".weights.h5")
        assert one.parent == two.parent == tmp_path
        one.write_text("x")
        two.write_text("y")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "model.weights.h5"]
