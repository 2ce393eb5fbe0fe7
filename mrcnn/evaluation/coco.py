"""Average precision and recall of boxes and masks as COCO measures them, collected image by image.

pycocotools, the reference implementation, computes the numbers. Only run lengths of each image are kept, a
few hundred bytes per instance, and no masks.

Axes: H, W image; N instances; T IoU thresholds; R recall levels; K classes.
Source: https://cocodataset.org/#detection-eval
"""

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrcnn import files
from mrcnn.errors import InvalidDataError
from mrcnn.geometry import masks, rle
from mrcnn.typing import Masks

# Our name of what is compared -> that of pycocotools.
IOU_TYPES = {"box": "bbox", "mask": "segm"}
# Sizes of objects by area in pixels: below 32^2, up to 96^2, above.
SIZES = ("all", "small", "medium", "large")

Record = dict[str, Any]


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision-recall curves of each class, at several IoU thresholds.

    Attributes:
        class_names: Names of the K classes.
        iou_thresholds: float [T]: 0.50, 0.55, ..., 0.95.
        recall: float [R], the levels 0.00, 0.01, ..., 1.00.
        precision: float [T, R, K]. As COCO and Pascal VOC define it, the precision at a recall is the best
            one at this or any higher recall. It is 0 if the recall is not reached, and NaN for a class
            without objects.
        scores: float [T, R, K], the score of the detection that reaches the recall; NaN if none does.
    """

    class_names: tuple[str, ...]
    iou_thresholds: NDArray[np.float64]
    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    scores: NDArray[np.float64]

    def at(self, iou_threshold: float) -> NDArray[np.float64]:
        """Return the precision [R, K] at one of `iou_thresholds`.

        Raises:
            ValueError: If `iou_threshold` is not one of them.
        """
        precision: NDArray[np.float64] = self.precision[self._index(iou_threshold)]
        return precision

    def best_f1(self, iou_threshold: float = 0.5) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the best F1 of each class along its curve, and the score that reaches it.

        The scores are candidates for DETECTION_MIN_CONFIDENCE or `min_score`.

        Args:
            iou_threshold: One of `iou_thresholds`.

        Returns:
            F1 [K] and scores [K]; NaN for a class without objects or without a correct detection.

        Raises:
            ValueError: If `iou_threshold` is not one of them.
        """
        precision, scores = self.at(iou_threshold), self.scores[self._index(iou_threshold)]
        recall = self.recall[:, np.newaxis]
        with np.errstate(divide="ignore", invalid="ignore"):
            f1 = np.where(np.isnan(scores), np.nan, 2 * precision * recall / (precision + recall))
        best = np.argmax(np.nan_to_num(f1, nan=-1.0), axis=0)
        columns = np.arange(len(self.class_names))
        f1, scores = f1[best, columns], scores[best, columns]
        return f1, np.where(np.isnan(f1), np.nan, scores)

    def _index(self, iou_threshold: float) -> int:
        matches = np.flatnonzero(np.isclose(self.iou_thresholds, iou_threshold))
        if len(matches) == 0:
            known = [round(float(value), 2) for value in self.iou_thresholds]
            raise ValueError(f"`iou_threshold` must be one of {known}. Received: {iou_threshold=}")
        return int(matches[0])


def annotations_of(instance_masks: Masks, class_ids: Sequence[int] | np.ndarray) -> list[Record]:
    """Return COCO annotations of the ground truth of an image.

    Args:
        instance_masks: bool [H, W, N].
        class_ids: int [N], negative for a crowd of that class.

    Returns:
        N dicts of category_id, iscrowd, bbox [x, y, width, height] and area in pixels, and segmentation. Box
        and area are those of the mask.
    """
    instance_masks = np.asarray(instance_masks)
    tight = masks.extract_bboxes(instance_masks)
    areas = np.count_nonzero(instance_masks, axis=(0, 1))
    return [
        {
            "category_id": abs(int(class_id)),
            "iscrowd": int(class_id < 0),
            "bbox": _box_record(box),
            "area": float(area),
            "segmentation": code,
        }
        for class_id, box, area, code in zip(
            class_ids, tight, areas, rle.encode_masks(instance_masks), strict=True
        )
    ]


def detections_of(detections: Mapping[str, Any]) -> list[Record]:
    """Return COCO results of one image.

    Args:
        detections: A dict of rois, class_ids, scores and masks bool [H, W, N], as `MaskRCNN.detect` returns
            it.

    Returns:
        N dicts of category_id, score, bbox [x, y, width, height] in pixels, and segmentation.

    Raises:
        ValueError: If one of these entries is missing.
    """
    missing = [name for name in ("class_ids", "scores", "rois", "masks") if name not in detections]
    if missing:
        raise ValueError(
            "`detect` must return dicts of rois, class_ids, scores and masks. Received one without "
            f"{missing}."
        )
    rows = zip(
        detections["class_ids"],
        detections["scores"],
        detections["rois"],
        rle.encode_masks(detections["masks"]),
        strict=True,
    )
    return [
        {
            "category_id": int(class_id),
            "score": float(score),
            "bbox": _box_record(box),
            "segmentation": code,
        }
        for class_id, score, box, code in rows
    ]


