"""JSON of the VGG Image Annotator (VIA): exported annotations or saved projects of VIA 1.x and 2.x."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.errors import InvalidDataError
from mrcnn.formats import problems
from mrcnn.formats.base import OutlineDataset
from mrcnn.formats.files import Record, Source, field, is_text, number, read_json
from mrcnn.formats.image_files import moved
from mrcnn.formats.problems import BrokenEntryError, short
from mrcnn.geometry import polygons
from mrcnn.geometry.polygons import Polygon

# VIA counts pixels from 0 and means their centers, which lie half a pixel after their edges.
CENTER = 0.5
# The fields of shapes that are not polygons.
FIELDS = {
    "rect": ("x", "y", "width", "height"),
    "circle": ("cx", "cy", "r"),
    "ellipse": ("cx", "cy", "rx", "ry"),
}


class ViaDataset(OutlineDataset):
    """Images and regions of VIA files: polygons, polylines (closed), rectangles, circles and ellipses.

    `image_info` has `outlines`, `width` and `height`.
    """

    def load(
        self,
        annotations: Source,
        images: Source | None = None,
        classes: Sequence[str] | None = None,
        class_attribute: str | None = None,
        keep_empty: bool = False,
        source: str = "via",
        *,
        within: Source | None = None,
        content: Any = None,
    ) -> None:
        """Add the images of an annotation file.

        Args:
            annotations: The annotation file.
            images: The folder of the images, by default that of the annotation file.
            classes: Names of the classes in the order of their ids, by default those in the file, sorted.
                Pass the same list for training and validation data.
            class_attribute: The region attribute that holds the class of an object. Optional if regions have
                at most one attribute, or if `classes` is a single name, which then applies to all regions. Of
                several `classes`, regions without an attribute are left out.
            keep_empty: Whether to add images without regions.
            source: Name of this source of ids. Classes of files with the same source are merged by name.
            within: The folder inside which all images must be, by default `images`.
            content: The parsed JSON of the annotation file, if it is known. The file is not read again then.

        Raises:
            MissingFileError: If the annotation file does not exist.
            UnreadableFileError: If it cannot be read.
            InvalidDataError: If the whole file is broken, or no image is usable. The message names file and
                field. Single broken entries are left out instead; see `problems`.
        """
        path = Path(annotations)
        folder = path.parent if images is None else Path(images)
        content = read_json(path) if content is None else content
        regions = self._regions(_entries(content, path), path)
        one_class = class_attribute is None and classes is not None and len(classes) == 1
        attribute = None if one_class else class_attribute or _only_attribute(regions.values(), path)
        labels = {key: [_label(region, attribute) for region in own] for key, (_, own) in regions.items()}
        if attribute is None:
            names = self._class_names(["object"] if classes is None else classes, (), path)
            if len(names) == 1:
                labels = {key: [names[0]] * len(own) for key, own in labels.items()}
        else:
            found = [name for own in labels.values() for name in own if name]
            names = self._class_names(classes, found, path)
        joined = self._join_classes(source, dict(enumerate(names, start=1)), path)
        class_ids = {name: joined[number] for number, name in enumerate(names, start=1)}
        before = len(self.image_info)
        elsewhere = moved(folder, [name for name, _ in regions.values()])
        for key, (name, own) in regions.items():
            if not own and not keep_empty:
                continue
            with self.problems.leave_out(path, short(key)):
                image = self._located(folder, name, elsewhere, within)
                info = self._add_file(source, name, image, outlines=[], is_empty=not own)
                if info is not None:
                    info["height"], info["width"] = info["size"]
                    self._add_regions(info, own, labels[key], class_ids)
        self._finish(path, before)

    def _regions(self, entries: Mapping[str, Any], path: Path) -> dict[str, tuple[str, list[Any]]]:
        """Return the file name and the regions of each image; VIA 1.x has a dict of them, VIA 2.x a list."""
        found = {}
        first_key: dict[str, str] = {}
        for key, entry in entries.items():
            with self.problems.leave_out(path, short(key)):
                name = field(entry, "filename", str, path, short(key))
                regions = field(entry, "regions", (dict, list), path, short(key))
                found[key] = (name, list(regions.values()) if isinstance(regions, dict) else regions)
                if first_key.setdefault(name, key) != key:
                    note = f"{path}: {short(key)} and {short(first_key[name])}: {short(name)}"
                    self.problems.add(problems.REPEATED_FILE, note)
        return found

    def _add_regions(
        self, info: Record, regions: Sequence[Any], labels: Sequence[str | None], class_ids: Mapping[str, Any]
    ) -> None:
        for index, (region, label) in enumerate(zip(regions, labels, strict=True)):
            entry = f"region {index}"
            with self.problems.leave_out(info["path"], entry):
                points = _points(region, info["path"], entry)
                if label is None or label not in class_ids:
                    raise BrokenEntryError(
                        "The region has no class." if label is None else f"The class is {short(label)}.",
                        kind=problems.UNKNOWN_CLASS,
                        file=info["path"],
                        entry=entry,
                    )
                self._add_outline(info, class_ids[label], (points,), info["path"], entry)


def _entries(content: Any, path: Path) -> dict[str, Any]:
    """Return the entries of an export or a project by their keys."""
    if isinstance(content, dict) and "metadata" in content and "file" in content:
        raise InvalidDataError(
            "This file is a VIA 3 project, which has a different format. Export it as COCO and use "
            "CocoDataset.",
            file=path,
        )
    if isinstance(content, dict) and "_via_img_metadata" in content:
        content = field(content, "_via_img_metadata", dict, path)
    if not isinstance(content, dict) or not content:
        raise InvalidDataError(
            f"The JSON of VIA must be an object with an entry for each image. Received: {short(content)}",
            file=path,
        )
    return content


def _only_attribute(images: Iterable[tuple[str, list[Any]]], path: Path) -> str | None:
    """Return the one attribute that regions have, if any."""
    attributes = {
        name for _, regions in images for region in regions for name in _attributes(region) if is_text(name)
    }
    if len(attributes) > 1:
        raise InvalidDataError(
            "`class_attribute` (--class-attribute on the command line) must name the region attribute that "
            f"holds the class. The file has {short(sorted(attributes))}",
            file=path,
            field="class_attribute",
        )
    return attributes.pop() if attributes else None


def _attributes(region: Any) -> dict[str, Any]:
    attributes = region.get("region_attributes") if isinstance(region, dict) else None
    return attributes if isinstance(attributes, dict) else {}


def _label(region: Any, attribute: str | None) -> str | None:
    """Return the class that an attribute names: a text, a number, or the one ticked option; or None."""
    value = _attributes(region).get(attribute or "")
    if isinstance(value, dict):
        ticked = [option for option, is_ticked in value.items() if is_ticked]
        value = ticked[0] if len(ticked) == 1 else None
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        return None
    text = str(value).strip()
    return text if text and is_text(text) else None


def _points(region: Any, file: Path, entry: str) -> Polygon:
    """Return the outline of a region [P, (x, y)] in pixels, without points if it encloses no area."""
    shape = field(region, "shape_attributes", dict, file, entry)
    name = field(shape, "name", str, file, entry)
    if name in ("polygon", "polyline"):
        x, y = (_coordinates(shape, axis, file, entry) for axis in ("all_points_x", "all_points_y"))
        if len(x) != len(y):
            raise BrokenEntryError(
                f"`all_points_x` and `all_points_y` must have the same length. Received: {len(x)} and "
                f"{len(y)}",
                file=file,
                entry=entry,
                field="all_points_y",
            )
        return np.stack([x, y], axis=1) + CENTER
    if name not in FIELDS:
        return np.zeros((0, 2))
    values = [number(shape, key, file, entry) for key in FIELDS[name]]
    with np.errstate(over="ignore", invalid="ignore"):  # of huge numbers; the points are checked later
        if name == "rect":
            return polygons.rectangle(*values)
        if name == "circle":
            return polygons.ellipse(values[0], values[1], values[2], values[2])
        angle = number(shape, "theta", file, entry) if "theta" in shape else 0.0
        return polygons.ellipse(values[0], values[1], values[2], values[3], angle)


def _coordinates(shape: Record, name: str, file: Path, entry: str) -> np.ndarray:
    values = field(shape, name, list, file, entry)
    try:
        array = np.array(values)
    except (ValueError, OverflowError):
        array = np.array(None)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iuf"):
        raise BrokenEntryError(
            f"`{name}` must be a list of numbers. Received: {short(values)}",
            file=file,
            entry=entry,
            field=name,
        )
    coordinates: np.ndarray = array.astype(np.float64)
    return coordinates
