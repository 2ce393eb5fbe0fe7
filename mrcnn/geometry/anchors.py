"""Anchors of the region proposal network (Faster R-CNN, section 3.1.1; FPN, section 4.1)."""

from collections.abc import Sequence

import numpy as np


def feature_shapes(image_shape: Sequence[int], strides: Sequence[int]) -> np.ndarray:
    """Rows and columns of each level of the feature pyramid.

    image_shape: (height, width, ...) of the network's input in pixels; strides: pixels per feature
    cell, one per level.

    Returns int [levels, 2], each side divided by the stride and rounded up.
    """
    sides = np.asarray(image_shape[:2])
    return -(-sides // np.asarray(strides)[:, None])


def generate_anchors(
    scales: float | Sequence[float],
    ratios: Sequence[float],
    shape: Sequence[int],
    feature_stride: int,
    anchor_stride: int,
) -> np.ndarray:
    """Anchors of one pyramid level.

    scales: side in pixels of a square anchor, one or several. ratios: width / height, so 0.5 is a
    tall anchor; the area is the square of the scale whatever the ratio. shape: (rows, columns) of
    the feature map. feature_stride: pixels per cell. anchor_stride: cells per anchor.

    Returns float64 [N, (y1, x1, y2, x2)] in pixels, not clipped to the image. Centres lie on the
    top-left corner of the cell, as in the original. Order, slowest first: row, column, ratio,
    scale.
    """
    side = np.atleast_1d(np.asarray(scales, dtype=np.float64))
    root = np.sqrt(np.asarray(ratios, dtype=np.float64))[:, None]
    half_height = 0.5 * (side / root).ravel()
    half_width = 0.5 * (side * root).ravel()

    y = np.arange(0, shape[0], anchor_stride)[:, None, None] * feature_stride
    x = np.arange(0, shape[1], anchor_stride)[None, :, None] * feature_stride
    corners = np.broadcast_arrays(y - half_height, x - half_width, y + half_height, x + half_width)
    return np.stack(corners, axis=-1).reshape(-1, 4)


def generate_pyramid_anchors(
    scales: Sequence[float],
    ratios: Sequence[float],
    feature_shapes: Sequence[Sequence[int]] | np.ndarray,
    feature_strides: Sequence[int],
    anchor_stride: int,
) -> np.ndarray:
    """Anchors of all pyramid levels, in the order in which the network flattens its outputs.

    scales, feature_shapes, feature_strides: one entry per level; every level uses all `ratios`.

    Returns float64 [A, (y1, x1, y2, x2)] in pixels, level after level as `generate_anchors` gives
    them; 261,888 for 1024 x 1024 pixels and the default configuration.
    Raises ValueError if the numbers of levels differ.
    """
    levels = {len(scales), len(feature_shapes), len(feature_strides)}
    if len(levels) != 1:
        raise ValueError(
            "Wanted one scale, one feature shape and one stride per pyramid level. Received: "
            f"{len(scales)} scales, {len(feature_shapes)} feature shapes, "
            f"{len(feature_strides)} strides."
        )
    return np.concatenate(
        [
            generate_anchors(scale, ratios, shape, stride, anchor_stride)
            for scale, shape, stride in zip(scales, feature_shapes, feature_strides, strict=True)
        ]
    )
