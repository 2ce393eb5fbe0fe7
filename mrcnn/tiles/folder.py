"""The results of tiles, in memory or in a folder from which an interrupted run continues.

| file | content |
|---|---|
| `run.json` | the image, the tiles, the model and its settings, to detect other runs |
| `tiles/00012.npz` | the detections of tile 12 |
| `objects.npz`, `masks.bin` | the result, when all tiles are done: see `read_result` |

Each file appears when it is complete.
"""

import contextlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mrcnn import files
from mrcnn.errors import InvalidDataError, MissingFileError, UnreadableFileError, reason
from mrcnn.files.calibration import GeoReference, PixelSize
from mrcnn.geometry.mask_crops import MaskCrops
from mrcnn.geometry.packed_crops import PackedCrops
from mrcnn.results.detections import Detections
from mrcnn.tiles.seams import Found, located
from mrcnn.typing import Box

RUN, TILES, OBJECTS, MASKS = "run.json", "tiles", "objects.npz", "masks.bin"
UNFINISHED = ".masks-unfinish.part.bin"  # a name that `files.remove_leftovers` knows
VERSION = 1
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class TileResult:
    """The detections of one tile.

    Attributes:
        parts: The tile, or the smaller tiles into which it was divided, and the detections of each, whose
            boxes are in pixels of the part.
        full: Number of parts that have as many detections as the network can return.
    """

    parts: tuple[tuple[Box, Detections], ...]
    full: int = 0

    def arrays(self) -> Arrays:
        """Return the content as arrays for a file. Boxes are in pixels of the image."""
        rows: dict[str, list[Any]] = {name: [] for name in ("tiles", "rois", "class_ids", "scores", "boxes")}
        crops: list[np.ndarray] = []
        for tile, found in self.parts:
            shift = np.array([tile[0], tile[1]] * 2, np.int32)
            masks = found.mask_crops()
            rows["tiles"] += [tile] * found.count
            rows["rois"] += list(np.asarray(found["rois"]).reshape(-1, 4) + shift)
            rows["boxes"] += list(np.asarray(masks.boxes).reshape(-1, 4) + shift)
            rows["class_ids"] += list(found["class_ids"])
            rows["scores"] += list(found["scores"])
            crops += list(masks.crops)
        packed = PackedCrops.pack(crops)
        return {
            **{name: np.array(rows[name], np.int32).reshape(-1, 4) for name in ("tiles", "rois", "boxes")},
            "class_ids": np.array(rows["class_ids"], np.int32),
            "scores": np.array(rows["scores"], np.float32),
            "bits": packed.bits,
            "starts": packed.starts,
            "sizes": packed.sizes,
            "full": np.array(self.full),
        }


def found_in(arrays: Arrays, image_shape: Sequence[int]) -> list[Found]:
    """Return the detections of a tile from its arrays."""
    crops = PackedCrops(arrays["bits"], arrays["starts"], arrays["sizes"])
    return [
        located(
            tuple(int(side) for side in arrays["tiles"][index]),  # type: ignore[arg-type]  # four
            image_shape,
            roi=arrays["rois"][index],
            class_id=arrays["class_ids"][index],
            score=arrays["scores"][index],
            box=arrays["boxes"][index],
            crop=crops[index],
        )
        for index in range(len(crops))
    ]


