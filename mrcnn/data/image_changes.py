"""Changes of position, light and quality that training applies to images at random.

Unless stated otherwise, images are `[height, width, channels]` with values from 0 (black) to 255 (white):
uint8, or float32 whose values may also lie outside. Masks are bool `[height, width, instances]`. Each
function makes one deterministic change and keeps size and dtype. `augmentation_policies` draws the random
numbers.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from mrcnn.typing import Image, Masks

# Color temperature in kelvin -> RGB color of a black body of that temperature.
BLACK_BODY = {
    1500: (255, 109, 0),
    2000: (255, 137, 18),
    2500: (255, 161, 72),
    3000: (255, 180, 107),
    3500: (255, 196, 137),
    4000: (255, 209, 163),
    4500: (255, 219, 186),
    5000: (255, 228, 206),
    5500: (255, 236, 224),
    6000: (255, 243, 239),
    6500: (255, 249, 253),
    7000: (245, 243, 255),
    8000: (227, 233, 255),
    9000: (214, 225, 255),
    10000: (204, 219, 255),
    12000: (191, 211, 255),
}
RESIZED_DTYPES = (np.uint8, np.uint16, np.int16, np.float32, np.float64)  # by OpenCV
HUES = 180  # steps around the circle of hues in OpenCV's HSV


# --- Where objects lie: image and masks move together ---


def quarter_turns(image: Image, masks: Masks, count: int) -> tuple[Image, Masks]:
    """Rotate counterclockwise by `count` times 90 degrees. Images that are not square are stretched."""
    height, width = image.shape[:2]
    image, masks = np.rot90(image, count), np.rot90(masks, count)
    if image.shape[:2] != (height, width):
        image = _resized(image, (width, height), cv2.INTER_LINEAR)
        rows = (np.arange(height) + 0.5) * masks.shape[0] / height
        columns = (np.arange(width) + 0.5) * masks.shape[1] / width
        masks = masks[rows.astype(int)][:, columns.astype(int)]
    return image, masks


def rotate_and_scale(
    image: Image, masks: Masks, degrees: float, scale: float, fill: tuple[int, ...]
) -> tuple[Image, Masks]:
    """Rotate counterclockwise and enlarge about the center of the image.

    Args:
        image: sampled bilinearly.
        masks: sampled at the nearest pixel.
        degrees: angle.
        scale: factor of the size of objects.
        fill: color of the pixels that come from outside the image, at most four values, which repeat over
            more channels. No mask has these pixels.

    Returns:
        The changed image and masks.
    """
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, scale)
    turned = cv2.warpAffine(
        np.ascontiguousarray(image), matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=fill
    )
    image = turned.reshape(image.shape)
    inverse = cv2.invertAffineTransform(matrix)
    y, x = np.mgrid[:height, :width]
    to_x, to_y = np.asarray(inverse)
    source_x = np.rint(to_x[0] * x + to_x[1] * y + to_x[2]).astype(int)
    source_y = np.rint(to_y[0] * x + to_y[1] * y + to_y[2]).astype(int)
    inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
    moved = masks[source_y.clip(0, height - 1), source_x.clip(0, width - 1)]
    return image, moved & inside[..., np.newaxis]


def scale_and_move(
    image: Image, masks: Masks, factor: float, position: tuple[float, float]
) -> tuple[Image, Masks]:
    """Resize an image and crop or pad it to its old shape.

    Args:
        image: `[height, width, channels]` of any dtype. It is averaged over areas if it shrinks, and sampled
            bilinearly if it grows.
        masks: bool `[height, width, instances]`, sampled at the nearest pixel.
        factor: factor of the size of objects.
        position: where the crop lies in the larger image, or the smaller image on the canvas, (y, x) from 0
            (top, left) to 1 (bottom, right).

    Returns:
        The changed image and masks. Pixels outside the image have its mean color and no mask.
    """
    height, width = image.shape[:2]
    size = max(1, round(height * factor)), max(1, round(width * factor))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    values = image if image.dtype in RESIZED_DTYPES else image.astype(np.float64)
    # OpenCV shrinks at most four channels at a time.
    channels = np.moveaxis(values, 2, 0)
    resized = np.stack([cv2.resize(one, size[::-1], interpolation=method) for one in channels], axis=-1)
    if image.dtype.kind in "iu" and values is not image:
        resized = np.rint(resized)
    elif image.dtype == bool:
        resized = resized >= 0.5
    # The part of the resized image that is shown, and where it begins on the canvas.
    shown, place = [], []
    for old, new, where in zip((height, width), size, position, strict=True):
        offset = round((new - old) * where)  # negative if the image has become smaller
        shown.append(slice(max(0, offset), max(0, offset) + min(old, new)))
        place.append(slice(max(0, -offset), max(0, -offset) + min(old, new)))
    canvas = np.empty_like(image)
    mean = image.mean(axis=(0, 1))
    canvas[:] = mean >= 0.5 if image.dtype == bool else mean.astype(image.dtype)
    canvas[place[0], place[1]] = resized[shown[0], shown[1]]
    rows, columns = (
        np.minimum(((np.arange(part.start, part.stop) + 0.5) * old / new).astype(int), old - 1)
        for part, old, new in zip(shown, (height, width), size, strict=True)
    )
    moved = np.zeros_like(masks)
    moved[place[0], place[1]] = masks[rows][:, columns]
    return canvas, moved


# --- Light ---


def multiply(image: Image, factor: float | Sequence[float] | np.ndarray) -> Image:
    """Multiply the brightness by a factor, or each channel by its own."""
    return _map_levels(image, lambda levels: levels * np.asarray(factor))


def change_contrast(image: Image, factor: float) -> Image:
    """Multiply the distance of each value from the middle gray, 127, by a factor."""
    return _map_levels(image, lambda levels: 127 + factor * (levels - 127))


def change_gamma(image: Image, exponent: float) -> Image:
    """Map each value v in 0..1 to v ** exponent. Exponents below 1 lift the shadows, others deepen them."""
    return _map_levels(image, lambda levels: 255 * (np.maximum(levels, 0) / 255) ** exponent)


def change_color_temperature(image: Image, kelvin: float) -> Image:
    """Tint an RGB image as light of a color temperature does: 1500 K (candle) to 12000 K (blue sky)."""
    channels = zip(*BLACK_BODY.values(), strict=True)
    color = [np.interp(kelvin, list(BLACK_BODY), channel) for channel in channels]
    return multiply(image, np.array(color) / 255)


def shift_hue_and_saturation(image: Image, hue: int, saturation: int) -> Image:
    """Add to hue, in steps of 2 degrees around the circle, and to saturation, in levels of 0..255.

    The image is uint8 RGB.
    """
    channels = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2HSV).astype(int)
    channels[..., 0] = (channels[..., 0] + hue) % HUES
    channels[..., 1] = np.clip(channels[..., 1] + saturation, 0, 255)
    return cv2.cvtColor(channels.astype(np.uint8), cv2.COLOR_HSV2RGB)


def _map_levels(image: Image, change: Callable[[np.ndarray], np.ndarray]) -> Image:
    """Change each value by a function of levels `[..., channels]`. uint8 is rounded and clipped to 0..255."""
    if image.dtype != np.uint8:
        return change(image).astype(image.dtype)
    levels = np.arange(256.0)[:, np.newaxis].repeat(image.shape[2], axis=1)
    table = np.clip(np.rint(change(levels)), 0, 255).astype(np.uint8)
    return cv2.LUT(np.ascontiguousarray(image), table[np.newaxis]).reshape(image.shape)


# --- Quality of the image ---


def blur(image: Image, sigma: float) -> Image:
    """Blur with a Gaussian of standard deviation `sigma` in pixels."""
    if sigma < 0.01:  # OpenCV refuses 0
        return image
    return cv2.GaussianBlur(np.ascontiguousarray(image), (0, 0), sigma).reshape(image.shape)


def add_noise(image: Image, noise: np.ndarray) -> Image:
    """Add noise in gray levels: `[height, width, channels]`, or `[height, width, 1]` to all channels."""
    noisy: Image = image + noise
    if image.dtype == np.uint8:
        noisy = np.clip(np.rint(noisy), 0, 255)
    return noisy.astype(image.dtype)


def compress_as_jpeg(image: Image, quality: int) -> Image:
    """Return a uint8 RGB image as it reads back from a JPEG file with a quality from 1 to 95."""
    colors = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", colors, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    return cv2.cvtColor(np.asarray(decoded), cv2.COLOR_BGR2RGB)


def lower_resolution(image: Image, factor: float) -> Image:
    """Shrink the image by a factor below 1, then enlarge it to its original size."""
    height, width = image.shape[:2]
    small = max(1, round(width * factor)), max(1, round(height * factor))
    return _resized(_resized(image, small, cv2.INTER_CUBIC), (width, height), cv2.INTER_CUBIC)


def _resized(image: Image, size: tuple[int, int], interpolation: int) -> Image:
    """Resize an image to (width, height). OpenCV drops the axis of a single channel."""
    resized = cv2.resize(np.ascontiguousarray(image), size, interpolation=interpolation)
    return resized.reshape(*resized.shape[:2], image.shape[2])
