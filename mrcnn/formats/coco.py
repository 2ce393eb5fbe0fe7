"""COCO JSON: polygons, run lengths and crowds (https://cocodataset.org/#format-data)."""

import contextlib
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from mrcnn.errors import DataError, InvalidDataError
from mrcnn.files.images import read_header
from mrcnn.formats import outlines, problems
from mrcnn.formats.base import FormatDataset, Instance, cropped, size_of_labels
from mrcnn.formats.files import Record, Source, field, identifier, read_json, side
from mrcnn.formats.image_files import moved
from mrcnn.formats.problems import BrokenEntryError, short
from mrcnn.geometry import polygons, rle
from mrcnn.geometry.polygons import Polygon
from mrcnn.typing import Masks

# Ids of COCO files.
Id: TypeAlias = int | str


class CocoDataset(FormatDataset):
    """Images and objects of COCO JSON files.

    Category ids and image ids may have gaps. Classes are numbered 1, 2, 3 in the order of the category ids.
    Segmentations are lists of polygons, single polygons, or run lengths of either kind. Objects without
    pixels are left out. Crowds have a negative class id.

    `image_info` has `width`, `height` and `annotations`, the records of the file for the chosen classes.
    If the file does not state the size of an image, that of the image file is taken. Unusable parts are
    removed from the annotations, and category ids are replaced by the dataset's class ids.
    """

    def load(
        self,
        annotations: Source,
        images: Source | None = None,
        classes: Sequence[Any] | None = None,
        keep_empty: bool = True,
        source: str = "coco",
        *,
        within: Source | None = None,
        crowds_as_objects: bool = False,
        content: Any = None,
    ) -> None:
        """Add the images of an annotation file.

        Args:
            annotations: The annotation file.
            images: The folder of the images, by default that of the annotation file.
            classes: Category names or ids to load; all by default.
            keep_empty: Whether to add images without objects of these classes.
            source: Name of this source of ids, for instance in `image_info`. Classes of files with one source
                join by name.
            within: The folder inside which all images must be, by default `images`.
            crowds_as_objects: Whether annotations with `iscrowd` 1 are single objects. CVAT and Datumaro mark
                every mask so, and only polygons not.
            content: The parsed JSON of the annotation file, if it is known. The file is not read again then.

        Raises:
            MissingFileError: If the annotation file does not exist.
            UnreadableFileError: If it cannot be read.
            InvalidDataError: If the whole file is broken, it has none of the classes, or no image is usable.
                The message names file and field. Single broken entries are left out instead; see `problems`.
        """
        path = Path(annotations)
        folder = path.parent if images is None else Path(images)
        content = read_json(path) if content is None else content
        lists = {name: field(content, name, list, path) for name in ("images", "annotations", "categories")}
        names = self._category_names(lists["categories"], path)
        chosen = _chosen_ids(names, classes, path)
        class_ids = self._join_classes(source, {category: names[category] for category in chosen}, path)
        records = self._image_records(lists["images"], path)
        if crowds_as_objects:
            lists["annotations"] = [_as_object(one) for one in lists["annotations"]]
        elsewhere = moved(folder, [record["file_name"] for record in records.values()])

        def located(record: Record) -> Path:
            return self._located(folder, record["file_name"], elsewhere, within)

        self._complete_sizes(records, lists["annotations"], located, path)
        by_image = self._by_image(lists["annotations"], records, names, class_ids, path)
        # Any annotation counts here, also a broken one or one of another class: only images that somebody
        # has annotated and found without objects are examples of background.
        annotated = {
            _key(record.get("image_id")) for record in lists["annotations"] if isinstance(record, dict)
        }
        before = len(self.image_info)
        for image_id, record in records.items():
            own = by_image.get(image_id, [])
            if own or keep_empty or record["size"] is None:
                with self.problems.leave_out(path, record["entry"]):
                    file, size = located(record), record["size"]
                    is_empty = _key(image_id) not in annotated
                    info = self._add_file(
                        source, image_id, file, size=size, annotations=own, is_empty=is_empty
                    )
                    if info is not None:
                        info["height"], info["width"] = info["size"]
        self._finish(path, before)

    def load_instances(self, image_id: int) -> Iterator[Instance]:
        """Yield the objects that have pixels in the image, each mask cropped to its box."""
        info, size = self.image_info[image_id], self.image_size(image_id)
        for record in info["annotations"]:
            drawn = _drawn(record["segmentation"], size)
            if drawn is not None:
                class_id = self._class_id(info, record)
                yield from cropped(drawn[0], -class_id if record.get("iscrowd") else class_id, drawn[1])

    def coco_annotations(self, image_id: int) -> list[Record]:
        """Return the annotations of an image as COCO records, for `MaskRCNN.evaluate`.

        Returns:
            Dicts of category_id (the dataset's class id), iscrowd, bbox, area and segmentation (compressed
            run lengths). Boxes and areas are those in the file, if it has them and they are positive.
        """
        info, size = self.image_info[image_id], self.image_size(image_id)
        records = []
        for record in info["annotations"]:
            code = to_rle(record["segmentation"], *size)
            counts = rle.counts_of(code, size)
            area = float(counts[1::2].sum())
            if area:
                records.append(
                    {
                        "category_id": self._class_id(info, record),
                        "iscrowd": int(bool(record.get("iscrowd"))),
                        "bbox": _stated_box(record) or _box(counts, size),
                        "area": _stated_area(record) or area,
                        "segmentation": code,
                    }
                )
        return records

    def _class_id(self, info: Record, record: Record) -> int:
        return self.map_source_class_id(f"{info['source']}.{record['category_id']}")

    def _category_names(self, records: Sequence[Any], path: Path) -> dict[Id, str]:
        """Return the category names in the order of their ids, without ids that have several names."""
        names: dict[Id, str] = {}
        ambiguous = set()
        for number, record in enumerate(records):
            entry = f"categories[{number}]"
            with self.problems.leave_out(path, entry):
                category_id = identifier(record, "id", path, entry)
                name = field(record, "name", str, path, entry).strip()
                if not name:
                    raise BrokenEntryError("`name` must not be empty.", file=path, entry=entry, field="name")
                if names.setdefault(category_id, name) != name:
                    ambiguous.add(category_id)
                    raise BrokenEntryError(
                        f"The id {short(category_id)} stands for {short(names[category_id])} and for "
                        f"{short(name)}.",
                        kind=problems.REPEATED_CLASS_ID,
                        file=path,
                        entry=entry,
                        field="id",
                    )
        for category_id in ambiguous:
            del names[category_id]
        return dict(sorted(names.items(), key=lambda item: (isinstance(item[0], str), item[0])))

    def _image_records(self, records: Sequence[Any], path: Path) -> dict[Id, Record]:
        """Return file_name, size (height, width) and entry of each image, without ids of several files.

        The size is None if the file does not state it.
        """
        found: dict[Id, Record] = {}
        ambiguous = set()
        first_entry: dict[str, str] = {}
        for number, record in enumerate(records):
            entry = f"images[{number}]"
            with self.problems.leave_out(path, entry):
                name = field(record, "file_name", str, path, entry)
                size = _stated_size(record, path, entry)
                image_id = identifier(record, "id", path, entry)
                known = found.setdefault(image_id, {"file_name": name, "size": size, "entry": entry})
                if known["entry"] != entry:
                    is_same = (known["file_name"], known["size"]) == (name, size)
                    if not is_same:
                        ambiguous.add(image_id)
                    raise BrokenEntryError(
                        f"The id {short(image_id)} stands here for {short(name)}, and in "
                        f"{known['entry']} for {short(known['file_name'])}.",
                        kind=problems.REPEATED_IMAGE if is_same else problems.REPEATED_ID,
                        file=path,
                        entry=entry,
                        field="id",
                    )
                if first_entry.setdefault(name, entry) != entry:
                    note = f"{path}: {entry} and {first_entry[name]}: {short(name)}"
                    self.problems.add(problems.REPEATED_FILE, note)
        for image_id in ambiguous:
            del found[image_id]
        return found

    def _complete_sizes(
        self,
        records: Mapping[Id, Record],
        annotations: Sequence[Any],
        located: Callable[[Record], Path],
        path: Path,
    ) -> None:
        """Take the sizes that the file does not state from the image files.

        Args:
            records: The images, changed in place. The size stays None if its file cannot be read.
            annotations: The list of the file. Run lengths state a size, too.
            located: Returns the path of an image.
            path: The file, for notes.
        """
        lacking = {_key(image_id): record for image_id, record in records.items() if record["size"] is None}
        mask_sizes: dict[str, set[tuple[int, int]]] = defaultdict(set)
        for annotation in annotations if lacking else ():
            key = _key(annotation.get("image_id")) if isinstance(annotation, dict) else ""
            if key in lacking and isinstance(annotation.get("segmentation"), dict):
                with contextlib.suppress(InvalidDataError):  # named with the other broken annotations
                    mask_sizes[key].add(rle.stated_size(annotation["segmentation"]))
        for key, record in lacking.items():
            with contextlib.suppress(DataError):  # named when the image is added
                header = read_header(located(record))
                record["size"] = size_of_labels(header, mask_sizes[key])
                self.problems.add(problems.UNSTATED_SIZE, f"{path}: {record['entry']}")

    def _by_image(
        self,
        annotations: Sequence[Any],
        images: Mapping[Id, Record],
        names: Mapping[Id, str],
        class_ids: Mapping[Id, Any],
        path: Path,
    ) -> dict[Id, list[Record]]:
        """Return the usable annotations of the chosen classes by image id.

        Args:
            annotations: The list of the file.
            images: The usable images. Annotations of those without a size are left out.
            names: The names of all categories of the file.
            class_ids: For each chosen category its id in the source.
            path: The file, for notes.
        """
        by_image: dict[Id, list[Record]] = defaultdict(list)
        for number, record in enumerate(annotations):
            entry = f"annotations[{number}]"
            with self.problems.leave_out(path, entry):
                image_id = _known(identifier(record, "image_id", path, entry), images)
                category_id = _known(identifier(record, "category_id", path, entry), names)
                entry = f"{entry}, id {short(record.get('id'))} of image {short(image_id)}"
                if category_id not in names:
                    message = f"There is no category_id {short(category_id)}."
                    raise BrokenEntryError(message, kind=problems.UNKNOWN_CLASS, file=path, entry=entry)
                if image_id not in images:
                    message = f"There is no image_id {short(image_id)}."
                    raise BrokenEntryError(message, kind=problems.UNKNOWN_IMAGE, file=path, entry=entry)
                if category_id in class_ids and images[image_id]["size"] is not None:
                    checked = self._checked(record, images[image_id]["size"], path, entry)
                    if str(record["category_id"]) != str(class_ids[category_id]):  # 3.0 is not 3 here
                        checked = {**checked, "category_id": class_ids[category_id]}
                    by_image[image_id].append(checked)
                    if record.get("iscrowd") and isinstance(record.get("attributes"), dict):
                        self.problems.add(problems.MASK_AS_CROWD, f"{path}: {entry}")
        return by_image

    def _checked(self, record: Record, size: tuple[int, int], path: Path, entry: str) -> Record:
        """Return an annotation without unusable parts. Raises InvalidDataError if it is broken."""
        is_crowd, segmentation = record.get("iscrowd"), record.get("segmentation")
        if is_crowd not in (0, 1, None):
            raise BrokenEntryError(
                f"`iscrowd` must be 0 or 1. Received: {short(is_crowd)}",
                file=path,
                entry=entry,
                field="iscrowd",
            )
        try:
            if not isinstance(segmentation, dict) or not segmentation:
                return self._checked_polygons(record, size, path, entry)
            stated = rle.stated_size(segmentation)
            if stated != size and is_crowd:
                self.problems.add(problems.CROWD_SIZE, f"{path}: {entry}: {stated}")
                whole = {"size": list(size), "counts": [0, size[0] * size[1]]}
                return {**record, "segmentation": whole}
            if stated != size:
                raise BrokenEntryError(
                    f"The mask has (height, width) {stated}, but the image {size}.", kind=problems.MASK_SIZE
                )
            if not rle.counts_of(segmentation, size)[1::2].any():
                raise BrokenEntryError("The mask has no pixels.", kind=problems.NO_AREA)
        except InvalidDataError as error:
            if error.file is not None:
                raise
            kind = error.kind if isinstance(error, BrokenEntryError) else problems.BROKEN_FIELD
            message = f"`segmentation`: {error}"
            raise BrokenEntryError(
                message, kind=kind, file=path, entry=entry, field="segmentation"
            ) from error
        return record

    def _checked_polygons(self, record: Record, size: tuple[int, int], path: Path, entry: str) -> Record:
        segmentation = record.get("segmentation")
        if not segmentation:
            raise BrokenEntryError("The object has no outline.", kind=problems.NO_OUTLINE)
        listed = _listed(segmentation)
        parts: list[Polygon] = []
        errors: list[InvalidDataError] = []
        for part in listed:
            try:
                parts += polygons.parse([part])
            except InvalidDataError as error:
                errors.append(error)
        if not parts:
            raise errors[0]
        for fault in errors:
            self.problems.add(problems.STRAY_PART, f"{path}: {entry}: {fault}")
        usable = outlines.usable_parts(parts, size, path, entry, self.problems)
        if len(usable) == len(listed):
            return record
        return {**record, "segmentation": [points.ravel().tolist() for points in usable]}


