"""Tolerance for a few images that cannot be loaded, so that a single one does not end the training."""

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mrcnn.data.augmentation import AugmentationError
from mrcnn.data.loading import describe_image

if TYPE_CHECKING:
    from mrcnn.dataset import Dataset

logger = logging.getLogger(__name__)


class ImageFailures:
    """The images of a dataset that could not be loaded. Threads may share it.

    Attributes:
        reasons: Dict from image id to the error.
    """

    def __init__(self, dataset: "Dataset", limit: int) -> None:
        self.reasons: dict[int, str] = {}
        self._dataset = dataset
        self._limit = limit
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    @contextlib.contextmanager
    def tolerate(self, image_id: int) -> Iterator[None]:
        """Catch an error of the block and record it.

        Raises:
            RuntimeError: If more images have failed than the limit.
        """
        try:
            yield
        except (AugmentationError, MemoryError):  # the image is not to blame
            raise
        except Exception as error:
            self._record(image_id, f"{type(error).__name__}: {error}", error)

    def merge(self, reasons: dict[int, str]) -> None:
        """Record the failures of another process. Raises RuntimeError as `tolerate` does."""
        for image_id, reason in reasons.items():
            self._record(image_id, reason)

    def _record(self, image_id: int, reason: str, error: Exception | None = None) -> None:
        with self._lock:
            if image_id in self.reasons:
                return
            self.reasons[image_id] = reason
            logger.warning("Skipped %s: %s", describe_image(self._dataset, image_id), reason)
            if len(self.reasons) > self._limit:
                raise RuntimeError(
                    f"{len(self.reasons)} images could not be loaded or augmented, more than "
                    f"MAX_IMAGE_ERRORS={self._limit} allows. Repair or remove them, correct the "
                    f"augmentation, or raise MAX_IMAGE_ERRORS.{self.listing()}"
                ) from error

    def listing(self) -> str:
        """Return one line per image. Each line starts with a line break."""
        lines = (
            f"\n  {describe_image(self._dataset, image_id)}: {reason}"
            for image_id, reason in self.reasons.items()
        )
        return "".join(lines)
