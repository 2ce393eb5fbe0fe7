"""GeoJSON of QuPath and GIS programs, one file per image (RFC 7946)."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcnn.errors import DataError, InvalidDataError
from mrcnn.files.calibration import GeoReference, read_calibration
from mrcnn.formats import problems
from mrcnn.formats.files import Record, Source, field, is_text, read_json
from mrcnn.formats.outline_files import OutlineFile, OutlineFilesDataset
from mrcnn.formats.problems import BrokenEntryError, short
from mrcnn.geometry import polygons
from mrcnn.geometry.polygons import Polygon

if TYPE_CHECKING:
    from mrcnn.files.stacks import Stack

# A member `crs` that is null: map coordinates in an unknown system.
NULL_CRS = "null"
SUFFIXES = (".geojson", ".json")


class GeoJsonDataset(OutlineFilesDataset):
    """Images with GeoJSON files of the same name: polygons and multipolygons, with holes.

    A file is a FeatureCollection, a list of features or a single feature. Coordinates are (x, y) in pixels,
    counted from the upper left corner, as QuPath writes them. In a file with the member `crs` they are map
    coordinates; its image must be a GeoTIFF file in the same coordinate system. If a `page` of a stack was
    chosen, objects are left out whose geometry has a `plane`, as QuPath writes it, with another slice `z` or
    time point `t`. Both count from 0, as `page` does. In a file with planes, objects without one are on the
    first slice of the first time point. `image_info` has `outlines`.
    """

    def load(
        self,
        annotations: Source,
        images: Source,
        classes: Sequence[str] | None = None,
        keep_empty: bool = True,
        source: str = "geojson",
        *,
        class_property: str = "classification",
    ) -> None:
        """Add the images of a folder.

        Args:
            annotations: The folder of the files NAME.geojson or NAME.json.
            images: The folder of the images.
            classes: Class names in the order of their ids, by default those in the files, sorted. Pass the
                same list for training and validation data. If it has a single name, objects without a class
                get it.
            keep_empty: Whether to add images without objects.
            source: Name of this source of ids. Classes of folders with the same source are merged by name.
            class_property: The property of a feature that holds its class: a string, or an object with a
                `name`, as in QuPath.

        Raises:
            MissingFileError: If a folder does not exist or has no such file.
            InvalidDataError: If no image can be used. Broken files and features are left out instead, see
                `problems`.
        """
        self._class_property = class_property
        self._load_files(annotations, images, SUFFIXES, classes, keep_empty, source)

    def _read_file(self, path: Path) -> OutlineFile:
        try:
            content = read_json(path)
            crs, listed = (None, content) if isinstance(content, list) else _members(content, path)
        except DataError as error:
            self.problems.add(problems.BROKEN_FIELD, str(error))
            return OutlineFile({}, is_complete=False)
        return OutlineFile({f"features[{index}]": one for index, one in enumerate(listed)}, crs=crs)

    def _label(self, entry: Any) -> str | None:
        return _label(entry, self._class_property)

    def _places(self, entries: Mapping[str, Any], stack: "Stack") -> Mapping[str, Mapping[str, int]]:
        planes = {name: _plane(feature) for name, feature in entries.items()}
        if not any(planes.values()):  # QuPath leaves out the plane of the first slice
            return {}
        return {name: stack.place_of(plane.get("z", 0), plane.get("t", 0)) for name, plane in planes.items()}

    def _georeference(self, content: OutlineFile, image: Path) -> GeoReference | None:
        return None if content.crs is None else _georeference(image, content.crs)

    def _parts(self, entry: Any, file: Path, name: str) -> list[Polygon]:
        geometry = field(entry, "geometry", dict, file, name)
        return [polygons.joined(rings) for rings in _polygons(geometry, file, name)]


def _members(content: Any, path: Path) -> tuple[Any, list[Any]]:
    """Return the `crs` member of a GeoJSON file, which may be null, and the features."""
    kind = field(content, "type", str, path)
    crs = None
    if "crs" in content:
        crs = NULL_CRS if content["crs"] is None else content["crs"]
    if kind == "Feature":
        return crs, [content]
    if kind != "FeatureCollection":
        raise InvalidDataError(
            "`type` must be FeatureCollection or Feature. Received: " + short(kind),
            file=path,
            field="type",
        )
    return crs, field(content, "features", list, path)


def _label(feature: Any, name: str) -> str | None:
    """Return the class of a feature, or None."""
    properties = feature.get("properties") if isinstance(feature, dict) else None
    value = properties.get(name) if isinstance(properties, dict) else None
    if isinstance(value, dict):  # QuPath lists the names of classes that are made of several
        names = value.get("names")
        if isinstance(names, list) and all(isinstance(one, str) for one in names):
            value = ": ".join(names)
        else:
            value = value.get("name")
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        return None
    text = str(value).strip()
    return text if text and is_text(text) else None


def _plane(feature: Any) -> dict[str, int]:
    """Return the slice `z` and the time point `t` of a feature, as far as it states them."""
    geometry = feature.get("geometry") if isinstance(feature, dict) else None
    plane = geometry.get("plane") if isinstance(geometry, dict) else None
    numbers = plane if isinstance(plane, dict) else {}
    return {name: int(numbers[name]) for name in ("z", "t") if _is_index(numbers.get(name))}


def _is_index(value: Any) -> bool:
    """Return whether a JSON value is a whole number. Some programs write 1.0 for 1."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and float(value).is_integer()


