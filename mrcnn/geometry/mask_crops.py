"""Instance masks stored as crops: a box for each mask, and the pixels inside it.

Most pixels of masks [H, W, N] lie outside every object. Crops give the same resized masks, boxes and
mini-masks as whole masks, with a fraction of the work and memory.

Axes: H, W image; N instances.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mrcnn.geometry import images, masks, rle
from mrcnn.geometry.packed_crops import PackedCrops
from mrcnn.typing import Boxes, Masks


@dataclass(frozen=True)
class MaskCrops:
    """The masks of one image, cropped.

    Attributes:
        shape: (height, width) of the image.
        boxes: int32 [N, (y1, x1, y2, x2)] in pixels, y2 and x2 outside. Boxes of annotations are tight, and
            zero for an empty mask. The box of a detection is the one that the network refined.
        crops: For each box the bool pixels [y2 - y1, x2 - x1]: a tuple, or PackedCrops.
    """

    shape: tuple[int, int]
    boxes: Boxes
    crops: Sequence[np.ndarray]

    @classmethod
    def cut(cls, whole: Masks, boxes: Boxes | None = None) -> "MaskCrops":
        """Crop masks.

        Args:
            whole: bool [H, W, N].
            boxes: int [N, (y1, x1, y2, x2)], boxes that contain the masks. None computes tight boxes.
        """
        if boxes is None:
            boxes = masks.extract_bboxes(whole)
        crops = tuple(
            np.ascontiguousarray(whole[y1:y2, x1:x2, index]) for index, (y1, x1, y2, x2) in enumerate(boxes)
        )
        return cls((whole.shape[0], whole.shape[1]), boxes, crops)

    def select(self, rows: np.ndarray) -> "MaskCrops":
        """Return some of the masks.

        Args:
            rows: int indices.
        """
        crops = self.crops
        if isinstance(crops, PackedCrops):
            return MaskCrops(self.shape, self.boxes[rows], crops.select(rows))
        return MaskCrops(self.shape, self.boxes[rows], tuple(crops[row] for row in rows))

    def resize(
        self, scale: float, padding: images.Padding, crop: images.Crop | None = None
    ) -> tuple["MaskCrops", np.ndarray]:
        """Resize the masks as `images.resize_mask` does, and drop those that become empty.

        Args:
            scale: The scale that `images.resize_image` returned.
            padding: The padding that it returned.
            crop: The crop that it returned.

        Returns:
            The remaining masks, and bool [N], True for masks that remain.
        """
        rows, columns = images.mask_indices(self.shape, scale, padding, crop)
        resized = [self._resample(index, rows, columns) for index in range(len(self.crops))]
        is_left = np.array([piece is not None for piece in resized], dtype=bool)
        kept = [piece for piece in resized if piece is not None]
        boxes = np.array([box for box, _ in kept], dtype=np.int32).reshape(-1, 4)
        return MaskCrops((len(rows), len(columns)), boxes, tuple(crop for _, crop in kept)), is_left

    def _resample(
        self, index: int, rows: np.ndarray, columns: np.ndarray
    ) -> tuple[Sequence[int], np.ndarray] | None:
        """Return the box and pixels of a mask read at these rows and columns (-1 is outside), or None."""
        y1, x1, y2, x2 = self.boxes[index]
        inside_y = np.flatnonzero((rows >= y1) & (rows < y2))
        inside_x = np.flatnonzero((columns >= x1) & (columns < x2))
        if len(inside_y) == 0 or len(inside_x) == 0:
            return None
        crop = self.crops[index].take(rows[inside_y] - y1, axis=0).take(columns[inside_x] - x1, axis=1)
        occupied_y, occupied_x = np.flatnonzero(crop.any(axis=1)), np.flatnonzero(crop.any(axis=0))
        if len(occupied_y) == 0:
            return None
        top, bottom, left, right = occupied_y[0], occupied_y[-1], occupied_x[0], occupied_x[-1]
        box = (inside_y[top], inside_x[left], inside_y[bottom] + 1, inside_x[right] + 1)
        return box, crop[top : bottom + 1, left : right + 1]

    def whole(self) -> Masks:
        """Return the masks as bool [H, W, N].

        Masks follow each other in memory, and only the pixels inside boxes are written. Untouched pages of
        the array take no memory.
        """
        canvas = np.zeros((len(self.crops), *self.shape), dtype=bool)
        for mask, (y1, x1, y2, x2), crop in zip(canvas, self.boxes, self.crops, strict=True):
            mask[y1:y2, x1:x2] = crop
        return canvas.transpose(1, 2, 0)

    def run_lengths(self) -> list[rle.RunLengths]:
        """Return the COCO run lengths of the masks; see `rle.encode_crops`. No whole mask is built."""
        return rle.encode_crops(self.shape, self.boxes, self.crops)

    def mini(self, mini_shape: Sequence[int]) -> Masks:
        """Return mini-masks, bool [height, width, N], as `masks.minimize_mask` does. No crop may be empty."""
        mini_masks = np.zeros((*mini_shape, len(self.crops)), dtype=bool)
        for index, crop in enumerate(self.crops):
            mini_masks[..., index] = masks.resize_crop(crop, mini_shape)
        return mini_masks
