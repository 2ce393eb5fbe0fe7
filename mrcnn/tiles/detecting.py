"""Detection in an image of any size, tile by tile."""

import contextlib
import os
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from mrcnn.geometry.images import SIZE_MULTIPLE, image_scale
from mrcnn.geometry.preprocessing import check_choice
from mrcnn.results.detections import Detections
from mrcnn.tiles.contrast import TilePreparation, fingerprint_of
from mrcnn.tiles.folder import VERSION, ResultWriter, TileResult, TileStore, found_in
from mrcnn.tiles.grid import check_batch, check_tile, grid, quarters
from mrcnn.tiles.seams import Sweep
from mrcnn.tiles.sources import ImageSource, open_source
from mrcnn.typing import Box, Image

if TYPE_CHECKING:
    from mrcnn.config import Config

# From images and settings to the detections of each image, in pixels of the image.
DetectTiles = Callable[[list[Image], "Config"], Sequence[Detections]]


@dataclass(frozen=True)
class TileModel:
    """A model as `detect_large` uses it.

    Attributes:
        detect: A function from prepared tiles and settings to the detections of each tile.
        config: Its settings.
        class_names: Names by class id, the background first; None if they are not known.
        fingerprint: A value that identifies the weights, for `resume`.
        takes: Whether it detects in tiles of a (height, width) in pixels of the image.
    """

    detect: DetectTiles
    config: "Config"
    class_names: Sequence[str] | None = None
    fingerprint: Callable[[], Any] = lambda: None
    takes: Callable[[tuple[int, int]], bool] = lambda size: True


def detect_large(
    model: TileModel,
    source: Any,
    *,
    tile: int = 1024,
    overlap: int | None = None,
    batch: int = 1,
    resume: str | os.PathLike[str] | None = None,
    progress: bool = True,
    page: int | None = None,
    channels: Sequence[int] | None = None,
    level: int = 0,
) -> Detections:
    """Detect the objects in an image of any size, tile by tile.

    `MaskRCNN.detect_large` and `Runner.detect_large` describe the arguments.

    Args:
        model: The model.
        source: See `open_source`.
        tile, overlap, batch, resume, progress, page, channels, level: See `MaskRCNN.detect_large`.

    Returns:
        The detections, by descending score.
    """
    tile, overlap = check_tile(tile, overlap)
    batch = check_batch(batch)
    opened = open_source(source, page=page, channels=channels, level=level)
    try:
        check_choice(channels, model.config)
        run = _Run(model, opened, tile, overlap, batch, resume)
        with contextlib.closing(run.store):
            return run.detect(progress)
    finally:
        if opened is not source:
            opened.close()


