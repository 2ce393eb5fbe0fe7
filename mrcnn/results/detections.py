"""The detections of one image: a dict of arrays with information about the image."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcnn.files.calibration import GeoReference, PixelSize
from mrcnn.geometry import rle
from mrcnn.geometry.mask_crops import MaskCrops
from mrcnn.typing import Box, Image, Masks

if TYPE_CHECKING:
    import pandas
    import supervision

# (y1, x1, y2, x2) in pixels; row y2 and column x2 are outside.


class Detections(dict[str, Any]):
    """The detections of one image, by descending score.

    It is a dict with four keys: `rois`, int32 [N, (y1, x1, y2, x2)] in pixels of the image; `class_ids`,
    int32 [N]; `scores`, float32 [N]; and `masks`, bool [height, width, N], a
    `mrcnn.geometry.mask_crops.MaskCrops`, or N COCO run lengths.

    Args:
        rois: Boxes int32 [N, 4].
        class_ids: int32 [N]. Negative ids mark crowds, which annotations may have.
        scores: float32 [N]; None for annotations, which have no scores and no key `scores`.
        masks: Masks in one of the three forms.
        shape: (height, width) of the image, by default that of the masks.
        class_names: Names by class id, background first; None if unknown.
        path: Path of the image file; None for an image in memory. Files in the formats "coco" and "labelme"
            name it.
        pixel_size: The size of a pixel; None if unknown.
        georeference: The place of the image on a map; None if it has none.

    Attributes:
        shape, class_names, path, pixel_size, georeference: The arguments. You can set them later.

    Raises:
        ValueError: If the arrays differ in length, or a necessary `shape` is missing.
    """

    def __init__(
        self,
        rois: np.ndarray,
        class_ids: np.ndarray,
        scores: np.ndarray | None,
        masks: Any,
        *,
        shape: Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
        path: str | os.PathLike[str] | None = None,
        pixel_size: PixelSize | None = None,
        georeference: GeoReference | None = None,
    ) -> None:
        super().__init__(rois=rois, class_ids=class_ids)
        if scores is not None:
            self["scores"] = scores
        self["masks"] = masks
        lengths = {name: _count(value) for name, value in self.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"All arrays must have one entry per object. Received: {lengths}")
        self.shape = _shape(masks) if shape is None else (int(shape[0]), int(shape[1]))
        self.class_names = None if class_names is None else tuple(class_names)
        self.path = path
        self.pixel_size = pixel_size
        self.georeference = georeference

    @classmethod
    def of(cls, found: Mapping[str, Any], shape: Sequence[int] | None = None) -> "Detections":
        """Return Detections unchanged, or make them from a dict with the same keys.

        Args:
            found: Detections, or a dict of rois, class_ids, scores and masks.
            shape: (height, width) of the image. Required if the masks do not determine it.
        """
        if isinstance(found, Detections):
            return found
        return cls(found["rois"], found["class_ids"], found.get("scores"), found["masks"], shape=shape)

    @property
    def count(self) -> int:
        """The number of objects."""
        return len(self["class_ids"])

    def name_of(self, class_id: int) -> str:
        """Return the name of a class, or "class 3" if it has none."""
        number = abs(int(class_id))
        names = self.class_names or ()
        return names[number] if number < len(names) else f"class {number}"

    def crops(self) -> Iterator[tuple[Box, Masks]]:
        """Yield the cropped mask of each object: a box (y1, x1, y2, x2) and bool [y2 - y1, x2 - x1].

        The box contains the whole mask. It may not be tight, and may differ from the box in `rois`. No whole
        mask is built.
        """
        masks = self["masks"]
        if isinstance(masks, MaskCrops):
            for box, crop in zip(masks.boxes, masks.crops, strict=True):
                yield _box(box), crop
        elif isinstance(masks, np.ndarray):
            for index in range(masks.shape[-1]):
                cut = MaskCrops.cut(masks[..., index : index + 1])
                yield _box(cut.boxes[0]), cut.crops[0]
        else:
            for code in masks:
                crop, x1 = rle.decode_columns(rle.counts_of(code, self.shape), self.shape)
                yield (0, x1, self.shape[0], x1 + crop.shape[1]), crop

    def mask_crops(self) -> MaskCrops:
        """Return the masks as MaskCrops."""
        if isinstance(self["masks"], MaskCrops):
            return self["masks"]
        found = list(self.crops())
        boxes = np.array([box for box, _ in found], dtype=np.int32).reshape(-1, 4)
        return MaskCrops(self.shape, boxes, tuple(crop for _, crop in found))

    def with_masks(self, masks: Any) -> "Detections":
        """Return these detections with other masks, or with the same masks in another form."""
        return Detections(self["rois"], self["class_ids"], self.get("scores"), masks, **self._facts())

    def select(self, rows: np.ndarray) -> "Detections":
        """Return some of the detections.

        Args:
            rows: bool [N] or int indices, such as `result["scores"] >= 0.7`.
        """
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(int)
        masks = self["masks"]
        if isinstance(masks, MaskCrops):
            masks = masks.select(rows)
        elif isinstance(masks, np.ndarray):
            masks = masks[..., rows]
        else:
            masks = [masks[row] for row in rows]
        scores = None if "scores" not in self else self["scores"][rows]
        return Detections(self["rois"][rows], self["class_ids"][rows], scores, masks, **self._facts())

    # --- Files and objects of other programs ---

    def save(
        self,
        path: str | os.PathLike[str],
        format: str | None = None,
        *,
        image: Image | None = None,
        tolerance: float | None = None,
    ) -> Path:
        """Write the objects to a file; see `mrcnn.results.saving.save`.

        Raises:
            ValueError: See there; or if the format is "coco" or "labelme" and `self.path` is None.
        """
        from mrcnn.results import saving

        saving.check_path(self, Path(path), format)
        return saving.save(self, path, format, image=image, tolerance=tolerance)

    def to_coco(self) -> dict[str, Any]:
        """Return a COCO file of this image: images, annotations and categories.

        The `file_name` of the image is "" if `self.path` is None.
        """
        from mrcnn.results.coco import CocoFile

        names = dict(enumerate(self.class_names or ()))
        names.pop(0, None)
        content = CocoFile(names)
        content.add(self, "" if self.path is None else Path(self.path).name)
        return content.content()

    def to_geojson(self, tolerance: float = 0.0) -> dict[str, Any]:
        """Return a GeoJSON FeatureCollection; see `mrcnn.results.geojson.content_of`."""
        from mrcnn.results.geojson import content_of

        return content_of(self, tolerance)

    def to_dataframe(self, image: Image | None = None) -> "pandas.DataFrame":
        """Return the measurements of the objects as a table; see `mrcnn.results.measurements.measure`.

        Args:
            image: The image, for mean intensities.

        Raises:
            ImportError: If the package pandas is missing.
        """
        from mrcnn.packages import require
        from mrcnn.results.measurements import measure

        return require("pandas", "Data frames need", extra="results").DataFrame(measure(self, image))

    def to_supervision(self) -> "supervision.Detections":
        """Return the detections as an object of the package supervision.

        Raises:
            ImportError: If the package supervision is missing.
        """
        from mrcnn.packages import require

        module = require("supervision", "supervision.Detections needs", extra="results")
        names = np.array([self.name_of(class_id) for class_id in self["class_ids"]], dtype=object)
        return module.Detections(
            xyxy=np.asarray(self["rois"], dtype=np.float32).reshape(-1, 4)[:, [1, 0, 3, 2]],
            mask=np.moveaxis(self.mask_crops().whole(), -1, 0),
            confidence=self.get("scores"),
            class_id=np.asarray(self["class_ids"], dtype=int),
            data={"class_name": names},
        )

    def _facts(self) -> dict[str, Any]:
        names = ("shape", "class_names", "path", "pixel_size", "georeference")
        return {name: getattr(self, name) for name in names}


def _count(value: Any) -> int:
    if isinstance(value, MaskCrops):
        return len(value.crops)
    return value.shape[-1] if isinstance(value, np.ndarray) and value.ndim == 3 else len(value)


def _shape(masks: Any) -> tuple[int, int]:
    if isinstance(masks, MaskCrops):
        height, width = masks.shape
    elif isinstance(masks, np.ndarray):
        height, width = masks.shape[:2]
    elif masks:
        height, width = masks[0]["size"]
    else:
        raise ValueError("`shape` is required when there are no run lengths. Received: shape=None")
    return int(height), int(width)


def _box(box: np.ndarray) -> Box:
    y1, x1, y2, x2 = (int(side) for side in box)
    return y1, x1, y2, x2
