"""ImageJ RoIs: a zip file for the ROI Manager. `mrcnn.formats.ImageJDataset` reads it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcnn import files
from mrcnn.packages import require
from mrcnn.results import outlines

if TYPE_CHECKING:
    from mrcnn.results.detections import Detections

# Operations of the path of a composite RoI.
MOVE_TO, LINE_TO, CLOSE = 0.0, 1.0, 4.0
# ImageJ has 255 groups, which it shows in colors.
GROUPS = 255


def rois_of(result: "Detections", tolerance: float = 0.0) -> list[Any]:
    """Return a `roifile.ImagejRoi` for each object; crowds and objects without pixels are left out.

    An object in one piece is a polygon; one with holes or several parts is a composite. The name is the class
    and a number, the group is the class id, and the property `class` is the name of the class.

    Args:
        result: The objects of one image.
        tolerance: Largest distance of an outline from the edges of the mask, in pixels; 0 is exact.

    Raises:
        ImportError: If the package roifile is missing.
    """
    require("roifile", "ImageJ RoIs need", extra="results")
    rois = []
    for index, (box, crop) in enumerate(result.crops()):
        class_id = int(result["class_ids"][index])
        if class_id < 0 or not crop.any():
            continue
        parts = outlines.parts_of(outlines.shape_of(box, crop, tolerance))
        roi = _roi([ring for rings in parts for ring in rings])
        roi.name = f"{result.name_of(class_id)} {index + 1}".replace("/", "-")
        roi.group = class_id if class_id <= GROUPS else 0
        properties: dict[str, Any] = {"class": " ".join(result.name_of(class_id).split())}
        if "scores" in result:
            properties["score"] = round(float(result["scores"][index]), 6)
        roi.properties = properties
        rois.append(roi)
    return rois


def write_rois(result: "Detections", path: Path, tolerance: float = 0.0) -> None:
    """Write the RoIs of one image as a zip file; see `rois_of`."""
    import roifile

    found = rois_of(result, tolerance)
    with files.atomic_write(path) as temporary:
        roifile.roiwrite(temporary, found, mode="w")


def _roi(rings: list[np.ndarray]) -> Any:
    from roifile import ROI_OPTIONS, ROI_TYPE, ImagejRoi

    corners = np.concatenate(rings)
    is_whole = bool((corners == np.rint(corners)).all() and corners.max() < 2**15)
    if len(rings) == 1:
        roi = ImagejRoi.frompoints(rings[0].astype(int) if is_whole else rings[0].astype(np.float32))
        roi.roitype = ROI_TYPE.POLYGON
    else:
        roi = ImagejRoi()
        roi.roitype = ROI_TYPE.RECT
        path: list[float] = []
        for ring in rings:
            for operation, (x, y) in zip([MOVE_TO] + [LINE_TO] * (len(ring) - 1), ring, strict=True):
                path += [operation, float(x), float(y)]
            path.append(CLOSE)
        roi.multi_coordinates = np.array(path, dtype=np.float32)
        roi.shape_roi_size = len(path)
        roi.options = ROI_OPTIONS.OVERLAY_LABELS
    (left, top), (right, bottom) = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0))
    roi.left, roi.top, roi.right, roi.bottom = int(left), int(top), int(right), int(bottom)
    return roi