class TileStore:
    """The results of tiles by their number, in memory or in a folder.

    Args:
        folder: The folder; None for memory.
        run: What the results depend on, as JSON.

    Raises:
        InvalidDataError: If the folder belongs to another run, and the message says what differs; or if
            another process uses it.
        OSError: If it cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, run: Mapping[str, Any]) -> None:
        self.folder = None if folder is None else Path(folder)
        self._memory: dict[int, Arrays] = {}
        self._done: set[int] = set()
        self._lock: int | None = None
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.folder)
        try:
            self._open(self.folder, run)
        except BaseException:
            self.close()
            raise

    def _open(self, folder: Path, run: Mapping[str, Any]) -> None:
        """Check that a folder belongs to a run, or begin it there, and find the tiles that are done."""
        path, tiles = folder / RUN, folder / TILES
        if path.exists():
            _check_run(read_run(folder), run, path)
        elif any(folder.iterdir()):
            raise InvalidDataError(
                f"The folder has other files, but no {RUN}. Choose an empty or a new folder.", file=folder
            )
        else:
            files.write_json(path, run, indent=2)
        tiles.mkdir(exist_ok=True)
        files.remove_leftovers(tiles)
        files.remove_leftovers(folder)
        self._done = {int(path.stem) for path in tiles.glob("*.npz") if path.stem.isdigit()}

    def close(self) -> None:
        """Let other processes use the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __contains__(self, number: int) -> bool:
        return number in self._done

    def put(self, number: int, result: TileResult) -> None:
        """Store the result of a tile."""
        if self.folder is None:
            self._memory[number] = result.arrays()
        else:
            with files.atomic_write(self._path(number)) as temporary:
                np.savez(temporary, **result.arrays())  # type: ignore[arg-type]  # names of arrays
        self._done.add(number)

    def take(self, number: int) -> Arrays:
        """Return the result of a tile, and remove it from memory.

        Raises:
            UnreadableFileError: If its file is damaged.
        """
        if self.folder is None:
            return self._memory.pop(number)
        return _read_arrays(
            self._path(number), "Delete it and repeat the call, which only processes this tile."
        )

    def _path(self, number: int) -> Path:
        assert self.folder is not None
        return self.folder / TILES / f"{number:05d}.npz"


