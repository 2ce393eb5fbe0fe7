"""Fixed changes of camera and illumination, to see how much of a detector's accuracy survives them.

Each takes a picture uint8 [h, w, 3] and returns one of the same shape and type, the same in every call; what
is in it stays in place. Not the augmentation of training: these are for the test.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from mrcnn.evaluation.evaluate import Detect, as_text, evaluate

Shift = Callable[[np.ndarray], np.ndarray]


def gamma(picture: np.ndarray, exponent: float) -> np.ndarray:
    """Each value v of 0..1 to v ** exponent: below 1 lifts the shadows, above 1 deepens them."""
    levels = (np.arange(256) / 255.0) ** exponent * 255
    return np.rint(levels).astype(np.uint8)[picture]


def gain(picture: np.ndarray, factor: float | Sequence[float]) -> np.ndarray:
    """Brightness times a factor, or a factor for each channel: a colour cast. Clipped at 255."""
    return np.clip(np.rint(picture * np.asarray(factor)), 0, 255).astype(np.uint8)


def blur(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur; sigma in pixels."""
    return ndimage.gaussian_filter(picture, (sigma, sigma, 0))


def noise(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian noise in each channel, the same for pictures of one size; sigma in grey levels."""
    added = np.random.default_rng(0).normal(0, sigma, picture.shape)
    return np.clip(np.rint(picture + added), 0, 255).astype(np.uint8)


def jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    """The picture as it comes back from a JPEG file of this quality (1..95)."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def resolution(picture: np.ndarray, factor: float) -> np.ndarray:
    """Made smaller by a factor below 1 and enlarged again, so that the size stays."""
    height, width = picture.shape[:2]
    small = (max(1, round(width * factor)), max(1, round(height * factor)))
    image = Image.fromarray(picture).resize(small, Image.Resampling.BOX)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


SHIFTS: dict[str, Shift] = {
    "none": lambda picture: picture,
    "gamma 0.5": lambda picture: gamma(picture, 0.5),
    "gamma 2": lambda picture: gamma(picture, 2.0),
    "brightness x 0.5": lambda picture: gain(picture, 0.5),
    "brightness x 1.5": lambda picture: gain(picture, 1.5),
    "colour cast": lambda picture: gain(picture, (1.25, 1.0, 0.75)),
    "blur 2 px": lambda picture: blur(picture, 2.0),
    "noise 15 levels": lambda picture: noise(picture, 15.0),
    "JPEG 20": lambda picture: jpeg(picture, 20),
    "half resolution": lambda picture: resolution(picture, 0.5),
}


def evaluate_under_shifts(
    detect: Detect,
    dataset: Any,
    shifts: Mapping[str, Shift] = SHIFTS,
    measures: Sequence[str] = ("mask_AP", "mask_AP50", "mask_AP75", "tau_AP50", "tau_AP70"),
    verbose: int = 1,
    **options: Any,
) -> dict[str, list]:
    """Evaluate a detector once for each shift.

    detect, dataset, options: as for `evaluate.evaluate`; pictures are uint8. shifts: name to function.
    measures: columns of its results that are kept; of the classes together.
    Returns columns of a table with a row for each shift: shift, and the measures.
    """
    options.setdefault("min_score", 0.5)
    table: dict[str, list] = {"shift": [], **{name: [] for name in measures}}
    for name, shift in shifts.items():
        if verbose:
            print(name)
        results = evaluate(_behind(shift, detect), dataset, verbose=verbose, **options)
        table["shift"].append(name)
        for measure in measures:
            table[measure].append(results[measure][0])
    if verbose:
        print(as_text(table, list(table)))
    return table


def _behind(shift: Shift, detect: Detect) -> Detect:
    """The detector of a camera with this fault."""
    return lambda images: detect([shift(np.asarray(image)) for image in images])
