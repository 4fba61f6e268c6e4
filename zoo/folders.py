"""A folder of images, one folder for each class, decoded in parallel by Pillow.

    train/CLASS/*.png and test/CLASS/*.png, only CLASS/*.png, or, to evaluate, only test/CLASS/*.png

Needs neither TensorFlow nor tensorflow-datasets.
"""

import concurrent.futures
import contextlib
import hashlib
import os
import pathlib

import numpy as np
import tqdm
from PIL import Image, ImageOps

from tfsparse.errors import UsageError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
# Pillow's modes of 8-bit images, without colors and with them.
GRAY = ("1", "L", "LA")
COLOR = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
IGNORED = ("thumbs.db", "desktop.ini")  # of file managers, besides hidden files
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)  # the EXIF tag; its values for turned images


class Folder:
    """The images of a folder; their headers are read here, the images by `read`.

    Args:
        path: of the folder.

    Attributes:
        keys: path of each image within the folder, with "/" between its parts; list of str.
        labels: class of each, int32 [n].
        class_names: names of the classes' folders, in alphabetical order.
        is_test: which images are in the folder "test", bool [n]; None if there is no such folder.
        image_shape: (height, width, channels) of all images: 1 channel if all are gray, or else 3.
            An image with a palette is gray if all colors of the palette are.
            Height and width are None if images vary in size.
        vary: None, or a sentence that names two images of different size.

    Raises:
        UsageError: if there are fewer than two classes, a class has no images, or a file is not an
            8-bit image; it names the folder or the file.
    """

    def __init__(self, path):
        self._path = pathlib.Path(path)
        folders = _folders(self._path)
        # Of vehicles, "train" may also be a class.
        if self._path / "train" in folders and _folders(self._path / "train"):
            self.class_names, found, self.is_test = _train_and_test(self._path, folders)
        elif folders == [self._path / "test"] and _folders(folders[0]):
            self.class_names, found = _classes(folders[0], _folders(folders[0]))
            self.is_test = np.ones(len(found), bool)
        else:
            self.class_names, found = _classes(self._path, folders)
            self.is_test = None
        self.labels = np.array([label for _, label in found], np.int32)
        self._paths = [path for path, _ in found]
        self.keys = [path.relative_to(self._path).as_posix() for path in self._paths]
        headers = in_parallel(_header, self._paths, f"{path} headers")
        sizes = [size for size, _ in headers]
        other = next((index for index, size in enumerate(sizes) if size != sizes[0]), None)
        self.image_shape = (*sizes[0], 3 if any(color for _, color in headers) else 1)
        self.vary = None
        if other is not None:
            self.image_shape = (None, None, self.image_shape[2])
            first, second = ("{}x{}".format(*sizes[index]) for index in (0, other))
            self.vary = (
                f"Images vary in size: {self._paths[0]} is {first}, {self._paths[other]} {second}."
            )

    def read(self, indices, shape, title):
        """Returns the images at `indices`, resized to shape (h, w, c) if they have another.

        Args:
            indices: int [n].
            shape: (height, width, channels) of the result.
            title: of the progress bar.

        Returns:
            uint8 [n, height, width, channels].

        Raises:
            UsageError: if an image cannot be decoded; it names the file.
        """
        images = np.empty((len(indices), *shape), np.uint8)

        def decode(position):
            images[position] = _decoded(self._paths[indices[position]], shape)

        in_parallel(decode, range(len(indices)), title)
        return images

    def hashes(self, indices):
        """Returns the sha256 of each file at `indices`, a list of bytes."""

        def sha256(index):
            with _reading(self._paths[index]):
                return hashlib.sha256(self._paths[index].read_bytes()).digest()

        return in_parallel(sha256, indices, "hashing")


def read_image(path, shape):
    """Returns the image at `path` as uint8 [h, w, c], resized and converted to `shape`.

    Raises:
        UsageError: if it is not an 8-bit image; it names the file.
    """
    _header(path)
    return _decoded(path, shape)


def resized(image, shape):
    """Returns a PIL.Image as uint8 [h, w, c]; resizing is bilinear and antialiased."""
    height, width, channels = shape
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8).reshape(height, width, channels)


