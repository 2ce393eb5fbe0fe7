"""Colors of instances and classes: RGB triples in 0..1. The first seven are safe for color-blind readers."""

import colorsys
import random
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

# Red, green, blue in 0..1; a fourth number (alpha) is ignored.
Color: TypeAlias = Sequence[float]

# Orange, sky blue, bluish green, yellow, blue, vermilion, reddish purple: Okabe and Ito, "Color
# Universal Design", 2008. They stay apart with every common form of color blindness.
PALETTE = (
    (0.902, 0.624, 0.000),
    (0.337, 0.706, 0.914),
    (0.000, 0.620, 0.451),
    (0.941, 0.894, 0.259),
    (0.000, 0.447, 0.698),
    (0.835, 0.369, 0.000),
    (0.800, 0.475, 0.655),
)
GRAY = (0.5, 0.5, 0.5)
GOLDEN_RATIO = 0.618034  # hue steps of this share of the circle never come close to an earlier hue


def random_colors(N: int, bright: bool = True) -> list[tuple[float, float, float]]:
    """Make fully saturated colors at equal steps of hue, in random order (Python's `random`).

    Args:
        N: Number of colors.
        bright: Whether the brightness (HSV value) is 1.0; otherwise it is 0.7.

    Returns:
        A list of N RGB triples in 0..1.
    """
    value = 1.0 if bright else 0.7
    colors = [colorsys.hsv_to_rgb(i / N, 1.0, value) for i in range(N)]
    random.shuffle(colors)
    return colors


def distinct_colors(N: int) -> list[tuple[float, float, float]]:
    """Make N colors that are easy to tell apart, always the same ones.

    The first seven are `PALETTE`. The following ones differ from their neighbors in hue (golden-ratio
    steps) and in brightness.
    """
    extra = (
        colorsys.hsv_to_rgb(i * GOLDEN_RATIO % 1.0, (1.0, 0.6, 0.8)[i % 3], (0.95, 1.0, 0.7)[i % 3])
        for i in range(N - len(PALETTE))
    )
    return [*PALETTE[:N], *extra]


def class_colors(class_ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """Look up the color of each class, which is the same in all images.

    Args:
        class_ids: Class ids [N]. A negative id is a crowd of that class; 0, the background, is gray.

    Returns:
        RGB colors [N, 3], float64 in 0..1.
    """
    numbers = np.abs(np.asarray(class_ids, dtype=np.int64)).reshape(-1)
    palette = np.array([GRAY, *distinct_colors(int(numbers.max(initial=0)))])
    return np.take(palette, numbers, axis=0)


def instance_colors(colors: Sequence[Color] | np.ndarray | None, N: int) -> np.ndarray:
    """Convert the colors that a caller passed, or choose distinct ones.

    Args:
        colors: At least N colors of three or four numbers, in 0..1, or in 0..255 if any number exceeds 1.
            None chooses distinct colors.
        N: Number of instances.

    Returns:
        RGB colors [N, 3], float64 in 0..1.

    Raises:
        ValueError: If there are fewer than N colors, or a color has another length.
    """
    if colors is None:
        colors = distinct_colors(N)
    elif len(colors) < N:
        raise ValueError(
            "`colors` must have one entry per instance. "
            f"Received: len(colors)={len(colors)} for {N} instances"
        )
    if N == 0:
        return np.zeros([0, 3])
    for i, color in enumerate(colors[:N]):
        if np.shape(color) not in ((3,), (4,)):
            raise ValueError(
                "Each entry of `colors` must be three or four numbers (RGB or RGBA). "
                f"Received: colors[{i}]={color!r}"
            )
    values = np.array([np.asarray(color, dtype=np.float64)[:3] for color in colors[:N]])
    return values / 255.0 if values.max() > 1.0 else values


def text_color(background: Color) -> tuple[float, float, float]:
    """Choose black or white, whichever contrasts more with a background color (WCAG 2 luminance)."""
    rgb = np.asarray(background, dtype=np.float64)[:3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    # Contrast with black and with white is equal at sqrt(1.05 * 0.05) - 0.05.
    return (0.0, 0.0, 0.0) if luminance > 0.179 else (1.0, 1.0, 1.0)


def to_255(color: Color) -> tuple[int, int, int]:
    """Convert a color in 0..1 to the integers 0..255 that OpenCV expects; alpha is dropped."""
    red, green, blue = (round(255 * float(value)) for value in color[:3])
    return red, green, blue
