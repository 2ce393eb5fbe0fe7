"""Generate small datasets in the formats of real datasets, without a download.

Notebooks use them if the real dataset is missing, so that every cell runs anywhere and reads images in the
same way:

- `write_coins_as_via`: the coins of scikit-image, outlined with polygons as in the balloon dataset (VIA JSON)
- `write_tissue_as_bowl`: nuclei of a stained tissue section, in folders as in the 2018 Data Science Bowl
- `write_shapes_as_coco`: drawn shapes with the JSON file of COCO

The outlines come from classical image processing. They are good enough for demonstrations, but they are not a
ground truth.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy import ndimage
from skimage import color, data, feature, filters, io, measure, segmentation

from samples.coins import coins
from samples.nucleus import nucleus
from samples.shapes import shapes

COIN_CROPS = {"train": (0, 48, 96, 144, 192, 240), "val": (0, 80, 160, 240)}  # first columns of the crops
COIN_CROP_WIDTH = 144
TISSUE_TILE = 256  # pixels; the image has 2 x 2 tiles, and the last one is held back for validation
SMALLEST_NUCLEUS = 40  # pixels
SHAPE_IDS = (101, 111, 121)  # square, circle, triangle: not among COCO's ids, but with gaps as those have


def write_coins_as_via(folder: str | Path) -> Path:
    """Write crops of the photograph of coins, with polygons.

    The crops in train/ come from the upper half of the photograph, those in val/ from the lower half.

    Args:
        folder: Folder to write to. Its subfolders get the images and via_region_data.json.

    Returns:
        The folder.
    """
    for subset, (image, labels) in zip(("train", "val"), coins.halves(), strict=True):
        subset_folder = Path(folder) / subset
        subset_folder.mkdir(parents=True, exist_ok=True)
        annotations = {}
        for left in COIN_CROPS[subset]:
            columns = slice(left, left + COIN_CROP_WIDTH)
            name = f"coins_{left:03}.png"
            io.imsave(subset_folder / name, color.gray2rgb(image[:, columns]), check_contrast=False)
            regions = [via_region(mask) for mask in whole_objects(labels[:, columns], coins.SMALLEST_COIN)]
            size = (subset_folder / name).stat().st_size
            annotations[f"{name}{size}"] = {"filename": name, "size": size, "regions": regions}
        (subset_folder / "via_region_data.json").write_text(json.dumps(annotations))
    return Path(folder)


def whole_objects(labels: np.ndarray, smallest: int) -> list[np.ndarray]:
    """Return the masks, bool `[height, width]`, of the labeled regions of at least `smallest` pixels."""
    return [labels == label for label in np.unique(labels[labels > 0]) if (labels == label).sum() >= smallest]


def via_region(mask: np.ndarray) -> dict[str, Any]:
    """Return the outline of a mask, bool `[height, width]`, as a polygon of the VGG Image Annotator."""
    corners = outline(mask)
    return {
        "shape_attributes": {
            "name": "polygon",
            "all_points_x": corners[:, 0].tolist(),
            "all_points_y": corners[:, 1].tolist(),
        },
        "region_attributes": {},
    }


def outline(mask: np.ndarray) -> np.ndarray:
    """Return the corners, int `[corners, (x, y)]` in pixels, of the largest piece of a mask."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    largest = max(contours, key=cv2.contourArea)
    return cv2.approxPolyDP(largest, epsilon=0.7, closed=True)[:, 0]


def write_tissue_as_bowl(folder: str | Path) -> Path:
    """Write four tiles of a stained tissue section, with one mask file per nucleus.

    Args:
        folder: Folder to write to: stage1_train/<id>/images/<id>.png and stage1_train/<id>/masks/*.png. The
            last tile has the first id of the validation list, so that both "train" and "val" have images.

    Returns:
        The folder.
    """
    image = data.immunohistochemistry()
    labels = label_nuclei(image)
    for number, (top, left) in enumerate(np.ndindex(2, 2)):
        rows, columns = (slice(k * TISSUE_TILE, (k + 1) * TISSUE_TILE) for k in (top, left))
        name = nucleus.VAL_IMAGE_IDS[0] if number == 3 else f"tissue{number}"
        image_folder = Path(folder) / "stage1_train" / name
        for part in ("images", "masks"):
            (image_folder / part).mkdir(parents=True, exist_ok=True)
        io.imsave(image_folder / "images" / f"{name}.png", image[rows, columns])
        for index, mask in enumerate(whole_objects(labels[rows, columns], SMALLEST_NUCLEUS)):
            mask_path = image_folder / "masks" / f"{index:03}.png"
            io.imsave(mask_path, mask.astype(np.uint8) * 255, check_contrast=False)
    return Path(folder)


