"""One training image with its truth: loaded, checked, resized, augmented."""

import contextlib
import random
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from mrcnn.data import augmentation as augmentations
from mrcnn.geometry import images, preprocessing
from mrcnn.geometry.image_meta import compose_image_meta
from mrcnn.geometry.mask_crops import MaskCrops

_python_random_lock = threading.Lock()


def load_image_gt(
    dataset: Any,
    config: Any,
    image_id: int,
    augment: bool = False,
    augmentation: Any = None,
    use_mini_mask: bool = False,
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Load an image, its objects and the facts about it, as the network takes them.

    dataset: a prepared Dataset; one with a method load_mask_crops, which returns MaskCrops and class ids, is
    asked for these instead of load_mask. config: IMAGE_*, CONTRAST_PERCENTILES and MINI_MASK_SHAPE are
    read. augment: mirror with probability 1/2; deprecated. augmentation: see mrcnn.data.augmentation.
    use_mini_mask: crop each mask to its box and resize it to MINI_MASK_SHAPE. rng: makes random crops and
    augmentation repeatable; without it Python's `random` and the augmenter's own state are used.

    Returns
    - image: [H, W, channels] in the dataset's dtype, uint8 where contrast is stretched; the mean is not
      subtracted
    - meta: [12 + dataset.num_classes], see geometry.image_meta.compose_image_meta; its window is that
      before augmentation
    - class_ids: int32 [N], negative for crowds; N may be 0
    - bbox: int32 [N, (y1, x1, y2, x2)] in pixels of `image`, computed from the masks
    - masks: bool [H, W, N], or [mini_h, mini_w, N]

    Objects without a pixel left are dropped. Raises RuntimeError for an unprepared dataset and
    ValueError, naming the image, for an image or masks that do not fit each other or the config.
    """
    num_classes = dataset.num_classes  # fails with advice before prepare()
    image, crops, class_ids = _load_checked(dataset, config, image_id)
    image = preprocessing.stretch_contrast(image, config.CONTRAST_PERCENTILES)
    original_shape = image.shape
    with _seeded_crop(config, rng):
        image, window, scale, padding, crop = images.resize_image(
            image,
            min_dim=config.IMAGE_MIN_DIM,
            min_scale=config.IMAGE_MIN_SCALE,
            max_dim=config.IMAGE_MAX_DIM,
            mode=config.IMAGE_RESIZE_MODE,
        )
    crops, left = crops.resize(scale, padding, crop)
    class_ids = class_ids[left]
    if augment or augmentation is not None:
        image, masks = _augmented(image, crops.whole(), augment, augmentation, rng)
        left = np.any(masks, axis=(0, 1))
        crops, class_ids = MaskCrops.cut(masks[:, :, left]), class_ids[left]
    masks = crops.mini(config.MINI_MASK_SHAPE) if use_mini_mask else crops.whole()

    of_source = set(_class_ids_of_source(dataset, image_id))
    active = [int(class_id in of_source) for class_id in range(num_classes)]
    meta = compose_image_meta(image_id, original_shape, image.shape, window, scale, active)
    return image, meta, class_ids, crops.boxes, masks


def _augmented(
    image: np.ndarray, masks: np.ndarray, mirror: bool, augmentation: Any, rng: np.random.Generator | None
) -> tuple[np.ndarray, np.ndarray]:
    if mirror:
        warnings.warn(
            "augment=True is deprecated: pass augmentation=imgaug.augmenters.Fliplr(0.5) instead.",
            DeprecationWarning,
            stacklevel=3,
        )
        image, masks = augmentations.mirror_half(image, masks, rng)
    if augmentation is not None:
        image, masks = augmentations.apply(augmentation, image, masks, rng)
    return image, masks


def describe_image(dataset: Any, image_id: int) -> str:
    """Image id, source and path, for messages."""
    info = dataset.image_info[image_id]
    reference = dataset.image_reference(image_id) or info.get("path")
    return f"image id {image_id} (source {info['source']!r}, {reference})"


def _load_checked(dataset: Any, config: Any, image_id: int) -> tuple[np.ndarray, MaskCrops, np.ndarray]:
    """Image [h, w, channels], its masks and class ids int32 [N] that fit each other.

    A dataset that can is asked for crops: whole masks of a large image with many objects are gigabytes.
    """
    image = np.asarray(dataset.load_image(image_id))
    if hasattr(dataset, "load_mask_crops"):
        crops, class_ids = dataset.load_mask_crops(image_id)
        mask_problem = _mask_problem((*crops.shape, len(crops.crops)), len(class_ids), image.shape)
    else:
        crops = None
        masks, class_ids = dataset.load_mask(image_id)
        mask_problem = _mask_problem(np.shape(masks), len(class_ids), image.shape)
    problem = (
        _image_problem(image, config.IMAGE_CHANNEL_COUNT)
        or mask_problem
        or _class_problem(np.asarray(class_ids), dataset.num_classes)
    )
    if problem:
        raise ValueError(f"{problem} At {describe_image(dataset, image_id)}.")
    if len(class_ids) == 0:
        crops = MaskCrops.cut(np.zeros((*image.shape[:2], 0), dtype=bool))
    elif crops is None:
        crops = MaskCrops.cut(np.asarray(masks).astype(bool, copy=False))
    return image, crops, np.asarray(class_ids).astype(np.int32)


def _image_problem(image: np.ndarray, channels: int) -> str | None:
    if image.ndim != 3 or image.shape[2] != channels:
        return (
            f"load_image must return [height, width, {channels}], as IMAGE_CHANNEL_COUNT says. "
            f"Received: shape {image.shape}."
        )
    return None


def _mask_problem(shape: tuple[int, ...], objects: int, image_shape: tuple[int, ...]) -> str | None:
    if len(shape) != 3:
        return (
            "load_mask must return masks [height, width, objects]. "
            f"Received: shape {shape}. Stack the masks along the last axis."
        )
    if shape[2] != objects:
        return (
            "load_mask must return a class id for each mask. "
            f"Received: {shape[2]} masks and {objects} class ids."
        )
    if objects and shape[:2] != image_shape[:2]:
        return (
            "Masks must have the height and width of their image. "
            f"Received: masks {shape[:2]} and image {image_shape[:2]}."
        )
    return None


def _class_problem(class_ids: np.ndarray, num_classes: int) -> str | None:
    numeric = class_ids.dtype.kind in "iuf"
    if class_ids.ndim != 1 or not numeric or np.any(class_ids != np.trunc(class_ids)):
        return f"Class ids must be a list of integers. Received: {class_ids!r}."
    outside = class_ids[(class_ids == 0) | (np.abs(class_ids) >= num_classes)]
    if len(outside):
        return (
            f"Class ids must be 1 to {num_classes - 1}, negative for crowds; 0 is background. "
            f"Received: {sorted(set(outside.tolist()))}. Use internal ids, see map_source_class_id."
        )
    return None


def _class_ids_of_source(dataset: Any, image_id: int) -> Any:
    source = dataset.image_info[image_id]["source"]
    if source not in dataset.source_class_ids:
        raise ValueError(
            f"The source {source!r} has an image but no class: call "
            f"add_class({source!r}, ...) before prepare(). At {describe_image(dataset, image_id)}."
        )
    return dataset.source_class_ids[source]


@contextlib.contextmanager
def _seeded_crop(config: Any, rng: np.random.Generator | None) -> Iterator[None]:
    """Let the random crop, which Python's `random` places, follow `rng` in whichever thread."""
    if rng is None or config.IMAGE_RESIZE_MODE != "crop":
        yield
        return
    with _python_random_lock:
        state = random.getstate()
        random.seed(int(rng.integers(2**63)))
        try:
            yield
        finally:
            random.setstate(state)
