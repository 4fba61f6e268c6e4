"""Gradients, compilation, and devices in JAX; `tfsparse.backend` says what each does.

Keras' variables keep their values outside of compiled functions, so each function here gets the
values as arguments and runs in a `keras.StatelessScope`, in which variables have these values and
assignments are noted instead of done. A variable that is not among the arguments would be compiled
into the function as a constant.
"""

import contextlib
import functools
import itertools
import os
import weakref

import jax
import keras
import numpy as np
from jax import numpy as jnp

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

# Training steps in one compiled call on an accelerator. Each call takes about a second at most, so
# that the progress bar moves and a run that is asked to stop does. On a CPU, XLA's convolutions
# take 100 times as long within a loop.
STEPS_PER_CALL = {"cpu": 1, "gpu": 32, "tpu": 32}


def compiled(function):
    """Returns `function(holder, *tensors)`, compiled.

    Args:
        function: of a `holder`, None or what has the `variables` that the function reads, and of
            tensors or arrays; it changes no variable.
    """
    functions = weakref.WeakKeyDictionary()  # compiled for each holder

    def pure(reference, values, tensors):
        holder = reference() if reference else None
        variables = holder.variables if holder else []
        with keras.StatelessScope(zip(variables, values, strict=True)):
            return function(holder, *tensors)

    without_holder = jax.jit(functools.partial(pure, None, []))

    def call(holder, *tensors):
        if holder is None:
            return without_holder(tensors)
        if holder not in functions:
            functions[holder] = jax.jit(functools.partial(pure, weakref.ref(holder)))
        return functions[holder]([v.value for v in holder.variables], _shared(tensors))

    return call


compiled_for_batches = compiled  # XLA compiles for each number of images


def gradient(function, x):
    """Returns the gradient of the sum of `function(x)`, zeros where nothing depends on x."""
    return jax.grad(lambda x: jnp.sum(function(x)))(x)


def iterated(start, step, count):
    """Returns `function(holder, *tensors)`, compiled: `start`, then `count` times `step`.

    Args:
        start: function of a holder, as of `compiled`, and of tensors that returns `(x, others)`: a
            tensor and a tuple of tensors.
        step: function of (holder, x, *others) that returns the next x.
        count: int, at least 1.
    """
    first, one = compiled(start), compiled(step)

    @compiled
    def at_once(holder, *tensors):
        x, others = start(holder, *tensors)
        return jax.lax.fori_loop(0, count, lambda _, x: step(holder, x, *others), x)

    def function(holder, *tensors):
        if device_kind() != "cpu" or any(map(is_traced, tensors)):
            return at_once(holder, *tensors)
        x, others = first(holder, *tensors)  # no loop, see `STEPS_PER_CALL`
        for _ in range(count):
            x = one(holder, x, *others)
        return x

    return function


def seed(first, second):
    """Returns what `uniform` and `normal` take as `seed`."""
    return np.array([first >> 32, first & 0xFFFFFFFF, second], np.uint32)


def _key(seed):
    return jax.random.fold_in(jax.random.wrap_key_data(jnp.asarray(seed)[:2]), seed[2])


def uniform(like, seed, low, high):
    """Returns uniform random numbers in [low, high), of the shape and type of `like`."""
    return jax.random.uniform(_key(seed), like.shape, like.dtype, low, high)


def normal(like, seed, deviation):
    """Returns normal random numbers of mean 0, of the shape and type of `like`."""
    return deviation * jax.random.normal(_key(seed), like.shape, like.dtype)


def total(numbers):
    """Returns the sum of a list of scalars, not empty."""
    return sum(numbers[1:], numbers[0])


def is_traced(tensor):
    """Returns whether a tensor is of a function that is being traced, and has no value."""
    return isinstance(tensor, jax.core.Tracer)


def device_kind():
    """Returns the kind of device that computes: "cpu", "gpu", or "tpu"."""
    return jax.default_backend()


def devices():
    """Returns the names of the accelerators, a list of str."""
    return [each.device_kind for each in jax.local_devices() if each.platform != "cpu"]


def expect_compilations():
    """Does nothing: JAX does not warn that many functions are compiled."""


def make_deterministic():
    """Makes every run the same to the bit, on one machine. Call it before anything is computed."""
    flag = "--xla_gpu_deterministic_ops=true"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()


def use_full_precision():
    """Makes accelerators multiply float32 as such; by default, they round it to fewer bits."""
    jax.config.update("jax_default_matmul_precision", "highest")


def replicas():
    """Returns how many devices share each batch."""
    distribution = keras.distribution.distribution()
    return distribution.device_mesh.devices.size if distribution else 1


@contextlib.contextmanager
def scope():
    """Runs a `with` block on all devices of this machine.

    Variables that are made in it are on all of them, and each device computes its share of a batch.
    The results are those of the whole batch: XLA adds up sums over the batch, those of BatchNorm
    included.
    """
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


