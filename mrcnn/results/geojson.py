"""GeoJSON for QuPath and for GIS programs. `mrcnn.formats.GeoJsonDataset` reads it."""

from typing import TYPE_CHECKING, Any

import numpy as np

from mrcnn.files.calibration import GeoReference
from mrcnn.results import outlines

if TYPE_CHECKING:
    from mrcnn.results.detections import Detections


def content_of(result: "Detections", tolerance: float = 0.0) -> dict[str, Any]:
    """Return a FeatureCollection with one Feature for each object: a Polygon or MultiPolygon, with holes.

    The properties are those that QuPath reads: the objects are annotations, which can be edited there, with a
    classification, and with score and area as measurements.

    Coordinates are (x, y) in pixels, counted from the upper left corner. If the image has a georeference,
    they are map coordinates, and the member `crs` names their system.

    Args:
        result: The objects of one image. Crowds and objects without pixels are left out.
        tolerance: Largest distance of an outline from the edges of the mask, in pixels; 0 is exact.
    """
    features = []
    for index, (box, crop) in enumerate(result.crops()):
        class_id = int(result["class_ids"][index])
        if class_id < 0 or not crop.any():
            continue
        measurements: dict[str, float] = {"area px^2": int(np.count_nonzero(crop))}
        properties: dict[str, Any] = {
            "objectType": "annotation",
            "name": f"{result.name_of(class_id)} {index + 1}",
            "classification": {"name": result.name_of(class_id), "color": _color(class_id)},
            "isLocked": False,
            "measurements": measurements,
        }
        if "scores" in result:
            measurements["score"] = float(result["scores"][index])
            properties["score"] = measurements["score"]
        geometry = _geometry(outlines.shape_of(box, crop, tolerance), result.georeference)
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    content: dict[str, Any] = {"type": "FeatureCollection", "features": features}
    if result.georeference is not None:
        content["crs"] = _crs(result.georeference.crs)
    return content


def _geometry(shape: Any, georeference: GeoReference | None) -> dict[str, Any]:
    import shapely
    from shapely.geometry import mapping

    if georeference is not None:
        shape = shapely.orient_polygons(shapely.transform(shape, georeference.to_map))
    found: dict[str, Any] = mapping(shape)
    return found


def _crs(name: str | None) -> dict[str, Any] | None:
    """Return the member `crs` of GeoJSON 2008, which GIS programs still read; None for an unknown system."""
    if name is None:
        return None
    authority, _, code = name.partition(":")
    urn = f"urn:ogc:def:crs:{authority}::{code}" if code else name
    return {"type": "name", "properties": {"name": urn}}


def _color(class_id: int) -> list[int]:
    from mrcnn.drawing.colors import class_colors, to_255

    return list(to_255(class_colors([class_id])[0]))
