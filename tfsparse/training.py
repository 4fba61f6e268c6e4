"""One epoch of robust, sparse training: attack, hybrid loss, gradient step, masks."""

import contextlib
import time

import keras
import numpy as np
import tensorflow as tf
import tqdm

from tfsparse.errors import UsageError
from tfsparse.fused import fused_batch_norm


class Trainer:
    """Trains a model on clean and adversarial images at once, and keeps it sparse.

    The loss of a batch (x, t), after Kundu et al., "DNR", ASP-DAC 2021, arXiv 2011.03083:

        J = beta * CE(f(x), t) + (1 - beta) * CE(f(x_adv), t) + dynamic L2 regulariser

    The default beta of 0.5 is a choice of ours. Clean and adversarial images go through the network
    as one batch, so that BatchNorm's statistics are those of both. Without an attack J is the plain
    cross-entropy CE, in which a label t may be smoothed (Szegedy et al., CVPR 2016, section 7).

    Created within the scope of a tf.distribute strategy it trains on all of its replicas, and must
    be used within that scope. A batch is shared among the replicas; each normalises by the
    statistics of its own share, unless the model's BatchNormalization layers are `synchronized`,
    and the moving statistics are their mean.

    Args:
        model: Keras model from images in [0, 1] to logits.
        optimizer: Keras optimizer; built on the model's trainable variables here.
        attack: function as `tfsparse.attacks.pgd` returns, or None.
        pruner: `tfsparse.pruning.Pruner` of the same model, or None.
        beta: weight of the clean images, in [0, 1].
        label_smoothing: share of a label that is spread over all classes, in [0, 1). The attack
            takes labels as they are.

    Attributes:
        batches_done: how many batches of the epoch under way are done.
        sums: what `run_epoch` returns the means of, summed over these; float64.
        seconds: how long they took.
    """

    def __init__(self, model, optimizer, attack=None, pruner=None, beta=0.5, label_smoothing=0.0):
        self.model = model
        self.optimizer = optimizer
        self.attack = attack
        self.pruner = pruner
        self.beta, self.label_smoothing = beta, label_smoothing
        self.strategy = tf.distribute.get_strategy()
        self.batches_done, self.sums, self.seconds = 0, np.zeros(3 if attack else 2), 0.0
        optimizer.build(model.trainable_variables)

    @property
    def step(self):
        """Number of training steps done."""
        return int(self.optimizer.iterations.numpy())

    @property
    def variables(self):
        """{name: variable} of all state that training changes: what a checkpoint must hold."""
        groups = {"model": self.model.variables, "optimizer": self.optimizer.variables}
        if self.pruner:
            groups["pruner"] = self.pruner.variables
        return {
            f"{group}/{index:04d}": variable
            for group, variables in groups.items()
            for index, variable in enumerate(variables)
        }

    def average_weights(self):
        """Gives the model the moving averages of its trainable weights, for good.

        They are those that an optimizer with `use_ema` keeps, after the weights' constraints: what
        is pruned is 0 in them, too. Without `use_ema` nothing changes.
        """
        optimizer = getattr(self.optimizer, "inner_optimizer", self.optimizer)  # LossScaleOptimizer
        if optimizer.use_ema:
            optimizer.finalize_variable_values(self.model.trainable_variables)
            for weight in self.model.trainable_variables:
                if weight.constraint:
                    weight.assign(weight.constraint(weight))

    @contextlib.contextmanager
    def averaged_weights(self):
        """The same within a `with` block; afterwards training can go on."""
        weights = self.model.trainable_variables
        own = [keras.ops.copy(weight) for weight in weights]
        try:
            self.average_weights()
            yield
        finally:
            for weight, value in zip(weights, own, strict=True):
                weight.assign(value)

    def run_epoch(self, batches, seed, description="training", after_step=None):
        """Trains on the rest of an epoch: all of it, unless `batches_done` is above 0.

        Args:
            batches: tf.data.Dataset of known length of the batches that are left: images float
                [n, h, w, c] in [0, 1], labels int [n].
            seed: int that, with the step, fixes the attack's random starts.
            description: what the progress bar says.
            after_step: None, or a function that is called after each step with whether it was the
                last of the epoch.

        Returns:
            {"loss", "train_clean_accuracy", "train_adversarial_accuracy", "seconds"}: means over
            the epoch, that of adversarial images only with an attack, and how long it took.

        Raises:
            UsageError: where the loss is no longer finite.
        """
        total = self.batches_done + len(batches)
        progress = tqdm.tqdm(
            batches, description, total, initial=self.batches_done, leave=False, disable=None
        )
        start = time.perf_counter() - self.seconds
        for images, labels in progress:
            if self.pruner:
                self.pruner.update(self.step, self.optimizer)
            values = self._train_step(images, labels, tf.constant([seed, self.step])).numpy()
            if not np.isfinite(values[0]):
                raise UsageError(
                    f"The loss is {values[0]} at step {self.step}. Choose a smaller learning rate."
                )
            self.sums, self.batches_done = self.sums + values, self.batches_done + 1
            self.seconds = time.perf_counter() - start
            loss = self.sums[0] / self.batches_done
            progress.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            if after_step:
                after_step(self.batches_done == total)
        means = (self.sums / self.batches_done).tolist()
        names = ["loss", "train_clean_accuracy", "train_adversarial_accuracy"]
        metrics = {**dict(zip(names[: len(means)], means, strict=True)), "seconds": self.seconds}
        self.batches_done, self.sums, self.seconds = 0, np.zeros_like(self.sums), 0.0
        return metrics

    @tf.function(reduce_retracing=True)
    def _train_step(self, images, labels, seed):
        """Returns float32 [2 or 3]: the batch's loss and its accuracies, clean and adversarial."""
        shares = self.strategy.run(self._replica_step, (images, labels, seed))
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, shares, axis=None)

    def _replica_step(self, images, labels, seed):
        """Trains on this replica's share of a batch; returns its part of the batch's means."""
        context = tf.distribute.get_replica_context()
        replica, replicas = context.replica_id_in_sync_group, context.num_replicas_in_sync
        batch_size = tf.cast(tf.shape(images)[0], tf.float32)
        images, labels = images[replica::replicas], labels[replica::replicas]
        size = tf.shape(images)[0]
        weight = tf.fill([size], 1.0)
        if self.attack:
            seed = tf.stack([seed[0], seed[1] * replicas + replica])
            adversarial = self.attack(images, labels, seed)
            images = tf.concat([images, adversarial], axis=0)
            labels = tf.tile(labels, [2])
            weight = tf.concat([tf.fill([size], self.beta), tf.fill([size], 1.0 - self.beta)], 0)
        with tf.GradientTape() as tape, fused_batch_norm(self.model):
            # Float32 also where the model computes in 16 bits: mixed precision.
            logits = tf.cast(self.model(images, training=True), tf.float32)
            losses = keras.losses.categorical_crossentropy(
                tf.one_hot(labels, logits.shape[-1]), logits, True, self.label_smoothing
            )
            loss = tf.reduce_sum(weight * losses) / batch_size
            if self.model.losses:
                loss += tf.add_n(self.model.losses) / replicas
            scaled = self.optimizer.scale_loss(loss)  # of a LossScaleOptimizer, which scales back
        variables = self.model.trainable_variables
        # Keras' optimizers sum the gradients over the replicas.
        self.optimizer.apply(tape.gradient(scaled, [v.value for v in variables]), variables)
        if replicas > 1:
            self._average_statistics(context)
        correct = tf.cast(tf.equal(tf.argmax(logits, -1, labels.dtype), labels), tf.float32)
        values = [loss, tf.reduce_sum(correct[:size]) / batch_size]
        if self.attack:
            values.append(tf.reduce_sum(correct[size:]) / batch_size)
        return tf.stack(values)

    def _average_statistics(self, context):
        """Gives all replicas the mean of their moving statistics, which no optimizer changes."""
        statistics = [v for v in self.model.non_trainable_variables if "float" in v.dtype]
        if statistics:
            values = [tf.identity(tf.convert_to_tensor(variable)) for variable in statistics]
            means = context.all_reduce(tf.distribute.ReduceOp.MEAN, values)
            for variable, mean in zip(statistics, means, strict=True):
                variable.assign(mean)


