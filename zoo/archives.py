"""An .npz file of images and labels: x_train, y_train, x_test, y_test. NumPy and Pillow only."""

import hashlib
import pathlib
import zipfile

import numpy as np
from PIL import Image

from tfsparse.errors import UsageError
from zoo.folders import in_parallel, resized

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
MAX_BYTES = 16e9  # of all arrays together; a data set may have as much in its splits


class Archive:
    """The images of an .npz file, with the attributes of `zoo.folders.Folder`.

    Images are uint8 [n, h, w], [n, h, w, 1], or [n, h, w, 3]; labels are integers [n] or [n, 1]
    from 0, each of which occurs in y_train. The names of the classes are their numbers.

    Args:
        path: of the file.

    Raises:
        UsageError: if it is not such a file; it names the file. Pickled objects are not loaded.
    """

    vary = None

    def __init__(self, path):
        self._path = pathlib.Path(path)
        arrays = _read(self._path)
        train, test = (self._uint8(arrays, part) for part in ("train", "test"))
        if train.shape[1:] != test.shape[1:]:
            raise self._unusable(f"x_train has the shape {train.shape}, x_test {test.shape}")
        labels = self._labels(arrays, "train", len(train)), self._labels(arrays, "test", len(test))
        classes = np.unique(labels[0])
        if len(classes) < 2 or not np.array_equal(classes, np.arange(len(classes))):
            raise self._unusable(
                "y_train must have each label from 0 to the number of classes - 1, of two or more, "
                f"but has {', '.join(map(str, classes[:5]))}{', ...' * (len(classes) > 5)}"
            )
        unknown = np.setdiff1d(labels[1], classes)
        if unknown.size:
            raise self._unusable(f"y_test has the label {unknown[0]}, which y_train does not have")
        self._pixels = np.concatenate([train, test])
        self.labels = np.concatenate(labels).astype(np.int32)
        self.class_names = [str(label) for label in classes]
        self.is_test = np.arange(len(self.labels)) >= len(train)
        self.keys = [f"train/{index}" for index in range(len(train))]
        self.keys += [f"test/{index}" for index in range(len(test))]
        self.image_shape = train.shape[1:]

    def read(self, indices, shape, title):
        """Returns the images at `indices`, resized, as `zoo.folders.Folder.read` does."""
        if shape == self.image_shape:
            return self._pixels[indices]
        images = np.empty((len(indices), *shape), np.uint8)

        def resize(position):
            pixels = self._pixels[indices[position]]
            pixels = pixels[..., 0] if shape[2] == 1 else pixels
            images[position] = resized(Image.fromarray(pixels), shape)

        in_parallel(resize, range(len(indices)), title)
        return images

    def hashes(self, indices):
        """Returns the sha256 of each image at `indices` and its label, a list of bytes."""
        stored = zip(self._pixels[indices], self.labels[indices], strict=True)
        return [
            hashlib.sha256(image.tobytes() + label.tobytes()).digest() for image, label in stored
        ]

    def _uint8(self, arrays, part):
        """Returns the images of a part as uint8 [n, h, w, c]."""
        images = arrays[f"x_{part}"]
        images = images[..., np.newaxis] if images.ndim == 3 else images
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
            raise self._unusable(
                f"x_{part} must be uint8 images [n, height, width] or with 1 or 3 channels, but is "
                f"{images.dtype} {arrays[f'x_{part}'].shape}"
            )
        if not images.size:
            raise self._unusable(f"x_{part} has no images")
        return images

    def _labels(self, arrays, part, count):
        labels = arrays[f"y_{part}"]
        if labels.dtype.kind not in "iu" or labels.shape not in ((count,), (count, 1)):
            raise self._unusable(
                f"y_{part} must be integers of shape ({count},), as x_{part} has {count} images, "
                f"but is {labels.dtype} {labels.shape}"
            )
        return labels.reshape(count)

    def _unusable(self, why):
        return UsageError(f"{self._path} cannot be used: {why}. Write the file again.")


def _read(path):
    """Returns the arrays of an .npz file, {name: array}."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_BYTES:
            raise ValueError(f"it unpacks to {size / 1e9:.0f} GB, more than {MAX_BYTES / 1e9:.0f}")
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in ARRAYS if name not in archive]
            if missing:
                raise ValueError(
                    f"it lacks {', '.join(missing)}, and has {', '.join(archive)!s:.100}"
                )
            return {name: archive[name] for name in ARRAYS}
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror or error}.") from error
    except Exception as error:  # a damaged file can break anywhere in zipfile and NumPy
        raise UsageError(
            f"{path} is not an .npz file of {', '.join(ARRAYS)}: {str(error) or repr(error)}"
        ) from error