class _Run:
    """A run of detection in one image. The arguments are those of `detect_large`, validated."""

    def __init__(
        self,
        model: TileModel,
        source: ImageSource,
        tile: int,
        overlap: int,
        batch: int,
        folder: str | os.PathLike[str] | None,
    ) -> None:
        self.model, self.source, self.overlap, self.batch = model, source, overlap, batch
        self.rows = grid(source.shape, tile, overlap)
        self.tiles = [one for row in self.rows for one in row]
        self.preparation = TilePreparation(source, model.config, batch)
        self.store = TileStore(folder, self._description(tile) if folder is not None else {})
        self.full = 0

    def _description(self, tile: int) -> dict[str, Any]:
        """Return what the results depend on, and the facts about the image for `read_result`."""
        source, calibration = self.source, self.source.calibration
        identity = source.identity()
        settings = self.model.config.stored_settings()
        settings.pop("IMAGES_PER_GPU", None)
        settings.pop("BATCH_SIZE", None)
        pixel, place = calibration.pixel_size, calibration.georeference
        return {
            "version": VERSION,
            "tile": tile,
            "overlap": self.overlap,
            "image": {
                "path": None if source.path is None else os.path.abspath(source.path),
                "shape": list(source.shape),
                "channels": source.channels,
                "dtype": str(source.dtype),
                "pixels": self.preparation.fingerprint if identity else fingerprint_of(source, tile),
            },
            "source": identity,
            "weights": self.model.fingerprint(),
            "settings": settings,
            "class_names": None if self.model.class_names is None else list(self.model.class_names),
            "pixel_size": pixel and [pixel.height, pixel.width, pixel.unit],
            "georeference": place and [list(place.transform), place.crs],
        }

    def detect(self, progress: bool) -> Detections:
        """Detect in the remaining tiles, and join the objects of all tiles."""
        writer = ResultWriter(self.store.folder)
        with tqdm(total=len(self.tiles), desc="Detecting", unit="tile", disable=not progress) as bar:
            numbers = [number for number in range(len(self.tiles)) if number not in self.store]
            bar.update(len(self.tiles) - len(numbers))
            # After an error, the thread that reads ahead must end before the source is closed.
            with contextlib.closing(self._detect_tiles(numbers, bar)) as done, writer.opened():
                self._join(done, writer)
        if self.full:
            self._warn_of_full_tiles()
        result = writer.result(self.source.shape)
        names = self.model.class_names
        result.class_names = None if names is None else tuple(names)
        result.path = self.source.path
        calibration = self.source.calibration
        result.pixel_size, result.georeference = calibration.pixel_size, calibration.georeference
        return result

    def _join(self, done: Iterator[None], writer: ResultWriter) -> None:
        """Detect until a row of tiles is complete, and add the objects that no later row can change."""
        sweep, first = Sweep(), 0
        for index, row in enumerate(self.rows):
            numbers = range(first, first + len(row))
            first += len(row)
            while not all(number in self.store for number in numbers):
                next(done)
            found = []
            for number in numbers:
                arrays = self.store.take(number)
                self.full += int(arrays["full"])
                found += found_in(arrays, self.source.shape)
            next_top = self.rows[index + 1][0][0] if index + 1 < len(self.rows) else None
            writer.add(sweep.add(found, next_top))

    def _detect_tiles(self, numbers: Sequence[int], bar: Any) -> Generator[None, None, None]:
        """Detect in batches of tiles. One thread reads the next batch while the network runs."""
        batches = [numbers[start : start + self.batch] for start in range(0, len(numbers), self.batch)]
        with ThreadPoolExecutor(1, "tiles") as reader:
            ahead: Future[list[Image]] | None = None
            for index, batch in enumerate(batches):
                images = ahead.result() if ahead is not None else self._read(batch)
                if index + 1 < len(batches):
                    ahead = reader.submit(self._read, batches[index + 1])
                results = self.model.detect(images, self.preparation.settings)
                for number, image, found in zip(batch, images, results, strict=True):
                    self.store.put(number, self._divided(self.tiles[number], image, found))
                    bar.update()
                yield

    def _read(self, numbers: Sequence[int]) -> list[Image]:
        return [self.preparation.prepare(self.source.window(*self.tiles[number])) for number in numbers]

    def _is_full(self, found: Detections) -> bool:
        return found.count >= self.model.config.DETECTION_MAX_INSTANCES

    def _divided(self, tile: Box, image: Image, found: Detections) -> TileResult:
        """Return the result of a tile. A full tile is divided into four if possible."""
        if not self._is_full(found):
            return TileResult(((tile, found),))
        parts = self._parts(tile)
        if not parts:
            return TileResult(((tile, found),), full=1)
        results = []
        for y1, x1, y2, x2 in parts:
            part = image[y1 - tile[0] : y2 - tile[0], x1 - tile[1] : x2 - tile[1]]
            (one,) = self.model.detect([part], self.preparation.settings)
            results.append(self._divided((y1, x1, y2, x2), part, one))
        return TileResult(
            tuple(part for result in results for part in result.parts), sum(result.full for result in results)
        )

    def _parts(self, tile: Box) -> list[Box]:
        """Return four parts of a tile, or none if objects change their scale or the model takes no parts."""
        is_padded = self.model.config.IMAGE_RESIZE_MODE != "none"
        parts = quarters(tile, self.overlap, 1 if is_padded else SIZE_MULTIPLE)
        if not parts:
            return []
        whole, size = ((y2 - y1, x2 - x1) for y1, x1, y2, x2 in (tile, parts[0]))
        return parts if self._scale(size) == self._scale(whole) and self.model.takes(size) else []

    def _scale(self, size: tuple[int, int]) -> float:
        """Return the factor by which the network enlarges a tile of size (height, width)."""
        config = self.model.config
        return image_scale(
            size,
            config.IMAGE_MIN_DIM,
            config.IMAGE_MAX_DIM,
            config.IMAGE_MIN_SCALE,
            config.IMAGE_RESIZE_MODE,
        )

    def _warn_of_full_tiles(self) -> None:
        limit = self.model.config.DETECTION_MAX_INSTANCES
        warnings.warn(
            f"{self.full} of {len(self.tiles)} tiles or parts of tiles have "
            f"DETECTION_MAX_INSTANCES={limit} detections, so objects may be missing there. Raise the "
            "setting, or use smaller tiles.",
            stacklevel=4,
        )
