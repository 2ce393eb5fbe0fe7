"""Rules for the settings of a Config. Each message says what the setting must be."""

import numbers
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcnn.config.conventions import CONVENTIONS
from mrcnn.geometry.images import SIZE_MULTIPLE

if TYPE_CHECKING:
    from mrcnn.config import Config

KNOWN_BACKBONES = ("resnet50", "resnet101", "resnext101_32x8d", "mobilenetv2", "efficientnetlite0")
LOSS_NAMES = ("rpn_class_loss", "rpn_bbox_loss", "mrcnn_class_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss")

CHOICES = {
    "CONVENTIONS": tuple(CONVENTIONS),
    "RESNET_STYLE": ("keras", "caffe", "pytorch"),
    "HEAD_NORM": ("all", "convolutions", "none"),
    "NORM": ("batch", "group"),
    "OPTIMIZER": ("sgd", "adam"),
    "TEST_TIME_FLIPS": ("none", "horizontal", "all"),
    "PRECISION": ("float32", "bfloat16", "float16", "auto"),
    "IMAGE_RESIZE_MODE": ("square", "pad64", "crop", "shortest", "none"),
}

# P2 to P6.
PYRAMID_LEVELS = 5
BUILT_IN_STRIDES = [4, 8, 16, 32, 64]

# These bounds lie far above any useful value. They catch slips that would fail much later and less clearly.
MAX_INTEGER = 2**32 - 1  # the largest seed that the backends accept
LARGEST_FLOAT = float(np.finfo(np.float32).max)
MAX_COUNT = 1_000_000
MAX_CHANNELS = 65_536
MAX_SIDE = 65_536  # pixels of an image
MAX_CELLS = 1_024  # cells per side of a pooled feature or a mini-mask
MAX_WORKERS = 1_024
MAX_CONVOLUTIONS = 16
MAX_NAME = 200  # bytes; file systems allow 255 for a weight file, of which the name is a part

# Integers from 1, with their largest values.
COUNTS = {
    **dict.fromkeys(("GPU_COUNT", "IMAGES_PER_GPU", "GRADIENT_ACCUMULATION_STEPS"), MAX_COUNT),
    **dict.fromkeys(("FPN_CLASSIF_FC_LAYERS_SIZE", "TOP_DOWN_PYRAMID_SIZE", "RPN_CHANNELS"), MAX_CHANNELS),
    **dict.fromkeys(("MASK_HEAD_CHANNELS", "NUM_CLASSES", "IMAGE_CHANNEL_COUNT"), MAX_CHANNELS),
    **dict.fromkeys(("RPN_ANCHOR_STRIDE", "POOL_SIZE", "MASK_POOL_SIZE"), MAX_CELLS),
    **dict.fromkeys(("RPN_TRAIN_ANCHORS_PER_IMAGE", "PRE_NMS_LIMIT", "TRAIN_ROIS_PER_IMAGE"), MAX_COUNT),
    **dict.fromkeys(("POST_NMS_ROIS_TRAINING", "POST_NMS_ROIS_INFERENCE"), MAX_COUNT),
    **dict.fromkeys(("MAX_GT_INSTANCES", "DETECTION_MAX_INSTANCES"), MAX_COUNT),
}
FRACTIONS = (
    "RPN_NMS_THRESHOLD",
    "RPN_POSITIVE_IOU",
    "RPN_NEGATIVE_IOU",
    "CROWD_IOU",
    "ROI_POSITIVE_RATIO",
    "ROI_POSITIVE_IOU",
    "DETECTION_NMS_THRESHOLD",
    "DETECTION_MIN_CONFIDENCE",
)
NOT_NEGATIVE = ("IMAGE_MIN_SCALE", "LEARNING_RATE", "WEIGHT_DECAY", "BATCH_NORM_EPSILON")
SWITCHES = (
    "USE_MINI_MASK",
    "USE_RPN_ROIS",
    "RPN_TARGETS_IN_GRAPH",
    "ROI_INCLUDE_GT",
    "FAST_PATHS",
    "LOADER_PROCESSES",
    "FROZEN_BN",
    "FPN_NORM",
    "DETECTIONS_PER_CLASS",
    "BFLOAT16_IS_SAFE",
    "PAD_TO_FEW_SIZES",
    "REDUCED_JPEG",
)
# Switches that may be None, and what None does.
OPTIONAL_SWITCHES = {
    "MASK_POSITIVES_ONLY": "None (True if the result is the same)",
    "JIT_COMPILE": "None (compile where that is faster)",
    "TRAIN_ON_EMPTY_IMAGES": "None (images that annotations list as empty)",
}

