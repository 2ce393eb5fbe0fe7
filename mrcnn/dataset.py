"""Datasets: images with their classes and masks. Derive a class from Dataset to read your own annotations."""

import functools
import logging
import os
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

from mrcnn.errors import InvalidDataError
from mrcnn.files import images
from mrcnn.typing import ClassIds, Image, Masks

logger = logging.getLogger(__name__)

# Attributes that prepare() creates.
PREPARED = (
    "num_classes",
    "class_ids",
    "class_names",
    "class_from_source_map",
    "num_images",
    "image_from_source_map",
    "sources",
)


class NotPreparedError(RuntimeError, AttributeError):
    """A dataset was used before its prepare() was called."""


class Dataset:
    """Base class of datasets.

    A subclass adds classes with `add_class` and images with `add_image`, and overrides `load_mask` and
    `image_reference`. It also overrides `load_image` if `path` is not an ordinary image file. Call `prepare`
    after the last addition. A dataset can combine several sources of annotations: each class and each image
    has a source, and the dataset numbers the classes and images of all sources.

    Attributes:
        image_info: A list of dicts, one per image. The index is the image id.
        class_info: A list of dicts, one per class. The index is the class id; 0 is the background.
        source_class_ids: Dict from source to its class ids, filled by `prepare`.
    """

    _has_own_pages = False  # whether `page` in `image_info` is always the page of the file
    _is_orientation_told = False  # whether `load_image` has warned of an EXIF orientation

    def __init__(self, class_map: Any = None) -> None:
        # class_map has no effect; scripts for the Keras 2 library pass it.
        self._image_ids: Any = []
        self.image_info: list[dict[str, Any]] = []
        self.class_info: list[dict[str, Any]] = [{"source": "", "id": 0, "name": "BG"}]
        self.source_class_ids: dict[str, list[int]] = {}

    def __getattr__(self, name: str) -> Any:
        if name in PREPARED:
            raise NotPreparedError(
                f"{type(self).__name__}.{name} does not exist yet: call prepare() after the last add_class "
                "and add_image."
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def image_ids(self) -> Any:
        """Integer array of all image ids. Before `prepare`, an empty list."""
        return self._image_ids

    def add_class(self, source: str, class_id: Any, class_name: str) -> None:
        """Add a class. Adding the same class again has no effect.

        Args:
            source: Name of the source of annotations, without a dot.
            class_id: Id of the class in its source.
            class_name: Name of the class.

        Raises:
            ValueError: If `source` contains a dot, which separates source and id in the maps; or if another
                class of the source has this id.
        """
        if "." in source:
            raise ValueError(f"`source` must not contain a dot. Received: source={source!r}")
        for info in self.class_info:
            # Ids are texts in the maps that `prepare` builds.
            if info["source"] == source and str(info["id"]) == str(class_id):
                if info["name"] != class_name:
                    raise InvalidDataError(
                        f"`class_id` must be unique within the source {source!r}. Received: "
                        f"class_id={class_id!r} for {class_name!r}, but {info['name']!r} already has this "
                        "id. Give the new class another id, or add it under another source."
                    )
                return
        self.class_info.append({"source": source, "id": class_id, "name": class_name})

    def add_image(self, source: str, image_id: Any, path: Any, **kwargs: Any) -> None:
        """Add an image.

        Args:
            source: Name of the source of annotations.
            image_id: Id of the image in its source.
            path: Path or URL of the image file, or None if `load_image` does not need one.
            **kwargs: More fields for `image_info`, such as the annotations that `load_mask` needs.
                `is_empty=True` means that the annotations list the image as one without objects; see
                `is_listed_as_empty`. If the file holds several images, an integer `page`, from 0, selects
                one, and a list `channels` selects channels.
        """
        self.image_info.append({"id": image_id, "source": source, "path": path, **kwargs})

    def is_listed_as_empty(self, image_id: int) -> bool:
        """Return whether the annotations list the image as one without objects.

        Training uses such images as examples of background; see `Config.TRAIN_ON_EMPTY_IMAGES`. Images whose
        annotations are missing or broken do not count.
        """
        return bool(self.image_info[image_id].get("is_empty", False))

    def image_reference(self, image_id: int) -> str:
        """Return a reference to the image, such as a URL. Override this method."""
        return ""

    def prepare(self, class_map: Any = None) -> None:
        """Number the classes and images, and build the maps between these numbers and the ids of the sources.

        Creates `num_classes`, `class_ids`, `class_names` (the text before the first comma), `num_images`,
        `image_ids`, `sources`, `class_from_source_map` and `image_from_source_map` (from "source.id" to the
        id in this dataset), and `source_class_ids` (from a source to its class ids, including the
        background). Call it again after you add more classes or images.

        Args:
            class_map: Ignored. Scripts for the Keras 2 library pass it.
        """
        self.num_classes = len(self.class_info)
        self.class_ids = np.arange(self.num_classes)
        self.class_names = [info["name"].split(",")[0] for info in self.class_info]
        self.num_images = len(self.image_info)
        self._image_ids = np.arange(self.num_images)
        self.class_from_source_map = _by_source_and_id(self.class_info)
        self.image_from_source_map = _by_source_and_id(self.image_info)
        # Not a set: the order of appearance has to be the same in every run.
        self.sources = list(dict.fromkeys(info["source"] for info in self.class_info))
        self.source_class_ids = {
            source: [
                index for index, info in enumerate(self.class_info) if index == 0 or info["source"] == source
            ]
            for source in self.sources
        }

    def map_source_class_id(self, source_class_id: str) -> int:
        """Return the class id of "source.id".

        Raises:
            KeyError: If there is no such class. The message lists the known classes.
        """
        if source_class_id not in self.class_from_source_map:
            known = sorted(self.class_from_source_map)[:20]
            raise KeyError(f"The dataset has no class {source_class_id!r}. Its classes are {known}.")
        return self.class_from_source_map[source_class_id]

    def get_source_class_id(self, class_id: int, source: str) -> Any:
        """Return the id that a class has in its source.

        Raises:
            ValueError: If the class belongs to another source.
        """
        info = self.class_info[class_id]
        if info["source"] != source:
            raise ValueError(
                f"`source` must be {info['source']!r}, the source of class {class_id} ({info['name']}). "
                f"Received: source={source!r}"
            )
        return info["id"]

    def source_image_link(self, image_id: int) -> Any:
        """Return the path or URL of the image."""
        return self.image_info[image_id]["path"]

    def open_image_file(self, image_id: int) -> str | os.PathLike[str] | BinaryIO:
        """Return the file that `load_image` decodes: its path or URL, or an open binary file."""
        path: str | os.PathLike[str] = self.image_info[image_id]["path"]
        return path

    def load_image(self, image_id: int) -> Image:
        """Read the image file as RGB; see `mrcnn.files.images.read_image`.

        Gray images are repeated over three channels. Images are not rotated by their EXIF orientation,
        because masks may refer to the stored rows and columns; a warning names the first file that has an
        orientation. If `image_info` has an integer `page` or a list `channels`, only that page of a file with
        several images, or only those channels, are read.

        Returns:
            Array [height, width, 3] in the dtype of the file, or [height, width, C] if `image_info` has a
            list of C `channels`, two or more. A single channel is repeated three times, too.

        Raises:
            UnreadableFileError: If the file is missing or broken. This is an OSError, and its subclass
                MissingFileError a FileNotFoundError.
            InvalidDataError: If the file does not hold one gray or color image. This is a ValueError.
                Both errors name the file and the image id.
        """
        path, page, channels = (self.image_info[image_id].get(name) for name in ("path", "page", "channels"))
        if path is None:
            raise ValueError(
                f"Image id {image_id} has no path. Override load_image in {type(self).__name__}, or pass a "
                "path to add_image."
            )
        # Scripts may store other facts under these names, such as the page of a book or names of channels.
        page = int(page) if isinstance(page, (int, np.integer)) else None
        channels = tuple(channels) if isinstance(channels, (list, tuple, range, np.ndarray)) else None
        if channels and isinstance(channels[0], str):
            channels = None
        file, entry = self.open_image_file(image_id), f"image id {image_id}"
        read = functools.partial(
            images.read_image, file, str(path), channels=channels, orientation=1, entry=entry
        )
        try:
            image = read(page=page)
        except InvalidDataError:
            is_other_fact = page and not self._has_own_pages
            if not is_other_fact or images.read_header(file, str(path), entry=entry).frames > 1:
                raise
            image = read()
        # A subclass may turn the image itself.
        if not self._is_orientation_told and type(self).load_image is Dataset.load_image:
            self._is_orientation_told = _warn_of_orientation(file, str(path))
        return np.repeat(image[..., np.newaxis], 3, axis=-1) if image.ndim == 2 else image

    def load_mask(self, image_id: int) -> tuple[Masks, ClassIds]:
        """Return the masks and class ids of the instances in an image. Override this method.

        The base class returns no instances and logs a warning.

        Returns:
            masks: bool array [height, width, instances].
            class_ids: int32 array [instances]; a negative id marks a crowd of that class.
        """
        logger.warning(
            "%s does not override load_mask: image id %s (source %r) has no objects.",
            type(self).__name__,
            image_id,
            self.image_info[image_id]["source"],
        )
        return np.empty([0, 0, 0], dtype=bool), np.empty([0], np.int32)


def _by_source_and_id(infos: Sequence[dict[str, Any]]) -> dict[str, int]:
    return {f"{info['source']}.{info['id']}": index for index, info in enumerate(infos)}


def _warn_of_orientation(file: str | os.PathLike[str] | BinaryIO, path: str) -> bool:
    """Warn if a file has an EXIF orientation, and return whether it has one."""
    orientation = images.read_header(file, path).orientation
    if orientation == 1:
        return False
    logger.warning(
        "%s has the EXIF orientation %d. Viewers rotate such an image, but Dataset.load_image does not. "
        "Check that the masks fit.",
        path,
        orientation,
    )
    return True
