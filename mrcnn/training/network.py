"""Training: the network with its losses, what trains, the optimiser, and what happens after each epoch."""

import contextlib
import importlib.util
import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn.backend import calls as execution
from mrcnn.backend import devices as distribution
from mrcnn.checkpoints import weights
from mrcnn.fast import fold_batch_norm
from mrcnn.network import losses
from mrcnn.training import optimizers

logger = logging.getLogger(__name__)

LOSS_NAMES = (
    "rpn_class_loss",
    "rpn_bbox_loss",
    "mrcnn_class_loss",
    "mrcnn_bbox_loss",
    "mrcnn_mask_loss",
)

HEADS = r"(mrcnn\_.*)|(rpn\_.*)|(fpn\_.*)"
# Layers of each backbone stage: ResNet's by number, MobileNetV2's blocks by the stride they work at.
STAGE_LAYERS = {
    3: r"(res3.*)|(bn3.*)|(block_[3-5]_.*)",
    4: r"(res4.*)|(bn4.*)|(block_([6-9]|1[0-2])_.*)",
    5: r"(res5.*)|(bn5.*)|(block_1[3-6]_.*)",
}
LAYER_GROUPS = {
    "heads": HEADS,
    "3+": "|".join([*STAGE_LAYERS.values(), HEADS]),
    "4+": "|".join([STAGE_LAYERS[4], STAGE_LAYERS[5], HEADS]),
    "5+": "|".join([STAGE_LAYERS[5], HEADS]),
    "all": ".*",
}


def layer_pattern(layers: str) -> str:
    """The regular expression of a group ("heads", "3+", "4+", "5+", "all"); another text is one itself."""
    return LAYER_GROUPS.get(layers, layers)


def set_trainable(model: keras.Model, layer_regex: str) -> list[keras.Layer]:
    """Let exactly the layers train whose whole name matches, models inside the model layer by layer.

    Returns those layers, in model order. Layers without weights are left alone.
    """
    chosen = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            layer.trainable = True
            chosen += set_trainable(layer, layer_regex)
        elif layer.weights:
            layer.trainable = re.fullmatch(layer_regex, layer.name) is not None
            if layer.trainable:
                chosen.append(layer)
    return chosen