def _train_and_test(path, folders):
    """Returns the class names, (path, label) of each image, and which are test images, bool [n]."""
    names = [folder.name for folder in folders]
    if names != ["test", "train"]:
        raise UsageError(
            f"{path} must have the folders train and test, and no others. Received: "
            f"{', '.join(names)}"
        )
    test, train = folders
    class_names, training = _classes(train, _folders(train))
    test_names, testing = _classes(test, _folders(test), least=1)
    for name in test_names:
        if name not in class_names:
            raise UsageError(
                f"{test / name} is a class that {train} does not have. Rename or remove it. "
                f"Received: {', '.join(class_names)!s:.200}"
            )
    testing = [(path, class_names.index(test_names[label])) for path, label in testing]
    is_test = np.arange(len(training) + len(testing)) >= len(training)
    return class_names, training + testing, is_test


def _classes(path, folders, least=2):
    """Returns the names of the classes in `folders` and (path, label) of each image, sorted."""
    if len(folders) < least:
        raise UsageError(
            f"{path} must have a folder of images for each of {least} or more classes. Received: "
            f"{', '.join(folder.name for folder in folders) or 'none'}"
        )
    found = []
    for label, folder in enumerate(folders):
        images = _images(folder)
        if not images:
            raise UsageError(f"{folder} has no images. Add some or remove it.")
        found += [(image, label) for image in images]
    return [folder.name for folder in folders], found


def _folders(path):
    """Returns the folders in a folder, sorted."""
    with _reading(path):
        return sorted(each for each in path.iterdir() if each.is_dir() and each.name[0] != ".")


def _images(folder):
    """Returns the paths of all images in a folder and the folders within, sorted."""
    found = []
    with _reading(folder):
        for parent, _, names in os.walk(folder, onerror=_raise):
            found += [pathlib.Path(parent, name) for name in names]
    found = [path for path in found if path.name[0] != "." and path.name.lower() not in IGNORED]
    for path in found:
        if path.suffix.lower() not in EXTENSIONS:
            raise UsageError(
                f"{path} is not an image that can be read. Remove it, or convert it to one of "
                f"{', '.join(EXTENSIONS)}."
            )
    return sorted(found)


def _raise(error):
    raise error


def _header(path):
    """Returns ((height, width), whether it has colors) of the image at `path`."""
    with _reading(path), Image.open(path) as image:
        if image.mode not in GRAY + COLOR:
            raise UsageError(
                f"{path} has pixels of Pillow's mode {image.mode}. Convert it to 8 bits."
            )
        width, height = image.size
        turned = image.getexif().get(ORIENTATION) in SIDEWAYS
        has_colors = image.mode in COLOR and not (image.mode == "P" and _is_gray(image))
        return (width, height) if turned else (height, width), has_colors


def _is_gray(image):
    """Whether all colors of a palette, as of a GIF, are gray."""
    palette = np.reshape(image.getpalette(), (-1, 3))
    return bool((palette == palette[:, :1]).all())


def _decoded(path, shape):
    """Returns the image at `path`, resized to shape (h, w, c): uint8 [h, w, c]."""
    with _reading(path), Image.open(path) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode in ("P", "PA"):  # its transparency may be that of each color
            image = image.convert("RGBA")
        return resized(image.convert("L" if shape[2] == 1 else "RGB"), shape)


@contextlib.contextmanager
def _reading(path):
    """Turns whatever Pillow and the file system raise into a `UsageError` that names `path`."""
    try:
        yield
    except UsageError:
        raise
    except FileNotFoundError as error:
        raise UsageError(f"Cannot read {path}: there is no such file. Check the path.") from error
    except IsADirectoryError as error:
        raise UsageError(f"Cannot read {path}: it is a folder. Give an image.") from error
    except Exception as error:  # a damaged file can break anywhere in Pillow
        reason = "the file is empty" if path.is_file() and not path.stat().st_size else error
        raise UsageError(f"Cannot read {path}: {reason}. Repair or remove it.") from error


def in_parallel(function, values, title):
    """Returns the results of `function` on each value; threads run it, as Pillow allows."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
        results = threads.map(function, values)
        return list(tqdm.tqdm(results, title, len(values), leave=False, delay=1, disable=None))
