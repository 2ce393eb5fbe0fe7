"""Anchors inside the graph, for whatever size the image has (tensor twin of `geometry.anchors`)."""

import math

import keras
import numpy as np
from keras import ops

from mrcnn.network import box_ops


class Anchors(keras.layers.Layer):
    """Normalised anchors of every pyramid level, P2 to P6, for each image of a batch.

    scales: anchor side in pixels, one per level; ratios: width / height; strides: pixels per cell of each
    level; anchor_stride: cells per anchor.
    Call with images [B, H, W, channels]. Returns [B, A, 4] float32 in the order of
    `geometry.anchors.generate_pyramid_anchors`.
    """

    def __init__(self, scales, ratios, strides, anchor_stride=1, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.scales = tuple(float(scale) for scale in scales)
        self.ratios = tuple(float(ratio) for ratio in ratios)
        self.strides = tuple(int(stride) for stride in strides)
        self.anchor_stride = int(anchor_stride)

    def call(self, images):
        batch, height, width = ops.shape(images)[:3]
        levels = [
            self._level(height, width, scale, stride)
            for scale, stride in zip(self.scales, self.strides, strict=True)
        ]
        anchors = box_ops.norm_boxes(ops.concatenate(levels, axis=0), (height, width))
        return ops.broadcast_to(anchors[None], (batch, ops.shape(anchors)[0], 4))

    def _level(self, height, width, scale: float, stride: int):
        """Pixel anchors [cells * ratios, 4] of one level; centres at the cells' top-left corners."""
        rows = -(-height // (stride * self.anchor_stride))
        columns = -(-width // (stride * self.anchor_stride))
        step = float(stride * self.anchor_stride)
        y = ops.cast(ops.arange(rows), "float32") * step
        x = ops.cast(ops.arange(columns), "float32") * step
        corner = ops.stack(ops.meshgrid(y, x, indexing="ij"), axis=-1)  # [rows, columns, 2]
        centers = ops.concatenate([corner, corner], axis=-1)[:, :, None]
        half = np.array(
            [(scale / math.sqrt(ratio) / 2, scale * math.sqrt(ratio) / 2) for ratio in self.ratios],
            "float32",
        )
        boxes = centers + ops.convert_to_tensor(np.concatenate([-half, half], axis=1))
        return ops.reshape(boxes, (-1, 4))

    def compute_output_shape(self, input_shape):
        batch, height, width = input_shape[:3]
        if height is None or width is None:
            return (batch, None, 4)
        cells = (
            -(-height // (s * self.anchor_stride)) * -(-width // (s * self.anchor_stride))
            for s in self.strides
        )
        return (batch, len(self.ratios) * sum(cells), 4)

    def get_config(self):
        return {
            **super().get_config(),
            "scales": self.scales,
            "ratios": self.ratios,
            "strides": self.strides,
            "anchor_stride": self.anchor_stride,
        }
