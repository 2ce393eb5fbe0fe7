"""Callbacks of every training, and more for `MaskRCNN.train(custom_callbacks=[...])`.

    evaluate = Evaluate(model, val_dataset, InferenceConfig(), every=2)
    best = SaveBest(os.path.join(model.log_dir, "best.h5"))
    stop = keras.callbacks.EarlyStopping("val_mask_AP", mode="max", patience=5)
    model.train(train_dataset, val_dataset, ..., custom_callbacks=[evaluate, best, stop])

Put Evaluate first, because the other callbacks read its metrics from the logs. Use SaveBest instead of Keras'
ModelCheckpoint, which stores weights by position. SaveBest stores them by layer name, so the inference
network can load them.
"""

import importlib.util
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np

from mrcnn import backend
from mrcnn.backend.devices import Devices
from mrcnn.checkpoints import weights
from mrcnn.checkpoints.model_info import model_info
from mrcnn.errors import DataError
from mrcnn.training import runs
from mrcnn.training.mean_weights import MeanWeights

if TYPE_CHECKING:
    from mrcnn.config import Config
    from mrcnn.data.generator import DataGenerator
    from mrcnn.dataset import Dataset
    from mrcnn.model import MaskRCNN

logger = logging.getLogger(__name__)

# The measures that Evaluate adds to the logs by default.
LOGGED = ("box_AP", "box_AP50", "mask_AP", "mask_AP50", "mask_AP75", "tau_AP", "tau_AP50", "PQ")

# The logs of a step or an epoch, as Keras passes them to a callback.
Logs = dict[str, Any] | None


class Evaluate(keras.callbacks.Callback):
    """Evaluate the detections on a validation set and add the metrics to the logs of the epoch.

    The logs get `val_mask_AP`, `val_mask_AP50`, `val_box_AP` and so on, each averaged over all classes. They
    appear in the History and in TensorBoard, and other callbacks can monitor them. Logs of epochs without an
    evaluation lack them. The inference network is built once and gets the current weights before each
    evaluation. `results` holds the complete table of the last evaluation.

    Args:
        model: The MaskRCNN that trains.
        dataset: A prepared Dataset to evaluate on.
        config: Settings of detection, by default those of `MaskRCNN.inference_model`.
        every: Number of epochs between evaluations.
        image_ids: Images to evaluate; see `MaskRCNN.evaluate`.
        iou_types: "box", "mask" or both; see `MaskRCNN.evaluate`.
        min_score: Lowest score that counts for `tau_AP` and `PQ`; see `MaskRCNN.evaluate`.
        measures: Columns of the table of `MaskRCNN.evaluate` to add if they exist and are not NaN.

    Raises:
        ValueError: If `every` is less than 1.
    """

    def __init__(
        self,
        model: "MaskRCNN",
        dataset: "Dataset",
        config: "Config | None" = None,
        every: int = 1,
        image_ids: Sequence[int] | None = None,
        iou_types: Sequence[str] = ("box", "mask"),
        min_score: float | None = None,
        measures: Sequence[str] = LOGGED,
    ) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(
                f"`every` must be a number of epochs, at least 1. Received: every={every!r}. Use every=1 to "
                "evaluate after each epoch."
            )
        self.every, self.measures = every, tuple(measures)
        self.results: dict[str, list] | None = None
        self._trained_model, self._config = model, config
        self._arguments: dict[str, Any] = {
            "dataset": dataset,
            "image_ids": image_ids,
            "iou_types": iou_types,
            "min_score": min_score,
        }
        self._detector: MaskRCNN | None = None

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if (epoch + 1) % self.every:
            return
        if self._detector is None:
            self._detector = self._trained_model.inference_model(self._config)
        self._detector.copy_weights(self._trained_model)
        self.results = self._detector.evaluate(**self._arguments, verbose=0)
        # The first row of the table holds the means over all classes.
        overall = {name: self.results[name][0] for name in self.measures if name in self.results}
        if logs is not None:
            logs.update({f"val_{name}": value for name, value in overall.items() if not np.isnan(value)})


