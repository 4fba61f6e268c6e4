"""How the bundled data set was made: from files in the format of the original, in their order."""

import gzip

import numpy as np
import pytest

from studies import fashion_mnist_small
from tfsparse.errors import UsageError


def test_reads_idx_files(tmp_path):
    expected = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    header = bytes([0, 0, 8, 3]) + np.array(expected.shape, ">i4").tobytes()
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(header + expected.tobytes()))
    np.testing.assert_array_equal(fashion_mnist_small.read_idx(path), expected)
    with pytest.raises(UsageError, match="--source"):
        fashion_mnist_small.read_idx(tmp_path / "absent.gz")


def test_takes_the_first_of_each_class_in_file_order():
    labels = np.array([1, 0, 1, 1, 0, 0, 1])
    assert fashion_mnist_small.first_of_each_class(labels, 2).tolist() == [0, 1, 2, 4]
