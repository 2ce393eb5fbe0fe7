"""Settings of a model.

Derive from Config and override what differs:

    class BalloonConfig(Config):
        NAME = "balloon"
        NUM_CLASSES = 1 + 1  # background and balloon
"""

import copy
import dataclasses
import difflib
import inspect
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from mrcnn.config import rules
from mrcnn.config.conventions import CONVENTIONS, Conventions
from mrcnn.config.rules import KNOWN_BACKBONES as KNOWN_BACKBONES
from mrcnn.config.rules import LOSS_NAMES as LOSS_NAMES
from mrcnn.geometry.image_meta import ACTIVE_CLASS_IDS

# Computed settings, and the settings to change instead.
DERIVED = {
    "BATCH_SIZE": "IMAGES_PER_GPU and GPU_COUNT",
    "IMAGE_SHAPE": "IMAGE_MIN_DIM, IMAGE_MAX_DIM and IMAGE_CHANNEL_COUNT",
    "IMAGE_META_SIZE": "NUM_CLASSES",
}

# The values of IMAGE_RESIZE_MODE with which each molded image has its own size.
OWN_SIZES = ("pad64", "shortest", "none")

# Similarity above which an unknown name counts as misspelled. It catches one or two wrong letters and accepts
# new names such as LEARNING_RATE_DECAY, although there is a LEARNING_RATE.
MISSPELLING = 0.88

# The key of `to_dict` that lists settings whose values are functions.
CALLABLES = "CALLABLES"


