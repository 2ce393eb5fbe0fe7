"""Load an exported file, run it, and compare it with `MaskRCNN.detect`."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mrcnn import runtime
from mrcnn.errors import CappedWarning
from mrcnn.geometry.boxes import compute_overlaps
from mrcnn.results.detections import Detections
from mrcnn.runtime.inputs import original_size

if TYPE_CHECKING:
    from mrcnn.model import MaskRCNN


@dataclass(frozen=True)
class Tolerance:
    """How far results may differ.

    Attributes:
        iou, score: The least box IoU and the largest difference of scores of what counts as the same
            detection.
        share: Share of the detections that may differ. Rounding decides about some of them: scores next to
            the threshold, and boxes whose overlap is next to that of non-maximum suppression.
    """

    iou: float
    score: float
    share: float


# Tolerances by precision. Those of lower precisions only reveal files that compute something else; evaluate
# such files.
TOLERANCES = {
    "float32": Tolerance(0.9, 0.01, 0.1),
    "float16": Tolerance(0.8, 0.05, 0.2),
    "int8": Tolerance(0.5, 0.3, 0.5),
}


@dataclass(frozen=True)
class Difference:
    """The difference between two lists of detections.

    Attributes:
        expected, found: The numbers of detections.
        matched: Detections of the same class whose boxes and scores are the same within the tolerance.
        box: Largest difference of a coordinate among them, in pixels.
        score: Largest difference of a score among them.
        mask_iou: Smallest IoU of two masks among them; 1 if there are none.
    """

    expected: int
    found: int
    matched: int
    box: float
    score: float
    mask_iou: float

    def is_tolerable(self, tolerance: Tolerance) -> bool:
        """Return whether both lists are equal except for rounding."""
        largest = max(self.expected, self.found)
        return largest - self.matched <= max(1, tolerance.share * largest)


def compare(
    expected: Detections, found: Detections, tolerance: Tolerance = TOLERANCES["float32"]
) -> Difference:
    """Compare detections of one image, whose masks are MaskCrops."""
    overlaps = compute_overlaps(expected["rois"], found["rois"])
    same = expected["class_ids"][:, None] == found["class_ids"][None]
    near = np.abs(expected["scores"][:, None] - found["scores"][None]) <= tolerance.score
    overlaps = np.where(same & near, overlaps, 0.0)
    pairs = []
    for index in range(len(overlaps)):
        best = int(overlaps[index].argmax()) if overlaps.shape[1] else -1
        if best >= 0 and overlaps[index, best] >= tolerance.iou:
            pairs.append((index, best))
            overlaps[:, best] = 0.0
    box = [np.abs(expected["rois"][i] - found["rois"][j]).max() for i, j in pairs]
    score = [abs(float(expected["scores"][i] - found["scores"][j])) for i, j in pairs]
    whole = expected["masks"].whole(), found["masks"].whole()
    mask_iou = [_mask_iou(whole[0][..., i], whole[1][..., j]) for i, j in pairs]
    return Difference(
        expected=len(expected["rois"]),
        found=len(found["rois"]),
        matched=len(pairs),
        box=float(max(box, default=0.0)),
        score=max(score, default=0.0),
        mask_iou=min(mask_iou, default=1.0),
    )


def _mask_iou(mask: np.ndarray, other: np.ndarray) -> float:
    union = np.count_nonzero(mask | other)
    return np.count_nonzero(mask & other) / union if union else 1.0


def check_file(model: "MaskRCNN", path: Path, images: Sequence[np.ndarray] | None = None) -> Difference:
    """Compare a file with the model from which it was exported.

    Args:
        model: A model in inference mode.
        path: The exported file.
        images: Images to detect in, which fit the file; by default a synthetic one.

    Returns:
        The largest difference.

    Raises:
        RuntimeError: If the file does not load or run, or its detections differ.
    """
    try:
        runner = runtime.load(path)
        images = [sample_image(model, runner)] if images is None else list(images)
        found = _detect(runner, images)
    except ImportError:
        raise
    except Exception as error:
        raise RuntimeError(
            f"The exported file does not run: {error}. This is a bug in the exporter. Please report it "
            "together with the settings of the model."
        ) from error
    tolerance = TOLERANCES[runner.metadata.precision]
    expected = _detect(model, images)
    worst = Difference(0, 0, 0, 0.0, 0.0, 1.0)
    for one, other in zip(expected, found, strict=True):
        difference = compare(one, other, tolerance)
        if not difference.is_tolerable(tolerance):
            raise RuntimeError(
                "The results of the exported file differ from those of MaskRCNN.detect: "
                f"{difference.matched} of {difference.expected} detections are the same, and the file "
                f"finds {difference.found}. The file was deleted. Please report this together with the "
                "settings of the model."
            )
        if difference.expected - difference.matched >= worst.expected - worst.matched:
            worst = difference
    return worst


def _detect(model: "MaskRCNN | runtime.Runner", images: list[np.ndarray]) -> list[Detections]:
    """Detect without a warning about the number of detections, which does not matter here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CappedWarning)
        return model.detect(images, masks="cropped")


def sample_image(model: "MaskRCNN", runner: "runtime.Runner") -> np.ndarray:
    """Return a synthetic image that fits the file, uint8: blobs of random colors."""
    config = model.config
    size, side = runner.metadata.size, max(64, int(config.IMAGE_MIN_DIM or 256))
    height, width = (side, side) if size is None else original_size(size, config)
    rng = np.random.default_rng(0)
    image = np.full((height, width, config.IMAGE_CHANNEL_COUNT), 90, np.uint8)
    rows, columns = np.ogrid[:height, :width]
    for _ in range(12):
        radius = int(rng.integers(height // 24 + 1, height // 6 + 2))
        y, x = rng.integers(0, height), rng.integers(0, width)
        inside = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        image[inside] = rng.integers(0, 256, image.shape[2])
    return image
