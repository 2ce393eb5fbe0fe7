"""VGG Image Annotator json, exported annotations or saved projects of VIA 1.x and 2.x."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.formats import outlines, problems
from mrcnn.formats.base import Outline, OutlineDataset, chosen_classes
from mrcnn.formats.files import BrokenEntryError, field, read_json

Record = dict[str, Any]
NUMBER = (int, float)
# VIA's coordinates count pixels from 0; the original took whole numbers as the pixels' centres.
CENTRE = 0.5


class ViaDataset(OutlineDataset):
    """Images and regions of VIA files: polygons, polylines (closed), rectangles, circles, ellipses.

    image_info has `outlines`, `width` and `height`.
    """

    def load(
        self,
        annotations: str | os.PathLike,
        images: str | os.PathLike | None = None,
        classes: Sequence[str] | None = None,
        class_attribute: str | None = None,
        keep_empty: bool = False,
        source: str = "via",
    ) -> None:
        """Add the images of an annotation file.

        images: their folder, by default that of the file. class_attribute: the region attribute that names
        an object's class; it may be left out if regions have one attribute at most, or if `classes` has one
        name, which all regions get then. classes: names in the order of ids; by default those that occur,
        sorted (give training and validation data the same list). keep_empty: take images without a region,
        too. source: name of this source of ids.

        Raises FileNotFoundError; ValueError naming file and field if the file is broken as a whole or gives
        no image. Single broken entries are left out, see `problems`.
        """
        annotations = Path(annotations)
        folder = annotations.parent if images is None else Path(images)
        entries = _entries(read_json(annotations), annotations)
        regions = {
            key: found
            for key, entry in entries.items()
            if (found := self._regions(entry, f"{annotations}: {key}")) is not None
        }
        one_class = class_attribute is None and classes is not None and len(classes) == 1
        attribute = None if one_class else class_attribute or _only_attribute(regions.values(), annotations)
        labels = {key: [_label(region, attribute) for region in own] for key, own in regions.items()}
        if attribute is None:
            names = chosen_classes(classes, ["object"])
            labels = {key: [names[0]] * len(own) for key, own in labels.items()}
        else:
            names = chosen_classes(classes, [name for own in labels.values() for name in own if name])
        for class_id, name in enumerate(names, start=1):
            self.add_class(source, class_id, name)
        before = len(self.image_info)
        for key, own in regions.items():
            if own or keep_empty:
                labeled = list(zip(own, labels[key], strict=True))
                self._add(entries[key], labeled, names, folder, source)
        self._finish(str(annotations), before)

    def _regions(self, entry: Record, where: str) -> list[Record] | None:
        """The regions of an image, a dict in VIA 1.x and a list in 2.x; None, and named, if it is broken."""
        try:
            field(entry, "filename", str, where)
            regions = field(entry, "regions", (dict, list), where)
        except BrokenEntryError as error:
            self.problems.add(problems.BROKEN_FIELD, str(error))
            return None
        return list(regions.values()) if isinstance(regions, dict) else regions

    def _add(
        self,
        entry: Record,
        labeled: Sequence[tuple[Record, str | None]],
        names: list[str],
        folder: Path,
        source: str,
    ) -> None:
        path = folder / entry["filename"]
        info = self._add_picture(source, entry["filename"], path, outlines=[], is_empty=not labeled)
        if info is None:
            return
        size = info["size"]
        info.update(width=size[1], height=size[0])
        for number, (region, label) in enumerate(labeled):
            where = f"{path}, region {number}"
            if label not in names:
                self.problems.add(problems.UNKNOWN_CLASS, f"{where}: {label!r}")
                continue
            try:
                points = _points(region, where)
            except BrokenEntryError as error:
                self.problems.add(problems.BROKEN_FIELD, str(error))
                continue
            outline = Outline(names.index(label) + 1, (points,))
            if self._checked(outline, size, where):
                info["outlines"].append(outline)


def _entries(content: Any, path: Path) -> dict[str, Record]:
    """The images of an export or a project, by their keys."""
    if isinstance(content, dict) and "metadata" in content and "file" in content:
        raise BrokenEntryError(
            f"{path} is of VIA 3, whose projects differ: export it as COCO, see CocoDataset."
        )
    if isinstance(content, dict) and "_via_img_metadata" in content:
        content = field(content, "_via_img_metadata", dict, path)
    if not isinstance(content, dict) or not content:
        raise BrokenEntryError(
            f"{path}: VIA's json is an object with an entry for each image. Received: {content!r:.60}"
        )
    return content


def _only_attribute(regions_of_images: Any, path: Path) -> str | None:
    """The one attribute that regions have, if any; ValueError if there are several to choose from."""
    attributes = {
        name
        for regions in regions_of_images
        for region in regions
        for name in (region.get("region_attributes") or {} if isinstance(region, dict) else {})
    }
    if len(attributes) > 1:
        raise ValueError(
            f"{path}: say which region attribute names the class, class_attribute=... "
            f"There are: {sorted(attributes)}"
        )
    return attributes.pop() if attributes else None


def _label(region: Any, attribute: str | None) -> str | None:
    """The class that a region's attribute names: a text, or the one ticked option; None if there is none."""
    attributes = region.get("region_attributes") if isinstance(region, dict) else None
    value = attributes.get(attribute) if isinstance(attributes, dict) else None
    if isinstance(value, dict):
        ticked = [option for option, is_ticked in value.items() if is_ticked]
        value = ticked[0] if len(ticked) == 1 else None
    return str(value).strip() if value not in (None, "") else None


def _points(region: Any, where: str) -> np.ndarray:
    """A region's outline [P, (x, y)] in pixels; no points for a shape without an inside.

    Raises BrokenEntryError naming the field that is missing or wrong.
    """
    shape = field(region, "shape_attributes", dict, where)
    name = field(shape, "name", str, where)
    numbers = {
        "rect": ("x", "y", "width", "height"),
        "circle": ("cx", "cy", "r"),
        "ellipse": ("cx", "cy", "rx", "ry"),
    }
    if name in ("polygon", "polyline"):
        x, y = (field(shape, axis, list, where) for axis in ("all_points_x", "all_points_y"))
        try:
            return np.stack([np.array(x, dtype=np.float64), np.array(y, dtype=np.float64)], axis=1) + CENTRE
        except (TypeError, ValueError) as error:
            raise BrokenEntryError(
                f"{where}: all_points_x and all_points_y must be numbers, equally many"
            ) from error
    if name not in numbers:
        return np.zeros((0, 2))
    values = [float(field(shape, one, NUMBER, where)) for one in numbers[name]]
    if name == "rect":
        return outlines.rectangle(*values)
    if name == "circle":
        return outlines.ellipse(values[0], values[1], values[2], values[2])
    return outlines.ellipse(values[0], values[1], values[2], values[3], float(shape.get("theta", 0.0)))
