"""Random changes of training images. Changes that move pixels also move the masks.

An augmentation is one of:

- An imgaug augmenter. Its geometric parts also move the masks, with nearest-neighbor sampling. Its color,
  blur and noise parts only change the image.
- An albumentations transform.
- A callable `f(image, masks)` that returns (image, masks). If it has a parameter named `rng`, it also gets a
  numpy Generator; if it has one named `value_range`, the values of black and white of the image, a
  `mrcnn.geometry.value_range.ValueRange`, or None if its values are used as they are.
- `mrcnn.data.copy_paste.CopyPaste`, which adds objects of another image.
- A list of these, which are applied in its order.

Axes: H, W image; N instances.
"""

import copy
import inspect
import numbers
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from mrcnn.data.copy_paste import CopyPaste
from mrcnn.geometry import masks as mask_geometry
from mrcnn.geometry.value_range import ValueRange
from mrcnn.typing import Image, Masks

if TYPE_CHECKING:
    from mrcnn.dataset import Dataset

# An imgaug augmenter, an albumentations transform or a callable. The packages need not be installed.
Augmentation: TypeAlias = Any


class AugmentationError(ValueError):
    """An augmentation is faulty, rather than the image."""


def check(augmentation: Any, dataset: "Dataset") -> None:
    """Check that something is an augmentation of a dataset, before it is applied to many images.

    Args:
        augmentation: One of the kinds above, or None.
        dataset: The dataset.

    Raises:
        AugmentationError: If it is none of these, has to be called first, is a function that does not take
            (image, masks), or needs an entry of `image_info` that no image has.
    """
    for part in augmentation if isinstance(augmentation, (list, tuple)) else [augmentation]:
        if part is None or hasattr(part, "to_deterministic"):
            continue
        if isinstance(part, type):
            raise AugmentationError(_to_be_called(part))
        if inspect.isfunction(part):
            _check_function(part)
        if not callable(part) and not isinstance(part, CopyPaste):
            raise AugmentationError(
                "`augmentation` must be an imgaug augmenter, an albumentations transform, a callable "
                "f(image, masks) that returns (image, masks), CopyPaste(), or a list of these. Received: "
                f"{part!r}"
            )
        if isinstance(part, CopyPaste):
            check_entry(part, dataset)


def _check_function(function: Callable[..., object]) -> None:
    """Check that a function can be called as f(image, masks), with `rng` if it has this parameter."""
    signature = inspect.signature(function)
    has_defaults = all(one.default is not one.empty for one in signature.parameters.values())
    if has_defaults and str(function.__module__).startswith("mrcnn."):  # such as camera_policy
        raise AugmentationError(_to_be_called(function))
    try:
        signature.bind(None, None, **_more_arguments(function, None, None))
    except TypeError as error:
        raise AugmentationError(
            "`augmentation` must be a function f(image, masks) or f(image, masks, rng). Received: "
            f"{function.__name__}({', '.join(signature.parameters)}), {error}"
        ) from None


def _to_be_called(part: Any) -> str:
    return f"`augmentation` must be what {part.__name__} returns. Call it: {part.__name__}()"


def check_entry(step: CopyPaste, dataset: "Dataset") -> None:
    """Check that at least one image of a dataset has the entry of `image_info` that `CopyPaste` compares.

    Raises:
        AugmentationError: If no image has it, so that nothing would ever be pasted.
    """
    if step.same is None or any(info.get(step.same) is not None for info in dataset.image_info):
        return
    entries = sorted({str(name) for info in dataset.image_info for name in info})
    raise AugmentationError(
        f"No image of the dataset has the entry of CopyPaste(same={step.same!r}). The entries of image_info "
        f"are {entries}. Correct the name, or set image_info[image_id][{step.same!r}] of each image."
    )


