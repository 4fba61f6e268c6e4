"""The tensorflow-datasets builder `tiny_imagenet`."""

import pathlib
import re
import zipfile

import tensorflow_datasets as tfds

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
ROOT = "tiny-imagenet-200"


class TinyImagenet(tfds.core.GeneratorBasedBuilder):
    """200 classes of ImageNet at 64x64: 100,000 images to train and 10,000 to validate.

    Classes are named by their WordNet ids and numbered in the order of the archive's wnids.txt; any
    that the list lacks follow in alphabetical order. The archive's test images have no labels and
    are left out.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return self.dataset_info_from_configs(
            description="200 classes of ImageNet with 500 training and 50 validation images each.",
            features=tfds.features.FeaturesDict(
                {
                    # The archive's own JPEGs are kept, unchanged. Some of them are gray: the shape
                    # makes tensorflow-datasets decode every one to RGB.
                    "image": tfds.features.Image(shape=(64, 64, 3), encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(),  # named by the archive
                }
            ),
            supervised_keys=("image", "label"),
            homepage="http://cs231n.stanford.edu/",
            citation=(
                "@techreport{le2015tiny, title={Tiny ImageNet Visual Recognition Challenge}, "
                "author={Le, Ya and Yang, Xuan}, institution={Stanford CS 231N}, year={2015}}"
            ),
        )

    def _split_generators(self, dl_manager):
        # Not extracted: a folder of 120,000 small files is slow to write and to remove.
        archive = dl_manager.download(URL)
        self.info.features["label"].names = _class_names(archive)
        return {
            "train": self._generate_examples(archive, _train_labels),
            "validation": self._generate_examples(archive, _validation_labels),
        }

    def _generate_examples(self, archive, labels):
        with zipfile.ZipFile(archive) as files:
            for path, wnid in labels(files):
                with files.open(path) as image:
                    yield pathlib.PurePosixPath(path).name, {"image": image, "label": wnid}


def _class_names(archive):
    """Returns the WordNet ids of the classes in the order of their labels."""
    with zipfile.ZipFile(archive) as files:
        listed = files.read(f"{ROOT}/wnids.txt").decode().split()
        found = {wnid for _, wnid in _train_labels(files)}
    return listed + sorted(found - set(listed))


def _train_labels(files):
    """Yields (path in the archive, WordNet id) of every training image."""
    pattern = re.compile(rf"{ROOT}/train/(n\d+)/images/[^/]+\.JPEG")
    for path in files.namelist():
        if match := pattern.fullmatch(path):
            yield path, match[1]


def _validation_labels(files):
    """Yields (path in the archive, WordNet id) of every validation image."""
    annotations = files.read(f"{ROOT}/val/val_annotations.txt").decode()
    for line in annotations.splitlines():
        name, wnid = line.split("\t")[:2]
        yield f"{ROOT}/val/images/{name}", wnid
