"""The values of black and white in images: one range for a dtype or a dataset, not for each image.

Networks take values of 0 to 255. By default the dtype of an image determines its range:

| dtype | black | white |
|---|---|---|
| uint8 | 0 | 255 |
| uint16 | 0 | 65535 |
| bool | 0 | 1 |
| float | 0 | 1 |
| other integers | 0 | 255 |

Values may lie outside the range, so one bright pixel does not change the others. Many programs use floats
from 0 to 255. A float image is taken to have this range, with a warning, if more than 1% of its values
exceed FLOAT_LIMIT or are far below 0 (as after subtracting the mean color), or if it holds whole numbers
above 1. Training decides this once for the whole dataset. `Config.IMAGE_VALUE_RANGE` sets the range of all
images except uint8 and bool; (0, 255) leaves all values as they are.
"""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mrcnn.errors import InvalidDataError
from mrcnn.typing import Image

if TYPE_CHECKING:
    from mrcnn.config import Config

# Approximate number of pixels of the grid from which percentiles of a large image are computed.
SAMPLED_PIXELS = 1 << 16
# Images whose 99th percentile exceeds this are not on a scale of 0..1.
FLOAT_LIMIT = 2.0
# An image has the wrong range if more than 1% of its values are this many ranges away from it.
FAR = 16
NEXT_STEP = "Set IMAGE_VALUE_RANGE to the values of black and white, such as (0, 4095)."


class ValueRange(NamedTuple):
    """The values of black and white."""

    black: float
    white: float


NETWORK_RANGE = ValueRange(0, 255)
UNIT_RANGE = ValueRange(0, 1)
RANGES = {"uint8": NETWORK_RANGE, "uint16": ValueRange(0, 65535), "bool": UNIT_RANGE}


def value_range(image: Image, config: "Config") -> ValueRange | None:
    """Return the values of an image that become 0 and 255.

    Args:
        image: An original image, before any crop or augmentation; any shape and dtype.
        config: Read for IMAGE_VALUE_RANGE and MEAN_PIXEL.

    Returns:
        The range, or None if the values do not change because IMAGE_VALUE_RANGE is None and MEAN_PIXEL is not
        on a scale of 0 to 255.

    Raises:
        InvalidDataError: If a value is not finite, or the values are far outside the range.

    Warns:
        UserWarning: If the range of a float or integer image had to be guessed and may be another one, or if
            values are far outside IMAGE_VALUE_RANGE = (0, 255).
    """
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise InvalidDataError("The values of an image must be finite. Received: NaN or infinite values.")
    name = image.dtype.name
    chosen: Sequence[float] | None = config.IMAGE_VALUE_RANGE
    is_fixed = name in ("uint8", "bool")
    if not is_scaled(config):
        return None
    if is_fixed or image.size == 0:
        return RANGES.get(name, NETWORK_RANGE)
    dark, bright = (float(value) for value in _percentiles(image))
    if chosen is not None:
        found = ValueRange(float(chosen[0]), float(chosen[1]))
    elif image.dtype.kind == "f":
        found = _range_of_floats(image, dark, bright)
    else:
        found = RANGES.get(name, NETWORK_RANGE)
        _warn_of_integers(image, found)
    reach = FAR * (found.white - found.black)
    if bright > found.white + reach or dark < found.black - reach:
        if chosen is None or found != NETWORK_RANGE:
            raise InvalidDataError(
                f"The values of a {name} image must be near the range from {found.black:g} (black) to "
                f"{found.white:g} (white). Received: values from {image.min()} to {image.max()}. {NEXT_STEP}"
            )
        warnings.warn(  # programs for the Keras 2 library may train on such values
            f"A {name} image has values far outside IMAGE_VALUE_RANGE = (0, 255). They are not scaled. "
            f"{NEXT_STEP}",
            stacklevel=2,
        )
    return found


