"""The limits of a service."""

import copy
import math
from dataclasses import dataclass
from typing import Any

from mrcnn.geometry.images import molded_size
from mrcnn.typing import Image

# Pixels of an image, for networks that resize every image to one size.
PIXELS = 50_000_000
# Pixels that go into a network that takes images of any size. The memory of a detection grows with them.
NETWORK_PIXELS = 8_000_000
# Modes of IMAGE_RESIZE_MODE that do not bound the size of an image.
UNBOUNDED_MODES = ("none", "pad64", "crop")
# The share that padding may add to an image of the largest size.
PADDED = 1.25


@dataclass(frozen=True)
class ImageLimits:
    """The largest image of a service.

    Attributes:
        pixels: Pixels of the image itself.
        network_pixels: Pixels that go into the network; None if its mode bounds them.
        config: The settings for whole images.
    """

    pixels: int
    network_pixels: int | None
    config: Any

    def molded_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) of the image that the network takes for an image of this size."""
        return molded_size((height, width), self.config)

    def is_too_thin(self, height: int, width: int) -> bool:
        """Return whether resizing enlarges an image beyond what the network may take."""
        if self.network_pixels is None:
            return False
        return math.prod(self.molded_size(height, width)) > PADDED * self.network_pixels

    def network_pixels_of(self, image: Image) -> int:
        """Return how many pixels an image adds to a batch: those of the network if they are limited."""
        height, width = image.shape[:2]
        if self.network_pixels is None:
            return int(height * width)
        return math.prod(self.molded_size(height, width))

    @property
    def batch_pixels(self) -> int:
        """The largest sum of `network_pixels_of` in a batch of several images."""
        return self.pixels if self.network_pixels is None else self.network_pixels


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
                what = "0 or a positive number" if name == "queue" else "a positive number"
                raise ValueError(f"`{name}` must be {what}. Received: {name}={value}")

    @property
    def places(self) -> int:
        """The number of requests that are accepted at the same time."""
        return self.batch + self.queue

    def limits_for(self, config: Any) -> ImageLimits:
        """Return the largest image that the service takes.

        The network gets at most NETWORK_PIXELS, unless `max_pixels` allows more, or the settings of the model
        make more of every image.

        Args:
            config: The settings of the model.
        """
        pixels = self.pixels_for(config)
        if config.IMAGE_RESIZE_MODE not in UNBOUNDED_MODES:
            return ImageLimits(pixels, None, config)
        if config.IMAGE_RESIZE_MODE == "crop":  # whole images are padded instead
            config = copy.copy(config)
            config.IMAGE_RESIZE_MODE = "pad64"
        enlarged = int(pixels * max(1.0, float(config.IMAGE_MIN_SCALE or 0)) ** 2)
        least = 0 if config.IMAGE_RESIZE_MODE == "none" else int(config.IMAGE_MIN_DIM or 0) ** 2
        return ImageLimits(pixels, max(NETWORK_PIXELS, enlarged, least), config)

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
