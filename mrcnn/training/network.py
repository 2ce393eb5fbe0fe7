"""The training network: the training graph with its losses and its optimizer."""

import contextlib
import importlib.util
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from mrcnn import backend
from mrcnn.backend import keras_internals
from mrcnn.backend.devices import Devices
from mrcnn.config import Config
from mrcnn.config.conventions import Conventions
from mrcnn.config.rules import LOSS_NAMES
from mrcnn.geometry import image_meta as meta_fields
from mrcnn.network import losses
from mrcnn.training import optimizers
from mrcnn.training.compiled_steps import CompiledSteps
from mrcnn.training.keras2_loops import Keras2Loops
from mrcnn.training.mean_weights import TrainedWeights
from mrcnn.typing import Tensor

try:
    from mrcnn import fast
except ImportError:
    if importlib.util.find_spec("mrcnn.fast"):
        raise
    fast = None  # type: ignore[assignment]  # the package works without the folder, only slower

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class FastPaths:
    """The fast paths of training, with their settings; see `fast.for_training`."""

    sampled_locations: int
    xla: bool | None

    def __call__(self, model: keras.Model) -> keras.Model:
        """Apply the fast paths to a functional model."""
        rewritten: keras.Model = fast.for_training(
            model, sampled_locations=self.sampled_locations, xla=self.xla
        )
        return rewritten