def is_scaled(config: "Config") -> bool:
    """Return whether images are scaled to 0..255: IMAGE_VALUE_RANGE is set, or MEAN_PIXEL is on this scale.

    Without either, images are those of a network with a scale of its own, such as standardized ones.
    """
    return config.IMAGE_VALUE_RANGE is not None or bool(1.0 < np.max(config.MEAN_PIXEL) <= 255.0)


def is_unit_range(image: Image) -> bool:
    """Return whether a float image is on a scale of 0 to 1; see the module's docstring."""
    return image.size == 0 or _is_unit_range(image, *map(float, _percentiles(image)))


def scaled(image: Image, values: ValueRange | None) -> Image:
    """Scale an image so that its black and white become 0 and 255.

    Args:
        image: Any shape and dtype.
        values: The range of the image; None changes no value.

    Returns:
        The scaled image, float32, or the image itself if nothing changes.
    """
    if image.dtype == bool:
        image = image.astype(np.float32)
    if values is None or values == NETWORK_RANGE:
        return image
    with np.errstate(over="ignore"):  # infinite values raise an error later
        factor = np.float32(255 / (values.white - values.black))
        return (image.astype(np.float32) - np.float32(values.black)) * factor


def unscaled(levels: Image, values: ValueRange, dtype: np.dtype) -> Image:
    """Undo `scaled`.

    Args:
        levels: Any shape, black is 0 and white 255.
        values: The range of the result.
        dtype: The dtype of the result. Integers are rounded, and clipped to what they can hold.
    """
    factor = (values.white - values.black) / 255
    image = levels.astype(np.float64) * factor + values.black
    if dtype.kind == "b":
        return image >= 0.5
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        image = np.clip(np.rint(image), limits.min, limits.max)
    return image.astype(dtype)


def has_lost_scale(before: Image, after: Image) -> bool:
    """Return whether a change of dtype between integers and floats also changed the scale of the values.

    scikit-image, for example, turns integers into floats of 0 to 1.
    """
    if (before.dtype.kind == "f") == (after.dtype.kind == "f") or before.size == 0:
        return False
    dim, bright = sorted(float(_percentiles(image)[1]) for image in (before, after))
    return dim <= FLOAT_LIMIT and bright > FAR * FLOAT_LIMIT


def _is_unit_range(image: Image, dark: float, bright: float) -> bool:
    if dark < -FAR or bright > FLOAT_LIMIT:
        return False
    return bright <= 1 or bool((image % 1).any())


def _range_of_floats(image: Image, dark: float, bright: float) -> ValueRange:
    if _is_unit_range(image, dark, bright):
        return UNIT_RANGE
    warnings.warn(
        "A float image has values far from 0 to 1, so its range is taken to be 0 to 255. Set "
        "IMAGE_VALUE_RANGE = (0, 255) if this holds for all images, or divide the images by the value of "
        "white.",
        stacklevel=2,
    )
    return NETWORK_RANGE


def _warn_of_integers(image: Image, values: ValueRange) -> None:
    name, brightest = image.dtype.name, image.max()
    if values.white == 65535 and 0 < brightest <= 255:
        warnings.warn(
            "A uint16 image has no value above 255, so it is almost black, because white is 65535. Set "
            "IMAGE_VALUE_RANGE = (0, 255) if white is 255.",
            stacklevel=2,
        )
    elif values == NETWORK_RANGE and brightest > 255:
        warnings.warn(
            f"An image of type {name} has values above 255, which is taken as white. {NEXT_STEP}",
            stacklevel=2,
        )


def _percentiles(image: Image) -> np.ndarray:
    """Return the 1st and 99th percentile of an image, from a grid of its pixels."""
    if image.ndim >= 2:
        step = max(1, int(np.sqrt(image.shape[0] * image.shape[1] / SAMPLED_PIXELS)))
        image = image[::step, ::step]
    return np.percentile(image, (1, 99))
