"""TensorBoard's event files: images, histograms and a graph, written with the tensorboard package alone."""

import os
import time
from pathlib import Path

import cv2
import numpy as np
from tensorboard.compat.proto import event_pb2, graph_pb2, summary_pb2
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter


class EventFile:
    """One event file in a folder of its own: TensorBoard follows only the newest file of a folder.

    folder: created if missing. Steps are epochs, counted from 0 as Keras counts them.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventFileWriter(str(self.folder))

    def add_image(self, tag: str, picture: np.ndarray, step: int) -> None:
        """Add a picture, uint8 RGB [H, W, 3]."""
        height, width = picture.shape[:2]
        _, encoded = cv2.imencode(".png", picture[..., ::-1])
        image = summary_pb2.Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=encoded.tobytes()
        )
        value = summary_pb2.Summary.Value(tag=tag, image=image)
        self._add(step, summary=summary_pb2.Summary(value=[value]))

    def add_histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        """Add the histogram of all finite values of an array."""
        finite = values[np.isfinite(values)].astype(np.float64)
        self._add(step, summary=histogram_pb(tag, finite))

    def add_graph(self, graph: graph_pb2.GraphDef) -> None:
        """Add the graph; a run has one."""
        self._add(0, graph_def=graph.SerializeToString())

    def flush(self) -> None:
        """Let TensorBoard see what was added so far."""
        self._writer.flush()

    def close(self) -> None:
        """Write what is left and close the file."""
        self._writer.close()

    def _add(self, step: int, **content) -> None:
        self._writer.add_event(event_pb2.Event(wall_time=time.time(), step=step, **content))
