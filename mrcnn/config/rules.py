"""Rules that the settings of a Config have to keep, each with the cure in its message."""

import numbers
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from mrcnn.geometry.images import SIZE_MULTIPLE

KNOWN_BACKBONES = ("resnet50", "resnet101", "mobilenetv2")
NORMS = ("batch", "group")
OPTIMIZERS = ("sgd", "adam")
FLIPS = ("none", "horizontal", "all")
PRECISIONS = ("float32", "bfloat16", "float16")
RESIZE_MODES = ("square", "pad64", "crop", "none")
LOSS_NAMES = (
    *("rpn_class_loss", "rpn_bbox_loss"),
    *("mrcnn_class_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss"),
)

# P2 to P6.
PYRAMID_LEVELS = 5

COUNTS = (
    *("GPU_COUNT", "IMAGES_PER_GPU", "FPN_CLASSIF_FC_LAYERS_SIZE", "TOP_DOWN_PYRAMID_SIZE"),
    *("RPN_CHANNELS", "MASK_HEAD_CHANNELS", "NUM_CLASSES", "RPN_ANCHOR_STRIDE"),
    *("RPN_TRAIN_ANCHORS_PER_IMAGE", "PRE_NMS_LIMIT", "POST_NMS_ROIS_TRAINING"),
    *("POST_NMS_ROIS_INFERENCE", "IMAGE_CHANNEL_COUNT", "TRAIN_ROIS_PER_IMAGE", "POOL_SIZE"),
    *("MASK_POOL_SIZE", "MAX_GT_INSTANCES", "DETECTION_MAX_INSTANCES"),
    "GRADIENT_ACCUMULATION_STEPS",
)
FRACTIONS = (
    *("RPN_NMS_THRESHOLD", "RPN_POSITIVE_IOU", "RPN_NEGATIVE_IOU", "CROWD_IOU"),
    *("ROI_POSITIVE_RATIO", "ROI_POSITIVE_IOU", "DETECTION_NMS_THRESHOLD", "LEARNING_MOMENTUM"),
    "DETECTION_MIN_CONFIDENCE",
)
NOT_NEGATIVE = ("IMAGE_MIN_SCALE", "LEARNING_RATE", "WEIGHT_DECAY")
SWITCHES = ("USE_MINI_MASK", "USE_RPN_ROIS", "RPN_TARGETS_IN_GRAPH", "LOADER_PROCESSES")

# A setting's name, whether its rule is kept, and what the rule wants.
Rule = tuple[str, bool, str]


def check(config: Any) -> None:
    """Check all settings of a mrcnn.config.Config.

    Raises ValueError naming the first setting at fault, its value and what to do. Warns
    (UserWarning) of factors in LOSS_WEIGHTS that belong to no loss.
    """
    for rules in (_plain_rules, _optional_rules, _network_rules, _image_rules, _target_rules):
        for name, kept, wanted in rules(config):
            if not kept:
                value = getattr(config, name)
                raise ValueError(f"{name} must be {wanted}. Received: {name}={value!r}")
    unknown = sorted(set(config.LOSS_WEIGHTS) - set(LOSS_NAMES))
    if unknown:
        warnings.warn(
            f"LOSS_WEIGHTS has factors that belong to no loss: {unknown}. Known: {list(LOSS_NAMES)}",
            UserWarning,
            stacklevel=3,
        )


def _is_count(value: Any, least: int = 1) -> bool:
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return is_integer and value >= least


def _is_number(value: Any, least: float = 0, most: float = np.inf) -> bool:
    is_real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_real and bool(least <= value <= most)


def _are_positive(values: Any, length: int | None = None) -> bool:
    """Whether it is a sequence of positive numbers, of this length if one is given."""
    if np.ndim(values) != 1 or len(values) == 0 or length not in (None, len(values)):
        return False
    return all(_is_number(value) and value > 0 for value in values)


def _plain_rules(config: Any) -> Iterator[Rule]:
    named = isinstance(config.NAME, str) and config.NAME != ""
    yield "NAME", named, 'a short text that names run folders, such as NAME = "balloon"'
    for name in COUNTS:
        yield name, _is_count(getattr(config, name)), "an integer of at least 1"
    for name in FRACTIONS:
        yield name, _is_number(getattr(config, name), 0, 1), "a number from 0 to 1"
    for name in NOT_NEGATIVE:
        yield name, _is_number(getattr(config, name)), "a number of at least 0"
    for name in SWITCHES:
        yield name, isinstance(getattr(config, name), (bool, np.bool_)), "True or False"
    for name in ("MAX_IMAGE_ERRORS", "LOADER_WORKERS"):
        yield name, _is_count(getattr(config, name), 0), "an integer of at least 0"


