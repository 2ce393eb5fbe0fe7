"""Tolerance for a few images that cannot be loaded, so that one of them does not end a training."""

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

from mrcnn.data.augmentation import AugmentationError
from mrcnn.data.loading import describe_image

logger = logging.getLogger(__name__)


class ImageFailures:
    """Images that could not be loaded, counted once each; safe to share between threads."""

    def __init__(self, dataset: Any, limit: int) -> None:
        self.reasons: dict[int, str] = {}
        self._dataset = dataset
        self._limit = limit
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    @contextlib.contextmanager
    def watch(self, image_id: int) -> Iterator[None]:
        """Note and swallow an error of the block; RuntimeError when there are too many."""
        try:
            yield
        except (AugmentationError, MemoryError):  # not the image's fault
            raise
        except Exception as error:
            self._note(image_id, f"{type(error).__name__}: {error}", error)

    def merge(self, reasons: dict[int, str]) -> None:
        """Note failures that another process met; RuntimeError when there are too many."""
        for image_id, reason in reasons.items():
            self._note(image_id, reason)

    def _note(self, image_id: int, reason: str, error: Exception | None = None) -> None:
        with self._lock:
            if image_id in self.reasons:
                return
            self.reasons[image_id] = reason
            logger.warning("Left out %s: %s", describe_image(self._dataset, image_id), reason)
            if len(self.reasons) > self._limit:
                raise RuntimeError(
                    f"{len(self.reasons)} images could not be loaded; MAX_IMAGE_ERRORS="
                    f"{self._limit} are tolerated:{self.listing()}"
                ) from error

    def listing(self) -> str:
        """One line for each image, beginning with a line break."""
        lines = (
            f"\n  {describe_image(self._dataset, image_id)}: {reason}"
            for image_id, reason in self.reasons.items()
        )
        return "".join(lines)
