"""Detection in any number of images, overlapped, and reading them, as methods of the model."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mrcnn.files.images import Source, read_image
from mrcnn.inference.outputs import check_mask_form, completed
from mrcnn.inference.reduced_images import ReducedImage, read_reduced
from mrcnn.typing import Image

if TYPE_CHECKING:
    from mrcnn.config import Config
    from mrcnn.inference.detector import Detector


class DetectsStreams:
    """The methods `stream` and `read_image` of a model."""

    config: "Config"
    class_names: list[str] | None
    _require_mode: Callable[[str, str], None]
    _compiled_detector: Callable[[], "Detector"]

    def read_image(self, file: Source, name: str | None = None, **options: Any) -> Image | ReducedImage:
        """Read an image file for `detect`, at reduced size if REDUCED_JPEG allows it.

        Args:
            file, name, options: See `mrcnn.files.images.read_image`.

        Raises:
            MissingFileError, UnreadableFileError, InvalidDataError: See `mrcnn.files.images.read_image`.
        """
        if self.config.REDUCED_JPEG:
            return read_reduced(file, name, config=self.config, **options)
        return read_image(file, name, **options)

    def stream(
        self,
        images: Image | Iterable[str | os.PathLike[str] | Image | Callable[[], Image]],
        masks: str = "full",
        *,
        with_errors: bool = False,
    ) -> Iterator[Any]:
        """Detect in any number of images, of which only a few are in memory at a time.

        While the network runs, threads read and prepare the next images and paste the masks of the last ones.
        Images of one size run in batches of IMAGES_PER_GPU per device.

            paths = sorted(Path("photos").glob("*.jpg"))
            for path, found in zip(paths, model.stream(paths)):
                print(path, len(found["scores"]))

        Args:
            images: Paths of image files, arrays as for `detect`, or functions that return one. A single array
                [height, width] or [height, width, channels] is one image. Threads read the files and call the
                functions. More of them are taken than results are yielded: about one per core and those of a
                batch. With REDUCED_JPEG, large JPEG files are decoded at a part of their size.
            masks: See `detect`.
            with_errors: Whether to yield the error of an image that cannot be read or used in place of its
                detections, and to go on.

        Yields:
            The detections of each image, in order; see `detect`.

        Raises:
            TypeError: If `images` is a single path, function or file content.
            ValueError: If the model is in training mode, or an image does not fit the settings.
            OSError: If an image cannot be read.

        Warns:
            CappedWarning: See `detect`.
        """
        self._require_mode("inference", "stream")
        check_mask_form(masks)
        is_path = (str, os.PathLike)
        readers = (
            partial(self.read_image, image) if isinstance(image, is_path) else image
            for image in _several(images)
        )
        results = self._compiled_detector().stream(readers, masks, with_errors=with_errors)
        return _completed(results, self.class_names, self.config)


def _several(images: Any) -> Iterable[Any]:
    """Return images, or a single array in a list.

    Raises:
        TypeError: If there is a single image of another kind.
    """
    if getattr(images, "ndim", None) in (2, 3) or isinstance(images, ReducedImage):
        return [images]  # as `inputs.image_list` does
    is_one = isinstance(images, str | bytes | os.PathLike)
    if is_one or not (hasattr(images, "__iter__") or hasattr(images, "__getitem__")):
        raise TypeError(
            "`images` must be a list or another iterable of images or paths. Received: "
            f"{type(images).__name__}. Pass a list, such as model.stream([image])."
        )
    return images


def _completed(results: Iterable[Any], class_names: Sequence[str] | None, config: "Config") -> Iterator[Any]:
    for found in results:
        if not isinstance(found, Exception):
            completed([found], class_names, config)
        yield found
