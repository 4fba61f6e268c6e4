"""One epoch of robust, sparse training: attack, hybrid loss, gradient step, masks."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tqdm
from keras import ops

from tfsparse import backend
from tfsparse.attacks import Attack
from tfsparse.batches import Batches, PlannedBatches
from tfsparse.distillation import Teacher
from tfsparse.errors import UsageError
from tfsparse.evaluation import shapes
from tfsparse.examples import UNIT_RANGE, check_images, class_labels
from tfsparse.pruning.pruner import Pruner
from tfsparse.timing import duration


class Trainer:
    """Trains a model on clean and adversarial images at once, and keeps it sparse.

    The loss of a batch (x, t), after Kundu et al., "DNR", ASP-DAC 2021, arXiv 2011.03083:

        J = beta * CE(f(x), t) + (1 - beta) * CE(f(x_adv), t) + dynamic L2 regularizer

    The paper does not give beta; the default of 0.5 is ours. Clean and adversarial images go
    through the network as one batch, so BatchNorm's statistics are those of both. Without an attack
    J is the plain cross-entropy CE. The labels t may be smoothed (Szegedy et al., CVPR 2016,
    section 7).

    A trainer that is created within `tfsparse.distribution.scope` trains on all devices and must be
    used within that scope. The devices share each batch. In TensorFlow, each normalizes by the
    statistics of its own share, unless the model's BatchNormalization layers are `synchronized`;
    the moving statistics are the mean over the replicas. In JAX, the statistics are those of the
    whole batch.

    Args:
        model: Keras model from images, with an attack those of its `input_range`, to logits.
        optimizer: Keras optimizer; built on the model's trainable variables here.
        attack: function as `tfsparse.attacks.pgd` returns, or None.
        pruner: `tfsparse.pruning.Pruner` of the same model, or None.
        beta: weight of the clean images, in [0, 1].
        label_smoothing: share of a label that is spread over all classes, in [0, 1). The attack
            uses the labels without smoothing.
        teacher: `tfsparse.distillation.Teacher`, from which the model learns besides the labels, or
            None.

    Raises:
        UsageError: if an argument is out of range, or the teacher does not fit the model.

    Attributes:
        batches_done: number of finished batches of the current epoch.
        sums: float64 sums, over these batches, of the values whose means `run_epoch` returns.
        seconds: how long these batches took.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        attack: Attack | None = None,
        pruner: Pruner | None = None,
        beta: float = 0.5,
        label_smoothing: float = 0.0,
        teacher: Teacher | None = None,
    ) -> None:
        if not 0 <= beta <= 1 or not 0 <= label_smoothing < 1:
            raise UsageError(
                "Trainer needs 0 <= beta <= 1 and 0 <= label_smoothing < 1. "
                f"Received: beta={beta}, label_smoothing={label_smoothing}"
            )
        if not isinstance(optimizer, keras.optimizers.Optimizer):
            raise UsageError(
                "optimizer must be a keras.optimizers.Optimizer, such as tfsparse.optimizers.sgd "
                f"returns. Received: {optimizer!r}"
            )
        if teacher:
            teacher.check_student(model)
        self.model = model
        self.optimizer = optimizer
        self.attack = attack
        self.pruner = pruner
        self.beta, self.label_smoothing, self.teacher = beta, label_smoothing, teacher
        self._outputs: int | None = None  # how many the model has, once a batch tells
        self.batches_done, self.sums, self.seconds = 0, np.zeros(3 if attack else 2), 0.0
        optimizer.build(model.trainable_variables)
        self._train_step = backend.TrainingStep(self)

    @property
    def step(self) -> int:
        """Number of training steps done."""
        return int(ops.convert_to_numpy(self.optimizer.iterations))

    @property
    def variables(self) -> dict[str, Any]:
        """{name: variable} of all state that training changes and a checkpoint must hold."""
        groups = {"model": self.model.variables, "optimizer": self.optimizer.variables}
        if self.pruner:
            groups["pruner"] = self.pruner.variables
        return {
            f"{group}/{index:04d}": variable
            for group, variables in groups.items()
            for index, variable in enumerate(variables)
        }

    @property
    def constants(self) -> list[Any]:
        """The variables that a training step reads besides those that it changes."""
        return [v for each in (self.pruner, self.teacher) if each for v in each.variables]

    def average_weights(self) -> None:
        """Replaces the model's trainable weights by their moving averages, permanently.

        An optimizer with `use_ema` keeps these averages. The weights' constraints are applied to
        them, so that pruned weights are 0. Without `use_ema` nothing changes.
        """
        optimizer = getattr(self.optimizer, "inner_optimizer", self.optimizer)  # LossScaleOptimizer
        if optimizer.use_ema:
            optimizer.finalize_variable_values(self.model.trainable_variables)
            for weight in self.model.trainable_variables:
                if weight.constraint:
                    weight.assign(weight.constraint(weight))

    @contextlib.contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Does the same within a `with` block, after which training can continue."""
        weights = self.model.trainable_variables
        own = [keras.ops.copy(weight) for weight in weights]
        try:
            self.average_weights()
            yield
        finally:
            for weight, value in zip(weights, own, strict=True):
                weight.assign(value)

    def run_epoch(
        self,
        batches: Batches,
        seed: int,
        description: str = "training",
        after_step: Callable[[bool], object] | None = None,
        steps_after: int = 0,
    ) -> dict[str, float]:
        """Trains on the remaining batches of an epoch: on all if `batches_done` is 0.

        Args:
            batches: the remaining batches of the epoch, an iterable with a length, such as a
                tf.data.Dataset or `tfsparse.batches.PlannedBatches`: images [n, h, w, c], as the
                model takes them, and labels, as `tfsparse.examples.class_labels` takes them.
            seed: int that fixes the attack's random starts, together with the step.
            description: label of the progress bar.
            after_step: None, or a function that is called after each step, or after each stretch of
                steps that are one compiled call, with a bool: whether it ended the epoch.
            steps_after: training steps of the epochs that follow, for the time left on the
                progress bar.

        Returns:
            {"loss", "train_clean_accuracy", "train_adversarial_accuracy", "seconds"}: means over
            the epoch (of adversarial images only with an attack), and its duration.

        Raises:
            UsageError: if the loss is no longer finite, there are no batches, or one has fewer
                images than there are replicas, or labels or, with an attack, images of the first
                batch do not fit.
        """
        if not hasattr(batches, "__len__") or not self.batches_done + len(batches):
            raise UsageError(
                "batches must have a length, at least 1, as a list or a tf.data.Dataset has. "
                f"Received: {batches!r}"
            )
        total = self.batches_done + len(batches)
        progress = tqdm.tqdm(
            desc=description, total=total, initial=self.batches_done, leave=False, disable=None
        )
        start, first = time.perf_counter() - self.seconds, None
        with progress:
            for values in self._values(batches, seed):
                self._check_losses(values[:, 0])
                for row in values:
                    self.sums, self.batches_done = self.sums + row, self.batches_done + 1
                self.seconds = time.perf_counter() - start
                loss = self.sums[0] / self.batches_done
                first = first or (self.batches_done, self.seconds)  # this may have compiled
                left = self._time_left(*first, total + steps_after)
                progress.set_postfix_str(f"loss {loss:.3f}{left}", refresh=False)
                progress.update(len(values))
                if after_step:
                    after_step(self.batches_done == total)
        means = (self.sums / self.batches_done).tolist()
        names = ["loss", "train_clean_accuracy", "train_adversarial_accuracy"]
        metrics = {**dict(zip(names[: len(means)], means, strict=True)), "seconds": self.seconds}
        self.batches_done, self.sums, self.seconds = 0, np.zeros_like(self.sums), 0.0
        return metrics

    def _time_left(self, steps, seconds, total):
        """Returns how long `total` steps still take, at the pace since `steps` and `seconds`."""
        if self.batches_done == steps:
            return ""
        pace = (self.seconds - seconds) / (self.batches_done - steps)
        return f", {duration(pace * (total - self.batches_done))} left in all"

    def _values(self, batches, seed):
        """Trains on all batches; yields the values of each step or stretch, [steps, values]."""
        most = backend.steps_per_call()
        if most > 1 and isinstance(batches, PlannedBatches):
            yield from self._stretches(batches, seed, most)
            return
        for images, labels in batches:
            labels = self._labels(images, labels)
            self._check_size(len(images))
            if self.pruner:
                self.pruner.update(self.step, self.optimizer)
            values = self._train_step(images, labels, backend.seed(seed, self.step))
            yield ops.convert_to_numpy(values)[np.newaxis]

    def _stretches(self, batches, seed, most):
        """The same in calls of at most `most` steps, between which masks may change."""
        done = 0
        while done < len(batches):
            count = min(most, len(batches) - done)
            if not done:
                self._labels(*batches.batch(0))
                self._check_size(len(batches.plan[0][0]))
            if self.pruner:
                self.pruner.update(self.step, self.optimizer)
                count = self.pruner.steps_to_update(self.step, count)
            start = backend.seed(seed, self.step)
            yield ops.convert_to_numpy(self._train_step.stretch(batches, done, count, start))
            done += count

    def _check_losses(self, losses):
        """Raises a `UsageError` if the losses of the last steps are not all finite."""
        is_wrong = ~np.isfinite(losses)
        if is_wrong.any():
            first = np.argmax(is_wrong)
            step = self.step - len(losses) + 1 + first
            remedy = "Choose a smaller learning rate."
            if step == 1:  # no weight has changed yet
                remedy = "Look for NaN or large numbers in the images and in the model's weights."
            raise UsageError(f"The loss is {losses[first]} at step {step}. {remedy}")

    def _check_size(self, batch_size):
        replicas = backend.replicas()
        if batch_size < replicas:
            raise UsageError(
                f"{replicas} replicas share each batch and need an image each. Received: a batch "
                f"of {batch_size}. Leave the last one out with batch(drop_remainder=True)."
            )

    def _labels(self, images, labels):
        """Returns the labels of a batch as int32 [n], after a check."""
        if self._outputs is None:
            image_shape, self._outputs = shapes(self.model, images)
            if self.teacher:
                self.teacher.check_sizes(image_shape, self._outputs)
        labels = class_labels(labels, len(images), self._outputs)
        if self._outputs == 1 and labels.any():
            raise UsageError(
                "Trainer needs an output for each class, which two classes do not have in a model "
                "of one output. Give the model two."
            )
        if self.attack and not self.batches_done:
            input_range = getattr(self.attack, "input_range", UNIT_RANGE)
            check_images(images, images.shape[1:], input_range)
        return labels

    def prepare(self, images: Any, labels: Any, seed: Any) -> tuple[Any, Any, Any, Any]:
        """Returns (images, labels, weights, soft labels): a batch with its adversarial images.

        There are none without an attack. Without a teacher, the soft labels are None.
        """
        size = ops.shape(images)[0]
        soft_labels = self.teacher.soft_labels(images) if self.teacher else None
        if not self.attack:
            return images, labels, ops.full((size,), 1.0, "float32"), soft_labels
        adversarial = self.attack(images, labels, seed)
        images = ops.concatenate([images, adversarial], axis=0)
        shares = self.beta, 1.0 - self.beta
        weights = [ops.full((size,), share, "float32") for share in shares]
        labels = ops.concatenate([labels, labels], axis=0)
        if self.teacher:
            soft_labels = ops.concatenate([soft_labels, soft_labels], axis=0)
        return images, labels, ops.concatenate(weights, axis=0), soft_labels

    def loss(self, batch: tuple[Any, ...], batch_size: int, replicas: int) -> tuple[Any, Any]:
        """Returns the loss of a batch, as the optimizer scales it, and the values to report.

        Args:
            batch: as `prepare` returns it.
            batch_size: images of the whole batch without adversarial ones.
            replicas: that share the batch.

        Returns:
            A scalar, and float32 [2 or 3]: this replica's part of loss, clean accuracy, and
            adversarial accuracy.
        """
        images, labels, weights, soft_labels = batch
        # Float32 even if the model computes in 16 bits (mixed precision).
        logits = ops.cast(self.model(images, training=True), "float32")
        losses = keras.losses.categorical_crossentropy(
            ops.one_hot(labels, logits.shape[-1]), logits, True, self.label_smoothing
        )
        if self.teacher:
            losses = self.teacher.losses(losses, soft_labels, logits)
        loss = ops.sum(weights * losses) / batch_size
        if self.model.losses:
            loss += ops.cast(backend.total(self.model.losses), "float32") / replicas
        correct = ops.cast(ops.equal(ops.argmax(logits, -1), labels), "float32")
        parts = ops.split(correct, 2) if self.attack else [correct]
        values = ops.stack([loss, *(ops.sum(part) / batch_size for part in parts)])
        return self.optimizer.scale_loss(loss), values  # a LossScaleOptimizer scales back
