"""How many bits a kernel takes in memory: dense, as CSR, with a bitmap, or with a periodic pattern.

A kernel is a matrix with one row for each output channel and one column for each weight that the
channel can have: channels x taps; in a depthwise convolution, taps. `bits` is the size of a weight.
Sizes are exact: an index has as many bits as its largest value needs, nothing is aligned.
"""

FORMATS = ("dense", "csr", "bitmap", "periodic")


def dense(rows, columns, bits):
    """Returns the bits of all weights, zeros included."""
    return rows * columns * bits


def csr(rows, columns, nonzeros, bits):
    """Returns the bits of the non-zero weights in compressed sparse rows.

    Each weight has its column beside it, in ceil(log2(columns)) bits, and each row, like the end,
    has the number of weights before it: rows + 1 numbers of ceil(log2(nonzeros + 1)) bits.
    """
    column, pointer = (columns - 1).bit_length(), nonzeros.bit_length()
    return nonzeros * (bits + column) + (rows + 1) * pointer


def bitmap(rows, columns, nonzeros, bits):
    """Returns the bits of the non-zero weights and of a map of their positions."""
    return nonzeros * bits + rows * columns


def periodic(kept, period, taps, bits):
    """Returns the bits of the kept weights and of the pattern: `period` bitmaps of `taps` bits.

    The pattern is the layer's whole index, however many channels and filters it has. Kept weights
    are stored even if they are zero. Source: Kundu et al., arXiv 2001.10710.
    """
    return kept * bits + period * taps
