"""An augmentation policy for other cameras, other lighting and small datasets, in two versions.

`MaskRCNN.train(..., augmentation=camera_policy())` needs no additional package. `albumentations_policy()` is
for users of albumentations. Both draw from the ranges below, at `strength` 1. Masks move with the image.

| group | change | probability |
|---|---|---|
| position | mirrored left to right | 1/2 |
| position, any_orientation | upside down; quarter turns | 1/2; 3/4 |
| position | rotated by up to 15 degrees and scaled by 0.8 to 1.25 | 1/2 |
| light | up to three of: brightness, contrast, gamma, color temperature, hue and saturation (stain), gain of each channel | 3/4 |
| quality | one of: blur, noise, JPEG artifacts, lower resolution | 1/2 |

Random crops come from IMAGE_RESIZE_MODE = "crop". Objects that partly leave the image keep the remaining
part. `camera_policy` takes images of any dtype and number of channels. It leaves out what they do not have:
color temperature without three channels, and hue, saturation and JPEG artifacts unless they are uint8 RGB.
"""  # noqa: E501 (a table)

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrcnn.data import image_changes
from mrcnn.data.augmentation import AugmentationError, check_strength
from mrcnn.geometry.value_range import ValueRange, scaled, unscaled
from mrcnn.typing import Image, Masks

TURN = 15.0  # largest angle in degrees, to either side
SCALE = 0.25  # from 1 / (1 + SCALE) to 1 + SCALE
BRIGHTNESS = 0.5  # factor from 1 / (1 + BRIGHTNESS) to 1 + BRIGHTNESS
CONTRAST = 0.5
GAMMA = 1.0  # 0.5 to 2
GAIN = 0.2  # of each channel separately
KELVIN = 2500.0  # color temperature, to either side of daylight
DAYLIGHT = 6500.0
HUE = 15.0  # of 255 steps around the circle; saturation by three times as many
BLUR = 1.5  # largest standard deviation in pixels
NOISE = 20.0  # largest standard deviation in gray levels
JPEG = (20, 80)  # quality
RESOLUTION = 0.5  # smallest factor


def _around_one(width: float) -> tuple[float, float]:
    return 1 / (1 + width), 1 + width


