"""Metrics of instance segmentation at a score threshold: AP(tau), precision, recall, F1, panoptic quality.

Unlike COCO's average precision they do not rank detections: a detection counts if its score is high enough.
Objects and detections are matched one to one by the IoU of their masks. Every pixel belongs to at most one
detection, as in the label images for which these metrics are defined; if masks overlap, to the best one.
Since detections do not overlap, an object has an IoU above 0.5 with at most one of them, so the matching is
unique. At thresholds of 0.5 and below, the matching has the most pairs, and among those the largest sum of
IoU.

Axes: H, W image; G objects; P detections; K classes.
Sources: Schmidt et al. 2018, Cell Detection with Star-convex Polygons, section 3 (AP(tau); the 2018 Data
Science Bowl scores its mean over tau = 0.50, 0.55, ..., 0.95); Kirillov et al. 2019, Panoptic Segmentation,
section 4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrcnn.evaluation import coco
from mrcnn.evaluation.confusion import ConfusionMatrix
from mrcnn.evaluation.score_curves import ScoreCurves
from mrcnn.geometry import masks, rle

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
# A detection that lies in crowds by more than this share is not counted as false (Kirillov et al., 4.2).
CROWD_SHARE = 0.5


@dataclass(frozen=True)
class _Image:
    """The data of one image that matching needs.

    Attributes:
        overlaps: IoU [P, G].
        true_classes: Class ids [G].
        detected_classes: Class ids [P].
        scores: [P].
        is_in_crowd: bool [P], whether a detection lies mostly in crowds of its class.
    """

    overlaps: np.ndarray
    true_classes: np.ndarray
    detected_classes: np.ndarray
    scores: np.ndarray
    is_in_crowd: np.ndarray


@dataclass(frozen=True)
class Counts:
    """Numbers of matched and unmatched instances.

    Attributes:
        true_positives: Detections that match an object.
        false_positives: Detections that match none.
        false_negatives: Objects that no detection matches.
        overlap: Sum of the IoU of all true positives.
    """

    true_positives: int
    false_positives: int
    false_negatives: int
    overlap: float

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
            self.overlap + other.overlap,
        )

    @property
    def accuracy(self) -> float:
        """AP(tau): TP / (TP + FP + FN); NaN if there are neither objects nor detections."""
        return _ratio(self.true_positives, self.true_positives + self.false_positives + self.false_negatives)

    @property
    def precision(self) -> float:
        """TP / (TP + FP)."""
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """TP / (TP + FN)."""
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def recognition(self) -> float:
        """RQ, the F1 score: TP / (TP + FP / 2 + FN / 2)."""
        return _ratio(
            self.true_positives, self.true_positives + (self.false_positives + self.false_negatives) / 2
        )

    @property
    def segmentation(self) -> float:
        """SQ: the mean IoU of the true positives."""
        return _ratio(self.overlap, self.true_positives)

    @property
    def quality(self) -> float:
        """PQ = SQ RQ: sum of IoU / (TP + FP / 2 + FN / 2)."""
        return _ratio(self.overlap, self.true_positives + (self.false_positives + self.false_negatives) / 2)


def match(overlaps: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the one-to-one matching with the most pairs and, among those, the largest sum of IoU.

    Args:
        overlaps: IoU [P, G].
        threshold: The smallest IoU of a pair.

    Returns:
        Indices of the matched rows and of their columns.
    """
    from scipy.optimize import linear_sum_assignment  # takes long to load, and detection does not need it

    if not overlaps.size:
        return np.zeros(0, int), np.zeros(0, int)
    is_allowed = overlaps >= threshold
    # All IoU together weigh less than one pair.
    gain = np.where(is_allowed, 1 + overlaps / (2 * min(overlaps.shape)), 0)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    kept = is_allowed[rows, columns]
    return rows[kept], columns[kept]


