"""Gradients, compilation, and devices in TensorFlow; `tfsparse.backend` says what each does."""

import contextlib
import weakref

import tensorflow as tf

from tfsparse.fused import fused_batch_norm
from tfsparse.pointwise import pixels_first

__all__ = [
    "TrainingStep",
    "compiled",
    "compiled_for_batches",
    "device_kind",
    "devices",
    "expect_compilations",
    "gradient",
    "is_traced",
    "iterated",
    "make_deterministic",
    "normal",
    "replicas",
    "scope",
    "seed",
    "steps_per_call",
    "total",
    "uniform",
    "use_full_precision",
]


def compiled(function):
    """Returns `function(holder, *tensors)`, compiled.

    Args:
        function: of a `holder`, None or what has the `variables` that the function reads, and of
            tensors or arrays; it changes no variable.
    """
    # Python's control flow is no part of the graph here, so AutoGraph would only take time.
    return tf.function(function, reduce_retracing=True, autograph=False)


def compiled_for_batches(function):
    """Returns the same for tensors [n, ...] or of two integers: compiled once, for all n."""
    function = compiled(function)
    signatures = weakref.WeakKeyDictionary()  # that it is compiled for, for each holder

    def call(holder, *tensors):
        if tf.inside_function():  # a batch that is compiled for its size
            return function(holder, *tensors)
        tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
        signature = tuple(map(_any_count, tensors))
        known = signatures.setdefault(function if holder is None else holder, set())
        if signature not in known:
            function.get_concrete_function(holder, *signature)
            known.add(signature)
        return function(holder, *tensors)

    return call


def _any_count(tensor):
    """Returns the tf.TensorSpec of a tensor [n, ...] for all n, or of a seed."""
    is_seed = tensor.dtype.is_integer and tensor.shape == (2,)
    return tf.TensorSpec(tensor.shape if is_seed else (None, *tensor.shape[1:]), tensor.dtype)


def gradient(function, x):
    """Returns the gradient of the sum of `function(x)`, zeros where nothing depends on x."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def iterated(start, step, count):
    """Returns `function(holder, *tensors)`, compiled: `start`, then `count` times `step`.

    Args:
        start: function of a holder, as of `compiled`, and of tensors that returns `(x, others)`: a
            tensor and a tuple of tensors.
        step: function of (holder, x, *others) that returns the next x.
        count: int, at least 1.
    """

    @compiled_for_batches
    def function(holder, *tensors):
        x, others = start(holder, *tensors)
        if count == 1:  # it needs no loop, in which XLA would run convolutions on one thread
            return step(holder, x, *others)
        (x,) = tf.while_loop(
            lambda x: True,
            lambda x: (step(holder, x, *others),),
            (x,),
            maximum_iterations=count,
        )
        return x

    return function


def seed(first, second):
    """Returns what `uniform` and `normal` take as `seed`."""
    return tf.constant([first, second])


def uniform(like, seed, low, high):
    """Returns uniform random numbers in [low, high), of the shape and type of `like`."""
    return tf.random.stateless_uniform(tf.shape(like), seed, low, high, like.dtype)


def normal(like, seed, deviation):
    """Returns normal random numbers of mean 0, of the shape and type of `like`."""
    return tf.random.stateless_normal(tf.shape(like), seed, stddev=deviation, dtype=like.dtype)


def total(numbers):
    """Returns the sum of a list of scalars, not empty."""
    return tf.add_n(numbers)


def is_traced(tensor):
    """Returns whether a function is being traced, in which tensors have no values."""
    return not tf.executing_eagerly()


def device_kind():
    """Returns the kind of device that computes: "cpu" or "gpu"."""
    return "gpu" if tf.config.list_physical_devices("GPU") else "cpu"


def devices():
    """Returns the names of the accelerators, a list of str."""
    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return [each.get("device_name", "GPU") for each in details]


def expect_compilations():
    """Silences the warning that many functions are compiled, in commands that do so on purpose."""
    tf.get_logger().setLevel("ERROR")


def make_deterministic():
    """Makes every run the same to the bit, on one machine."""
    tf.config.experimental.enable_op_determinism()


def use_full_precision():
    """Makes accelerators multiply float32 as such; by default, they round it to fewer bits."""
    tf.config.experimental.enable_tensor_float_32_execution(False)


def replicas():
    """Returns how many replicas share each batch."""
    return tf.distribute.get_strategy().num_replicas_in_sync


@contextlib.contextmanager
def scope():
    """Runs a `with` block on all accelerators of this machine."""
    with tf.distribute.MirroredStrategy().scope():
        yield


def steps_per_call():
    """Returns how many training steps at most are one compiled call."""
    return 1


class TrainingStep:
    """A step of training, compiled: `step(images, labels, seed)` returns float32 [values].

    Within the scope of a tf.distribute strategy each replica trains on its share of the batch.

    Args:
        trainer: has `model`, `optimizer`, and two functions. `prepare(images, labels, seed)`
            returns the batch to train on, a tuple of tensors; `loss(batch, batch_size, replicas)`
            returns its loss, as the optimizer scales it, and float32 [values], this replica's part
            of the means that are reported.
    """

    def __init__(self, trainer):
        self._trainer = trainer
        self._strategy = tf.distribute.get_strategy()

    @tf.function(reduce_retracing=True, autograph=False)
    def __call__(self, images, labels, seed):
        shares = self._strategy.run(self._replica_step, (images, labels, seed))
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, shares, axis=None)

    def _replica_step(self, images, labels, seed):
        """Trains on this replica's share of a batch; returns its part of the batch's means."""
        trainer, context = self._trainer, tf.distribute.get_replica_context()
        replica, replicas = context.replica_id_in_sync_group, context.num_replicas_in_sync
        batch_size = tf.cast(tf.shape(images)[0], tf.float32)
        images, labels = images[replica::replicas], labels[replica::replicas]
        seed = tf.stack([seed[0], seed[1] * replicas + replica])
        batch = trainer.prepare(images, labels, seed)
        model = trainer.model
        with tf.GradientTape() as tape, fused_batch_norm(model), pixels_first(model):
            scaled, values = trainer.loss(batch, batch_size, replicas)
        variables = model.trainable_variables
        # Keras' optimizers sum the gradients over the replicas.
        gradients = tape.gradient(scaled, [v.value for v in variables])
        trainer.optimizer.apply(gradients, variables)
        if replicas > 1:
            self._average_statistics(context)
        return values

    def _average_statistics(self, context):
        """Sets the moving statistics of all replicas, which no optimizer changes, to their mean."""
        variables = self._trainer.model.non_trainable_variables
        statistics = [v for v in variables if "float" in v.dtype]
        if statistics:
            values = [tf.identity(tf.convert_to_tensor(variable)) for variable in statistics]
            means = context.all_reduce(tf.distribute.ReduceOp.MEAN, values)
            for variable, mean in zip(statistics, means, strict=True):
                variable.assign(mean)
