"""Calibration of an image: the size of its pixels, and the map coordinates of an aerial image."""

import contextlib
import math
import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from mrcnn.files import tiff_tags

TIFF_SUFFIXES = {".tif", ".tiff", ".btf", ".tf8"}
MICROMETERS_PER_CENTIMETER = 1e4
PIXEL_IS_POINT = 2
USER_DEFINED = 32767  # a coordinate system without a number
# Spellings of units, in lower case. All become ASCII, because they name columns of tables, and ImageJ
# takes nothing else.
UNITS = {
    "µm": "um",  # the micro sign
    "\u03bcm": "um",  # the Greek letter
    "micron": "um",
    "microns": "um",
    "micrometer": "um",
    "inch": "in",
    "å": "angstrom",
    "ångström": "angstrom",
    "ångströms": "angstrom",
    "angstroms": "angstrom",
}
# Centimeters in each unit.
CENTIMETERS = {"angstrom": 1e-8, "nm": 1e-7, "um": 1e-4, "mm": 0.1, "cm": 1.0, "m": 100.0, "in": 2.54}
# The longest description that is searched; longer ones are no metadata of pixels.
LONGEST_DESCRIPTION = 1 << 24


@dataclass(frozen=True)
class PixelSize:
    """The size of one pixel.

    Attributes:
        height, width: Length of its sides in `unit`.
        unit: Name of the unit, such as "um" or "mm".

    Raises:
        ValueError: If a side is not a positive number.
    """

    height: float
    width: float
    unit: str = "um"

    def __post_init__(self) -> None:
        if not (0 < self.height < math.inf and 0 < self.width < math.inf):
            raise ValueError(
                "The sides of a pixel must be positive numbers. "
                f"Received: height={self.height}, width={self.width}"
            )

    def in_centimeters(self) -> tuple[float, float] | None:
        """Return height and width in centimeters, or None if the unit is not known."""
        length = CENTIMETERS.get(unit_name(self.unit))
        return None if length is None else (self.height * length, self.width * length)


@dataclass(frozen=True)
class GeoReference:
    """The place of an image on a map.

    Attributes:
        transform: (a, b, c, d, e, f), as in rasterio: column x and row y of the image have the map
            coordinates (a x + b y + c, d x + e y + f). The upper left corner of the image is column 0, row 0.
        crs: The coordinate system, such as "EPSG:32633"; None if it is not known.
    """

    transform: tuple[float, float, float, float, float, float]
    crs: str | None = None

    def to_map(self, points: np.ndarray) -> np.ndarray:
        """Return the map coordinates [P, 2] of points (x, y) [P, 2] in pixels."""
        a, b, c, d, e, f = self.transform
        return np.asarray(points) @ np.array([[a, d], [b, e]]) + (c, f)

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Return points (x, y) [P, 2] in pixels of map coordinates [P, 2]."""
        a, b, c, d, e, f = self.transform
        return (np.asarray(points) - (c, f)) @ np.linalg.inv(np.array([[a, d], [b, e]]))


@dataclass(frozen=True)
class Calibration:
    """The calibration in the metadata of a file. Fields that the metadata lack are None."""

    pixel_size: PixelSize | None = None
    georeference: GeoReference | None = None


def read_calibration(path: str | os.PathLike[str]) -> Calibration:
    """Read the size of a pixel and the place on a map from the metadata of a TIFF file.

    The size comes from OME-TIFF, ImageJ and Aperio metadata, or from tags in centimeters. Tags in inches are
    not used, because they only tell how large to print a photo. The place comes from GeoTIFF tags.

    Returns:
        The calibration, which is empty for other files and for missing or damaged metadata.
    """
    if Path(path).suffix.lower() not in TIFF_SUFFIXES | {".svs"}:
        return Calibration()
    import tifffile

    found = Calibration()
    # Damaged metadata raise errors of many kinds.
    with contextlib.suppress(Exception), tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[0]
        georeference = _georeference(page.geotiff_tags or {})
        found = Calibration(None, georeference)
        if georeference is None:
            found = Calibration(_pixel_size(tiff, page))
    return found


def _pixel_size(tiff: Any, page: Any) -> PixelSize | None:
    description = str(page.description)[:LONGEST_DESCRIPTION]
    if tiff.is_ome:
        return _of_ome(tiff.ome_metadata or "")
    if tiff.is_imagej:
        unit = unit_name(str((tiff.imagej_metadata or {}).get("unit", "")))
        x, y = _resolution(page)
        return PixelSize(1 / y, 1 / x, unit) if unit and unit != "pixel" and x and y else None
    if mpp := re.search(r"\bMPP = ([0-9.]+)", description):  # micrometers per pixel of Aperio scanners
        return PixelSize(float(mpp[1]), float(mpp[1]))
    x, y = _resolution(page)
    if x and y and page.tags.valueof(tiff_tags.RESOLUTION_UNIT) == tiff_tags.CENTIMETER:
        return PixelSize(MICROMETERS_PER_CENTIMETER / y, MICROMETERS_PER_CENTIMETER / x)
    return None


def _resolution(page: Any) -> tuple[float, float]:
    """Return the pixels per unit along x and y; 0 if a tag is missing."""
    fractions = (page.tags.valueof(tag, (0, 1)) for tag in (tiff_tags.X_RESOLUTION, tiff_tags.Y_RESOLUTION))
    x, y = (top / bottom if bottom else 0.0 for top, bottom in fractions)
    return x, y


def _of_ome(text: str) -> PixelSize | None:
    root = ElementTree.fromstring(text[:LONGEST_DESCRIPTION])
    pixels = next((element for element in root.iter() if element.tag.endswith("}Pixels")), None)
    if pixels is None or "PhysicalSizeX" not in pixels.attrib or "PhysicalSizeY" not in pixels.attrib:
        return None
    unit = unit_name(pixels.attrib.get("PhysicalSizeXUnit", "um"))
    if not unit or unit_name(pixels.attrib.get("PhysicalSizeYUnit", "um")) != unit:
        return None
    return PixelSize(float(pixels.attrib["PhysicalSizeY"]), float(pixels.attrib["PhysicalSizeX"]), unit)


def unit_name(text: str) -> str:
    """Return the name of a unit: "um" for micrometers in any spelling, and "" unless the name is ASCII."""
    # ImageJ writes a letter that is not ASCII as a backslash, "u" and four digits.
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), text.strip())
    text = unicodedata.normalize("NFC", text)
    name = UNITS.get(text.lower(), text)
    return name if name.isascii() else ""


def _georeference(tags: Mapping[str, Any]) -> GeoReference | None:
    if "ModelTransformation" in tags:
        (a, b, _, c), (d, e, _, f) = np.asarray(tags["ModelTransformation"], float).reshape(4, 4)[:2].tolist()
    elif "ModelPixelScale" in tags and "ModelTiepoint" in tags:
        width, height = (float(side) for side in tags["ModelPixelScale"][:2])
        column, row, _, x, y = (float(number) for number in tags["ModelTiepoint"][:5])
        a, b, c, d, e, f = width, 0.0, x - column * width, 0.0, -height, y + row * height
    else:
        return None
    if tags.get("GTRasterTypeGeoKey") == PIXEL_IS_POINT:  # the numbers are those of the center of a pixel
        c, f = c - (a + b) / 2, f - (d + e) / 2
    numbers = (int(tags.get(name, 0)) for name in ("ProjectedCSTypeGeoKey", "GeographicTypeGeoKey"))
    code = next((number for number in numbers if 0 < number < USER_DEFINED), None)
    return GeoReference((a, b, c, d, e, f), None if code is None else f"EPSG:{code}")