def apply(
    augmentation: Augmentation,
    image: Image,
    masks: Masks,
    rng: np.random.Generator | None = None,
    value_range: ValueRange | None = None,
) -> tuple[Image, Masks]:
    """Draw one random change and apply it to an image and its masks.

    Args:
        augmentation: One of the kinds above.
        image: [H, W, channels].
        masks: bool [H, W, N].
        rng: Makes the draw reproducible and independent of other threads. If None, the augmentation uses its
            own random state.
        value_range: The values of black and white of the image, if they are known.

    Returns:
        The changed image and bool masks, with the same shapes.

    Raises:
        AugmentationError: If the augmentation changes a shape. This is a ValueError.
        RuntimeError: If the augmentation raises an error. The message names both.
        TypeError: If `augmentation` is none of these kinds.
    """
    if not (hasattr(augmentation, "to_deterministic") or callable(augmentation)):
        raise TypeError(
            "`augmentation` must be an imgaug augmenter, an albumentations transform, a callable "
            "f(image, masks) that returns (image, masks), or a list of these. Received: "
            f"augmentation={augmentation!r}"
        )
    try:
        changed = _change(augmentation, image, masks, rng, value_range)
    except (AugmentationError, MemoryError):
        raise
    except Exception as error:
        raise RuntimeError(
            f"The augmentation {_describe(augmentation)} failed: {type(error).__name__}: {error}"
        ) from error
    for name, before, after in zip(("image", "masks"), (image, masks), changed, strict=True):
        if np.shape(after) != before.shape:
            raise AugmentationError(
                f"The augmentation {_describe(augmentation)} must not change the shape of the {name}. "
                f"Received: {name}.shape={np.shape(after)}, expected {before.shape}. Use keep_size=True, or "
                "crop and pad to the same size."
            )
    return np.asarray(changed[0]), np.asarray(changed[1]).astype(bool)


def _change(
    augmentation: Augmentation,
    image: Image,
    masks: Masks,
    rng: np.random.Generator | None,
    value_range: ValueRange | None,
) -> tuple[Image, Masks]:
    """Apply an augmentation without a check of its result; see `apply`."""
    if hasattr(augmentation, "to_deterministic"):
        return _apply_imgaug(augmentation, image, masks, rng)
    # A transform of a user's own is derived from a class of albumentations.
    packages = {base.__module__.split(".")[0] for base in type(augmentation).__mro__}
    if "albumentations" in packages:
        return _apply_albumentations(augmentation, image, masks, rng)
    return _apply_callable(augmentation, image, masks, **_more_arguments(augmentation, rng, value_range))


