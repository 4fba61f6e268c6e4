"""The bundled data set: 6,000 real Fashion-MNIST images, which need no download."""

from zoo.datasets.fashion_mnist_small.builder import FashionMnistSmall as FashionMnistSmall
