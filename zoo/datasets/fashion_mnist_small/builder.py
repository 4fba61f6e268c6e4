"""The tensorflow-datasets builder `fashion_mnist_small`."""

import numpy as np
import tensorflow_datasets as tfds

from zoo.datasets.bundled import ARCHIVE, CLASSES, VERSION


class FashionMnistSmall(tfds.core.GeneratorBasedBuilder):
    """Fashion-MNIST cut down: 500 training and 100 test images of each of the ten classes.

    Images are uint8 [28, 28, 1]. They come from a file beside this module, so that preparing the
    data set takes seconds and no network.
    """

    VERSION = tfds.core.Version(VERSION)

    def _info(self):
        return self.dataset_info_from_configs(
            description=(
                "The first 500 training images and the first 100 test images of each class of "
                "Fashion-MNIST."
            ),
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(28, 28, 1)),
                    "label": tfds.features.ClassLabel(names=CLASSES),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://github.com/zalandoresearch/fashion-mnist",
            license="MIT, Copyright 2017 Zalando SE",
            citation=(
                "@article{xiao2017fashion, title={Fashion-MNIST: a Novel Image Dataset for "
                "Benchmarking Machine Learning Algorithms}, author={Xiao, Han and Rasul, Kashif "
                "and Vollgraf, Roland}, journal={arXiv:1708.07747}, year={2017}}"
            ),
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split):
        with np.load(ARCHIVE) as arrays:
            images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield index, {"image": image[..., np.newaxis], "label": int(label)}
