"""Normalization layers: batch normalization with three ways to train it, and group normalization.

Axes: B images, N RoIs, h and w cells, C channels.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from mrcnn import backend
from mrcnn.typing import Shape, Tensor

# A function from the name of a normalization layer to the layer.
Norm = Callable[[str], keras.Layer]

MAX_GROUPS = 32  # Group Normalization, section 4


@keras.saving.register_keras_serializable("mrcnn")
class BatchNorm(keras.layers.BatchNormalization):
    """Batch normalization over the last axis (epsilon 0.001, momentum 0.99).

    gamma and beta train if the layer is trainable. If it is not, its statistics do not change either.

    Args:
        train_bn: False always uses the stored statistics and never changes them. None uses the statistics of
            the batch in training and the stored ones in inference. True always uses the statistics of the
            batch.
        frozen: Whether the layer stays frozen even if `trainable` is set to True.
    """

    def __init__(self, train_bn: bool | None = None, frozen: bool = False, **kwargs: Any):
        self.frozen = frozen
        super().__init__(**{"momentum": 0.99, "epsilon": 0.001, **kwargs})
        self.train_bn = train_bn

    @property
    def trainable(self) -> bool:
        """Whether gamma and beta are trained."""
        return bool(super().trainable) and not self.frozen

    @trainable.setter
    def trainable(self, value: bool) -> None:
        """Make gamma and beta trainable, unless the layer is frozen."""
        keras.layers.Layer.trainable.fset(self, value and not self.frozen)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        if self.frozen:
            self.gamma.trainable = self.beta.trainable = False
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
    def weights(self) -> list[keras.Variable]:
        """gamma, beta, moving_mean and moving_variance. Weight files leave out the counter of updates."""
        return [weight for weight in super().weights if weight is not self.updates]

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None) -> Tensor:
        use_batch = training if self.train_bn is None else self.train_bn
        if not use_batch:
            statistics = (self.moving_mean, self.moving_variance)
            return backend.batch_norm(inputs, *statistics, self.gamma, self.beta, self.epsilon)
        outputs, mean, variance = backend.normalize_by_batch(
            inputs, self.gamma, self.beta, self.epsilon, bool(training)
        )
        if training and self.trainable:
            self._update_statistics(mean, variance, ops.size(inputs) / inputs.shape[-1])
        return outputs

    def _update_statistics(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Update the moving statistics as Keras 2 with TensorFlow 1.15 does.

        The average is not biased toward its start: update t moves it by (1 - momentum) / (1 - momentum ** t),
        so the first update replaces the stored value. Loading statistics that this library has learned sets t
        to a large number; see `mrcnn.checkpoints.weights.load_weights`. The variance is corrected twice for
        the number of samples n: by n / (n - 1) in TensorFlow's fused kernel and by n / (n - 1 - epsilon) in
        Keras 2.

        Args:
            mean: [C].
            variance: [C], with the first correction.
            count: n.
        """
        count = ops.cast(count, "float32")
        variance = variance * (count / ops.maximum(count - (1.0 + self.epsilon), 1.0))
        updates = self.updates + 1.0
        self.updates.assign(updates)
        rate = (1.0 - self.momentum) / (1.0 - ops.power(self.momentum, updates))
        for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            backend.move_average(average, value, rate)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "train_bn": self.train_bn, "frozen": self.frozen}


@keras.saving.register_keras_serializable("mrcnn")
class GroupNorm(keras.layers.Layer):
    """Group normalization (Wu and He, 2018) over groups of channels of each image or RoI.

    It uses no statistics of the batch, so it works with small batches and computes the same in training and
    inference. Call with [B, h, w, C], or with [B, N, h, w, C] to normalize each RoI separately. The number of
    groups is the greatest common divisor of C and 32. Weights: gamma (C), beta (C).

    Args:
        epsilon: Added to the variance.
    """

    def __init__(self, epsilon: float = 1e-5, **kwargs: Any):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape: Shape) -> None:
        channels = int(input_shape[-1] or 0)
        self.groups = math.gcd(channels, MAX_GROUPS)
        self.gamma = self.add_weight(shape=(channels,), initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=(channels,), initializer="zeros", name="beta")

    def call(self, inputs: Tensor) -> Tensor:
        shape = ops.shape(inputs)
        channels = inputs.shape[-1]
        x = ops.cast(inputs, "float32")
        x = ops.reshape(x, (*shape[:-1], self.groups, channels // self.groups))
        mean, variance = ops.moments(x, axes=(-4, -3, -1), keepdims=True)
        x = ops.reshape((x - mean) * ops.rsqrt(variance + self.epsilon), shape)
        x = x * ops.cast(self.gamma, "float32") + ops.cast(self.beta, "float32")
        return ops.cast(x, inputs.dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon}


def normalization(
    norm: str | Norm, train_bn: bool | None, epsilon: float = 0.001, frozen: bool = False
) -> Norm:
    """Return a function that makes a normalization layer with a given name.

    Args:
        norm: "batch", "group", or a constructor, which is returned unchanged.
        train_bn, epsilon, frozen: See `BatchNorm`. "group" ignores `train_bn` and `frozen`.

    Raises:
        ValueError: If `norm` is another string.
    """
    if callable(norm):
        return norm
    if norm == "group":
        return lambda name: GroupNorm(name=name)
    if norm == "batch":
        return lambda name: BatchNorm(train_bn=train_bn, frozen=frozen, epsilon=epsilon, name=name)
    raise ValueError(
        f'`norm` must be "batch", "group" or a function that returns a layer. Received: norm={norm!r}'
    )
