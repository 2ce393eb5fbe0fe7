"""Instance masks as crops: each mask's box and the pixels inside it, instead of a whole image for each.

Most pixels of [H, W, instances] lie outside every object. Resizing, boxes and mini-masks of crops give the
same pixels as those of whole masks for a fraction of the work and memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mrcnn.geometry import images, masks


@dataclass(frozen=True)
class MaskCrops:
    """Masks of one image.

    shape: (height, width) of the image. boxes: int32 [N, (y1, x1, y2, x2)] in pixels, y2 and x2 outside;
    tight, and zeros for a mask without a pixel, where masks were cut; a detection's own box otherwise.
    crops: for each of them the bool pixels [y2 - y1, x2 - x1].
    """

    shape: tuple[int, int]
    boxes: np.ndarray
    crops: tuple[np.ndarray, ...]

    @classmethod
    def cut(cls, whole: np.ndarray, boxes: np.ndarray | None = None) -> "MaskCrops":
        """Of bool [H, W, N]. boxes: int [N, 4] that hold the masks; tight ones if None."""
        if boxes is None:
            boxes = masks.extract_bboxes(whole)
        crops = tuple(
            np.ascontiguousarray(whole[y1:y2, x1:x2, index]) for index, (y1, x1, y2, x2) in enumerate(boxes)
        )
        return cls((whole.shape[0], whole.shape[1]), boxes, crops)

    def resize(
        self, scale: float, padding: images.Padding, crop: images.Rectangle | None = None
    ) -> tuple["MaskCrops", np.ndarray]:
        """The masks resized as by `images.resize_mask`, those without a pixel left dropped.

        scale, padding, crop: results of `images.resize_image`. Returns the masks, and bool [N] of those
        that are left.
        """
        rows = images.mask_index(self.shape[0], scale, padding[0], crop and (crop[0], crop[2]))
        columns = images.mask_index(self.shape[1], scale, padding[1], crop and (crop[1], crop[3]))
        resized = [self._resample(index, rows, columns) for index in range(len(self.crops))]
        left = np.array([piece is not None for piece in resized], dtype=bool)
        kept = [piece for piece in resized if piece is not None]
        boxes = np.array([box for box, _ in kept], dtype=np.int32).reshape(-1, 4)
        return MaskCrops((len(rows), len(columns)), boxes, tuple(crop for _, crop in kept)), left

    def _resample(
        self, index: int, rows: np.ndarray, columns: np.ndarray
    ) -> tuple[Sequence[int], np.ndarray] | None:
        """Box and pixels of a mask read at source rows and columns (-1 outside); None if none are left."""
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

    def whole(self) -> np.ndarray:
        """The masks as bool [H, W, N].

        In memory one mask follows the other, so that only the boxes are written: empty pages of an image
        with many masks take no room.
        """
        canvas = np.zeros((len(self.crops), *self.shape), dtype=bool)
        for mask, (y1, x1, y2, x2), crop in zip(canvas, self.boxes, self.crops, strict=True):
            mask[y1:y2, x1:x2] = crop
        return canvas.transpose(1, 2, 0)

    def run_lengths(self) -> list[np.ndarray]:
        """The masks as numbers of pixels, alternating outside and inside, column by column (COCO's counts).

        Returns N int64 arrays, each beginning with the pixels before the mask. No whole mask is made.
        """
        height, width = self.shape
        counts = []
        for (y1, x1, _, _), crop in zip(self.boxes, self.crops, strict=True):
            columns = np.pad(crop.T, ((0, 0), (1, 1))).astype(np.int8)
            change = np.diff(columns, axis=1)
            starts, ends = (
                (x1 + column) * np.int64(height) + y1 + row
                for column, row in (np.nonzero(change == 1), np.nonzero(change == -1))
            )
            # A run to the bottom of a column and one from the top of the next are one: no edge between.
            edges = np.setxor1d(starts, ends, assume_unique=True)
            edges = np.concatenate([[0], edges, [height * width]])
            runs = np.diff(edges)
            counts.append(runs if runs[-1] else runs[:-1])
        return counts

    def mini(self, mini_shape: Sequence[int]) -> np.ndarray:
        """Each crop, none empty, at one small size, as by `masks.minimize_mask`: bool [height, width, N]."""
        mini_masks = np.zeros((*mini_shape, len(self.crops)), dtype=bool)
        for index, crop in enumerate(self.crops):
            mini_masks[..., index] = masks.resize_cut(crop, mini_shape)
        return mini_masks
