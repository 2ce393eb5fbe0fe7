"""Load one training image with its ground truth, check it, resize it and augment it.

Axes: h, w original image; H, W molded image; N instances.
"""

import contextlib
import functools
import random
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mrcnn.data import augmentation as augmentations
from mrcnn.data.augmentation import Augmentation, AugmentationError
from mrcnn.data.copy_paste import AnnotatedImage, CopyPaste, paste
from mrcnn.errors import InvalidDataError
from mrcnn.geometry import images, preprocessing, value_range
from mrcnn.geometry.image_meta import compose_image_meta
from mrcnn.geometry.mask_crops import MaskCrops
from mrcnn.geometry.value_range import ValueRange
from mrcnn.typing import Box, Boxes, ClassIds, Image, Masks

if TYPE_CHECKING:
    from mrcnn.config import Config
    from mrcnn.dataset import Dataset

_python_random_lock = threading.Lock()


class ImageWithTruth(NamedTuple):
    """An image with its ground truth, as `load_image_gt` returns them."""

    image: Image
    meta: np.ndarray
    class_ids: ClassIds
    boxes: Boxes
    masks: Masks


def load_image_gt(
    dataset: "Dataset",
    config: "Config",
    image_id: int,
    augment: bool = False,
    augmentation: Augmentation | None = None,
    use_mini_mask: bool = False,
    rng: np.random.Generator | None = None,
) -> ImageWithTruth:
    """Load an image and its ground truth, resized for the network.

    The mean is not subtracted, and values are not scaled to 0..255. Instances without pixels after resizing
    and augmentation are dropped.

    Args:
        dataset: A prepared Dataset. If it has a method `load_mask_crops`, which returns MaskCrops and class
            ids, this is called in place of `load_mask`.
        config: Read for IMAGE_*, CONTRAST_PERCENTILES and MINI_MASK_SHAPE.
        image_id: Id of the image.
        augment: Whether to mirror left to right with probability 1/2. Deprecated.
        augmentation: One of the kinds in `mrcnn.data.augmentation`, a list of them, or None.
        use_mini_mask: Whether to crop each mask to its box and resize it to MINI_MASK_SHAPE.
        rng: Makes random crops and augmentation reproducible. If None, Python's `random` and the augmenter's
            own state are used.

    Returns:
        image: [H, W, channels] in the dtype of the dataset, or uint8 with CONTRAST_PERCENTILES.
        meta: float64 [12 + classes]; see `mrcnn.geometry.image_meta`. Its window is that before augmentation.
        class_ids: int32 [N], negative for crowds. N may be 0.
        boxes: int32 [N, (y1, x1, y2, x2)] in pixels of `image`, computed from the masks.
        masks: bool [H, W, N], or [mini_height, mini_width, N].

    Raises:
        RuntimeError: If the dataset is not prepared.
        ValueError: If image, masks and settings do not fit together. The error names the image.
    """
    truth, _ = load_with_range(
        dataset,
        config,
        image_id,
        augment=augment,
        augmentation=augmentation,
        use_mini_mask=use_mini_mask,
        rng=rng,
    )
    return truth


def load_with_range(
    dataset: "Dataset",
    config: "Config",
    image_id: int,
    *,
    augment: bool = False,
    augmentation: Augmentation | None = None,
    use_mini_mask: bool = False,
    rng: np.random.Generator | None = None,
) -> tuple[ImageWithTruth, ValueRange | None]:
    """Load what `load_image_gt` loads, and the value range of the original image."""
    num_classes = dataset.num_classes  # raises with advice if prepare() was not called
    molded = _load_molded(dataset, config, image_id, rng)
    image, crops, class_ids = molded.image, molded.crops, molded.class_ids
    if augment or augmentation is not None:
        load_other = functools.partial(_load_other, dataset, config, image_id)
        image, masks, class_ids = _augmented(
            (image, crops.whole(), class_ids), augment, augmentation, rng, load_other, molded.values
        )
        # Boxes come from the changed masks. Changing the boxes themselves would enlarge them in a rotation.
        is_left = np.any(masks, axis=(0, 1))
        crops, class_ids = MaskCrops.cut(masks[:, :, is_left]), class_ids[is_left]
    masks = crops.mini(config.MINI_MASK_SHAPE) if use_mini_mask else crops.whole()

    # The class loss ignores predictions of classes that the image's source does not annotate.
    ids_of_source = set(_class_ids_of_source(dataset, image_id))
    active = [int(class_id in ids_of_source) for class_id in range(num_classes)]
    meta = compose_image_meta(
        image_id, molded.original_shape, image.shape, molded.window, molded.scale, active
    )
    return ImageWithTruth(image, meta, class_ids, crops.boxes, masks), molded.values