# The name of a setting, whether it keeps its rule, and what the setting must be.
Rule = tuple[str, bool, str]


def check(config: "Config", mode: str = "training") -> None:
    """Check all settings.

    Warns (UserWarning) about factors in LOSS_WEIGHTS that belong to no loss.

    Args:
        config: The settings.
        mode: "inference" skips the rules that only training needs.

    Raises:
        ValueError: If a setting breaks its rule. The message names the first such setting and its value, and
            says what the setting must be.
    """
    kinds = (_plain_rules, _optional_rules, _network_rules, _image_rules, _target_rules)
    for rules in kinds if mode == "inference" else (*kinds, _sampling_rules):
        for name, is_kept, requirement in rules(config):
            if not is_kept:
                value = getattr(config, name)
                raise ValueError(f"{name} must be {requirement}. Received: {name}={value!r}")
    unknown = sorted(set(config.LOSS_WEIGHTS) - set(LOSS_NAMES))
    if unknown:
        warnings.warn(
            f"LOSS_WEIGHTS has factors for unknown losses: {unknown}. The losses are {list(LOSS_NAMES)}.",
            UserWarning,
            stacklevel=3,
        )


# --- Kinds of values ---


def _is_count(value: Any, least: int = 1, largest: int = MAX_COUNT) -> bool:
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return is_integer and bool(least <= value <= largest)


def _is_name(value: Any) -> bool:
    is_text = isinstance(value, str) and value != "" and not any(character in value for character in "/\\\0")
    return is_text and len(value.encode("utf-8", "surrogatepass")) <= MAX_NAME


def _is_number(value: Any, least: float = 0, largest: float = LARGEST_FLOAT) -> bool:
    """Return whether a value is a real number in these bounds. NaN and infinity are not."""
    is_real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_real and bool(least <= value <= largest)


def _is_switch(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_))


def _is_list(values: Any, length: int | None = None) -> bool:
    """Return whether a value is a list, a tuple or an array with one axis, of the given length if any."""
    is_array = isinstance(values, np.ndarray) and values.ndim == 1
    is_sequence = isinstance(values, Sequence) and not isinstance(values, (str, bytes))
    return (is_array or is_sequence) and len(values) > 0 and length in (None, len(values))


def _are_positive(values: Any, length: int | None = None) -> bool:
    return _is_list(values, length) and all(_is_number(value) and value > 0 for value in values)


def _is_shape(value: Any, largest: int) -> bool:
    return _is_list(value, 2) and all(_is_count(side, 1, largest) for side in value)


def _is_choice(config: "Config", name: str) -> bool:
    value = getattr(config, name)
    return isinstance(value, str) and value in CHOICES[name]


# --- Rules ---


def _plain_rules(config: "Config") -> Iterator[Rule]:
    requirement = 'a short text that names run folders, such as "balloon", without "/" and "\\"'
    yield "NAME", _is_name(config.NAME), f"{requirement} and with at most {MAX_NAME} bytes"
    for name, largest in COUNTS.items():
        yield name, _is_count(getattr(config, name), 1, largest), f"an integer from 1 to {largest}"
    for name in FRACTIONS:
        yield name, _is_number(getattr(config, name), 0, 1), "a number from 0 to 1"
    for name in NOT_NEGATIVE:
        yield name, _is_number(getattr(config, name)), "a finite number of at least 0"
    for name in SWITCHES:
        yield name, _is_switch(getattr(config, name)), "True or False"
    for name, default in OPTIONAL_SWITCHES.items():
        value = getattr(config, name)
        yield name, value is None or _is_switch(value), f"True, False or {default}"
    is_heads = isinstance(config.TRAIN_BN, str) and config.TRAIN_BN == "heads"
    requirement = 'True, False, "heads" or None (statistics of the batch in training only)'
    yield "TRAIN_BN", is_heads or config.TRAIN_BN is None or _is_switch(config.TRAIN_BN), requirement
    for name in CHOICES:
        yield name, _is_choice(config, name), f"one of {CHOICES[name]}"
    is_kept = _is_count(config.RPN_CONVOLUTIONS, 1, 2)
    yield "RPN_CONVOLUTIONS", is_kept, "1 or 2"
    is_kept = _is_count(config.BOX_HEAD_CONVOLUTIONS, 0, MAX_CONVOLUTIONS)
    yield "BOX_HEAD_CONVOLUTIONS", is_kept, f"an integer from 0 to {MAX_CONVOLUTIONS}"
    for name, largest in (("MAX_IMAGE_ERRORS", MAX_INTEGER), ("LOADER_WORKERS", MAX_WORKERS)):
        yield name, _is_count(getattr(config, name), 0, largest), f"an integer from 0 to {largest}"


