"""LabelMe JSON, to correct outlines by hand. `mrcnn.formats.LabelMeDataset` reads it."""

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcnn.results import outlines
from mrcnn.typing import Box, Masks

if TYPE_CHECKING:
    from mrcnn.results.detections import Detections

# The version of LabelMe whose files these are.
VERSION = "5.5.0"
# Pixels that an outline may lie from the edges of the mask: fewer points are easier to move.
TOLERANCE = 1.0


def content_of(result: "Detections", image_path: str, tolerance: float = TOLERANCE) -> dict[str, Any]:
    """Return the content of a LabelMe file.

    Objects are polygons; the parts of one object share a `group_id`. Polygons have no holes, so an object
    with holes is a shape of the kind "mask". Crowds are left out.

    Args:
        result: The objects of one image.
        image_path: The image, relative to the folder of the file, with slashes.
        tolerance: Largest distance of an outline from the edges of the mask, in pixels; 0 is exact.
    """
    shapes = []
    for index, (box, crop) in enumerate(result.crops()):
        class_id = int(result["class_ids"][index])
        if class_id < 0:
            continue
        shape: dict[str, Any] = {"label": result.name_of(class_id), "flags": {}, "description": ""}
        if "scores" in result:
            shape["description"] = f"score {float(result['scores'][index]):.3f}"
        parts = list(outlines.parts_of(outlines.shape_of(box, crop, tolerance)))
        if any(len(rings) > 1 for rings in parts):
            shapes.append({**shape, "group_id": None, **_mask(box, crop)})
            continue
        for rings in parts:
            group = index + 1 if len(parts) > 1 else None
            points = rings[0].tolist()
            shapes.append(
                {**shape, "group_id": group, "shape_type": "polygon", "points": points, "mask": None}
            )
    return {
        "version": VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": result.shape[0],
        "imageWidth": result.shape[1],
    }


def _mask(box: Box, crop: Masks) -> dict[str, Any]:
    """Return the fields of a shape that is a mask: its corners, both inside, and a PNG file of its pixels."""
    from PIL import Image

    rows, columns = np.flatnonzero(crop.any(axis=1)), np.flatnonzero(crop.any(axis=0))
    tight = crop[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    y, x = box[0] + int(rows[0]), box[1] + int(columns[0])
    file = io.BytesIO()
    Image.fromarray(tight).save(file, "PNG")
    return {
        "shape_type": "mask",
        "points": [[x, y], [x + tight.shape[1] - 1, y + tight.shape[0] - 1]],
        "mask": base64.b64encode(file.getvalue()).decode("ascii"),
    }
