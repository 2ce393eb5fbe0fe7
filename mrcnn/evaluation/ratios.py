"""Ratios of counts."""

import numpy as np
from numpy.typing import NDArray


def ratio(part: np.ndarray, whole: np.ndarray) -> NDArray[np.float64]:
    """Divide counts by counts of a shape that fits; NaN where the whole is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        shares: NDArray[np.float64] = np.where(whole > 0, part / whole, np.nan)
    return shares


def f1_of_counts(
    true_positives: np.ndarray, detections: np.ndarray, objects: np.ndarray
) -> NDArray[np.float64]:
    """Return the harmonic mean of precision and recall; NaN with neither detections nor objects.

    Args:
        true_positives: Detections that match an object, any shape.
        detections: All detections, of the same shape.
        objects: All objects, of the same shape.
    """
    return ratio(2 * true_positives, detections + objects)
