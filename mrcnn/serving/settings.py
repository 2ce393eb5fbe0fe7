"""The limits of a service."""

import math
from dataclasses import dataclass
from typing import Any

# Pixels of an image, for networks that resize every image to one size.
PIXELS = 50_000_000
# Pixels that go into a network that takes images of any size. The memory of a detection grows with them.
NETWORK_PIXELS = 8_000_000
# Modes of IMAGE_RESIZE_MODE that do not bound the size of an image.
UNBOUNDED_MODES = ("none", "pad64", "crop")


@dataclass(frozen=True)
class Settings:
    """The limits of a service.

    Args:
        batch: Largest number of images that the network processes at once.
        queue: Requests that may wait while a batch runs. Further ones are refused with the status 503.
        max_bytes: Largest image file, in bytes.
        max_pixels: Largest image, in pixels. By default it depends on the model; see `pixels_for`.
        upload_seconds: Time for the upload of an image.
        answer_seconds: Time from the end of the upload to the answer. A request that would take longer gets
            the status 504.
        shutdown_seconds: Time for the requests in progress when the service is stopped.

    Raises:
        ValueError: If a limit is not positive.
    """

    batch: int = 1
    queue: int = 32
    max_bytes: int = 32_000_000
    max_pixels: int | None = None
    upload_seconds: float = 60.0
    answer_seconds: float = 60.0
    shutdown_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 0 if name == "queue" else 1e-3
            if value is not None and not (math.isfinite(value) and value >= least):
                raise ValueError(f"`{name}` must be a positive number. Received: {name}={value}")

    @property
    def places(self) -> int:
        """The number of requests that are accepted at the same time."""
        return self.batch + self.queue

    def pixels_for(self, config: Any) -> int:
        """Return the largest number of pixels that an image may have.

        Args:
            config: The settings of the model. The default is PIXELS where IMAGE_RESIZE_MODE bounds what
                goes into the network, else as many as make NETWORK_PIXELS after IMAGE_MIN_SCALE.
        """
        if self.max_pixels is not None:
            return self.max_pixels
        if config.IMAGE_RESIZE_MODE not in UNBOUNDED_MODES:
            return PIXELS
        return int(NETWORK_PIXELS / max(1.0, float(config.IMAGE_MIN_SCALE or 0)) ** 2)
