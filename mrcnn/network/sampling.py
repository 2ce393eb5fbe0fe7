"""Random samples of fixed size: what the target layers of both stages draw their examples with."""

from typing import Any

import keras
from keras import ops

from mrcnn.network import box_ops

Tensor = Any


def priorities(like: Tensor, shuffle: bool, seed: keras.random.SeedGenerator) -> Tensor:
    """The priority of each candidate, in [0, 1]: random, or falling from the first to the last.

    like: [B, N] of any type, whose shape counts. Returns float32 [B, N].
    """
    if shuffle:
        return keras.random.uniform(ops.shape(like), seed=seed, dtype="float32")
    count = like.shape[1] or ops.shape(like)[1]
    order = 1.0 - ops.cast(ops.arange(count), "float32") / ops.cast(count, "float32")
    return ops.zeros_like(like, dtype="float32") + order


def draw(eligible: Tensor, keys: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Up to `count` of the eligible candidates, by falling key.

    eligible: [B, N] bool; keys: [B, N] in [0, 1]; count: at most N if N is known. Returns index int32
    [B, count], of which the first `drawn` hold a candidate and the rest any number below N + count, and
    drawn int32 [B].
    """
    keys = ops.where(eligible, keys, -1.0)
    if keys.shape[1] is None:  # as many as asked for, however few there are
        keys = ops.pad(keys, ((0, 0), (0, count)), constant_values=-1.0)
    available = ops.sum(ops.cast(eligible, "int32"), axis=1)
    return box_ops.top_k(keys, count), ops.minimum(available, count)


def holds(index: Tensor, drawn: Tensor) -> Tensor:
    """Which places of `draw`'s index hold a candidate: bool [B, count]."""
    return ops.arange(index.shape[1], dtype="int32")[None] < drawn[:, None]


def marked(index: Tensor, drawn: Tensor, like: Tensor) -> Tensor:
    """Which candidates were drawn: bool [B, N], the shape of `like`. index, drawn: as `draw` gives them."""
    batch, count = ops.shape(like)[0], like.shape[1] or ops.shape(like)[1]
    column = ops.where(holds(index, drawn), index, count)  # the last is a bin
    row = ops.cast(ops.arange(batch), "int32")[:, None] * (count + 1)
    flat = ops.reshape(row + column, (-1, 1))
    marks = ops.zeros((batch * (count + 1),), dtype="int32")
    marks = ops.scatter_update(marks, flat, ops.ones_like(flat[:, 0]))
    return ops.reshape(marks, (batch, count + 1))[:, :count] > 0