class InstanceMetrics:
    """The metrics of a set of images, added one at a time.

    The overlaps of each image are kept, so the score threshold can be chosen afterwards.

    Args:
        class_names: Class id (from 1) to name.
    """

    def __init__(self, class_names: Mapping[int, str]) -> None:
        self.class_names = dict(class_names)
        self._images: list[_Image] = []

    def add(self, annotations: Sequence[Mapping[str, Any]], detections: Mapping[str, Any]) -> None:
        """Add an image.

        A detection that lies mostly in crowds of its class does not count, unless it matches an object.

        Args:
            annotations: COCO annotations of the ground truth; see `coco.annotations_of`.
            detections: A dict of rois, class_ids, scores and masks, as `MaskRCNN.detect` returns it.

        Raises:
            ValueError: If the segmentation of an annotation is broken.
        """
        from pycocotools import mask as run_lengths

        labels = masks.label_image(detections["masks"], detections["scores"])
        codes = rle.encode_labels(labels, len(detections["scores"]))
        class_ids = np.asarray(detections["class_ids"], dtype=int)
        objects = [record for record in annotations if record["category_id"] in self.class_names]
        real = [record for record in objects if not record["iscrowd"]]
        overlaps = np.zeros((len(codes), len(real)))
        if codes and real:
            overlaps = run_lengths.iou(codes, _codes(real, labels.shape), [0] * len(real))
        is_in_crowd = np.zeros(len(codes), dtype=bool)
        for class_id in self.class_names:
            rows = np.flatnonzero(class_ids == class_id)
            crowds = [record for record in objects if record["iscrowd"] and record["category_id"] == class_id]
            if len(rows) and crowds:
                crowd = run_lengths.merge(_codes(crowds, labels.shape))
                # For a crowd, pycocotools returns the share of the detection that lies in it.
                shares = run_lengths.iou([codes[row] for row in rows], [crowd], [1])
                is_in_crowd[rows] = shares[:, 0] > CROWD_SHARE
        true_classes = np.array([record["category_id"] for record in real], dtype=int)
        scores = np.asarray(detections["scores"])
        self._images.append(_Image(overlaps, true_classes, class_ids, scores, is_in_crowd))

    def counts(self, threshold: float, min_score: float = 0.5) -> list[dict[int, Counts]]:
        """Return the counts of each class, image by image.

        Args:
            threshold: The smallest IoU of a match.
            min_score: Detections with a lower score do not count.

        Returns:
            A dict of class id to counts for each image.
        """
        return [
            {class_id: _count(image, class_id, threshold, min_score) for class_id in self.class_names}
            for image in self._images
        ]

    def results(
        self, min_score: float = 0.5, thresholds: Sequence[float] = THRESHOLDS, by_image: bool = False
    ) -> dict[str, list[Any]]:
        """Return all metrics as columns of a table: a row over all classes, then one for each class.

        Args:
            min_score: Detections with a lower score do not count.
            thresholds: The IoU thresholds tau.
            by_image: Whether to compute AP(tau) for each image and average it, without images that have
                neither objects nor detections. Otherwise the instances of all images count together.

        Returns:
            Columns: class; tau_AP50 and so on for each tau; tau_AP, their mean; and at IoU 0.5 precision50,
            recall50, F1_50, PQ, SQ and RQ. In the first row, AP(tau), precision, recall and F1 count the
            instances of all classes together, while PQ, SQ and RQ are means over the classes that occur.
        """
        classes = list(self.class_names)
        table: dict[str, list[Any]] = {"class": ["all", *self.class_names.values()]}
        groups = [classes, *([class_id] for class_id in classes)]
        for threshold in thresholds:
            per_image = self.counts(threshold, min_score)
            table[f"tau_AP{round(100 * threshold)}"] = [_accuracy(per_image, g, by_image) for g in groups]
        columns = [table[f"tau_AP{round(100 * threshold)}"] for threshold in thresholds]
        table["tau_AP"] = [float(np.mean(values)) for values in zip(*columns, strict=True)]
        at_half = self.counts(0.5, min_score)
        totals = [_total(at_half, group) for group in groups]
        table["precision50"] = [total.precision for total in totals]
        table["recall50"] = [total.recall for total in totals]
        table["F1_50"] = [total.recognition for total in totals]
        for name, part in (("PQ", "quality"), ("SQ", "segmentation"), ("RQ", "recognition")):
            values = [getattr(total, part) for total in totals[1:]]
            table[name] = [_mean_of_known(values), *values]
        return table

    def confusion_matrix(self, min_score: float = 0.5, threshold: float = 0.5) -> ConfusionMatrix:
        """Return the counts of objects by true and detected class.

        Objects and detections of one class are matched first, so the diagonal agrees with precision, recall
        and F1 of `results`. The remaining ones are then matched across classes.

        Args:
            min_score: Detections with a lower score do not count.
            threshold: The smallest IoU of a match.
        """
        classes = list(self.class_names)
        # None stands for "no object" and "no detection"; a class id may be 0 in its source.
        index_of: dict[int | None, int] = {class_id: index for index, class_id in enumerate([*classes, None])}
        counts: np.ndarray = np.zeros((len(index_of), len(index_of)), dtype=np.int64)
        for image in self._images:
            for true_class, detected_class in _pairs(image, classes, threshold, min_score):
                counts[index_of[true_class], index_of[detected_class]] += 1
        return ConfusionMatrix(tuple(self.class_names.values()), counts, min_score, threshold)

    def score_curves(self, threshold: float = 0.5, scores: Sequence[float] | None = None) -> ScoreCurves:
        """Count true positives, false positives and false negatives of each class at score thresholds.

        Args:
            threshold: The smallest IoU of a match.
            scores: The thresholds, by default 0.00, 0.01, ..., 1.00.
        """
        limits = np.sort(np.asarray(np.linspace(0, 1, 101) if scores is None else scores, dtype=np.float64))
        counts = np.zeros((3, len(limits), len(self.class_names)), dtype=np.int64)
        for image in self._images:
            for column, class_id in enumerate(self.class_names):
                own = image.scores[image.detected_classes == class_id]
                if len(own) or np.any(image.true_classes == class_id):
                    counts[:, :, column] += _counts_at(image, class_id, threshold, own, limits)
        return ScoreCurves(
            tuple(self.class_names.values()),
            limits,
            true_positives=counts[0],
            false_positives=counts[1],
            false_negatives=counts[2],
            iou_threshold=threshold,
        )


