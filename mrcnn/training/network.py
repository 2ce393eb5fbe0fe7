"""Training: the network with its losses, what trains, the optimiser, and what happens after each epoch."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from mrcnn.backend import calls as execution
from mrcnn.backend import devices as distribution
from mrcnn.checkpoints import weights
from mrcnn.config.rules import LOSS_NAMES
from mrcnn.fast import fold_batch_norm
from mrcnn.network import losses
from mrcnn.training import optimizers


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
