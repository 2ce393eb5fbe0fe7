"""Subsets of a dataset."""

import copy
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from mrcnn.dataset import Dataset

AnyDataset = TypeVar("AnyDataset", bound=Dataset)


def split(dataset: AnyDataset, share: float = 0.2, seed: int = 0) -> tuple[AnyDataset, AnyDataset]:
    """Divide a dataset into a large part for training and a small part for validation.

    Images of one scene or one patient should be in the same part. If there are such groups, divide the files
    yourself.

    Args:
        dataset: The dataset.
        share: The share of images in the second part, which gets at least one image.
        seed: Seed of the random division.

    Returns:
        Two prepared datasets with all classes.

    Raises:
        ValueError: If the dataset has fewer than two images, or `share` is not between 0 and 1.
    """
    count = len(dataset.image_info)
    if count < 2 or not 0 < share < 1:
        raise ValueError(
            "`dataset` must have at least two images, and `share` must be between 0 and 1. Received: "
            f"{count} images, share={share}"
        )
    order = np.random.default_rng(seed).permutation(count)
    held_back = min(max(round(share * count), 1), count - 1)
    return subset(dataset, sorted(order[held_back:])), subset(dataset, sorted(order[:held_back]))


def subset(dataset: AnyDataset, image_ids: Sequence[int]) -> AnyDataset:
    """Return a prepared dataset of some images of a dataset, numbered from 0, with all classes.

    Args:
        dataset: The dataset.
        image_ids: Ids of the images. An id may occur several times.
    """
    part = copy.copy(dataset)
    part.image_info = [dataset.image_info[image_id] for image_id in image_ids]
    part.class_info = list(dataset.class_info)
    part.prepare()
    return part


def repeat_rare(dataset: AnyDataset, groups: Mapping[str, Sequence[int]]) -> AnyDataset:
    """Return a prepared dataset that repeats images of small groups, so that training sees them more often.

    Args:
        dataset: The dataset.
        groups: Image ids by name of the group. A group with fewer than half as many images as the largest one
            is repeated until it has about half as many entries. Images without a group are kept.
    """
    largest = max(map(len, groups.values()), default=0)
    again = [
        image_id
        for image_ids in groups.values()
        if image_ids
        for image_id in list(image_ids) * (max(round(largest / (2 * len(image_ids))), 1) - 1)
    ]
    return subset(dataset, [*range(len(dataset.image_info)), *again])