def checked_annotation(annotation: Mapping[str, Any], image_shape: Sequence[int]) -> Record:
    """Return a COCO annotation with its segmentation as compressed run lengths.

    Args:
        annotation: A dict of category_id, iscrowd, bbox, area and segmentation of any form; other keys are
            ignored.
        image_shape: (height, width, ...) of the image.

    Raises:
        InvalidDataError: If a field is missing or wrong; the error names it.
    """
    box, area = annotation.get("bbox"), annotation.get("area")
    is_box = isinstance(box, (list, tuple)) and len(box) == 4 and all(map(_is_finite, box))
    for name, is_right, requirement in (
        ("category_id", isinstance(annotation.get("category_id"), (int, np.integer)), "an integer"),
        ("iscrowd", annotation.get("iscrowd") in (0, 1), "0 or 1"),
        ("bbox", is_box, "[x, y, width, height]"),
        ("area", _is_finite(area), "a number"),
    ):
        if not is_right:
            raise InvalidDataError(
                f"`{name}` of an annotation must be {requirement}. Received: {annotation.get(name)!r:.60}",
                field=name,
            )
    return {
        "category_id": int(annotation["category_id"]),
        "iscrowd": int(annotation["iscrowd"]),
        "bbox": list(annotation["bbox"]),
        "area": float(annotation["area"]),
        "segmentation": rle.from_segmentation(annotation.get("segmentation"), image_shape),
    }


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and bool(np.isfinite(float(value)))


def _box_record(box: np.ndarray) -> list[float]:
    y1, x1, y2, x2 = (float(side) for side in box)
    return [x1, y1, x2 - x1, y2 - y1]