class _Molded(NamedTuple):
    """An image resized for the network, before augmentation."""

    image: Image
    crops: MaskCrops
    class_ids: ClassIds
    original_shape: tuple[int, ...]
    window: Box
    scale: float
    values: ValueRange | None


def _load_molded(
    dataset: "Dataset", config: "Config", image_id: int, rng: np.random.Generator | None
) -> _Molded:
    image, crops, class_ids = _load_checked(dataset, config, image_id)
    # Before the crop and the augmentation, so that all crops of an image get the same contrast and range.
    image = preprocessing.stretch_contrast(image, config.CONTRAST_PERCENTILES)
    try:
        values = value_range.value_range(image, config)
    except InvalidDataError as error:
        raise InvalidDataError(f"{error} This is {describe_image(dataset, image_id)}.") from error
    original_shape = image.shape
    with _seeded_crop(config, rng):
        image, window, scale, padding, crop = images.resize_image(
            image,
            min_dim=config.IMAGE_MIN_DIM,
            min_scale=config.IMAGE_MIN_SCALE,
            max_dim=config.IMAGE_MAX_DIM,
            mode=config.IMAGE_RESIZE_MODE,
        )
    crops, is_left = crops.resize(scale, padding, crop)
    return _Molded(image, crops, class_ids[is_left], original_shape, window, scale, values)


def describe_image(dataset: "Dataset", image_id: int) -> str:
    """Return the image id, source and path of an image, for messages."""
    info = dataset.image_info[image_id]
    reference = dataset.image_reference(image_id) or info.get("path")
    return f"image id {image_id} (source {info['source']!r}, {reference})"


def _augmented(
    annotated: AnnotatedImage,
    mirror: bool,
    augmentation: Augmentation | None,
    rng: np.random.Generator | None,
    load_other: Callable[[CopyPaste, list[Augmentation], np.random.Generator], AnnotatedImage | None],
    values: ValueRange | None,
) -> AnnotatedImage:
    """Apply each augmentation of a list, or the only one."""
    image, masks, class_ids = annotated
    if mirror:
        warnings.warn(
            "`augment=True` is deprecated. Pass augmentation=imgaug.augmenters.Fliplr(0.5) instead.",
            DeprecationWarning,
            stacklevel=4,
        )
        image, masks = augmentations.mirror_half(image, masks, rng)
    original = image
    steps = augmentations.as_list(augmentation)
    for index, step in enumerate(steps):
        if not isinstance(step, CopyPaste):
            image, masks = augmentations.apply(step, image, masks, rng, values)
            continue
        draws = np.random.default_rng() if rng is None else rng
        if draws.random() < step.probability:
            other = load_other(step, steps[:index], draws)
            if other is not None and other[0].shape == image.shape and other[0].dtype == image.dtype:
                image, masks, class_ids = paste((image, masks, class_ids), other, draws)
    if value_range.has_lost_scale(original, image):
        raise AugmentationError(
            f"`augmentation` must keep the scale of the values. Received: {original.dtype} values up to "
            f"{original.max()} became {image.dtype} values up to {image.max()}. Scale the result back."
        )
    return image, masks, class_ids


def _load_other(
    dataset: "Dataset",
    config: "Config",
    image_id: int,
    step: CopyPaste,
    augmentation: list[Augmentation],
    rng: np.random.Generator,
) -> AnnotatedImage | None:
    """Load another image of the same kind, with the augmentations that come before `CopyPaste`.

    Returns:
        None if there is no other image, or if it cannot be loaded. In that case it is reported when its own
        turn comes.

    Raises:
        AugmentationError: If no image has the entry that must be the same.
    """
    names = ["source"] if step.same is None else ["source", step.same]
    kind = [dataset.image_info[image_id].get(name) for name in names]
    if None in kind:
        augmentations.check_entry(step, dataset)
        return None
    others = [
        other
        for other in dataset.image_ids
        if other != image_id and [dataset.image_info[other].get(name) for name in names] == kind
    ]
    if not others:
        return None
    other_id = int(rng.choice(others))
    try:
        molded = _load_molded(dataset, config, other_id, rng)
    except MemoryError:
        raise
    except Exception:
        return None
    annotated = (molded.image, molded.crops.whole(), molded.class_ids)
    return _augmented(annotated, False, augmentation, rng, lambda *_: None, molded.values)