def _shared(tensors):
    """Returns tensors whose first axis, that of the batch, is shared by the devices.

    Tensors that cannot be shared equally are on each of them.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        return tensors

    def place(tensor):
        shape = np.shape(tensor)
        if not shape or shape[0] % replicas():
            return tensor
        layout = distribution.get_data_layout(shape)
        return keras.distribution.distribute_tensor(jnp.asarray(tensor), layout)

    return jax.tree.map(place, tensors)


def steps_per_call():
    """Returns how many training steps at most are one compiled call."""
    return STEPS_PER_CALL.get(device_kind(), 1)


class TrainingStep:
    """A step of training, compiled: `step(images, labels, seed)` returns float32 [values].

    Args:
        trainer: has `model`, `optimizer`, `constants`, the variables besides theirs that a step
            reads, `sums`, an array of as many numbers as there are values, and two functions.
            `prepare(images, labels, seed)` returns the batch to train on, a tuple of tensors;
            `loss(batch, batch_size, replicas)` returns its loss, as the optimizer scales it, and
            float32 [values], the means that are reported.
    """

    def __init__(self, trainer):
        self._trainer = trainer
        self._step = jax.jit(self._update, donate_argnums=0)
        self._steps = jax.jit(self._updates, static_argnums=2, donate_argnums=0)

    def __call__(self, images, labels, seed):
        images, labels = _shared((jnp.asarray(images), jnp.asarray(labels)))
        # Not within the compiled function: see `iterated`.
        batch = self._trainer.prepare(images, labels, seed)
        return self._run(self._step, batch, float(len(images)))

    def stretch(self, batches, first, count, seed):
        """Takes `count` steps on batches that are made within the same compiled call.

        Args:
            batches: `tfsparse.batches.PlannedBatches`.
            first: index of the first of them.
            count: number of steps, at most `steps_per_call()`.
            seed: that of the first step; the others have the numbers that follow.

        Returns:
            float32 [count, values].
        """
        most = steps_per_call()
        plan = [part[first : first + most] for part in batches.plan]
        # Of one length, or the compiler would be called for each.
        plan = [np.concatenate([p, np.repeat(p[-1:], most - len(p), 0)]) for p in plan]
        return self._run(self._steps, batches.make, batches.arrays, plan, count, seed)[:count]

    def _run(self, function, *arguments):
        """Calls a function of state, constants, and arguments; returns its values.

        The variables get the state that it returns.
        """
        groups, seen = self._variables(), set()
        state = [[_unaliased(v.value, seen) for v in group] for group in groups]
        constants = [_unaliased(v.value, seen) for v in self._trainer.constants]
        values, state = function(state, constants, *arguments)
        for group, results in zip(groups, state, strict=True):
            for variable, value in zip(group, results, strict=True):
                variable.assign(value)
        return values

    def _variables(self):
        model, optimizer = self._trainer.model, self._trainer.optimizer
        return model.trainable_variables, model.non_trainable_variables, optimizer.variables

    def _scope(self, state, constants, **arguments):
        """Returns a scope in which all variables have the given values."""
        variables = [*itertools.chain(*self._variables()), *self._trainer.constants]
        values = [*itertools.chain(*state), *constants]
        return keras.StatelessScope(zip(variables, values, strict=True), **arguments)

    def _update(self, state, constants, batch, batch_size):
        """Returns the values of a batch that is prepared, and the state after a step on it."""
        trainer, (weights, others, slots) = self._trainer, state
        trained, moving, _ = self._variables()

        def loss(weights):
            scope = self._scope((weights, others, slots), constants, collect_losses=True)
            with scope:
                scaled, values = trainer.loss(batch, batch_size, 1)
            return scaled, (values, [scope.get_current_value(v) for v in moving])

        (_, (values, others)), gradients = jax.value_and_grad(loss, has_aux=True)(weights)
        with _without_constraints(trained):  # in the optimizer's own scope, masks are constants
            weights, slots = trainer.optimizer.stateless_apply(slots, gradients, weights)
        with self._scope((weights, others, slots), constants):
            weights = [
                variable.constraint(value) if variable.constraint else value
                for variable, value in zip(trained, weights, strict=True)
            ]
        return values, (weights, others, slots)

    def _updates(self, state, constants, make, arrays, plan, count, seed):
        def body(index, carry):
            values, state = carry
            images, labels = _shared(make(arrays, [part[index] for part in plan]))
            with self._scope(state, constants):
                batch = self._trainer.prepare(images, labels, seed.at[2].add(index))
            means, state = self._update(state, constants, batch, float(len(images)))
            return values.at[index].set(means), state

        seed = jnp.asarray(seed)
        values = jnp.zeros((len(plan[0]), len(self._trainer.sums)))
        state = tuple(map(list, state))
        return jax.lax.fori_loop(0, count, body, (values, state))


def _unaliased(value, seen):
    """Returns `value`, or a copy if it is another variable's too: what is donated has one owner."""
    if id(value) in seen:
        return jnp.copy(value)
    seen.add(id(value))
    return value


@contextlib.contextmanager
def _without_constraints(variables):
    constraints = [variable.constraint for variable in variables]
    for variable in variables:
        variable.constraint = None
    try:
        yield
    finally:
        for variable, constraint in zip(variables, constraints, strict=True):
            variable.constraint = constraint
