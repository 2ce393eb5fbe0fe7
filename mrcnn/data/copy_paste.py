"""Simple copy-paste: paste objects of one training image into another (Ghiasi et al., 2021).

    model.train(..., augmentation=[scale_jitter(0.1, 2.0), CopyPaste(), camera_policy()])

The other image goes through the augmentations before `CopyPaste` in the list, with its own random numbers.
With `scale_jitter` before it, this is the augmentation of the paper.

Axes: H, W image; N instances.
"""

import numbers
from dataclasses import dataclass

import numpy as np

from mrcnn.geometry import masks as mask_geometry
from mrcnn.typing import ClassIds, Image, Masks

# An image [H, W, channels], its masks, bool [H, W, N], and class ids [N].
AnnotatedImage = tuple[Image, Masks, ClassIds]

# An object of which less than this part stays visible is dropped.
LEAST_VISIBLE = 0.1


@dataclass(frozen=True)
class CopyPaste:
    """An augmentation that pastes objects of another image of the same source.

    Each object of the other image is pasted with probability 1/2, at its own place. Crowds are not pasted.
    The masks of the image lose the pixels that a pasted object covers. An object is dropped if more than nine
    tenths of it are covered. If the two images differ in shape or dtype, nothing is pasted.

    Args:
        probability: Share of images that receive objects, from 0 to 1.
        same: Name of an entry of `Dataset.image_info`, such as "stain", whose value must be the same in both
            images. With None, the other image may be any image of the same source. Images without the entry
            get no objects. If no image has it, loading raises an AugmentationError.

    Raises:
        ValueError: If `probability` is not a number from 0 to 1, or `same` is not a name.
    """

    probability: float = 0.5
    same: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.probability, numbers.Real) or not 0 <= self.probability <= 1:
            raise ValueError(
                f"`probability` must be a number from 0 to 1. Received: probability={self.probability!r}"
            )
        if self.same is not None and not isinstance(self.same, str):
            raise ValueError(
                "`same` must be the name of an entry of Dataset.image_info, or None to compare only sources. "
                f"Received: same={self.same!r}"
            )


def paste(target: AnnotatedImage, source: AnnotatedImage, rng: np.random.Generator) -> AnnotatedImage:
    """Paste a random choice of the objects of `source` into `target`.

    Args:
        target, source: Images of the same shape and dtype, with their masks and class ids. They are not
            changed.
        rng: Source of random numbers.

    Returns:
        The image; the remaining masks of `target`, followed by the pasted ones; their class ids.
    """
    image, masks, class_ids = target
    is_chosen = (source[2] > 0) & (rng.random(len(source[2])) < 0.5) & source[1].any(axis=(0, 1))
    if not is_chosen.any():
        return target
    pasted, pasted_ids = source[1][..., is_chosen], source[2][is_chosen]
    covered: np.ndarray = np.any(pasted, axis=2)
    image = np.where(covered[..., np.newaxis], source[0], image)
    visible, is_left = _hide(masks, covered)
    return (
        image,
        np.concatenate([visible[..., is_left], pasted], axis=2),
        np.concatenate([class_ids[is_left], pasted_ids]),
    )


def _hide(masks: Masks, covered: np.ndarray) -> tuple[Masks, np.ndarray]:
    """Return the masks without the covered pixels [H, W], and whether enough of each mask remains."""
    visible = masks.copy()
    is_left = np.ones(masks.shape[2], dtype=bool)
    for index, (y1, x1, y2, x2) in enumerate(mask_geometry.extract_bboxes(masks)):
        crop = visible[y1:y2, x1:x2, index]
        area = np.count_nonzero(crop)
        crop &= ~covered[y1:y2, x1:x2]
        is_left[index] = np.count_nonzero(crop) >= LEAST_VISIBLE * area
    return visible, is_left
