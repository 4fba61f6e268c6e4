"""Folders of images and .npz files. Oracles: the arrays that the test wrote."""

import hashlib
import io
import pathlib
import pickle

import numpy as np
import pytest
from PIL import Image

from tfsparse.errors import UsageError
from zoo.data import open_dataset
from zoo.own_data import is_own

CLASSES = ("ant", "bee", "cat")


def image(index, size=(8, 6), channels=3):
    """Returns a uint8 image [h, w, 3] or, of one channel, [h, w], whose first pixel is `index`."""
    shape = (*size, 3) if channels == 3 else size
    pixels = np.random.default_rng(index).integers(0, 256, shape, np.uint8)
    pixels.flat[0] = index
    return pixels


def write(folder, per_class=8, classes=CLASSES, first=0, **arguments):
    """Writes a folder of images; returns {image as bytes: name of its class}."""
    written = {}
    for index in range(per_class * len(classes)):
        name = classes[index % len(classes)]
        path = folder / name / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = image(first + index, **arguments)
        Image.fromarray(pixels).save(path)
        written[pixels.tobytes()] = name
    return written


def found(dataset, split):
    """Returns {image as bytes: name of its class} of a split."""
    images, labels = dataset.read(split)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int32
    assert len(images) == dataset.sizes[split]
    return {
        pixels.tobytes(): dataset.class_names[label]
        for pixels, label in zip(images, labels, strict=True)
    }


@pytest.mark.parametrize("channels", [1, 3])
def test_train_and_test(tmp_path, channels):
    training = write(tmp_path / "train", 20, channels=channels)
    test = write(tmp_path / "test", 2, first=60, channels=channels)
    (tmp_path / "train" / ".hidden").touch()
    (tmp_path / "train" / "ant" / "Thumbs.db").touch()
    dataset = open_dataset(str(tmp_path))
    assert dataset.image_shape == (8, 6, channels)
    assert (dataset.num_classes, dataset.class_names) == (3, list(CLASSES))
    assert found(dataset, "test") == test
    parts = [found(dataset, part) for part in ("train", "validation")]
    assert not parts[0].keys() & parts[1].keys()
    assert parts[0] | parts[1] == training


def test_one_level_is_split_by_the_hash_of_the_path(tmp_path):
    write(tmp_path, 40)
    expected = {"train": [], "validation": [], "test": []}
    for path in tmp_path.glob("*/*.png"):
        key = path.relative_to(tmp_path).as_posix()
        share = int(hashlib.sha256(key.encode()).hexdigest()[:12], 16) / 16**12
        split = "test" if share < 0.1 else "validation" if share < 0.3 else "train"
        expected[split].append((-share, int(path.stem)))
    dataset = open_dataset(str(tmp_path), validation_fraction=0.2)
    for split, images in expected.items():
        order = [index for _, index in sorted(images)]
        assert dataset.read(split)[0][:, 0, 0, 0].tolist() == order
        assert dataset.read(split, 3)[0][:, 0, 0, 0].tolist() == order[:3]
    # Whatever the fraction, evaluation and calibration see the same images.
    other = open_dataset(str(tmp_path))
    assert found(other, "test") == found(dataset, "test")
    np.testing.assert_array_equal(other.read("train", 50)[0], dataset.read("train", 50)[0])
    # An image stays in its split when others come.
    before = {split: found(dataset, split) for split in expected}
    write(tmp_path, 50)
    after = open_dataset(str(tmp_path), validation_fraction=0.2)
    for split, images in before.items():
        assert images.items() <= found(after, split).items()


def test_formats_and_resizing(tmp_path):
    """Of one color, an image is the same after resizing; all kinds become RGB."""
    for name, mode, color in [
        ("a/gray.png", "L", 70),
        ("a/alpha.png", "RGBA", (10, 20, 30, 128)),
        ("a/deep/two/levels.gif", "P", 0),
        ("b/photo.JPG", "RGB", (200, 100, 50)),
        ("b/print.tif", "CMYK", (0, 0, 0, 0)),
        ("b/bits.bmp", "1", 1),
    ]:
        for part in ("train", "test"):
            path = tmp_path / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new(mode, (9 + len(name), 12), color).save(path)
    with pytest.raises(UsageError, match=r"vary in size: .*png is .*--image_size"):
        open_dataset(str(tmp_path), validation_fraction=0.5)
    dataset = open_dataset(str(tmp_path), image_size=7, validation_fraction=0.5)
    assert dataset.image_shape == (7, 7, 3)
    images, labels = dataset.read("test")
    colors = {tuple(np.median(each, axis=(0, 1)).astype(int)) for each in images}
    red = next(color for color in colors if color[0] == max(c[0] for c in colors if c[2] < 60))
    assert np.abs(np.subtract(red, (200, 100, 50))).max() <= 2  # JPEG
    assert colors - {red} == {(70,) * 3, (10, 20, 30), (0,) * 3, (255,) * 3}
    assert sorted(labels) == [0, 0, 0, 1, 1, 1]


