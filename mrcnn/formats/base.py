"""What all annotation formats share: pictures the right way up, masks built late, broken entries named."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mrcnn.dataset import Dataset
from mrcnn.formats import files, outlines, problems
from mrcnn.geometry import masks as mask_geometry
from mrcnn.geometry.mask_crops import MaskCrops


@dataclasses.dataclass(frozen=True)
class Instance:
    """One object of an image, cropped.

    class_id: the dataset's own, negative for a crowd. box: (y1, x1, y2, x2) in pixels, y2 and x2 outside.
    mask: bool [y2 - y1, x2 - x1].
    """

    class_id: int
    box: tuple[int, int, int, int]
    mask: np.ndarray


@dataclasses.dataclass(frozen=True)
class Outline:
    """One object as polygons in pixels, see `mrcnn.formats.outlines`, with the class id of its source."""

    class_id: Any
    parts: tuple[np.ndarray, ...]


class FormatDataset(Dataset):
    """Base class of the readers of annotation formats.

    A reader's `load` adds classes and images, and may be called for several files before prepare(). Only
    annotations and headers of image files are read then; pixels and masks when they are asked for.

    Pictures with an EXIF orientation are turned as viewers show them, which is what annotation tools showed,
    too. Where the annotations state a size (or are masks) that fits only the stored rows and columns, these
    are kept. `problems` counts and names the entries that are broken or were changed.

    image_info has, besides id, source and path: `member`, the name inside a zip archive or None; `size`, the
    (height, width) that annotations refer to; `orientation`, the EXIF orientation to follow, 1 for none.
    """

    def __init__(self, class_map: Any = None) -> None:
        super().__init__(class_map)
        self.problems = problems.Problems()

    def image_reference(self, image_id: int) -> str:
        """The image's file, with its name in an archive."""
        return _name(self.image_info[image_id])

    def image_size(self, image_id: int) -> tuple[int, int]:
        """(height, width) of the image, without decoding it.

        Raises ValueError if its file has another size than the annotations state.
        """
        self._orientation(image_id)
        return self.image_info[image_id]["size"]

    def open_image(self, image_id: int) -> str | os.PathLike | BinaryIO:
        """The image's file; from an archive, its bytes."""
        return self._open(self.image_info[image_id])

    def load_image(self, image_id: int) -> np.ndarray:
        """The picture as RGB, [height, width, 3], turned as the class says, in the file's own dtype.

        Raises OSError and ValueError as `Dataset.load_image`, and ValueError for another size than stated.
        """
        return files.turned(super().load_image(image_id), self._orientation(image_id))

    def load_instances(self, image_id: int) -> Iterator[Instance]:
        """The image's objects one by one, each mask cropped to its box; to be overridden.

        Saves memory where images are large and objects many.
        """
        raise NotImplementedError(f"{type(self).__name__} has to override load_instances.")

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Masks bool [height, width, N] and class ids int32 [N], negative for crowds."""
        crops, class_ids = self._instances(image_id)
        return crops.whole(), class_ids

    def load_mask_crops(self, image_id: int) -> tuple[MaskCrops, np.ndarray]:
        """Masks as crops and class ids int32 [N], negative for crowds; training takes them from here.

        Of a subclass that overrides load_mask, what that returns.
        """
        if type(self).load_mask is not FormatDataset.load_mask:
            masks, class_ids = self.load_mask(image_id)
            return MaskCrops.cut(masks), class_ids
        return self._instances(image_id)

    def _instances(self, image_id: int) -> tuple[MaskCrops, np.ndarray]:
        instances = list(self.load_instances(image_id))
        self.problems.warn(changed=False)
        boxes = np.array([one.box for one in instances], dtype=np.int32).reshape(-1, 4)
        crops = MaskCrops(self.image_size(image_id), boxes, tuple(one.mask for one in instances))
        return crops, np.array([one.class_id for one in instances], dtype=np.int32)

    def _add_picture(
        self,
        source: str,
        image_id: Any,
        path: str | os.PathLike,
        member: str | None = None,
        size: tuple[int, int] | None = None,
        **facts: Any,
    ) -> dict[str, Any] | None:
        """Add an image whose file exists; its record, or None if it is missing or unreadable.

        size: (height, width) if annotations state it; the header is then compared when the image is used.
        Without it the header is read now.
        """
        info = {"path": path, "member": member, "size": size, **facts}
        if member is None and not Path(path).is_file():
            self.problems.add(problems.MISSING_IMAGE, _name(info))
            return None
        if size is None:
            try:
                header = self._read_header(info)
            except OSError as error:
                self.problems.add(problems.UNREADABLE_IMAGE, str(error))
                return None
            info.update(size=header.shown_size, orientation=header.orientation)
            if header.orientation > 1:
                self.problems.add(problems.TURNED, _name(info))
        self.add_image(source, image_id, **info)
        return self.image_info[-1]

    def _orientation(self, image_id: int) -> int:
        """EXIF orientation to follow, decided at the first use by the size that annotations state."""
        info = self.image_info[image_id]
        if "orientation" not in info:
            header = self._read_header(info)
            fits = self._fitting_orientation(header, info)
            if fits is None:
                raise ValueError(
                    f"{_name(info)} of image id {image_id} has (height, width) {header.shown_size}. Its "
                    f"annotations state {info['size']}; was the file resized after they were made?"
                )
            info["orientation"] = fits
        return info["orientation"]

    def _fitting_orientation(self, header: files.Header, info: dict[str, Any]) -> int | None:
        """The orientation that brings a picture to info's size; None if there is none."""
        if header.orientation > 1 and header.shown_size == info["size"]:
            self.problems.add(problems.TURNED, _name(info))
            return header.orientation
        if header.orientation > 1 and header.stored_size == info["size"]:
            self.problems.add(problems.NOT_TURNED, _name(info))
        return 1 if header.stored_size == info["size"] else None

    def _open(self, info: dict[str, Any]) -> str | os.PathLike | BinaryIO:
        return files.open_member(info["path"], info["member"]) if info["member"] else info["path"]

    def _read_header(self, info: dict[str, Any]) -> files.Header:
        try:
            header = files.read_header(self._open(info))
        except OSError as error:
            raise OSError(f"Cannot read {_name(info)}: {error}") from error
        if ";16" in header.mode:
            self.problems.add(problems.SIXTEEN_BIT, _name(info))
        if "A" in header.mode and header.mode != "LAB":
            self.problems.add(problems.ALPHA, _name(info))
        return header

    def _finish(self, described: str, before: int) -> None:
        """Warn of what is broken. Raises ValueError if there are still only the `before` images."""
        self.problems.warn()
        if len(self.image_info) == before:
            lines = "".join(f"\n  {line}" for line in self.problems.lines())
            raise ValueError(f"{described} gives no image to use.{lines}")


