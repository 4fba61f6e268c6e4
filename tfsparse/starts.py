"""Random starts of attacks, drawn for each image by itself. NumPy only."""

import numpy as np


def image_seeds(seed, restart, images):
    """Returns the seeds of images, int64 [n, 3], each a row of (seed, restart, image).

    Args:
        seed, restart: ints, 0 or more.
        images: int [n], the index of each image in its data set.
    """
    images = np.asarray(images, np.int64)
    return np.stack([np.full_like(images, seed), np.full_like(images, restart), images], axis=1)


def random_starts(seeds, shape):
    """Returns a random start for each image, as the attacks of `tfsparse.attacks` take them.

    An image's start follows from its own row of `seeds` and from nothing else: so it is the same in
    any batch and on any machine.

    Args:
        seeds: ints [n, k], 0 or more, as `image_seeds` returns them.
        shape: (h, w, c) of an image.

    Returns:
        float32 [n, h, w, c], uniform in [-1, 1).
    """
    drawn = np.empty((len(seeds), *shape), np.float32)
    for seed, start in zip(seeds, drawn, strict=True):
        np.random.default_rng(seed).random(dtype=np.float32, out=start)
    return 2 * drawn - 1
