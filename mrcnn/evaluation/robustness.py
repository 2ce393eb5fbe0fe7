"""Fixed changes of camera and lighting, to measure how robust a detector is.

Each change takes an image, uint8 [H, W, 3], and deterministically returns an image of the same shape and
dtype. Objects do not move. These changes are for evaluation; training has its own augmentation.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image as PillowImage
from scipy import ndimage

from mrcnn.evaluation.evaluate import Detect, Detections, as_text, evaluate
from mrcnn.typing import Image

if TYPE_CHECKING:
    from mrcnn.dataset import Dataset

Shift: TypeAlias = Callable[[Image], Image]


def gamma(image: Image, exponent: float) -> Image:
    """Raise each value, scaled to 0..1, to a power.

    Args:
        image: uint8 [H, W, 3].
        exponent: Below 1 brightens the shadows, above 1 darkens them.
    """
    levels = np.rint((np.arange(256) / 255.0) ** exponent * 255).astype(np.uint8)
    shifted: Image = levels[image]
    return shifted


def gain(image: Image, factor: float | Sequence[float]) -> Image:
    """Multiply the values and clip them at 255.

    Args:
        image: uint8 [H, W, 3].
        factor: One factor, or one for each channel, which gives a color cast.
    """
    shifted: Image = np.clip(np.rint(image * np.asarray(factor)), 0, 255).astype(np.uint8)
    return shifted


def blur(image: Image, sigma: float) -> Image:
    """Blur with a Gaussian.

    Args:
        image: uint8 [H, W, 3].
        sigma: Standard deviation in pixels.
    """
    shifted: Image = ndimage.gaussian_filter(image, (sigma, sigma, 0))
    return shifted


def noise(image: Image, sigma: float) -> Image:
    """Add Gaussian noise to each channel, the same for all images of one size.

    Args:
        image: uint8 [H, W, 3].
        sigma: Standard deviation in gray levels.
    """
    added = np.random.default_rng(0).normal(0, sigma, image.shape)
    shifted: Image = np.clip(np.rint(image + added), 0, 255).astype(np.uint8)
    return shifted


def jpeg(image: Image, quality: int) -> Image:
    """Compress as JPEG and decode again.

    Args:
        image: uint8 [H, W, 3].
        quality: JPEG quality, 1 to 95.
    """
    file = io.BytesIO()
    PillowImage.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(PillowImage.open(file))


def resolution(image: Image, factor: float) -> Image:
    """Shrink the image and enlarge it to its original size.

    Args:
        image: uint8 [H, W, 3].
        factor: Scale of the smaller image, below 1.
    """
    height, width = image.shape[:2]
    small = (max(1, round(width * factor)), max(1, round(height * factor)))
    smaller = PillowImage.fromarray(image).resize(small, PillowImage.Resampling.BOX)
    return np.asarray(smaller.resize((width, height), PillowImage.Resampling.BILINEAR))


SHIFTS: dict[str, Shift] = {
    "none": lambda image: image,
    "gamma 0.5": lambda image: gamma(image, 0.5),
    "gamma 2": lambda image: gamma(image, 2.0),
    "brightness x 0.5": lambda image: gain(image, 0.5),
    "brightness x 1.5": lambda image: gain(image, 1.5),
    "color cast": lambda image: gain(image, (1.25, 1.0, 0.75)),
    "blur 2 px": lambda image: blur(image, 2.0),
    "noise 15 levels": lambda image: noise(image, 15.0),
    "JPEG 20": lambda image: jpeg(image, 20),
    "half resolution": lambda image: resolution(image, 0.5),
}


def evaluate_under_shifts(
    detect: Detect,
    dataset: "Dataset",
    shifts: Mapping[str, Shift] = SHIFTS,
    measures: Sequence[str] | None = None,
    verbose: int = 1,
    **options: Any,
) -> dict[str, list[Any]]:
    """Evaluate a detector once for each shift.

    Args:
        detect: See `evaluate.evaluate`.
        dataset: A prepared Dataset of uint8 images.
        shifts: Name to function.
        measures: Columns of the results to report, from the first row, for all classes. By default the AP of
            masks, or of boxes if `iou_types` has no masks, and AP(tau).
        verbose: 1 to show progress and print the table.
        **options: Further arguments of `evaluate.evaluate`, but not `results_path`. `min_score` is 0.5 by
            default.

    Returns:
        The columns of a table with a row for each shift: shift, and the measures.

    Raises:
        ValueError: If there are no images, images are not uint8, or a measure is not among the results.
    """
    if options.get("results_path") is not None:
        raise ValueError(
            "`results_path` must be None, because each shift would overwrite the file of the previous one. "
            f"Received: results_path={options['results_path']!r}"
        )
    options.setdefault("min_score", 0.5)
    if measures is None:
        kind = "mask" if "mask" in options.get("iou_types", ("mask",)) else "box"
        measures = (f"{kind}_AP", f"{kind}_AP50", f"{kind}_AP75", "tau_AP50", "tau_AP70")
    table: dict[str, list[Any]] = {"shift": [], **{name: [] for name in measures}}
    for name, shift in shifts.items():
        if verbose:
            print(name)
        results = evaluate(_after(shift, detect), dataset, verbose=verbose, **options)
        unknown = [measure for measure in measures if measure not in results]
        if unknown:
            raise ValueError(f"`measures` must be some of {sorted(results)}. Received: {unknown}")
        table["shift"].append(name)
        for measure in measures:
            table[measure].append(results[measure][0])
    if verbose:
        print(as_text(table, list(table)))
    return table


def _after(shift: Shift, detect: Detect) -> Detect:
    """Return a detector that sees shifted images."""

    def detect_shifted(images: list[Image]) -> Sequence[Detections]:
        for image in map(np.asarray, images):
            if image.dtype != np.uint8:
                raise ValueError(
                    "Images must be uint8, because shifts change values from 0 to 255. Received: "
                    f"image.dtype={image.dtype}. Convert them in load_image."
                )
        return detect([shift(np.asarray(image)) for image in images])

    return detect_shifted
