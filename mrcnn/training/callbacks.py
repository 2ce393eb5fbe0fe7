"""Callbacks for `MaskRCNN.train(custom_callbacks=[...])`: measure detections, keep the best weights.

    found = Evaluate(model, val_dataset, InferenceConfig(), every=2)
    best = SaveBest(os.path.join(model.log_dir, "best.h5"))
    stop = keras.callbacks.EarlyStopping("val_mask_AP", mode="max", patience=5)
    model.train(train_dataset, val_dataset, ..., custom_callbacks=[found, best, stop])

Evaluate comes first: the others read from the logs what it has put there. Keras' own ModelCheckpoint writes
files by class and position of layers, which do not fit the inference network; SaveBest writes by name.
"""

import importlib.util
import logging
import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from mrcnn.backend import calls as execution
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


class SaveWeights(keras.callbacks.Callback):
    """Write the weights after each epoch, whole or not at all.

    checkpoint_path: with an {epoch:04d} place; epochs count from 1.
    """

    def __init__(self, checkpoint_path: str):
        super().__init__()
        self.checkpoint_path = checkpoint_path
        self.last_path: str | None = None

    def on_epoch_end(self, epoch, logs=None):
        path = self.checkpoint_path.format(epoch=epoch + 1)
        weights.save_weights(self.model, path)
        self.last_path = path


class StopWhenNotFinite(keras.callbacks.Callback):
    """Stop at the first step whose loss, or the weights after it, are not finite, with the last good weights.

    saver: the SaveWeights of the same training, None where another process writes; batches: the training
    data, asked for the images of the step.
    Raises FloatingPointError naming epoch, step, losses, image ids and cures; before that the model gets back
    the weights of the last epoch, or those it began with.
    """

    def __init__(self, saver: SaveWeights | None, batches: Any):
        super().__init__()
        self.saver = saver
        self.batches = batches
        self._start: list[np.ndarray] | None = None
        self._epoch = 0
        self._step = 0

    def on_train_begin(self, logs=None):
        self._start = self.model.get_weights()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        if self.saver is not None and self.saver.last_path is not None:
            self._start = None  # the file holds them from here on

    def on_train_batch_end(self, batch, logs=None):
        self._step = batch
        broken = [name for name, value in (logs or {}).items() if not np.isfinite(float(value))]
        if broken:
            self._stop(broken)

    def on_epoch_end(self, epoch, logs=None):
        # A loss can be finite and its gradient not: such weights must not reach the file.
        if not all(np.isfinite(array).all() for array in self.model.get_weights()):
            self._stop(["weights"])

    def _stop(self, broken: list[str]) -> None:
        # The generator may have gone on to the next epoch.
        now, self.batches.epoch = self.batches.epoch, self._epoch
        meta = self.batches[self._step][0]["input_image_meta"]
        self.batches.epoch = now
        ids = [int(image_id) for image_id in meta[:, 0]]
        kept = self._restore()
        raise FloatingPointError(
            f"The loss is not finite in epoch {self._epoch + 1}, step {self._step + 1} "
            f"({', '.join(broken)}), image ids {ids}. The model has {kept}. Look at these images and their "
            "masks; then try a lower learning rate, or a smaller GRADIENT_CLIP_NORM."
        )

    def _restore(self) -> str:
        path = None if self.saver is None else self.saver.last_path
        if path is None:
            self.model.set_weights(self._start)
            return "the weights it began with"
        weights.load_weights(self.model, path)
        return f"its weights of {path} back"


class KeepHostMemory(keras.callbacks.Callback):
    """Keep freed memory from step to step, see `execution.keep_host_memory`, but not what building left."""

    def on_train_begin(self, logs=None):
        execution.give_back_host_memory()

    def on_train_batch_begin(self, batch, logs=None):
        execution.keep_host_memory()


def default_callbacks(
    log_dir: str | os.PathLike,
    saver: SaveWeights | None,
    batches: Any,
    custom: Sequence[keras.callbacks.Callback] = (),
    mean_weights: bool = False,
) -> list[keras.callbacks.Callback]:
    """What every training does after its steps and epochs: watch the loss, save, write TensorBoard files.

    saver: None in a process that leaves files to another; it writes no TensorBoard files either.
    custom: more callbacks; they come before TensorBoard, so that it writes what they add to the logs.
    mean_weights: the optimiser keeps a running mean of the weights (EMA_MOMENTUM), which takes their place
    for validation and from the end of an epoch to the beginning of the next, for saver and custom.
    """
    callbacks = [KeepHostMemory(), StopWhenNotFinite(saver, batches)]
    if mean_weights:
        callbacks.append(keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    callbacks += [*([saver] if saver else []), *custom]
    if saver is None:
        return callbacks
    if importlib.util.find_spec("tensorflow") and importlib.util.find_spec("tensorboard"):
        callbacks.append(keras.callbacks.TensorBoard(log_dir=str(log_dir), write_graph=False))
    else:
        logger.warning("No TensorBoard files are written: they need the packages tensorflow and tensorboard.")
    return callbacks