@dataclass(frozen=True)
class CameraPolicy:
    """A random change of an image and its masks; see `camera_policy`. Call it with a NumPy generator."""

    strength: float = 1.0
    any_orientation: bool = True

    def __post_init__(self) -> None:
        check_strength(self.strength)

    def __call__(
        self,
        image: Image,
        masks: Masks,
        rng: np.random.Generator,
        value_range: ValueRange | None = None,
    ) -> tuple[Image, Masks]:
        """Draw one change and apply it.

        Args:
            image: `[height, width, channels]`.
            masks: bool `[height, width, instances]`.
            rng: Source of random numbers.
            value_range: The values of black and white. uint8 images do not need it.

        Returns:
            The changed image and masks, of the same shapes and dtypes.

        Raises:
            AugmentationError: If the image has another shape, or `value_range` is missing.
        """
        if image.ndim != 3:
            raise AugmentationError(
                "`camera_policy` needs images of shape (height, width, channels). Received: "
                f"image.shape={image.shape}"
            )
        if image.dtype == np.uint8:
            return self._changed(image, masks, rng)
        if value_range is None:
            raise AugmentationError(
                f"`camera_policy` needs the values of black and white of {image.dtype} images. Set "
                "IMAGE_VALUE_RANGE, such as (0, 4095), or CONTRAST_PERCENTILES."
            )
        levels = scaled(image, value_range).astype(np.float32)
        levels, masks = self._changed(levels, masks, rng)
        return unscaled(levels, value_range, image.dtype), masks

    def _changed(self, image: Image, masks: Masks, rng: np.random.Generator) -> tuple[Image, Masks]:
        """Change an image whose values are from 0 to 255, uint8 or float32."""
        image, masks = self._change_position(image, masks, rng)
        lights = self._light_changes(image, rng)
        # Any number from 0 to 3 of the changes, in the order of the list.
        for index in sorted(rng.choice(len(lights), size=rng.integers(4), replace=False)):
            image = lights[index](image)
        if rng.random() < 0.5:
            qualities = self._quality_changes(image, rng)
            image = qualities[rng.integers(len(qualities))](image)
        return np.ascontiguousarray(image), masks

    def _change_position(self, image: Image, masks: Masks, rng: np.random.Generator) -> tuple[Image, Masks]:
        if rng.random() < 0.5:
            image, masks = np.fliplr(image), np.fliplr(masks)
        if self.any_orientation:
            if rng.random() < 0.5:
                image, masks = np.flipud(image), np.flipud(masks)
            image, masks = image_changes.quarter_turns(image, masks, int(rng.integers(4)))
        if rng.random() < 0.5:
            degrees = rng.uniform(-TURN * self.strength, TURN * self.strength)
            scale = rng.uniform(*_around_one(SCALE * self.strength))
            # A random color outside the image. Its edge or mirror image would show objects without a mask.
            fill = tuple(int(level) for level in rng.integers(256, size=min(4, image.shape[2])))
            image, masks = image_changes.rotate_and_scale(image, masks, degrees, scale, fill)
        return image, masks

    def _light_changes(self, image: Image, rng: np.random.Generator) -> list[Callable[[Image], Image]]:
        """Return one function per change. Each draws its strength when it is called."""
        strength = self.strength
        hue = round(HUE * strength)

        def around_one(width: float, size: int | None = None) -> Any:
            return rng.uniform(*_around_one(width * strength), size)

        def hue_and_saturation(image: Image) -> Image:
            # HUE counts 255 steps around the circle.
            shift = int(rng.integers(-hue, hue + 1) * image_changes.HUES / 255)
            saturation = int(rng.integers(-3 * hue, 3 * hue + 1))
            return image_changes.shift_hue_and_saturation(image, shift, saturation)

        def color_temperature(image: Image) -> Image:
            kelvin = rng.uniform(DAYLIGHT - KELVIN * strength, DAYLIGHT + KELVIN * strength)
            return image_changes.change_color_temperature(image, kelvin)

        channels = image.shape[2]
        return [
            lambda image: image_changes.multiply(image, around_one(BRIGHTNESS)),
            lambda image: image_changes.change_contrast(image, around_one(CONTRAST)),
            lambda image: image_changes.change_gamma(image, around_one(GAMMA)),
            *([color_temperature] if channels == 3 else []),
            *([hue_and_saturation] if _is_8_bit_color(image) else []),
            lambda image: image_changes.multiply(image, around_one(GAIN, size=channels)),
        ]

    def _quality_changes(self, image: Image, rng: np.random.Generator) -> list[Callable[[Image], Image]]:
        """Return one function per change. Each draws its strength when it is called."""

        def noise(image: Image) -> Image:
            sigma = rng.uniform(0, NOISE * self.strength)
            channels = image.shape[2] if rng.random() < 0.5 else 1
            return image_changes.add_noise(image, rng.normal(0, sigma, (*image.shape[:2], channels)))

        def jpeg(image: Image) -> Image:
            return image_changes.compress_as_jpeg(image, int(rng.integers(JPEG[0], JPEG[1] + 1)))

        return [
            lambda image: image_changes.blur(image, rng.uniform(0, BLUR * self.strength)),
            noise,
            *([jpeg] if _is_8_bit_color(image) else []),
            lambda image: image_changes.lower_resolution(image, rng.uniform(RESOLUTION, 1)),
        ]


def _is_8_bit_color(image: Image) -> bool:
    return image.dtype == np.uint8 and image.shape[2] == 3


def camera_policy(strength: float = 1.0, any_orientation: bool = True) -> CameraPolicy:
    """Return the policy as a function of an image and its masks.

    Args:
        strength: Factor, from 0 to 2, of the ranges of light, blur, noise, rotation and scale. At 0,
            mirroring, quarter turns, JPEG and lower resolution remain.
        any_orientation: Whether objects may have any orientation, as under a microscope or from above.
            If False, images are only mirrored left to right. Quarter turns stretch an image that is not
            square.

    Returns:
        An augmentation for `MaskRCNN.train`.

    Raises:
        ValueError: If `strength` is not a number from 0 to 2.
    """
    return CameraPolicy(strength, any_orientation)


