"""A detector measured on a dataset: one pass over its images, of which nothing but run lengths is kept."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from mrcnn.evaluation import coco
from mrcnn.evaluation.instances import InstanceMetrics

Detections = dict[str, np.ndarray]
Detect = Callable[[list[np.ndarray]], list[Detections]]

# What the printed tables show of all columns.
SHOWN = (
    *(
        [f"{kind}_{name}" for name in ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")]
        for kind in ("box", "mask")
    ),
    ["tau_AP", *(f"tau_AP{tau}" for tau in range(50, 100, 10)), "precision50", "recall50", "PQ", "SQ", "RQ"],
)


def evaluate(
    detect: Detect,
    dataset: Any,
    image_ids: Sequence[int] | None = None,
    batch_size: int = 1,
    iou_types: Sequence[str] = ("box", "mask"),
    max_detections: Sequence[int] = (1, 10, 100),
    results_path: str | os.PathLike | None = None,
    min_score: float | None = None,
    verbose: int = 1,
) -> dict[str, list]:
    """Detect the objects of a dataset's images and measure them as COCO does.

    detect: from a list of images to a list of dicts of rois, class_ids, scores and masks, as
    `MaskRCNN.detect`. dataset: a prepared Dataset. Its `load_mask` gives the truth, crowds with negative
    class ids; a dataset with a method `coco_annotations(image_id)` that returns COCO annotations with its
    own class ids as category_id is asked for these instead. image_ids: all if None. batch_size: images
    given to detect at a time. iou_types, max_detections: see `coco.CocoMetrics`. results_path: a file for
    the detections in COCO's form, with the ids of images and classes of the dataset's source. min_score:
    with a number AP(tau) and PQ are measured, too, of the detections scored at least so, see
    `instances.InstanceMetrics`. verbose: 1 shows progress and prints tables.

    Returns `coco.CocoMetrics.results()`: columns of a table, the first row over all classes; with min_score
    those of `InstanceMetrics.results()` follow.
    Raises ValueError without images, and what loading and detecting raise.
    """
    everything = {"all": dataset.image_ids if image_ids is None else image_ids}
    return evaluate_groups(
        detect,
        dataset,
        everything,
        batch_size=batch_size,
        iou_types=iou_types,
        max_detections=max_detections,
        results_path=results_path,
        min_score=min_score,
        verbose=verbose,
    )["all"]


def evaluate_groups(
    detect: Detect,
    dataset: Any,
    groups: Mapping[str, Sequence[int]],
    batch_size: int = 1,
    iou_types: Sequence[str] = ("box", "mask"),
    max_detections: Sequence[int] = (1, 10, 100),
    results_path: str | os.PathLike | None = None,
    min_score: float | None = None,
    verbose: int = 1,
) -> dict[str, dict[str, list]]:
    """As `evaluate`, for several groups of images, such as all and each kind, in one pass.

    groups: name to image ids; they may overlap, each image is detected once.
    Returns the results of each group by its name.
    """
    members = {name: {int(image_id) for image_id in ids} for name, ids in groups.items()}
    image_ids = sorted(set().union(*members.values()))
    if not all(members.values()) or not image_ids:
        raise ValueError(f"There is nothing to evaluate: no images. Received: {dict(groups)}")
    names, classes = source_ids(dataset, image_ids), source_classes(dataset)
    class_names = {classes[number]: dataset.class_names[number] for number in classes}
    ranked = {group: coco.CocoMetrics(class_names, iou_types, max_detections) for group in groups}
    matched = {group: InstanceMetrics(class_names) for group in groups if min_score is not None}
    written: list[coco.Record] = []
    for image_id, image, found in detected(detect, dataset, image_ids, batch_size, verbose):
        class_ids = np.array([classes[int(number)] for number in found["class_ids"]], int)
        found = {**found, "class_ids": class_ids}
        truth, detections = true_annotations(dataset, image_id), coco.detections_of(found)
        for record in truth:
            record["category_id"] = classes[record["category_id"]]
        for group in groups:
            if image_id in members[group]:
                ranked[group].add(names[image_id], image.shape, truth, detections)
                if group in matched:
                    matched[group].add(truth, found)
        written += [{"image_id": names[image_id], **record} for record in detections]
    if results_path is not None:
        coco.write_json(results_path, written)
    results = {group: metrics.results() for group, metrics in ranked.items()}
    for group, instances in matched.items():
        results[group] |= instances.results(0.0 if min_score is None else min_score)
    if verbose:
        for group, table in results.items():
            print_results(table, "" if len(results) == 1 else group)
    return results


def detected(
    detect: Detect, dataset: Any, image_ids: Sequence[int], batch_size: int = 1, verbose: int = 1
) -> Iterator[tuple[int, np.ndarray, Detections]]:
    """Image id, image and detections, one after the other; `batch_size` images are held at a time."""
    with tqdm(total=len(image_ids), desc="Evaluating", unit="image", disable=not verbose) as progress:
        for start in range(0, len(image_ids), batch_size):
            some = image_ids[start : start + batch_size]
            images = [dataset.load_image(image_id) for image_id in some]
            yield from zip(some, images, detect(images), strict=True)
            progress.update(len(some))


def true_annotations(dataset: Any, image_id: int) -> list[coco.Record]:
    """COCO annotations of an image's true objects, with the dataset's class ids."""
    if hasattr(dataset, "coco_annotations"):
        return [dict(record) for record in dataset.coco_annotations(image_id)]
    masks, class_ids = dataset.load_mask(image_id)
    return coco.annotations_of(masks, class_ids) if len(class_ids) else []


def source_ids(dataset: Any, image_ids: Sequence[int]) -> dict[int, Any]:
    """The id of each image in its source, where these are distinct numbers or texts; else the dataset's."""
    named = [dataset.image_info[image_id]["id"] for image_id in image_ids]
    for kind in (int, str):
        if all(isinstance(name, kind) for name in named) and len(set(named)) == len(named):
            return dict(zip(image_ids, named, strict=True))
    return {image_id: image_id for image_id in image_ids}


def source_classes(dataset: Any) -> dict[int, int]:
    """The id of each class in its source, where these are distinct numbers; else the dataset's."""
    numbers = range(1, dataset.num_classes)
    named = [dataset.class_info[number]["id"] for number in numbers]
    distinct = all(isinstance(name, int) for name in named) and len(set(named)) == len(named)
    return dict(zip(numbers, named if distinct else numbers, strict=True))


def print_results(results: dict[str, list], title: str = "") -> None:
    """Print the columns of SHOWN that there are: for boxes, masks and instances a table each.

    Classes without a true object, of which nothing can be measured, have no row.
    """
    if title:
        print(f"\n{title}")
    rows = [row for row, count in enumerate(results["objects"]) if count or row == 0]
    results = {name: [values[row] for row in rows] for name, values in results.items()}
    for names in SHOWN:
        there = [name for name in names if name in results]
        if there:
            print(as_text(results, ["class", "objects", *there]))


def as_text(results: dict[str, list], columns: Sequence[str]) -> str:
    """Some columns of results as aligned text, numbers with three digits."""
    rows = [list(columns)]
    for values in zip(*(results[name] for name in columns), strict=True):
        rows.append([f"{value:.3f}" if isinstance(value, float) else str(value) for value in values])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )
