"""Convert the outputs of the network to detections in the coordinates of the original image."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mrcnn.errors import CappedWarning
from mrcnn.geometry import boxes
from mrcnn.geometry import mask_pasting as pasting
from mrcnn.geometry.mask_crops import MaskCrops
from mrcnn.results.detections import Detections
from mrcnn.typing import Box, Boxes, ClassIds

if TYPE_CHECKING:
    from mrcnn.config import Config
    from mrcnn.inference.inputs import MoldedImage

# How detect() returns masks: on the whole image, inside their boxes, or as run lengths.
MASK_FORMS = ("full", "cropped", "rle")


def unmold(detections: np.ndarray, class_masks: np.ndarray, molded: "MoldedImage") -> Detections:
    """Map the detections of one molded image back to its original image.

    Args:
        detections: [D, (y1, x1, y2, x2, class_id, score)] normalized; unused slots are zero.
        class_masks: float [N or more, h, w], the probabilities of each detection for its own class.
        molded: The image that the network ran on.
    """
    rois, class_ids, scores, crops = place_in_image(
        detections,
        class_masks,
        original_shape=molded.original_shape,
        image_shape=molded.pixels.shape,
        window=molded.window,
        half_open=molded.half_open,
        mask_pasting=molded.mask_pasting,
    )
    return Detections(rois, class_ids, scores, crops)


def place_in_image(
    detections: np.ndarray,
    class_masks: np.ndarray,
    *,
    original_shape: Sequence[int],
    image_shape: Sequence[int],
    window: Sequence[int],
    half_open: bool = False,
    mask_pasting: str = pasting.BOX,
) -> tuple[Boxes, ClassIds, NDArray[np.float32], MaskCrops]:
    """Map detections from the molded image to the original image.

    Args:
        detections: [D, (y1, x1, y2, x2, class_id, score)] normalized to the molded image; unused slots are
            zero.
        class_masks: float [N or more, h, w], the probabilities of each detection for its own class.
        original_shape: (height, width, ...) of the original image.
        image_shape: (height, width, ...) of the molded image.
        window: (y1, x1, y2, x2) in pixels of the molded image.
        half_open: Whether normalized boxes are half-open; see `mrcnn.geometry.boxes`.
        mask_pasting: A method of `geometry.mask_pasting`.

    Returns:
        Boxes int32 [N, 4] in pixels of the original image, class ids int32 [N], scores float32 [N], and the
        masks. The parts of boxes and masks outside of the image are cut off. Boxes without pixels are left
        out. So are all boxes if the window has a single row or column and boxes are closed, since these then
        have no extent.
    """
    count = count_detections(detections)
    rows = detections[:count]
    class_ids, scores = rows[:, 4].astype(np.int32), rows[:, 5]
    exact = exact_boxes(rows[:, :4], original_shape, image_shape, window, half_open)
    shape = (original_shape[0], original_shape[1])
    # An exported file of one size does not know the window, so it also finds boxes in the padding.
    pixel_boxes = np.clip(np.around(np.nan_to_num(exact)), 0, (*shape, *shape)).astype(np.int32)

    kept = np.flatnonzero((pixel_boxes[:, 2:] > pixel_boxes[:, :2]).all(axis=1))
    pasted = [
        _inside(*pasting.paste(class_masks[index], exact[index], original_shape, mask_pasting), shape)
        for index in kept
    ]
    regions = np.array([region for region, _ in pasted], dtype=np.int32).reshape(-1, 4)
    mask_crops = MaskCrops(shape, regions, tuple(crop for _, crop in pasted))
    return pixel_boxes[kept], class_ids[kept], scores[kept], mask_crops


def _inside(region: Box, crop: np.ndarray, shape: tuple[int, int]) -> tuple[Box, np.ndarray]:
    """Cut a pasted mask to an image of size `shape`."""
    y1, x1, y2, x2 = region
    top, left, bottom, right = max(y1, 0), max(x1, 0), min(y2, shape[0]), min(x2, shape[1])
    return (top, left, bottom, right), crop[top - y1 : bottom - y1, left - x1 : right - x1]


def exact_boxes(
    normalized: np.ndarray,
    original_shape: Sequence[int],
    image_shape: Sequence[int],
    window: Sequence[int],
    half_open: bool,
) -> np.ndarray:
    """Map boxes [N, 4], normalized to the molded image, to pixels of the original image, with fractions.

    The other arguments are those of `place_in_image`. Coordinates along a side on which the window has no
    extent are NaN or infinite.
    """
    wy1, wx1, wy2, wx2 = boxes.norm_boxes(np.asarray(window), image_shape[:2], half_open)
    shift = np.array([wy1, wx1, wy1, wx1])
    scale = np.array([wy2 - wy1, wx2 - wx1, wy2 - wy1, wx2 - wx1])
    with np.errstate(divide="ignore", invalid="ignore"):
        return boxes.denorm_boxes((normalized - shift) / scale, original_shape[:2], half_open, rounded=False)


def with_mask_form(detections: Detections, form: str) -> Detections:
    """Return the detections with their MaskCrops in another form; see `masks_in_form`."""
    return detections.with_masks(masks_in_form(detections["masks"], form))


def completed(
    results: list[Detections], class_names: Sequence[str] | None, config: "Config"
) -> list[Detections]:
    """Complete what `detect` returns, and say if it is cut short.

    Args:
        results: The detections of images. They get the names of the classes.
        class_names: Names by class id, the background first; None if they are not known.
        config: Read for DETECTION_MAX_INSTANCES.

    Returns:
        The same detections.

    Warns:
        CappedWarning: If images have DETECTION_MAX_INSTANCES detections, with their number.
    """
    for result in results:
        result.class_names = None if class_names is None else tuple(class_names)
    limit = config.DETECTION_MAX_INSTANCES
    full = sum(result.count >= limit for result in results)
    if full:
        which = "The image has" if len(results) == 1 else f"{full} of {len(results)} images have"
        warnings.warn(
            f"{which} DETECTION_MAX_INSTANCES={limit} detections, so objects with lower scores may be "
            "missing. Raise this setting or DETECTION_MIN_CONFIDENCE, or use detect_large for large images.",
            CappedWarning,
            stacklevel=3,
        )
    return results


def masks_in_form(crops: MaskCrops, form: str) -> Any:
    """Return masks in one of the MASK_FORMS.

    Args:
        crops: The masks of one image.
        form: "full" for bool [height, width, N]; "cropped" for the MaskCrops; "rle" for N dicts of `size`
            [height, width] and `counts`, COCO's compressed run lengths as text, ready for JSON.

    Raises:
        ValueError: If `form` is unknown.
    """
    check_mask_form(form)
    if form == "full":
        return crops.whole()
    if form == "cropped":
        return crops
    return crops.run_lengths()


def check_mask_form(form: str) -> None:
    """Raise ValueError unless `form` is one of MASK_FORMS."""
    if form not in MASK_FORMS:
        raise ValueError(f"`masks` must be one of {MASK_FORMS}. Received: masks={form!r}")


def count_detections(detections: np.ndarray) -> int:
    """Return the number of used slots in detections [D, 6]: those before the first with class id 0."""
    unused = np.flatnonzero(detections[:, 4] == 0)
    return int(unused[0]) if len(unused) else len(detections)
