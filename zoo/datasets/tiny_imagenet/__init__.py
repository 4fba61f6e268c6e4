"""Tiny-ImageNet for tensorflow-datasets, which does not have it."""

from zoo.datasets.tiny_imagenet.builder import TinyImagenet as TinyImagenet
