"""Join the classes of a model and of a dataset that number them differently.

Networks with torchvision's COCO weights, for example, number the 80 categories from 1 to 90, and a
`CocoDataset` from 1 to 80.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def joined_numbers(names: Sequence[str], dataset_names: Sequence[str]) -> dict[int, int]:
    """Return the number in a dataset of each class of a model that the dataset has, by its number.

    Both lists have the background first. If a name occurs several times, as with two sources of a dataset,
    its first occurrence in one list belongs to the first in the other, and so on.
    """
    numbers = {occurrence: number for number, occurrence in enumerate(_occurrences(dataset_names)) if number}
    occurrences = enumerate(_occurrences(names))
    return {number: numbers[name] for number, name in occurrences if number and name in numbers}


def _occurrences(names: Sequence[str]) -> list[tuple[str, int]]:
    """Return each name with the number of equal names before it."""
    counts: Counter[str] = Counter()
    result = []
    for name in names:
        result.append((name, counts[name]))
        counts[name] += 1
    return result


def with_class_ids_of(
    detections: Mapping[str, Any], dataset_names: Sequence[str], new_ids: Mapping[int, int]
) -> dict[str, Any]:
    """Return detections with the class ids of a dataset.

    If the detections know the names of their classes and the dataset has one of these names, classes are
    joined by name, and detections of other classes are left out. Otherwise, they are joined by number.

    Args:
        detections: A dict of rois, class_ids, scores and masks. That of `MaskRCNN.detect` knows the names.
        dataset_names: The names of the dataset's classes, the background first.
        new_ids: The id to give to each class of the dataset.

    Raises:
        ValueError: If classes are joined by number, and a detection has the number of no class.
    """
    found = np.asarray(detections["class_ids"], dtype=int)
    names = getattr(detections, "class_names", None)
    if names is not None and set(names[1:]) & set(dataset_names[1:]):
        number_of = joined_numbers(names, dataset_names)
        known = np.flatnonzero([int(number) in number_of for number in found])
        if len(known) < len(found):
            detections, found = detections.select(known), found[known]  # type: ignore[attr-defined]
        ids = [new_ids[number_of[int(number)]] for number in found]
        return {**detections, "class_ids": np.array(ids, dtype=int)}
    unknown = sorted({int(number) for number in found} - set(new_ids))
    if unknown:
        raise ValueError(
            "The class ids of detections must be class ids of the dataset, from 1 to "
            f"{len(dataset_names) - 1}. Received: class ids {unknown}. Use a model with these classes, or "
            "set `model.class_names` to match classes by name."
        )
    return {**detections, "class_ids": np.array([new_ids[int(number)] for number in found], dtype=int)}