class ResultWriter:
    """Collector of finished objects, with masks as bits in memory or in a file.

    Args:
        folder: The folder for the result; None for memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._columns: dict[str, list[Any]] = {
            name: [] for name in ("rois", "boxes", "class_ids", "scores", "starts", "sizes")
        }
        self._bits: list[np.ndarray] = []
        self._length = 0
        self._file: BinaryIO | None = None

    @contextlib.contextmanager
    def opened(self) -> Iterator["ResultWriter"]:
        """Write the file of the masks, which appears at the end of the block."""
        if self._folder is None:
            yield self
            return
        # The block detects, whose errors `atomic_write` would take for errors of this file.
        temporary = self._folder / UNFINISHED
        with open(temporary, "wb") as self._file:
            yield self
        os.replace(temporary, self._folder / MASKS)
        with files.atomic_write(self._folder / OBJECTS) as temporary:
            np.savez(temporary, **self._arrays())  # type: ignore[arg-type]  # names of arrays

    def add(self, objects: Sequence[Found]) -> None:
        """Add finished objects."""
        packed = PackedCrops.pack([one.crop for one in objects])
        columns = self._columns
        if objects:
            columns["rois"].append(np.array([one.roi for one in objects], np.int32))
            columns["boxes"].append(np.array([one.box for one in objects], np.int32))
            columns["class_ids"].append(np.array([one.class_id for one in objects], np.int32))
            columns["scores"].append(np.array([one.score for one in objects], np.float32))
            columns["starts"].append(packed.starts + self._length)
            columns["sizes"].append(packed.sizes)
        self._length += len(packed.bits)
        if self._file is not None:
            self._file.write(packed.bits.tobytes())
        else:
            self._bits.append(packed.bits)

    def _arrays(self) -> Arrays:
        empty: Arrays = {name: np.zeros((0, 4), np.int32) for name in ("rois", "boxes")}
        empty |= {"class_ids": np.zeros(0, np.int32), "scores": np.zeros(0, np.float32)}
        empty |= {"starts": np.zeros(0, np.int64), "sizes": np.zeros((0, 2), np.int64)}
        arrays = {name: np.concatenate([empty[name], *self._columns[name]]) for name in empty}
        order = np.argsort(-arrays["scores"], kind="stable")
        return {name: array[order] for name, array in arrays.items()}

    def result(self, shape: tuple[int, int]) -> Detections:
        """Return the objects by descending score."""
        arrays = self._arrays()
        if self._folder is not None:
            bits = _mapped(self._folder / MASKS)
        else:
            bits = np.concatenate([np.zeros(0, np.uint8), *self._bits])
        return _detections(arrays, bits, shape)


def read_result(folder: str | os.PathLike[str]) -> Detections:
    """Read the result of a finished run of `detect_large` from its folder.

    Masks stay on the disk until they are used.

    Args:
        folder: The folder that was passed as `resume`.

    Raises:
        MissingFileError: If it holds no result. Call `detect_large` again to continue the run.
        UnreadableFileError: If a file is damaged.
    """
    folder = Path(folder)
    if not (folder / OBJECTS).is_file():
        raise MissingFileError(
            "The folder holds no finished result. Call detect_large again with the same arguments to "
            "continue.",
            file=folder / OBJECTS,
        )
    run = read_run(folder)
    arrays = _read_arrays(folder / OBJECTS, "Delete the file and call detect_large again.")
    height, width = run["image"]["shape"]
    result = _detections(arrays, _mapped(folder / MASKS), (int(height), int(width)))
    result.class_names = None if run["class_names"] is None else tuple(run["class_names"])
    result.path = run["image"]["path"]
    if run["pixel_size"] is not None:
        result.pixel_size = PixelSize(*run["pixel_size"])
    if run["georeference"] is not None:
        transform, crs = run["georeference"]
        result.georeference = GeoReference(tuple(transform), crs)
    return result


def read_run(folder: Path) -> dict[str, Any]:
    """Return the content of run.json.

    Raises:
        UnreadableFileError: If it is damaged.
    """
    try:
        content = json.loads((folder / RUN).read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            raise ValueError(f"version {content['version']}")
        return dict(content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableFileError(
            f"The file does not describe a run of tiles: {reason(error)}. Choose a new folder.",
            file=folder / RUN,
        ) from error


def _check_run(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> None:
    """Raise InvalidDataError if two runs would give different results."""
    wanted = json.loads(json.dumps(new))
    what_to_do = "Choose another folder, or delete this one."
    if any(name not in old for name in wanted):
        raise InvalidDataError(
            "An earlier version of mrcnn wrote the tiles in this folder. It did not record which file they "
            f"are from, or which page, channels or level, so they may be from another image. {what_to_do}",
            file=path,
        )
    for name, value in wanted.items():
        before = old[name]
        if before != value:
            if name == "source":
                what_to_do = (
                    "If only the time of the same file has changed, set it back. Otherwise, choose another "
                    "folder, or delete this one."
                )
            while isinstance(value, dict) and isinstance(before, dict):
                name, before, value = next(
                    (f"{name}: {key}", before.get(key), value.get(key))
                    for key in [*value, *before]
                    if before.get(key) != value.get(key)
                )
            raise InvalidDataError(
                f"The folder contains tiles of a different run: {name} was {before}, but is {value} in "
                f"this call. {what_to_do}",
                file=path,
            )


def _locked(folder: Path) -> int | None:
    """Lock a folder, and return its descriptor, which holds the lock until it is closed or the process ends.

    The folder itself is locked, because its files are replaced, and each new file has no lock.

    Returns:
        The descriptor; None where folders have no locks.

    Raises:
        InvalidDataError: If another process holds the lock.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InvalidDataError(
            "Another process is using this folder. Wait for it to finish, or choose another folder.",
            file=folder,
        ) from None
    except OSError:  # a file system without locks
        pass
    return descriptor


def _detections(arrays: Arrays, bits: np.ndarray, shape: tuple[int, int]) -> Detections:
    crops = PackedCrops(bits, arrays["starts"], arrays["sizes"])
    masks = MaskCrops(shape, arrays["boxes"], crops)
    return Detections(arrays["rois"], arrays["class_ids"], arrays["scores"], masks, shape=shape)


def _mapped(path: Path) -> np.ndarray:
    if path.stat().st_size == 0:
        return np.zeros(0, np.uint8)
    return np.memmap(path, np.uint8, "r")


def _read_arrays(path: Path, what_to_do: str) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as content:
            return dict(content)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UnreadableFileError(f"The file is damaged: {reason(error)}. {what_to_do}", file=path) from error
