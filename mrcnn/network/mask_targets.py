"""Mask targets: the ground-truth mask of each RoI, in cells of the mask head (Mask R-CNN, section 3).

With the method CROP_AND_RESIZE, a cell is one bilinear sample of the mask. With the other methods, as in
torchvision and Detectron2, it is the mean of ROIAlign's samples in the cell, about one per pixel. (For
features, ROIAlign always takes 2 x 2 samples.)

Axes: B images, G instances, h and w rows and columns of the masks, K RoIs.
"""

from keras import ops

from mrcnn.network import roi_align
from mrcnn.typing import Tensor

# A side of a cell that exceeds a whole number of pixels by less than this, through rounding, takes no further
# sample.
SIDE_MARGIN = 1e-4

# A cell whose mean is 0.5 except for rounding is inside.
TIE = 1e-5

LEAST_STEP = 1e-6  # keeps empty RoIs from a division by 0


def crop_masks(
    masks: Tensor,
    assigned: Tensor,
    boxes: Tensor,
    mask_shape: tuple[int, int],
    method: str = roi_align.CROP_AND_RESIZE,
    soft: bool = False,
) -> Tensor:
    """Crop and resize the assigned mask of each RoI.

    Args:
        masks: bool [B, h, w, G].
        assigned: int [B, K], the index of each RoI's mask.
        boxes: [B, K, 4] normalized to the mask.
        mask_shape: (height, width) of the result.
        method: See `mrcnn.network.roi_align`.
        soft: Whether to return means of cells. If False, they are rounded: CROP_AND_RESIZE rounds 0.5 to 0,
            the other methods round it to 1.

    Returns:
        float32 [B, K, height, width] of 0 and 1, or of numbers between them if `soft`.
    """
    if method != roi_align.CROP_AND_RESIZE:
        means = _averages(masks, assigned, boxes, mask_shape, method)
        return means if soft else ops.cast(means > 0.5 - TIE, "float32")
    height, width = (masks.shape[i] or ops.shape(masks)[i] for i in (1, 2))
    cells = ops.reshape(ops.cast(ops.transpose(masks, (0, 3, 1, 2)), "float32"), (-1, 1))
    start = _index(masks, assigned) * (height * width)
    rows = ops.ones_like(boxes[..., 0]) * ops.cast(height, "float32")
    columns = ops.ones_like(boxes[..., 0]) * ops.cast(width, "float32")
    crops = roi_align.pool_rois(cells, boxes, (rows, columns), start, mask_shape)[..., 0]
    return crops if soft else ops.round(crops)


def _index(masks: Tensor, assigned: Tensor) -> Tensor:
    """Return the index int32 [B, K] of each RoI's mask among the masks of all images."""
    instances = masks.shape[3] or ops.shape(masks)[3]
    image = ops.cast(ops.arange(ops.shape(masks)[0]), "int32")[:, None]
    return image * instances + ops.cast(assigned, "int32")


def _averages(
    masks: Tensor, assigned: Tensor, boxes: Tensor, mask_shape: tuple[int, int], method: str
) -> Tensor:
    """Return the mean of each RoI's mask in each cell, float32 [B, K, height, width]."""
    height, width = (masks.shape[i] or ops.shape(masks)[i] for i in (1, 2))
    all_masks = ops.reshape(ops.transpose(masks, (0, 3, 1, 2)), (-1, height, width))
    rows = bin_weights(boxes[..., 0], boxes[..., 2], height, mask_shape[0], method)
    columns = bin_weights(boxes[..., 1], boxes[..., 3], width, mask_shape[1], method)

    # One RoI at a time: the masks of all RoIs together would be a hundred images.
    def crop(roi: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        index, row_weights, column_weights = roi
        mask = ops.cast(ops.take(all_masks, index, axis=0), "float32")
        return ops.matmul(ops.matmul(row_weights, mask), ops.transpose(column_weights))

    index = ops.reshape(_index(masks, assigned), (-1,))
    rows = ops.reshape(rows, (-1, mask_shape[0], height))
    columns = ops.reshape(columns, (-1, mask_shape[1], width))
    crops = ops.map(crop, (index, rows, columns))
    return ops.reshape(crops, (-1, assigned.shape[1] or ops.shape(assigned)[1], *mask_shape))


def bin_weights(low: Tensor, high: Tensor, extent: int | Tensor, bins: int, method: str) -> Tensor:
    """Return the weights of pixels in the mean of all samples of each bin, along one axis.

    A bin has evenly spaced samples, about one per pixel, rounded up. Each sample interpolates between two
    pixels. Up to one pixel outside the map, a sample has the value of the outermost pixel; farther outside,
    it is 0.

    Args:
        low, high: Normalized edges [B, K] of half-open boxes.
        extent: Pixels along the axis.
        bins: Bins along the axis.
        method: AVERAGE or AVERAGE_ALIGNED; see `mrcnn.network.roi_align`.

    Returns:
        float32 [B, K, bins, extent].
    """
    pixels = ops.cast(extent, "float32")
    start, length = roi_align.bin_range(low, high, pixels, method)
    side = (length / bins)[..., None]  # of a bin
    count = ops.maximum(ops.ceil(side - SIDE_MARGIN), 1.0)
    step = ops.maximum(side / count, LEAST_STEP)
    first = start[..., None] + ops.arange(bins, dtype="float32") * side + 0.5 * step  # [B, K, bins]
    first, step, count = first[..., None], step[..., None], count[..., None]

    def samples_below(position: Tensor) -> Tensor:
        return ops.clip(ops.ceil((position - first) / step), 0.0, count)

    def samples_up_to(position: Tensor) -> Tensor:
        return ops.clip(ops.floor((position - first) / step) + 1.0, 0.0, count)

    # The samples up to pixel i weigh 1, those between pixels i and i + 1 by their distance to i + 1: together
    # the weight of pixels 0 to i. Evenly spaced samples have the mean distance of the first and the last.
    pixel = ops.arange(extent - 1, dtype="float32")
    before, until = samples_up_to(pixel), samples_below(pixel + 1.0)
    distance = pixel + 1.0 - first - 0.5 * step * (before + until - 1.0)
    total = before + (until - before) * distance
    edges = (samples_below(-1.0), total, samples_up_to(pixels))
    weights = ops.diff(ops.concatenate(edges, axis=-1), axis=-1)
    return weights / count
