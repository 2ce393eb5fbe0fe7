"""The confusion matrix of instances, and precision, recall and F1 of each class.

Axes: K classes, without the background.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mrcnn.evaluation.ratios import f1_of_counts, ratio


@dataclass(frozen=True)
class ConfusionMatrix:
    """Counts of instances of each true class by detected class, at one score and one IoU.

    Attributes:
        class_names: Names of the K classes.
        counts: int [K + 1, K + 1]. Rows are true classes, columns detected classes. The last row counts
            detections that match no object, the last column objects that no detection matches.
        min_score: Detections with a lower score do not count.
        iou_threshold: The smallest mask IoU of a match.
    """

    class_names: tuple[str, ...]
    counts: NDArray[np.int64]
    min_score: float
    iou_threshold: float

    @property
    def precision(self) -> NDArray[np.float64]:
        """Correct detections of each class [K] divided by all its detections; NaN without any."""
        return ratio(self._true_positives, self.counts.sum(axis=0)[:-1])

    @property
    def recall(self) -> NDArray[np.float64]:
        """Correct detections of each class [K] divided by its objects; NaN without any."""
        return ratio(self._true_positives, self.counts.sum(axis=1)[:-1])

    @property
    def f1(self) -> NDArray[np.float64]:
        """F1, the harmonic mean of precision and recall, of each class [K]; NaN if both are NaN."""
        return f1_of_counts(self._true_positives, self.counts.sum(axis=0)[:-1], self.counts.sum(axis=1)[:-1])

    def normalized(self, over: Literal["true", "detected"] = "true") -> NDArray[np.float64]:
        """Return the counts as shares.

        Args:
            over: "true" divides each row by its sum, so the diagonal is the recall. "detected" divides each
                column, so the diagonal is the precision.

        Returns:
            float64 [K + 1, K + 1]; NaN in rows or columns without an entry.

        Raises:
            ValueError: If `over` is neither "true" nor "detected".
        """
        if over not in ("true", "detected"):
            raise ValueError(f'`over` must be "true" or "detected". Received: over={over!r}')
        return ratio(self.counts, self.counts.sum(axis=1 if over == "true" else 0, keepdims=True))

    @property
    def _true_positives(self) -> NDArray[np.int64]:
        return np.diagonal(self.counts)[:-1]
