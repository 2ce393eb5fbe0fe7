"""The image with its objects in color, to look at."""

from typing import TYPE_CHECKING

import numpy as np

from mrcnn.drawing.colors import instance_colors
from mrcnn.drawing.masks import draw_crops, to_rgb
from mrcnn.typing import Image

if TYPE_CHECKING:
    from mrcnn.results.detections import Detections

# Small images are enlarged to about this number of pixels, so that outlines are thin.
SIDE = 1024


def draw(result: "Detections", image: Image, alpha: float = 0.3) -> np.ndarray:
    """Return the image with its objects in color, without boxes and names.

    `mrcnn.visualize.overlay_instances` also draws these.

    Args:
        result: The objects of the image.
        image: The image, of any kind. One of up to SIDE pixels is enlarged by a whole number.
        alpha: Opacity of the colors.

    Returns:
        uint8 RGB [H, W, 3].

    Raises:
        ValueError: If the image has another size than the masks.
    """
    if image.shape[:2] != result.shape:
        raise ValueError(
            f"`image` must have the (height, width) of the masks, {result.shape}. "
            f"Received: image.shape={image.shape}"
        )
    scale = max(1, SIDE // max(image.shape[:2]))
    canvas = to_rgb(image).repeat(scale, axis=0).repeat(scale, axis=1)
    colors = instance_colors(None, result.count)
    draw_crops(canvas, list(result.crops()), colors, scale=scale, alpha=alpha)
    return canvas
