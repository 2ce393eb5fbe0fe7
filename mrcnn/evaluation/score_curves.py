"""Precision, recall and F1 of each class against the score threshold.

Axes: S scores; K classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrcnn.evaluation.ratios import f1_of_counts, ratio


@dataclass(frozen=True)
class ScoreCurves:
    """Counts of detections and objects at several score thresholds and one IoU.

    Attributes:
        class_names: Names of the K classes.
        scores: float [S], increasing score thresholds. Detections with a lower score do not count.
        true_positives: int [S, K], detections that match an object.
        false_positives: int [S, K], detections that match none.
        false_negatives: int [S, K], objects that no detection matches.
        iou_threshold: The smallest mask IoU of a match.
    """

    class_names: tuple[str, ...]
    scores: NDArray[np.float64]
    true_positives: NDArray[np.int64]
    false_positives: NDArray[np.int64]
    false_negatives: NDArray[np.int64]
    iou_threshold: float

    @property
    def precision(self) -> NDArray[np.float64]:
        """True positives divided by all detections, [S, K]; NaN without a detection."""
        return ratio(self.true_positives, self._detections)

    @property
    def recall(self) -> NDArray[np.float64]:
        """True positives divided by all objects, [S, K]; NaN without an object."""
        return ratio(self.true_positives, self._objects)

    @property
    def f1(self) -> NDArray[np.float64]:
        """The harmonic mean of precision and recall, [S, K]; NaN with neither detection nor object."""
        return f1_of_counts(self.true_positives, self._detections, self._objects)

    @property
    def f1_of_all(self) -> NDArray[np.float64]:
        """F1 of the counts of all classes together, [S]."""
        counts = (self.true_positives, self._detections, self._objects)
        return f1_of_counts(*(part.sum(axis=1) for part in counts))

    def best_score(self) -> float:
        """Return the score threshold with the best F1 of all classes together, the lowest one in a tie.

        Consider it for DETECTION_MIN_CONFIDENCE or `min_score`. It is NaN without objects and detections.
        """
        f1 = self.f1_of_all
        if np.isnan(f1).all():
            return float("nan")
        return float(self.scores[np.nanargmax(f1)])

    @property
    def _detections(self) -> NDArray[np.int64]:
        return self.true_positives + self.false_positives

    @property
    def _objects(self) -> NDArray[np.int64]:
        return self.true_positives + self.false_negatives
