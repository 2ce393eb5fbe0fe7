"""LabelMe json, one file for each image (https://github.com/wkentaro/labelme)."""

import base64
import binascii
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import PIL.Image

from mrcnn.formats import outlines, problems
from mrcnn.formats.base import Instance, Outline, OutlineDataset, chosen_classes, cropped
from mrcnn.formats.files import BrokenEntryError, field, read_json

Record = dict[str, Any]


class LabelMeDataset(OutlineDataset):
    """Images and shapes of a folder of LabelMe files: polygons, rectangles, circles, line strips, masks.

    Shapes of one label and one group id are parts of one object. An image whose file is missing is taken
    from the annotation file, if that holds it. image_info has `outlines`.
    """

    def load(
        self,
        folder: str | os.PathLike,
        classes: Sequence[str] | None = None,
        keep_empty: bool = False,
        source: str = "labelme",
    ) -> None:
        """Add the images of all json files in a folder.

        classes: labels in the order of ids; by default those that occur, sorted (give training and
        validation data the same list). keep_empty: take images without a shape, too. source: name of this
        source of ids.

        Raises FileNotFoundError if there is no json file, ValueError if no image can be used. Single broken
        files and shapes are left out, see `problems`.
        """
        paths = sorted(Path(folder).glob("*.json"))
        if not paths:
            raise FileNotFoundError(f"There is no LabelMe file {Path(folder) / '*.json'}")
        contents = {path: content for path in paths if (content := self._content(path)) is not None}
        labels = [str(shape.get("label")) for content in contents.values() for shape in content["shapes"]]
        names = chosen_classes(classes, labels)
        for class_id, name in enumerate(names, start=1):
            self.add_class(source, class_id, name)
        before = len(self.image_info)
        for path, content in contents.items():
            if content["shapes"] or keep_empty:
                self._add(path, content, names, source)
        self._finish(str(folder), before)

    def load_instances(self, image_id: int) -> Iterator[Instance]:
        """The objects that have a pixel inside the image, one by one, each cropped to its box."""
        yield from super().load_instances(image_id)
        info, size = self.image_info[image_id], self.image_size(image_id)
        for class_id, x, y, png in info["masks"]:
            mask = _decoded_mask(png)[max(0, -y) : max(0, size[0] - y), max(0, -x) : max(0, size[1] - x)]
            if mask.any():
                own = self.map_source_class_id(f"{info['source']}.{class_id}")
                yield from cropped(mask, own, (max(0, y), max(0, x)))

    def _open(self, info: Record) -> str | os.PathLike | BinaryIO:
        if not info["is_embedded"]:
            return super()._open(info)
        return io.BytesIO(base64.b64decode(read_json(info["path"])["imageData"]))

    def _content(self, path: Path) -> Record | None:
        """The content of one file without its picture; None, and named, if it is broken."""
        try:
            content = read_json(path)
            field(content, "imagePath", str, path)
            field(content, "shapes", list, path)
        except BrokenEntryError as error:
            self.problems.add(problems.BROKEN_FIELD, str(error))
            return None
        content["imageData"] = bool(content.get("imageData"))
        return content

    def _add(self, path: Path, content: Record, names: list[str], source: str) -> None:
        image = path.parent / content["imagePath"].replace("\\", "/")
        is_embedded = content["imageData"] and not image.is_file()
        height, width = content.get("imageHeight"), content.get("imageWidth")
        size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        facts: Record = {"is_embedded": is_embedded, "outlines": [], "masks": []}
        facts["is_empty"] = not content["shapes"]
        info = self._add_picture(source, path.stem, path if is_embedded else image, size=size, **facts)
        if info is None:
            return
        groups: dict[Any, list[np.ndarray]] = {}
        for number, shape in enumerate(content["shapes"]):
            where = f"{path}: shapes[{number}]"
            try:
                label = str(field(shape, "label", (str, int), where))
                if label not in names:
                    self.problems.add(problems.UNKNOWN_CLASS, f"{where}: {label!r}")
                    continue
                points = _points(shape, where)
            except BrokenEntryError as error:
                self.problems.add(problems.BROKEN_FIELD, str(error))
                continue
            class_id = names.index(label) + 1
            if shape.get("shape_type") == "mask":
                self._add_mask(info, class_id, points, shape["mask"], where)
            elif self._checked(Outline(class_id, (points,)), info["size"], where):
                group = shape.get("group_id")
                key = (class_id, number if group is None else f"group {group}")
                groups.setdefault(key, []).append(points)
        info["outlines"] += [Outline(key[0], tuple(parts)) for key, parts in groups.items()]

    def _add_mask(self, info: Record, class_id: int, points: np.ndarray, png: str, where: str) -> None:
        try:
            has_area = _decoded_mask(png).any()
        except (OSError, ValueError) as error:
            self.problems.add(problems.BROKEN_MASK, f"{where}: {error}")
            return
        if has_area:
            x, y = (int(value) for value in np.rint(points.min(axis=0)))
            info["masks"].append((class_id, x, y, png))
        else:
            self.problems.add(problems.NO_AREA, where)


def _points(shape: Record, where: str) -> np.ndarray:
    """A shape's outline [P, (x, y)] in pixels; the corners for a mask, no points for a shape without inside.

    Raises BrokenEntryError naming the field that is missing or wrong.
    """
    try:
        points = np.array(field(shape, "points", list, where), dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        if isinstance(error, BrokenEntryError):
            raise
        raise BrokenEntryError(f"{where}: field 'points' must be pairs of numbers") from error
    kind = shape.get("shape_type") or "polygon"
    if kind in ("polygon", "linestrip"):
        return points
    if kind not in ("rectangle", "circle", "mask"):
        return np.zeros((0, 2))
    if len(points) != 2:
        raise BrokenEntryError(
            f"{where}: field 'points' of a {kind} must be two points. Received: {len(points)}"
        )
    if kind == "mask":
        field(shape, "mask", str, where)
        return points
    if kind == "circle":
        radius = float(np.linalg.norm(points[1] - points[0]))
        return outlines.ellipse(points[0][0], points[0][1], radius, radius)
    return outlines.rectangle(*points.min(axis=0), *np.ptp(points, axis=0))


def _decoded_mask(png: str) -> np.ndarray:
    """A mask [h, w] from a PNG file in base64."""
    try:
        with PIL.Image.open(io.BytesIO(base64.b64decode(png, validate=True))) as picture:
            return np.asarray(picture.convert("L")) > 0
    except binascii.Error as error:
        raise ValueError(f"mask is no base64: {error}") from error