def _load_checked(dataset: "Dataset", config: "Config", image_id: int) -> tuple[Image, MaskCrops, ClassIds]:
    """Load an image [h, w, channels], its masks and class ids int32 [N], and check that they fit together.

    Crops are preferred, because the whole masks of a large image with many instances take gigabytes.
    """
    image = np.asarray(dataset.load_image(image_id))
    if config.IMAGE_CHANNEL_COUNT == 1 and preprocessing.is_repeated_gray(image):
        image = image[:, :, :1]
    crops = None
    if hasattr(dataset, "load_mask_crops"):
        crops, class_ids = dataset.load_mask_crops(image_id)
        masks_shape: tuple[int, ...] = (*crops.shape, len(crops.crops))
    else:
        masks, class_ids = dataset.load_mask(image_id)
        masks_shape = np.shape(masks)
    problem = (
        _image_problem(image, config.IMAGE_CHANNEL_COUNT)
        or _mask_problem(masks_shape, len(class_ids), image.shape)
        or _class_problem(np.asarray(class_ids), dataset.num_classes)
    )
    if problem:
        raise ValueError(f"{problem} This is {describe_image(dataset, image_id)}.")
    if len(class_ids) == 0:  # without instances, masks of any height and width are accepted
        crops = MaskCrops.cut(np.zeros((*image.shape[:2], 0), dtype=bool))
    elif crops is None:
        crops = MaskCrops.cut(np.asarray(masks).astype(bool, copy=False))
    return image, crops, np.asarray(class_ids).astype(np.int32)


def _image_problem(image: np.ndarray, channels: int) -> str | None:
    if image.ndim != 3 or image.shape[2] != channels:
        return (
            f"load_image must return an image of shape (height, width, {channels}), because "
            f"IMAGE_CHANNEL_COUNT={channels}. Received: image.shape={image.shape}."
        )
    return None


def _mask_problem(
    masks_shape: tuple[int, ...], num_class_ids: int, image_shape: tuple[int, ...]
) -> str | None:
    if len(masks_shape) != 3:
        return (
            "load_mask must return masks of shape (height, width, instances). Received: "
            f"masks.shape={masks_shape}. Stack the masks along the last axis."
        )
    if masks_shape[2] != num_class_ids:
        return (
            f"load_mask must return one class id per mask. Received: {masks_shape[2]} masks and "
            f"{num_class_ids} class ids."
        )
    if num_class_ids and masks_shape[:2] != image_shape[:2]:
        return (
            "Masks must have the height and width of their image. Received: "
            f"masks.shape={masks_shape} and image.shape={image_shape}."
        )
    return None


def _class_problem(class_ids: np.ndarray, num_classes: int) -> str | None:
    is_numeric = class_ids.dtype.kind in "iuf"
    if class_ids.ndim != 1 or not is_numeric or np.any(class_ids != np.trunc(class_ids)):
        return f"load_mask must return the class ids as a list of integers. Received: {class_ids!r}."
    outside = class_ids[(class_ids == 0) | (np.abs(class_ids) >= num_classes)]
    if len(outside):
        return (
            f"Class ids must be from 1 to {num_classes - 1}, or negative for crowds; 0 is the background. "
            f"Received: {sorted(set(outside.tolist()))}. Convert the ids of your annotations with "
            "map_source_class_id."
        )
    return None


def _class_ids_of_source(dataset: "Dataset", image_id: int) -> list[int]:
    source = dataset.image_info[image_id]["source"]
    if source not in dataset.source_class_ids:
        raise ValueError(
            f"The source {source!r} has images but no classes. Call add_class({source!r}, ...) before "
            f"prepare(). This is {describe_image(dataset, image_id)}."
        )
    return dataset.source_class_ids[source]


@contextlib.contextmanager
def _seeded_crop(config: "Config", rng: np.random.Generator | None) -> Iterator[None]:
    """Make the position of the random crop, which Python's `random` draws, depend on `rng` in any thread."""
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