def _polygons(geometry: Record, file: Path, entry: str) -> list[list[Polygon]]:
    """Return the rings of each polygon of a geometry, or none for other kinds."""
    kind = field(geometry, "type", str, file, entry)
    if kind not in ("Polygon", "MultiPolygon"):
        raise BrokenEntryError(
            f"The geometry is {short(kind)}, not a Polygon or MultiPolygon.",
            kind=problems.NO_OUTLINE,
            file=file,
            entry=entry,
        )
    listed = field(geometry, "coordinates", list, file, entry)
    found = []
    for polygon in [listed] if kind == "Polygon" else listed:
        if not isinstance(polygon, list) or not polygon:
            raise BrokenEntryError(
                f"A polygon must be a list of rings. Received: {short(polygon)}",
                file=file,
                entry=entry,
                field="coordinates",
            )
        found.append([_ring(ring, file, entry) for ring in polygon])
    return found


def _ring(listed: Any, file: Path, entry: str) -> Polygon:
    """Return a ring [P, (x, y)], open."""
    try:
        points = np.array(listed, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        points = np.zeros(0)
    if points.ndim != 2 or points.shape[1] not in (2, 3) or len(points) < 3:
        raise BrokenEntryError(
            f"A ring must be a list of at least 3 points, each of 2 or 3 numbers. Received: {short(listed)}",
            file=file,
            entry=entry,
            field="coordinates",
        )
    is_closed = bool((points[0] == points[-1]).all())
    return points[: -1 if is_closed else None, :2]


def _georeference(image: Path, crs: Any) -> GeoReference:
    """Return the place of an image on a map.

    Args:
        image: The image file.
        crs: The member `crs` of the annotations.
    """
    place = read_calibration(image).georeference
    if place is None:
        raise BrokenEntryError(
            f"The file has map coordinates, so its image must be a GeoTIFF file, but {image.name} has no "
            "such tags. Remove the member `crs` if the coordinates are in pixels."
        )
    stated = re.search(r"EPSG\D*(\d+)", str(crs))
    if stated and place.crs and f"EPSG:{stated[1]}" != place.crs:
        raise BrokenEntryError(
            f"The coordinates must be in the system of the image, {place.crs}. Received: "
            f"EPSG:{stated[1]}. Reproject one of the files in a GIS program."
        )
    return place
