"""Scores of a segmentation into instances: AP(tau) = TP / (TP + FP + FN), and panoptic quality.

Unlike COCO's average precision they rank nothing: a detection counts or does not, by a smallest score. True
and detected instances are matched one to one by the IoU of their masks. Every pixel belongs to one instance,
as in the label images these scores are defined for: where masks overlap it goes to the best-scored. Of
instances that do not overlap at most one has an IoU above 0.5 with a given true one, so any matching is the
best; at 0.5 itself and below, the matching with the most pairs (of those, with the largest sum of IoU) is
taken, not the greedy one.

Sources: Schmidt et al. 2018, Cell Detection with Star-convex Polygons, section 3 (AP(tau); the 2018 Data
Science Bowl scores its mean over tau = 0.50, 0.55, ..., 0.95); Kirillov et al. 2019, Panoptic Segmentation,
section 4 (PQ).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrcnn.evaluation import coco
from mrcnn.geometry import masks

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
# Share of a detection inside crowd regions from which it is not counted as false (Kirillov et al., 4.2).
MOSTLY = 0.5


@dataclass(frozen=True)
class _Image:
    """What matching needs of an image and a class: overlaps [P, G], scores [P], crowd share [P]."""

    class_id: int
    overlaps: np.ndarray
    scores: np.ndarray
    in_crowd: np.ndarray


@dataclass(frozen=True)
class Counts:
    """True positives, false positives, false negatives, and the sum of IoU over the true positives."""

    hits: int
    false: int
    missed: int
    overlap: float

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.hits + other.hits,
            self.false + other.false,
            self.missed + other.missed,
            self.overlap + other.overlap,
        )

    @property
    def accuracy(self) -> float:
        """AP(tau): TP / (TP + FP + FN); NaN where there was nothing to find and nothing found."""
        return _ratio(self.hits, self.hits + self.false + self.missed)

    @property
    def precision(self) -> float:
        """TP / (TP + FP)."""
        return _ratio(self.hits, self.hits + self.false)

    @property
    def recall(self) -> float:
        """TP / (TP + FN)."""
        return _ratio(self.hits, self.hits + self.missed)

    @property
    def recognition(self) -> float:
        """RQ, the F1 score: TP / (TP + FP / 2 + FN / 2)."""
        return _ratio(self.hits, self.hits + (self.false + self.missed) / 2)

    @property
    def segmentation(self) -> float:
        """SQ: the mean IoU of the true positives."""
        return _ratio(self.overlap, self.hits)

    @property
    def quality(self) -> float:
        """PQ = SQ RQ: sum of IoU / (TP + FP / 2 + FN / 2)."""
        return _ratio(self.overlap, self.hits + (self.false + self.missed) / 2)


def match(overlaps: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """The one-to-one matching with the most pairs of at least this IoU, then the largest sum of it.

    overlaps: IoU [P, G]. Returns two index arrays, the matched rows and their columns.
    """
    from scipy.optimize import linear_sum_assignment  # 24 MB that detection does not need

    if not overlaps.size:
        return np.zeros(0, int), np.zeros(0, int)
    enough = overlaps >= threshold
    # All IoU together weigh less than one pair.
    gain = np.where(enough, 1 + overlaps / (2 * min(overlaps.shape)), 0)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    kept = enough[rows, columns]
    return rows[kept], columns[kept]


class InstanceMetrics:
    """Instances of a set of images, collected one by one, and their scores.

    class_names: class id (1 and more) to name. Of each image the overlaps are kept, so that the smallest
    score of a detection can be chosen afterwards.
    """

    def __init__(self, class_names: Mapping[int, str]) -> None:
        self.class_names = dict(class_names)
        self._images: list[list[_Image]] = []

    def add(self, annotations: Sequence[Mapping[str, Any]], found: Mapping[str, np.ndarray]) -> None:
        """Add an image.

        annotations: COCO annotations of the true objects, see `coco.annotations_of`;
        found: what `MaskRCNN.detect` returns. Detections mostly inside crowds of their class are not
        counted, unless they match an object.
        """
        from pycocotools import mask as run_lengths

        labels = masks.label_image(found["masks"], found["scores"])
        codes = coco.encode_labels(labels, len(found["scores"]))
        parts = []
        for class_id in self.class_names:
            rows = np.flatnonzero(np.asarray(found["class_ids"]) == class_id)
            here = [record for record in annotations if record["category_id"] == class_id]
            real = _codes([record for record in here if not record["iscrowd"]], labels.shape)
            crowd = _codes([record for record in here if record["iscrowd"]], labels.shape)
            detected = [codes[row] for row in rows]
            overlaps = np.zeros((len(rows), len(real)))
            in_crowd = np.zeros((len(rows), 1))
            if detected and real:
                overlaps = run_lengths.iou(detected, real, [0] * len(real))
            if detected and crowd:  # of a crowd: the share of the detection inside it
                in_crowd = run_lengths.iou(detected, [run_lengths.merge(crowd)], [1])
            parts.append(_Image(class_id, overlaps, np.asarray(found["scores"])[rows], in_crowd[:, 0]))
        self._images.append(parts)

    def counts(self, threshold: float, min_score: float = 0.5) -> list[dict[int, Counts]]:
        """Class id to counts, for each image, at an IoU threshold, of detections scored at least so."""
        return [
            {part.class_id: _count(part, threshold, min_score) for part in image} for image in self._images
        ]

    def results(
        self, min_score: float = 0.5, thresholds: Sequence[float] = THRESHOLDS, by_image: bool = False
    ) -> dict[str, list]:
        """All scores as columns of a table: a row over all classes, then one for each.

        min_score: detections of a lower score are left out. thresholds: the tau, IoU that a match needs.
        by_image: AP(tau) is computed for each image and averaged, without images that have neither objects
        nor detections; otherwise over the instances of all images together.

        Columns: class, tau_AP50 and so on for each tau, tau_AP (their mean), and at IoU 0.5 precision50,
        recall50, F1_50, PQ, SQ, RQ. Over all classes AP(tau), precision, recall and F1 count all instances
        alike; PQ, SQ and RQ are means over the classes that occur.
        """
        classes = list(self.class_names)
        table: dict[str, list] = {"class": ["all", *self.class_names.values()]}
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


def _codes(annotations: Sequence[Mapping[str, Any]], image_shape: Sequence[int]) -> list[coco.Record]:
    return [coco.as_run_lengths(record["segmentation"], image_shape) for record in annotations]


def _count(part: _Image, threshold: float, min_score: float) -> Counts:
    kept = part.scores >= min_score
    overlaps, in_crowd = part.overlaps[kept], part.in_crowd[kept]
    rows, columns = match(overlaps, threshold)
    unmatched = np.ones(len(overlaps), bool)
    unmatched[rows] = False
    false = np.count_nonzero(unmatched & (in_crowd <= MOSTLY))
    return Counts(len(rows), false, overlaps.shape[1] - len(rows), float(overlaps[rows, columns].sum()))


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
