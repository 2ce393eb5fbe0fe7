"""LabelMe JSON, one file per image (https://github.com/wkentaro/labelme)."""

import base64
import binascii
import contextlib
import dataclasses
import io
import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np

from mrcnn.errors import DataError, InvalidDataError, MissingFileError, UnreadableFileError, reason
from mrcnn.files.images import read_header, read_mask
from mrcnn.files.ordinary import is_ordinary
from mrcnn.formats import problems
from mrcnn.formats.base import Instance, OutlineDataset, cropped
from mrcnn.formats.files import Record, Source, field, read_json, side
from mrcnn.formats.image_files import images_in, locate, moved
from mrcnn.formats.outlines import usable_parts
from mrcnn.formats.problems import BrokenEntryError, short
from mrcnn.geometry import polygons
from mrcnn.geometry.polygons import Polygon
from mrcnn.typing import Masks

# Shapes whose points are their corners. X-AnyLabeling writes the last two.
CORNERS = ("polygon", "linestrip", "oriented_rectangle", "rotation", "quadrilateral")

# A mask, bool [h, w], and (row, column) of its first pixel in the image.
Piece: TypeAlias = tuple[Masks, tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class PlacedMask:
    """A mask with its place in the image. It is an object, or a part of one.

    Attributes:
        x: Its first column in the image.
        y: Its first row.
        png: A PNG file in base64.
    """

    x: int
    y: int
    png: str

    def inside(self, size: tuple[int, int]) -> Piece:
        """Return the part of the mask inside an image of (height, width) `size`."""
        rows = slice(max(0, -self.y), max(0, size[0] - self.y))
        columns = slice(max(0, -self.x), max(0, size[1] - self.x))
        return _decoded(self.png)[rows, columns], (max(0, self.y), max(0, self.x))


@dataclasses.dataclass(frozen=True)
class MaskedObject:
    """One object with masks, and maybe with polygons. It is their union.

    Attributes:
        class_id: The id of its class in the source of the dataset.
        masks: Its masks.
        parts: Its polygons.
    """

    class_id: int
    masks: tuple[PlacedMask, ...]
    parts: tuple[Polygon, ...] = ()


class LabelMeDataset(OutlineDataset):
    """Images and shapes of a folder of LabelMe files: polygons, rectangles, circles, line strips and masks.

    Rectangles may be turned, as in LabelMe and X-AnyLabeling. Shapes with the same label and group id are
    parts of one object. If an image file is missing, the image is read from the annotation file, if it is
    stored there.

    `image_info` has `outlines`; `masks`, a list of `MaskedObject`; and `is_embedded`, whether the image is in
    the annotation file.
    """

    def load(
        self,
        folder: Source,
        classes: Sequence[str] | None = None,
        keep_empty: bool = False,
        source: str = "labelme",
        *,
        within: Source | None = None,
        images: Source | None = None,
    ) -> None:
        """Add the images of all JSON files in a folder, except hidden ones.

        Args:
            folder: The folder of the JSON files. If it has none, those in its subfolders are read.
            classes: Labels in the order of their class ids, by default those in the files, sorted. Pass the
                same list for training and validation data.
            keep_empty: Whether to add images without shapes.
            source: Name of this source of ids. Classes of folders with the same source are merged by name.
            within: The folder inside which all images must be. By default the parent of `folder`, because
                LabelMe writes "../images/a.png" if annotations have their own folder.
            images: The folder of the images that are not where their annotation files say.

        Raises:
            MissingFileError: If there is no JSON file.
            InvalidDataError: If no image can be used. Broken files and shapes are left out instead, see
                `problems`.
        """
        folder = Path(folder)
        paths = annotation_paths(folder)
        if not paths:
            raise MissingFileError("The folder has no LabelMe files (*.json).", file=folder)
        contents = {path: content for path in paths if (content := self._content(path)) is not None}
        before = len(self.image_info)
        if not contents:
            self._finish(folder, before)  # raises
        labels = [label for content in contents.values() for label in _labels(content["shapes"])]
        names = self._class_names(classes, labels, folder)
        joined = self._join_classes(source, dict(enumerate(names, start=1)), folder)
        class_ids = {name: joined[number] for number, name in enumerate(names, start=1)}
        root = folder.parent if within is None else Path(within)
        beside = _moved_beside(contents)
        for path, content in contents.items():
            content["beside"] = beside[path.parent]
            image_path = content["imagePath"].replace("\\", "/")
            content["below"] = (path.relative_to(folder).parent / image_path).as_posix()
        names = [content["below"] for content in contents.values()]
        elsewhere = {} if images is None else moved(Path(images), names)
        files = dict.fromkeys(path.with_suffix("") for path in paths)
        for path, content in contents.items():
            with self.problems.leave_out(path):
                image = self._image_of(path, content, root, images, elsewhere)
                self._note_repeated(image, files, path)
                if content["shapes"] or keep_empty:
                    image_id = path.relative_to(folder).with_suffix("").as_posix()
                    info = self._add(image_id, path, content, source, image)
                    if info is not None:
                        self._add_shapes(info, content["shapes"], class_ids, path)
        self._note_others(files)
        self._finish(folder, before)

    def load_instances(self, image_id: int) -> Iterator[Instance]:
        """Yield the objects that have pixels in the image, each mask cropped to its box."""
        yield from super().load_instances(image_id)
        info, size = self.image_info[image_id], self.image_size(image_id)
        for drawn in info["masks"]:
            pieces = [piece for mask in drawn.masks if (piece := mask.inside(size))[0].any()]
            outline = polygons.rasterize(drawn.parts, size) if drawn.parts else None
            if outline is not None:
                pieces.append(outline)
            if pieces:
                mask, origin = _united(pieces)
                own = self.map_source_class_id(f"{info['source']}.{drawn.class_id}")
                yield from cropped(mask, own, origin)

    def _open(self, info: Record) -> Source | BinaryIO:
        if not info["is_embedded"]:
            return super()._open(info)
        path: Path = info["path"]
        content = field(read_json(path), "imageData", str, path)
        try:
            return io.BytesIO(base64.b64decode(content, validate=False))
        except (binascii.Error, ValueError) as error:
            raise UnreadableFileError(f"`imageData` is not base64: {reason(error)}", file=path) from error

    def _content(self, path: Path) -> Record | None:
        """Return the content of a file without its image; None, and noted, if it is broken."""
        try:
            content: Record = read_json(path)
            field(content, "imagePath", str, path)
            field(content, "shapes", list, path)
        except DataError as error:
            self.problems.add(problems.BROKEN_FIELD, str(error))
            return None
        # The image itself would fill the memory; it is read again when it is needed.
        content["imageData"] = isinstance(content.get("imageData"), str) and content["imageData"] != ""
        return content

    def _image_of(
        self, path: Path, content: Record, root: Path, images: Source | None, elsewhere: Mapping[str, str]
    ) -> Path | None:
        """Return the path of the image of a file, or None if it is the one in the file."""
        name, below = content["imagePath"], content["below"]
        image = None
        with contextlib.suppress(BrokenEntryError):
            image = locate(path.parent, name, root)
        if image is not None and is_ordinary(image):
            return image
        if content["imageData"]:
            return None
        if images is not None and (below in elsewhere or is_ordinary(Path(images, below))):
            return self._located(Path(images), below, elsewhere, None)
        return self._located(path.parent, name, content["beside"], root)

    def _add(
        self, image_id: str, path: Path, content: Record, source: str, image: Path | None
    ) -> Record | None:
        """Add the image of a file, which is in the file itself if `image` is None. Return its record."""
        size = None  # the header of the image is read then
        if content.get("imageHeight") is not None and content.get("imageWidth") is not None:
            with self.problems.leave_out(path):
                size = side(content, "imageHeight", path), side(content, "imageWidth", path)
        info = self._add_file(
            source,
            image_id,
            path if image is None else image,
            size=size,
            is_embedded=image is None,
            is_empty=not content["shapes"],
            outlines=[],
            masks=[],
        )
        return info if info is not None and (image is not None or self._check_last()) else None

    def _note_repeated(self, image: Path | None, files: dict[Path, None], path: Path) -> None:
        """Note an image that several annotation files name; add it to the files that have annotations."""
        if image is not None and image in files:
            self.problems.add(problems.REPEATED_FILE, f"{path}: {image}")
        files.update({} if image is None else {image: None})

    def _note_others(self, files: Collection[Path]) -> None:
        """Note the images that have no annotation file, in the folders of those that have one.

        Args:
            files: The images that have one, and the annotation files without suffix.
        """
        annotated = {os.path.abspath(file) for file in files}
        for folder in dict.fromkeys(file.parent for file in files):
            for name in images_in(folder, "") if folder.is_dir() else ():
                stem = os.path.abspath(folder / name)
                if stem not in annotated and os.path.splitext(stem)[0] not in annotated:
                    self.problems.add(problems.NOT_ANNOTATED, str(folder / name))

    def _add_shapes(
        self, info: Record, shapes: Sequence[Any], class_ids: Mapping[str, int], path: Path
    ) -> None:
        """Add the shapes of an image. Those of one label and group are one object."""
        groups: dict[tuple[int, str], list[Polygon]] = {}
        entries: dict[tuple[int, str], str] = {}
        masks: dict[tuple[int, str], list[PlacedMask]] = {}
        for index, shape in enumerate(shapes):
            entry = f"shapes[{index}]"
            with self.problems.leave_out(path, entry):
                label = _label(shape, path, entry)
                if label not in class_ids:
                    raise BrokenEntryError(
                        f"The label is {short(label)}.", kind=problems.UNKNOWN_CLASS, file=path, entry=entry
                    )
                points = _points(shape, path, entry)
                group = shape.get("group_id")
                name = f"shape {index}" if group is None else f"group {short(group)}"
                key = (class_ids[label], name)
                if shape.get("shape_type") == "mask":
                    masks.setdefault(key, []).append(self._mask(info, points, shape["mask"], path, entry))
                else:
                    groups.setdefault(key, []).append(points)
                    entries.setdefault(key, entry)
        beside: dict[tuple[int, str], tuple[Polygon, ...]] = {}  # the outlines of objects with masks
        for key, parts in groups.items():
            with self.problems.leave_out(path, entries[key]):
                if key in masks:
                    beside[key] = usable_parts(parts, info["size"], path, entries[key], self.problems)
                else:
                    self._add_outline(info, key[0], parts, path, entries[key])
        for key, own in masks.items():
            info["masks"].append(MaskedObject(key[0], tuple(own), beside.get(key, ())))

    def _mask(self, info: Record, points: Polygon, png: str, path: Path, entry: str) -> PlacedMask:
        """Check a shape that is a mask: a PNG file in base64, and its corners in the image."""
        try:
            size = read_header(_bytes(png)).shown_size
            if size[0] > info["size"][0] or size[1] > info["size"][1]:
                raise BrokenEntryError(
                    "The mask must not be larger than the image. Received: a mask of "
                    f"{size[0]} x {size[1]} pixels in an image of {info['size'][0]} x {info['size'][1]}.",
                    kind=problems.MASK_SIZE,
                )
            has_area = bool(_decoded(png).any())
        except BrokenEntryError:
            raise
        except DataError as error:
            raise BrokenEntryError(str(error), kind=problems.BROKEN_MASK) from error
        if not has_area:
            raise BrokenEntryError("The mask has no pixels.", kind=problems.NO_AREA)
        x, y = (int(value) for value in np.rint(points.min(axis=0)))
        if x >= info["size"][1] or y >= info["size"][0] or x + size[1] <= 0 or y + size[0] <= 0:
            self.problems.add(problems.OUTSIDE, f"{path}: {entry}")
        return PlacedMask(x, y, png)


def annotation_paths(folder: Path) -> list[Path]:
    """Return the JSON files of a folder, or, if it has none, of its subfolders, without hidden ones."""
    paths = sorted(folder.glob("[!.]*.json"))
    if paths:
        return paths
    below = (path.relative_to(folder) for path in folder.rglob("[!.]*.json"))
    return sorted(folder / path for path in below if not any(part.startswith(".") for part in path.parts))


def _moved_beside(contents: Mapping[Path, Record]) -> dict[Path, dict[str, str]]:
    """Return which images are elsewhere below each folder of annotation files; see `moved`."""
    names: defaultdict[Path, list[str]] = defaultdict(list)
    for path, content in contents.items():
        names[path.parent].append(content["imagePath"])
    return {folder: moved(folder, own) for folder, own in names.items()}


def _labels(shapes: Sequence[object]) -> Iterator[str]:
    """Yield the labels of the shapes that have one."""
    for shape in shapes:
        try:
            yield _label(shape, Path(), "")
        except InvalidDataError:
            continue


def _label(shape: object, path: Path, entry: str) -> str:
    label = str(field(shape, "label", (str, int), path, entry)).strip()
    if not label:
        raise BrokenEntryError("`label` must not be empty.", file=path, entry=entry, field="label")
    return label


def _points(shape: Record, path: Path, entry: str) -> Polygon:
    """Return the outline of a shape [P, (x, y)] in pixels.

    For a mask, these are its corners. A shape that encloses no area has no points.
    """
    listed = field(shape, "points", list, path, entry)
    try:
        points = np.array(listed, dtype=np.float64) if listed else np.zeros((0, 2))
    except (TypeError, ValueError, OverflowError):
        points = np.zeros(0)
    if points.ndim != 2 or points.shape[1] != 2:
        raise BrokenEntryError(
            f"`points` must be a list of pairs of numbers. Received: {short(listed)}",
            file=path,
            entry=entry,
            field="points",
        )
    kind = shape.get("shape_type") or "polygon"
    if kind in CORNERS or (kind == "rectangle" and len(points) == 4):
        return points
    if kind not in ("rectangle", "circle", "mask"):
        return np.zeros((0, 2))
    if len(points) != 2 or not np.isfinite(points).all():
        raise BrokenEntryError(
            f"`points` of a {kind} must be two points of finite numbers. Received: {short(listed)}",
            file=path,
            entry=entry,
            field="points",
        )
    if kind == "mask":
        field(shape, "mask", str, path, entry)
        return points
    with np.errstate(over="ignore", invalid="ignore"):  # of huge numbers; the points are checked later
        if kind == "circle":
            radius = float(np.linalg.norm(points[1] - points[0]))
            return polygons.ellipse(points[0][0], points[0][1], radius, radius)
        return polygons.rectangle(*points.min(axis=0), *np.ptp(points, axis=0))


def _united(pieces: Sequence[Piece]) -> Piece:
    """Return the union of one or more pieces of an object."""
    if len(pieces) == 1:
        return pieces[0]
    starts = np.array([origin for _, origin in pieces])
    ends = starts + [mask.shape for mask, _ in pieces]
    top, left = (int(start) for start in starts.min(axis=0))
    height, width = ends.max(axis=0) - (top, left)
    united = np.zeros((height, width), bool)
    for mask, (y, x) in pieces:
        united[y - top : y - top + mask.shape[0], x - left : x - left + mask.shape[1]] |= mask
    return united, (top, left)


def _bytes(png: str) -> bytes:
    """Return the content of a PNG file in base64."""
    try:
        return base64.b64decode(png, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidDataError(f"`mask` is not base64: {reason(error)}", field="mask") from error


def _decoded(png: str) -> Masks:
    """Return the mask of a PNG file in base64, bool [h, w]."""
    return read_mask(_bytes(png), warn=False)
