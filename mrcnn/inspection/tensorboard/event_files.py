"""Event files of TensorBoard: images, histograms and a graph, written with only the tensorboard package."""

import os
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tensorboard.compat.proto import event_pb2, graph_pb2, summary_pb2
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter


class EventFile:
    """An event file in its own folder, because TensorBoard only follows the newest file in a folder.

    Steps are epochs, counted from 0 as Keras counts them.

    Args:
        folder: Folder of the file. It is created if it does not exist.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventFileWriter(str(self.folder))

    def add_image(self, tag: str, image: np.ndarray, step: int) -> None:
        """Add an RGB image, uint8 [H, W, 3]."""
        height, width = image.shape[:2]
        _, encoded = cv2.imencode(".png", image[..., ::-1])
        summary = summary_pb2.Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=encoded.tobytes()
        )
        value = summary_pb2.Summary.Value(tag=tag, image=summary)
        self._add(step, summary=summary_pb2.Summary(value=[value]))

    def add_histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        """Add the histogram of all finite values of an array."""
        finite = values[np.isfinite(values)].astype(np.float64)
        self._add(step, summary=histogram_pb(tag, finite))

    def add_graph(self, graph: graph_pb2.GraphDef) -> None:
        """Add the graph of the run. TensorBoard shows one per run."""
        self._add(0, graph_def=graph.SerializeToString())

    def flush(self) -> None:
        """Write everything added so far to disk, where TensorBoard reads it."""
        self._writer.flush()

    def close(self) -> None:
        """Write everything added so far and close the file."""
        self._writer.close()

    def _add(self, step: int, **content: Any) -> None:
        self._writer.add_event(event_pb2.Event(wall_time=time.time(), step=step, **content))
