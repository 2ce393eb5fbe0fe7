"""The contestants of `mrcnn`: detection, a training step and train(), by the functions that users call."""

import functools
import random
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from benchmarks import arithmetic, synthetic
from benchmarks.workers import Case
from mrcnn.config import Config, LightConfig
from mrcnn.data.generator import DataGenerator
from mrcnn.model import MaskRCNN
from mrcnn.training import callbacks as training_callbacks
from mrcnn.training import layer_groups

# So small that the network stays as it is: every repeat must do the same work.
LEARNING_RATE = 1e-6
# gamma of the last norm of each residual block. With random weights, 1 would double the variance per block.
LAST_NORM = 0.2
# Logit of class 1 of every RoI, so that there are as many detections as may be kept.
CLASS_LOGIT = 10.0
# Few proposals of random weights meet an object. Counted as positive from this IoU, and together with the
# boxes of the objects, they fill the slots of the mask head as those of a trained network do.
FILLING_IOU = 0.005
# Images of the dataset of train(). Each loader process holds a copy of all of them.
IMAGES = 4


class TinyConfig(Config):
    """A network that is built in a second, to try the benchmarks."""

    TOP_DOWN_PYRAMID_SIZE = 8
    RPN_CHANNELS = 8
    FPN_CLASSIF_FC_LAYERS_SIZE = 16
    MASK_HEAD_CHANNELS = 8
    RPN_ANCHOR_SCALES = (8, 16, 32, 64, 128)
    PRE_NMS_LIMIT = 200
    POST_NMS_ROIS_TRAINING = 40
    TRAIN_ROIS_PER_IMAGE = 12

    @staticmethod
    def BACKBONE(image, stage5=True, train_bn=None):  # noqa: N802
        """One strided convolution per stage."""
        stages = [image]
        for stage, stride in enumerate((4, 1, 2, 2, 2), start=1):
            convolution = keras.layers.Conv2D(8, 3, stride, padding="same", name=f"res{stage}_tiny")
            stages.append(convolution(stages[-1]))
        return stages[1:]

    @staticmethod
    def COMPUTE_BACKBONE_SHAPE(shape):  # noqa: N802
        """Rows and columns of P2 to P6."""
        return [[-(-shape[0] // stride), -(-shape[1] // stride)] for stride in (4, 8, 16, 32, 64)]


def config_of(case: Case) -> Config:
    """Return the configuration of a case. The light network keeps its own numbers of proposals."""
    presets = {"light": LightConfig, "tiny": TinyConfig}
    config = presets.get(case.network, Config)()
    config.NAME = "benchmark"
    config.NUM_CLASSES = case.classes
    config.IMAGES_PER_GPU = case.batch
    config.PRECISION = case.precision
    config.SEED = 0
    config.LOADER_WORKERS = case.workers
    config.DETECTION_MIN_CONFIDENCE = 0
    config.ROI_INCLUDE_GT, config.ROI_POSITIVE_IOU = True, FILLING_IOU
    config.DETECTION_MAX_INSTANCES = case.detections
    if case.network not in presets:
        config.BACKBONE = case.network
    if case.network != "light":
        config.POST_NMS_ROIS_INFERENCE = case.proposals
    config.IMAGE_MIN_DIM, config.IMAGE_MAX_DIM = case.height, case.width
    if case.height != case.width:
        config.IMAGE_RESIZE_MODE, config.IMAGE_MIN_DIM = "pad64", None  # padded, not enlarged
        config.IMAGE_MAX_DIM = max(molded_sides(case))
    change(config, case.settings)
    return config


def change(config: Config, settings: Mapping[str, Any]) -> None:
    """Set fields of a Config. A field that it does not have is a ValueError."""
    for name, value in settings.items():
        if not hasattr(config, name):
            raise ValueError(f"--set must name a field of Config. Received: {name}={value!r}")
        setattr(config, name, value)


def molded_sides(case: Case) -> tuple[int, int]:
    """Return height and width of the molded image: those of the image, padded to multiples of 64."""
    return -(-case.height // 64) * 64, -(-case.width // 64) * 64


def build(case: Case) -> "Detection | TrainingStep | Training":
    """Build the contestant of a case. Its random weights are the same in each run."""
    random.seed(0)  # for the weights; Keras' own function imports TensorFlow on every backend
    return {"detect": Detection, "train": TrainingStep, "fit": Training}[case.task](case)


class Detection:
    """detect() on a batch of images, by a network with random weights that keeps as many as it may."""

    def __init__(self, case: Case):
        self.config = config_of(case)
        self.case = case
        self.model = MaskRCNN("inference", self.config, model_dir=tempfile.gettempdir())
        settle(self.model.keras_model)
        self.images = [synthetic.image(case.height, case.width, seed) for seed in range(case.batch)]

    def run(self) -> list[dict[str, np.ndarray]]:
        """From images to boxes, classes, scores and masks."""
        return self.model.detect(self.images)

    def describe(self, result: list[dict[str, np.ndarray]]) -> dict[str, Any]:
        """Detections per image (the fewest), median side of their boxes, number of proposals."""
        boxes = np.concatenate([detections["rois"] for detections in result])
        return {
            "detections": min(len(detections["rois"]) for detections in result),
            "box_side": float(np.median(np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)))),
            "proposals": self.config.POST_NMS_ROIS_INFERENCE,
        }

    def gflop(self) -> dict[str, float]:
        """Arithmetic by part. The last layer of the mask head runs for the class of each detection only."""
        return arithmetic.of_inference(
            self.model.keras_model, self.config, molded_sides(self.case), self.case.batch
        )

    def device_peak(self) -> int | None:
        """Peak of GPU memory in bytes, as the backend counts it."""
        return device_peak()


class TrainingStep:
    """Training steps of all layers on one batch of the generator, as train() makes them.

    Losses, gradients, clipping and update count. Building the batch does not; see data_pipeline.
    """

    def __init__(self, case: Case):
        self.config = config_of(case)
        self.case = case
        model = MaskRCNN("training", self.config, model_dir=tempfile.gettempdir())
        self.network = model.keras_model
        settle(self.network)
        dataset = synthetic.SyntheticDataset(
            case.batch, case.height, case.width, case.instances, case.classes
        )
        batches = DataGenerator(dataset, self.config, shuffle=False, steps=1, workers=0)
        self.batches = RepeatedBatch(batches[0], case.steps)
        model.set_trainable(layer_groups.layer_pattern("all"), verbose=0)
        model.compile(LEARNING_RATE, self.config.LEARNING_MOMENTUM)
        self.read = model.devices.batches(self.batches)

    def run(self) -> keras.callbacks.History:
        """One short epoch."""
        return self.network.fit(
            self.read, epochs=1, verbose=0, shuffle=False, callbacks=[training_callbacks.KeepHostMemory()]
        )

    def describe(self, result: keras.callbacks.History) -> dict[str, Any]:
        """The loss, and the number of RoIs per image that the heads compute."""
        return {
            "loss": result.history["loss"][-1],
            "steps": self.case.steps,
            "box_rois": self.config.TRAIN_ROIS_PER_IMAGE,
            "mask_rois": self.mask_rois,
        }

    @functools.cached_property
    def mask_rois(self) -> int:
        """RoIs per image that the mask head computes: without XLA, those that the batch fills."""
        return self.network(self.batches.batch[0], training=True)["target_mask"].shape[1]

    def gflop(self) -> dict[str, float]:
        """Arithmetic of the steps by part."""
        return of_steps(self.network, self.config, self.case, self.mask_rois)

    def device_peak(self) -> int | None:
        """Peak of GPU memory in bytes, as the backend counts it."""
        return device_peak()


class Training:
    """train() as users call it, with its loader and callbacks. The seconds are those of its last steps.

    Every call of train() recompiles the network, so one long run says more than several short ones.
    """

    def __init__(self, case: Case):
        self.config = config_of(case)
        self.case = case
        # Batches that may be ready before the first step, which compiles the network.
        ahead = case.workers + 2
        self.config.STEPS_PER_EPOCH = ahead + case.steps
        self.folder = tempfile.TemporaryDirectory()
        self.model = MaskRCNN("training", self.config, self.folder.name)
        settle(self.model.keras_model)
        self.dataset = synthetic.SyntheticDataset(
            IMAGES, case.height, case.width, case.instances, case.classes
        )

    def run(self) -> np.ndarray:
        """Train for one epoch and return the seconds of each of its last steps."""
        clock = StepClock()
        self.model.train(
            self.dataset, None, LEARNING_RATE, self.model.epoch + 1, "all", custom_callbacks=[clock]
        )
        return np.diff(clock.moments)[-self.case.steps :]

    def describe(self, result: np.ndarray) -> dict[str, Any]:
        """The seconds of all these steps, which count, and the quartiles of one."""
        quartiles = np.quantile(result, (0.25, 0.5, 0.75)).tolist()
        return {"seconds": float(result.sum()), "steps": self.case.steps, "step_quartiles": quartiles}

    def gflop(self) -> dict[str, float]:
        """As for a training step, with all slots of the mask head filled."""
        return of_steps(
            self.model.keras_model,
            self.config,
            self.case,
            int(self.config.TRAIN_ROIS_PER_IMAGE * self.config.ROI_POSITIVE_RATIO),
        )

    def device_peak(self) -> int | None:
        """Peak of GPU memory in bytes, as the backend counts it."""
        return device_peak()


def of_steps(network: keras.Model, config: Config, case: Case, mask_rois: int) -> dict[str, float]:
    """Count the arithmetic of the steps of one run by part, in GFLOP."""
    step = arithmetic.of_training(network, config, molded_sides(case), case.batch, mask_rois)
    return {part: case.steps * value for part, value in step.items()}


class StepClock(keras.callbacks.Callback):
    """The time at which each training step ends."""

    def __init__(self):
        super().__init__()
        self.moments: list[float] = []

    def on_train_batch_end(self, batch, logs=None):
        self.moments.append(time.perf_counter())


class RepeatedBatch(keras.utils.PyDataset):
    """An epoch that repeats one batch."""

    def __init__(self, batch: Any, steps: int):
        super().__init__()
        self.batch, self.steps = batch, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> Any:
        return self.batch


def settle(network: keras.Model) -> None:
    """Set some of the random weights so that activations stay small and there are many detections.

    The last norm of each residual block is damped, boxes equal their anchors, and every RoI is of class 1.
    Which anchors become proposals stays random.
    """
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            settle(layer)
        elif layer.name.startswith("bn") and layer.name.endswith("branch2c"):
            layer.gamma.assign(np.full(layer.gamma.shape, LAST_NORM))
        elif layer.name in ("rpn_bbox_pred", "mrcnn_bbox_fc"):
            layer.kernel.assign(np.zeros(layer.kernel.shape))
        elif layer.name == "mrcnn_class_logits":
            layer.kernel.assign(np.zeros(layer.kernel.shape))
            layer.bias.assign(CLASS_LOGIT * (np.arange(layer.bias.shape[0]) == 1))


def device_peak() -> int | None:
    """Return the peak of GPU memory in bytes, as the backend counts it; None without a GPU."""
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    if backend == "jax":
        import jax

        statistics = jax.devices()[0].memory_stats() or {}
        return statistics.get("peak_bytes_in_use")
    import tensorflow

    if not tensorflow.config.list_physical_devices("GPU"):
        return None
    return tensorflow.config.experimental.get_memory_info("GPU:0")["peak"]
