"""Finds, downloads, and prepares the builders of tensorflow-datasets."""

import contextlib
import difflib
import sys

import requests
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import resource

from tfsparse.errors import UsageError

# Importing a builder registers it with tensorflow-datasets.
from zoo.datasets import fashion_mnist_small, tiny_imagenet  # noqa: F401


def find_builder(name, data_dir):
    """Returns the tensorflow-datasets builder called `name`, whose data may have to be prepared.

    Args:
        name: as in `zoo.data.open_dataset`.
        data_dir: where tensorflow-datasets keeps prepared data; None is its own default.

    Raises:
        UsageError: if there is none.
    """
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.registered.DatasetNotFoundError as error:
        close = difflib.get_close_matches(name.split("/")[0], tfds.list_builders(), n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(close)}?" if close else "See tfds.list_builders()."
        raise UsageError(
            f"There is no data set {name!r} in tensorflow-datasets, and no folder or .npz file of "
            f"that name. {hint}"
        ) from error
    except Exception as error:
        # An unknown configuration or version, a name that cannot be parsed, or damaged files: each
        # builder fails in its own way.
        raise UsageError(
            f"Cannot open the data set {name!r}; give --dataset as NAME or NAME/CONFIG. "
            f"{type(error).__name__}: {_one_line(error)[:200]}"
        ) from error


def prepare(name, builder):
    """Downloads and prepares the data set of `builder`.

    Raises:
        UsageError: if it cannot be downloaded or prepared; without a network, within seconds.
    """
    _check_downloads(name, builder)
    _check_writable(builder.data_dir_root)
    tfds.display_progress_bar(sys.stderr.isatty())
    # Google's bucket of prepared data is closed; without a network, asking it takes minutes.
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        # It prints to stdout, which is for the results of commands.
        with contextlib.redirect_stdout(sys.stderr):
            builder.download_and_prepare(download_config=config)
    # Each builder fails in its own way.
    except Exception as error:
        # Another process, such as another worker, may have prepared it first.
        if not builder.is_prepared():
            raise UsageError(
                f"Cannot prepare the data set {name!r} in {builder.data_dir_root}: "
                f"{type(error).__name__}: {_one_line(error)} {_by_hand(name, builder)}"
            ) from error


def _check_writable(folder):
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink(missing_ok=True)
    except (OSError, tf.errors.OpError) as error:
        raise UsageError(
            f"Cannot write to --data_dir={folder}: {_one_line(error)}. Choose a folder that can "
            "be written to."
        ) from error


def _check_downloads(name, builder):
    """Raises a `UsageError` if a file has to be downloaded and its server cannot be reached.

    tensorflow-datasets itself retries for minutes before it fails.
    """
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        # The builder fails at once by itself and says where to get the files.
        return
    missing = _missing_files(builder)
    # A builder lists the files of all its configurations. If some files are here, they are taken to
    # be those of this one.
    if builder.builder_config and len(missing) < len(builder.url_infos or {}):
        return
    url = next((url for url in missing if url.startswith("http")), None)
    if not url:
        return
    try:
        # Proxies answer with a status from 500 if they cannot reach the server.
        reachable = requests.head(url, timeout=5, allow_redirects=True).status_code < 500
    except requests.RequestException:
        reachable = False
    if not reachable:
        raise UsageError(
            f"The data set {name!r} is not prepared in {builder.data_dir_root}, and {url} cannot "
            f"be reached to download it. {_by_hand(name, builder)}"
        )


def _missing_files(builder):
    """Returns {url: size and checksum} of the files that have yet to be downloaded."""
    downloads = builder.data_dir_root / "downloads"

    def is_here(url, file):
        cached = downloads / builder.name / resource.get_dl_fname(url, file.checksum)
        return cached.exists() or (
            file.filename and (downloads / "manual" / file.filename).exists()
        )

    infos = builder.url_infos or {}
    return {url: file for url, file in infos.items() if not is_here(url, file)}


def _by_hand(name, builder):
    """Returns a sentence: how to prepare a data set that cannot be downloaded."""
    folder = builder.data_dir_root
    module = type(builder).__module__
    ours = ", " + module if module.startswith("zoo.") else ""
    text = (
        'On a machine with internet, run: python -c "import tensorflow_datasets as tfds'
        f"{ours}; tfds.builder({name!r}, data_dir='data').download_and_prepare()\" "
        f"and copy the folder data/{builder.name} into {folder}."
    )
    files = [
        f"{file.filename} (from {url})"
        for url, file in _missing_files(builder).items()
        if file.filename
    ]
    # Some sets consist of hundreds of files.
    if 0 < len(files) <= 8:
        text += f" Or put its files into {folder / 'downloads' / 'manual'}: {', '.join(files)}."
    return text


def _one_line(error):
    return " ".join(str(error).split())


@contextlib.contextmanager
def damage_reported(builder):
    """Turns TensorFlow's errors about damaged files into a `UsageError`."""
    try:
        yield
    except tf.errors.OpError as error:
        raise UsageError(
            f"The data set {builder.name!r} in {builder.data_dir} is damaged: "
            f"{_one_line(error.message)[:200]} Remove that folder to have it prepared again."
        ) from error