class OutlineDataset(FormatDataset):
    """Base class of formats that describe objects by polygons: image_info has `outlines`."""

    def load_instances(self, image_id: int) -> Iterator[Instance]:
        """The objects that have a pixel inside the image, one by one, each cropped to its box."""
        info, size = self.image_info[image_id], self.image_size(image_id)
        for outline in info["outlines"]:
            drawn = outlines.draw(outline.parts, size)
            if drawn is not None:
                class_id = self.map_source_class_id(f"{info['source']}.{outline.class_id}")
                yield from cropped(drawn[0], class_id, drawn[1])

    def _checked(self, outline: Outline, size: tuple[int, int], where: str) -> bool:
        """Whether an outline has an inside; names what is wrong with it."""
        if any(len(points) < 3 for points in outline.parts):
            self.problems.add(problems.NO_OUTLINE, where)
            return False
        if not sum(map(outlines.area, outline.parts)) > 0:  # also where a number is NaN
            self.problems.add(problems.NO_AREA, where)
            return False
        if outlines.reaches_outside(outline.parts, size):
            self.problems.add(problems.OUTSIDE, where)
        return True


def cropped(mask: np.ndarray, class_id: int, origin: tuple[int, int] = (0, 0)) -> Iterator[Instance]:
    """The object of a mask cropped to its box: one Instance, or none if the mask is empty.

    mask: bool [h, w]; origin: (row, column) of its first pixel in the image.
    """
    y1, x1, y2, x2 = (int(value) for value in mask_geometry.extract_bboxes(mask[:, :, np.newaxis])[0])
    if y2 > y1:
        box = (origin[0] + y1, origin[1] + x1, origin[0] + y2, origin[1] + x2)
        yield Instance(class_id, box, mask[y1:y2, x1:x2])


def chosen_classes(classes: Sequence[str] | None, found: Sequence[str]) -> list[str]:
    """The names of classes in the order of their ids: those given, else those found, sorted.

    Raises ValueError if there is none.
    """
    names = sorted(set(found)) if classes is None else list(classes)
    if isinstance(classes, str) or not names:
        raise ValueError(f"classes must be a list of at least one name. Received: classes={classes!r}")
    return names


def _name(info: dict[str, Any]) -> str:
    return f"{info['path']}/{info['member']}" if info["member"] else str(info["path"])
