"""Detection in any number of images, overlapped, as a method of the model."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mrcnn.inference.outputs import check_mask_form, completed
from mrcnn.typing import Image

if TYPE_CHECKING:
    from mrcnn.config import Config
    from mrcnn.inference.detector import Detector


class DetectsStreams:
    """The method `stream` of a model."""

    config: "Config"
    class_names: list[str] | None
    _require_mode: Callable[[str, str], None]
    _compiled_detector: Callable[[], "Detector"]

    def stream(
        self,
        images: Iterable[Image | Callable[[], Image]],
        masks: str = "full",
        *,
        with_errors: bool = False,
    ) -> Iterator[Any]:
        """Detect in any number of images, of which only a few are in memory at a time.

        While the network runs, threads read and prepare the next images and paste the masks of the last ones.
        Images of one size run in batches of IMAGES_PER_GPU per device.

            paths = sorted(Path("photos").glob("*.jpg"))
            readers = (functools.partial(mrcnn.files.images.read_image, path) for path in paths)
            for path, found in zip(paths, model.stream(readers)):
                print(path, len(found["scores"]))

        Args:
            images: Arrays as for `detect`, or functions that return one, which threads call. More of them are
                taken than results are yielded: about one per core and those of a batch.
            masks: See `detect`.
            with_errors: Whether to yield the error of an image that cannot be read or used in place of its
                detections, and to go on.

        Yields:
            The detections of each image, in order; see `detect`.

        Raises:
            ValueError: If the model is in training mode, or an image does not fit the settings.
            OSError: If an image cannot be read.

        Warns:
            CappedWarning: See `detect`.
        """
        self._require_mode("inference", "stream")
        check_mask_form(masks)
        results = self._compiled_detector().stream(images, masks, with_errors=with_errors)
        return _completed(results, self.class_names, self.config)


def _completed(results: Iterable[Any], class_names: Sequence[str] | None, config: "Config") -> Iterator[Any]:
    for found in results:
        if not isinstance(found, Exception):
            completed([found], class_names, config)
        yield found