def test_only_test_images(tmp_path):
    """New photos, to evaluate a model on: all are read, and there is nothing to train on."""
    for label in ("bolt", "nut"):
        for index in range(3):
            path = tmp_path / "test" / label / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (5, 5), index).save(path)
    dataset = open_dataset(str(tmp_path))
    assert dataset.sizes == {"train": 0, "validation": 0, "test": 6}
    images, labels = dataset.read("test")
    assert sorted(images[:, 0, 0, 0]) == [0, 0, 1, 1, 2, 2]
    assert (dataset.class_names, sorted(labels)) == (["bolt", "nut"], [0, 0, 0, 1, 1, 1])
    for split in ("train", "validation"):
        with pytest.raises(UsageError, match=r"has only test images.*Put a folder train"):
            dataset.read(split)


def test_a_gray_palette_is_gray(tmp_path):
    rng = np.random.default_rng(0)
    frames = {
        f"{label}/{i}.gif": rng.integers(256, size=(5, 6)) for label in "ab" for i in range(9)
    }
    for name, frame in frames.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(frame.astype(np.uint8)).convert("P").save(tmp_path / name)
    dataset = open_dataset(str(tmp_path), validation_fraction=0.5)
    assert dataset.image_shape == (5, 6, 1)
    found = {image.tobytes() for split in dataset.sizes for image in dataset.read(split)[0]}
    assert found == {frame.astype(np.uint8).tobytes() for frame in frames.values()}
    Image.new("RGB", (6, 5), (200, 10, 10)).convert("P").save(tmp_path / "a" / "red.gif")
    assert open_dataset(str(tmp_path), validation_fraction=0.5).image_shape == (5, 6, 3)


def test_turned_photos_are_upright(tmp_path):
    """EXIF's orientation 6: the camera was turned; rows are columns."""
    pixels = image(0, (16, 8), channels=1) // 255 * 255
    exif = Image.Exif()
    exif[0x0112] = 6
    for part in ("train", "test"):
        write(tmp_path / part, 4, ("a", "b"), size=(8, 16))
        Image.fromarray(pixels).save(tmp_path / part / "a" / "turned.png", exif=exif)
    dataset = open_dataset(str(tmp_path))
    assert dataset.image_shape == (8, 16, 3)
    expected = np.repeat(np.rot90(pixels, -1)[..., None], 3, axis=-1)
    assert any(np.array_equal(each, expected) for each in dataset.read("test")[0])


def arrays(count=40, size=(8, 6), channels=3):
    labels = np.arange(count) % 3
    images = np.stack([image(index, size, channels) for index in range(count)])
    return {"x_train": images, "y_train": labels, "x_test": images[:9], "y_test": labels[:9, None]}


@pytest.mark.parametrize("channels", [1, 3])
def test_npz(tmp_path, channels):
    content = arrays(channels=channels)
    np.savez_compressed(tmp_path / "set.npz", **content)
    dataset = open_dataset(str(tmp_path / "set.npz"))
    assert dataset.image_shape == (8, 6, channels)
    assert dataset.class_names == ["0", "1", "2"]
    parts = {split: found(dataset, split) for split in dataset.sizes}
    for names, of in {("train", "validation"): "train", ("test",): "test"}.items():
        images, labels = content[f"x_{of}"], content[f"y_{of}"].ravel()
        expected = {x.tobytes(): str(y) for x, y in zip(images, labels, strict=True)}
        assert {k: v for name in names for k, v in parts[name].items()} == expected
        assert sum(len(parts[name]) for name in names) == len(images)
    small = open_dataset(str(tmp_path / "set.npz"), image_size=4)
    pixels = content["x_train"][dataset.read("train")[0][0].flat[0]]
    expected = Image.fromarray(pixels).resize((4, 4), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(small.read("train")[0][0].squeeze(), np.asarray(expected))


def folder_with(path, content=b"", classes=CLASSES):
    """A case: a folder of images in which the file at `path` has other content."""

    def make(folder):
        write(folder, classes=classes)
        target = folder / path
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)
        return folder

    return make


def png(mode="RGB", size=(6, 8), cut=None):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    picture = Image.fromarray(noise) if mode == "RGB" else Image.new(mode, size)
    picture.save(buffer, "png")
    return buffer.getvalue()[:cut]


def only_class(folder):
    write(folder, classes=("ant",))
    return folder