@dataclass(frozen=True)
class ScaleJitter:
    """A random size and position of the whole image; see `scale_jitter`. Call it with a NumPy generator."""

    smallest: float
    largest: float

    def __call__(self, image: Image, masks: Masks, rng: np.random.Generator) -> tuple[Image, Masks]:
        """Draw one factor and one position and apply them.

        Args:
            image: `[height, width, channels]` of any dtype.
            masks: bool `[height, width, instances]`.
            rng: Source of random numbers.

        Returns:
            The changed image and masks, of the same shapes.
        """
        factor = float(np.exp(rng.uniform(np.log(self.smallest), np.log(self.largest))))
        return image_changes.scale_and_move(image, masks, factor, (rng.random(), rng.random()))


def scale_jitter(smallest: float = 0.1, largest: float = 2.0) -> ScaleJitter:
    """Return large-scale jitter (Ghiasi et al. 2021) as a function of an image and its masks.

    The image is resized by a random factor. A larger one is cropped to its old shape at a random position, a
    smaller one lies at a random position on gray.

    Args:
        smallest, largest: Range of the factor. Its logarithm is uniform, so that halving and doubling are
            equally likely.

    Returns:
        An augmentation for `MaskRCNN.train`.

    Raises:
        ValueError: If the range is empty, or not within 0.01 to 100.
    """
    if not 0.01 <= smallest <= largest <= 100:
        raise ValueError(
            "`smallest` and `largest` must be a range within 0.01 to 100. Received: "
            f"smallest={smallest!r}, largest={largest!r}"
        )
    return ScaleJitter(smallest, largest)


def albumentations_policy(strength: float = 1.0, any_orientation: bool = True) -> Any:
    """Return the policy as an albumentations transform.

    Args:
        strength: As in `camera_policy`.
        any_orientation: As in `camera_policy`. Quarter turns need square images.

    Returns:
        An `albumentations.Compose` for `MaskRCNN.train`.

    Raises:
        ImportError: If albumentations is not installed.
        ValueError: If `strength` is not a number from 0 to 2.
    """
    import albumentations as A  # noqa: N812 (its users' name for it)

    check_strength(strength)
    position = [A.HorizontalFlip(p=0.5)]
    if any_orientation:
        position += [A.VerticalFlip(p=0.5), A.RandomRotate90(p=0.75)]
    turn = A.Affine(rotate=(-TURN * strength, TURN * strength), scale=_around_one(SCALE * strength), p=0.5)
    low, high = _around_one(GAMMA * strength)
    light = [
        A.RandomBrightnessContrast((-BRIGHTNESS * strength / 2, BRIGHTNESS * strength / 2), 0, p=1),
        A.RandomBrightnessContrast(0, (-CONTRAST * strength / 2, CONTRAST * strength / 2), p=1),
        A.RandomGamma((100 * low, 100 * high), p=1),
        A.PlanckianJitter(temperature_limit=_kelvin_limits(strength), p=1),
        A.HueSaturationValue(HUE * strength, 3 * HUE * strength, 0, p=1),
        A.RGBShift(*[128 * GAIN * strength] * 3, p=1),
    ]
    quality = [
        A.GaussianBlur(blur_limit=0, sigma_limit=(0.0, BLUR * strength), p=1),
        A.GaussNoise(std_range=(0.0, min(1.0, NOISE * strength / 255)), p=1),
        A.ImageCompression(quality_range=JPEG, p=1),
        A.Downscale(scale_range=(RESOLUTION, 0.99), p=1),
    ]
    return A.Compose([*position, turn, A.SomeOf(light, n=2, p=0.75), A.OneOf(quality, p=0.5)])


def _kelvin_limits(strength: float) -> tuple[int, int]:
    """Return the lowest and highest color temperature in kelvins that albumentations draws from."""
    width = max(1, int(KELVIN * strength))
    return max(3000, 6000 - width), min(15000, 6000 + width)
