"""Anchors as tensors, for images of any size. `geometry.anchors` computes the same as arrays.

Axes: B images, A anchors of all levels, ordered by level, row, column and ratio.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn.network import box_ops
from mrcnn.typing import Shape, Tensor


def pixel_anchors(
    size: tuple[Tensor, Tensor],
    scales: Sequence[float],
    ratios: Sequence[float],
    strides: Sequence[int],
    anchor_stride: int,
    rounded: bool = False,
    fill_image: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the centers and half sides, in pixels, of the anchors of every pyramid level.

    Args:
        size: (height, width) of the molded image in pixels, numbers or tensors.
        scales: Anchor side in pixels, one per level.
        ratios: Width / height of the anchors.
        strides: Pixels per cell, one per level.
        anchor_stride: Distance between anchors in cells.
        rounded: Whether to round half sides to whole pixels, half to even.
        fill_image: Whether to space cells side // cells pixels apart instead of one stride apart.

    Returns:
        Two float32 tensors [A, (y, x)]. Centers are at the top-left corners of cells, so they are whole
        numbers.
    """
    centers, halves = [], []
    for scale, stride in zip(scales, strides, strict=True):
        step = stride * anchor_stride
        y, x = (
            ops.cast(ops.arange(-(-side // step)), "float32")
            * ops.cast((side // -(-side // stride)) * anchor_stride if fill_image else step, "float32")
            for side in size
        )
        corner = ops.stack(ops.meshgrid(y, x, indexing="ij"), axis=-1)[:, :, None]  # [rows, columns, 1, 2]
        sides = np.array([(scale / math.sqrt(ratio), scale * math.sqrt(ratio)) for ratio in ratios])
        half_sides = np.round(sides / 2) if rounded else sides / 2
        half = ops.zeros_like(corner) + ops.convert_to_tensor(half_sides.astype("float32"))
        centers.append(ops.reshape(corner + ops.zeros_like(half), (-1, 2)))
        halves.append(ops.reshape(half, (-1, 2)))
    return ops.concatenate(centers, axis=0), ops.concatenate(halves, axis=0)


def anchor_count(
    size: Sequence[int | None], ratios: int, strides: Sequence[int], anchor_stride: int
) -> int | None:
    """Return the number of anchors for an image of (height, width) pixels, or None if a side is unknown."""
    height, width = size
    if height is None or width is None:
        return None
    steps = [stride * anchor_stride for stride in strides]
    return ratios * sum(-(-height // step) * -(-width // step) for step in steps)


@keras.saving.register_keras_serializable("mrcnn")
class Anchors(keras.layers.Layer):
    """Normalized anchors of every pyramid level for each image of a batch.

    Call with images [B, H, W, channels]. Returns float32 [B, A, 4] in the order of
    `geometry.anchors.generate_pyramid_anchors`.

    Args:
        scales, ratios, strides, anchor_stride, rounded, fill_image: See `pixel_anchors`.
        half_open: Whether normalized boxes are half-open; see `mrcnn.geometry.boxes`.
    """

    def __init__(
        self,
        scales: Sequence[float],
        ratios: Sequence[float],
        strides: Sequence[int],
        anchor_stride: int = 1,
        *,
        rounded: bool = False,
        fill_image: bool = False,
        half_open: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.scales = tuple(float(scale) for scale in scales)
        self.ratios = tuple(float(ratio) for ratio in ratios)
        self.strides = tuple(int(stride) for stride in strides)
        self.anchor_stride = int(anchor_stride)
        self.rounded, self.fill_image, self.half_open = rounded, fill_image, half_open

    def call(self, images: Tensor) -> Tensor:
        batch, height, width = ops.shape(images)[:3]
        center, half = pixel_anchors(
            (height, width),
            self.scales,
            self.ratios,
            self.strides,
            self.anchor_stride,
            self.rounded,
            self.fill_image,
        )
        anchors = ops.concatenate([center - half, center + half], axis=-1)
        anchors = box_ops.norm_boxes(anchors, (height, width), self.half_open)
        return ops.broadcast_to(anchors[None], (batch, ops.shape(anchors)[0], 4))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, *size = input_shape[:3]
        return (batch, anchor_count(size, len(self.ratios), self.strides, self.anchor_stride), 4)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "scales": self.scales,
            "ratios": self.ratios,
            "strides": self.strides,
            "anchor_stride": self.anchor_stride,
            "rounded": self.rounded,
            "fill_image": self.fill_image,
            "half_open": self.half_open,
        }
