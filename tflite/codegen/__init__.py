"""Networks as C99 sources whose kernels skip what was pruned."""
