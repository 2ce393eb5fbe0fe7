"""YOLO segmentation text, and the data.yaml beside it. `mrcnn.formats.YoloDataset` reads them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import yaml

from mrcnn.results import outlines

if TYPE_CHECKING:
    from mrcnn.results.detections import Detections


def text_of(result: "Detections", tolerance: float = 0.0) -> str:
    """Return one line for each object: its class, counted from 0, and x and y as shares of width and height.

    The format has neither holes nor parts, so lines of no width connect them. Crowds and objects without a
    pixel are left out.

    Args:
        result: The objects of one image.
        tolerance: Largest distance of an outline from the edges of the mask, in pixels; 0 is exact.
    """
    height, width = result.shape
    lines = []
    for class_id, (box, crop) in zip(result["class_ids"], result.crops(), strict=True):
        if class_id > 0 and crop.any():
            points = outlines.one_polygon(outlines.shape_of(box, crop, tolerance)) / (width, height)
            numbers = " ".join(f"{value:.8g}" for value in points.ravel())
            lines.append(f"{int(class_id) - 1} {numbers}\n")
    return "".join(lines)


def data_yaml(class_names: Mapping[int, str]) -> str:
    """Return the content of data.yaml: the folders of the images, and the names of the classes.

    Args:
        class_names: Class id, from 1, to name. Numbers without a name are called "class 3".
    """
    names = {n - 1: class_names.get(n, f"class {n}") for n in range(1, max(class_names, default=0) + 1)}
    return yaml.safe_dump({"train": "images", "val": "images", "names": names}, allow_unicode=True)
