"""GeoJSON of QuPath and GIS programs, one file per image (RFC 7946)."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.errors import DataError, InvalidDataError
from mrcnn.files.calibration import GeoReference, read_calibration
from mrcnn.formats import image_files, problems
from mrcnn.formats.base import OutlineDataset
from mrcnn.formats.files import Record, Source, field, is_text, read_json
from mrcnn.formats.problems import BrokenEntryError, short
from mrcnn.geometry import polygons
from mrcnn.geometry.polygons import Polygon

# The member `crs` of a file without one: coordinates in pixels.
NO_CRS = object()
SUFFIXES = (".geojson", ".json")


class GeoJsonDataset(OutlineDataset):
    """Images with GeoJSON files of the same name: polygons and multipolygons, with holes.

    A file is a FeatureCollection, a list of features or a single feature. Coordinates are (x, y) in pixels,
    counted from the upper left corner, as QuPath writes them. In a file with the member `crs` they are map
    coordinates; its image must be a GeoTIFF file in the same coordinate system. `image_info` has `outlines`.
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
        folder, root = Path(annotations), Path(images)
        files = image_files.annotation_files(folder, SUFFIXES)
        found, others = image_files.by_stem(image_files.images_in(root, ""))
        for other in others:
            self.problems.add(problems.SAME_NAME, str(root / other))
        readable = {name: self._features(files[name]) for name in found if name in files}
        features = {name: content for name, content in readable.items() if content is not None}
        labels = [
            label
            for _, listed in features.values()
            for feature in listed
            if (label := _label(feature, class_property)) is not None
        ]
        names = self._class_names(classes, labels, folder)
        joined = self._join_classes(source, dict(enumerate(names, start=1)), folder)
        class_ids = {name: joined[number] for number, name in enumerate(names, start=1)}
        default = names[0] if classes is not None and len(names) == 1 else None
        before = len(self.image_info)
        for name, image in found.items():
            if name not in files:
                self.problems.add(problems.MISSING_LABELS, str(root / image))
            crs, listed = features.get(name, (NO_CRS, []))
            if not listed and not keep_empty:
                continue
            is_empty = name in features and not listed
            info = self._add_file(source, name, root / image, outlines=[], is_empty=is_empty)
            if info is None:
                continue
            with self.problems.leave_out(files.get(name, root / image)):
                place = None if crs is NO_CRS else _georeference(root / image, crs)
                for index, feature in enumerate(listed):
                    entry = f"features[{index}]"
                    with self.problems.leave_out(files[name], entry):
                        label = _label(feature, class_property) or default
                        self._add_feature(info, feature, label, class_ids, place, files[name], entry)
        self._finish(folder, before)

    def _features(self, path: Path) -> tuple[Any, list[Any]] | None:
        """Return the member `crs` of a file and its features, or None, with a note, if it is broken."""
        try:
            content = read_json(path)
            if isinstance(content, list):
                return NO_CRS, content
            kind = field(content, "type", str, path)
            if kind == "Feature":
                return content.get("crs", NO_CRS), [content]
            if kind != "FeatureCollection":
                raise InvalidDataError(
                    "`type` must be FeatureCollection or Feature. Received: " + short(kind),
                    file=path,
                    field="type",
                )
            return content.get("crs", NO_CRS), field(content, "features", list, path)
        except DataError as error:
            self.problems.add(problems.BROKEN_FIELD, str(error))
            return None

    def _add_feature(
        self,
        info: Record,
        feature: Any,
        label: str | None,
        class_ids: Mapping[str, Any],
        place: GeoReference | None,
        file: Path,
        entry: str,
    ) -> None:
        if label is None or label not in class_ids:
            raise BrokenEntryError(
                f"The class is {short(label)}.", kind=problems.UNKNOWN_CLASS, file=file, entry=entry
            )
        geometry = field(feature, "geometry", dict, file, entry)
        parts = [polygons.joined(rings) for rings in _polygons(geometry, file, entry)]
        if place is not None:
            # Huge numbers overflow; the points are checked later.
            with np.errstate(over="ignore", invalid="ignore"):
                parts = [place.to_pixels(part) for part in parts]
        self._add_outline(info, class_ids[label], parts, file, entry)


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
