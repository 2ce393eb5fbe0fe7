"""Colours of instances: red, green, blue in 0..1, told apart by colour-blind readers where few."""

import colorsys
import random
from collections.abc import Sequence

import numpy as np

# Orange, sky blue, bluish green, yellow, blue, vermilion, reddish purple: Okabe and Ito, "Color
# Universal Design", 2008. Told apart with every common form of colour blindness.
PALETTE = (
    (0.902, 0.624, 0.000),
    (0.337, 0.706, 0.914),
    (0.000, 0.620, 0.451),
    (0.941, 0.894, 0.259),
    (0.000, 0.447, 0.698),
    (0.835, 0.369, 0.000),
    (0.800, 0.475, 0.655),
)
GREY = (0.5, 0.5, 0.5)
GOLDEN_RATIO = 0.618034  # steps of this share of the hue circle never come close to an earlier hue

Color = Sequence[float]


def random_colors(N: int, bright: bool = True) -> list[tuple[float, float, float]]:
    """N fully saturated colours at equal steps of hue, in random order (Python's `random`).

    bright: value 1.0, else 0.7.

    Returns a list of N (red, green, blue) in 0..1.
    """
    value = 1.0 if bright else 0.7
    colors = [colorsys.hsv_to_rgb(i / N, 1.0, value) for i in range(N)]
    random.shuffle(colors)
    return colors


def distinct_colors(N: int) -> list[tuple[float, float, float]]:
    """The same N colours at every call: a palette for colour-blind readers, then further hues.

    Beyond the palette's seven, neighbours differ in hue (golden-ratio steps) and in brightness.
    """
    extra = (
        colorsys.hsv_to_rgb(i * GOLDEN_RATIO % 1.0, (1.0, 0.6, 0.8)[i % 3], (0.95, 1.0, 0.7)[i % 3])
        for i in range(N - len(PALETTE))
    )
    return [*PALETTE[:N], *extra]


def class_colors(class_ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """The colour of each id's class, [N, (red, green, blue)] float64 in 0..1, the same in all pictures.

    class_ids: from 1 on; a negative id is a crowd of that class, 0 (background) is grey.
    """
    numbers = np.abs(np.asarray(class_ids, dtype=np.int64)).reshape(-1)
    palette = np.array([GREY, *distinct_colors(int(numbers.max(initial=0)))])
    return palette[numbers]


def instance_colors(colors: Sequence[Color] | np.ndarray | None, N: int) -> np.ndarray:
    """N colours from what a caller gave, or distinct ones if that is None.

    colors: at least N colours of three or four numbers (alpha is dropped), in 0..1, or in 0..255 if
        any number exceeds 1.

    Returns [N, (red, green, blue)] float64 in 0..1.
    Raises ValueError for fewer than N colours or colours of another length.
    """
    if colors is None:
        colors = distinct_colors(N)
    elif len(colors) < N:
        raise ValueError(f"One colour an instance is wanted, {N}. Received: {len(colors)} colours")
    if N == 0:
        return np.zeros([0, 3])
    if any(np.shape(color) not in ((3,), (4,)) for color in colors[:N]):
        raise ValueError(f"A colour is three or four numbers (RGB or RGBA). Received: colors={colors!r}")
    values = np.array([np.asarray(color, dtype=np.float64)[:3] for color in colors[:N]])
    return values / 255.0 if values.max() > 1.0 else values


def text_color(background: Color) -> tuple[float, float, float]:
    """Black or white, whichever contrasts more with a background colour (WCAG 2 luminance)."""
    rgb = np.asarray(background, dtype=np.float64)[:3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    # Contrast with black and with white is equal at sqrt(1.05 * 0.05) - 0.05.
    return (0.0, 0.0, 0.0) if luminance > 0.179 else (1.0, 1.0, 1.0)


def to_255(color: Color) -> tuple[int, int, int]:
    """A colour in 0..1 as the whole numbers 0..255 that OpenCV wants; alpha is dropped."""
    red, green, blue = (round(255 * float(value)) for value in color[:3])
    return red, green, blue
