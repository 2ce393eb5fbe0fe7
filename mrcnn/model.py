"""MaskRCNN: build, load weights, train, detect, look inside.

At its end stand the names that scripts and notebooks take from this module.
"""

import logging
import os
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from mrcnn.backend import calls as execution
from mrcnn.backend import devices as distribution
from mrcnn.backend import precision
from mrcnn.checkpoints import downloads, weights
from mrcnn.data.generator import DataGenerator
from mrcnn.data.generator import data_generator as data_generator
from mrcnn.data.loading import load_image_gt as load_image_gt
from mrcnn.data.roi_targets import build_detection_targets as build_detection_targets
from mrcnn.data.roi_targets import generate_random_rois as generate_random_rois
from mrcnn.data.rpn_targets import build_rpn_targets as build_rpn_targets
from mrcnn.evaluation import evaluate as evaluation
from mrcnn.geometry import anchors, boxes
from mrcnn.geometry.image_meta import compose_image_meta as compose_image_meta
from mrcnn.geometry.image_meta import parse_image_meta as parse_image_meta
from mrcnn.geometry.images import check_molded_size
from mrcnn.geometry.images import mold_image as mold_image
from mrcnn.geometry.images import unmold_image as unmold_image
from mrcnn.inference import detector as inference
from mrcnn.inference.test_time_augmentation import detect_with_options
from mrcnn.inspection import graph_search
from mrcnn.inspection.graph_search import log as log
from mrcnn.legacy.network_names import *  # noqa: F403 (the original's names of the network's parts)
from mrcnn.network import graphs
from mrcnn.network.detection_targets import DetectionTargetLayer as DetectionTargetLayer
from mrcnn.network.detections import DetectionLayer as DetectionLayer
from mrcnn.network.normalization import BatchNorm as BatchNorm
from mrcnn.network.proposals import ProposalLayer as ProposalLayer
from mrcnn.network.roi_align import PyramidROIAlign as PyramidROIAlign
from mrcnn.training import callbacks as training_callbacks
from mrcnn.training import layer_groups, runs
from mrcnn.training import network as training_network

logger = logging.getLogger(__name__)

MODES = ("training", "inference")
# The original's outputs of the inference network, in its order.
INFERENCE_OUTPUTS = (
    "mrcnn_detection",
    "mrcnn_class",
    "mrcnn_bbox",
    "mrcnn_mask",
    "ROI",
    "rpn_class",
    "rpn_bbox",
)


def compute_backbone_shapes(config: Any, image_shape: Sequence[int]) -> np.ndarray:
    """Height and width of the feature map of each pyramid level, int [levels, 2].

    image_shape: (H, W, ...) of the molded image. A callable BACKBONE is asked through
    config.COMPUTE_BACKBONE_SHAPE.
    """
    return anchors.backbone_shapes(config, image_shape)


