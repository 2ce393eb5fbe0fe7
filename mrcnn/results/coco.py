"""COCO JSON: images, objects with run lengths, and categories. `mrcnn.formats.CocoDataset` reads it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mrcnn.results.detections import Detections

Record = dict[str, Any]


def records_of(result: "Detections") -> list[Record]:
    """Return COCO's records of the objects of one image, without ids.

    Returns:
        N dicts of category_id, iscrowd, bbox [x, y, width, height] and area in pixels, segmentation
        (compressed run lengths), and score if there are scores.
    """
    codes = result.mask_crops().run_lengths()
    areas = [int(np.count_nonzero(crop)) for _, crop in result.crops()]
    records = []
    for index, (class_id, box) in enumerate(zip(result["class_ids"], result["rois"], strict=True)):
        y1, x1, y2, x2 = (float(side) for side in box)
        record = {
            "category_id": abs(int(class_id)),
            "iscrowd": int(class_id < 0),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": areas[index],
            "segmentation": codes[index],
        }
        if "scores" in result:
            record["score"] = float(result["scores"][index])
        records.append(record)
    return records


class CocoFile:
    """The content of a COCO file, image by image.

    Args:
        class_names: Class id to name.

    Attributes:
        images: The records of the images.
        annotations: The records of their objects.
    """

    def __init__(self, class_names: Mapping[int, str]) -> None:
        self.images: list[Record] = []
        self.annotations: list[Record] = []
        self._names = dict(class_names)

    def add(self, result: "Detections", file_name: str, records: list[Record] | None = None) -> int:
        """Add an image and its objects, and return the id of the image. Objects without pixels are left out.

        Args:
            result: The objects.
            file_name: The image, relative to the folder that readers are given, with slashes.
            records: `records_of(result)` if it is known.
        """
        image_id = len(self.images) + 1
        height, width = result.shape
        self.images.append({"id": image_id, "file_name": file_name, "height": height, "width": width})
        for record in records_of(result) if records is None else records:
            if record["area"]:
                own = {"id": len(self.annotations) + 1, "image_id": image_id}
                self.annotations.append({**own, **record})
        return image_id

    def content(self) -> Record:
        """Return the content of the file."""
        names = dict(self._names)
        for record in self.annotations:
            names.setdefault(record["category_id"], f"class {record['category_id']}")
        categories = [{"id": int(class_id), "name": str(name)} for class_id, name in names.items()]
        return {"images": self.images, "annotations": self.annotations, "categories": categories}