def check_uint8_rgb(image: Image, name: str) -> None:
    """Check that an image is uint8 `[H, W, 3]`. The AugmentationError names the augmentation otherwise."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise AugmentationError(
            f"`{name}` needs uint8 RGB images of shape (height, width, 3). Received: "
            f"image.shape={image.shape}, image.dtype={image.dtype}. Set CONTRAST_PERCENTILES to convert "
            "images to uint8, or use another augmentation, such as camera_policy()."
        )


def check_strength(strength: float) -> None:
    """Raise ValueError if the strength of an augmentation is not a number from 0 to 2."""
    if not isinstance(strength, numbers.Real) or not 0 <= strength <= 2:
        raise ValueError(f"`strength` must be a number from 0 to 2. Received: strength={strength!r}")


def as_list(augmentation: Augmentation | None) -> list[Augmentation]:
    """Return augmentations as a list: a list or tuple, a single one, or an empty list for None."""
    if augmentation is None:
        return []
    # An imgaug Sequential is a list, too.
    is_list = isinstance(augmentation, (list, tuple)) and not hasattr(augmentation, "to_deterministic")
    return list(augmentation) if is_list else [augmentation]


def mirror_half(image: Image, masks: Masks, rng: np.random.Generator | None = None) -> tuple[Image, Masks]:
    """Mirror an image [H, W, C] and its masks [H, W, N] left to right with probability 1/2.

    Without an rng, Python's `random` decides, as in the Keras 2 library.
    """
    is_mirrored = random.randint(0, 1) if rng is None else rng.integers(2)
    return (np.fliplr(image), np.fliplr(masks)) if is_mirrored else (image, masks)


def _apply_imgaug(
    augmenter: Any, image: Image, masks: Masks, rng: np.random.Generator | None
) -> tuple[Image, Masks]:
    # Imported here because the package is optional. Users who pass an augmenter have it installed.
    from imgaug.augmentables.segmaps import SegmentationMapsOnImage

    if rng is not None:
        augmenter = augmenter.deepcopy()
        _seed_imgaug(augmenter, rng)
    frozen = augmenter.to_deterministic()
    augmented = frozen.augment_image(image)
    if masks.shape[2] == 0:
        return augmented, masks
    labels, map_of_instance = _pack(masks)
    maps = SegmentationMapsOnImage(labels, shape=image.shape)
    labels = frozen.augment_segmentation_maps(maps).get_arr()
    return augmented, _unpack(labels, map_of_instance)


def _seed_imgaug(augmenter: Any, rng: np.random.Generator) -> None:
    """Seed an augmenter and all augmenters inside it.

    imgaug's own `seed_` skips an augmenter that is itself the list of children, such as OneOf in
    `Sometimes(0.5, OneOf([...]))`, which would then make the same choice for every image.
    """
    augmenter.seed_(_seed(rng))
    for children in augmenter.get_children_lists():
        if children is not augmenter and hasattr(children, "seed_"):
            _seed_imgaug(children, rng)
        else:
            for child in children:
                _seed_imgaug(child, rng)


def _apply_albumentations(
    transform: Any, image: Image, masks: Masks, rng: np.random.Generator | None
) -> tuple[Image, Masks]:
    if rng is not None:
        transform = copy.deepcopy(transform)
        # Versions without this method use global generators, so their results are not reproducible.
        if hasattr(transform, "set_random_seed"):
            transform.set_random_seed(_seed(rng))
    if masks.shape[2] == 0:
        return transform(image=image)["image"], masks
    byte_masks = [np.ascontiguousarray(mask, dtype=np.uint8) for mask in np.moveaxis(masks, 2, 0)]
    changed = transform(image=image, masks=byte_masks)
    return changed["image"], np.stack(list(changed["masks"]), axis=-1)


def _apply_callable(
    function: Callable[..., tuple[Image, Masks]],
    image: Image,
    masks: Masks,
    **more: Any,
) -> tuple[Image, Masks]:
    changed = function(image, masks, **more)
    if not isinstance(changed, (tuple, list)) or len(changed) != 2:
        raise AugmentationError(
            f"The augmentation {_describe(function)} must return (image, masks). Received: an object of "
            f"type {type(changed).__name__}"
        )
    return changed[0], changed[1]


def _more_arguments(
    function: Callable[..., object], rng: np.random.Generator | None, value_range: ValueRange | None
) -> dict[str, Any]:
    """Return those of the arguments `rng` and `value_range` for which a callable has a parameter."""
    names = inspect.signature(function).parameters
    more: dict[str, Any] = {}
    if "rng" in names:
        more["rng"] = np.random.default_rng() if rng is None else rng
    if "value_range" in names:
        more["value_range"] = value_range
    return more


def _pack(masks: Masks) -> tuple[np.ndarray, list[int]]:
    """Combine masks that do not overlap into label maps, so that fewer maps have to be warped.

    Nearest-neighbor sampling of a label map equals that of each mask in it.

    Args:
        masks: bool [H, W, N], N > 0.

    Returns:
        The label maps, int32 [H, W, maps], where instance i has the label i + 1; and for each instance the
        index of its map.
    """
    label_maps: list[np.ndarray] = []
    map_of_instance = []
    for instance, (y1, x1, y2, x2) in enumerate(mask_geometry.extract_bboxes(masks)):
        mask = masks[y1:y2, x1:x2, instance]
        crops = (label_map[y1:y2, x1:x2] for label_map in label_maps)
        free = (index for index, crop in enumerate(crops) if not crop[mask].any())
        index = next(free, len(label_maps))
        if index == len(label_maps):
            label_maps.append(np.zeros(masks.shape[:2], dtype=np.int32))
        label_maps[index][y1:y2, x1:x2][mask] = instance + 1
        map_of_instance.append(index)
    return np.stack(label_maps, axis=-1), map_of_instance


def _unpack(labels: np.ndarray, map_of_instance: list[int]) -> Masks:
    """Return the masks, bool [H, W, N], of the label maps of `_pack`."""
    label_maps = np.ascontiguousarray(np.moveaxis(labels, 2, 0))
    masks = np.zeros((*labels.shape[:2], len(map_of_instance)), dtype=bool)
    for instance, index in enumerate(map_of_instance):
        masks[label_maps[index] == instance + 1, instance] = True
    return masks


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def _describe(augmentation: Augmentation) -> str:
    """Return the name of an augmentation, with the names of its parts."""
    name = getattr(augmentation, "__name__", type(augmentation).__name__)
    if hasattr(augmentation, "get_all_children"):
        parts = [type(part).__name__ for part in augmentation.get_all_children(flat=True)]
        name += f" of {', '.join(parts)}" if parts else ""
    return name