def _optional_rules(config: "Config") -> Iterator[Rule]:
    for name, least in (("STEPS_PER_EPOCH", 1), ("VALIDATION_STEPS", 0)):
        steps = getattr(config, name)
        is_kept = steps is None or _is_count(steps, least, MAX_INTEGER)
        yield name, is_kept, f"an integer of at least {least}, or None for one pass over the data"
    is_kept = config.SEED is None or _is_count(config.SEED, 0, MAX_INTEGER)
    yield "SEED", is_kept, f"an integer from 0 to {MAX_INTEGER}, or None for another order in every run"
    limit = config.PRE_NMS_LIMIT_TRAINING
    is_kept = limit is None or _is_count(limit)
    yield "PRE_NMS_LIMIT_TRAINING", is_kept, f"an integer from 1 to {MAX_COUNT}, or None for PRE_NMS_LIMIT"
    norm = config.GRADIENT_CLIP_NORM
    is_kept = norm is None or (_is_number(norm) and norm > 0)
    yield "GRADIENT_CLIP_NORM", is_kept, "a positive finite number, or None to leave gradients as they are"
    sigma = config.SOFT_NMS_SIGMA
    is_kept = sigma is None or (_is_number(sigma) and sigma > 0)
    yield "SOFT_NMS_SIGMA", is_kept, "a positive finite number, such as 0.5, or None for NMS"
    threshold = config.MASK_NMS_THRESHOLD
    is_kept = threshold is None or _is_number(threshold, 0, 1)
    yield "MASK_NMS_THRESHOLD", is_kept, "a number from 0 to 1, or None for NMS by boxes only"
    is_kept = _is_number(config.LEARNING_MOMENTUM, 0, 1) and config.LEARNING_MOMENTUM < 1
    yield "LEARNING_MOMENTUM", is_kept, "a number from 0 to below 1"
    momentum = config.EMA_MOMENTUM
    is_kept = momentum is None or (_is_number(momentum, 0, 1) and momentum < 1)
    yield "EMA_MOMENTUM", is_kept, "a number from 0 to below 1, such as 0.999, or None for no running mean"


def _network_rules(config: "Config") -> Iterator[Rule]:
    backbone, shape_function = config.BACKBONE, config.COMPUTE_BACKBONE_SHAPE
    is_known = isinstance(backbone, str) and backbone in KNOWN_BACKBONES
    yield "BACKBONE", is_known or callable(backbone), f"one of {KNOWN_BACKBONES} or a callable"
    is_kept = callable(shape_function) or (shape_function is None and not callable(backbone))
    requirement = (
        "a function f(image_shape) that returns [[height, width], ...] of P2 to P6, because BACKBONE is a "
        "callable"
    )
    yield "COMPUTE_BACKBONE_SHAPE", is_kept, requirement
    for name in ("BACKBONE_STRIDES", "RPN_ANCHOR_SCALES"):
        is_kept = _are_positive(getattr(config, name), PYRAMID_LEVELS)
        yield name, is_kept, f"{PYRAMID_LEVELS} positive numbers, one for each of P2 to P6"
    is_kept = callable(backbone) or list(config.BACKBONE_STRIDES) == BUILT_IN_STRIDES
    yield "BACKBONE_STRIDES", is_kept, f"{BUILT_IN_STRIDES}, unless BACKBONE is a callable"
    is_kept = _are_positive(config.RPN_ANCHOR_RATIOS)
    yield "RPN_ANCHOR_RATIOS", is_kept, "a list of positive numbers, width / height"
    is_kept = config.RPN_NEGATIVE_IOU <= config.RPN_POSITIVE_IOU
    yield "RPN_NEGATIVE_IOU", is_kept, f"at most RPN_POSITIVE_IOU={config.RPN_POSITIVE_IOU}"


