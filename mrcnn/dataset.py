"""A set of images with their objects; users derive from Dataset and read their own annotations."""

import logging
from typing import Any

import numpy as np
import skimage

logger = logging.getLogger(__name__)

# What prepare() makes from the added classes and images.
PREPARED = (
    *("num_classes", "class_ids", "class_names", "class_from_source_map"),
    *("num_images", "image_from_source_map", "sources"),
)


class NotPreparedError(RuntimeError, AttributeError):
    """A dataset is used before its prepare() was called."""


class Dataset:
    """Base class of datasets.

    A subclass adds classes and images with add_class and add_image, and overrides load_mask,
    image_reference and, unless `path` is an ordinary image file, load_image. prepare() has to be
    called after the last addition. Several annotation sources may share a dataset: each class and
    image names its source, and internal ids count through all of them.

    Fields: image_info, a list of dicts, its index is the image id; class_info, a list of dicts, its
    index is the class id, background first; source_class_ids, filled by prepare().
    """

    def __init__(self, class_map: Any = None) -> None:
        # class_map is accepted for old callers and has no effect.
        self._image_ids: Any = []
        self.image_info: list[dict[str, Any]] = []
        self.class_info: list[dict[str, Any]] = [{"source": "", "id": 0, "name": "BG"}]
        self.source_class_ids: dict[str, list[int]] = {}

    def __getattr__(self, name: str) -> Any:
        if name in PREPARED:
            raise NotPreparedError(
                f"{type(self).__name__}.{name} does not exist yet: call prepare() after the last "
                "add_class and add_image."
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def image_ids(self) -> Any:
        """Integer array of all image ids; an empty list before prepare()."""
        return self._image_ids

    def add_class(self, source: str, class_id: Any, class_name: str) -> None:
        """Add a class under the id it has in its source; a known one is left as it is.

        Raises ValueError if the source's name has a dot, which separates source and id.
        """
        if "." in source:
            raise ValueError(f"A source's name must not contain a dot. Received: source={source!r}")
        if any(info["source"] == source and info["id"] == class_id for info in self.class_info):
            return
        self.class_info.append({"source": source, "id": class_id, "name": class_name})

    def add_image(self, source: str, image_id: Any, path: Any, **kwargs: Any) -> None:
        """Add an image: its id in the source, its file and whatever else load_mask needs."""
        self.image_info.append({"id": image_id, "source": source, "path": path, **kwargs})

    def image_reference(self, image_id: int) -> str:
        """Where an image comes from, for people to look it up; to be overridden."""
        return ""

    def prepare(self, class_map: Any = None) -> None:
        """Number classes and images and build the maps between internal and source ids.

        Sets num_classes, class_ids, class_names (up to the first comma), num_images, image_ids,
        sources, class_from_source_map and image_from_source_map ("source.id" to internal id) and
        source_class_ids (source to its internal class ids, background included). May be called
        again after further additions. `class_map` has no effect.
        """
        self.num_classes = len(self.class_info)
        self.class_ids = np.arange(self.num_classes)
        self.class_names = [info["name"].split(",")[0] for info in self.class_info]
        self.num_images = len(self.image_info)
        self._image_ids = np.arange(self.num_images)
        self.class_from_source_map = {
            f"{info['source']}.{info['id']}": index for index, info in enumerate(self.class_info)
        }
        self.image_from_source_map = {
            f"{info['source']}.{info['id']}": index for index, info in enumerate(self.image_info)
        }
        # A dict keeps the order of appearance, which a set would not.
        self.sources = list(dict.fromkeys(info["source"] for info in self.class_info))
        self.source_class_ids = {
            source: [
                index for index, info in enumerate(self.class_info) if index == 0 or info["source"] == source
            ]
            for source in self.sources
        }

    def map_source_class_id(self, source_class_id: str) -> int:
        """Internal class id of "source.id". KeyError names the known ones."""
        known = self.class_from_source_map
        if source_class_id not in known:
            raise KeyError(f"No class {source_class_id!r}. Known: {sorted(known)[:20]}")
        return known[source_class_id]

    def get_source_class_id(self, class_id: int, source: str) -> Any:
        """Id that an internal class has in its source. ValueError if it has another source."""
        info = self.class_info[class_id]
        if info["source"] != source:
            raise ValueError(
                f"Class {class_id} ({info['name']}) is of source {info['source']!r}. "
                f"Received: source={source!r}"
            )
        return info["id"]

    def source_image_link(self, image_id: int) -> Any:
        """The path or address given to add_image."""
        return self.image_info[image_id]["path"]

    def open_image(self, image_id: int) -> Any:
        """What load_image decodes: the path or address, or in datasets of archives an open binary file."""
        return self.image_info[image_id]["path"]

    def load_image(self, image_id: int) -> np.ndarray:
        """Read an image file as [height, width, 3] RGB in the file's own dtype.

        Grey images are repeated over three channels, an alpha channel is dropped, one-bit images
        become uint8 0 and 255. Raises OSError if the file is missing or broken and ValueError if
        it is not one picture; both name the file and the image id.
        """
        path = self.image_info[image_id]["path"]
        if path is None:
            raise ValueError(f"Image id {image_id} has no path: override load_image for it.")
        image = _read(self.open_image(image_id), path, image_id)
        if image.dtype == bool:  # one bit per pixel
            image = image.astype(np.uint8) * 255
        if image.ndim == 4 and len(image) == 1:  # a single frame
            image = image[0]
        if image.ndim == 3 and image.shape[-1] == 2:  # grey and alpha
            image = image[..., 0]
        if image.ndim == 2:
            image = np.repeat(image[..., np.newaxis], 3, axis=-1)
        if image.ndim != 3 or image.shape[-1] not in (3, 4):
            raise ValueError(
                f"{path} of image id {image_id} must hold one grey or colour picture. Received: "
                f"array of shape {image.shape}. Override load_image for other content."
            )
        return image[..., :3]

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Masks and class ids of an image's objects; to be overridden.

        Overrides return a boolean array [height, width, objects] and an int32 array [objects],
        negative for a crowd of a class. Here: no objects, and a warning in the log.
        """
        logger.warning(
            "%s has no load_mask for image id %s (source %r): taken as without objects",
            type(self).__name__,
            image_id,
            self.image_info[image_id]["source"],
        )
        return np.empty([0, 0, 0]), np.empty([0], np.int32)


def _read(file: Any, path: Any, image_id: int) -> np.ndarray:
    try:
        return skimage.io.imread(file)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"No file {path} of image id {image_id}") from error
    except Exception as error:  # decoders raise SyntaxError, EOFError and others
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise OSError(f"Cannot read {path} of image id {image_id}: {reason}") from error
