"""Callbacks for `MaskRCNN.train(custom_callbacks=[...])`: measure detections, keep the best weights.

    found = Evaluate(model, val_dataset, InferenceConfig(), every=2)
    best = SaveBest(os.path.join(model.log_dir, "best.h5"))
    stop = keras.callbacks.EarlyStopping("val_mask_AP", mode="max", patience=5)
    model.train(train_dataset, val_dataset, ..., custom_callbacks=[found, best, stop])

Evaluate comes first: the others read from the logs what it has put there. Keras' own ModelCheckpoint writes
files by class and position of layers, which do not fit the inference network; SaveBest writes by name.
"""

import logging
import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from mrcnn.backend import devices as distribution
from mrcnn.checkpoints import weights

logger = logging.getLogger(__name__)

# What Evaluate adds to the logs, of the measures there are.
LOGGED = ("box_AP", "box_AP50", "mask_AP", "mask_AP50", "mask_AP75", "tau_AP", "tau_AP50", "PQ")


class Evaluate(keras.callbacks.Callback):
    """Measure the detections of a validation set after every so many epochs, and add them to the logs.

    model: the MaskRCNN that trains. dataset: a prepared Dataset. config: settings of detection; by default
    those of `MaskRCNN.inference_model`. every: epochs between two evaluations. image_ids, iou_types,
    min_score: see `MaskRCNN.evaluate`. measures: which of its columns are added, where they are there and
    defined. The inference network is built once and then follows the weights.

    After each evaluation the epoch's logs hold the measures over all classes, as val_mask_AP, val_mask_AP50,
    val_box_AP and so on: in the History, in TensorBoard, and for callbacks that monitor one. Other epochs
    have none, as with the validation_freq of Keras: a History then has fewer of them than epochs. `results`
    holds the whole table of the last evaluation.
    Raises ValueError if `every` is no positive number.
    """

    def __init__(
        self,
        model: Any,
        dataset: Any,
        config: Any = None,
        every: int = 1,
        image_ids: Sequence[int] | None = None,
        iou_types: Sequence[str] = ("box", "mask"),
        min_score: float | None = None,
        measures: Sequence[str] = LOGGED,
    ):
        super().__init__()
        if every < 1:
            raise ValueError(f"every must be at least 1. Received: every={every}")
        self.every, self.measures = every, tuple(measures)
        self.results: dict[str, list] | None = None
        self._trained, self._config = model, config
        self._arguments = {
            "dataset": dataset,
            "image_ids": image_ids,
            "iou_types": iou_types,
            "min_score": min_score,
        }
        self._detector: Any = None

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every:
            return
        if self._detector is None:
            self._detector = self._trained.inference_model(self._config)
        self._detector.copy_weights(self._trained)
        self.results = self._detector.evaluate(**self._arguments, verbose=0)
        overall = {name: self.results[name][0] for name in self.measures if name in self.results}
        measures = {f"val_{name}": value for name, value in overall.items() if not np.isnan(value)}
        if logs is not None:
            logs.update(measures)


class SaveBest(keras.callbacks.Callback):
    """Write the weights by layer name whenever a monitored number is the best so far.

    path: the file; it is replaced, whole or not at all; of several processes the first writes.
    monitor: a name in the epoch's logs; epochs without it are passed over. mode: "max" or "min". baseline:
    only better ones are written, such as the best of an earlier part of the run.
    Raises ValueError for another mode; warns in the log after a training in which no epoch had that name.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        monitor: str = "val_mask_AP",
        mode: str = "max",
        baseline: float | None = None,
    ):
        super().__init__()
        if mode not in ("max", "min"):
            raise ValueError(f'mode must be "max" or "min". Received: mode={mode!r}')
        self.path, self.monitor = path, monitor
        self.best, self.best_epoch = baseline, None
        self._sign = 1 if mode == "max" else -1
        self._known: set[str] = set()
        self._seen = False

    def on_epoch_end(self, epoch, logs=None):
        self._known |= set(logs or ())
        value = (logs or {}).get(self.monitor)
        if value is None:
            return
        self._seen = True
        if self.best is None or self._sign * value > self._sign * self.best:
            if getattr(self.model, "devices", distribution.Devices()).is_first_process:
                weights.save_weights(self.model, self.path)
            self.best, self.best_epoch = float(value), epoch
            logger.info("Best %s so far: %.4f, epoch %d, %s", self.monitor, value, epoch + 1, self.path)

    def on_train_end(self, logs=None):
        if self._known and not self._seen:
            logger.warning(
                "No best weights were kept: no epoch had %r. The logs had %s. Put Evaluate before SaveBest, "
                "or correct `monitor`.",
                self.monitor,
                sorted(self._known),
            )
