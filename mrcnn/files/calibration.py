"""Where the pixels of an image lie in the world: their size, and the map coordinates of an aerial image."""

from dataclasses import dataclass


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
        if not (0 < self.height < float("inf") and 0 < self.width < float("inf")):
            raise ValueError(
                "The sides of a pixel must be positive numbers. "
                f"Received: height={self.height}, width={self.width}"
            )


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
