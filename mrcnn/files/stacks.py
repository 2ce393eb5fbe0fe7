"""Stacks and channels of a TIFF file: their names, and the order of the images in the file.

A microscope's file may hold 2 channels of 5 slices. These are 10 images [h, w], and none of them is a color.
"""

import contextlib
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from mrcnn.errors import InvalidDataError, UnreadableFileError
from mrcnn.files import tiff
from mrcnn.files.arguments import CHOOSE_PAGE, integers

# tifffile's letters for the axes of a stack.
AXES = {"C": "channels", "Z": "slices", "T": "time points"}
OTHER = "pages"
# Names in one message.
MOST_NAMES = 12


@dataclass(frozen=True)
class Stack:
    """The images of a file.

    Attributes:
        axes: Name and length of each axis along which the images lie, the slowest first.
        samples: Values per pixel of each image.
        channel_names: Names of the channels, as far as the file contains them.
    """

    axes: tuple[tuple[str, int], ...]
    samples: int
    channel_names: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """The number of channels: images of one place, or else values per pixel."""
        return dict(self.axes).get("channels", self.samples)

    @property
    def pages(self) -> int:
        """The number of images of all channels, which `page` counts."""
        return math.prod(length for name, length in self.axes if name != "channels")

    def frames(self, page: int, channel: int) -> int:
        """Return the index of an image in the file, by its page and its channel."""
        place = self.place(page, per_channel=True) | {"channels": channel}
        return functools.reduce(lambda index, axis: index * axis[1] + place[axis[0]], self.axes, 0)

    def place(self, page: int, *, per_channel: bool) -> dict[str, int]:
        """Return the index of an image, from 0, along each axis except the channels.

        Args:
            page: Number of the image, from 0. A number past the last image gives an index past the end of the
                slowest axis.
            per_channel: Whether images are counted per channel, or all images of the file.
        """
        axes = [axis for axis in self.axes if not (per_channel and axis[0] == "channels")]
        place = {}
        for name, length in reversed(axes[1:]):
            page, place[name] = divmod(page, length)
        place |= {name: page for name, _ in axes[:1]}
        return {name: index for name, index in place.items() if name != "channels"}

    def plane(self, page: int, *, per_channel: bool) -> int:
        """Return the number of an image, from 0, among those of one channel; see `place`."""
        place = self.place(page, per_channel=per_channel)
        axes = [(place[name], length) for name, length in self.axes if name in place]
        return functools.reduce(lambda index, axis: index * axis[1] + axis[0], axes, 0)

    def place_of(self, z: int | None, t: int | None) -> dict[str, int]:
        """Return the index of an object, from 0, along each axis except the channels on which it has a place.

        Programs may take a single axis of another name for slices or for time points, so the larger of the
        two numbers is the index along it.

        Args:
            z: Number of the slice, from 0, or None for any.
            t: Number of the time point, from 0, or None for any.
        """
        stated = {name: number for name, number in (("slices", z), ("time points", t)) if number is not None}
        names = [name for name, _ in self.axes if name != "channels"]
        if len(names) == 1 and stated:
            return {names[0]: stated.get(names[0], max(stated.values()))}
        return {name: stated[name] for name in names if name in stated}

    def __str__(self) -> str:
        parts = [f"{length} {name}" for name, length in self.axes]
        if "channels" not in dict(self.axes) and self.samples > 1:
            parts.append(f"{self.samples} channels")
        names = ", ".join(self.channel_names[:MOST_NAMES])
        return " x ".join(parts) + (f" (channels: {names})" if names else "")


def stack_of(stream: BinaryIO) -> Stack:
    """Return the images of a TIFF file.

    Raises:
        UnreadableFileError: If it is damaged.
    """
    with tiff.opened(stream) as file:
        return _stack_of(file)


