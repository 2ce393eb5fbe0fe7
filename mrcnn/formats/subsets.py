"""Parts of a dataset as datasets."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def split(dataset: Any, share: float = 0.2, seed: int = 0) -> tuple[Any, Any]:
    """Two prepared datasets of a dataset's images: the larger to train on, the other to validate with.

    share: of the images that go into the second, at least one. seed: the same seed gives the same split of
    the same images. Both have all classes. Images of one scene should stay together: where there are such,
    split the files by hand instead.
    Raises ValueError for a dataset of fewer than two images and shares that are not between 0 and 1.
    """
    count = len(dataset.image_info)
    if count < 2 or not 0 < share < 1:
        raise ValueError(
            "A split needs two images or more and a share between 0 and 1. "
            f"Received: {count} images, share={share}"
        )
    order = np.random.default_rng(seed).permutation(count)
    held_back = min(max(round(share * count), 1), count - 1)
    return subset(dataset, sorted(order[held_back:])), subset(dataset, sorted(order[:held_back]))


def subset(dataset: Any, image_ids: Sequence[int]) -> Any:
    """A prepared dataset of some images of a dataset, numbered from 0; all classes stay."""
    part = copy.copy(dataset)
    part.image_info = [dataset.image_info[image_id] for image_id in image_ids]
    part.class_info = list(dataset.class_info)
    part.prepare()
    return part


def repeat_rare(dataset: Any, groups: Mapping[str, Sequence[int]]) -> Any:
    """A prepared dataset in which images of small groups come several times, next to all others.

    groups: image ids by name. Each group gets about half as many entries as the largest has, if it has fewer.
    For training: what is rare in it is seldom learnt.
    """
    most = max(map(len, groups.values()), default=0)
    again = [
        image_id
        for image_ids in groups.values()
        if image_ids
        for image_id in list(image_ids) * (max(round(most / (2 * len(image_ids))), 1) - 1)
    ]
    return subset(dataset, [*range(len(dataset.image_info)), *again])
