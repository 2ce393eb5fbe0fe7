"""The worker: a process with its own model, which Ray starts, feeds and replaces."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mrcnn.errors import IMAGE_ERRORS, InvalidDataError
from mrcnn.files.images import read_image
from mrcnn.geometry.preprocessing import check_choice
from mrcnn.results.detections import Detections
from mrcnn.scale import tables
from mrcnn.scale.locations import open_location, read_content
from mrcnn.threads import in_order

logger = logging.getLogger(__name__)

# Images that are read while the network runs.
READ_AHEAD = 4


class Worker:
    """Detects in some images at a time, and writes one file for them.

    Args:
        load: A function that returns the model.
        source: The folder of the images.
        output: The folder of the results.
        description: The description of the model for the files.
        min_score: Detections with a lower score are left out.
        choice: The `page` and `channels` of the images; see `mrcnn.files.images.read_image`.
    """

    def __init__(
        self,
        load: Callable[[], Any],
        source: str,
        output: str,
        description: str,
        min_score: float,
        choice: Mapping[str, Any] | None = None,
    ) -> None:
        self._model = load()
        self._read_image = getattr(self._model, "read_image", read_image)
        self._source, self._root = open_location(source)
        self._output = output
        self._description = description
        self._min_score = min_score
        self._choice = dict(choice or {})
        self._refusal = self._refused_choice()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Write the results of the images of a batch.

        Args:
            batch: "path": the images, relative to the folder.

        Returns:
            "images": int64 [1], the number of images, which Ray reports as progress. "refusal": one text: ""
            or, if the model takes another number of channels, what is wrong. Nothing is written then.
        """
        if self._refusal:
            return {"images": np.array([0]), "refusal": np.array([self._refusal])}
        paths = [str(path) for path in batch["path"]]
        contents = in_order(self._read, paths, threads=READ_AHEAD, ahead=READ_AHEAD)
        rows = [self._row(path, content) for path, content in zip(paths, contents, strict=True)]
        tables.write_rows(self._output, paths, rows, self._description)
        return {"images": np.array([len(paths)]), "refusal": np.array([""])}

    def _refused_choice(self) -> str:
        """Return why the model cannot take the chosen channels, or "" if it can."""
        try:
            if "channels" in self._choice and hasattr(self._model, "config"):
                check_choice(self._choice["channels"], self._model.config)
        except InvalidDataError as error:
            return str(error)
        return ""

    def _read(self, path: str) -> bytes | Exception:
        """Return the content of an image file, or the error of reading it."""
        try:
            return read_content(self._source, f"{self._root}/{path}")
        except OSError as error:
            return error

    def _row(self, path: str, content: bytes | Exception) -> tables.Row:
        try:
            if isinstance(content, Exception):
                raise content
            image = self._read_image(content, path, **self._choice)
            (found,) = self._model.detect([image], masks="cropped")
            result = Detections.of(found, image.shape[:2])
            result.class_names = result.class_names or getattr(self._model, "class_names", None)
            return tables.row_of(path, result.select(np.asarray(result["scores"]) >= self._min_score))
        except IMAGE_ERRORS as error:
            logger.warning("Left out %s: %s", path, error)
            return tables.row_of_error(path, error, len(content) if isinstance(content, bytes) else None)