def _stack_of(file: Any) -> Stack:
    found = tiff.layout(file)
    samples = int(found.pages[0].samplesperpixel)
    axes: tuple[tuple[str, int], ...] = ((OTHER, found.frames),) if found.frames > 1 else ()
    names: tuple[str, ...] = ()
    with contextlib.suppress(Exception):  # of metadata, of many kinds
        series = file.series[0]
        stacked = [
            (AXES.get(axis, OTHER), int(length))
            for axis, length in zip(series.axes, series.shape, strict=True)
            if axis not in "YXS" and length > 1
        ]
        is_named = len({name for name, _ in stacked}) == len(stacked)
        if is_named and math.prod(length for _, length in stacked) == found.frames:
            axes = tuple(stacked)
        names = _channel_names(file)
    channels = dict(axes).get("channels", samples)
    return Stack(axes, samples, names if len(names) == channels else ())


def _channel_names(file: Any) -> tuple[str, ...]:
    if file.is_ome:
        from xml.etree import ElementTree

        root = ElementTree.fromstring(file.ome_metadata)
        image = next(element for element in root.iter() if element.tag.endswith("}Image"))
        channels = [element for element in image.iter() if element.tag.endswith("}Channel")]
        return tuple(element.attrib["Name"] for element in channels)
    labels = (file.imagej_metadata or {}).get("Labels", ()) if file.is_imagej else ()
    return tuple(str(label) for label in labels)


def read_channels(
    stream: BinaryIO, page: int | None, channels: Sequence[int], max_pixels: int | None
) -> np.ndarray:
    """Decode some channels of a TIFF file.

    Args:
        stream: The file.
        page: Number of the image of each channel, from 0, or None if there is only one.
        channels: Numbers of the channels, from 0, in the order of the result.
        max_pixels: See `tiff.read_frame`.

    Returns:
        [h, w] for one channel, else [h, w, channels], in the dtype of the file.

    Raises:
        InvalidDataError: If there is no such page or channel, or `page` is missing.
        UnreadableFileError: If the file cannot be decoded.
    """
    with tiff.opened(stream) as file:
        stack = _stack_of(file)
        check_channels(channels, stack.channels, str(stack) or "1 channel")
        if page is None and stack.pages > 1:
            raise InvalidDataError(
                f"The file must hold one image of each channel. Received: {stack}. {CHOOSE_PAGE}",
                field="page",
            )
        index = page or 0
        if not 0 <= index < stack.pages:
            raise InvalidDataError(
                f"`page` must be from 0 to {stack.pages - 1}. Received: page={page}", field="page"
            )
        if "channels" in dict(stack.axes):
            frames = [tiff.read_frame(file, stack.frames(index, one), max_pixels) for one in channels]
            if any(frame.ndim != 2 for frame in frames):
                raise UnreadableFileError(f"Each channel must be one value per pixel. Received: {stack}")
            return frames[0] if len(frames) == 1 else np.stack(frames, axis=-1)
        return chosen(tiff.read_frame(file, index, max_pixels), channels)


def chosen(pixels: np.ndarray, channels: Sequence[int]) -> np.ndarray:
    """Return some channels of an image [h, w] or [h, w, channels]; [h, w] for one channel.

    Raises:
        InvalidDataError: If it has no such channel.
    """
    values = pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
    check_channels(channels, values.shape[-1], f"{values.shape[-1]} channels")
    return values[..., channels[0]] if len(channels) == 1 else values[..., list(channels)]


def check_channels(channels: Sequence[int], count: int, what: str) -> None:
    """Check that channels exist.

    Args:
        channels: Numbers of channels, from 0.
        count: The number of channels of the file.
        what: The images of the file, for the error.

    Raises:
        InvalidDataError: If a channel does not exist, none is given, or `channels` is not a list of integers.
    """
    numbers = integers("channels", channels)
    if not numbers or not all(0 <= number < count for number in numbers):
        raise InvalidDataError(
            f"`channels` must be numbers from 0 to {count - 1}: the file has {what}. "
            f"Received: channels={numbers}",
            field="channels",
        )
