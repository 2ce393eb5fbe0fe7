"""A folder of images beside a folder of label images, also inside a zip archive."""

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL.Image
import scipy
import tifffile

from mrcnn.formats import files, problems
from mrcnn.formats.base import FormatDataset, Instance, chosen_classes

MANY_VALUES = 2**16 - 1  # label images with larger values, of 32 bits, are renumbered first


class LabelImageDataset(FormatDataset):
    """Pictures with label images of the same name: pixels of value 0 are background, of value k object k.

    Label images have one channel of 8, 16 or 32 bits, or a palette, whose numbers count. Values may have
    gaps. image_info has `labels`, the file's place below `root`.
    """

    def load(
        self,
        root: str | os.PathLike,
        images: str = "images",
        labels: str = "labels",
        classes: Sequence[str] = ("object",),
        class_divisor: int | None = None,
        only: Collection[str] | None = None,
        source: str = "labels",
    ) -> None:
        """Add the images of a folder or a zip file.

        images, labels: folders below `root`; files of one name, whatever their endings, belong together.
        classes: one name for all objects, or several with class_divisor. class_divisor: class ids are values
        divided by it, as with Cityscapes, where 26003 and divisor 1000 mean object 3 of class 26; ids count
        from 1. only: names of images to take, without ending; all by default. source: name of this source
        of ids.

        Raises FileNotFoundError for missing folders; ValueError for classes that cannot be told apart and if
        no image can be used. Single broken entries are left out, see `problems`.
        """
        names = chosen_classes(classes, [])
        if len(names) > 1 and class_divisor is None:
            raise ValueError(
                f"Values of label images number objects; with {len(names)} classes a class_divisor has to "
                f"say how they name classes, too. Received: classes={names}, class_divisor=None"
            )
        for class_id, name in enumerate(names, start=1):
            self.add_class(source, class_id, name)
        pictures = files.images_in(root, images)
        masks = files.images_in(root, labels)
        self._report_missing(only, pictures, Path(root) / images)
        before = len(self.image_info)
        for name, picture in pictures.items():
            if only is None or name in only:
                self._add(Path(root), name, picture, masks.get(name), class_divisor, source)
        self._finish(str(root), before)

    def is_listed_as_empty(self, image_id: int) -> bool:
        """Whether the image has a label image, and no pixel of it belongs to an object."""
        info = self.image_info[image_id]
        if "is_empty" not in info:
            try:
                info["is_empty"] = (
                    info["labels"] is not None and not read_labels(info["root"], info["labels"]).any()
                )
            except OSError:  # load_mask will raise it
                return False
        return info["is_empty"]

    def load_instances(self, image_id: int) -> Iterator[Instance]:
        """The objects one by one, in the order of their values, each cropped to its box."""
        info, size = self.image_info[image_id], self.image_size(image_id)
        if info["labels"] is None:
            return
        labels: np.ndarray = read_labels(info["root"], info["labels"])
        values: np.ndarray = np.arange(MANY_VALUES + 1)
        if labels.max() > MANY_VALUES:
            values, numbers = np.unique(labels, return_inverse=True)
            labels = numbers.reshape(size) + int(values[0] != 0)
            values = np.union1d(0, values)
        for number, place in enumerate(scipy.ndimage.find_objects(labels), start=1):
            if place is None:  # a gap
                continue
            value = int(values[number])
            class_id = value // info["class_divisor"] if info["class_divisor"] else 1
            key = f"{info['source']}.{class_id}"
            if key not in self.class_from_source_map:
                self.problems.add(problems.UNKNOWN_CLASS, f"{info['labels']}: value {value}")
                continue
            rows, columns = place
            box = (rows.start, columns.start, rows.stop, columns.stop)
            yield Instance(self.class_from_source_map[key], box, labels[place] == number)

    def _report_missing(self, only: Collection[str] | None, pictures: dict[str, str], folder: Path) -> None:
        for name in only or ():
            if name not in pictures:
                self.problems.add(problems.MISSING_IMAGE, str(folder / name))

    def _add(
        self, root: Path, name: str, picture: str, labels: str | None, divisor: int | None, source: str
    ) -> None:
        """Add one image if its label image can be read and has its size."""
        size = None
        if labels is None:
            self.problems.add(problems.MISSING_LABELS, str(root / picture))
        else:
            try:
                size = _labels_size(root, labels)
            except (OSError, ValueError) as error:
                self.problems.add(problems.BROKEN_MASK, f"{root / labels}: {error}")
                return
        facts = {"root": root, "labels": labels, "class_divisor": divisor}
        path, member = (root / picture, None) if root.is_dir() else (root, picture)
        info = self._add_picture(source, name, path, member, size, **facts)
        if info is None:
            return
        try:
            self._orientation(len(self.image_info) - 1)
        except (OSError, ValueError) as error:
            kind = problems.MASK_SIZE if isinstance(error, ValueError) else problems.UNREADABLE_IMAGE
            self.problems.add(kind, str(error))
            self.image_info.pop()


def read_labels(root: str | os.PathLike, name: str) -> np.ndarray:
    """A label image, integers [h, w]; palette images give the numbers of their colours.

    root: folder or zip file, name: below it. Raises OSError naming the file if it cannot be decoded.
    """
    file = _file(Path(root), name)
    try:
        if Path(name).suffix.lower() in (".tif", ".tiff"):  # which may have 64 bits
            labels = tifffile.imread(file)
        else:
            with PIL.Image.open(file) as picture:
                labels = np.asarray(picture)
    except Exception as error:  # decoders raise many kinds
        raise OSError(f"Cannot read {root}/{name}: {error}") from error
    return labels.astype(np.uint8) if labels.dtype == bool else labels


def _labels_size(root: Path, name: str) -> tuple[int, int]:
    """(height, width) of a label image, from its header; ValueError if it has several channels."""
    header = files.read_header(_file(root, name))
    if header.mode.partition(";")[0] not in ("1", "L", "P", "I"):
        raise ValueError(f"a label image has one channel of whole numbers. Received: mode {header.mode}")
    return header.stored_size


def _file(root: Path, name: str) -> Path | BinaryIO:
    return root / name if root.is_dir() else files.open_member(root, name)
