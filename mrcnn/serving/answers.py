"""Convert detections to answers for clients: COCO JSON, or an image."""

import io
from typing import Any

import numpy as np

from mrcnn.results import Detections
from mrcnn.typing import Image

MASK_FORMS = ("rle", "polygons", "none")
# Of PNG: the fastest; photos become a few percent larger than with Pillow's default.
COMPRESSION = 1


def best(result: Detections, min_score: float) -> Detections:
    """Return the detections with at least a score."""
    return result.select(result["scores"] >= np.float32(min_score))


def as_coco(
    result: Detections, names: dict[int, str], *, file_name: str, masks: str, tolerance: float
) -> dict[str, Any]:
    """Return the detections of one image as the content of a COCO file.

    Args:
        result: The detections.
        names: {class id: name} of all classes.
        file_name: Name of the image.
        masks: One of MASK_FORMS: compressed run lengths, a polygon [x, y, x, y, ...] for each part of the
            mask, or nothing.
        tolerance: Largest distance of a polygon from the edges of the mask, in pixels.
    """
    from mrcnn.results.coco import CocoFile, records_of

    records = records_of(result)
    if masks == "none":
        for record in records:
            del record["segmentation"]
    elif masks == "polygons":
        for record, polygons in zip(records, _polygons(result, tolerance), strict=True):
            record["segmentation"] = polygons
    file = CocoFile(names)
    file.add(result, file_name, records)
    return file.content()


def _polygons(result: Detections, tolerance: float) -> list[list[list[float]]]:
    from mrcnn.geometry.polygons import joined
    from mrcnn.results.outlines import parts_of, shape_of

    shapes = (shape_of(box, crop, tolerance) for box, crop in result.crops())
    return [[joined(rings).ravel().tolist() for rings in parts_of(shape)] for shape in shapes]


def as_overlay(result: Detections, image: Image) -> bytes:
    """Return a PNG file of the image with its objects in color, their names and scores."""
    from mrcnn.drawing.colors import instance_colors
    from mrcnn.results.overlays import draw
    from mrcnn.visualize.captions import draw_captions, instance_captions

    canvas = draw(result, image)
    scale = canvas.shape[0] // image.shape[0]
    names = [result.name_of(index) for index in range(max(result["class_ids"], default=0) + 1)]
    captions = instance_captions(result["class_ids"], names, result["scores"])
    draw_captions(canvas, result["rois"] * scale, captions, instance_colors(None, result.count))
    return as_png(canvas)


def as_visible_png(image: Image) -> bytes:
    """Return a PNG file of an image of any kind, scaled to visible colors."""
    from mrcnn.drawing.masks import to_rgb

    return as_png(to_rgb(image))


def as_png(pixels: np.ndarray) -> bytes:
    """Return a PNG file of an image uint8 [h, w, 3]."""
    from PIL import Image as PillowImage

    file = io.BytesIO()
    PillowImage.fromarray(pixels).save(file, "PNG", compress_level=COMPRESSION)
    return file.getvalue()
