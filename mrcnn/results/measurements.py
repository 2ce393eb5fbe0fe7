"""Measurements of each object, by scikit-image: a table as columns, for CSV files and pandas."""

import csv
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcnn.files.calibration import PixelSize
from mrcnn.typing import Box, Image

if TYPE_CHECKING:
    from mrcnn.results.detections import Detections

PROPERTIES = ("area", "perimeter", "centroid")

Columns = dict[str, list[Any]]


def measure(result: "Detections", image: Image | None = None) -> Columns:
    """Measure each object.

    Objects are measured one by one, so that a pixel of several masks counts for each.

    Args:
        result: The objects of one image.
        image: The image, [height, width] or [height, width, channels], for mean intensities.

    Returns:
        Columns of equal length. Of every object: `object` (its number, from 1), `class_id`, `class`, `score`
        if there are scores, `y1`, `x1`, `y2`, `x2` (its box, y2 and x2 outside), `area_px`, `perimeter_px`,
        `centroid_y_px` and `centroid_x_px` (the center of the first pixel is 0). With an image:
        `mean_intensity`, or `mean_intensity_0`, `mean_intensity_1` and so on for several channels. With
        `result.pixel_size`: `area_um2`, `perimeter_um`, `centroid_y_um` and `centroid_x_um`, named after the
        unit. The perimeter needs square pixels; it is NaN otherwise.

    Raises:
        ValueError: If the image has another size than the masks.
    """
    if image is not None and image.shape[:2] != result.shape:
        raise ValueError(
            f"`image` must have the (height, width) of the masks, {result.shape}. "
            f"Received: image.shape={image.shape}"
        )
    rows = [_row(result, index, piece, image) for index, piece in enumerate(result.crops())]
    names = _names(result, image)
    return {name: [row[name] for row in rows] for name in names}


def to_csv(columns: Mapping[str, list[Any]]) -> str:
    """Return columns as the text of a CSV file. The first line has the names."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return file.getvalue()


def _row(
    result: "Detections", index: int, piece: tuple[Box, np.ndarray], image: Image | None
) -> dict[str, Any]:
    class_id = int(result["class_ids"][index])
    y1, x1, y2, x2 = (int(side) for side in result["rois"][index])
    row = {
        "object": index + 1,
        "class_id": class_id,
        "class": result.name_of(class_id),
        "score": float(result["scores"][index]) if "scores" in result else None,
        "y1": y1,
        "x1": x1,
        "y2": y2,
        "x2": x2,
        **_properties(*piece, image),
    }
    if result.pixel_size is not None:
        row |= _in_units(row, result.pixel_size)
    return row


def _properties(box: Box, crop: np.ndarray, image: Image | None) -> dict[str, Any]:
    """Return the properties of one object in pixels; NaN for one without a pixel."""
    from skimage.measure import regionprops_table

    y1, x1, y2, x2 = box
    inside = None if image is None else image[y1:y2, x1:x2]
    if not crop.any():
        intensities = np.full(np.shape(inside)[2:], np.nan) if inside is not None else None
        return {"area_px": 0, **dict.fromkeys(_lengths("px"), np.nan), **_intensities(intensities)}
    padded = np.pad(crop, 1).astype(np.uint8)  # the perimeter of an object at the edge of its crop is whole
    table = {
        name: float(column[0]) for name, column in regionprops_table(padded, properties=PROPERTIES).items()
    }
    found = {
        "area_px": int(table["area"]),
        "perimeter_px": table["perimeter"],
        "centroid_y_px": table["centroid-0"] - 1 + y1,
        "centroid_x_px": table["centroid-1"] - 1 + x1,
    }
    means = None if inside is None else inside[crop].mean(axis=0, dtype=np.float64)
    return {**found, **_intensities(means)}


def _lengths(unit: str) -> list[str]:
    return [f"perimeter_{unit}", f"centroid_y_{unit}", f"centroid_x_{unit}"]


def _intensities(means: np.ndarray | None) -> dict[str, float]:
    if means is None:
        return {}
    if np.ndim(means) == 0:
        return {"mean_intensity": float(means)}
    return {f"mean_intensity_{channel}": float(mean) for channel, mean in enumerate(means)}


def _in_units(row: Mapping[str, Any], pixel: PixelSize) -> dict[str, float]:
    is_square = np.isclose(pixel.height, pixel.width)
    return {
        f"area_{pixel.unit}2": row["area_px"] * pixel.height * pixel.width,
        f"perimeter_{pixel.unit}": row["perimeter_px"] * pixel.height if is_square else np.nan,
        f"centroid_y_{pixel.unit}": row["centroid_y_px"] * pixel.height,
        f"centroid_x_{pixel.unit}": row["centroid_x_px"] * pixel.width,
    }


def _names(result: "Detections", image: Image | None) -> list[str]:
    """Return the names of the columns, in order."""
    names = ["object", "class_id", "class", *(["score"] if "scores" in result else [])]
    names += ["y1", "x1", "y2", "x2", "area_px", *_lengths("px")]
    if image is not None:
        names += list(_intensities(np.zeros(image.shape[2:])))
    if result.pixel_size is not None:
        unit = result.pixel_size.unit
        names += [f"area_{unit}2", *_lengths(unit)]
    return names
