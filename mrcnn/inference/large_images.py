"""The method `detect_large` of `MaskRCNN` and of `Runner`."""

import os
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcnn.results.detections import Detections
from mrcnn.typing import Image

if TYPE_CHECKING:
    from mrcnn.config import Config
    from mrcnn.tiles.detecting import TileModel


class DetectsLargeImages:
    """Part of `mrcnn.model.MaskRCNN` and of `mrcnn.runtime.runner.Runner`."""

    config: Any
    class_names: Any
    keras_model: Any
    _compiled_detector: Callable[[], Any]
    _require_mode: Callable[[str, str], None]

    def _tile_model(self) -> "TileModel":
        """Return the model as `detect_large` uses it. This is that of a MaskRCNN; a Runner has its own."""
        from mrcnn.tiles.detecting import TileModel

        self._require_mode("inference", "detect_large")

        def detect(images: list[Image], settings: "Config") -> list[Detections]:
            found: list[Detections] = self._compiled_detector().detect(images, "cropped", config=settings)
            return found

        def fingerprint() -> int:
            """Return a number that depends on all weights."""
            number = 0
            for weights in self.keras_model.get_weights():
                number = zlib.crc32(np.ascontiguousarray(weights).tobytes(), number)
            return number

        return TileModel(detect, self.config, self.class_names, fingerprint)

    def detect_large(
        self,
        source: Any,
        tile: int = 1024,
        overlap: int | None = None,
        *,
        batch: int = 1,
        resume: str | os.PathLike[str] | None = None,
        progress: bool = True,
        page: int | None = None,
        channels: Sequence[int] | None = None,
        level: int = 0,
    ) -> Detections:
        """Detect the objects of an image of any size, tile by tile.

        Neighboring tiles overlap. Of an object that several tiles see whole, the tile in which it lies
        farthest inside keeps it. An object that no tile sees whole, because it is longer than the overlap, is
        united from its pieces. `mrcnn.tiles.seams` states the rule.

        Contrast (CONTRAST_PERCENTILES) and value range (IMAGE_VALUE_RANGE) are those of the whole image,
        taken from a sample of its pixels. A tile with DETECTION_MAX_INSTANCES detections is divided into four
        if that keeps the scale of the objects, and the model takes images of that size.

        Memory: one batch of tiles, the detections of two rows of tiles, and about 100 bytes and one bit for
        each pixel of its box for each finished object. With `resume`, these bits are on the disk.

        Args:
            source: An array [height, width] or [height, width, channels], also one on disk, or the path of
                a TIFF file, a whole slide or a raster; see `mrcnn.tiles.open_source`.
            tile: Side of the tiles in pixels of the image. `detect` resizes tiles as it does images of this
                size: in the mode "square", tiles of IMAGE_MAX_DIM keep the scale of the objects.
            overlap: Pixels that neighboring tiles share at least; an eighth of `tile` by default. Some tile
                sees any shorter object whole.
            batch: Tiles that the network takes at once.
            resume: A folder for the results of the tiles and the final result. After an interruption, the
                same call goes on from there. `mrcnn.tiles.read_result` reads the result again. The image is
                recognized by the size and time of its file. Arrays, .zarr, PNG and JPEG files and other
                sources are recognized by all pixels, which are read once more.
            progress: Whether to show a progress bar.
            page: Which image of a file with several, from 0.
            channels: Numbers of the channels to read, from 0, for images whose channels are not colors.
            level: Level of a pyramid, 0 for the full size. Results are in pixels of this level.

        Returns:
            The detections, by descending score. Their masks are `MaskCrops`, never whole masks.

        Raises:
            ValueError: If an argument has another value, or the image does not fit the settings.
            MissingFileError, UnreadableFileError, InvalidDataError: If the image cannot be read, or the
                folder belongs to another run.
            ImportError: If the package that reads the image is missing. The error names it.

        Warns:
            UserWarning: If tiles have DETECTION_MAX_INSTANCES detections, with their number.
        """
        from mrcnn.tiles.detecting import detect_large

        return detect_large(
            self._tile_model(),
            source,
            tile=tile,
            overlap=overlap,
            batch=batch,
            resume=resume,
            progress=progress,
            page=page,
            channels=channels,
            level=level,
        )
