"""Small data sets that need no download, written to a folder in the formats of the real ones.

The notebooks use them where the real data set is not there, so that every cell runs anywhere and reads its
images in the same way:

- `write_coins_as_via`: scikit-image's coins, outlined with polygons as in the balloon data set (VIA json)
- `write_tissue_as_bowl`: nuclei of scikit-image's stained tissue, in folders of the 2018 Data Science Bowl
- `write_shapes_as_coco`: drawn shapes with the json of COCO

The outlines come from classical image processing: good enough to look at and to learn from, no ground truth.
"""

import json
from pathlib import Path

import cv2
import numpy as np
from scipy import ndimage
from skimage import color, data, feature, filters, io, measure, morphology, segmentation

from samples.coins import coins
from samples.nucleus import nucleus
from samples.shapes import shapes

COIN_CROPS = {"train": (0, 48, 96, 144, 192, 240), "val": (0, 80, 160, 240)}  # first columns of the crops
COIN_CROP_WIDTH = 144
TISSUE_TILE = 256  # pixels; the picture has 2 x 2 of them, the last one is held back for validation
SMALLEST_NUCLEUS = 40  # pixels
SHAPE_IDS = (101, 111, 121)  # square, circle, triangle: none of COCO's ids, and with gaps like those


def write_coins_as_via(folder: str | Path) -> Path:
    """Crops of the photograph of coins, with polygons: train/ from its upper half, val/ from its lower half.

    Writes <folder>/<train|val>/via_region_data.json beside the pictures, and returns the folder.
    """
    for subset, (picture, labels) in zip(("train", "val"), coins.halves(), strict=True):
        place = Path(folder) / subset
        place.mkdir(parents=True, exist_ok=True)
        annotations = {}
        for left in COIN_CROPS[subset]:
            columns = slice(left, left + COIN_CROP_WIDTH)
            name = f"coins_{left:03}.png"
            io.imsave(place / name, color.gray2rgb(picture[:, columns]), check_contrast=False)
            regions = [via_region(mask) for mask in whole_objects(labels[:, columns], coins.SMALLEST_COIN)]
            size = (place / name).stat().st_size
            annotations[f"{name}{size}"] = {"filename": name, "size": size, "regions": regions}
        (place / "via_region_data.json").write_text(json.dumps(annotations))
    return Path(folder)


def whole_objects(labels: np.ndarray, smallest: int) -> list[np.ndarray]:
    """Masks bool [h, w] of the labelled regions of at least `smallest` pixels."""
    return [labels == label for label in np.unique(labels[labels > 0]) if (labels == label).sum() >= smallest]


def via_region(mask: np.ndarray) -> dict:
    """The outline of a mask bool [h, w] as a polygon of the VGG Image Annotator."""
    corners = polygon_of(mask)
    return {
        "shape_attributes": {
            "name": "polygon",
            "all_points_x": corners[:, 0].tolist(),
            "all_points_y": corners[:, 1].tolist(),
        },
        "region_attributes": {},
    }


def polygon_of(mask: np.ndarray) -> np.ndarray:
    """Corners int [N, (x, y)] of the outline of a mask's largest piece, in pixels."""
    pieces, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    outline = max(pieces, key=cv2.contourArea)
    return cv2.approxPolyDP(outline, epsilon=0.7, closed=True)[:, 0]


def write_tissue_as_bowl(folder: str | Path) -> Path:
    """Four tiles of a stained tissue section in stage1_train/, a mask file for each nucleus.

    Writes <folder>/stage1_train/<id>/images/<id>.png and .../masks/*.png, and returns the folder. The last
    tile bears the first id of the validation list, so that "train" and "val" are both there.
    """
    picture = data.immunohistochemistry()
    labels = outline_nuclei(picture)
    for number, (top, left) in enumerate(np.ndindex(2, 2)):
        rows, columns = (slice(k * TISSUE_TILE, (k + 1) * TISSUE_TILE) for k in (top, left))
        name = nucleus.VAL_IMAGE_IDS[0] if number == 3 else f"tissue{number}"
        place = Path(folder) / "stage1_train" / name
        for part in ("images", "masks"):
            (place / part).mkdir(parents=True, exist_ok=True)
        io.imsave(place / "images" / f"{name}.png", picture[rows, columns])
        for index, mask in enumerate(whole_objects(labels[rows, columns], SMALLEST_NUCLEUS)):
            mask_file = place / "masks" / f"{index:03}.png"
            io.imsave(mask_file, mask.astype(np.uint8) * 255, check_contrast=False)
    return Path(folder)


def outline_nuclei(picture: np.ndarray) -> np.ndarray:
    """Label image [h, w] of the blue nuclei in a section stained with haematoxylin and DAB.

    Unmixes the stains, thresholds the nuclear one, and splits touching nuclei at the necks between them.
    """
    stain = filters.gaussian(color.rgb2hed(picture)[..., 0], 1.5)
    inside = stain > filters.threshold_local(stain, 101, offset=-0.2 * stain.std())
    inside &= stain > filters.threshold_otsu(stain) * 0.9
    inside = morphology.remove_small_objects(ndimage.binary_opening(inside, iterations=2), max_size=60)
    inside = ndimage.binary_fill_holes(inside)
    depth = filters.gaussian(ndimage.distance_transform_edt(inside), 1)
    peaks = feature.peak_local_max(depth, min_distance=6, labels=measure.label(inside))
    markers = np.zeros(inside.shape, int)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return segmentation.watershed(-depth, markers, mask=inside)


def write_shapes_as_coco(folder: str | Path, count: int = 50, height: int = 192, width: int = 256) -> Path:
    """Drawn shapes as a COCO data set of 2017: train2017/, val2017/ and annotations/instances_*.json.

    count: training images; there are a tenth as many to validate with, but two at least. The categories have
    the ids SHAPE_IDS. Returns the folder.
    """
    for subset, images in (("train2017", count), ("val2017", max(2, count // 10))):
        dataset = shapes.ShapesDataset()
        dataset.load_shapes(images, height, width)
        dataset.prepare()
        place = Path(folder) / subset
        place.mkdir(parents=True, exist_ok=True)
        records, annotations = [], []
        for image_id in dataset.image_ids:
            name = f"{image_id:012}.png"
            io.imsave(place / name, dataset.load_image(image_id), check_contrast=False)
            records.append({"id": int(image_id), "file_name": name, "height": height, "width": width})
            masks, class_ids = dataset.load_mask(image_id)
            for mask, class_id in zip(np.moveaxis(masks, -1, 0), class_ids, strict=True):
                polygons = visible_pieces(mask)
                if polygons:
                    identity = {"id": len(annotations) + 1, "image_id": int(image_id)}
                    annotations.append(identity | coco_annotation(polygons, SHAPE_IDS[class_id - 1]))
        names = dataset.class_names[1:]
        categories = [{"id": n, "name": name} for n, name in zip(SHAPE_IDS, names, strict=True)]
        described = {"images": records, "annotations": annotations, "categories": categories}
        file = Path(folder) / "annotations" / f"instances_{subset}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(described))
    return Path(folder)


def visible_pieces(mask: np.ndarray) -> list[np.ndarray]:
    """Outlines int [N, (x, y)] of the pieces of a mask bool [h, w] that are more than a line."""
    pieces, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [piece[:, 0] for piece in pieces if cv2.contourArea(piece) > 0]


def coco_annotation(polygons: list[np.ndarray], category_id: int) -> dict:
    """COCO's record of one object with these outlines: polygons, box (x, y, width, height) and area."""
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