def _codes(annotations: Sequence[Mapping[str, Any]], image_shape: Sequence[int]) -> list[coco.Record]:
    return [rle.from_segmentation(record["segmentation"], image_shape) for record in annotations]


def _count(image: _Image, class_id: int, threshold: float, min_score: float) -> Counts:
    kept = np.flatnonzero((image.scores >= min_score) & (image.detected_classes == class_id))
    objects = np.flatnonzero(image.true_classes == class_id)
    overlaps = image.overlaps[np.ix_(kept, objects)]
    rows, columns = match(overlaps, threshold)
    is_unmatched = np.ones(len(kept), bool)
    is_unmatched[rows] = False
    false_positives = int(np.count_nonzero(is_unmatched & ~image.is_in_crowd[kept]))
    return Counts(len(rows), false_positives, len(objects) - len(rows), float(overlaps[rows, columns].sum()))


def _counts_at(
    image: _Image, class_id: int, threshold: float, scores: np.ndarray, limits: np.ndarray
) -> np.ndarray:
    """Return true positives, false positives and false negatives of one class at score thresholds.

    Args:
        image: The image.
        class_id: The class.
        threshold: The smallest IoU of a match.
        scores: The scores of the detections of this class.
        limits: The score thresholds [S], rising.

    Returns:
        int64 [3, S].
    """
    columns: list[tuple[int, int, int]] = []
    kept_before = -1
    for limit in limits:
        kept = int(np.count_nonzero(scores >= float(limit)))  # as `_count` compares, in the scores' dtype
        if kept != kept_before:  # otherwise the same detections count
            counts = _count(image, class_id, threshold, float(limit))
        columns.append((counts.true_positives, counts.false_positives, counts.false_negatives))
        kept_before = kept
    return np.array(columns, dtype=np.int64).T


def _pairs(
    image: _Image, classes: Sequence[int], threshold: float, min_score: float
) -> list[tuple[int | None, int | None]]:
    """Return (true class, detected class) of every match, object and detection; None if there is none."""
    detections = np.flatnonzero((image.scores >= min_score) & np.isin(image.detected_classes, classes))
    objects = np.arange(len(image.true_classes))
    pairs: list[tuple[int | None, int | None]] = []
    for class_id in classes:
        own = detections[image.detected_classes[detections] == class_id]
        targets = objects[image.true_classes[objects] == class_id]
        rows, columns = match(image.overlaps[np.ix_(own, targets)], threshold)
        pairs += [(class_id, class_id)] * len(rows)
        detections = np.setdiff1d(detections, own[rows])
        objects = np.setdiff1d(objects, targets[columns])
    detections = detections[~image.is_in_crowd[detections]]
    rows, columns = match(image.overlaps[np.ix_(detections, objects)], threshold)
    for row, column in zip(detections[rows], objects[columns], strict=True):
        pairs.append((int(image.true_classes[column]), int(image.detected_classes[row])))
    pairs += [(None, int(image.detected_classes[row])) for row in np.delete(detections, rows)]
    pairs += [(int(image.true_classes[column]), None) for column in np.delete(objects, columns)]
    return pairs


def _total(per_image: Sequence[Mapping[int, Counts]], classes: Sequence[int]) -> Counts:
    return sum((image[class_id] for image in per_image for class_id in classes), Counts(0, 0, 0, 0.0))


def _accuracy(per_image: Sequence[Mapping[int, Counts]], classes: Sequence[int], by_image: bool) -> float:
    if not by_image:
        return _total(per_image, classes).accuracy
    return _mean_of_known([_total([image], classes).accuracy for image in per_image])


def _mean_of_known(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
