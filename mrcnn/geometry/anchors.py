"""Anchors of the region proposal network (Faster R-CNN, section 3.1.1; FPN, section 4.1).

Axes: A anchors of all levels of the feature pyramid, N anchors of one level. Anchors are float64
[N, (y1, x1, y2, x2)] in pixels of the molded image and are not clipped to it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mrcnn.geometry.boxes import norm_boxes
from mrcnn.typing import Boxes

if TYPE_CHECKING:
    from mrcnn.config import Config

# The label of an anchor: whether it counts in the RPN's losses as an object, not at all, or as background.
POSITIVE, NEUTRAL, NEGATIVE = 1, 0, -1
# Image sizes whose anchors an AnchorCache keeps; those of 1024 x 1024 pixels take 8 MB.
KEPT_SIZES = 16


def feature_shapes(image_shape: Sequence[int], strides: Sequence[int]) -> np.ndarray:
    """Return the size of the feature map of each pyramid level.

    Args:
        image_shape: (height, width, ...) of the molded image in pixels.
        strides: Pixels per location, one entry per level.

    Returns:
        int array [levels, (rows, columns)]: each side divided by the stride and rounded up.
    """
    sides = np.asarray(image_shape[:2])
    shapes: np.ndarray = -(-sides // np.asarray(strides)[:, None])
    return shapes


def generate_anchors(
    scales: float | Sequence[float],
    ratios: Sequence[float],
    shape: Sequence[int],
    feature_stride: int | Sequence[int],
    anchor_stride: int,
    rounded: bool = False,
) -> np.ndarray:
    """Return the anchors of one pyramid level.

    Args:
        scales: Side in pixels of a square anchor, one or several.
        ratios: Width divided by height: 0.5 is a tall anchor. All ratios have the same area.
        shape: (rows, columns) of the feature map.
        feature_stride: Pixels per location, or a pair for rows and columns.
        anchor_stride: Distance between anchors in locations: 1 puts anchors at every location, 2 at every
            other.
        rounded: Whether to round the distances from the center to the sides to whole pixels, half to even.

    Returns:
        float64 [N, (y1, x1, y2, x2)] in pixels, not clipped to the image. The centers lie at the upper left
        corners of the locations, as published weights expect. Order, slowest first: row, column, ratio,
        scale.
    """
    side = np.atleast_1d(np.asarray(scales, dtype=np.float64))
    root = np.sqrt(np.asarray(ratios, dtype=np.float64))[:, None]
    half_height = 0.5 * (side / root).ravel()
    half_width = 0.5 * (side * root).ravel()
    if rounded:
        half_height, half_width = np.round(half_height), np.round(half_width)

    step_y, step_x = np.broadcast_to(feature_stride, 2)
    y = np.arange(0, shape[0], anchor_stride)[:, None, None] * step_y
    x = np.arange(0, shape[1], anchor_stride)[None, :, None] * step_x
    corners = np.broadcast_arrays(y - half_height, x - half_width, y + half_height, x + half_width)
    return np.stack(corners, axis=-1).reshape(-1, 4)


def generate_pyramid_anchors(
    scales: Sequence[float],
    ratios: Sequence[float],
    feature_shapes: Sequence[Sequence[int]] | np.ndarray,
    feature_strides: Sequence[int] | np.ndarray,
    anchor_stride: int,
    rounded: bool = False,
) -> np.ndarray:
    """Return the anchors of all pyramid levels, in the order in which the network flattens its outputs.

    Args:
        scales: Side in pixels of a square anchor, one entry per level.
        ratios: Width divided by height; every level has anchors of all ratios.
        feature_shapes: (rows, columns) of the feature map, one entry per level.
        feature_strides: Pixels per location, one number or pair per level.
        anchor_stride: Distance between anchors in locations.
        rounded: See `generate_anchors`.

    Returns:
        float64 [A, (y1, x1, y2, x2)] in pixels, level after level in the order of `generate_anchors`. With
        the default settings, an image of 1024 x 1024 pixels has 261,888 anchors.

    Raises:
        ValueError: If `scales`, `feature_shapes` and `feature_strides` differ in length.
    """
    levels = {len(scales), len(feature_shapes), len(feature_strides)}
    if len(levels) != 1:
        raise ValueError(
            "`scales`, `feature_shapes` and `feature_strides` must have one entry per pyramid level. "
            f"Received: {len(scales)} scales, {len(feature_shapes)} feature shapes, "
            f"{len(feature_strides)} strides."
        )
    return np.concatenate(
        [
            generate_anchors(scale, ratios, shape, stride, anchor_stride, rounded)
            for scale, shape, stride in zip(scales, feature_shapes, feature_strides, strict=True)
        ]
    )


def backbone_shapes(config: "Config", image_shape: Sequence[int]) -> np.ndarray:
    """Return the feature map size of each pyramid level for one image size.

    Args:
        config: Read for BACKBONE_STRIDES, or for COMPUTE_BACKBONE_SHAPE if BACKBONE is a callable.
        image_shape: (height, width, ...) of the molded image in pixels.

    Returns:
        int array [levels, (rows, columns)], P2 first.
    """
    if callable(config.BACKBONE) and config.COMPUTE_BACKBONE_SHAPE is not None:
        return np.asarray(config.COMPUTE_BACKBONE_SHAPE(image_shape))
    return feature_shapes(image_shape, config.BACKBONE_STRIDES)


def pixel_anchors(config: "Config", image_shape: Sequence[int]) -> Boxes:
    """Return all anchors for one image size, in the order of the RPN's outputs.

    Args:
        config: Read for RPN_ANCHOR_SCALES, RPN_ANCHOR_RATIOS, RPN_ANCHOR_STRIDE, CONVENTIONS and
            `backbone_shapes`.
        image_shape: (height, width, ...) of the molded image in pixels.

    Returns:
        float64 array [A, (y1, x1, y2, x2)] in pixels, not clipped to the image.
    """
    conventions = config.conventions()
    shapes = backbone_shapes(config, image_shape)
    strides = np.asarray(config.BACKBONE_STRIDES)
    if conventions.anchors_fill_image:
        strides = np.asarray(image_shape[:2]) // shapes
    return generate_pyramid_anchors(
        config.RPN_ANCHOR_SCALES,
        config.RPN_ANCHOR_RATIOS,
        shapes,
        strides,
        config.RPN_ANCHOR_STRIDE,
        conventions.rounded_anchors,
    )


class AnchorCache:
    """The anchors of one Config, cached for the KEPT_SIZES most recently used image sizes.

    Args:
        config: See `pixel_anchors`.
        anchors: Pixel anchors to use for images of size config.IMAGE_SHAPE, or None to compute them.
    """

    def __init__(self, config: "Config", anchors: Boxes | None = None) -> None:
        self._config = config
        self._given: dict[tuple[int, int], Boxes] = {}
        self._by_size: dict[tuple[int, int], Boxes] = {}  # the size used last comes last
        # The anchors that were normalized last, whether to half-open boxes, and the result.
        self._normalized: tuple[Boxes | None, bool, Boxes] = (None, False, np.zeros((0, 4), np.float32))
        if anchors is not None:
            height, width = config.IMAGE_SHAPE[:2]
            self._given[height, width] = anchors

    def of(self, image_shape: Sequence[int]) -> Boxes:
        """Return the anchors [A, (y1, x1, y2, x2)] in pixels for molded images (height, width, ...)."""
        size = image_shape[0], image_shape[1]
        if size in self._given:
            return self._given[size]
        # Several threads may come here at once: each works with its own local array.
        anchors = self._by_size.pop(size, None)
        if anchors is None:
            anchors = pixel_anchors(self._config, image_shape)
        self._by_size[size] = anchors
        for oldest in list(self._by_size)[:-KEPT_SIZES]:
            self._by_size.pop(oldest, None)
        return anchors

    def last(self) -> Boxes:
        """Return the pixel anchors for the image size used last, or for config.IMAGE_SHAPE before that."""
        height, width = list(self._by_size)[-1] if self._by_size else self._config.IMAGE_SHAPE[:2]
        return self.of((height, width))

    def normalized(self, image_shape: Sequence[int]) -> Boxes:
        """Return `of(image_shape)` as float32 in normalized coordinates, as the network takes them.

        The array is the same for images of the same size, and read-only.
        """
        half_open = self._config.conventions().half_open_boxes
        anchors = self.of(image_shape)
        source, source_half_open, normalized = self._normalized
        if source is not anchors or source_half_open != half_open:
            normalized = norm_boxes(anchors, image_shape[:2], half_open)
            normalized.flags.writeable = False
            self._normalized = anchors, half_open, normalized
        return normalized
