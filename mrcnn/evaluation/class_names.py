"""Join the classes of a model and of a dataset that number them differently.

Networks with torchvision's COCO weights, for example, number the 80 categories from 1 to 90, and a
`CocoDataset` from 1 to 80.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np


def joined_numbers(names: Sequence[str], dataset_names: Sequence[str]) -> dict[int, int]:
    """Return the number in a dataset of each class of a model that the dataset has, by its number.

    Both lists have the background first. If a name occurs several times, as with two sources of a dataset,
    its first occurrence in one list belongs to the first in the other, and so on. Equal names come first.
    Then, one of the two may be cut at its first comma, as in weight files of earlier versions and in
    `class_names` of a dataset.
    """
    joined: dict[int, int] = {}
    for own_form, dataset_form in ((str.strip, str.strip), (str.strip, _cut), (_cut, str.strip)):
        own = _occurrences(names, own_form, set(joined))
        numbers = _occurrences(dataset_names, dataset_form, set(joined.values()))
        joined |= {number: numbers[name] for name, number in own.items() if name in numbers}
    return joined


def _cut(name: str) -> str:
    return name.split(",")[0].strip()


def _occurrences(
    names: Sequence[str], form: Callable[[str], str], joined: set[int]
) -> dict[tuple[str, int], int]:
    """Return the numbers of the classes by name, in some form, and number of equal names before it.

    The background and the classes that are joined already are left out.
    """
    counts: Counter[str] = Counter()
    numbers = {}
    for number, name in enumerate(map(form, names)):
        if number and number not in joined:
            numbers[name, counts[name]] = number
            counts[name] += 1
    return numbers


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
    number_of = {} if names is None else joined_numbers(names, dataset_names)
    if number_of:
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
