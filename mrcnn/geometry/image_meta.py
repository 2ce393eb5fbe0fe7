"""The image meta: the vector that describes a molded image, one number or flag per entry.

Its 12 + classes entries are, in this order: image id (1), shape of the original image (3), shape of the
molded image (3), window (4), scale (1), active classes (one flag per class, background included).
"""

from collections.abc import Sequence

import numpy as np

# Position of each field on the last axis, for arrays and tensors.
IMAGE_ID = 0
ORIGINAL_IMAGE_SHAPE = slice(1, 4)
IMAGE_SHAPE = slice(4, 7)
WINDOW = slice(7, 11)
SCALE = 11
ACTIVE_CLASS_IDS = slice(12, None)

FIELDS: dict[str, int | slice] = {
    "image_id": IMAGE_ID,
    "original_image_shape": ORIGINAL_IMAGE_SHAPE,
    "image_shape": IMAGE_SHAPE,
    "window": WINDOW,
    "scale": SCALE,
    "active_class_ids": ACTIVE_CLASS_IDS,
}


def compose_image_meta(
    image_id: int,
    original_image_shape: Sequence[int],
    image_shape: Sequence[int],
    window: Sequence[int],
    scale: float,
    active_class_ids: Sequence[int] | np.ndarray,
) -> np.ndarray:
    """Pack the description of one image into a vector.

    Args:
        image_id: Id of the image in its dataset.
        original_image_shape: (height, width, channels) of the original image.
        image_shape: (height, width, channels) of the molded image.
        window: (y1, x1, y2, x2) in pixels of the molded image: the part that is not padding.
        scale: Side of the resized image divided by the side of the original image.
        active_class_ids: One 0 or 1 per class, background included.

    Returns:
        float64 array [12 + classes]. It is floating-point even if all values are integers, so that stacked
        metas keep fractional scales.
    """
    parts = [[image_id], original_image_shape, image_shape, window, [scale], active_class_ids]
    return np.concatenate([np.asarray(part, dtype=np.float64) for part in parts])


def parse_image_meta(meta: np.ndarray) -> dict[str, np.ndarray]:
    """Unpack the vectors of `compose_image_meta`.

    Args:
        meta: Array [B, 12 + classes].

    Returns:
        Dict of `image_id` [B], `original_image_shape` [B, 3], `image_shape` [B, 3], `window` [B, 4],
        `active_class_ids` [B, classes], all int32, and `scale` [B], float32.
    """
    meta = np.asarray(meta)
    dtypes: dict[str, type] = dict.fromkeys(FIELDS, np.int32) | {"scale": np.float32}
    return {name: meta[:, field].astype(dtypes[name]) for name, field in FIELDS.items()}
