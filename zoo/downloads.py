"""Files of models that are too large for the package: fetched once, into Keras' cache."""

import contextlib
import hashlib
import os
import pathlib

import requests
import tqdm

from tfsparse.errors import UsageError

_CHUNK = 1 << 20
_TIMEOUT = 30  # seconds without a byte


def fetch(url, name, size, sha256):
    """Returns the path of the file at `url`, downloaded unless it was before.

    It lies where `keras.utils.get_file` would put it, `models/tfsparse/` in KERAS_HOME or
    ~/.keras. A download that was interrupted continues; the file gets its name when it is whole.

    Args:
        url: http or https.
        name: of the file in the cache.
        size: bytes that it has; more are not written.
        sha256: hexadecimal, of its content.

    Raises:
        UsageError: where it cannot be fetched, or what came is another file.
    """
    home = pathlib.Path(os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras")
    path = home / "models" / "tfsparse" / name
    partial = path.with_name(f"{name}.partial")

    def is_there():
        return path.exists() and path.stat().st_size == size and sha256_of(path) == sha256

    if is_there():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent / ".lock"):
            if is_there():  # another process fetched it while this one waited
                return path
            _download(url, partial, size)
            found = sha256_of(partial)
            if found == sha256:
                partial.replace(path)
                return path
            partial.unlink()
    except (OSError, requests.RequestException) as error:
        raise UsageError(
            f"Cannot download {url} to {path}: {type(error).__name__}: {error}. Try again, which "
            "continues, or put the file there."
        ) from error
    raise UsageError(
        f"{url} is not the file of the card: its sha256 is {found}, expected {sha256}. Try again, "
        "or install the package again."
    )


@contextlib.contextmanager
def _locked(path):
    """Lets one process at a time go on; the system unlocks the file at `path` of one that died."""
    import fcntl  # Windows has none, where all but downloads works without

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download(url, partial, size):
    """Adds to the file `partial` what it lacks; raises OSError where less comes."""
    done = partial.stat().st_size if partial.exists() else 0
    if done >= size:
        return
    headers = {"Accept-Encoding": "identity"}  # bytes are counted as they lie in the file
    if done:
        headers["Range"] = f"bytes={done}-"
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        if done and response.status_code == requests.codes.requested_range_not_satisfiable:
            partial.unlink()  # the next try begins anew
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            done = 0  # the server gives the whole file only
        with (
            partial.open("ab" if done else "wb") as file,
            tqdm.tqdm(
                desc=partial.stem,
                total=size,
                initial=done,
                unit="B",
                unit_scale=True,
                leave=False,
                disable=None,
            ) as progress,
        ):
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk[: size - done])
                done += len(chunk)
                progress.update(len(chunk))
                if done > size:
                    break
    if done < size:
        raise OSError(f"the connection ended after {done:,} of {size:,} bytes")


def sha256_of(path):
    """Returns the sha256 of a file's content, a hexadecimal str."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
