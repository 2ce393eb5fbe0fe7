"""Random changes of training images; what moves pixels moves the masks in the same way.

An augmentation is one of
- an imgaug augmenter: its geometric parts move the masks with nearest-neighbour sampling, its
  colour, blur and noise parts leave them alone, whatever the class is called;
- an albumentations transform;
- a callable f(image, masks) -> (image, masks), given a numpy Generator as well if it has a
  parameter named `rng`.
"""

import copy
import inspect
import random
from typing import Any

import numpy as np

from mrcnn.geometry import masks as mask_geometry


class AugmentationError(ValueError):
    """An augmentation broke the rules; the fault is not the image's."""


def apply(
    augmentation: Any, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one random change and apply it to an image and its masks.

    image: [H, W, channels]; masks: bool [H, W, N]. rng: makes the draw repeatable and independent
    of other threads; without it the augmentation's own random state advances.

    Returns image and bool masks of the same shapes. Raises AugmentationError (a ValueError) naming
    the augmentation if a shape changes, TypeError if it is no augmentation.
    """
    if hasattr(augmentation, "to_deterministic"):
        changed = _apply_imgaug(augmentation, image, masks, rng)
    elif type(augmentation).__module__.split(".")[0] == "albumentations":
        changed = _apply_albumentations(augmentation, image, masks, rng)
    elif callable(augmentation):
        changed = _apply_callable(augmentation, image, masks, rng)
    else:
        raise TypeError(
            "augmentation must be an imgaug augmenter, an albumentations transform or a callable "
            f"(image, masks) -> (image, masks). Received: {augmentation!r}"
        )
    for what, before, after in zip(("image", "masks"), (image, masks), changed, strict=True):
        if np.shape(after) != before.shape:
            raise AugmentationError(
                f"{_describe(augmentation)} changed the shape of the {what} from {before.shape} to "
                f"{np.shape(after)}. Sizes have to stay: use keep_size=True or crop and pad back."
            )
    return np.asarray(changed[0]), np.asarray(changed[1]).astype(bool)


def mirror_half(
    image: np.ndarray, masks: np.ndarray, rng: np.random.Generator | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mirror image [H, W, C] and masks [H, W, N] left to right with probability 1/2.

    Draws from Python's `random` without an rng, as the original did.
    """
    heads = random.randint(0, 1) if rng is None else rng.integers(2)
    return (np.fliplr(image), np.fliplr(masks)) if heads else (image, masks)


def _apply_imgaug(
    augmenter: Any, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator | None
) -> tuple[np.ndarray, np.ndarray]:
    # Loaded here because few users need it; whoever holds an augmenter has it installed.
    from imgaug.augmentables.segmaps import SegmentationMapsOnImage

    if rng is not None:
        augmenter = augmenter.deepcopy()
        augmenter.seed_(_seed(rng))
    frozen = augmenter.to_deterministic()
    augmented = frozen.augment_image(image)
    if masks.shape[2] == 0:
        return augmented, masks
    labels, layer_of = _pack(masks)
    maps = SegmentationMapsOnImage(labels, shape=image.shape)
    labels = frozen.augment_segmentation_maps(maps).get_arr()
    return augmented, _unpack(labels, layer_of)


def _apply_albumentations(
    transform: Any, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator | None
) -> tuple[np.ndarray, np.ndarray]:
    if rng is not None:
        transform = copy.deepcopy(transform)
        # Versions without this method draw from global generators and are not repeatable.
        if hasattr(transform, "set_random_seed"):
            transform.set_random_seed(_seed(rng))
    if masks.shape[2] == 0:
        return transform(image=image)["image"], masks
    layers = [np.ascontiguousarray(mask, dtype=np.uint8) for mask in np.moveaxis(masks, 2, 0)]
    changed = transform(image=image, masks=layers)
    return changed["image"], np.stack(list(changed["masks"]), axis=-1)


def _apply_callable(
    function: Any, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator | None
) -> tuple[np.ndarray, np.ndarray]:
    if "rng" in inspect.signature(function).parameters:
        changed = function(image, masks, rng=np.random.default_rng() if rng is None else rng)
    else:
        changed = function(image, masks)
    if not isinstance(changed, (tuple, list)) or len(changed) != 2:
        raise AugmentationError(
            f"{_describe(function)} must return (image, masks). Received: {type(changed).__name__}"
        )
    return changed[0], changed[1]


def _pack(masks: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Masks that do not overlap share a label map, so that few maps have to be warped.

    masks: bool [H, W, N], N > 0. Returns labels int32 [H, W, layers], instance i as label i + 1,
    and the layer of each instance. Nearest-neighbour sampling of labels equals that of each mask.
    """
    layers: list[np.ndarray] = []
    layer_of = []
    for index, (y1, x1, y2, x2) in enumerate(mask_geometry.extract_bboxes(masks)):
        inside = masks[y1:y2, x1:x2, index]
        windows = (layer[y1:y2, x1:x2] for layer in layers)
        free = (place for place, window in enumerate(windows) if not window[inside].any())
        place = next(free, len(layers))
        if place == len(layers):
            layers.append(np.zeros(masks.shape[:2], dtype=np.int32))
        layers[place][y1:y2, x1:x2][inside] = index + 1
        layer_of.append(place)
    return np.stack(layers, axis=-1), layer_of


def _unpack(labels: np.ndarray, layer_of: list[int]) -> np.ndarray:
    layers = np.ascontiguousarray(np.moveaxis(labels, 2, 0))
    masks = np.zeros((*labels.shape[:2], len(layer_of)), dtype=bool)
    for index, place in enumerate(layer_of):
        masks[layers[place] == index + 1, index] = True
    return masks


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def _describe(augmentation: Any) -> str:
    """The name of an augmentation, with its parts if it has any."""
    name = getattr(augmentation, "__name__", type(augmentation).__name__)
    if hasattr(augmentation, "get_all_children"):
        parts = [type(part).__name__ for part in augmentation.get_all_children(flat=True)]
        name += f" of {', '.join(parts)}" if parts else ""
    return name
