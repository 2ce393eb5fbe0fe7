"""Videos, files and cameras: detect in every frame, draw, and write a video; whole or not at all.

Frames are uint8 [H, W, 3], RGB, turned as players show them. Reading, inference and drawing with writing run
beside each other: while the network has one batch of frames, a thread decodes the next and another one draws
and encodes the one before.
"""

import contextlib
import math
import os
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

Frames = list[np.ndarray]

# FourCC of the codec by the output's ending; both are part of every OpenCV.
CODECS = {".avi": "MJPG", ".mp4": "mp4v"}
DEFAULT_RATE = 25.0  # frames a second where the source does not say


class VideoReader:
    """Frames of a video file, an address that OpenCV opens, or a camera.

    source: path, address, or number of a camera, also as text ("0"). Iterate over it for frames; use it in a
    `with` block, or call close(). rate: frames a second. frames: how many the source states, None if it does
    not (cameras, streams). is_camera: whether frames come without end.
    Raises OSError if the source cannot be opened.
    """

    def __init__(self, source: str | os.PathLike | int) -> None:
        self.is_camera = isinstance(source, int) or str(source).isdigit()
        self.source = int(str(source)) if self.is_camera else str(source)
        self._capture = cv2.VideoCapture(self.source)
        if not self._capture.isOpened():
            what = "camera" if self.is_camera else "video"
            raise OSError(f"Cannot open the {what} {self.source}: missing, in use, or of an unknown format.")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if math.isfinite(rate) and rate > 0 else DEFAULT_RATE
        stated = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.frames = int(stated) if stated > 0 and not self.is_camera else None

    def __iter__(self) -> Iterator[np.ndarray]:
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
        """Let go of the file or camera."""
        self._capture.release()


class VideoWriter:
    """Write frames to a video file, which gets its name when it is whole.

    path: ends in .avi (Motion JPEG) or .mp4 (MPEG-4); missing folders are made. rate: frames a second.
    Use it in a `with` block: leaving it regularly finishes the file, an error or Ctrl-C leaves none.
    Raises ValueError for another ending and frames of changing size, OSError if it cannot be written.
    """

    def __init__(self, path: str | os.PathLike, rate: float) -> None:
        self.path = Path(path)
        self.rate = rate
        self.count = 0
        if self.path.suffix.lower() not in CODECS:
            raise ValueError(f"A video's name must end in {' or '.join(CODECS)}. Received: path={self.path}")
        # The ending tells OpenCV the container.
        self._part = self.path.with_name(f".{uuid.uuid4().hex[:8]}.part{self.path.suffix}")
        self._shape: tuple[int, ...] = ()
        self._writer: cv2.VideoWriter | None = None

    def write(self, frame: np.ndarray) -> None:
        """Append a frame, uint8 [H, W, 3] RGB, of the first one's size."""
        frame = np.asarray(frame)
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"A frame is uint8 [H, W, 3]. Received: {frame.dtype}, shape {frame.shape}")
        if self._writer is None:
            self._open(frame.shape)
        if frame.shape != self._shape:
            raise ValueError(
                f"All frames of a video have one size. Received: {frame.shape}, first {self._shape}"
            )
        assert self._writer is not None
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        self.count += 1

    def _open(self, shape: tuple[int, ...]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        code = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
        self._writer = cv2.VideoWriter(str(self._part), code, self.rate, (shape[1], shape[0]))
        self._shape = shape
        if not self._writer.isOpened():
            raise OSError(f"OpenCV cannot write {self.path}: no right to, or no codec {CODECS}.")

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._writer is not None:
                self._writer.release()
            if kind is None and self.count:
                os.replace(self._part, self.path)
        finally:
            with contextlib.suppress(OSError):
                self._part.unlink()


def detect_video(
    source: str | os.PathLike | int,
    output: str | os.PathLike,
    detect: Callable[[Frames], Sequence[Any]],
    draw: Callable[[np.ndarray, Any], np.ndarray],
    batch_size: int = 1,
    limit: int | None = None,
    progress: bool = True,
) -> int:
    """Write a video with the detections of each frame of another one drawn into it, at its frame rate.

    source: see `VideoReader`; output: see `VideoWriter`. detect: from a list of at most batch_size frames to
    one result each, `MaskRCNN.detect`. draw: from a frame and its result to a frame; runs in a thread beside
    the network. limit: frames at most. progress: show a bar.

    Returns the number of frames written. Ctrl-C ends the recording of a camera, which is finished and kept;
    with other sources, and after an error, no file is left.
    Raises OSError if the source cannot be read or the output written, ValueError if there is no frame; warns
    of a source that ends before the frames it states.
    """
    with VideoReader(source) as reader, VideoWriter(output, reader.rate) as writer:
        expected = reader.frames if limit is None else min(limit, reader.frames or limit)
        with tqdm(total=expected, unit="frame", disable=not progress) as bar:
            try:
                _run(islice(iter(reader), limit), writer, detect, draw, batch_size, bar)
            except KeyboardInterrupt:
                if not reader.is_camera:
                    raise
        if writer.count == 0:
            raise ValueError(f"There is no frame in {source}.")
        if not reader.is_camera and expected is not None and writer.count < expected:
            warnings.warn(
                f"{source} ends after {writer.count} of the {expected} frames it states: is it cut off?",
                stacklevel=2,
            )
    return writer.count


def _run(
    frames: Iterator[np.ndarray],
    writer: VideoWriter,
    detect: Callable[[Frames], Sequence[Any]],
    draw: Callable[[np.ndarray, Any], np.ndarray],
    batch_size: int,
    bar: Any,
) -> None:
    """Decode one batch ahead, draw and encode one behind; each thread has one batch at a time."""

    def decode() -> Frames:
        return list(islice(frames, batch_size))

    def encode(batch: Frames, results: Sequence[Any]) -> None:
        for frame, result in zip(batch, results, strict=True):
            writer.write(draw(frame, result))
            bar.update()

    with ThreadPoolExecutor(1, "decode") as decoder, ThreadPoolExecutor(1, "encode") as encoder:
        ahead: Future[Frames] = decoder.submit(decode)
        behind: Future[None] | None = None
        while batch := ahead.result():
            ahead = decoder.submit(decode)
            results = detect(batch)
            if behind is not None:
                behind.result()  # raises what drawing raised
            behind = encoder.submit(encode, batch, results)
        if behind is not None:
            behind.result()
