"""Batch normalisation with the original's three ways to train it."""

from typing import Any

import keras
from keras import ops

Tensor = Any


class BatchNorm(keras.layers.BatchNormalization):
    """Batch normalisation over the last axis (epsilon 0.001, momentum 0.99).

    train_bn: False: always the stored statistics, which never change; None: follow the phase; True: always
    the batch's own statistics. gamma and beta train in each case wherever the layer is trainable.
    Statistics of a layer that is not trainable do not move.
    """

    def __init__(self, train_bn: bool | None = None, **kwargs):
        super().__init__(**{"momentum": 0.99, "epsilon": 0.001, **kwargs})
        self.train_bn = train_bn

    def build(self, input_shape):
        super().build(input_shape)
        self.updates = self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="float32",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
            name="updates",
        )

    @property
    def weights(self):
        """gamma, beta, moving_mean, moving_variance: what weight files hold; not the counter."""
        return [weight for weight in super().weights if weight is not self.updates]

    def call(self, inputs, training=None, mask=None):
        by_batch = training if self.train_bn is None else self.train_bn
        if not by_batch:
            return super().call(inputs, training=False)
        return self._normalize_by_batch(inputs, follow=bool(training) and self.trainable)

    def _normalize_by_batch(self, inputs: Tensor, follow: bool) -> Tensor:
        x = ops.cast(inputs, "float32")
        axes = tuple(range(len(x.shape) - 1))
        mean, variance = ops.moments(x, axes=axes)
        if follow:
            self._follow(mean, variance, ops.size(x) / ops.size(mean))
        outputs = ops.batch_normalization(
            x, mean, variance, axis=-1, offset=self.beta, scale=self.gamma, epsilon=self.epsilon
        )
        return ops.cast(outputs, inputs.dtype)

    def _follow(self, mean: Tensor, variance: Tensor, count: Any) -> None:
        """Move the stored statistics towards the batch's, as recorded from the original.

        The average has no bias towards its start: update t of this run moves it by
        (1 - momentum) / (1 - momentum ** t), so the first replaces what was stored. The variance is corrected
        twice for the number of samples (by the original's fused kernel and by its framework):
        n / (n - 1) and n / (n - 1 - epsilon).
        """
        count = ops.cast(count, "float32")
        variance = variance * count / ops.maximum(count - 1.0, 1.0)
        variance = variance * count / ops.maximum(count - 1.0 - self.epsilon, 1.0)
        self.updates.assign(self.updates + 1.0)
        rate = (1.0 - self.momentum) / (1.0 - ops.power(self.momentum, self.updates))
        self.moving_mean.assign(self.moving_mean + (mean - self.moving_mean) * rate)
        self.moving_variance.assign(self.moving_variance + (variance - self.moving_variance) * rate)

    def get_config(self):
        return {**super().get_config(), "train_bn": self.train_bn}
