"""Write a dataset as a COCO annotation file, which `CocoDataset` and other programs read."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn import files
from mrcnn.dataset import Dataset
from mrcnn.errors import InvalidDataError
from mrcnn.formats.base import FormatDataset
from mrcnn.formats.files import Record, Source
from mrcnn.geometry.mask_crops import MaskCrops


def write_coco(dataset: Dataset, path: Source, images: Source | None = None) -> None:
    """Write the annotations of a prepared dataset as a COCO file.

    The masks are written as run lengths. Images without objects are written only if the dataset lists them as
    empty: an image that nobody has annotated must not train as background.

    Args:
        dataset: Any prepared dataset whose images are files.
        path: The JSON file to write, whole or not at all.
        images: The folder that the names of the images are relative to; by default that of `path`.

    Raises:
        InvalidDataError: If an image is not a file below this folder, or cannot be used.
        UnreadableFileError: If an image or its masks cannot be read.
        OSError: If the file cannot be written.
    """
    folder = Path(path).parent if images is None else Path(images)
    records: list[Record] = []
    annotations: list[Record] = []
    for image_id in range(dataset.num_images):
        name = _name_below(folder, dataset.image_info[image_id], image_id)
        own, (height, width) = _annotations(dataset, image_id)
        if own or dataset.is_listed_as_empty(image_id):
            number = len(records) + 1
            records.append({"id": number, "file_name": name, "height": height, "width": width})
            for record in own:
                annotations.append({"id": len(annotations) + 1, "image_id": number, **record})
    categories = [{"id": n, "name": info["name"]} for n, info in enumerate(dataset.class_info) if n]
    files.write_json(path, {"images": records, "annotations": annotations, "categories": categories})


def _name_below(folder: Path, info: Record, image_id: int) -> str:
    """Return the path of an image relative to a folder, with slashes."""
    file = info.get("path")
    is_file = file is not None and not info.get("member") and not info.get("is_embedded")
    if is_file:
        name = os.path.relpath(str(file), folder)
        if name.partition(os.sep)[0] != os.pardir:
            return Path(name).as_posix()
    raise InvalidDataError(
        f"The image must be a file below the folder {folder}. Received: path={str(file)!r}. Pass `images`, "
        "or unpack the archive.",
        entry=f"image id {image_id}",
        field="path",
    )


def _annotations(dataset: Dataset, image_id: int) -> tuple[list[Record], tuple[int, int]]:
    """Return the annotations of an image, and its (height, width)."""
    crops: MaskCrops
    class_ids: Any
    if isinstance(dataset, FormatDataset):
        crops, class_ids = dataset.load_mask_crops(image_id)
        height, width = dataset.image_size(image_id)
    else:
        masks, class_ids = dataset.load_mask(image_id)
        height, width = dataset.load_image(image_id).shape[:2]
        crops = MaskCrops.cut(masks)
    found = []
    for class_id, (y1, x1, y2, x2), crop, code in zip(
        class_ids, crops.boxes.tolist(), crops.crops, crops.run_lengths(), strict=True
    ):
        if area := np.count_nonzero(crop):
            found.append(
                {
                    "category_id": abs(int(class_id)),
                    "iscrowd": int(class_id < 0),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": area,
                    "segmentation": code,
                }
            )
    return found, (height, width)