class TrainingNetwork(weights.NamedWeightsModel):
    """A functional model of `build.training_graph` that knows its losses.

    loss_weights: factor of each loss by name, 1 where missing; weight_decay: factor of the L2 penalty;
    devices: those that share each batch. Set them with `configure` before `compile`, when it is settled what
    trains. Losses appear, weighted, under their names in logs.
    """

    devices = distribution.Devices()
    _shared_call: Callable | None = None

    def configure(
        self, loss_weights: dict[str, float], weight_decay: float, devices: distribution.Devices
    ) -> None:
        """Set the factors of the losses and of the L2 penalty, and the devices."""
        self.devices = devices
        folded = fold_batch_norm.folded_at_each_call(keras.Model(self.input, self.output))
        self._shared_call = devices.forward(self, execution.sparing(folded, folded.call))
        self.loss_weights = dict(loss_weights)
        self.weight_decay = float(weight_decay)
        self.loss_trackers = {name: keras.metrics.Mean(name=name) for name in LOSS_NAMES}

    def call(self, inputs, training=None, mask=None):
        if training and self._shared_call is not None:
            return self._shared_call(inputs, training=True)
        return super().call(inputs, training=training, mask=mask)

    def head_losses(self, x: dict, outputs: dict) -> dict[str, Any]:
        """The five losses, not weighted, from the model's inputs and outputs."""
        mean_count = self.devices.mean
        ids = outputs["target_class_ids"]
        places = ops.shape(outputs["target_mask"])[1]
        match = outputs["target_rpn_match"]
        active_class_ids = self.devices.of_first(x["input_image_meta"][:1, 12:])
        return {
            "rpn_class_loss": losses.rpn_class_loss(match, outputs["rpn_class_logits"], mean_count),
            "rpn_bbox_loss": losses.rpn_bbox_loss(
                outputs["target_rpn_bbox"], match, outputs["rpn_bbox"], mean_count
            ),
            "mrcnn_class_loss": losses.mrcnn_class_loss(
                ids, outputs["mrcnn_class_logits"], active_class_ids, mean_count
            ),
            "mrcnn_bbox_loss": losses.mrcnn_bbox_loss(
                outputs["target_bbox"], ids, outputs["mrcnn_bbox"], mean_count
            ),
            "mrcnn_mask_loss": losses.mrcnn_mask_loss(
                outputs["target_mask"], ids[:, :places], outputs["mrcnn_mask"], mean_count
            ),
        }

    def weighted_losses(self, x: dict, outputs: dict) -> dict[str, Any]:
        """The five losses times their factors, from the model's inputs and outputs."""
        losses_by_name = self.head_losses(x, outputs)
        return {name: loss * self.loss_weights.get(name, 1.0) for name, loss in losses_by_name.items()}

    def total_loss(self, weighted: dict[str, Any]) -> Any:
        """What training lowers: the sum of the weighted losses and the L2 penalty of what trains."""
        return self.penalty() + sum(weighted.values())

    def penalty(self) -> Any:
        """The L2 penalty of what trains."""
        return optimizers.l2_penalty(self.trainable_variables, self.weight_decay)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The total loss; each part is tracked under its name."""
        weighted = self.weighted_losses(x, y_pred)
        for name, loss in weighted.items():
            self.loss_trackers[name].update_state(self.devices.mean(loss))
        if not optimizers.adds_penalty(self.optimizer):
            return self.devices.training_loss(self.total_loss(weighted))
        loss = ops.stop_gradient(self.penalty()) + sum(weighted.values())
        return self.devices.training_loss(loss)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """The losses so far in this epoch."""
        return self.devices.logs(super().compute_metrics(x, y, y_pred, sample_weight))


def compile_network(
    network: TrainingNetwork,
    config: Any,
    learning_rate: Any,
    momentum: float,
    devices: distribution.Devices | None = None,
) -> None:
    """Give the network its optimiser: SGD with momentum or Adam, gradients clipped by their joint norm.

    learning_rate: a number or a keras schedule. devices: those that share each batch, in whose scope this is
    called; one if None. GRADIENT_ACCUMULATION_STEPS, EMA_MOMENTUM and JIT_COMPILE are read, too. The loss is
    scaled if the network was built with PRECISION "float16". The optimiser's state starts from zero.
    """
    devices = devices or distribution.Devices()
    network.configure(config.LOSS_WEIGHTS, config.WEIGHT_DECAY, devices)
    common = {
        "learning_rate": learning_rate,
        "global_clipnorm": config.GRADIENT_CLIP_NORM,
        "use_ema": config.EMA_MOMENTUM is not None,
        "ema_momentum": config.EMA_MOMENTUM or 0.0,
    }
    if config.GRADIENT_ACCUMULATION_STEPS > 1:
        common["gradient_accumulation_steps"] = config.GRADIENT_ACCUMULATION_STEPS
    kind = keras.optimizers.Adam if config.OPTIMIZER == "adam" else keras.optimizers.SGD
    common["beta_1" if config.OPTIMIZER == "adam" else "momentum"] = momentum
    penalty = config.WEIGHT_DECAY * devices.share_of_loss
    optimizer = optimizers.adding_penalty(devices.optimizer(kind), penalty)(**common)
    network.compile(optimizer=optimizer, jit_compile=execution.compiles_with_xla(config.JIT_COMPILE))
    network.optimizer.build(network.trainable_variables)


def fit(
    network: TrainingNetwork,
    batches: Any,
    validation: Any,
    first_epoch: int,
    epochs: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> keras.callbacks.History:
    """Train a compiled network on its devices.

    batches, validation: DataGenerators of this process' parts, or None for no validation; first_epoch: epochs
    that are done; epochs: the total. Their threads and processes end with the training, however it ends.
    Returns the history.
    """
    devices = network.devices
    with devices.scope(), batches, validation or contextlib.nullcontext():
        return network.fit(
            devices.batches(batches),
            initial_epoch=first_epoch,
            epochs=epochs,
            steps_per_epoch=devices.steps(batches),
            validation_data=validation and devices.batches(validation),
            validation_steps=validation and devices.steps(validation),
            shuffle=False,  # the batches have their own order, and errors name images by it
            callbacks=callbacks,
            verbose="auto" if devices.is_first_process else 0,
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


def open_run_folder(log_dir: str | os.PathLike, config: Any) -> None:
    """Create the run's folder and write its config.json.

    Raises OSError naming the folder if that is impossible, before any training is lost.
    """
    folder = Path(log_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / "config.json.part"
        temporary.write_text(json.dumps(config.to_dict(), indent=2) + "\n")
        os.replace(temporary, folder / "config.json")
    except OSError as error:
        raise OSError(
            f"Cannot write into the run folder {folder}: {error}. Choose another model_dir, or free the disk."
        ) from error