def _stated_size(record: Record, path: Path, entry: str) -> tuple[int, int] | None:
    """Return the (height, width) of an image; None if the file does not state both."""
    if not (record.get("height") and record.get("width")):
        return None
    return side(record, "height", path, entry), side(record, "width", path, entry)


def to_rle(segmentation: Any, height: int, width: int) -> rle.RunLengths:
    """Return a COCO segmentation as compressed run lengths.

    Args:
        segmentation: Polygons, or run lengths of either kind.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Raises:
        InvalidDataError: If the segmentation is none of these, or run lengths do not fill the image.
    """
    if isinstance(segmentation, list):
        segmentation = _listed(segmentation)
    return rle.from_segmentation(segmentation, (height, width))


def _as_object(annotation: Any) -> Any:
    """Return an annotation that is not marked as a crowd."""
    return {**annotation, "iscrowd": 0} if isinstance(annotation, dict) else annotation


def _listed(segmentation: Any) -> list[Any]:
    """Return the polygons of a segmentation: a list of them, or a single one, flat or as a list of points."""
    if not isinstance(segmentation, list):
        raise InvalidDataError(
            "`segmentation` must be a list of polygons, or run lengths with `size` and `counts`. "
            f"Received: {short(segmentation)}",
            field="segmentation",
        )
    is_flat = bool(segmentation) and isinstance(segmentation[0], (int, float))
    is_points = len(segmentation) >= 3 and all(map(_is_point, segmentation))
    return [segmentation] if is_flat or is_points else segmentation


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and not any(isinstance(x, (list, dict)) for x in value)


def _drawn(segmentation: Any, size: tuple[int, int]) -> tuple[Masks, tuple[int, int]] | None:
    """Return the mask of a checked segmentation, cropped, and (row, column) of its first pixel."""
    if isinstance(segmentation, dict):
        mask, column = rle.decode_columns(rle.counts_of(segmentation, size), size)
        return mask, (0, column)
    return polygons.rasterize(polygons.parse(_listed(segmentation)), size)


def _stated_box(record: Record) -> list[float] | None:
    box = record.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_finite, box)):
        return None
    return box if min(box[2:]) > 0 else None  # some programs write 0


def _stated_area(record: Record) -> float | None:
    area: Any = record.get("area")
    return float(area) if _is_finite(area) and area > 0 else None


def _is_finite(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) <= sys.float_info.max


def _box(counts: rle.Counts, size: tuple[int, int]) -> list[float]:
    """Return the box [x, y, width, height] of the pixels inside."""
    mask, column = rle.decode_columns(counts, size)
    rows = np.flatnonzero(mask.any(axis=1))
    return [float(column), float(rows[0]), float(mask.shape[1]), float(rows[-1] + 1 - rows[0])]


def _key(image_id: Any) -> str:
    """Return an image id as text, so that 7 and 7.0 are equal, or "" if the value is not an id."""
    if isinstance(image_id, float) and image_id.is_integer():
        image_id = int(image_id)
    return str(image_id) if isinstance(image_id, (int, str)) else ""


