"""The images and objects of a dataset as viewers show them, for the files that other programs read.

A dataset may keep an image with an EXIF orientation in its stored rows and columns. A file of annotations
beside the image may not: the image keeps its orientation, and every reader follows it.
"""

import contextlib
from typing import Any

import numpy as np

from mrcnn.dataset import Dataset
from mrcnn.errors import DataError
from mrcnn.files.images import FLIPPED, MIRRORED, TRANSPOSED, read_header, turned
from mrcnn.formats.base import FormatDataset
from mrcnn.geometry.mask_crops import MaskCrops
from mrcnn.results.detections import Detections
from mrcnn.typing import Boxes, Image


def image_of(dataset: Dataset, image_id: int) -> Image:
    """Return the image that `load_image` returns, turned as viewers show it.

    Raises:
        UnreadableFileError, InvalidDataError: See `Dataset.load_image`.
    """
    image = dataset.load_image(image_id)
    height, width = image.shape[:2]
    return np.ascontiguousarray(turned(image, _missing_turn(dataset, image_id, (height, width))))


def objects_of(dataset: Dataset, image_id: int) -> Detections:
    """Return the annotated objects of an image, turned as viewers show it.

    They have no scores, and crowds have negative class ids. If masks without a size have no objects, the size
    is that of the image.

    Raises:
        UnreadableFileError, InvalidDataError: If the image or its annotations cannot be read.
    """
    crops: MaskCrops
    class_ids: Any
    if isinstance(dataset, FormatDataset):
        crops, class_ids = dataset.load_mask_crops(image_id)
    else:
        masks, class_ids = dataset.load_mask(image_id)
        crops = MaskCrops.cut(np.asarray(masks).astype(bool, copy=False))
    if not all(crops.shape):  # the base class of datasets has masks [0, 0, 0]
        height, width = dataset.load_image(image_id).shape[:2]
        crops = MaskCrops((height, width), crops.boxes, crops.crops)
    crops = _turned_crops(crops, _missing_turn(dataset, image_id, crops.shape))
    info = dataset.image_info[image_id]
    path = None if info.get("member") else info.get("path")  # an archive is not the image
    names = [info["name"] for info in dataset.class_info]
    return Detections(crops.boxes, np.asarray(class_ids), None, crops, class_names=names, path=path)


def _missing_turn(dataset: Dataset, image_id: int, size: tuple[int, int]) -> int:
    """Return the EXIF orientation that a dataset does not follow, or 1.

    A FormatDataset tells which one it follows. Images and masks of another dataset are turned already if they
    have the shown size, and are not if they have the stored size. Where both sizes are the same, as for a
    square, `load_image` of the base class does not turn images, and the pixels that another `load_image`
    returns are compared with those.

    Args:
        dataset: The dataset.
        image_id: The image.
        size: (height, width) of the image, or of its masks.
    """
    if isinstance(dataset, FormatDataset):
        dataset.image_size(image_id)  # compares header and annotations
        if dataset.image_info[image_id]["orientation"] > 1:
            return 1
    header = None
    with contextlib.suppress(DataError):  # another load_image may read other files
        header = read_header(dataset.open_image_file(image_id))
    if header is None or header.orientation == 1 or size != header.stored_size:
        return 1
    is_told = isinstance(dataset, FormatDataset) or type(dataset).load_image is Dataset.load_image
    if is_told or size != header.shown_size:
        return header.orientation
    return 1 if _is_turned(dataset, image_id, header.orientation) else header.orientation


def _is_turned(dataset: Dataset, image_id: int, orientation: int) -> bool:
    """Return whether `load_image` follows an orientation that does not change the size of the image."""
    stored, loaded = (
        np.atleast_3d(image).mean(axis=-1)
        for image in (Dataset.load_image(dataset, image_id), dataset.load_image(image_id))
    )
    # The larger product is the smaller distance, also if load_image has scaled the values.
    is_comparable = loaded.shape == stored.shape
    return is_comparable and bool(np.vdot(loaded, turned(stored, orientation)) > np.vdot(loaded, stored))


def _turned_crops(crops: MaskCrops, orientation: int) -> MaskCrops:
    """Turn cropped masks according to an EXIF orientation."""
    if orientation == 1:
        return crops
    height, width = crops.shape
    return MaskCrops(
        (width, height) if orientation in TRANSPOSED else (height, width),
        _turned_boxes(crops.boxes, crops.shape, orientation),
        tuple(np.ascontiguousarray(turned(crop, orientation)) for crop in crops.crops),
    )


def _turned_boxes(boxes: Boxes, shape: tuple[int, int], orientation: int) -> Boxes:
    """Turn boxes [N, (y1, x1, y2, x2)] in an image of (height, width) `shape`; see `turned`."""
    y1, x1, y2, x2 = boxes.T
    height, width = shape
    if orientation in TRANSPOSED:
        y1, x1, y2, x2, height, width = x1, y1, x2, y2, width, height
    if orientation in MIRRORED:
        x1, x2 = width - x2, width - x1
    if orientation in FLIPPED:
        y1, y2 = height - y2, height - y1
    return np.stack([y1, x1, y2, x2], axis=1)
