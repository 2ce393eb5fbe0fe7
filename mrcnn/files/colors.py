"""Convert Pillow's image modes to gray or RGB arrays, with the colors that viewers show.

Axes: h, w image as stored.
"""

import io
from typing import TYPE_CHECKING

import numpy as np

from mrcnn.files import tiff_tags
from mrcnn.typing import Image

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

GRAY_PROFILE, RGB_PROFILE, CMYK_PROFILE = "GRAY", "RGB ", "CMYK"  # color spaces of ICC profiles
MULTIPLIED = {"RGBa": "RGBA", "La": "LA"}  # modes whose colors are multiplied by alpha


def as_array(image: "PillowImage") -> Image:
    """Return a decoded image as gray [h, w] or RGB [h, w, 3].

    Palettes and CMYK, YCbCr and LAB colors become RGB. ICC profiles of 8-bit images are applied. An alpha
    channel is dropped.

    Returns:
        uint8, or uint16, int32 or float32 if the image has such values.
    """
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint16)
        photometric = getattr(image, "tag_v2", {}).get(tiff_tags.PHOTOMETRIC)
        is_inverted = photometric == tiff_tags.WHITE_IS_ZERO
        return np.uint16(65535) - values if is_inverted else values
    if image.mode == "I" and image.format == "PNG":  # 16 bits in older versions of Pillow
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("I", "F"):
        return np.asarray(image)
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8) * np.uint8(255)
    if image.mode in MULTIPLIED:
        image = image.convert(MULTIPLIED[image.mode])
    if image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
        # Pillow takes every file for one by Adobe, where 255 stands for no ink.
        from PIL import ImageChops

        profile = image.info.get("icc_profile")
        image = ImageChops.invert(image)
        image.info["icc_profile"] = profile
    image = _without_palette(image)
    return np.asarray(_to_srgb(image))


def of_values(values: np.ndarray, raw_mode: str, profile: bytes | None) -> Image:
    """Return the stored values of pixels as gray [h, w] or RGB [h, w, 3], as if they were read from a file.

    Args:
        values: uint8 [h, w] or [h, w, values per pixel].
        raw_mode: Pillow's name of such values, such as "CMYK", or "RGBa" for colors multiplied by alpha.
        profile: The ICC profile of the colors, or None.
    """
    import PIL.Image

    height, width = values.shape[:2]
    data = np.ascontiguousarray(values).tobytes()
    mode = "RGBA" if raw_mode == "RGBa" else raw_mode
    image = PIL.Image.frombytes(mode, (width, height), data, "raw", raw_mode)
    image.info["icc_profile"] = profile
    return as_array(image)


def _without_palette(image: "PillowImage") -> "PillowImage":
    """Return an image of mode L, RGB, CMYK or LAB."""
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return image
    profile = image.info.get("icc_profile")
    if image.mode == "LA":
        changed = image.getchannel("L")
    else:
        if image.mode in ("P", "PA"):
            image = image.convert("RGBA")  # a conversion to RGB warns of transparency
        changed = image.convert("RGB")
    changed.info["icc_profile"] = profile
    return changed


def _to_srgb(image: "PillowImage") -> "PillowImage":
    """Return an image of mode L or RGB, its color profile followed. A broken profile is ignored."""
    from PIL import ImageCms

    if image.mode == "LAB":
        transform = ImageCms.buildTransform(
            ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
        )
        return ImageCms.applyTransform(image, transform) or image
    plain = image.convert("RGB") if image.mode == "CMYK" else image
    profile = image.info.get("icc_profile")
    if not profile:
        return plain
    wanted = {"L": GRAY_PROFILE, "RGB": RGB_PROFILE, "CMYK": CMYK_PROFILE}[image.mode]
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source) or source.profile.xcolor_space != wanted:
            return plain
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return plain
    if converted is None:
        return plain
    return converted.getchannel("R") if image.mode == "L" else converted
