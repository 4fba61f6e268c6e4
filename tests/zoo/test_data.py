"""Tests of zoo.data and of the two data sets in zoo.datasets.

Oracles: the npz file itself; archives written by the test.
"""

import shutil
import time
import zipfile
from unittest import mock

import numpy as np
import pytest
import requests
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums

from tfsparse.errors import UsageError
from zoo import data
from zoo.datasets.fashion_mnist_small import builder as fashion_mnist_small
from zoo.datasets.tiny_imagenet import builder as tiny_imagenet


class ImagesOfAllSizes(tfds.core.GeneratorBasedBuilder):
    """Twenty images, each of one color, of different sizes; a training split only."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(),
                    "label": tfds.features.ClassLabel(num_classes=20),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(20):
            yield i, {"image": np.full((10 + i, 30 - i, 3), 10 * i, np.uint8), "label": i}


class FewImages(ImagesOfAllSizes):
    """Three of them, of which a tenth is none."""

    def _generate_examples(self):
        yield from list(super()._generate_examples())[:3]


class SecretTestLabels(ImagesOfAllSizes):
    """Its test labels are not public, as in competitions; a validation split is."""

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(),
            "validation": self._generate_examples(),
            "test": self._unlabelled(),
        }

    def _unlabelled(self):
        for key, example in self._generate_examples():
            yield key, {**example, "label": -1}


def test_test_split_without_labels_is_not_used(tmp_path):
    dataset = data.open_dataset("secret_test_labels", tmp_path, image_size=8)
    assert dataset.sizes == {"train": 18, "validation": 2, "test": 20}
    np.testing.assert_array_equal(np.sort(dataset.read("test")[1]), np.arange(20))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def bundled(data_dir):
    """The bundled data set, prepared without a network."""
    with mock.patch.object(requests, "head", side_effect=requests.ConnectionError) as head:
        found = data.open_dataset("fashion_mnist_small", data_dir=data_dir)
        head.assert_not_called()
    return found


@pytest.fixture(scope="module")
def npz():
    with np.load(fashion_mnist_small.ARCHIVE) as arrays:
        return dict(arrays)


def rows(images, labels):
    """Returns one row per image, label first, in an order that depends on the rows alone."""
    table = np.concatenate([labels[:, None], images.reshape(len(images), -1)], axis=1)
    return table[np.lexsort(table.T)]


def usage_error(*args, **kwargs):
    """Returns the one-line message with which opening a data set fails."""
    with pytest.raises(UsageError) as caught:
        data.open_dataset(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(requests, "head", mock.Mock(side_effect=requests.ConnectionError))


# The bundled data set.


def test_bundled_set_describes_itself(bundled):
    assert bundled.name == "fashion_mnist_small"
    assert bundled.image_shape == (28, 28, 1)
    assert bundled.num_classes == 10
    assert bundled.class_names == list(fashion_mnist_small.CLASSES)
    assert bundled.sizes == {"train": 4500, "validation": 500, "test": 1000}


def test_npz_is_class_balanced(npz):
    assert np.bincount(npz["train_labels"]).tolist() == [500] * 10
    assert np.bincount(npz["test_labels"]).tolist() == [100] * 10


def test_bundled_splits_partition_the_npz(bundled, npz):
    splits = {split: bundled.read(split) for split in ("train", "validation", "test")}
    for split, (images, labels) in splits.items():
        assert images.shape == (bundled.sizes[split], 28, 28, 1)
        assert images.dtype == np.uint8
        assert labels.dtype == np.int32
    # Each training image of the file is in exactly one of the two: they are disjoint.
    pairs = zip(splits["train"], splits["validation"], strict=True)
    joined = [np.concatenate(pair) for pair in pairs]
    np.testing.assert_array_equal(rows(*joined), rows(npz["train_images"], npz["train_labels"]))
    expected = rows(npz["test_images"], npz["test_labels"])
    np.testing.assert_array_equal(rows(*splits["test"]), expected)


def test_order_is_fixed(bundled):
    for first, second in zip(bundled.read("test"), bundled.read("test"), strict=True):
        np.testing.assert_array_equal(first, second)


def test_resizing(data_dir, bundled):
    resized = data.open_dataset("fashion_mnist_small", data_dir, image_size=14)
    assert resized.image_shape == (14, 14, 1)
    images, labels = resized.read("validation")
    originals, expected_labels = bundled.read("validation")
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected_labels)
    expected = tf.image.resize(originals, (14, 14), antialias=True)
    assert np.abs(images - expected).max() <= 0.5 + 1e-3


# Other data sets.


def test_images_of_varying_size_need_image_size(tmp_path):
    message = usage_error("images_of_all_sizes", tmp_path)
    assert "'images_of_all_sizes'" in message
    assert "--image_size" in message
    assert not list(tmp_path.iterdir())


def test_training_split_alone_serves_three(tmp_path):
    dataset = data.open_dataset("images_of_all_sizes", tmp_path, image_size=12)
    assert dataset.image_shape == (12, 12, 3)
    assert dataset.sizes == {"train": 16, "validation": 2, "test": 2}
    parts = [dataset.read(split) for split in dataset.sizes]
    labels = np.concatenate([labels for _, labels in parts])
    assert sorted(labels) == list(range(20))
    # Resizing does not change an image of one color.
    images = np.concatenate([images for images, _ in parts])
    np.testing.assert_array_equal(
        images, np.broadcast_to(10 * labels[:, None, None, None], images.shape)
    )


def test_images_that_do_not_fit_are_refused(tmp_path):
    dataset = data.open_dataset("images_of_all_sizes", tmp_path, image_size=20_000)
    with pytest.raises(UsageError, match=r"19\.2 GB.*--image_size"):
        dataset.read("train")


def test_image_size_must_be_positive(tmp_path):
    assert "Received: 0" in usage_error("fashion_mnist_small", tmp_path, image_size=0)


@pytest.mark.parametrize("name", ["cifar1O", "cifar1O/small"])
def test_unknown_name(name):
    message = usage_error(name)
    assert repr(name) in message
    assert "cifar10" in message


@pytest.mark.parametrize(
    "name", ["", "no name", "cifar10/large", "cifar10:9.9.9", "nobody:cifar10"]
)
def test_unusable_name(name):
    assert repr(name) in usage_error(name)


def test_data_without_images_and_labels():
    message = usage_error("imdb_reviews")
    assert "'imdb_reviews'" in message
    assert "('text', 'label')" in message


def test_unwritable_data_dir(tmp_path):
    path = tmp_path / "file"
    path.touch()
    assert f"--data_dir={path}" in usage_error("fashion_mnist_small", path)


@pytest.mark.usefixtures("offline")
def test_offline_fails_at_once_and_says_what_to_do(tmp_path):
    start = time.monotonic()
    message = usage_error("cifar100", tmp_path)
    assert time.monotonic() - start < 10
    assert "tfds.builder('cifar100', data_dir='data').download_and_prepare()" in message
    assert f"copy the folder data/cifar100 into {tmp_path}" in message
    assert "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz" in message
    assert f"{tmp_path / 'downloads' / 'manual'}: cifar-100-binary.tar.gz" in message


@pytest.mark.usefixtures("offline")
def test_offline_leaves_nothing_behind(tmp_path):
    usage_error("cifar100", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("offline")
def test_offline_steps_for_a_set_of_this_package_import_it(tmp_path):
    assert "import tensorflow_datasets as tfds, zoo.datasets" in usage_error(
        "tiny_imagenet", tmp_path
    )


def test_proxy_that_refuses_is_offline(tmp_path, monkeypatch):
    monkeypatch.setattr(requests, "head", mock.Mock(return_value=mock.Mock(status_code=503)))
    assert "cannot be reached" in usage_error("cifar100", tmp_path)


@pytest.mark.usefixtures("offline")
def test_archive_with_a_wrong_checksum(tmp_path):
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    (manual / "cifar-100-binary.tar.gz").write_bytes(b"not it")
    message = usage_error("cifar100", tmp_path)
    requests.head.assert_not_called()
    assert "wrong checksum" in message
    assert "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec" in message


# Tiny-ImageNet, from an archive in the official layout.

WNIDS = ["n02504458", "n01443537", "n02124075", "n12267677"]
LISTED = ["n02124075", "n12267677", "n01443537"]  # the archive's order is not the alphabet's


def write_tiny_imagenet(path, images):
    """Writes an archive of 10 training and 2 validation images of each of WNIDS, some of them gray.

    Returns {split: {bytes of a decoded image: WordNet id}}.
    """
    images = iter(tf.cast(tf.image.resize(images, (64, 64)), tf.uint8))
    expected = {"train": {}, "validation": {}}

    def jpeg(i, split, wnid):
        image = next(images)
        if i % 3:
            image = tf.concat([image, 255 - image, image // 2], axis=-1)
        content = tf.io.encode_jpeg(image).numpy()
        expected[split][tf.io.decode_jpeg(content, 3).numpy().tobytes()] = wnid
        return content

    root = "tiny-imagenet-200"
    annotations = []
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{root}/wnids.txt", "\n".join(LISTED))
        for c, wnid in enumerate(WNIDS):
            archive.writestr(f"{root}/train/{wnid}/{wnid}_boxes.txt", "")
            for i in range(10):
                name = f"{root}/train/{wnid}/images/{wnid}_{i}.JPEG"
                archive.writestr(name, jpeg(i, "train", wnid))
            for i in range(2):
                name = f"val_{2 * c + i}.JPEG"
                archive.writestr(f"{root}/val/images/{name}", jpeg(i, "validation", wnid))
                annotations.append(f"{name}\t{wnid}\t0\t32\t44\t62\n")
        archive.writestr(f"{root}/val/val_annotations.txt", "".join(annotations))
        archive.writestr(f"{root}/test/images/test_0.JPEG", b"left out")
    return expected


@pytest.mark.usefixtures("offline")
def test_tiny_imagenet(tmp_path, npz):
    path = tmp_path / "downloads" / "manual" / "tiny-imagenet-200.zip"
    path.parent.mkdir(parents=True)
    expected = write_tiny_imagenet(path, npz["train_images"][:48, ..., None])
    infos = {tiny_imagenet.URL: checksums.compute_url_info(path)}
    with mock.patch.object(tiny_imagenet.TinyImagenet, "url_infos", infos):
        dataset = data.open_dataset("tiny_imagenet", tmp_path)

    assert dataset.image_shape == (64, 64, 3)
    assert dataset.num_classes == 4
    assert dataset.sizes == {"train": 36, "validation": 4, "test": 8}
    assert dataset.class_names == [*LISTED, "n02504458"]
    parts = {split: dataset.read(split) for split in dataset.sizes}
    found = {
        split: {
            image.tobytes(): dataset.class_names[label]
            for part in of
            for image, label in zip(*parts[part], strict=True)
        }
        for split, of in {"train": ("train", "validation"), "validation": ("test",)}.items()
    }
    assert found == expected


def test_tiny_imagenet_knows_the_official_archive():
    (info,) = tiny_imagenet.TinyImagenet.url_infos.values()
    assert info.size == 248_100_043
    assert info.checksum == "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821"


# Batches.


@pytest.mark.parametrize("damage", ["half", "missing", "description"])
def test_a_damaged_prepared_set_is_reported(bundled, data_dir, tmp_path, damage):
    folder = tmp_path / bundled._builder.data_path.relative_to(data_dir)
    shutil.copytree(bundled._builder.data_path, folder)
    assert data.open_dataset("fashion_mnist_small", tmp_path).sizes == bundled.sizes
    shard = sorted(folder.glob("*train*tfrecord*"))[0]
    if damage == "half":
        shard.write_bytes(shard.read_bytes()[:100_000])
    elif damage == "missing":
        shard.unlink()
    else:
        (folder / "dataset_info.json").write_text("{")
    with pytest.raises(UsageError, match=r"damaged|Cannot open") as caught:
        data.open_dataset("fashion_mnist_small", tmp_path).read("train")
    assert "fashion_mnist_small" in str(caught.value)


def test_a_set_that_leaves_nothing_to_hold_out_is_refused(tmp_path):
    builder = FewImages(data_dir=tmp_path)
    builder.download_and_prepare()
    with pytest.raises(UsageError, match=r"too few images.*'test': 0"):
        data.Dataset("few_images", builder, 8)