def _image_rules(config: "Config") -> Iterator[Rule]:
    mode = config.IMAGE_RESIZE_MODE
    for name, is_needed in (
        ("IMAGE_MIN_DIM", mode in ("crop", "shortest")),
        ("IMAGE_MAX_DIM", mode != "crop"),
    ):
        side = getattr(config, name)
        is_kept = _is_count(side, 1 if is_needed else 0, MAX_SIDE) or (side is None and not is_needed)
        integer = f"a positive integer up to {MAX_SIDE}"
        yield name, is_kept, f"{integer} in mode {mode!r}" if is_needed else f"{integer}, 0 or None"
    if mode == "square":
        yield "IMAGE_MAX_DIM", *_size_rule(config.IMAGE_MAX_DIM)
    elif mode in ("crop", "pad64") and config.IMAGE_MIN_DIM:
        yield "IMAGE_MIN_DIM", *_size_rule(config.IMAGE_MIN_DIM)
    limits = config.CONTRAST_PERCENTILES
    is_kept = limits is None or (
        _is_list(limits, 2) and all(_is_number(limit, 0, 100) for limit in limits) and limits[0] < limits[1]
    )
    requirement = "two rising percentiles from 0 to 100, such as (1, 99.8), or None"
    yield "CONTRAST_PERCENTILES", is_kept, requirement
    limits = config.IMAGE_VALUE_RANGE
    is_kept = limits is None or (
        _is_list(limits, 2)
        and all(_is_number(limit, -LARGEST_FLOAT) for limit in limits)
        and limits[0] < limits[1]
    )
    yield "IMAGE_VALUE_RANGE", is_kept, "two rising numbers, black and white, such as (0, 4095), or None"
    channels = config.IMAGE_CHANNEL_COUNT
    mean: Any = config.MEAN_PIXEL
    if isinstance(mean, (numbers.Real, np.ndarray)):  # also a single number, or an array [1, 1, channels]
        mean = np.asarray(mean).ravel()
    is_kept = _is_list(mean, channels) and all(_is_number(value, -LARGEST_FLOAT) for value in mean)
    yield "MEAN_PIXEL", is_kept, f"one finite number per channel, with IMAGE_CHANNEL_COUNT={channels}"


def _size_rule(side: int | None) -> tuple[bool, str]:
    """Return whether the pyramid can divide this side, and the requirement with five valid sides near it."""
    assert side is not None  # an earlier rule has checked it
    middle = max(round(side / SIZE_MULTIPLE), 3)
    valid = ", ".join(str(SIZE_MULTIPLE * factor) for factor in range(middle - 2, middle + 3))
    return side % SIZE_MULTIPLE == 0, f"a multiple of {SIZE_MULTIPLE}, such as {valid}"


def _sampling_rules(config: "Config") -> Iterator[Rule]:
    """Yield the rules by which the samples of both stages can have positives and negatives."""
    yield "RPN_NEGATIVE_IOU", config.RPN_NEGATIVE_IOU > 0, "above 0, so that some anchors are negative"
    requirement = "above 0, so that anchors and RoIs without a crowd can be negative"
    yield "CROWD_IOU", config.CROWD_IOU > 0, requirement
    is_kept = config.RPN_TRAIN_ANCHORS_PER_IMAGE > 1
    yield "RPN_TRAIN_ANCHORS_PER_IMAGE", is_kept, "at least 2, because at most half of them are positive"
    yield "ROI_POSITIVE_IOU", config.ROI_POSITIVE_IOU > 0, "above 0, so that some RoIs are negative"
    ratio = config.ROI_POSITIVE_RATIO
    yield "ROI_POSITIVE_RATIO", ratio > 0, "above 0, so that some RoIs have objects"
    is_kept = int(config.TRAIN_ROIS_PER_IMAGE * ratio) > 0
    requirement = f"at least 1 / ROI_POSITIVE_RATIO, so that some RoIs have objects (it is {ratio})"
    yield "TRAIN_ROIS_PER_IMAGE", is_kept, requirement


def _target_rules(config: "Config") -> Iterator[Rule]:
    for name in ("RPN_BBOX_STD_DEV", "BBOX_STD_DEV"):
        yield name, _are_positive(getattr(config, name), 4), "four positive numbers"
    is_kept = _is_shape(config.MINI_MASK_SHAPE, MAX_CELLS)
    yield "MINI_MASK_SHAPE", is_kept, f"two positive integers up to {MAX_CELLS}, height and width"
    side = 2 * config.MASK_POOL_SIZE
    is_kept = _is_shape(config.MASK_SHAPE, 2 * MAX_CELLS) and tuple(config.MASK_SHAPE) == (side, side)
    requirement = f"twice MASK_POOL_SIZE={config.MASK_POOL_SIZE}, that is ({side}, {side})"
    yield "MASK_SHAPE", is_kept, requirement
    factors = config.LOSS_WEIGHTS
    is_kept = isinstance(factors, Mapping) and all(
        isinstance(name, str) and _is_number(factor) for name, factor in factors.items()
    )
    yield "LOSS_WEIGHTS", is_kept, "a dict with a finite factor of at least 0 for each loss name"