class SaveBest(keras.callbacks.Callback):
    """Save the weights whenever a monitored value improves.

    After training, `best` and `best_epoch` (from 0) hold the value and its epoch. If several processes train
    together, only the first one writes. If no epoch had the value, training ends with a warning.

    A run that continues keeps the file of its best epoch until an epoch is better. If the file is from
    another run, or from an epoch that the run repeats, it is moved to a subfolder before a new one is
    written.

    Args:
        path: The weight file. It is replaced atomically, so a killed process never leaves a partial file.
        monitor: Name of a value in the logs. Epochs without this value are skipped.
        mode: "max" if larger values are better, "min" if smaller ones are.
        baseline: Save only values better than this, and replace any file at `path`. By default, the value
            that the file of an earlier epoch of the run contains.

    Raises:
        ValueError: If `mode` is neither "max" nor "min".
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: str = "val_mask_AP",
        mode: Literal["max", "min"] = "max",
        baseline: float | None = None,
    ) -> None:
        super().__init__()
        if mode not in ("max", "min"):
            raise ValueError(f'`mode` must be "max" or "min". Received: mode={mode!r}')
        self.path, self.monitor = path, monitor
        self.best: float | None = baseline
        self.best_epoch: int | None = None
        self._sign = 1 if mode == "max" else -1
        self._log_names: set[str] = set()
        self._first_epoch: int | None = None

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if self._first_epoch is None:
            self._first_epoch = epoch
        logs = logs or {}
        self._log_names |= set(logs)
        value = logs.get(self.monitor)
        if value is None or np.isnan(value):
            return
        is_first = getattr(self.model, "devices", Devices()).is_first_process
        if self.best is None:
            self._use_or_move_file(self._first_epoch, may_move=is_first)
        if self.best is None or self._sign * value > self._sign * self.best:
            if is_first:
                weights.save_weights(self.model, self.path, metrics={**logs, "epoch": epoch + 1})
            self.best, self.best_epoch = float(value), epoch
            logger.info("Best %s so far: %.4f in epoch %d, %s", self.monitor, value, epoch + 1, self.path)

    def _use_or_move_file(self, done: int, *, may_move: bool) -> None:
        """Take the best value so far from the file if it is from the `done` epochs; else move the file."""
        path = Path(self.path)
        if not path.is_file():
            return
        metrics = _stored_metrics(path)
        if self.monitor in metrics and metrics.get("epoch", done + 1) <= done:
            self.best, self.best_epoch = metrics[self.monitor], int(metrics["epoch"]) - 1
            logger.info("Best %s so far: %.4f, in %s", self.monitor, self.best, path)
        elif may_move:
            aside = runs.move_aside([path])
            reason = "it is not from an earlier epoch of this run"
            logger.warning("SaveBest moved %s to %s: %s.", path, aside, reason)

    def on_train_end(self, logs: Logs = None) -> None:
        if self._log_names and self.monitor not in self._log_names:
            logger.warning(
                "SaveBest saved no weights, because the logs never contained monitor=%r. They contained "
                "%s. Correct `monitor`, or put Evaluate before SaveBest in custom_callbacks.",
                self.monitor,
                sorted(self._log_names),
            )


def _stored_metrics(path: Path) -> Mapping[str, float]:
    """Return the metrics in a weight file; none for a file that has none or cannot be read."""
    try:
        info = model_info(path)
    except DataError:
        return {}
    return {} if info is None else info.metrics


class SaveWeights(keras.callbacks.Callback):
    """Save the weights after each epoch. A killed process never leaves a partial file.

    Args:
        checkpoint_path: Path with a field such as `{epoch:04d}` in its file name; epochs count from 1.
    """

    def __init__(self, checkpoint_path: str) -> None:
        super().__init__()
        self.checkpoint_path = checkpoint_path
        self.last_path: Path | None = None

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        path = runs.weights_path(self.checkpoint_path, epoch + 1)
        weights.save_weights(self.model, path, metrics={**(logs or {}), "epoch": epoch + 1})
        self.last_path = path


class StopWhenNotFinite(keras.callbacks.Callback):
    """Stop as soon as a loss or weight is not finite, and restore the last good weights.

    The model gets the weights of the last saved epoch, or those it started with.

    Args:
        saver: The SaveWeights callback of the same training, or None if another process saves.
        batches: The training data, from which the image ids of the step are determined.

    Raises:
        FloatingPointError: If a loss or weight is not finite. The message names the epoch, step, losses and
            image ids, and what to try.
    """

    def __init__(self, saver: SaveWeights | None, batches: "DataGenerator") -> None:
        super().__init__()
        self.saver = saver
        self.batches = batches
        self._initial_weights: list[np.ndarray] | None = None
        self._epoch = 0
        self._step = 0

    def on_train_begin(self, logs: Logs = None) -> None:
        self._initial_weights = self.model.get_weights()

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._epoch = epoch
        if self.saver is not None and self.saver.last_path is not None:
            self._initial_weights = None  # from here on the weights are restored from the file

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._step = batch
        not_finite = [name for name, value in (logs or {}).items() if not np.isfinite(float(value))]
        if not_finite:
            self._stop(not_finite)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        # A finite loss can have a gradient that is not finite. Such weights must not reach the file.
        if not all(np.isfinite(array).all() for array in self.model.get_weights()):
            self._stop(["weights"])

    def _stop(self, not_finite: list[str]) -> None:
        image_ids = self._image_ids()
        restored = self._restore()
        raise FloatingPointError(
            f"Training stopped in epoch {self._epoch + 1}, step {self._step + 1}: {', '.join(not_finite)} "
            f"not finite. The batch holds the image ids {image_ids}. The model was restored to {restored}. "
            "Check these images and their masks; then try a lower learning rate or a smaller "
            "GRADIENT_CLIP_NORM."
        )

    def _image_ids(self) -> list[int]:
        """Return the image ids of the current step's batch, which is built again."""
        generator_epoch, self.batches.epoch = self.batches.epoch, self._epoch  # it may be an epoch ahead
        metas = self.batches[self._step][0]["input_image_meta"]
        self.batches.epoch = generator_epoch
        return [int(image_id) for image_id in metas[:, 0]]

    def _restore(self) -> str:
        """Restore the last good weights, and return a description of them."""
        path = None if self.saver is None else self.saver.last_path
        if path is None:
            self.model.set_weights(self._initial_weights)
            return "the weights it started with"
        weights.load_weights(self.model, path)
        return f"the weights of {path}"


