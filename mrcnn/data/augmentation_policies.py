"""One policy of augmentation against other cameras, other light and few images, in two libraries.

`MaskRCNN.train(..., augmentation=camera_policy())` through imgaug, or `albumentations_policy()` for users who
have albumentations. Both draw from the ranges below, at `strength` 1; what moves pixels moves the masks alike.

| group | what | how often |
|---|---|---|
| place | mirrored left to right | 1 in 2 |
| place, any_orientation | upside down, quarter turns | 1 in 2, 3 in 4 |
| place | turned by up to 15 degrees and scaled by 0.8 to 1.25 | 1 in 2 |
| light | up to three of: brightness, contrast, gamma, colour temperature, hue and saturation (stain), gain of each channel | 3 in 4 |
| quality | one of: blur, noise, JPEG artefacts, lower resolution | 1 in 2 |

Crops come from IMAGE_RESIZE_MODE = "crop". Images are uint8 RGB; with CONTRAST_PERCENTILES they are so in any
case. Objects that leave the image in part keep the part that is left.
"""  # noqa: E501 (a table)

from typing import Any

TURN = 15.0  # degrees to either side
SCALE = 0.25  # from 1 / (1 + SCALE) to 1 + SCALE
BRIGHTNESS = 0.5  # factor from 1 / (1 + BRIGHTNESS) to 1 + BRIGHTNESS
CONTRAST = 0.5
GAMMA = 1.0  # 0.5 to 2
GAIN = 0.2  # of each channel by itself
KELVIN = 2500.0  # colour temperature about that of daylight
DAYLIGHT = 6500.0
HUE = 15.0  # of 255 steps around the circle; saturation by three times as many
BLUR = 1.5  # largest standard deviation in pixels
NOISE = 20.0  # largest standard deviation in grey levels
JPEG = (20, 80)  # quality
RESOLUTION = 0.5  # factor of the smallest picture in between


def _around_one(width: float) -> tuple[float, float]:
    return 1 / (1 + width), 1 + width


def camera_policy(strength: float = 1.0, any_orientation: bool = True) -> Any:
    """The policy as an imgaug augmenter.

    strength: factor of the ranges of light, blur, noise and turns; 0 leaves mirroring and JPEG alone.
    any_orientation: whether objects may lie in any direction, as under a microscope or from above; with False
    only left and right are exchanged. Quarter turns of an image that is not square distort it.
    Raises ValueError for a negative strength.
    """
    import imgaug.augmenters as iaa

    _check(strength)
    place = [iaa.Fliplr(0.5)]
    if any_orientation:
        place += [iaa.Flipud(0.5), iaa.Rot90((0, 3))]
    # Any grey outside the image, where there are no masks: its edge or mirror would show objects without one.
    turn = iaa.Affine(
        rotate=(-TURN * strength, TURN * strength), scale=_around_one(SCALE * strength), cval=(0, 255)
    )
    light = [
        iaa.Multiply(_around_one(BRIGHTNESS * strength)),
        iaa.LinearContrast(_around_one(CONTRAST * strength)),
        iaa.GammaContrast(_around_one(GAMMA * strength)),
        iaa.ChangeColorTemperature((DAYLIGHT - KELVIN * strength, DAYLIGHT + KELVIN * strength)),
        iaa.Sequential(
            [
                iaa.AddToHue((round(-HUE * strength), round(HUE * strength))),
                iaa.AddToSaturation((round(-3 * HUE * strength), round(3 * HUE * strength))),
            ]
        ),
        iaa.Multiply(_around_one(GAIN * strength), per_channel=True),
    ]
    quality = [
        iaa.GaussianBlur((0.0, BLUR * strength)),
        iaa.AdditiveGaussianNoise(scale=(0.0, NOISE * strength), per_channel=0.5),
        iaa.JpegCompression(compression=(100 - JPEG[1], 100 - JPEG[0])),
        iaa.KeepSizeByResize(iaa.Resize((RESOLUTION, 1.0))),
    ]
    return iaa.Sequential(
        [
            *place,
            iaa.Sometimes(0.5, turn),
            iaa.SomeOf((0, 3), light),
            iaa.Sometimes(0.5, iaa.OneOf(quality)),
        ]
    )


def albumentations_policy(strength: float = 1.0, any_orientation: bool = True) -> Any:
    """The policy as an albumentations transform; arguments and errors as of `camera_policy`.

    Raises ImportError where albumentations is not installed. Quarter turns need square images.
    """
    import albumentations as A  # noqa: N812 (its users' name for it)

    _check(strength)
    place = [A.HorizontalFlip(p=0.5)]
    if any_orientation:
        place += [A.VerticalFlip(p=0.5), A.RandomRotate90(p=0.75)]
    turn = A.Affine(rotate=(-TURN * strength, TURN * strength), scale=_around_one(SCALE * strength), p=0.5)
    low, high = _around_one(GAMMA * strength)
    light = [
        A.RandomBrightnessContrast((-BRIGHTNESS * strength / 2, BRIGHTNESS * strength / 2), 0, p=1),
        A.RandomBrightnessContrast(0, (-CONTRAST * strength / 2, CONTRAST * strength / 2), p=1),
        A.RandomGamma((100 * low, 100 * high), p=1),
        A.PlanckianJitter(
            temperature_limit=(int(DAYLIGHT - KELVIN * strength), int(DAYLIGHT + KELVIN * strength)), p=1
        ),
        A.HueSaturationValue(HUE * strength, 3 * HUE * strength, 0, p=1),
        A.RGBShift(*[128 * GAIN * strength] * 3, p=1),
    ]
    quality = [
        A.GaussianBlur(blur_limit=0, sigma_limit=(0.0, BLUR * strength), p=1),
        A.GaussNoise(std_range=(0.0, min(1.0, NOISE * strength / 255)), p=1),
        A.ImageCompression(quality_range=JPEG, p=1),
        A.Downscale(scale_range=(RESOLUTION, 0.99), p=1),
    ]
    return A.Compose([*place, turn, A.SomeOf(light, n=2, p=0.75), A.OneOf(quality, p=0.5)])


def _check(strength: float) -> None:
    if not 0 <= strength <= 2:
        raise ValueError(f"strength must be a number from 0 to 2. Received: strength={strength!r}")
