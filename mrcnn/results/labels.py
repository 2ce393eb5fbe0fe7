"""Label images: 0 is the background, k is object k. napari, ImageJ, Cellpose and scikit-image read them."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcnn import files
from mrcnn.files.calibration import PixelSize, unit_name
from mrcnn.geometry.mask_crops import MaskCrops
from mrcnn.geometry.masks import paint_labels
from mrcnn.geometry.packed_crops import PackedCrops

if TYPE_CHECKING:
    from mrcnn.results.detections import Detections

# The largest value of an image of 16 bits.
LARGEST_SHORT = 2**16 - 1
# Side of the blocks in the label image of a large image, and the pixels of the largest file of 4 GB.
BLOCK, LARGEST_TIFF = 512, 2**29


def label_image(result: "Detections") -> np.ndarray:
    """Return the label image int32 [H, W] of a result; see `mrcnn.geometry.masks.paint_labels`."""
    return paint_labels(result.shape, list(result.crops()), result.get("scores", np.zeros(result.count)))


def is_large(result: "Detections") -> bool:
    """Return whether a result comes from an image that may be larger than memory, by `detect_large`."""
    masks = result["masks"]
    return isinstance(masks, MaskCrops) and isinstance(masks.crops, PackedCrops)


def write_label_blocks(result: "Detections", path: Path) -> Path:
    """Write the label image of a large image as a tiled TIFF file of 32 bits, block by block.

    Object i has the number i + 1, also if some number has no pixel because better objects cover it.

    Args:
        result: The objects.
        path: The file. It gets the suffix .tif.

    Returns:
        The path of the written file.
    """
    import tifffile

    if path.suffix.lower() not in (".tif", ".tiff"):
        path = path.with_name(f"{path.stem}.tif")
    with files.atomic_write(path) as temporary:
        tifffile.imwrite(
            temporary,
            label_blocks(result),
            shape=result.shape,
            dtype=np.uint32,
            tile=(BLOCK, BLOCK),
            compression="zlib",
            bigtiff=result.shape[0] * result.shape[1] > LARGEST_TIFF,
            **_resolution(result.pixel_size),
        )
    return path


def label_blocks(result: "Detections") -> Iterator[np.ndarray]:
    """Yield a label image as blocks uint32 [BLOCK, BLOCK], row by row; those at the far edges are padded."""
    masks = result.mask_crops()
    boxes = np.asarray(masks.boxes).reshape(-1, 4)
    scores = np.asarray(result.get("scores", np.zeros(result.count)))
    order = np.argsort(-scores, kind="stable")[::-1]  # better objects are painted later
    for top in range(0, result.shape[0], BLOCK):
        row = order[(boxes[order, 0] < top + BLOCK) & (boxes[order, 2] > top)]
        for left in range(0, result.shape[1], BLOCK):
            block = np.zeros((BLOCK, BLOCK), np.uint32)
            for index in row[(boxes[row, 1] < left + BLOCK) & (boxes[row, 3] > left)]:
                y1, x1, y2, x2 = (int(side) for side in boxes[index])
                y, x = max(y1, top), max(x1, left)
                part = masks.crops[index][y - y1 : top + BLOCK - y1, x - x1 : left + BLOCK - x1]
                block[y - top : y2 - top, x - left : x2 - left][part] = index + 1
            yield block


def shortened(labels: np.ndarray) -> np.ndarray:
    """Return a label image [H, W] as uint16, or as uint32 if it has larger numbers."""
    return labels.astype(np.uint16 if labels.max(initial=0) <= LARGEST_SHORT else np.uint32)


def write_labels(labels: np.ndarray, path: Path, pixel_size: PixelSize | None = None) -> Path:
    """Write a label image as a PNG file of 16 bits, or as a TIFF file of 16 or 32 bits.

    Args:
        labels: uint16 or uint32 [H, W].
        path: A name that ends in .png or .tif. PNG has no 32 bits: uint32 becomes a file .tif instead.
        pixel_size: Stored in a TIFF file, where ImageJ and napari look for it.

    Returns:
        The path of the written file.
    """
    if path.suffix.lower() == ".png" and labels.dtype == np.uint16:
        from PIL import Image

        with files.atomic_write(path) as temporary:
            Image.fromarray(labels).save(temporary, "PNG")
        return path
    import tifffile

    if path.suffix.lower() not in (".tif", ".tiff"):
        path = path.with_name(f"{path.stem}.tif")
    options = _resolution(pixel_size)
    unit = "" if pixel_size is None else unit_name(pixel_size.unit)
    if pixel_size is not None and unit and labels.dtype == np.uint16:
        # ImageJ reads the unit from the description. 32 bits are no type of ImageJ, so the tags alone remain.
        options = {"resolution": (1 / pixel_size.width, 1 / pixel_size.height)}
        options |= {"imagej": True, "metadata": {"unit": unit}}
    with files.atomic_write(path) as temporary:
        tifffile.imwrite(temporary, labels, compression="zlib", **options)
    return path


def _resolution(pixel_size: PixelSize | None) -> dict[str, Any]:
    """Return the arguments of tifffile.imwrite for the size of a pixel; none without a known unit."""
    side = None if pixel_size is None else pixel_size.in_centimeters()
    if side is None:
        return {}
    height, width = side
    return {"resolution": (1 / width, 1 / height), "resolutionunit": "CENTIMETER"}