class Config:
    """Base settings. Override any uppercase attribute in a subclass or on an instance.

    Each instance has its own copies of lists, dicts and arrays. BATCH_SIZE, IMAGE_SHAPE and IMAGE_META_SIZE
    are computed from other settings, so they follow later changes. A model calls validate() when it is built;
    call it yourself after you change a setting.
    """

    # --- Name and devices ---

    NAME: str | None = None
    """Short name of the project. Run folders and weight files are named after it, in lowercase. Every model
    needs a name."""

    GPU_COUNT = 1
    """Number of devices that share each batch, counted over all machines; see docs/several-devices.md. Use 1
    on a CPU."""

    IMAGES_PER_GPU = 2
    """Images per device and step. More images give a less noisy gradient and take proportionally more memory.
    If memory runs out, lower this setting first."""

    # --- Length of an epoch ---

    STEPS_PER_EPOCH: int | None = 1000
    """Training batches per epoch, or None for one pass over the data. After each epoch, weights are saved and
    validation runs, so shorter epochs mean that both happen more often."""

    VALIDATION_STEPS: int | None = 50
    """Validation batches after each epoch, or None or 0 for one pass over the data. More batches give a more
    reliable result and take longer."""

    # --- Network ---

    CONVENTIONS = "keras2"
    """The library whose conventions for boxes, anchors, proposals, ROIAlign, masks and losses the network
    follows: "keras2", "torchvision" or "detectron2"; see `mrcnn.config.conventions`. Weights only work with
    the value that they were trained with."""

    BACKBONE: str | Callable = "resnet101"
    """One of "resnet50", "resnet101", "resnext101_32x8d", "mobilenetv2" and "efficientnetlite0", or a
    callable `f(input_image, stage5=True, train_bn=...)` that returns C1 to C5. The last two are by far the
    fastest. The ImageNet weights of "efficientnetlite0" expect MEAN_PIXEL = (127, 127, 127), those of
    "mobilenetv2" (127.5, 127.5, 127.5). Wrap a plain function in staticmethod when you assign it in a class
    body."""

    COMPUTE_BACKBONE_SHAPE: Callable | None = None
    """With a callable BACKBONE: a function `f(image_shape)` that returns the sizes of P2 to P6, [[height,
    width], ...]."""

    BACKBONE_STRIDES: Sequence[int] = [4, 8, 16, 32, 64]
    """Input pixels per location, one number for each of P2 to P6. The backbone determines them."""

    RESNET_STYLE = "keras"
    """Variant of ResNet. "keras" puts the stride into the first 1 x 1 convolution of a block, pads as
    TensorFlow does, and has biases before batch norms. "caffe" pads all sides equally and has no such biases.
    "pytorch" is like "caffe" but puts the stride into the 3 x 3 convolution (ResNet v1.5)."""

    NORM = "batch"
    """Kind of normalization. "batch" is batch normalization, which published weights need (see TRAIN_BN).
    "group" normalizes over groups of channels of one image (Wu and He, 2018). It can be trained from scratch
    with any batch size, and takes about twice the time on a CPU."""

    BATCH_NORM_EPSILON = 0.001
    """Number that batch norm adds to the variance. Weights only work with the value that they were trained
    with."""

    FROZEN_BN = False
    """Whether to freeze the scale and shift of batch norms in training, too. Use it with TRAIN_BN = False."""

    FPN_NORM = False
    """Whether to normalize after every convolution of the feature pyramid."""

    HEAD_NORM = "all"
    """Layers of the heads that a normalization follows: "all" except the last one, only "convolutions" larger
    than 1 x 1, or "none"."""

    BOX_HEAD_CONVOLUTIONS = 0
    """Number of 3 x 3 convolutions at the start of the box head. One fully connected hidden layer follows
    them. With 0 convolutions there are two hidden layers instead."""

    FPN_CLASSIF_FC_LAYERS_SIZE = 1024
    """Units in each of the fully connected hidden layers of the box head."""

    TOP_DOWN_PYRAMID_SIZE = 256
    """Channels of every pyramid level. Fewer are faster; published weights need 256."""

    RPN_CHANNELS = 512
    """Channels of the RPN's shared 3 x 3 convolution. Published weights need 512."""

    RPN_CONVOLUTIONS = 1
    """Number of the RPN's shared 3 x 3 convolutions: 1 or 2."""

    MASK_HEAD_CHANNELS = 256
    """Channels of the mask head's convolutions. Published weights need 256."""

    NUM_CLASSES = 1
    """Number of classes including the background: 1 + the number of object classes."""

    # --- Anchors and proposals (first stage) ---

    RPN_ANCHOR_SCALES: Sequence[float] = (32, 64, 128, 256, 512)
    """Side of a square anchor in input pixels, one for each of P2 to P6. Match them to the object sizes."""

    RPN_ANCHOR_RATIOS: Sequence[float] = [0.5, 1, 2]
    """Width / height of the anchors at each location: 0.5 is tall, 2 is wide."""

    RPN_ANCHOR_STRIDE = 1
    """Distance between anchors in locations: 1 puts anchors at every location, 2 at every second location in
    both directions, which suits large objects. Weights only work with the value that they were trained
    with."""

    RPN_NMS_THRESHOLD = 0.7
    """IoU above which NMS drops the lower-scored of two proposals. Raise it to keep more proposals of
    crowded objects."""

    RPN_POSITIVE_IOU = 0.7
    """Lowest IoU with an object at which an anchor is positive."""

    RPN_NEGATIVE_IOU = 0.3
    """IoU below which an anchor is negative. Anchors between RPN_NEGATIVE_IOU and RPN_POSITIVE_IOU are
    neutral."""

    CROWD_IOU = 0.001
    """Lowest IoU with a crowd at which an anchor or RoI cannot be negative."""

    RPN_TRAIN_ANCHORS_PER_IMAGE = 256
    """Number of anchors per image from which the RPN learns. At most half of them are positive."""

    RPN_TARGETS_IN_GRAPH = True
    """Whether the network computes the RPN targets, so that batches hold only images and their ground truth.
    If False, batches also hold `input_rpn_match` and `input_rpn_bbox`, as those of data_generator do."""

    PRE_NMS_LIMIT = 6000
    """Number of highest-scored anchors that enter NMS: per image, or per pyramid level if CONVENTIONS is not
    "keras2". Fewer anchors are faster but may lose objects."""

    PRE_NMS_LIMIT_TRAINING: int | None = None
    """PRE_NMS_LIMIT in training. None means the same number as in detection."""

    POST_NMS_ROIS_TRAINING = 2000
    """Largest number of proposals per image that NMS keeps in training."""

    POST_NMS_ROIS_INFERENCE = 1000
    """Largest number of proposals per image that NMS keeps in detection."""

    # --- Masks ---

    USE_MINI_MASK = True
    """Whether to store each ground-truth mask as a mini-mask, a small copy of the part inside its box. This
    takes far less memory and makes outlines slightly coarser."""

    MINI_MASK_SHAPE: Sequence[int] = (56, 56)
    """Height and width of a mini-mask in pixels."""

    # --- Input images ---

    IMAGE_RESIZE_MODE = "square"
    """How to resize images for the network. "square" scales and pads them to a square of side IMAGE_MAX_DIM,
    which works for all images. "pad64" pads the sides to multiples of 64, for detection in large images.
    "crop" cuts out a random square of side IMAGE_MIN_DIM, for training only. "shortest" scales the short side
    to IMAGE_MIN_DIM, or the long side to IMAGE_MAX_DIM if it would be longer, and pads on the right and at
    the bottom to multiples of 32. "none" changes nothing, so images must have a valid size."""

    IMAGE_MIN_DIM: int | None = 800
    """Length in pixels to which the short side of a smaller image is enlarged. None or 0 turns this off."""

    IMAGE_MAX_DIM: int | None = 1024
    """Side of the square input in pixels. The cost grows with the square of this number; small objects need a
    large input."""

    IMAGE_MIN_SCALE: float = 0
    """Smallest scale factor, applied after IMAGE_MIN_DIM: 2 enlarges every image at least twofold. 0 turns
    this off."""

    IMAGE_CHANNEL_COUNT = 3
    """Channels of the input. A value other than 3 needs a matching MEAN_PIXEL, a Dataset.load_image that
    returns as many channels, and a first convolution trained from scratch. With 1, gray images repeated over
    three channels fit, too."""

    CONTRAST_PERCENTILES: Sequence[float] | None = None
    """Stretch each channel so that these two percentiles of the image become 0 and 255, in training and in
    detection. None leaves images unchanged. Use (1, 99.8) for images whose brightness, exposure or tint
    carries no information, as in microscopy. Weights only work with the value that they were trained with."""

    IMAGE_VALUE_RANGE: Sequence[float] | None = None
    """Values (black, white) that become 0 and 255, in training and in detection, such as (0, 4095) for a
    12-bit camera. This setting has no effect on uint8 and bool images. With None, uint16 images range from 0
    to 65535 and floats from 0 to 1, and training sets the range for datasets of float images. Weights only
    work with the value that they were trained with."""

    MEAN_PIXEL: Any = np.array([123.7, 116.8, 103.9])
    """Mean of each channel (RGB, 0 to 255), subtracted from every image."""

    # --- RoIs and heads (second stage) ---

    TRAIN_ROIS_PER_IMAGE = 200
    """Number of RoIs per image from which the heads learn. More RoIs help if images have many objects, and
    take more memory."""

    ROI_POSITIVE_RATIO = 0.33
    """Largest share of positives among TRAIN_ROIS_PER_IMAGE."""

    ROI_POSITIVE_IOU = 0.5
    """Lowest IoU with an object at which an RoI is positive."""

    ROI_INCLUDE_GT = False
    """Whether to add the ground-truth boxes to the proposals in training, so that the heads have positives to
    learn from before the RPN finds any. This helps when you train from scratch. The Keras 2 library does not
    add them."""

    MASK_POSITIVES_ONLY: bool | None = None
    """Whether to run the mask head in training on positive RoIs only, which are at most a third of all RoIs;
    the others have no mask loss. None does so if the result is the same, which holds unless batch norm takes
    its statistics from all RoIs."""

    POOL_SIZE = 7
    """Cells per side that ROIAlign pools for the box head."""

    MASK_POOL_SIZE = 14
    """Cells per side that ROIAlign pools for the mask head."""

    MASK_SHAPE: Sequence[int] = [28, 28]
    """Height and width of a predicted mask in cells: twice MASK_POOL_SIZE."""

    MAX_GT_INSTANCES = 100
    """Largest number of objects per image from which the heads learn. If an image has more, they are chosen
    at random, and RoIs of the others are neither objects nor background. With RPN_TARGETS_IN_GRAPH = False,
    the network does not know the others and learns them as background; then set this to the largest number
    of objects in an image."""

    RPN_BBOX_STD_DEV: Any = np.array([0.1, 0.1, 0.2, 0.2])
    """Standard deviations of the RPN's deltas (dy, dx, log(dh), log(dw)). Targets are divided by them."""

    BBOX_STD_DEV: Any = np.array([0.1, 0.1, 0.2, 0.2])
    """Standard deviations of the box head's deltas (dy, dx, log(dh), log(dw)). Targets are divided by
    them."""

    # --- Detections ---

    DETECTION_MAX_INSTANCES = 100
    """Maximum number of detections per image."""

    DETECTION_MIN_CONFIDENCE: float = 0.7
    """Lowest score of a detection. A lower value finds more objects and makes more mistakes. 0 keeps all
    detections."""

    DETECTIONS_PER_CLASS = False
    """Which classes of an RoI become detections. False: only its best class, and none if that is the
    background, so with one class, all scores are above 0.5. True: every class whose score is at least
    DETECTION_MIN_CONFIDENCE. CONVENTIONS other than "keras2" always do the latter."""

    DETECTION_NMS_THRESHOLD = 0.3
    """Box IoU above which NMS drops the lower-scored of two detections of the same class."""

    SOFT_NMS_SIGMA: float | None = None
    """Width of the Gaussian of Soft-NMS, such as 0.5; None for NMS at DETECTION_NMS_THRESHOLD. Soft-NMS does
    not drop a detection that overlaps a better one of its class with box IoU u: it multiplies its score by
    exp(-u * u / SOFT_NMS_SIGMA). Detections whose lowered score is at least DETECTION_MIN_CONFIDENCE remain,
    or 0.001 if that is 0."""

    MASK_NMS_THRESHOLD: float | None = None
    """Mask IoU above which a second NMS drops the lower-scored of two detections of the same class, also with
    SOFT_NMS_SIGMA. None turns this NMS off."""

    TEST_TIME_FLIPS = "none"
    """Also detect in flipped copies of the image and merge the results: "none", "horizontal" (takes twice
    as long) or "all" (four times as long, for objects without an upright position)."""

    # --- Training ---

    LEARNING_RATE = 0.001
    """Learning rate to pass to train(); the library itself does not read it. Training diverges with the 0.02
    of the paper."""

    OPTIMIZER = "sgd"
    """Optimizer. "sgd", with momentum, is that of the paper. "adam" takes far fewer steps to learn from
    scratch, at learning rates near 0.001."""

    LEARNING_MOMENTUM = 0.9
    """Momentum of "sgd", from 0 to below 1; the first decay rate of "adam"."""

    WEIGHT_DECAY = 0.0001
    """Factor of the L2 penalty. The penalty is the mean square of each weight tensor, or half the sum of
    squares if CONVENTIONS is not "keras2"."""

    LOSS_WEIGHTS: Mapping[str, float] = dict.fromkeys(LOSS_NAMES, 1.0)
    """Factor of each loss in the total, by the names in LOSS_NAMES. The factor of a missing name is 1."""

    USE_RPN_ROIS = True
    """Whether the heads learn from the RPN's proposals. If False, they learn from the RoIs in the batch
    instead."""

    TRAIN_BN: bool | Literal["heads"] | None = False
    """Statistics of batch norm. False always uses the stored ones, which suits small batches and pretrained
    weights. None uses those of the batch in training and the stored ones in detection. "heads" is like False
    in the backbone and like None in the other layers, which suits a pretrained backbone under layers that
    start from random weights. True always uses those of the batch."""

    GRADIENT_CLIP_NORM: float | None = 5.0
    """Largest global norm of the gradients; larger gradients are scaled down. None turns clipping off."""

    GRADIENT_ACCUMULATION_STEPS = 1
    """Number of steps whose gradients are averaged before the weights change. Use it if the batch that you
    want does not fit into memory."""

    EMA_MOMENTUM: float | None = None
    """Largest momentum of a running mean of the weights, such as 0.999. After t steps of a training the
    momentum is at most t / (t + 9), so a short training does not end near its first weights. Statistics of
    batch norm are averaged, too. Validation, weight files and the network after training have the mean, while
    training continues with the weights themselves: the next call to `train` starts with those, unless
    weights were loaded or changed in between. So does a run resumed from its last epoch, if its folder holds
    trained_weights.npz and one process trains. Otherwise, training starts with the mean. None turns this
    off."""

    # --- Speed ---

    FAST_PATHS = True
    """Whether to use the fast paths of `mrcnn.fast`, which compute the same numbers faster. False builds the
    plain network of the paper."""

    PRECISION = "float32"
    """Floating-point type of the network: "float32", or, on accelerators that support half precision,
    "bfloat16" or "float16" with loss scaling. Weights, boxes, NMS and losses are always float32. "auto"
    detects in bfloat16 if BFLOAT16_IS_SAFE and the machine is faster in it: GPUs with tensor cores for
    bfloat16, and with TensorFlow and PyTorch processors with AMX or AVX512-BF16. Otherwise it is
    "float32"."""

    BFLOAT16_IS_SAFE = False
    """Whether detections in bfloat16 are known to be about as accurate as in float32. It belongs to the
    weights: `mrcnn.inference.half_precision.check_bfloat16` measures it, weight files store it, and training
    resets it."""

    JIT_COMPILE: bool | None = None
    """Whether to compile training and detection with XLA. None compiles where that is faster: always on JAX,
    and on an accelerator with TensorFlow. On PyTorch, True compiles the training step with torch.compile,
    which takes many minutes on a CPU; what it gains is not known."""

    PAD_TO_FEW_SIZES = False
    """Whether detection pads images of many sizes to few (sides 256, 384, 512, 768 and so on), where each
    size compiles: on JAX, and where TensorFlow uses XLA. Scores next to the padding change a little."""

    REDUCED_JPEG = False
    """Whether detection in files decodes JPEG images at a half, a quarter or an eighth of their size, where
    the network's input is at least so much smaller. Decoding is then several times faster. Scores change a
    little, because more pixels count."""

    # --- Loading of training data ---

    TRAIN_ON_EMPTY_IMAGES: bool | None = None
    """Whether to train on images without objects, as examples of background. None trains on the images that
    an annotation file lists without objects (see Dataset.is_listed_as_empty). True also trains on all other
    images without objects and on crops that miss every object. False replaces each of them with another
    image."""

    MAX_IMAGE_ERRORS = 5
    """Number of different images that may fail to load before training stops."""

    SEED: int | None = None
    """An integer makes the order and the augmentation of the training data reproducible."""

    LOADER_WORKERS = 1
    """Number of threads that prepare batches while the network trains. 0 prepares them in the main thread."""

    LOADER_PROCESSES = False
    """Whether to prepare batches in processes instead of threads, for an accelerator that one Python process
    cannot keep busy. Each process holds a copy of the dataset. Set LOADER_WORKERS to about the number of CPU
    cores."""

    # Height and width of IMAGE_SHAPE, if a program has set one that is not square.
    _nominal_size: tuple[int, int] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _drop_shadowed(cls)

    def __init__(self) -> None:
        for owner in type(self).__mro__:
            _drop_shadowed(owner)
        for name in _setting_names(self):
            value = inspect.getattr_static(self, name)
            if name not in vars(self) and isinstance(value, (list, dict, set, np.ndarray)):
                setattr(self, name, copy.deepcopy(value))
        _warn_misspelled(self)

    @property
    def BATCH_SIZE(self) -> int:  # noqa: N802
        """Images per training step: IMAGES_PER_GPU * GPU_COUNT."""
        return self.IMAGES_PER_GPU * self.GPU_COUNT

    @BATCH_SIZE.setter
    def BATCH_SIZE(self, value: int) -> None:  # noqa: N802
        is_integer = isinstance(value, (int, np.integer))
        if not is_integer or value < 1 or value % self.GPU_COUNT:
            raise ValueError(
                f"BATCH_SIZE must be a positive multiple of GPU_COUNT={self.GPU_COUNT}. Received: "
                f"BATCH_SIZE={value!r}. Set IMAGES_PER_GPU instead."
            )
        self.IMAGES_PER_GPU = value // self.GPU_COUNT

    @property
    def IMAGE_SHAPE(self) -> np.ndarray:  # noqa: N802
        """Height, width and channels of the network's input, an integer array.

        With IMAGE_RESIZE_MODE "pad64", "shortest" or "none" each image has its own size, and this is only a
        nominal one, which need not be square.
        """
        if self._nominal_size and self.IMAGE_RESIZE_MODE in OWN_SIZES:
            return np.array([*self._nominal_size, self.IMAGE_CHANNEL_COUNT])
        side = self.IMAGE_MIN_DIM if self.IMAGE_RESIZE_MODE == "crop" else self.IMAGE_MAX_DIM
        return np.array([side, side, self.IMAGE_CHANNEL_COUNT])

    @IMAGE_SHAPE.setter
    def IMAGE_SHAPE(self, value: Sequence[int]) -> None:  # noqa: N802
        try:
            height, width, channels = (int(number) for number in value)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"IMAGE_SHAPE must be (height, width, channels). Received: IMAGE_SHAPE={value!r}"
            ) from error
        if self.IMAGE_RESIZE_MODE in OWN_SIZES and height != width and min(height, width) > 0:
            self._nominal_size = height, width
            self.IMAGE_CHANNEL_COUNT = channels
            return
        self._nominal_size = None
        if height != width:
            raise ValueError(
                f"IMAGE_SHAPE must be square. Received: IMAGE_SHAPE={tuple(value)}. Use "
                'IMAGE_RESIZE_MODE="pad64" for images of other shapes.'
            )
        if self.IMAGE_RESIZE_MODE == "crop":
            self.IMAGE_MIN_DIM = height
            self.IMAGE_MAX_DIM = max(self.IMAGE_MAX_DIM or 0, height)
        else:
            self.IMAGE_MAX_DIM = height
            if self.IMAGE_MIN_DIM:
                self.IMAGE_MIN_DIM = min(self.IMAGE_MIN_DIM, height)
        self.IMAGE_CHANNEL_COUNT = channels

    @property
    def IMAGE_META_SIZE(self) -> int:  # noqa: N802
        """Length of the image meta: an id, two shapes of 3, a window of 4, a scale, and a flag per class."""
        return ACTIVE_CLASS_IDS.start + self.NUM_CLASSES

    @IMAGE_META_SIZE.setter
    def IMAGE_META_SIZE(self, value: int) -> None:  # noqa: N802
        # Scripts for the Keras 2 library set it to the same formula after an edit of NUM_CLASSES.
        if value != self.IMAGE_META_SIZE:
            raise AttributeError(
                f"IMAGE_META_SIZE cannot be set: it is computed from NUM_CLASSES={self.NUM_CLASSES} and is "
                f"{self.IMAGE_META_SIZE}. Received: IMAGE_META_SIZE={value}. Set NUM_CLASSES instead."
            )

    def conventions(self) -> Conventions:
        """Return the details that CONVENTIONS and DETECTIONS_PER_CLASS select."""
        conventions = CONVENTIONS[self.CONVENTIONS]
        per_class = conventions.detections_per_class or self.DETECTIONS_PER_CLASS
        return dataclasses.replace(conventions, detections_per_class=per_class)

    def display(self) -> None:
        """Print all settings in alphabetical order. Callables are left out."""
        print("\nConfigurations:")
        for name in dir(self):
            is_internal = name.startswith("__") or (name.startswith("_") and hasattr(Config, name))
            if not is_internal and not callable(getattr(self, name)):
                print(f"{name:30} {getattr(self, name)!s}")
        print("\n")

    def validate(self, mode: Literal["training", "inference"] = "training") -> None:
        """Check that each setting is valid and that the settings fit together.

        Warns (UserWarning) about names that look misspelled.

        Args:
            mode: "inference" skips the rules that only training needs.

        Raises:
            ValueError: If a setting is not valid. The message names the setting and its value and says what
                to do.
        """
        _warn_misspelled(self)
        rules.check(self, mode)

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as plain JSON types; see `stored_settings`."""
        return self.stored_settings()

    def stored_settings(self) -> dict[str, Any]:
        """Return all settings as plain JSON types, as weight files store them.

        Scripts for the Keras 2 library may have a `to_dict` of their own.

        Derived settings and values that JSON cannot hold are left out. The names of callables are listed
        under "CALLABLES", so an attribute of this name is left out, too.
        """
        values: dict[str, Any] = {}
        callables = {}
        for name in _setting_names(self):
            if name == CALLABLES:
                continue
            value = getattr(self, name)
            if callable(value):
                callables[name] = getattr(value, "__qualname__", type(value).__qualname__)
                continue
            try:
                values[name] = json.loads(json.dumps(value, default=_plain))
            except (TypeError, ValueError, RecursionError):  # the last two: long doubles, deep nesting
                continue
        return values | ({CALLABLES: callables} if callables else {})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """Return an instance of this class with settings from `stored_settings`.

        Warns (UserWarning) about callables, which are not stored. Set them yourself.
        """
        config = cls()
        for name, value in values.items():
            if name == CALLABLES:
                warnings.warn(
                    f"These settings are callables, which are not stored: {value}. Set them yourself.",
                    UserWarning,
                    stacklevel=2,
                )
                continue
            default = getattr(config, name, None)
            if isinstance(value, list) and isinstance(default, np.ndarray):
                value = np.array(value)
            elif isinstance(value, list) and isinstance(default, tuple):
                value = tuple(value)
            setattr(config, name, copy.deepcopy(value))
        _warn_misspelled(config)
        return config


def _setting_names(config: Config) -> list[str]:
    """Return the sorted names of all settings except derived ones."""
    return [n for n in dir(config) if n.isupper() and n[0] != "_" and n not in DERIVED]


def _drop_shadowed(owner: type) -> None:
    """Remove plain values of derived settings from a class body, so that the property takes effect."""
    for name in DERIVED:
        if name in vars(owner) and not isinstance(vars(owner)[name], property):
            warnings.warn(
                f"{owner.__name__}.{name} is ignored: it is computed from other settings. Set "
                f"{DERIVED[name]} instead.",
                UserWarning,
                stacklevel=3,
            )
            delattr(owner, name)


def _warn_misspelled(config: Config) -> None:
    """Warn about names that look like a misspelled setting."""
    known = {name for name in vars(Config) if name.isupper()}
    for name in sorted(set(_setting_names(config)) - known):
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=MISSPELLING)
        if nearest:
            warnings.warn(
                f"{type(config).__name__}.{name} is not a setting. Did you mean {nearest[0]}?",
                UserWarning,
                stacklevel=3,
            )


def _plain(value: Any) -> Any:
    """Convert NumPy values and sets to JSON types."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"JSON cannot hold a {type(value).__name__}")


from mrcnn.config.presets import Detectron2Config as Detectron2Config  # noqa: E402  # they derive from Config
from mrcnn.config.presets import LightConfig as LightConfig  # noqa: E402
from mrcnn.config.presets import PretrainedLightConfig as PretrainedLightConfig  # noqa: E402
from mrcnn.config.presets import TorchvisionConfig as TorchvisionConfig  # noqa: E402
from mrcnn.config.presets import TorchvisionV2Config as TorchvisionV2Config  # noqa: E402
