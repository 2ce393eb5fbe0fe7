"""Evaluate a detector on a dataset in one pass over its images, keeping only run lengths."""

import contextlib
import os
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from tqdm import tqdm

from mrcnn import files
from mrcnn.errors import CappedWarning, DataError, InvalidDataError, LeftOutWarning
from mrcnn.evaluation import coco
from mrcnn.evaluation.class_names import with_class_ids_of
from mrcnn.evaluation.confusion import ConfusionMatrix
from mrcnn.evaluation.instances import InstanceMetrics
from mrcnn.evaluation.score_curves import ScoreCurves
from mrcnn.threads import in_order
from mrcnn.typing import Image

if TYPE_CHECKING:
    from mrcnn.dataset import Dataset

# One image: rois [N, 4], class_ids [N], scores [N] and masks [H, W, N], as `MaskRCNN.detect` returns them.
Detections: TypeAlias = Mapping[str, Any]
Detect: TypeAlias = Callable[[list[Image]], Sequence[Detections]]

# One image: its id, its shape, its ground truth, and what was found in it.
_Evaluated: TypeAlias = tuple[int, tuple[int, ...], list[coco.Record], Detections]

# How many of the images that cannot be read a warning names.
NAMED_IMAGES = 3

# The columns of each printed table.
PRINTED = (
    *(
        [f"{kind}_{name}" for name in ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")]
        for kind in ("box", "mask")
    ),
    ["tau_AP", *(f"tau_AP{tau}" for tau in range(50, 100, 10)), "precision50", "recall50", "F1_50"],
    ["PQ", "SQ", "RQ"],
)


class Results(dict[str, list[Any]]):
    """The columns of a table of metrics, as for pandas.DataFrame. The first row is for all classes.

    Attributes:
        precision_recall: Precision-recall curves of each class, by "box" and "mask".
        confusion_matrix: Counts of objects by true and detected class, for detections with at least
            `min_score`; None if `min_score` was not given.
        score_curves: Precision, recall and F1 of each class at every score threshold, at IoU 0.5; None if
            `min_score` was not given.

    `mrcnn.visualize` draws them: `plot_precision_recall_curves`, `plot_confusion_matrix` and `plot_f1`.
    """

    precision_recall: dict[str, coco.PrecisionRecall]
    confusion_matrix: ConfusionMatrix | None
    score_curves: ScoreCurves | None

    def __init__(self, table: Mapping[str, list[Any]] | None = None) -> None:
        super().__init__(table or {})
        self.precision_recall = {}
        self.confusion_matrix = None
        self.score_curves = None


def evaluate(
    detect: Detect,
    dataset: "Dataset",
    image_ids: Sequence[int] | None = None,
    batch_size: int = 1,
    iou_types: Sequence[str] = ("box", "mask"),
    max_detections: Sequence[int] = (1, 10, 100),
    results_path: str | os.PathLike[str] | None = None,
    min_score: float | None = None,
    verbose: int = 1,
    *,
    max_instances: int | None = None,
) -> Results:
    """Detect the objects in the images of a dataset and compute COCO's metrics.

    The ground truth comes from `load_mask`, where negative class ids are crowds. If the dataset has a method
    `coco_annotations(image_id)`, which returns COCO annotations with the dataset's class ids as category_id,
    this is called instead. Images that cannot be read, or whose annotations cannot, are left out.

    Args:
        detect: A function from a list of images to a list of dicts of rois, class_ids, scores and masks, such
            as `MaskRCNN.detect`.
        dataset: A prepared Dataset.
        image_ids: The images to evaluate, by default all.
        batch_size: Number of images per call of `detect`.
        iou_types: "box", "mask" or both.
        max_detections: See `coco.CocoMetrics`.
        results_path: A file for the detections in the COCO results format, with the ids that images and
            classes have in their source.
        min_score: If given, also measure AP(tau), panoptic quality, precision, recall, F1 and the confusion
            matrix of the detections with score >= min_score.
        verbose: 1 to show progress and print tables.
        max_instances: The most detections that `detect` returns for an image, DETECTION_MAX_INSTANCES. A
            warning counts the images that have as many. None if there is no limit.

    Returns:
        The columns of `coco.CocoMetrics.results`, and with `min_score` those of `InstanceMetrics.results`.
        The curves and the confusion matrix are attributes.

    Raises:
        ValueError: If there are no images, an id is not that of an image, or none can be read.
        InvalidDataError: If the ground truth of an image has an unknown class.
        OSError: If `results_path` cannot be written.

    Warns:
        LeftOutWarning: If images are left out, with their number and the first names.
        CappedWarning: If images have `max_instances` detections, with their number.
    """
    groups = {"all": dataset.image_ids if image_ids is None else image_ids}
    return evaluate_groups(
        detect,
        dataset,
        groups,
        batch_size=batch_size,
        iou_types=iou_types,
        max_detections=max_detections,
        results_path=results_path,
        min_score=min_score,
        verbose=verbose,
        max_instances=max_instances,
    )["all"]


def evaluate_groups(
    detect: Detect,
    dataset: "Dataset",
    groups: Mapping[str, Sequence[int]],
    batch_size: int = 1,
    iou_types: Sequence[str] = ("box", "mask"),
    max_detections: Sequence[int] = (1, 10, 100),
    results_path: str | os.PathLike[str] | None = None,
    min_score: float | None = None,
    verbose: int = 1,
    *,
    max_instances: int | None = None,
) -> dict[str, Results]:
    """Evaluate several groups of images, such as day and night, in one pass.

    Images that cannot be read are left out of all groups, and a warning counts them.

    Args:
        detect: See `evaluate`.
        dataset: A prepared Dataset.
        groups: Name to image ids. Groups may overlap; each image is detected once.
        batch_size: See `evaluate`.
        iou_types: See `evaluate`.
        max_detections: See `evaluate`.
        results_path: See `evaluate`.
        min_score: See `evaluate`.
        verbose: See `evaluate`.
        max_instances: See `evaluate`.

    Returns:
        The results of each group by its name. Those of a group whose images cannot be read are NaN.

    Raises:
        ValueError: If a group has no images, an id is not that of an image, or no image can be read.
        InvalidDataError: If the ground truth of an image has an unknown class.
    """
    members = {name: {int(image_id) for image_id in ids} for name, ids in groups.items()}
    image_ids = sorted(set().union(*members.values()))
    _check_groups(members, len(dataset.image_info))
    names, classes = source_ids(dataset, image_ids), source_classes(dataset)
    whole_names = [info["name"] for info in dataset.class_info]  # `class_names` is cut at commas
    class_names = {classes[number]: whole_names[number] for number in classes}
    ranked = {group: coco.CocoMetrics(class_names, iou_types, max_detections) for group in groups}
    matched = {group: InstanceMetrics(class_names) for group in groups if min_score is not None}
    records: list[coco.Record] = []

    def score(item: _Evaluated) -> bool:
        """Add an image to the metrics. Return whether it is full."""
        image_id, shape, truth, found = item
        detections = with_class_ids_of(found, whole_names, classes)
        rows = coco.detections_of(detections)
        truth = _with_source_classes(truth, classes, image_id)
        for group in groups:
            if image_id in members[group]:
                ranked[group].add(names[image_id], shape, truth, rows)
                if group in matched:
                    matched[group].add(truth, detections)
        records.extend({"image_id": names[image_id], **row} for row in rows)
        return max_instances is not None and len(found["class_ids"]) >= max_instances

    unread: dict[int, Exception] = {}
    items = detected(detect, dataset, image_ids, batch_size, verbose, unread)
    with contextlib.closing(in_order(score, items, threads=1)) as scored:
        full = sum(scored)
    if unread:
        _warn_of_unread_images(dataset, unread, len(image_ids))
    if full:
        _warn_of_full_images(full, len(image_ids) - len(unread), max_instances)
    if results_path is not None:
        files.write_json(results_path, records)
    results = {group: _results(ranked[group], matched.get(group), min_score or 0.0) for group in groups}
    if verbose:
        for group, table in results.items():
            print_results(table, "" if len(results) == 1 else group)
    return results


def _check_groups(members: Mapping[str, Collection[int]], count: int) -> None:
    """Raise ValueError for an empty group, or for an id that is not that of one of `count` images."""
    if not members or not all(members.values()):
        sizes = {name: len(ids) for name, ids in members.items()}
        raise ValueError(
            f"Each group must have at least one image. Received: groups of {sizes} images. Load images "
            "into the dataset and call prepare(), or pass other image_ids."
        )
    outside = sorted({image_id for ids in members.values() for image_id in ids if not 0 <= image_id < count})
    if outside:
        raise ValueError(
            f"`image_ids` must be ids of the dataset, from 0 to {count - 1}, not the ids of its source. "
            f"Received: {outside[:NAMED_IMAGES]}. Take them from dataset.image_ids."
        )


def _with_source_classes(
    truth: Sequence[coco.Record], classes: Mapping[int, int], image_id: int
) -> list[coco.Record]:
    """Return annotations with the class ids of the source. Raises InvalidDataError for unknown ones."""
    unknown = sorted({record["category_id"] for record in truth} - set(classes))
    if unknown:
        raise InvalidDataError(
            f"Class ids of the ground truth must be from 1 to {len(classes)}; 0 is the background. Received: "
            f"{unknown}. Convert the ids of your annotations with map_source_class_id.",
            entry=f"image id {image_id}",
        )
    return [{**record, "category_id": classes[record["category_id"]]} for record in truth]


def _warn_of_unread_images(dataset: "Dataset", unread: Mapping[int, Exception], count: int) -> None:
    """Warn of images that cannot be read. Raises ValueError if there are no others."""
    first = min(unread)
    if len(unread) == count:
        raise ValueError(
            f"At least one image must be readable. Received: {count} images, none of which can be read. The "
            f"first error is: {unread[first]}"
        ) from unread[first]
    names = [dataset.image_reference(image_id) or f"image id {image_id}" for image_id in sorted(unread)]
    more = ", ..." if len(names) > NAMED_IMAGES else ""
    warnings.warn(
        f"{len(unread)} of {count} images cannot be read, and are left out of the metrics: "
        f"{', '.join(names[:NAMED_IMAGES])}{more}. The first error is: {unread[first]}",
        LeftOutWarning,
        stacklevel=4,
    )


def _warn_of_full_images(full: int, count: int, limit: int | None) -> None:
    warnings.warn(
        f"{full} of {count} images have DETECTION_MAX_INSTANCES={limit} detections, so objects with lower "
        "scores may be missing from these metrics. Raise this setting.",
        CappedWarning,
        stacklevel=4,
    )


def _results(ranked: coco.CocoMetrics, matched: InstanceMetrics | None, min_score: float) -> Results:
    results = Results(ranked.results())
    results.precision_recall = {name: ranked.precision_recall(name) for name in ranked.iou_types}
    if matched is not None:
        results.update(matched.results(min_score))
        results.confusion_matrix = matched.confusion_matrix(min_score)
        results.score_curves = matched.score_curves()
    return results


def detected(
    detect: Detect,
    dataset: "Dataset",
    image_ids: Sequence[int],
    batch_size: int = 1,
    verbose: int = 1,
    unread: dict[int, Exception] | None = None,
) -> Iterator[_Evaluated]:
    """Yield the id, the shape, the ground truth and the detections of each image.

    While `detect` runs, a thread reads the images and the ground truth of the next batch.

    Args:
        detect: See `evaluate`.
        dataset: A prepared Dataset.
        image_ids: The images.
        batch_size: Images per call of `detect`.
        verbose: 1 to show progress.
        unread: A dict that gets the error of each image that cannot be read. Such images are left out. None
            raises the first of these errors instead.
    """

    def read(image_id: int) -> tuple[int, Image, list[coco.Record]] | None:
        try:
            image = dataset.load_image(image_id)
            return image_id, image, true_annotations(dataset, image_id, image.shape)
        except (DataError, OSError) as error:
            if unread is None:
                raise
            unread[image_id] = error
            return None

    # Datasets need not allow several threads, so that one thread does all reading.
    reading = in_order(read, image_ids, threads=1, ahead=batch_size)
    with (
        tqdm(total=len(image_ids), desc="Evaluating", unit="image", disable=not verbose) as progress,
        contextlib.closing(reading),
    ):
        readable = (item for item in reading if item is not None)
        while batch := list(islice(readable, batch_size)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CappedWarning)  # evaluate_groups counts them
                results = detect([image for _, image, _ in batch])
            if len(results) != len(batch):
                raise ValueError(
                    f"`detect` must return one result for each image. Received: {len(results)} results for "
                    f"{len(batch)} images."
                )
            for (image_id, image, truth), found in zip(batch, results, strict=True):
                yield image_id, image.shape, truth, found
            progress.update(len(batch))
        progress.update(len(unread or ()))


def true_annotations(dataset: "Dataset", image_id: int, shape: Sequence[int]) -> list[coco.Record]:
    """Return COCO annotations of the ground truth of an image, with the dataset's class ids.

    Args:
        dataset: A prepared Dataset. Its `coco_annotations` are preferred to masks, unless a subclass
            overrides how masks are loaded.
        image_id: The image.
        shape: (height, width, ...) of the image.

    Raises:
        InvalidDataError: If an annotation or the masks do not fit; the error names the image.
    """
    try:
        if _has_own_annotations(dataset):
            return [coco.checked_annotation(record, shape) for record in dataset.coco_annotations(image_id)]
        masks, class_ids = dataset.load_mask(image_id)
        if len(class_ids) == 0:
            return []
        if masks.shape[:2] != tuple(shape[:2]):
            raise InvalidDataError(
                "load_mask must return masks of the height and width of the image. Received: masks.shape="
                f"{masks.shape} and image.shape={tuple(shape)}."
            )
        return coco.annotations_of(masks, class_ids)
    except InvalidDataError as error:
        if error.file or error.entry:
            raise
        raise InvalidDataError(str(error), field=error.field, entry=f"image id {image_id}") from error


def _has_own_annotations(dataset: "Dataset") -> bool:
    """Return whether the annotations of a dataset are of the same class as its masks, or of a subclass."""
    return hasattr(dataset, "coco_annotations") and _depth(dataset, "coco_annotations") <= min(
        _depth(dataset, name) for name in ("load_mask", "load_instances")
    )


def _depth(dataset: "Dataset", method: str) -> int:
    """Return how many classes above a dataset's own its method is defined."""
    parents = type(dataset).__mro__
    return next((depth for depth, parent in enumerate(parents) if method in vars(parent)), len(parents))


def source_ids(dataset: "Dataset", image_ids: Sequence[int]) -> dict[int, Any]:
    """Return each image's id in its source if these are distinct numbers or texts, else the dataset's."""
    named = [_as_int(dataset.image_info[image_id]["id"]) for image_id in image_ids]
    for kind in (int, str):
        if all(isinstance(name, kind) for name in named) and len(set(named)) == len(named):
            return dict(zip(image_ids, named, strict=True))
    return {image_id: image_id for image_id in image_ids}


def _as_int(name: Any) -> Any:
    """Return an integer of NumPy as one of Python, which JSON needs, and anything else as it is."""
    return int(name) if isinstance(name, np.integer) else name


def source_classes(dataset: "Dataset") -> dict[int, int]:
    """Return the id of each class in its source if these are distinct numbers, else the dataset's."""
    numbers = range(1, dataset.num_classes)
    named = [_as_int(dataset.class_info[number]["id"]) for number in numbers]
    is_distinct = all(isinstance(name, int) for name in named) and len(set(named)) == len(named)
    return dict(zip(numbers, named if is_distinct else numbers, strict=True))


def print_results(results: Mapping[str, list[Any]], title: str = "") -> None:
    """Print the metrics of boxes, masks and instances as tables.

    Classes without objects have no row, because nothing can be measured.

    Args:
        results: The columns of a table; see `evaluate`.
        title: A line above the tables.
    """
    if title:
        print(f"\n{title}")
    rows = [row for row, count in enumerate(results["objects"]) if count or row == 0]
    printed = {name: [values[row] for row in rows] for name, values in results.items()}
    for names in PRINTED:
        columns = [name for name in names if name in printed]
        if columns:
            print(as_text(printed, ["class", "objects", *columns]))


def as_text(results: Mapping[str, list[Any]], columns: Sequence[str]) -> str:
    """Return columns of a table as aligned text, numbers with three digits.

    Args:
        results: The columns of a table.
        columns: Names of the columns to print.
    """
    rows = [list(columns)]
    for values in zip(*(results[name] for name in columns), strict=True):
        rows.append([f"{value:.3f}" if isinstance(value, float) else str(value) for value in values])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )
