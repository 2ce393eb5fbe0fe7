"""COCO json: polygons, run-length encoded masks and crowds (https://cocodataset.org/#format-data)."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from mrcnn.formats import outlines, problems
from mrcnn.formats.base import FormatDataset, Instance, cropped
from mrcnn.formats.files import BrokenEntryError, field, read_json

Record = dict[str, Any]
NUMBER = (int, float)


class CocoDataset(FormatDataset):
    """Images and objects of COCO json files.

    Category ids may have gaps (classes are numbered 1, 2, 3 in the order of category ids), image ids too.
    Objects without a pixel are left out; crowds have a negative class id. image_info has `annotations`, the
    file's own records of the chosen classes, `width` and `height`.
    """

    def load(
        self,
        annotations: str | os.PathLike,
        images: str | os.PathLike | None = None,
        classes: Sequence[Any] | None = None,
        keep_empty: bool = True,
        source: str = "coco",
    ) -> None:
        """Add the images of an annotation file.

        images: their folder, by default that of the file. classes: category names or ids to take, all by
        default. keep_empty: take images without an object of these classes, too. source: name of this
        source of ids, e.g. in image_info.

        Raises FileNotFoundError; ValueError naming file and field if the file is broken as a whole, knows
        none of the classes or gives no image. Single broken entries are left out, see `problems`.
        """
        annotations = Path(annotations)
        folder = annotations.parent if images is None else Path(images)
        content = read_json(annotations)
        lists = {name: field(content, name, list, annotations) for name in ("images", "annotations")}
        names = _category_names(field(content, "categories", list, annotations), annotations)
        chosen = _chosen_ids(names, classes, annotations)
        for category_id in chosen:
            self.add_class(source, category_id, names[category_id])
        sizes = self._sizes(lists["images"], annotations)
        by_image = self._by_image(lists["annotations"], sizes, names, set(chosen), annotations)
        before = len(self.image_info)
        # Any annotation counts, even a broken one or one of another class: only images that were annotated
        # and have no objects are examples of background.
        annotated = {
            str(record.get("image_id")) for record in lists["annotations"] if isinstance(record, dict)
        }
        for record in lists["images"]:
            own = by_image.get(record.get("id"), [])
            if record.get("id") in sizes and (own or keep_empty):
                size = sizes[record["id"]]
                path = folder / record["file_name"]
                facts: Record = {"annotations": own, "width": size[1], "height": size[0]}
                facts["is_empty"] = str(record["id"]) not in annotated
                self._add_picture(source, record["id"], path, size=size, **facts)
        self._finish(str(annotations), before)

    def load_instances(self, image_id: int) -> Iterator[Instance]:
        """The objects that have a pixel inside the image, one by one, each cropped to its box."""
        info, size = self.image_info[image_id], self.image_size(image_id)
        for annotation in info["annotations"]:
            class_id = self.map_source_class_id(f"{info['source']}.{annotation['category_id']}")
            class_id = -class_id if annotation.get("iscrowd") else class_id
            yield from cropped(_decoded(annotation["segmentation"], size), class_id)

    def coco_annotations(self, image_id: int) -> list[Record]:
        """The file's annotations of an image with the dataset's class ids as category_id.

        `MaskRCNN.evaluate` takes them as the truth, with the areas that the file states.
        """
        info, size = self.image_info[image_id], self.image_size(image_id)
        records = []
        for annotation in info["annotations"]:
            mask = to_rle(annotation["segmentation"], *size)
            if rle.area(mask) == 0:
                continue
            class_id = self.map_source_class_id(f"{info['source']}.{annotation['category_id']}")
            records.append(
                {
                    "category_id": class_id,
                    "iscrowd": int(bool(annotation.get("iscrowd"))),
                    "bbox": annotation.get("bbox") or rle.toBbox(mask).tolist(),
                    "area": float(annotation.get("area") or rle.area(mask)),
                    "segmentation": annotation["segmentation"],
                }
            )
        return records

    def _sizes(self, records: Sequence[Record], path: Path) -> dict[Any, tuple[int, int]]:
        """(height, width) of each image whose record is whole, by image id."""
        sizes = {}
        for number, record in enumerate(records):
            try:
                where = f"{path}: images[{number}]"
                field(record, "file_name", str, where)
                size = field(record, "height", NUMBER, where), field(record, "width", NUMBER, where)
                sizes[field(record, "id", (int, str), where)] = (int(size[0]), int(size[1]))
            except BrokenEntryError as error:
                self.problems.add(problems.BROKEN_FIELD, str(error))
        return sizes

    def _by_image(
        self,
        records: Sequence[Record],
        sizes: dict[Any, tuple[int, int]],
        names: dict[int, str],
        chosen: set[int],
        path: Path,
    ) -> dict[Any, list[Record]]:
        """The usable annotations of the chosen classes, by image id."""
        by_image: dict[Any, list[Record]] = defaultdict(list)
        for number, record in enumerate(records):
            where = f"{path}: annotations[{number}]"
            try:
                image_id = field(record, "image_id", (int, str), where)
                category_id = field(record, "category_id", int, where)
            except BrokenEntryError as error:
                self.problems.add(problems.BROKEN_FIELD, str(error))
                continue
            where = f"{where}, id {record.get('id')} of image {image_id}"
            if category_id not in names:
                self.problems.add(problems.UNKNOWN_CLASS, f"{where}: category_id {category_id}")
            elif image_id not in sizes:
                self.problems.add(problems.UNKNOWN_IMAGE, where)
            elif category_id in chosen and self._is_usable(record, sizes[image_id], where):
                by_image[image_id].append(record)
        return by_image

    def _is_usable(self, record: Record, size: tuple[int, int], where: str) -> bool:
        """Whether an annotation has a mask; names what is wrong with it."""
        segmentation = record.get("segmentation")
        if not segmentation:
            kind = problems.NO_OUTLINE if "segmentation" in record else problems.BROKEN_FIELD
        elif isinstance(segmentation, dict):
            if not isinstance(segmentation.get("counts"), (list, str)) or "size" not in segmentation:
                kind = problems.BROKEN_FIELD
            elif tuple(segmentation["size"]) != size and not record.get("iscrowd"):
                kind = problems.MASK_SIZE
            else:
                return True
        else:
            try:
                parts = _points(segmentation)
            except (TypeError, ValueError):
                self.problems.add(problems.BROKEN_FIELD, f"{where}: segmentation")
                return False
            if outlines.reaches_outside(parts, size):
                self.problems.add(problems.OUTSIDE, where)
            if any(len(points) < 3 for points in parts):
                kind = problems.NO_OUTLINE
            elif not sum(map(outlines.area, parts)) > 0:
                kind = problems.NO_AREA
            else:
                return True
        self.problems.add(kind, f"{where}: segmentation")
        return False


def to_rle(segmentation: Any, height: int, width: int) -> Record:
    """A segmentation of COCO's as compressed run lengths.

    segmentation: a list of polygons [x, y, x, y, ...] in pixels, run lengths {"counts": list, "size"}, or
    compressed ones, which are given back. height, width: of the image, for polygons.
    """
    if isinstance(segmentation, list):
        return rle.merge(rle.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return rle.frPyObjects(segmentation, *segmentation["size"])
    return segmentation


def _decoded(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """A segmentation as bool [h, w]; a crowd's mask of another size than its image covers all of it."""
    mask = rle.decode(to_rle(segmentation, *size)).astype(bool)
    return mask if mask.shape == size else np.ones(size, dtype=bool)


def _points(segmentation: Any) -> list[np.ndarray]:
    """The polygons of an annotation, each [P, (x, y)]."""
    return [np.array(part, dtype=np.float64).reshape(-1, 2) for part in segmentation]


def _category_names(records: Sequence[Record], path: Path) -> dict[int, str]:
    """Names by category id, in the order of ids."""
    names = {}
    for number, record in enumerate(records):
        where = f"{path}: categories[{number}]"
        names[field(record, "id", int, where)] = field(record, "name", str, where)
    return dict(sorted(names.items()))


def _chosen_ids(names: dict[int, str], classes: Sequence[Any] | None, path: Path) -> list[int]:
    """Category ids of the classes asked for by name or id, in their order."""
    if classes is None:
        return list(names)
    ids = {name: category_id for category_id, name in names.items()}
    unknown = [one for one in classes if one not in names and one not in ids]
    if isinstance(classes, str) or unknown or not len(classes):
        raise ValueError(
            f"{path}: classes must be a list of category names or ids of this file. Unknown: {unknown}. "
            f"There are: {names}"
        )
    return [ids.get(one, one) for one in classes]