def class_without_images(folder):
    write(folder)
    (folder / "dog").mkdir()
    return folder


def no_test(folder):
    write(folder / "train")
    return folder


def three_parts(folder):
    for part in ("train", "test", "val"):
        write(folder / part)
    return folder


def unknown_class(folder):
    write(folder / "train")
    write(folder / "test", classes=("ant", "dog"))
    return folder


def npz_with(**changes):
    """A case: an .npz file with other arrays; None leaves one out."""

    def make(folder):
        content = {k: v for k, v in (arrays() | changes).items() if v is not None}
        np.savez(folder / "set.npz", **content)
        return folder / "set.npz"

    return make


def file_of(name, content):
    def make(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return make


CASES = {
    "empty image": (folder_with("ant/empty.png"), "ant/empty.png: the file is empty"),
    "no image": (folder_with("ant/noise.jpg", b"noise" * 99), "ant/noise.jpg"),
    "cut image": (folder_with("ant/cut.png", png(cut=100)), "ant/cut.png"),
    "extension": (folder_with("bee/notes.txt", b"x"), "bee/notes.txt is not an image"),
    "16 bits": (folder_with("bee/deep.png", png("I;16")), "deep.png has pixels of Pillow's mode I"),
    "another size": (folder_with("bee/z.png", png(size=(5, 5))), "bee/z.png 5x5. Give --image_siz"),
    "one class": (only_class, "each of 2 or more classes. Received: ant"),
    "no class": (lambda folder: folder, "Received: none"),
    "class without images": (class_without_images, "dog has no images"),
    "no test images": (no_test, "must have the folders train and test"),
    "a third part": (three_parts, "Received: test, train, val"),
    "another class in test": (unknown_class, "test/dog is a class that"),
    "no such folder": (lambda folder: folder / "none", "none"),
    "no such file": (lambda folder: folder / "none.npz", "Cannot read"),
    "another file": (file_of("set.zip", b""), "ends in .npz. Received"),
    "empty npz": (file_of("set.npz", b""), "set.npz is not an .npz file"),
    "no zip": (file_of("set.npz", b"noise" * 99), "set.npz is not an .npz file"),
    "pickle": (file_of("set.npz", pickle.dumps([1])), "set.npz is not an .npz file"),
    "array is missing": (npz_with(y_test=None), "set.npz.*lacks y_test"),
    "pickled array": (npz_with(y_train=np.array([{}] * 40)), "set.npz.*allow_pickle=False"),
    "floats": (npz_with(x_train=np.zeros((40, 8, 6, 3))), "x_train must be uint8.*float64"),
    "two channels": (npz_with(x_test=np.zeros((9, 8, 6, 2), np.uint8)), "x_test must be.*6, 2"),
    "other test size": (npz_with(x_test=np.zeros((9, 8, 8, 3), np.uint8)), "x_test .9, 8, 8, 3"),
    "no test image": (npz_with(x_test=np.zeros((0, 8, 6, 3), np.uint8)), "x_test has no images"),
    "fewer labels": (npz_with(y_train=np.arange(39) % 3), "y_train must be integers of shape .40"),
    "float labels": (npz_with(y_train=np.zeros(40)), "y_train must be integers.*float64"),
    "labels from 1": (
        npz_with(y_train=1 + np.arange(40) % 3),
        "y_train must have.*but has 1, 2, 3",
    ),
    "one label": (npz_with(y_train=np.zeros(40, int)), "y_train must have each label"),
    "label of no image": (npz_with(y_test=np.full(9, 7)), "y_test has the label 7"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_used_is_named_in_one_line(tmp_path, case):
    make, message = CASES[case]
    path = make(tmp_path)
    with pytest.raises(UsageError, match=message) as caught:
        open_dataset(str(path)).read("train")
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_fraction_of_validation_images(tmp_path):
    write(tmp_path)
    for fraction in (0.0, 0.6, float("nan")):
        with pytest.raises(UsageError, match=r"--validation_fraction must be in \(0, 0.5\]"):
            open_dataset(str(tmp_path), validation_fraction=fraction)
    with pytest.raises(UsageError, match=r"no effect with the data set 'cifar10'"):
        open_dataset("cifar10", validation_fraction=0.2)


def test_a_set_that_tfds_prepared_here_is_no_folder_of_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cifar10/3.0.2", "imagenette/160px/1.0.0"):
        path = pathlib.Path(name)
        path.mkdir(parents=True)
        (path / "dataset_info.json").touch()
    assert not is_own("cifar10")
    assert not is_own("imagenette/160px")
    assert not is_own("cifar100")
    write(tmp_path / "mine")
    assert is_own("mine")
    assert is_own("./none")
    assert is_own("none.npz")
