"""What differs between Keras' backends: gradients, compilation, state, devices.

Losses, attacks, projections, and updates are written once, in `keras.ops` and NumPy. The rest is
in one module for each backend, with the same functions: `tfsparse.backend.tensorflow` and
`tfsparse.backend.jax`. Keras decides which, by the environment variable KERAS_BACKEND:

- `compiled`: a function of a holder of variables and of tensors, compiled;
  `compiled_for_batches`: one of batches, compiled once for all sizes if the backend can;
- `iterated`: a compiled function that takes the same step several times;
- `gradient`: the gradient with respect to a tensor, in a compiled function;
- `uniform`, `normal`, `seed`: random numbers that follow from two integers;
- `total`: the sum of scalars;
- `TrainingStep`: a training step of a `tfsparse.training.Trainer`; `steps_per_call`: how many of
  them are one compiled call;
- `is_traced`: whether a tensor has no value yet;
- `device_kind`, `devices`, `make_deterministic`, `expect_compilations`, `use_full_precision`: of
  the process;
- `scope`, `replicas`: of several devices.
"""

import keras

from tfsparse.errors import UsageError

NAME = keras.backend.backend()

if NAME == "tensorflow":
    from tfsparse.backend.tensorflow import *  # noqa: F403
elif NAME == "jax":
    from tfsparse.backend.jax import *  # type: ignore[assignment]  # noqa: F403
else:

    def device_kind():
        """Returns the kind of device that computes: "cpu" or, under PyTorch, also "gpu"."""
        if NAME != "torch":
            return "cpu"
        import torch

        return "gpu" if torch.cuda.is_available() else "cpu"


def __getattr__(name):
    if name.startswith("_") or NAME in ("tensorflow", "jax"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    raise UsageError(
        "Training, pruning, and attacks need Keras' backend tensorflow or jax. Set the environment "
        f"variable KERAS_BACKEND to one of them. Received: {NAME}"
    )