class KeepHostMemory(keras.callbacks.Callback):
    """Let the process keep freed memory between steps; see `backend.keep_host_memory`.

    Memory that was freed while the network was built is first returned to the system.
    """

    def on_train_begin(self, logs: Logs = None) -> None:
        backend.give_back_host_memory()

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        backend.keep_host_memory()


class ProgressBar(keras.callbacks.ProgbarLogger):
    """Keras' progress bar, from the second step of a training on.

    The first step compiles the network. After it, Keras would expect every step to take as long.
    """

    _is_first_step = False

    def on_train_begin(self, logs: Logs = None) -> None:
        super().on_train_begin(logs)
        self._is_first_step = True

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        shown, self.progbar.verbose = self.progbar.verbose, 0 if self._is_first_step else self.progbar.verbose
        super().on_train_batch_end(batch, logs)
        self.progbar.verbose, self._is_first_step = shown, False


def default_callbacks(
    log_dir: str | os.PathLike[str],
    saver: SaveWeights | None,
    batches: "DataGenerator",
    *,
    custom: Sequence[keras.callbacks.Callback] = (),
    ema_momentum: float | None = None,
) -> list[keras.callbacks.Callback]:
    """Return the callbacks of every training.

    Args:
        log_dir: Folder of the run.
        saver: The callback that saves the weights, or None in a process that writes no files.
        batches: The training data.
        custom: Additional callbacks. They run before TensorBoard, which writes the values that they add to
            the logs.
        ema_momentum: Momentum of the running mean of the weights (EMA_MOMENTUM), or None. The mean replaces
            the weights for the validation of an epoch, for `saver` and for `custom`; see `MeanWeights`.
    """
    callbacks = [KeepHostMemory(), StopWhenNotFinite(saver, batches)]
    if ema_momentum is not None:
        callbacks.append(MeanWeights(ema_momentum, Path(log_dir) if saver else None))
    callbacks += [*([saver] if saver else []), *custom]
    if saver is None:
        pass
    elif importlib.util.find_spec("tensorflow") and importlib.util.find_spec("tensorboard"):
        callbacks.append(keras.callbacks.TensorBoard(log_dir=str(log_dir), write_graph=False))
    else:
        logger.warning("Cannot write TensorBoard files: install the packages tensorflow and tensorboard.")
    if not any(isinstance(callback, keras.callbacks.ProgbarLogger) for callback in custom):
        callbacks.append(ProgressBar())  # the last one, so that it shows what the others add to the logs
    return callbacks


def restored_epoch(callbacks: Sequence[keras.callbacks.Callback]) -> int | None:
    """Return the epoch, from 0, whose weights EarlyStopping has restored; None if it has restored none."""
    for callback in reversed(callbacks):
        is_stopping = isinstance(callback, keras.callbacks.EarlyStopping)
        if is_stopping and callback.restore_best_weights and callback.best_weights is not None:
            return int(callback.best_epoch)
    return None


def metrics_of(history: keras.callbacks.History, epoch: int) -> dict[str, float]:
    """Return the logs of an epoch, from 0, with the number of epochs until then as `epoch`.

    Args:
        history: The history of a training.
        epoch: One of its epochs.
    """
    index, count = history.epoch.index(epoch), len(history.epoch)
    # A metric that is not measured in each epoch does not say in which ones.
    complete = {name: values for name, values in history.history.items() if len(values) == count}
    return {name: float(values[index]) for name, values in complete.items()} | {"epoch": epoch + 1}
