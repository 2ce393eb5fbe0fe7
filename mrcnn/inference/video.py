"""Detect in videos, streams and cameras, and write a video with the detections drawn in.

Frames are uint8 [H, W, 3], RGB, upright. While the network works on one batch of frames, one thread decodes
the next batch and another one draws and encodes the batch before.
"""

import errno
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mrcnn.files import atomic_write

Frame: TypeAlias = NDArray[Any]
Result = TypeVar("Result")

# FourCC of the codec for each suffix. Every OpenCV contains both.
CODECS = {".avi": "MJPG", ".mp4": "mp4v"}
# Frames per second, if the source does not state its rate.
DEFAULT_RATE = 25.0


class VideoReader:
    """The frames of a video file, a stream or a camera.

    Iterate over the reader for frames. Use it in a `with` block, or call `close`.

    Args:
        source: A path, a URL that OpenCV can open, or the number of a camera, which may be a string ("0").

    Attributes:
        rate: Frames per second.
        frames: The number of frames according to the header; None for cameras and streams.
        is_camera: Whether the source is a camera.

    Raises:
        OSError: If the source cannot be opened.
    """

    def __init__(self, source: str | os.PathLike[str] | int) -> None:
        self.is_camera = isinstance(source, int) or str(source).isdigit()
        self.source = int(str(source)) if self.is_camera else str(source)
        self._capture = cv2.VideoCapture(self.source)
        if not self._capture.isOpened():
            kind = "camera" if self.is_camera else "video"
            raise OSError(
                f"Cannot open the {kind} {self.source}. It is missing, in use, or in an unknown format."
            )
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if math.isfinite(rate) and rate > 0 else DEFAULT_RATE
        stated = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.frames = int(stated) if stated > 0 and not self.is_camera else None

    def __iter__(self) -> Iterator[Frame]:
        while True:
            is_read, frame = self._capture.read()
            if not is_read:
                return
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, stream or camera."""
        self._capture.release()


class VideoWriter:
    """A video file, renamed to its final name when it is complete.

    Use the writer in a `with` block. The end of the block finishes the file. After an error, Ctrl-C, or a
    block that writes no frame, no new file remains, and an older file of that name is kept.

    Args:
        path: A path that ends in .avi (Motion JPEG) or .mp4 (MPEG-4). Missing folders are created.
        rate: Frames per second.

    Raises:
        ValueError: If the path ends in another suffix.
        OSError: At the end of the block, if the file is not complete, as on a full disk.
    """

    def __init__(self, path: str | os.PathLike[str], rate: float) -> None:
        self.path = Path(path)
        self.rate = rate
        self.count = 0
        if self.path.suffix.lower() not in CODECS:
            raise ValueError(f"`path` must end in {' or '.join(CODECS)}. Received: path={self.path}")
        self._shape: tuple[int, ...] = ()
        self._file: AbstractContextManager[cv2.VideoWriter] | None = None
        self._writer: cv2.VideoWriter | None = None

    def write(self, frame: Frame) -> None:
        """Append a frame.

        Args:
            frame: uint8 [H, W, 3], RGB, of the size of the first frame.

        Raises:
            ValueError: If it is another kind of array or has another size.
            OSError: If the file cannot be written.
        """
        frame = np.asarray(frame)
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(
                "`frame` must be uint8 with shape (height, width, 3). "
                f"Received: {frame.dtype}, frame.shape={frame.shape}"
            )
        if self._writer is None:
            self._shape = frame.shape
            file = self._opened()
            self._writer = file.__enter__()
            self._file = file
        if frame.shape != self._shape:
            raise ValueError(
                f"All frames of a video must have the same size. Received: frame.shape={frame.shape}; the "
                f"first frame has {self._shape}"
            )
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        self.count += 1

    @contextmanager
    def _opened(self) -> Iterator[cv2.VideoWriter]:
        """Yield a writer of frames of `_shape`, and check the file before it gets its name."""
        # The temporary name keeps the suffix, which tells OpenCV the container.
        with atomic_write(self.path) as temporary:
            codec = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
            writer = cv2.VideoWriter(str(temporary), codec, self.rate, self._shape[1::-1])
            if not writer.isOpened():
                raise OSError(
                    errno.EIO,
                    "OpenCV cannot open it. Check the permissions of the folder, and that OpenCV has the "
                    "codec.",
                )
            try:
                yield writer
            finally:
                writer.release()
            self._check(temporary)

    def _check(self, file: Path) -> None:
        """Raise OSError unless the last frame can be read back: OpenCV reports no error of writing."""
        capture = cv2.VideoCapture(str(file))
        stated = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        capture.set(cv2.CAP_PROP_POS_FRAMES, self.count - 1)
        is_read, _ = capture.read()
        capture.release()
        if stated != self.count or not is_read:
            raise OSError(
                errno.EIO,
                f"the {self.count} frames cannot be read back. Check that the disk has enough space.",
            )

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.__exit__(kind, error, trace)


def detect_video(
    source: str | os.PathLike[str] | int,
    output: str | os.PathLike[str],
    detect: Callable[[list[Frame]], Sequence[Result]],
    draw: Callable[[Frame, Result], Frame],
    *,
    batch_size: int = 1,
    limit: int | None = None,
    progress: bool = True,
) -> int:
    """Detect in each frame of a video, and write a video with the detections drawn in.

    Ctrl-C ends the recording of a camera and keeps the video so far. With other sources, no file remains
    after Ctrl-C or an error.

    Args:
        source: See `VideoReader`.
        output: See `VideoWriter`. The frame rate is that of the source.
        detect: A function from a list of at most batch_size frames to one result per frame, such as
            `MaskRCNN.detect`.
        draw: A function from a frame and its result to a frame. It runs in a thread beside the network.
        batch_size: Frames per call of `detect`.
        limit: The largest number of frames; None for all of them.
        progress: Whether to show a progress bar.

    Returns:
        The number of frames written.

    Raises:
        OSError: If the source cannot be read or the output cannot be written.
        ValueError: If the source has no frame, or is the output, or a number is less than 1.

    Warns:
        UserWarning: If the source has fewer frames than its header declares.
    """
    for name, number in (("batch_size", batch_size), ("limit", limit)):
        if number is not None and number < 1:
            raise ValueError(f"`{name}` must be a number of frames of at least 1. Received: {name}={number}")
    if os.path.exists(output) and os.path.exists(str(source)) and os.path.samefile(output, str(source)):
        raise ValueError(f"The result would replace the video {source}. Choose another path for the result.")
    with VideoReader(source) as reader, VideoWriter(output, reader.rate) as writer:
        expected = reader.frames if limit is None else min(limit, reader.frames or limit)
        with tqdm(total=expected, unit="frame", disable=not progress) as bar:

            def write(frame: Frame, result: Result) -> None:
                writer.write(draw(frame, result))
                bar.update()

            try:
                _run(islice(iter(reader), limit), detect, write, batch_size)
            except KeyboardInterrupt:
                if not reader.is_camera:
                    raise
        if writer.count == 0:
            raise ValueError(f"The video {source} has no frames.")
        if reader.frames is not None and writer.count < min(reader.frames, limit or reader.frames):
            warnings.warn(
                f"{source} ends after {writer.count} frames, but its header declares {reader.frames}. Check "
                "that the file is complete.",
                stacklevel=2,
            )
    return writer.count


def _run(
    frames: Iterator[Frame],
    detect: Callable[[list[Frame]], Sequence[Result]],
    write: Callable[[Frame, Result], None],
    batch_size: int,
) -> None:
    """Decode one batch ahead of `detect`, and draw and encode one batch behind it."""

    def decode() -> list[Frame]:
        return list(islice(frames, batch_size))

    def encode(batch: list[Frame], results: Sequence[Result]) -> None:
        for frame, result in zip(batch, results, strict=True):
            write(frame, result)

    with ThreadPoolExecutor(1, "decode") as decoder, ThreadPoolExecutor(1, "encode") as encoder:
        ahead: Future[list[Frame]] = decoder.submit(decode)
        behind: Future[None] | None = None
        while batch := ahead.result():
            ahead = decoder.submit(decode)
            results = detect(batch)
            if behind is not None:
                behind.result()  # raises what drawing raised
            behind = encoder.submit(encode, batch, results)
        if behind is not None:
            behind.result()
