"""Settings of a model: what is trained on what, how large, how strict.

A project derives from Config and overrides what differs:

    class BalloonConfig(Config):
        NAME = "balloon"
        NUM_CLASSES = 1 + 1  # background and balloon
"""

import copy
import difflib
import inspect
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mrcnn.config import rules
from mrcnn.config.rules import KNOWN_BACKBONES as KNOWN_BACKBONES
from mrcnn.config.rules import LOSS_NAMES as LOSS_NAMES

DERIVED = ("BATCH_SIZE", "IMAGE_SHAPE", "IMAGE_META_SIZE")

# Similarity from which an unknown name counts as a misspelling: finds one or two wrong letters,
# leaves names such as LEARNING_RATE_DECAY beside LEARNING_RATE alone.
MISSPELLING = 0.88


class Config:
    """Base settings; every upper-case attribute may be overridden in a subclass or on an instance.

    Lists, dicts and arrays are copied per instance. BATCH_SIZE, IMAGE_SHAPE and IMAGE_META_SIZE are
    derived and follow later edits. Call validate() after editing; models do so when they are built.
    """

    # --- Name and devices ---

    # Short name; lower-cased in names of run folders and weight files. A model needs one.
    NAME: str | None = None
    # Devices that share each batch, on all machines together; see docs/several-devices.md. Use 1 on a CPU.
    GPU_COUNT = 1
    # Images per device and step. More steadies the gradient and costs memory in proportion: the
    # first thing to lower when memory runs out.
    IMAGES_PER_GPU = 2

    # --- Length of an epoch ---

    # Training batches per epoch; None is one pass over the data. Weights are saved and validation
    # runs once per epoch, so few steps mean more of both.
    STEPS_PER_EPOCH: int | None = 1000
    # Validation batches after each epoch; None is one pass. More is steadier and slower.
    VALIDATION_STEPS: int | None = 50

    # --- Network ---

    # A name of KNOWN_BACKBONES or a callable f(input_image, stage5=True, train_bn=...) giving
    # C1..C5. resnet101 is the most accurate, mobilenetv2 by far the fastest. In a class body a
    # plain function has to be wrapped in staticmethod.
    BACKBONE: str | Callable = "resnet101"
    # For a callable backbone: f(image_shape) giving [[height, width], ...] of P2..P6.
    COMPUTE_BACKBONE_SHAPE: Callable | None = None
    # Input pixels per cell of P2..P6. Determined by the backbone.
    BACKBONE_STRIDES: Sequence[int] = [4, 8, 16, 32, 64]
    # "batch" normalises over the batch, as published weights need (see TRAIN_BN); "group" over groups of
    # channels of one image (Wu and He 2018), which learns from scratch with any batch size, a little slower.
    NORM = "batch"
    # Units of the two hidden layers in the classifier head.
    FPN_CLASSIF_FC_LAYERS_SIZE = 1024
    # Channels of every pyramid map. Fewer is faster; published weights need 256.
    TOP_DOWN_PYRAMID_SIZE = 256
    # Channels of the RPN's shared 3 x 3 convolution. Published weights need 512.
    RPN_CHANNELS = 512
    # Channels of the mask head's convolutions. Published weights need 256.
    MASK_HEAD_CHANNELS = 256
    # Classes including background, so 1 + the number of object classes.
    NUM_CLASSES = 1

    # --- Anchors and proposals (first stage) ---

    # Side of the square anchor in input pixels, one for each of P2..P6. Match them to object sizes.
    RPN_ANCHOR_SCALES: Sequence[float] = (32, 64, 128, 256, 512)
    # Width / height of the anchors at each place: 0.5 is tall, 2 is wide.
    RPN_ANCHOR_RATIOS: Sequence[float] = [0.5, 1, 2]
    # Cells between anchors: 1 is every cell; 2 is a quarter of the anchors, for large objects.
    # Weights hold only for the value they were trained with.
    RPN_ANCHOR_STRIDE = 1
    # IoU above which the lower-scored of two proposals is dropped. Raise it to keep more proposals
    # of crowded objects.
    RPN_NMS_THRESHOLD = 0.7
    # IoU with an object from which an anchor is positive, and below which it is negative; anchors
    # between the two do not train.
    RPN_POSITIVE_IOU = 0.7
    RPN_NEGATIVE_IOU = 0.3
    # IoU with a crowd region from which an anchor or ROI is not used as a negative.
    CROWD_IOU = 0.001
    # Anchors per image that train the RPN, at most half of them positive.
    RPN_TRAIN_ANCHORS_PER_IMAGE = 256
    # Label the anchors inside the network, so that batches hold images and their truth alone. False: batches
    # bring input_rpn_match and input_rpn_bbox as well, as those of data_generator do.
    RPN_TARGETS_IN_GRAPH = True
    # Anchors kept by score before non-maximum suppression. Fewer is faster and may lose objects.
    PRE_NMS_LIMIT = 6000
    # Proposals kept after it, in training and in detection.
    POST_NMS_ROIS_TRAINING = 2000
    POST_NMS_ROIS_INFERENCE = 1000

    # --- Masks ---

    # Keep each true mask as a small crop of its box: far less memory, slightly rougher contours.
    USE_MINI_MASK = True
    # Height, width of such a crop in pixels.
    MINI_MASK_SHAPE: Sequence[int] = (56, 56)

    # --- Input images ---

    # square: scale, pad to IMAGE_MAX_DIM squared; any image. pad64: pad sides to multiples of 64,
    # detection of large images. crop: random IMAGE_MIN_DIM squared piece, training only.
    # none: images already have a valid size.
    IMAGE_RESIZE_MODE = "square"
    # Short side in pixels that small images are enlarged to; None or 0 does not enlarge.
    IMAGE_MIN_DIM: int | None = 800
    # Side of the square canvas in pixels. Cost grows with its square, small objects need it.
    IMAGE_MAX_DIM: int | None = 1024
    # Least scale factor, after IMAGE_MIN_DIM; 2 doubles every image. 0 is off.
    IMAGE_MIN_SCALE: float = 0
    # Channels of the input. Other than 3 needs a matching MEAN_PIXEL, a Dataset.load_image that
    # returns so many, and a first convolution trained anew.
    IMAGE_CHANNEL_COUNT = 3
    # Stretch each channel so that these two percentiles of the picture become 0 and 255, in training and in
    # detection; None takes pictures as they are. For images whose brightness, exposure or tint says
    # nothing, as in microscopy: (1, 99.8). Weights hold only for the value they were trained with.
    CONTRAST_PERCENTILES: Sequence[float] | None = None
    # Mean of each channel (RGB, 0 to 255), subtracted from every image.
    MEAN_PIXEL: Any = np.array([123.7, 116.8, 103.9])

    # --- ROIs and heads (second stage) ---

    # ROIs per image that train the heads. More helps with many objects and costs memory.
    TRAIN_ROIS_PER_IMAGE = 200
    # Share of positives among them.
    ROI_POSITIVE_RATIO = 0.33
    # IoU with an object from which an ROI is positive.
    ROI_POSITIVE_IOU = 0.5
    # Let the objects' own boxes join the proposals in training, so that the heads have positives to learn
    # from before the RPN finds any. Off in the original; worth it when training from scratch.
    ROI_INCLUDE_GT = False
    # In training, run the mask head on the places of positive ROIs alone: only they have a mask loss, and it
    # is a third of the work. None does so wherever the result is the same, that is, unless batch norm
    # takes its statistics from all ROIs.
    MASK_POSITIVES_ONLY: bool | None = None
    # Cells per side that ROIAlign cuts out for the classifier and for the mask head.
    POOL_SIZE = 7
    MASK_POOL_SIZE = 14
    # Height, width of a predicted mask in cells; twice MASK_POOL_SIZE.
    MASK_SHAPE: Sequence[int] = [28, 28]
    # True objects per image handed to the network; a random choice of them where there are more.
    MAX_GT_INSTANCES = 100
    # Standard deviations of (dy, dx, log dh, log dw) in the two stages; they divide the targets.
    RPN_BBOX_STD_DEV: Any = np.array([0.1, 0.1, 0.2, 0.2])
    BBOX_STD_DEV: Any = np.array([0.1, 0.1, 0.2, 0.2])

    # --- Detections ---

    # Most detections per image.
    DETECTION_MAX_INSTANCES = 100
    # Least class probability of a detection; lower finds more and errs more. 0 keeps all.
    DETECTION_MIN_CONFIDENCE: float = 0.7
    # IoU above which the lower-scored of two detections of a class is dropped.
    DETECTION_NMS_THRESHOLD = 0.3
    # Mask IoU above which the lower-scored of two detections of a class is dropped, after that; None is off.
    MASK_NMS_THRESHOLD: float | None = None
    # Detect in flipped copies, too, and join the results: "none", "horizontal" (twice the time) or "all"
    # (four times, for objects without an upright position).
    TEST_TIME_FLIPS = "none"

    # --- Training ---

    # Step size. Not read by the library: pass it to train(). The paper's 0.02 diverges here.
    LEARNING_RATE = 0.001
    # "sgd" is the paper's, with momentum. "adam" learns from scratch in far fewer steps, at rates near 0.001.
    OPTIMIZER = "sgd"
    # Momentum of the gradient descent, 0 to below 1; Adam's first decay rate.
    LEARNING_MOMENTUM = 0.9
    # Factor of the mean square of each weight in the total loss.
    WEIGHT_DECAY = 0.0001
    # Factor of each loss in the total; a missing one counts as 1.
    LOSS_WEIGHTS: Mapping[str, float] = dict.fromkeys(LOSS_NAMES, 1.0)
    # False trains the heads on ROIs given from outside instead of the RPN's.
    USE_RPN_ROIS = True
    # Batch norm: False uses stored statistics always, right for small batches and pretrained
    # weights; None follows the phase; True uses the batch's statistics always.
    TRAIN_BN: bool | None = False
    # Largest norm of all gradients together; None does not clip.
    GRADIENT_CLIP_NORM: float | None = 5.0
    # Steps whose gradients are averaged before the weights move: a batch too large for the memory, in parts.
    GRADIENT_ACCUMULATION_STEPS = 1
    # Share that a running mean of the weights keeps at each step, such as 0.999. The mean is what validation
    # sees and what weight files hold; the weights train on beside it. None is off.
    EMA_MOMENTUM: float | None = None

    # --- Speed ---

    # "float32", or half precision on accelerators made for it: "bfloat16", or "float16" with loss scaling.
    # Weights, boxes, NMS and losses stay float32 in each.
    PRECISION = "float32"
    # Compile the training step with XLA (on torch with torch.compile). None does so where it pays: always on
    # JAX, with TensorFlow on an accelerator.
    JIT_COMPILE: bool | None = None

    # --- Loading of training data ---

    # Different images that may fail to load in one training run before it stops.
    MAX_IMAGE_ERRORS = 5
    # An integer makes order and augmentation of training data repeatable.
    SEED: int | None = None
    # Threads that prepare batches beside the training step; 0 prepares them in turn.
    LOADER_WORKERS = 1
    # Processes instead of threads: for an accelerator that one Python process cannot keep busy. Each holds
    # a copy of the data set. Give it about as many workers as the machine has cores.
    LOADER_PROCESSES = False

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
        if value < 1 or value % self.GPU_COUNT:
            raise ValueError(
                f"BATCH_SIZE must be a positive multiple of GPU_COUNT={self.GPU_COUNT}. "
                f"Received: BATCH_SIZE={value}. Set IMAGES_PER_GPU instead."
            )
        self.IMAGES_PER_GPU = value // self.GPU_COUNT

    @property
    def IMAGE_SHAPE(self) -> np.ndarray:  # noqa: N802
        """Integer array (height, width, channels) of the network's input.

        In modes pad64 and none it is a nominal size: the images have their own.
        """
        side = self.IMAGE_MIN_DIM if self.IMAGE_RESIZE_MODE == "crop" else self.IMAGE_MAX_DIM
        return np.array([side, side, self.IMAGE_CHANNEL_COUNT])

    @IMAGE_SHAPE.setter
    def IMAGE_SHAPE(self, value: Sequence[int]) -> None:  # noqa: N802
        height, width, channels = (int(number) for number in value)
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
        """Length of an image's meta vector: id, shapes 3 + 3, window 4, scale, a flag per class."""
        return 1 + 3 + 3 + 4 + 1 + self.NUM_CLASSES

    @IMAGE_META_SIZE.setter
    def IMAGE_META_SIZE(self, value: int) -> None:  # noqa: N802
        # Old code repeats the formula after an edit of NUM_CLASSES; that is harmless.
        if value != self.IMAGE_META_SIZE:
            raise AttributeError(
                f"IMAGE_META_SIZE follows from NUM_CLASSES ({self.IMAGE_META_SIZE} for "
                f"{self.NUM_CLASSES} classes) and cannot be set. Received: {value}. "
                "Set NUM_CLASSES instead."
            )

    def display(self) -> None:
        """Print all settings in alphabetical order, callables left out."""
        print("\nConfigurations:")
        for name in dir(self):
            if not name.startswith("__") and not callable(getattr(self, name)):
                print(f"{name:30} {getattr(self, name)!s}")
        print("\n")

    def validate(self) -> None:
        """Check every setting and how they fit together.

        Raises ValueError naming the setting, its value and the cure. Warns (UserWarning) of names
        that look misspelled.
        """
        _warn_misspelled(self)
        rules.check(self)

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain JSON types, for a record beside the weights.

        Derived settings and values JSON cannot hold are left out; callables are listed by name
        under "CALLABLES".
        """
        values: dict[str, Any] = {}
        callables = {}
        for name in _setting_names(self):
            value = getattr(self, name)
            if callable(value):
                callables[name] = getattr(value, "__qualname__", type(value).__qualname__)
                continue
            try:
                values[name] = json.loads(json.dumps(value, default=_plain))
            except TypeError:
                continue
        return values | ({"CALLABLES": callables} if callables else {})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """An instance of this class with the settings of to_dict() put in place.

        Warns (UserWarning) of callables, which have to be set by hand.
        """
        config = cls()
        for name, value in values.items():
            if name == "CALLABLES":
                warnings.warn(f"Set by hand, not stored: {value}", UserWarning, stacklevel=2)
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
    """Upper-case public names of class and instance without the derived ones, sorted."""
    return [n for n in dir(config) if n.isupper() and n[0] != "_" and n not in DERIVED]


def _drop_shadowed(owner: type) -> None:
    """Take plain values of derived settings out of a class body; the derived value wins."""
    for name in DERIVED:
        if name in vars(owner) and not isinstance(vars(owner)[name], property):
            warnings.warn(
                f"{owner.__name__}.{name} is ignored: it follows from other settings. Set "
                "IMAGES_PER_GPU, IMAGE_MIN_DIM and IMAGE_MAX_DIM, or NUM_CLASSES instead.",
                UserWarning,
                stacklevel=3,
            )
            delattr(owner, name)


def _warn_misspelled(config: Config) -> None:
    known = {name for name in vars(Config) if name.isupper()}
    for name in _setting_names(config):
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=MISSPELLING)
        if name not in known and nearest:
            warnings.warn(
                f"{type(config).__name__}.{name} is not a known setting. Is {nearest[0]} meant?",
                UserWarning,
                stacklevel=3,
            )


def _plain(value: Any) -> Any:
    """JSON form of NumPy values and sets."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"no JSON form for {type(value).__name__}")


class LightConfig(Config):
    """Preset for training and detecting on a CPU.

    MobileNetV2 and narrow layers need a fraction of the default's arithmetic. Published weights of
    the whole network do not fit these widths: it is trained from scratch, so batch norm has to
    learn its statistics and TRAIN_BN follows the phase. Fewer proposals, because suppressing
    thousands of boxes and running the heads on them takes a large share of the time without a GPU.
    """

    BACKBONE = "mobilenetv2"
    TOP_DOWN_PYRAMID_SIZE = 64
    RPN_CHANNELS = 64
    FPN_CLASSIF_FC_LAYERS_SIZE = 256
    MASK_HEAD_CHANNELS = 64
    MASK_POSITIVES_ONLY = True
    ROI_INCLUDE_GT = True
    TRAIN_BN = None
    PRE_NMS_LIMIT = 2000
    POST_NMS_ROIS_TRAINING = 500
    POST_NMS_ROIS_INFERENCE = 300