def label_nuclei(image: np.ndarray) -> np.ndarray:
    """Return the label image `[height, width]` of the blue nuclei in a stained tissue section.

    The stains hematoxylin and DAB are separated, hematoxylin is thresholded, and touching nuclei are split at
    the necks between them.
    """
    stain = filters.gaussian(color.rgb2hed(image)[..., 0], 1.5)
    inside = stain > filters.threshold_local(stain, 101, offset=-0.2 * stain.std())
    inside &= stain > filters.threshold_otsu(stain) * 0.9
    pieces = measure.label(ndimage.binary_opening(inside, iterations=2))
    is_large = np.bincount(pieces.ravel()) > 60
    is_large[0] = False  # the background
    inside = ndimage.binary_fill_holes(is_large[pieces])
    depth = filters.gaussian(ndimage.distance_transform_edt(inside), 1)
    peaks = feature.peak_local_max(depth, min_distance=6, labels=measure.label(inside))
    markers = np.zeros(inside.shape, int)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return segmentation.watershed(-depth, markers, mask=inside)


def write_shapes_as_coco(folder: str | Path, count: int = 50, height: int = 192, width: int = 256) -> Path:
    """Write drawn shapes as a COCO dataset of 2017: train2017/, val2017/ and annotations/instances_*.json.

    Args:
        folder: Folder to write to.
        count: Number of training images. There are a tenth as many validation images, but at least two.
        height: Image height in pixels.
        width: Image width in pixels.

    Returns:
        The folder. The categories have the ids SHAPE_IDS.
    """
    for subset, images in (("train2017", count), ("val2017", max(2, count // 10))):
        dataset = shapes.ShapesDataset()
        dataset.load_shapes(images, height, width)
        dataset.prepare()
        image_folder = Path(folder) / subset
        image_folder.mkdir(parents=True, exist_ok=True)
        records, annotations = [], []
        for image_id in dataset.image_ids:
            name = f"{image_id:012}.png"
            io.imsave(image_folder / name, dataset.load_image(image_id), check_contrast=False)
            records.append({"id": int(image_id), "file_name": name, "height": height, "width": width})
            masks, class_ids = dataset.load_mask(image_id)
            for mask, class_id in zip(np.moveaxis(masks, -1, 0), class_ids, strict=True):
                polygons = visible_pieces(mask)
                if polygons:
                    identity = {"id": len(annotations) + 1, "image_id": int(image_id)}
                    annotations.append(identity | coco_annotation(polygons, SHAPE_IDS[class_id - 1]))
        names = dataset.class_names[1:]
        categories = [{"id": n, "name": name} for n, name in zip(SHAPE_IDS, names, strict=True)]
        content = {"images": records, "annotations": annotations, "categories": categories}
        path = Path(folder) / "annotations" / f"instances_{subset}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return Path(folder)


def visible_pieces(mask: np.ndarray) -> list[np.ndarray]:
    """Return the corners, int `[corners, (x, y)]`, of each piece of a mask that has an area."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [contour[:, 0] for contour in contours if cv2.contourArea(contour) > 0]


def coco_annotation(polygons: list[np.ndarray], category_id: int) -> dict[str, Any]:
    """Return the COCO annotation of an object: its polygons, its box (x, y, width, height) and its area."""
    corners = np.concatenate(polygons)
    left, top = (int(value) for value in corners.min(axis=0))
    width, height = (int(value) for value in np.ptp(corners, axis=0))
    return {
        "category_id": category_id,
        "iscrowd": 0,
        "area": float(sum(cv2.contourArea(polygon) for polygon in polygons)),
        "bbox": [left, top, width, height],
        "segmentation": [polygon.reshape(-1).tolist() for polygon in polygons],
    }