SCHEDULES = ("one_cycle", "cosine", "piecewise")


def sgd(steps, learning_rate, weight_decay, schedule="one_cycle", ema_momentum=0.0):
    """Returns SGD with Nesterov momentum 0.9 and a learning rate that changes over training.

    Args:
        steps: training steps, at least 1.
        learning_rate: the peak.
        weight_decay: decoupled; times the learning rate at each step. BatchNorm and biases have
            none.
        schedule: "one_cycle" rises linearly for a tenth of the steps and falls to 0 along a cosine,
            "cosine" falls from the start, "piecewise" is divided by 10 after half and after three
            quarters of the steps.
        ema_momentum: of the moving average of the weights, in [0, 1); 0 for none. See
            `Trainer.averaged_weights`.
    """
    if schedule == "piecewise":
        rate = keras.optimizers.schedules.PiecewiseConstantDecay(
            [steps // 2, steps * 3 // 4], [learning_rate, learning_rate / 10, learning_rate / 100]
        )
    else:
        warm_up = steps // 10 if schedule == "one_cycle" else 0
        rate = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warm_up else learning_rate,
            decay_steps=steps - warm_up,
            warmup_target=learning_rate if warm_up else None,
            warmup_steps=warm_up,
        )
    optimizer = keras.optimizers.SGD(
        rate,
        momentum=0.9,
        nesterov=True,
        weight_decay=weight_decay,
        use_ema=ema_momentum > 0,
        ema_momentum=ema_momentum,
    )
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer


def overfits_attack(history):
    """Whether training has overfitted to its one-step attack: "catastrophic overfitting".

    The network then classifies what one step makes of its training images, and next to nothing of
    what several steps make of others. Said is so where PGD on held-out images leaves less than
    half of the accuracy in training, and less than half of what it left after an earlier epoch: a
    network that has yet to learn does not count.

    Args:
        history: list of dicts with "train_adversarial_accuracy" and "validation_robust_accuracy",
            one for each epoch.

    Source: Wong et al., "Fast is better than free", ICLR 2020, section 5.4.
    """
    last = history[-1]
    best = max(row["validation_robust_accuracy"] for row in history)
    known = min(best, last["train_adversarial_accuracy"])
    return last["validation_robust_accuracy"] < 0.5 * known


def best_epoch(history):
    """Returns the epoch, from 1, of the best held-out robust accuracy; the first of equal ones.

    Without an attack in training it is that of the best clean accuracy. Of a network that is pruned
    as it trains, only the epochs within 1 % of its lowest density so far count: whole channels do
    not always add up to the same number of weights.
    """
    name = "validation_robust_accuracy"
    name = name if name in history[0] else "validation_clean_accuracy"
    densities = [row.get("density", 1.0) for row in history]
    sparse = [index for index, density in enumerate(densities) if density <= 1.01 * min(densities)]
    return max(sparse, key=lambda index: history[index][name]) + 1