def _optional_rules(config: Any) -> Iterator[Rule]:
    for name, least in (("STEPS_PER_EPOCH", 1), ("VALIDATION_STEPS", 0)):
        value = getattr(config, name)
        kept = value is None or _is_count(value, least)
        yield name, kept, f"an integer of at least {least}, or None for one pass over the data"
    kept = config.SEED is None or _is_count(config.SEED, 0)
    yield "SEED", kept, "an integer of at least 0, or None for another order in every run"
    clip = config.GRADIENT_CLIP_NORM
    kept = clip is None or (_is_number(clip) and clip > 0)
    yield "GRADIENT_CLIP_NORM", kept, "a positive number, or None to leave gradients as they are"
    overlap = config.MASK_NMS_THRESHOLD
    kept = overlap is None or _is_number(overlap, 0, 1)
    yield "MASK_NMS_THRESHOLD", kept, "a number from 0 to 1, or None to look at boxes alone"
    yield "TEST_TIME_FLIPS", config.TEST_TIME_FLIPS in FLIPS, f"one of {FLIPS}"
    yield "OPTIMIZER", config.OPTIMIZER in OPTIMIZERS, f"one of {OPTIMIZERS}"
    momentum = config.EMA_MOMENTUM
    kept = momentum is None or (_is_number(momentum, 0, 1) and momentum < 1)
    yield "EMA_MOMENTUM", kept, "a number from 0 to below 1, such as 0.999, or None for no running mean"
    yield "PRECISION", config.PRECISION in PRECISIONS, f"one of {PRECISIONS}"
    kept = any(config.JIT_COMPILE is choice for choice in (False, None, True))
    yield "JIT_COMPILE", kept, "True, False, or None to compile where it pays"
    kept = any(config.TRAIN_BN is choice for choice in (False, None, True))
    yield "TRAIN_BN", kept, "False (stored statistics), None (follow the phase) or True"


def _network_rules(config: Any) -> Iterator[Rule]:
    backbone = config.BACKBONE
    kept = callable(backbone) or backbone in KNOWN_BACKBONES
    yield "BACKBONE", kept, f"one of {KNOWN_BACKBONES} or a callable"
    yield "NORM", config.NORM in NORMS, f"one of {NORMS}"
    kept = not callable(backbone) or callable(config.COMPUTE_BACKBONE_SHAPE)
    wanted = "a callable, image_shape to [[height, width], ...] of P2..P6, beside a callable BACKBONE"
    yield "COMPUTE_BACKBONE_SHAPE", kept, wanted
    for name in ("BACKBONE_STRIDES", "RPN_ANCHOR_SCALES"):
        kept = _are_positive(getattr(config, name), PYRAMID_LEVELS)
        yield name, kept, f"{PYRAMID_LEVELS} positive numbers, one for each of P2..P6"
    kept = _are_positive(config.RPN_ANCHOR_RATIOS)
    yield "RPN_ANCHOR_RATIOS", kept, "a list of positive numbers, width / height"
    kept = config.RPN_NEGATIVE_IOU <= config.RPN_POSITIVE_IOU
    yield "RPN_NEGATIVE_IOU", kept, f"at most RPN_POSITIVE_IOU={config.RPN_POSITIVE_IOU}"


def _image_rules(config: Any) -> Iterator[Rule]:
    mode = config.IMAGE_RESIZE_MODE
    yield "IMAGE_RESIZE_MODE", mode in RESIZE_MODES, f"one of {RESIZE_MODES}"
    for name, needed in (("IMAGE_MIN_DIM", mode == "crop"), ("IMAGE_MAX_DIM", mode != "crop")):
        side = getattr(config, name)
        kept = _is_count(side) or (not needed and (side is None or _is_count(side, 0)))
        yield name, kept, f"a positive integer in mode {mode!r}" if needed else "an integer or None"
    if mode == "square":
        yield "IMAGE_MAX_DIM", *_size_rule(config.IMAGE_MAX_DIM)
    elif mode in ("crop", "pad64") and config.IMAGE_MIN_DIM:
        yield "IMAGE_MIN_DIM", *_size_rule(config.IMAGE_MIN_DIM)
    limits = config.CONTRAST_PERCENTILES
    kept = limits is None or (
        np.shape(limits) == (2,) and all(_is_number(v, 0, 100) for v in limits) and limits[0] < limits[1]
    )
    yield "CONTRAST_PERCENTILES", kept, "two rising percentiles from 0 to 100, such as (1, 99.8), or None"
    kept = np.size(config.MEAN_PIXEL) == config.IMAGE_CHANNEL_COUNT
    wanted = f"one number for each channel, and IMAGE_CHANNEL_COUNT={config.IMAGE_CHANNEL_COUNT}"
    yield "MEAN_PIXEL", kept, wanted


def _size_rule(side: int) -> tuple[bool, str]:
    """The rest of a rule: the side divides into the pyramid, and five sides near it that do."""
    middle = max(round(side / SIZE_MULTIPLE), 3)
    valid = ", ".join(str(SIZE_MULTIPLE * step) for step in range(middle - 2, middle + 3))
    return side % SIZE_MULTIPLE == 0, f"a multiple of {SIZE_MULTIPLE}, such as {valid}"


def _target_rules(config: Any) -> Iterator[Rule]:
    for name in ("RPN_BBOX_STD_DEV", "BBOX_STD_DEV"):
        yield name, _are_positive(getattr(config, name), 4), "four positive numbers"
    shape = config.MINI_MASK_SHAPE
    kept = np.shape(shape) == (2,) and all(_is_count(side) for side in shape)
    yield "MINI_MASK_SHAPE", kept, "two positive integers, height and width"
    side = 2 * config.MASK_POOL_SIZE
    wanted = f"twice MASK_POOL_SIZE={config.MASK_POOL_SIZE}, that is ({side}, {side})"
    yield "MASK_SHAPE", tuple(config.MASK_SHAPE) == (side, side), wanted
    weights = config.LOSS_WEIGHTS
    kept = hasattr(weights, "keys") and all(_is_number(weights[name]) for name in weights)
    yield "LOSS_WEIGHTS", kept, "a dict of a factor of at least 0 for each loss name"
