"""Files that are complete or absent, and tensors in safetensors files."""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import secrets
import shutil
import time

import safetensors
import safetensors.numpy

from tfsparse.errors import UsageError

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

PARTIAL = "partial-"  # begins the name of what is being written
LEFTOVER_SECONDS = 24 * 3600  # what is older, and partial, was left by a process that was killed


@contextlib.contextmanager
def replacing(path):
    """Yields a path beside `path` to write to; renames it to `path` if the block succeeds.

    If several processes write the same file at once, the file is that of the last one.

    Raises:
        UsageError: if the folder cannot be made or written to.
    """
    path = pathlib.Path(path)
    partial = _partial(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def copy_file(source, target):
    """Gives the file `target` the content of `source`; a link if the file system has them.

    Both must only be replaced, never changed.

    Raises:
        UsageError: if it cannot be written.
    """
    with replacing(target) as partial:
        try:
            os.link(source, partial)
        except OSError:  # of a file system without links
            shutil.copyfile(source, partial)


def _partial(path):
    """Returns a path beside `path` that no other process uses; some writers check its suffix."""
    return path.with_name(f"{PARTIAL}{secrets.token_hex(4)}-{path.name}")


def _remove_leftovers(path):
    """Removes what processes left that were killed while they wrote `path`, after a day."""
    name = re.compile(f"{PARTIAL}[0-9a-f]{{8}}-{re.escape(path.name)}")
    for each in path.parent.glob(f"{PARTIAL}*"):
        with contextlib.suppress(OSError):  # another process may remove it, too
            age = time.time() - each.stat().st_mtime
            if name.fullmatch(each.name) and age > LEFTOVER_SECONDS:
                shutil.rmtree(each) if each.is_dir() else each.unlink()


@contextlib.contextmanager
def locked(folder):
    """Within the block, other processes wait at their `locked(folder)`; it makes the folder.

    For files that are read, changed, and written again. Does not lock on Windows.

    Raises:
        UsageError: if the folder cannot be made.
    """
    folder = pathlib.Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY) if fcntl else None
    except OSError as error:
        raise _cannot_write(folder, error) from error
    try:
        if fcntl:
            with contextlib.suppress(OSError):  # some network file systems have no locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        if fcntl:
            os.close(descriptor)  # and so unlocks


def _cannot_write(path, error):
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return UsageError(f"Cannot write {path}: what should be its folder is a file.")
    return UsageError(
        f"Cannot write {path}: {error.strerror or error}. Choose a folder that can be written to "
        "and has space."
    )


def write_bytes(path, content):
    """Writes the bytes or text `content` to `path`, whole or not at all."""
    with replacing(path) as partial:
        if isinstance(content, str):
            partial.write_text(content, encoding="utf-8")
        else:
            partial.write_bytes(content)


def written(path):
    """Returns the line that tells a user of a file: "wrote PATH (N kB)"; a kB is 1000 bytes."""
    return f"wrote {path} ({-(-pathlib.Path(path).stat().st_size // 1000):,} kB)"


def write_tensors(path, tensors, metadata=None):
    """Writes `tensors`, a dict of NumPy arrays, and `metadata`, a dict of str, to `path`."""
    write_bytes(path, tensor_bytes(tensors, metadata))


def tensor_bytes(tensors, metadata=None):
    """Returns the safetensors file of both, bytes: the same content gives the same bytes."""
    content = safetensors.numpy.save(tensors)
    if metadata:
        # Safetensors would write the entries in an order that changes from call to call.
        size = 8 + int.from_bytes(content[:8], "little")
        header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(content[8:size])}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
        content = len(text).to_bytes(8, "little") + text + content[size:]
    return content


def read_tensors(path):
    """Returns `(tensors, metadata)` of a safetensors file.

    Raises:
        UsageError: if the file is missing, truncated or of another format.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    # Types that NumPy does not have, such as 8-bit floats, break it in other ways.
    except (OSError, safetensors.SafetensorError, AttributeError, KeyError, TypeError) as error:
        raise UsageError(f"Cannot read the tensors of {path}: {error}") from error


def sha256_of(path):
    """Returns the sha256 of a file's content, a hexadecimal str; `path` is a pathlib.Path."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def new_folder(path):
    """Yields a folder beside `path` to write to; renames it to `path` if the block succeeds.

    Raises:
        UsageError: if `path` is anything but a folder that is empty or not there, before or after
            the block, or cannot be made.
    """
    path = pathlib.Path(path).absolute()
    _check_is_new(path)
    partial, made = _partial(path), _missing_parents(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        partial.mkdir()
        yield partial
        _check_is_new(path)
        os.replace(partial, path)
    except OSError as error:
        _check_is_new(path)  # another process may have made it just now
        raise _cannot_write(path, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):  # such as that another process wrote to it
            for folder in made if not path.exists() else ():
                folder.rmdir()


def _missing_parents(path):
    """Returns the folders that have to be made for `path`, the innermost first."""
    return [folder for folder in path.parents if not folder.exists()]


def _check_is_new(path):
    try:
        is_new = not path.exists() or (path.is_dir() and not any(path.iterdir()))
    except OSError as error:  # a folder that may not be read, a name that is too long
        raise _cannot_write(path, error) from error
    if not is_new:
        raise UsageError(f"Choose a folder that is new or empty. Received: {path}")