class CocoMetrics:
    """COCO's metrics of a set of images, which are added one by one.

    Args:
        class_names: Class id (from 1) to name.
        iou_types: "box", "mask" or both.
        max_detections: Three increasing numbers: how many of the best detections per image and class count.
            COCO's are 1, 10, 100. AP, and recall by size, use the last.

    Raises:
        ValueError: If `iou_types` or `max_detections` is not valid.
    """

    def __init__(
        self,
        class_names: Mapping[int, str],
        iou_types: Sequence[str] = ("box", "mask"),
        max_detections: Sequence[int] = (1, 10, 100),
    ) -> None:
        unknown = [name for name in iou_types if name not in IOU_TYPES]
        if unknown or not iou_types:
            raise ValueError(
                f"`iou_types` must be one or more of {tuple(IOU_TYPES)}. Received: iou_types={iou_types}"
            )
        if len(max_detections) != 3 or list(max_detections) != sorted(set(max_detections)):
            raise ValueError(
                "`max_detections` must be three increasing numbers. Received: "
                f"max_detections={max_detections}"
            )
        self.class_names = dict(class_names)
        self.iou_types = tuple(iou_types)
        self.max_detections = [int(number) for number in max_detections]
        self._images: dict[Any, Record] = {}
        self._truth: list[Record] = []
        self._detections: list[Record] = []
        self._evaluations: dict[str, Any] = {}

    def add(
        self,
        image_id: Any,
        image_shape: Sequence[int],
        annotations: Sequence[Mapping[str, Any]],
        detections: Sequence[Mapping[str, Any]],
    ) -> None:
        """Add an image.

        Args:
            image_id: A number or string. All ids must have the same type and be distinct.
            image_shape: (height, width, ...) of the image.
            annotations: The ground truth from `annotations_of` or a COCO file, with segmentations of any
                form.
            detections: The result of `detections_of`.

        Raises:
            ValueError: If the image was added before, or an annotation is broken.
        """
        if image_id in self._images:
            raise ValueError(
                f"Each image must be added only once. Received a second time: image_id={image_id!r}"
            )
        height, width = (int(side) for side in image_shape[:2])
        checked = [checked_annotation(annotation, (height, width)) for annotation in annotations]
        name = str(image_id)  # readers of annotation files want one
        self._images[image_id] = {"id": image_id, "file_name": name, "height": height, "width": width}
        for annotation in checked:
            number = len(self._truth) + 1  # pycocotools uses 0 for "not matched"
            self._truth.append({**annotation, "id": number, "image_id": image_id})
        self._detections += [{"image_id": image_id, **detection} for detection in detections]
        self._evaluations.clear()

    def results(self) -> dict[str, list[Any]]:
        """Return all metrics as columns of a table, for instance for `pandas.DataFrame`.

        The first row, class "all", is the mean over the classes, followed by one row per class. A value is
        NaN if there is no object to find.

        Returns:
            Columns: class, images and objects (images with an object of the class; crowds do not count), and
            with the prefixes "box_" and "mask_": AP (the mean over IoU 0.50, 0.55, ..., 0.95), AP50, AP75,
            AP_small, AP_medium, AP_large, AR1, AR10, AR100 (or the other `max_detections`), AR_small,
            AR_medium, AR_large.
        """
        table: dict[str, list[Any]] = {"class": ["all", *self.class_names.values()]}
        objects = [record for record in self._truth if not record["iscrowd"]]
        by_class = [[r for r in objects if r["category_id"] == number] for number in self.class_names]
        table["images"] = [len(self._images), *(len({r["image_id"] for r in rows}) for rows in by_class)]
        table["objects"] = [len(rows) for rows in [objects, *by_class]]
        for name in self.iou_types:
            metrics = self._measure(IOU_TYPES[name])
            table |= {f"{name}_{metric}": values for metric, values in metrics.items()}
        return table

    def precision_recall(self, iou_type: str | None = None) -> PrecisionRecall:
        """Return the precision-recall curves of each class.

        Args:
            iou_type: "box" or "mask", one of `iou_types`; by default the last of them.

        Raises:
            ValueError: If `iou_type` is not one of `iou_types`.
        """
        iou_type = self.iou_types[-1] if iou_type is None else iou_type
        if iou_type not in self.iou_types:
            raise ValueError(f"`iou_type` must be one of {self.iou_types}. Received: iou_type={iou_type!r}")
        evaluation = self._evaluate(IOU_TYPES[iou_type])
        order = self._class_order(evaluation)
        precision = evaluation.eval["precision"][..., 0, -1][..., order]
        scores = evaluation.eval["scores"][..., 0, -1][..., order]
        is_measured, is_reached = precision > -1, precision > 0
        return PrecisionRecall(
            tuple(self.class_names.values()),
            np.round(evaluation.params.iouThrs, 2),
            np.asarray(evaluation.params.recThrs),
            np.where(is_measured, precision, np.nan),
            np.where(is_reached, scores, np.nan),
        )

    def write_truth(self, path: str | os.PathLike[str]) -> None:
        """Write the ground truth as a COCO annotation file, atomically. Image ids serve as file names."""
        files.write_json(path, self._dataset())

    def _dataset(self) -> Record:
        categories = [{"id": number, "name": name} for number, name in self.class_names.items()]
        return {"images": list(self._images.values()), "annotations": self._truth, "categories": categories}

    def _evaluate(self, iou_type: str) -> Any:
        """Return pycocotools' evaluation of all images so far."""
        from pycocotools.cocoeval import COCOeval

        if iou_type not in self._evaluations:
            truth, detections = self._loaded(iou_type)
            with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
                evaluation = COCOeval(truth, detections, iou_type)
                evaluation.params.maxDets = self.max_detections
                evaluation.params.catIds = list(self.class_names)
                evaluation.evaluate()
                evaluation.accumulate()
            self._evaluations[iou_type] = evaluation
        return self._evaluations[iou_type]

    def _class_order(self, evaluation: Any) -> list[int]:
        """Return the indices of our classes in the arrays of pycocotools, which sorts category ids."""
        index_of = {number: index for index, number in enumerate(evaluation.params.catIds)}
        return [index_of[number] for number in self.class_names]

    def _measure(self, iou_type: str) -> dict[str, list[float]]:
        """Return the values of each metric: over all classes, then class by class."""
        evaluation = self._evaluate(iou_type)
        precision = evaluation.eval["precision"]  # [T, R, K, size, max detections]
        recall = evaluation.eval["recall"]  # [T, K, size, max detections]
        at = {round(float(iou), 2): index for index, iou in enumerate(evaluation.params.iouThrs)}
        parts = {
            "AP": precision[..., 0, -1],
            "AP50": precision[at[0.5], ..., 0, -1],
            "AP75": precision[at[0.75], ..., 0, -1],
            **{f"AP_{size}": precision[..., index, -1] for index, size in enumerate(SIZES) if index},
            **{f"AR{limit}": recall[..., 0, index] for index, limit in enumerate(self.max_detections)},
            **{f"AR_{size}": recall[..., index, -1] for index, size in enumerate(SIZES) if index},
        }
        order = self._class_order(evaluation)
        return {name: [_mean(part), *(_mean(part[..., k]) for k in order)] for name, part in parts.items()}

    def _loaded(self, iou_type: str) -> tuple[Any, Any]:
        from pycocotools.coco import COCO

        with contextlib.redirect_stdout(io.StringIO()):
            truth, detections = COCO(), COCO()
            # pycocotools writes into its input.
            truth.dataset = {**self._dataset(), "annotations": [dict(record) for record in self._truth]}
            truth.createIndex()
            # The area of a detection is that of its box if it has one, else that of its mask.
            other = "segmentation" if iou_type == "bbox" else "bbox"
            rows = [{k: v for k, v in record.items() if k != other} for record in self._detections]
            if rows:
                detections = truth.loadRes(rows)
            else:  # loadRes fails for an empty list
                detections.dataset = {**self._dataset(), "annotations": []}
                detections.createIndex()
        return truth, detections


def _mean(values: np.ndarray) -> float:
    """Return the mean of the measured values; pycocotools marks all others with -1."""
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else float("nan")