def _known(one: Id, ids: Collection[Id]) -> Id:
    """Return the id among those of a file that an id means. Some programs write 7 here and "7" there."""
    is_number = isinstance(one, str) and len(one) < 20 and one.isdecimal()
    other = int(one) if is_number else str(one)
    is_meant = one not in ids and other in ids and str(other) == str(one)
    return other if is_meant else one


def _chosen_ids(names: Mapping[Id, str], classes: Sequence[Any] | None, path: Path) -> list[Id]:
    """Return the category ids of the classes, which are given by name or id, in their order."""
    if classes is None:
        return list(names)
    ids: dict[str, list[Id]] = defaultdict(list)
    for category_id, name in names.items():
        ids[name].append(category_id)
    wanted = [] if isinstance(classes, (str, bytes)) else list(classes)
    # An id that is a text may have spaces. Names have none at their ends.
    wanted = [one.strip() if isinstance(one, str) and one not in names else one for one in wanted]
    unknown = [
        one for one in wanted if not isinstance(one, (int, str)) or (one not in names and one not in ids)
    ]
    if unknown or not wanted:
        raise InvalidDataError(
            f"`classes` must be a list of category names or ids of this file. Unknown: {short(unknown)}. "
            f"The file has {short(names)}",
            file=path,
            field="classes",
        )
    return [category_id for one in wanted for category_id in ([one] if one in names else ids[one])]
