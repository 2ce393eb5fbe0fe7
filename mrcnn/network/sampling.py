"""Random samples of fixed size, from which both stages learn.

Axes: B images, N candidates, K slots of a sample.
"""

import keras
from keras import ops

from mrcnn import backend
from mrcnn.typing import Tensor


def priorities(candidates: Tensor, shuffle: bool, seed: keras.random.SeedGenerator) -> Tensor:
    """Return a priority in [0, 1] for each candidate.

    Args:
        candidates: [B, N] of any dtype; only its shape counts.
        shuffle: True for random priorities; False for priorities that decrease from the first candidate to
            the last.
        seed: Source of the random numbers.

    Returns:
        float32 [B, N].
    """
    if shuffle:
        return keras.random.uniform(ops.shape(candidates), seed=seed, dtype="float32")
    count = candidates.shape[1] or ops.shape(candidates)[1]
    order = 1.0 - ops.cast(ops.arange(count), "float32") / ops.cast(count, "float32")
    return ops.zeros_like(candidates, dtype="float32") + order


def sample_top_k(eligible: Tensor, priority: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Select up to k of the eligible candidates, by descending priority.

    Args:
        eligible: bool [B, N].
        priority: float [B, N] in [0, 1].
        k: At most N, if N is known.

    Returns:
        Indices int32 [B, k] and the number of samples int32 [B]. Slots after the last sample hold arbitrary
        indices below N + k.
    """
    priority = ops.where(eligible, priority, -1.0)
    if priority.shape[1] is None:  # pad, so that there are always k candidates
        priority = ops.pad(priority, ((0, 0), (0, k)), constant_values=-1.0)
    available = ops.sum(ops.cast(eligible, "int32"), axis=1)
    return backend.top_k(priority, k), ops.minimum(available, k)


def is_filled(index: Tensor, count: Tensor) -> Tensor:
    """Return bool [B, K], True for the slots of an index [B, K] that hold one of the `count` [B] samples."""
    return ops.arange(index.shape[1], dtype="int32")[None] < count[:, None]


def sampled_mask(index: Tensor, count: Tensor, candidates: Tensor) -> Tensor:
    """Return bool [B, N], True for the candidates that are in a sample.

    Args:
        index, count: The results of `sample_top_k`.
        candidates: [B, N] of any dtype; only its shape counts.
    """
    batch, size = ops.shape(candidates)[0], candidates.shape[1] or ops.shape(candidates)[1]
    column = ops.where(is_filled(index, count), index, size)  # empty slots write to an extra column
    row = ops.cast(ops.arange(batch), "int32")[:, None] * (size + 1)
    flat = ops.reshape(row + column, (-1, 1))
    marks = ops.zeros((batch * (size + 1),), dtype="int32")
    marks = ops.scatter_update(marks, flat, ops.ones_like(flat[:, 0]))
    return ops.reshape(marks, (batch, size + 1))[:, :size] > 0
