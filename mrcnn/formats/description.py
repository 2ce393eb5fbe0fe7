"""Describe a dataset in numbers and a figure, before training on it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcnn.dataset import Dataset
from mrcnn.drawing import display
from mrcnn.errors import InvalidDataError
from mrcnn.formats import problems
from mrcnn.formats.base import FormatDataset
from mrcnn.formats.problems import BrokenEntryError
from mrcnn.geometry import masks as mask_geometry

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUANTILES = (0, 25, 50, 75, 100)
# A class with a smaller share of the objects is named in a warning.
RARE_SHARE = 0.02
# Objects with fewer pixels on a side are hard to find.
SMALL_SIDE = 8
# Bars of a panel. Of more classes, the largest are shown.
MAX_BARS = 40
DEFAULT_LIMIT = 1000
# What Config allows in an image by default.
DEFAULT_MAX_INSTANCES = 100


@dataclasses.dataclass
class _Findings:
    """The findings of a pass over images.

    Attributes:
        sizes: (height, width) of each image.
        counts: Number of objects of each image.
        class_ids: Class id of each object.
        sides: (height, width) of the box of each object.
        areas: Pixels of each object.
    """

    sizes: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    counts: list[int] = dataclasses.field(default_factory=list)
    class_ids: list[int] = dataclasses.field(default_factory=list)
    sides: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    areas: list[int] = dataclasses.field(default_factory=list)


def describe(dataset: Dataset, limit: int | None = DEFAULT_LIMIT, *, decode: bool = False) -> dict[str, Any]:
    """Print and plot a summary of a prepared dataset, and list what is broken in it.

    Args:
        dataset: Any prepared dataset.
        limit: The number of images to examine, evenly spread over the dataset, or None for all.
        decode: Whether to decode these images, which finds damaged files. Otherwise, only the headers of the
            files are read for datasets of `mrcnn.formats`.

    Returns:
        A dict of images, images_looked_at, image_heights, image_widths, instances, instances_per_image,
        instance_heights, instance_widths, instance_areas (each the quantiles 0, 25, 50, 75 and 100%, in
        pixels or numbers), images_without_instances, crowds, classes (number of objects by class name),
        problems (number of entries by kind), warnings (texts) and figure, a matplotlib figure that is not
        shown (a notebook shows it).

    Raises:
        ValueError: If the dataset has no images.
    """
    count = len(dataset.image_ids)
    if count == 0:
        raise InvalidDataError("The dataset has no images. Add images, then call prepare().")
    looked_at = np.unique(np.linspace(0, count - 1, min(count, limit or count)).astype(int))
    noted = dataset.problems if isinstance(dataset, FormatDataset) else problems.Problems()
    found = _Findings()
    for image_id in looked_at:
        try:
            if decode and isinstance(dataset, FormatDataset):
                dataset.load_image(int(image_id))
            _look(dataset, int(image_id), found)
        except Exception as error:  # a user's dataset may raise any error, and the next image may be fine
            kind = error.kind if isinstance(error, BrokenEntryError) else problems.UNREADABLE_IMAGE
            noted.add(kind, f"image id {image_id}, {dataset.image_reference(int(image_id))}: {error}")
    numbers = _summary(dataset, found, count)
    numbers["problems"] = noted.counts
    numbers["warnings"] = [*noted.lines(), *_advice(numbers)]
    print(_text(numbers))
    numbers["figure"] = _plot(found, numbers["classes"])
    return numbers


def _look(dataset: Dataset, image_id: int, found: _Findings) -> None:
    """Add the size and the objects of one image."""
    if isinstance(dataset, FormatDataset):
        size = dataset.image_size(image_id)
        crops, class_ids = dataset.load_mask_crops(image_id)
        areas = [np.count_nonzero(crop) for crop in crops.crops]
        objects = list(zip(class_ids, crops.boxes, areas, strict=True))
    else:
        height, width = dataset.load_image(image_id).shape[:2]
        size = height, width
        masks, class_ids = dataset.load_mask(image_id)
        boxes = mask_geometry.extract_bboxes(masks)
        areas = np.count_nonzero(masks, axis=(0, 1))
        objects = list(zip(class_ids, boxes, areas, strict=True))
    found.sizes.append(size)
    found.counts.append(len(objects))
    for class_id, (y1, x1, y2, x2), area in objects:
        found.class_ids.append(int(class_id))
        found.sides.append((int(y2 - y1), int(x2 - x1)))
        found.areas.append(int(area))


def _summary(dataset: Dataset, found: _Findings, count: int) -> dict[str, Any]:
    by_class = Counter(abs(class_id) for class_id in found.class_ids)
    sizes, sides = (np.array(rows).reshape(-1, 2) for rows in (found.sizes, found.sides))
    classes: Counter[str] = Counter()  # classes of several sources may share a name
    for index, info in enumerate(dataset.class_info):
        if index:
            classes[info["name"]] += by_class[index]
    return {
        "images": count,
        "images_looked_at": len(found.sizes),
        "image_heights": _quantiles(sizes[:, 0]),
        "image_widths": _quantiles(sizes[:, 1]),
        "instances": len(found.class_ids),
        "instances_per_image": _quantiles(found.counts),
        "images_without_instances": found.counts.count(0),
        "crowds": sum(class_id < 0 for class_id in found.class_ids),
        "instance_heights": _quantiles(sides[:, 0]),
        "instance_widths": _quantiles(sides[:, 1]),
        "instance_areas": _quantiles(found.areas),
        "classes": dict(classes),
    }


def _quantiles(values: Sequence[float] | np.ndarray) -> list[float]:
    return [round(float(value), 1) for value in np.percentile(values, QUANTILES)] if len(values) else []


def _advice(numbers: Mapping[str, Any]) -> list[str]:
    """Return advice about things to check before training."""
    total = numbers["instances"]
    if total == 0:
        return ["none of the images examined has an object"]
    advice = []
    if numbers["crowds"] == total:
        advice.append(
            "all objects are crowds, so that there is nothing to train on: if they are single objects, read "
            "the COCO file with crowds_as_objects (--crowds-as-objects)"
        )
    absent = [name for name, objects in numbers["classes"].items() if objects == 0]
    rare = [name for name, objects in numbers["classes"].items() if 0 < objects < RARE_SHARE * total]
    if absent:
        advice.append(f"classes without an object: {', '.join(absent)}")
    if rare:
        advice.append(f"classes with less than {RARE_SHARE:.0%} of the objects: {', '.join(rare)}")
    if numbers["images_without_instances"]:
        advice.append(
            f"{numbers['images_without_instances']} images have no object: those that the annotations "
            "list as empty serve as background in training, and the others are left out (see "
            "TRAIN_ON_EMPTY_IMAGES)"
        )
    smallest = min(numbers["instance_heights"][1], numbers["instance_widths"][1])
    if smallest < SMALL_SIDE:
        advice.append(
            f"at least a quarter of the objects are no more than {smallest:.0f} pixels high or wide: "
            "enlarge images (IMAGE_MIN_SCALE, IMAGE_MIN_DIM) and use smaller RPN_ANCHOR_SCALES"
        )
    if numbers["instances_per_image"][-1] > DEFAULT_MAX_INSTANCES:
        advice.append(
            f"an image has up to {numbers['instances_per_image'][-1]:.0f} objects: consider larger "
            f"MAX_GT_INSTANCES and DETECTION_MAX_INSTANCES, which are {DEFAULT_MAX_INSTANCES} by default"
        )
    return advice


def _text(numbers: Mapping[str, Any]) -> str:
    looked_at, total = numbers["images_looked_at"], numbers["instances"]
    partly = "" if looked_at == numbers["images"] else f", {looked_at} of them examined"
    rows = ("image_heights", "image_widths", "instances_per_image", "instance_heights", "instance_widths")
    lines = [
        f"{numbers['images']} images{partly}; {total} objects, {numbers['crowds']} of them crowds",
        f"{'':22}" + "".join(f"{name:>9}" for name in ("least", "25%", "median", "75%", "most")),
    ]
    for name in (*rows, "instance_areas"):
        lines.append(f"{name.replace('_', ' '):22}" + "".join(f"{value:9g}" for value in numbers[name]))
    lines.append("classes:")
    for name, objects in numbers["classes"].items():
        lines.append(f"  {name:20}{objects:9d}{objects / max(total, 1):9.1%}")
    lines += [f"warning: {text}" for text in numbers["warnings"]]
    return "\n".join(lines)


def _plot(found: _Findings, classes: Mapping[str, int]) -> Figure:
    """Draw image sizes, objects per image, object sizes and classes, one panel each."""
    figure, axes = display.pyplot().subplots(2, 2, figsize=(12, 9), layout="constrained")
    (by_size, by_count), (by_side, by_class) = axes
    sizes, sides = (np.array(rows).reshape(-1, 2) for rows in (found.sizes, found.sides))
    by_size.scatter(sizes[:, 1], sizes[:, 0], alpha=0.4)
    by_size.set(title="Image sizes", xlabel="width (pixels)", ylabel="height (pixels)")
    by_size.set(xlim=(0, None), ylim=(0, None))
    most_objects = max([1, *found.counts])
    by_count.hist(
        found.counts, bins=np.arange(-0.5, most_objects + 1) if most_objects < MAX_BARS else MAX_BARS
    )
    by_count.set(title="Objects per image", xlabel="objects", ylabel="images")
    if len(sides):
        by_side.scatter(sides[:, 1], sides[:, 0], alpha=0.3, s=9)
        by_side.set_xscale("log", base=2)
        by_side.set_yscale("log", base=2)
        for axis in (by_side.xaxis, by_side.yaxis):
            axis.set_major_formatter("{x:g}")
    by_side.set(title="Object sizes", xlabel="width (pixels)", ylabel="height (pixels)")
    largest = sorted(classes.items(), key=lambda item: -item[1])[:MAX_BARS][::-1]
    by_class.barh([name for name, _ in largest], [objects for _, objects in largest])
    by_class.set(
        title="Objects per class" + (f", largest {MAX_BARS}" if len(classes) > MAX_BARS else ""),
        xlabel="objects",
    )
    return display.finish(figure, show=False)