@keras.saving.register_keras_serializable("mrcnn")
class TrainingNetwork(Keras2Loops):
    """A functional model of `training_graph` with its losses.

    Call `configure` after choosing the layers that train, and before `compile`. The losses appear in the logs
    under their names, multiplied by their weights.
    """

    devices = Devices()
    conventions = Conventions()
    compiled_steps: CompiledSteps | None = None
    trained_weights: TrainedWeights | None = None  # behind the means that the network shows, or last showed
    _training_forward: Callable[..., Tensors] | None = None
    _rewritten: tuple[Any, Callable[..., Tensors]] | None = None

    def configure(
        self,
        loss_weights: Mapping[str, float],
        weight_decay: float,
        devices: Devices,
        rewrite: Callable[[keras.Model], keras.Model] | None = None,
    ) -> None:
        """Set what a training step computes.

        Args:
            loss_weights: Factor of each loss by name; a missing one is 1.
            weight_decay: Factor of the L2 penalty.
            devices: The devices that share each batch.
            rewrite: A function from the plain functional model to a model with the same outputs and
                gradients, which then runs the forward pass of training steps. It is only called again if it
                changes. With None, the plain model runs the forward pass.
        """
        self.devices = devices
        self.loss_weights = {name: float(factor) for name, factor in loss_weights.items()}
        self.weight_decay = float(weight_decay)
        if not hasattr(self, "loss_trackers"):
            self.loss_trackers = {name: keras.metrics.Mean(name=name) for name in LOSS_NAMES}
        forward: Callable[..., Tensors] = super().call
        if rewrite is not None:
            forward = self._rewritten_forward(rewrite)
        self._training_forward = devices.training_forward(self, forward)

    def _rewritten_forward(self, rewrite: Callable[[keras.Model], keras.Model]) -> Callable[..., Tensors]:
        """Return the forward pass of the rewritten model, from the cache if `rewrite` is unchanged.

        Each rewritten model stays in memory, because Keras' layers hold every graph that they are part of.
        """
        if self._rewritten is None or self._rewritten[0] != rewrite:
            forward = backend.low_memory_forward(rewrite(keras.Model(self.input, self.output)))
            self._rewritten = rewrite, forward
        return self._rewritten[1]

    def call(self, inputs: Tensors, training: bool | None = None, mask: Any = None) -> Tensors:
        if training and self._training_forward is not None:
            return self._training_forward(inputs, training=True)
        return super().call(inputs, training=training, mask=mask)

    def compute_losses(self, inputs: Tensors, outputs: Tensors) -> Tensors:
        """Return the five losses by name, not multiplied by their weights."""
        mean_count = self.devices.mean
        class_ids = outputs["target_class_ids"]
        mask_slots = ops.shape(outputs["target_mask"])[1]
        match = outputs["target_rpn_match"]
        active_class_ids = inputs["input_image_meta"][:1, meta_fields.ACTIVE_CLASS_IDS]
        active_class_ids = self.devices.broadcast(active_class_ids)
        beta, per_sample = self.conventions.smooth_l1_beta, self.conventions.losses_per_sample
        is_roi = ops.any(outputs["output_rois"] != 0.0, axis=2) if per_sample else None
        return {
            "rpn_class_loss": losses.rpn_class_loss(match, outputs["rpn_class_logits"], mean_count),
            "rpn_bbox_loss": losses.rpn_bbox_loss(
                outputs["target_rpn_bbox"], match, outputs["rpn_bbox"], mean_count, beta, per_sample
            ),
            "mrcnn_class_loss": losses.mrcnn_class_loss(
                class_ids, outputs["mrcnn_class_logits"], active_class_ids, mean_count, is_roi
            ),
            "mrcnn_bbox_loss": losses.mrcnn_bbox_loss(
                outputs["target_bbox"], class_ids, outputs["mrcnn_bbox"], mean_count, beta, is_roi
            ),
            "mrcnn_mask_loss": losses.mrcnn_mask_loss(
                outputs["target_mask"], class_ids[:, :mask_slots], outputs["mrcnn_mask"], mean_count
            ),
        }

    def weighted_losses(self, inputs: Tensors, outputs: Tensors) -> Tensors:
        """Return the five losses by name, multiplied by their weights."""
        values = self.compute_losses(inputs, outputs)
        return {name: loss * self.loss_weights.get(name, 1.0) for name, loss in values.items()}

    def l2_penalty(self) -> Tensor:
        """Return the L2 penalty of the trainable weights."""
        of_sum, of_norms = self.conventions.decays_sum, self.conventions.decays_norms
        return optimizers.l2_penalty(self.trainable_variables, self.weight_decay, of_sum, of_norms)

    def total_loss(self, weighted: Tensors) -> Tensor:
        """Return the value that training minimizes: the sum of the weighted losses and the L2 penalty."""
        return self.l2_penalty() + sum(weighted.values())

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """Return the total loss, and track each part under its name.

        If the optimizer adds the gradient of the L2 penalty, the penalty only counts in the value.
        """
        weighted = self.weighted_losses(x, y_pred)
        for name, loss in weighted.items():
            self.loss_trackers[name].update_state(self.devices.mean(loss))
        penalty = self.l2_penalty()
        if optimizers.adds_l2_gradient(self.optimizer):
            penalty = ops.stop_gradient(penalty)
        return self.devices.training_loss(penalty + sum(weighted.values()))

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Return the mean losses of the epoch so far."""
        return self.devices.logs(super().compute_metrics(x, y, y_pred, sample_weight))


def compile_network(
    network: TrainingNetwork,
    config: Config,
    learning_rate: Any,
    momentum: float,
    devices: Devices | None = None,
) -> None:
    """Compile a network with its optimizer: SGD with momentum or Adam, with gradients clipped by global norm.

    The state of the optimizer starts from zero. The loss is scaled if the network was built with PRECISION
    "float16". If the network was compiled before for the same layers and settings, at any learning rate, it
    does not compile again.

    Args:
        network: The network, whose trainable layers are already selected.
        config: Its settings of training and of speed.
        learning_rate: A number or a Keras schedule.
        momentum: Momentum of SGD, or beta_1 of Adam.
        devices: The devices that share each batch, whose scope must be active; None for a single device.
    """
    devices = devices or Devices()
    # Keras refuses integers and the floats of NumPy.
    momentum = float(momentum)
    if isinstance(learning_rate, numbers.Real):
        learning_rate = float(learning_rate)
    depends_on = (
        [id(variable) for variable in network.trainable_variables],
        config.stored_settings(),
        None if isinstance(learning_rate, float) else learning_rate,
        momentum,
    )
    use_fast_paths = config.FAST_PATHS and fast is not None
    positives = int(config.TRAIN_ROIS_PER_IMAGE * config.ROI_POSITIVE_RATIO)
    rewrite = FastPaths(config.RPN_TRAIN_ANCHORS_PER_IMAGE + positives, config.JIT_COMPILE)
    network.conventions = config.conventions()
    network.configure(config.LOSS_WEIGHTS, config.WEIGHT_DECAY, devices, rewrite if use_fast_paths else None)
    if network.compiled_steps is None:
        network.compiled_steps = CompiledSteps()
    if devices.count == 1 and network.compiled_steps.restart(network, depends_on, learning_rate):
        return
    optimizer = _optimizer(config, learning_rate, momentum, devices, add_l2_gradient=use_fast_paths)
    network.compile(optimizer=optimizer, jit_compile=backend.compiles_with_xla(config.JIT_COMPILE))
    network.optimizer.build(network.trainable_variables)
    if devices.count == 1:
        network.compiled_steps.add(network, depends_on)


def _optimizer(
    config: Config, learning_rate: Any, momentum: float, devices: Devices, *, add_l2_gradient: bool
) -> keras.Optimizer:
    """Return the optimizer of a Config, which with add_l2_gradient adds the gradient of the L2 penalty."""
    clip_norm = config.GRADIENT_CLIP_NORM
    settings: dict[str, Any] = {
        "learning_rate": learning_rate,
        "global_clipnorm": None if clip_norm is None else float(clip_norm),
        "use_ema": config.EMA_MOMENTUM is not None,
        "ema_momentum": float(config.EMA_MOMENTUM or 0.0),
    }
    if config.GRADIENT_ACCUMULATION_STEPS > 1:
        settings["gradient_accumulation_steps"] = int(config.GRADIENT_ACCUMULATION_STEPS)
    uses_adam = config.OPTIMIZER == "adam"
    settings["beta_1" if uses_adam else "momentum"] = momentum
    if not add_l2_gradient and not devices.clips_after_sum and not settings["use_ema"]:
        return keras.optimizers.Adam(**settings) if uses_adam else keras.optimizers.SGD(**settings)
    settings["l2_factor"] = float(config.WEIGHT_DECAY) * devices.loss_scale if add_l2_gradient else 0.0
    settings["clips_after_sum"] = devices.clips_after_sum
    settings["mean_grows"] = settings["use_ema"]
    settings["l2_of_sum"] = config.conventions().decays_sum
    settings["l2_of_norms"] = config.conventions().decays_norms
    return optimizers.AdamWithL2(**settings) if uses_adam else optimizers.SGDWithL2(**settings)


def fit(
    network: TrainingNetwork,
    batches: Any,
    validation: Any,
    *,
    first_epoch: int,
    epochs: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> keras.callbacks.History:
    """Train a compiled network on its devices.

    Args:
        network: The network.
        batches: DataGenerator of this process' parts of the training batches. Its threads and processes
            always end with the training.
        validation: The same for validation, or None.
        first_epoch: Number of completed epochs.
        epochs: Total number of epochs.
        callbacks: In the order in which they run.

    Returns:
        The history of losses.

    Raises:
        ValueError, RuntimeError: If batches cannot be built; see `DataGenerator`.
    """
    devices, inputs = network.devices, network.inputs
    with (
        devices.data_errors(),
        devices.scope(),
        keras_internals.without_final_means(network.optimizer),  # MeanWeights shows the means
        batches,
        validation or contextlib.nullcontext(),
    ):
        return network.fit_named(
            devices.batches(batches, inputs),
            initial_epoch=first_epoch,
            epochs=epochs,
            steps_per_epoch=devices.steps(batches),
            validation_data=validation and devices.batches(validation, inputs),
            validation_steps=validation and devices.steps(validation),
            shuffle=False,  # the batches have their own order, and errors name images by it
            callbacks=callbacks,
            verbose="auto" if devices.is_first_process else 0,
        )