class MaskRCNN:
    """The detector: a network, its settings and its run folder.

    mode: "training" or "inference". config: a Config, checked here. model_dir: folder of all runs.
    The network is `keras_model`; `epoch` counts the epochs that are done, `log_dir` is this run's folder
    (created by `train`), `checkpoint_path` the pattern of its weight files.
    Raises ValueError for another mode or settings that cannot work, naming them.
    """

    def __init__(self, mode: str, config: Any, model_dir: str | os.PathLike):
        if mode not in MODES:
            raise ValueError(f"mode must be one of {MODES}. Received: mode={mode!r}")
        config.validate()
        self.mode = mode
        self.config = config
        self.model_dir = model_dir
        self._anchors = anchors.AnchorCache(config)
        self._detector: inference.Detector | None = None
        self._proposal_steps: dict[keras.Layer, dict[str, Any]] = {}
        self._graph_calls: dict[tuple, Callable] = {}
        self.set_log_dir()
        self.devices = distribution.devices(config.GPU_COUNT, training=mode == "training")
        self.keras_model = self.build(mode=mode, config=config)

    def build(self, mode: str, config: Any) -> keras.Model:
        """The network of a mode with fresh weights; see `mrcnn.network.graphs`."""
        open_places = execution.sizes_may_vary(config.JIT_COMPILE)
        training_mode = mode == "training"
        with precision.scope(config.PRECISION):
            with self.devices.scope():  # for the layers; Keras expects less of a model that is made outside
                self._graph = (
                    graphs.training_graph(config, open_places)
                    if training_mode
                    else graphs.inference_graph(config)
                )
            if training_mode:
                return training_network.TrainingNetwork(
                    self._graph.inputs, self._graph.outputs, name="mask_rcnn"
                )
            outputs = [self._graph.outputs[name] for name in INFERENCE_OUTPUTS]
            return weights.NamedWeightsModel(list(self._graph.inputs.values()), outputs, name="mask_rcnn")

    # --- Weights and runs ---

    def load_weights(
        self,
        filepath: str | os.PathLike,
        by_name: bool = False,
        exclude: Sequence[str] | None = None,
        strict: bool = True,
        resume: bool = True,
    ) -> weights.LoadReport:
        """Load weights by layer name, all or nothing; see `mrcnn.checkpoints.weights.load_weights`.

        by_name: accepted for old callers, names are used in any case. exclude: layers that keep their
        present weights. strict: False turns layers that only one side has from an error into a warning.
        resume: with a path of a run, go on at its epoch in its folder; False begins a new run.
        Returns the report of what was loaded. Raises ValueError naming every layer that does not fit.
        """
        report = weights.load_weights(self.keras_model, filepath, exclude=exclude, strict=strict)
        self.set_log_dir(filepath if resume else None)
        return report

    def copy_weights(self, other: "MaskRCNN") -> None:
        """Take over the present weights of another model, by layer name; see `weights.copy_weights`."""
        weights.copy_weights(other.keras_model, self.keras_model)

    def inference_model(self, config: Any = None) -> "MaskRCNN":
        """A model of mode "inference" with this one's present weights, to look at results while it trains.

        config: settings of detection; if None, this model's for one image at a time, whole and padded where
        training crops. Later weights are brought over by its `copy_weights(this model)`.
        """
        config = config or inference.whole_image_config(self.config)
        detector = type(self)("inference", config, self.model_dir)
        detector.copy_weights(self)
        return detector

    def get_imagenet_weights(self) -> str:
        """Download the ImageNet weights of ResNet-50, if they are not there, and give their path."""
        if self.config.BACKBONE != "resnet50":
            warnings.warn(
                "The ImageNet weights are of ResNet-50. "
                f"Received: BACKBONE={self.config.BACKBONE!r}, of which other layers stay random.",
                stacklevel=2,
            )
        return downloads.get_imagenet_weights()

    def find_last(self) -> str:
        """Path of the newest weights of this config's NAME. Raises FileNotFoundError if there are none."""
        return str(runs.find_last(self.model_dir, self.config.NAME))

    def set_log_dir(self, model_path: str | os.PathLike | None = None) -> None:
        """Begin a new run, or go on with the one that a weight file's path belongs to."""
        run = None
        if model_path is not None:
            run = runs.resumed_run(self.model_dir, self.config.NAME, model_path)
        if run is not None:
            print(f"Continuing the run of {model_path} after epoch {run.epoch}, in {run.log_dir}")
        run = run or runs.new_run(self.model_dir, self.config.NAME)
        self.epoch = run.epoch
        self.log_dir = str(run.log_dir)
        self.checkpoint_path = run.checkpoint_path

    # --- Training ---

    def compile(self, learning_rate: Any, momentum: float) -> None:
        """Give the training network its optimiser (OPTIMIZER), gradients clipped by their joint norm."""
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
        """Let exactly those layers train whose whole name matches; log their names if verbose."""
        model = keras_model or self.keras_model
        for layer in layer_groups.set_trainable(model, layer_regex):
            if verbose:
                log(f"{' ' * indent}{layer.name:<30} ({type(layer).__name__})")

    def train(
        self,
        train_dataset: Any,
        val_dataset: Any,
        learning_rate: Any,
        epochs: int,
        layers: str,
        augmentation: Any = None,
        custom_callbacks: Sequence[keras.callbacks.Callback] | None = None,
        no_augmentation_sources: Sequence[str] | None = None,
    ) -> keras.callbacks.History | None:
        """Train to a total number of epochs; weights are written after each.

        train_dataset, val_dataset: prepared Datasets; val_dataset may be None. learning_rate: a number or a
        keras schedule. epochs: counted from the run's beginning, so a resumed run trains the rest. layers:
        "heads", "3+", "4+", "5+", "all" or a regular expression of layer names. augmentation: an imgaug
        augmenter or another of mrcnn.data.augmentation; no_augmentation_sources: sources that are left as
        they are. custom_callbacks: more keras callbacks, such as those of mrcnn.training.callbacks; what
        they add to the logs of an epoch goes to TensorBoard, too.

        Returns the keras History; None if nothing was left to train.
        Raises ValueError in the wrong mode or if classes do not fit, RuntimeError if too many images cannot
        be read, FloatingPointError if the loss stops being finite, OSError if weights cannot be written.
        """
        if self.mode != "training":
            raise ValueError(f"train() needs a model of mode 'training'. Received: mode={self.mode!r}")
        if epochs <= self.epoch:
            warnings.warn(
                f"Nothing to train: epochs={epochs} is the total, and {self.epoch} are done. Give a larger "
                "number, or load the weights with resume=False to begin a new run.",
                stacklevel=2,
            )
            return None
        batches, validation = self._batches(train_dataset, val_dataset, augmentation, no_augmentation_sources)
        first = self.devices.is_first_process
        if first:
            runs.open_run_folder(self.log_dir, self.config)
        log(f"\nStarting at epoch {self.epoch}. LR={learning_rate}\n")
        log(f"Checkpoint Path: {self.checkpoint_path}")
        self.set_trainable(layer_groups.layer_pattern(layers))
        self.compile(learning_rate, self.config.LEARNING_MOMENTUM)
        saver = training_callbacks.SaveWeights(self.checkpoint_path) if first else None
        mean_weights = self.config.EMA_MOMENTUM is not None
        callbacks = training_callbacks.default_callbacks(
            self.log_dir, saver, batches, custom=custom_callbacks or (), mean_weights=mean_weights
        )
        history = training_network.fit(self.keras_model, batches, validation, self.epoch, epochs, callbacks)
        self.epoch = max(self.epoch, epochs)
        if batches.skipped:
            logger.warning("%d images could not be used: %s", len(batches.skipped), batches.skipped)
        return history

    def _batches(self, train_dataset, val_dataset, augmentation, unaugmented):
        """The training batches, and the validation batches: the same images in every epoch."""
        config, devices = self.config, self.devices
        part = (devices.process, devices.processes)
        seed = devices.agree(np.random.randint(2**31)) if config.SEED is None else config.SEED
        batches = DataGenerator(
            train_dataset,
            config,
            seed=seed,
            part=part,
            augmentation=augmentation,
            no_augmentation_sources=unaugmented,
        )
        batches.epoch = self.epoch
        if val_dataset is None:
            return batches, None
        one_pass = -(-len(val_dataset.image_ids) // config.BATCH_SIZE)
        steps = min(config.VALIDATION_STEPS or one_pass, max(one_pass, 1))
        validation = DataGenerator(val_dataset, config, shuffle=False, steps=steps, seed=seed, part=part)
        return batches, validation

    # --- Detection ---

    def mold_inputs(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Resize, pad and normalise pictures that end up equally large.

        images: [h, w, channels] each. Returns molded images [N, H, W, channels], image metas
        [N, 12 + classes], windows [N, (y1, x1, y2, x2)] in pixels of the molded image.
        Raises ValueError if their molded sizes differ.
        """
        molded, metas, windows = inference.mold_inputs(images, self.config)
        shapes = {image.shape for image in molded}
        if len(shapes) > 1:
            raise ValueError(
                f"Molded images of one batch must have one size. Received: {sorted(shapes)}. "
                'Mold them one by one, or use IMAGE_RESIZE_MODE = "square".'
            )
        return np.stack(molded), np.stack(metas), np.stack(windows)

    def detect(
        self, images: Sequence[np.ndarray], verbose: int = 0, masks: str = "full"
    ) -> list[dict[str, Any]]:
        """Find the objects of each picture.

        images: any number of pictures of any sizes, [h, w, channels] or grey [h, w]; uint8, uint16 or float.
        masks: "full", or for many objects in large images "cropped" or "rle", see `inference.masks_in_form`.
        Returns one dict per picture, in order: rois int32 [N, (y1, x1, y2, x2)] pixels of the picture,
        class_ids int32 [N], scores float32 [N] falling, masks bool [h, w, N] or in the other form.
        Raises ValueError in training mode, and for pictures that do not fit the config.
        """
        self._require_inference("detect")
        inference.check_mask_form(masks)
        pictures = list(images)
        if verbose:
            log(f"Processing {len(pictures)} images")
            for picture in pictures:
                log("image", np.asarray(picture))
            molded, metas, _ = inference.mold_inputs(pictures, self.config)
            if len({image.shape for image in molded}) == 1:
                log("molded_images", np.stack(molded))
                log("image_metas", np.stack(metas))
                log("anchors", self.get_anchors(molded[0].shape))
        found = detect_with_options(self._detect_once, pictures, self.config)
        return [{**result, "masks": inference.masks_in_form(result["masks"], masks)} for result in found]

    def _detect_once(self, pictures: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        molded, metas, windows = inference.mold_inputs(pictures, self.config)
        shapes = [np.asarray(picture).shape for picture in pictures]
        return self._detect(molded, metas, windows, shapes, "cropped")

    def detect_molded(
        self, molded_images: np.ndarray, image_metas: np.ndarray, verbose: int = 0
    ) -> list[dict[str, np.ndarray]]:
        """Find the objects of images that are resized and mean-subtracted already (see `mold_image`).

        molded_images: [N, H, W, channels]; image_metas: [N, 12 + classes]. Returns as `detect`, in pixels of
        the molded images, padding included. `load_image_gt` does not subtract the mean.
        """
        self._require_inference("detect_molded")
        if len(molded_images) != len(image_metas):
            raise ValueError(
                "Each molded image needs its meta. "
                f"Received: {len(molded_images)} images, {len(image_metas)} metas"
            )
        if verbose:
            log(f"Processing {len(molded_images)} images")
            log("molded_images", np.asarray(molded_images))
            log("image_metas", np.asarray(image_metas))
        for image in molded_images:
            check_molded_size(image.shape)
        shapes = [image.shape for image in molded_images]
        windows = [(0, 0, *shape[:2]) for shape in shapes]
        return self._detect(list(molded_images), list(image_metas), windows, shapes)

    def evaluate(
        self,
        dataset: Any,
        image_ids: Sequence[int] | None = None,
        iou_types: Sequence[str] = ("box", "mask"),
        results_path: str | os.PathLike | None = None,
        min_score: float | None = None,
        verbose: int = 1,
    ) -> dict[str, list]:
        """Measure the detector on a dataset as COCO does; see `mrcnn.evaluation.evaluate`.

        dataset: a prepared Dataset; image_ids: all if None; iou_types: "box", "mask" or both; results_path:
        a file for the detections in COCO's form; min_score: with a number also AP(tau) and panoptic quality
        of the detections scored at least so; verbose: 1 shows progress and prints tables.
        Of each image and class the best DETECTION_MAX_INSTANCES detections count, at least COCO's 100.
        Returns columns of a table for `pandas.DataFrame`, the first row over all classes.
        Raises ValueError in training mode or without images.
        """
        self._require_inference("evaluate")
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
        )

    def _detect(self, molded, metas, windows, original_shapes, mask_form="full") -> list[dict[str, Any]]:
        """Detections of each molded image in the coordinates of its picture."""
        if self._detector is None:
            count = self.devices.count
            with self.devices.scope():
                self._detector = inference.Detector(self._graph, self.keras_model, self.config, count)
        results = []
        for index, found in enumerate(self._detector.run(molded, metas, self.get_anchors)):
            *placed, crops = inference.place_in_image(
                *found, original_shapes[index], molded[index].shape, windows[index]
            )
            result: dict[str, Any] = dict(zip(("rois", "class_ids", "scores"), placed, strict=True))
            results.append({**result, "masks": inference.masks_in_form(crops, mask_form)})
        return results

    def unmold_detections(
        self,
        detections: np.ndarray,
        mrcnn_mask: np.ndarray,
        original_image_shape: Sequence[int],
        image_shape: Sequence[int],
        window: Sequence[int],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Bring one image's network output to the picture's coordinates.

        detections: [D, 6] normalised; mrcnn_mask: [D, h, w, classes]; see `inference.place_in_image`.
        Returns boxes int32 [N, 4], class ids int32 [N], scores [N], masks bool [H, W, N].
        """
        count = inference.count_detections(detections)
        class_ids = detections[:count, 4].astype(int)
        own_masks = np.asarray(mrcnn_mask)[np.arange(count), :, :, class_ids]
        place = (original_image_shape, image_shape, window)
        rois, class_ids, scores, crops = inference.place_in_image(detections, own_masks, *place)
        return rois, class_ids, scores, crops.whole()

    def get_anchors(self, image_shape: Sequence[int]) -> np.ndarray:
        """Normalised anchors float32 [A, 4] for a molded (H, W, channels) shape, kept for the next call.

        Also sets `anchors`, the same in pixels (float64).
        """
        self.anchors = self._anchors.of(image_shape)
        return boxes.norm_boxes(self.anchors, image_shape[:2])

    def _require_inference(self, caller: str) -> None:
        if self.mode != "inference":
            raise ValueError(f"{caller}() needs a model of mode 'inference'. Received: mode={self.mode!r}")

    # --- Looking inside ---

    def ancestor(self, tensor: Any, name: str, checked: Any = None) -> Any:
        """The tensor of this name among those that a symbolic tensor is computed from, or None.

        See `mrcnn.inspection.ancestor` for the names it knows; checked is not used.
        """
        return graph_search.ancestor(tensor, name, self._proposal_steps)

    def find_trainable_layer(self, layer: keras.Layer) -> keras.Layer:
        """The layer with the weights inside (nested) time-distributed wrappers."""
        while isinstance(layer, keras.layers.TimeDistributed):
            layer = layer.layer
        return layer

    def get_trainable_layers(self) -> list[keras.Layer]:
        """All layers with weights, in model order; the RPN is one of them."""
        layers = [self.find_trainable_layer(layer) for layer in self.keras_model.layers]
        return [layer for layer in layers if layer.get_weights()]

    def run_graph(
        self,
        images: Sequence[np.ndarray],
        outputs: Sequence[tuple[str, Any]],
        image_metas: np.ndarray | None = None,
    ) -> "OrderedDict[str, np.ndarray]":
        """Values of any tensors of the inference network for some pictures.

        images: pictures; with image_metas [N, 12 + classes] they are taken as molded already. outputs:
        (label, symbolic tensor) pairs, such as ("rpn_class", keras_model.get_layer("rpn_class").output).
        A set of outputs is compiled at its first call. Returns label to array, logged one by one.
        Raises ValueError for a missing tensor.
        """
        self._require_inference("run_graph")
        missing = [label for label, tensor in outputs if tensor is None]
        if missing:
            raise ValueError(f"No tensor was found for the labels {missing}: check the layer names.")
        if image_metas is None:
            molded, image_metas, _ = self.mold_inputs(images)
        else:
            molded = np.asarray(images)
        normalized = self.get_anchors(molded[0].shape)
        values = self._graph_call(outputs)(
            {
                "input_image": molded.astype(np.float32),
                "input_image_meta": np.asarray(image_metas, np.float32),
                "input_anchors": np.broadcast_to(normalized, (len(molded), *normalized.shape)),
            }
        )
        found = OrderedDict((label, execution.to_numpy(values[label])) for label, _ in outputs)
        for label, value in found.items():
            log(label, value)
        return found

    def _graph_call(self, outputs: Sequence[tuple[str, Any]]) -> Callable:
        """The compiled call that computes these tensors, kept for the next time they are asked for."""
        key = tuple((label, id(tensor)) for label, tensor in outputs)
        if key not in self._graph_calls:  # the call keeps its tensors, so that no other one gets their ids
            model = keras.Model(self._graph.inputs, dict(outputs))
            self._graph_calls[key] = execution.compiled(model)
        return self._graph_calls[key]
