"""Folders of images and label images side by side, possibly in a zip archive."""

import io
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import scipy

from mrcnn.errors import DataError, InvalidDataError
from mrcnn.files import archives
from mrcnn.files.arguments import integers
from mrcnn.files.images import SUFFIXES, Header, read_header, read_labels, read_stack
from mrcnn.formats import cellpose, image_files, problems
from mrcnn.formats.base import FormatDataset, Instance
from mrcnn.formats.files import Record, Source, read_bytes
from mrcnn.formats.problems import BrokenEntryError

# Labels with larger values are renumbered first: `find_objects` makes a list as long as the largest value.
LARGEST_LABEL = 2**16 - 1
# The value that marks pixels without a label in data sets such as Pascal VOC.
USUAL_VOID = 255
# Of label images, and of the files of Cellpose.
LABEL_SUFFIXES = {*SUFFIXES, ".npy"}
# Modes of one channel of integers.
LABEL_MODES = ("1", "L", "P", "I")


class LabelImageDataset(FormatDataset):
    """Images with label images of the same name, in which 0 is the background and k is object k.

    Label images have one channel of 8-, 16- or 32-bit integers, or a palette, of which the indices are used.
    Values may have gaps, and negative values are background. If a `page` of a stack was chosen, its label
    image may be a stack of as many slices.

    `image_info` has `root`; `labels`, the path of the label image below it, or None; `class_divisor`; `void`;
    and `class_ids`, the ids of the classes of this folder in the source.
    """

    def load(
        self,
        root: Source,
        images: str = "images",
        labels: str = "labels",
        classes: Sequence[str] = ("object",),
        class_divisor: int | None = None,
        only: Collection[str] | None = None,
        source: str = "labels",
        *,
        void: Collection[int] = (),
    ) -> None:
        """Add the images of a folder or a zip file.

        Args:
            root: The folder or zip file.
            images: The folder of the images below `root`.
            labels: The folder of the label images below `root`. That of a.jpg is called a.jpg.png, or else
                a.png; any lossless suffix will do. Names such as a_masks.png, a_label.tif and those of
                Cellpose, a_cp_masks.png and a_seg.npy, fit, too. If this is also the folder of the images,
                all label images must be called so, and images without one are left out.
            classes: The class of all objects, or several classes with `class_divisor`.
            class_divisor: The class of an object is its value divided by this number, counted from 1. In
                Cityscapes, the value 26003 is object 3 of class 26, with a divisor of 1000.
            only: Names without suffix of the images or label images to load; all by default.
            source: Name of this source of ids. Classes of folders with the same source are merged by name.
            void: Values of pixels without a label, such as [255] in Pascal VOC. They count as background.

        Raises:
            MissingFileError: If `root` or one of the folders does not exist.
            UnreadableFileError: If the zip file or a folder cannot be read.
            InvalidDataError: If the classes cannot be distinguished, `void` is not a list of integers, or no
                image is usable. Single broken entries are left out instead; see `problems`.
        """
        void = sorted(set(integers("void", void)))
        names = self._class_names(classes, (), root)
        if len(names) > 1 and class_divisor is None:
            raise InvalidDataError(
                "`class_divisor` must be given if there is more than one class, because values encode the "
                f"class. Received: classes={names}, class_divisor=None",
                field="class_divisor",
            )
        if class_divisor is not None and class_divisor < 1:
            raise InvalidDataError(
                f"`class_divisor` must be 1 or more. Received: class_divisor={class_divisor}",
                field="class_divisor",
            )
        class_ids = self._join_classes(source, dict(enumerate(names, start=1)), root)
        root = Path(root)
        before = len(self.image_info)
        facts = {"class_divisor": class_divisor, "class_ids": class_ids, "void": tuple(void)}
        for name, (image, label_file) in self._matched(root, images, labels, only).items():
            self._add(root, name, image, label_file, source, facts)
        self._finish(root, before)

    def _matched(
        self, root: Path, images: str, labels: str, only: Collection[str] | None
    ) -> dict[str, tuple[str, str | None]]:
        """Return image and label file of each image by its name. Note what does not match."""
        files = label_files(root, labels)
        is_beside = PurePosixPath(images) == PurePosixPath(labels)
        if is_beside:
            paths, files = image_files.beside_images(files)
        else:
            paths = image_files.images_in(root, images)
        named, other_labels = image_files.by_image(files, paths)
        found, others, unused = image_files.match(paths, named)
        if is_beside:  # programs write more images there
            for image in [*others, *(image for name, image in found.items() if name not in named)]:
                self.problems.add(problems.NOT_ANNOTATED, str(root / image))
            found, others = {name: image for name, image in found.items() if name in named}, []
        for path in [*others, *other_labels]:
            self.problems.add(problems.SAME_NAME, str(root / path))
        for name in unused:
            self.problems.add(problems.MISSING_ANNOTATED, str(root / named[name]))
        own = {name: {name, image_files.stem(image)} for name, image in found.items()}
        known = {name for names in own.values() for name in names}
        for name in only or ():
            if name not in known:
                self.problems.add(problems.MISSING_IMAGE, str(root / images / name))
        for name in archives.outside_names(root) if root.is_file() else ():
            self.problems.add(problems.OUTSIDE_FOLDER, f"{root}/{name}")
        return {
            name: (image, named.get(name))
            for name, image in found.items()
            if only is None or own[name].intersection(only)
        }

    def is_listed_as_empty(self, image_id: int) -> bool:
        """Return whether the image has a label image without objects."""
        info = self.image_info[image_id]
        if "is_empty" not in info:
            try:
                info["is_empty"] = info["labels"] is not None and not self._read_labels(info).any()
            except DataError:  # load_mask raises it
                return False
        return bool(info["is_empty"])

    def load_instances(self, image_id: int) -> Iterator[Instance]:
        """Yield the objects in the order of their values, each mask cropped to its box.

        Raises:
            UnreadableFileError: If the label image cannot be decoded.
            InvalidDataError: If it is not a label image of the size of the image.
        """
        info, size = self.image_info[image_id], self.image_size(image_id)
        if info["labels"] is None:
            return
        labels = self._read_labels(info)
        if labels.shape != size:
            raise InvalidDataError(
                f"The label image has (height, width) {labels.shape}, but the image has {size}.",
                file=Path(info["root"], info["labels"]),
            )
        values: np.ndarray = np.arange(LARGEST_LABEL + 1)
        if labels.max(initial=0) > LARGEST_LABEL:
            values, numbers = np.unique(labels, return_inverse=True)
            labels = numbers.reshape(size) + int(values[0] != 0)
            values = np.union1d(0, values)
        places = scipy.ndimage.find_objects(labels.astype(np.int32))
        present = [number for number, place in enumerate(places, start=1) if place is not None]
        self._note_doubts(info, labels, values[present])
        for number, place in enumerate(places, start=1):
            if place is None:  # a gap in the values
                continue
            value = int(values[number])
            file_id = value // info["class_divisor"] if info["class_divisor"] else 1
            if file_id not in info["class_ids"]:
                self.problems.add(problems.UNKNOWN_CLASS, f"{info['labels']}: value {value}")
                continue
            class_id = self.map_source_class_id(f"{info['source']}.{info['class_ids'][file_id]}")
            rows, columns = place
            box = (rows.start, columns.start, rows.stop, columns.stop)
            yield Instance(class_id, box, labels[place] == number)

    def _add(self, root: Path, name: str, image: str, labels: str | None, source: str, facts: Record) -> None:
        """Add one image if its label image can be read and has its size."""
        header = None
        if labels is None:
            self.problems.add(problems.MISSING_LABELS, str(root / image))
        elif not labels.endswith(cellpose.SUFFIX):
            header = self._label_header(root, labels)
            if header is None:
                return
        path, member = (root / image, None) if root.is_dir() else (root, image)
        size = None if header is None else header.shown_size
        info = self._add_file(source, name, path, member=member, size=size, root=root, labels=labels, **facts)
        if info is None or not self._check_last(problems.MASK_SIZE):
            return
        if labels is not None and (header is None or header.orientation == 1):
            self._note_unclear_turn(info)
        if header is not None and header.frames > 1:
            with self.problems.leave_out(str(root / str(labels))):
                self._plane(info, header.frames)
                return
            self.image_info.pop()

    def _label_header(self, root: Path, labels: str) -> Header | None:
        """Return the header of a label image, or None, and noted, if it cannot be used."""
        where = str(root / labels)
        try:
            header = read_header(image_files.open_image(root, labels), where)
        except DataError as error:
            self.problems.add(problems.BROKEN_MASK, str(error))
            return None
        if header.is_lossy:
            self.problems.add(problems.LOSSY_LABELS, where)
            return None
        if header.mode.partition(";")[0] not in LABEL_MODES:
            note = f"{where}: A label image must have one channel of integers. Received: mode {header.mode}"
            self.problems.add(problems.BROKEN_MASK, note)
            return None
        return header

    def _plane(self, info: Record, planes: int) -> int:
        """Return which label image of a stack belongs to the chosen page of the image.

        Raises:
            BrokenEntryError: If no page is chosen, or the image has another number of slices.
        """
        stack = read_stack(self._open(info), info["member"])
        page = self._choice.get("page")
        if page is None or stack.pages != planes:
            raise BrokenEntryError(
                "A label image must have one page, or one for each slice of its image, of which `page` "
                f"(--page) chooses one. Received: {planes} pages of labels, an image of "
                f"{str(stack) or 'one page'}, and page={page}",
                kind=problems.BROKEN_MASK,
            )
        return stack.plane(page, per_channel="channels" in self._choice)

    def _read_labels(self, info: Record) -> np.ndarray:
        """Return the label image of an image, with negative and void values as background."""
        root, name = info["root"], info["labels"]
        where = str(root / name)
        if name.endswith(cellpose.SUFFIX):
            labels = cellpose.read_seg(io.BytesIO(_bytes(root, name)), where)
            labels = labels[self._plane(info, len(labels))] if labels.ndim == 3 else labels
        else:
            planes = read_header(image_files.open_image(root, name), where).frames
            page = self._plane(info, planes) if planes > 1 else None
            labels = read_labels(image_files.open_image(root, name), where, page=page)
        if labels.dtype.kind == "i":
            labels = np.maximum(labels, 0)
        if info["void"]:
            labels = np.where(np.isin(labels, info["void"]), np.zeros((), labels.dtype), labels)
        return labels

    def _note_doubts(self, info: Record, labels: np.ndarray, values: np.ndarray) -> None:
        """Note a label image that looks like a binary mask, or like one with void pixels of value 255."""
        if info["class_divisor"] is not None or len(values) == 0:
            return
        where = str(Path(info["root"], info["labels"]))
        if len(values) == 1 and values[0] in (1, 255) and scipy.ndimage.label(labels)[1] > 1:
            self.problems.add(
                problems.BINARY_LABELS,
                f"{where}: if these are different objects, number the pieces, for instance with "
                "skimage.measure.label",
            )
        if len(values) > 1 and values[-1] == USUAL_VOID and values[-2] == len(values) - 1:
            self.problems.add(problems.VOID_LABELS, f"{where}: pass void=[255] if it marks no object")


def label_files(root: Path, folder: str) -> list[str]:
    """Return the files of a folder that may be label images; see `image_files.images_in`."""
    listed = image_files.images_in(root, folder, LABEL_SUFFIXES)
    return [file for file in listed if file.endswith(cellpose.SUFFIX) or not file.lower().endswith(".npy")]


def _bytes(root: Path, name: str) -> bytes:
    return read_bytes(root / name) if root.is_dir() else archives.open_member(root, name).read()
