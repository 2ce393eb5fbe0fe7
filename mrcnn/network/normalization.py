"""Normalisation: over the batch with the original's three ways to train it, or over groups of channels."""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from mrcnn.backend import torch_ops

Tensor = Any
# From a layer's name to the layer.
Norm = Callable[[str], keras.Layer]

MOST_GROUPS = 32  # Wu and He 2018, section 4


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
            if torch_ops.serve():
                statistics = (self.moving_mean, self.moving_variance, self.gamma, self.beta)
                return torch_ops.normalize(inputs, *statistics, self.epsilon)
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


class GroupNorm(keras.layers.Layer):
    """Group normalisation (Wu and He 2018): mean and variance over a group of channels of each image or RoI.

    Needs no statistics of a batch: small batches and padding do no harm, training and inference compute the
    same. Call with [B, h, w, C], or with [B, N, h, w, C], where every RoI is normalised by itself. The number
    of groups is the largest divisor of C that divides 32. Weights: gamma (C), beta (C).
    """

    def __init__(self, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape):
        channels = input_shape[-1]
        self.groups = math.gcd(channels, MOST_GROUPS)
        self.gamma = self.add_weight(shape=(channels,), initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=(channels,), initializer="zeros", name="beta")

    def call(self, inputs):
        shape = ops.shape(inputs)
        channels = inputs.shape[-1]
        x = ops.cast(inputs, "float32")
        x = ops.reshape(x, (*shape[:-1], self.groups, channels // self.groups))
        mean, variance = ops.moments(x, axes=(-4, -3, -1), keepdims=True)
        x = ops.reshape((x - mean) * ops.rsqrt(variance + self.epsilon), shape)
        x = x * ops.cast(self.gamma, "float32") + ops.cast(self.beta, "float32")
        return ops.cast(x, inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}


def normalization(norm: str, train_bn: bool | None) -> Norm:
    """What makes the normalisation layers of a network, given their names.

    norm: "batch" or "group"; train_bn: see BatchNorm, without meaning for groups.
    Raises ValueError for another norm.
    """
    if norm == "group":
        return lambda name: GroupNorm(name=name)
    if norm == "batch":
        return lambda name: BatchNorm(train_bn=train_bn, name=name)
    raise ValueError(f'norm must be "batch" or "group". Received: norm={norm!r}')
