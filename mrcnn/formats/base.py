"""The base class of all annotation formats: oriented images, masks on demand, broken entries left out."""

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mrcnn.dataset import Dataset
from mrcnn.errors import DataError, InvalidDataError
from mrcnn.files import archives
from mrcnn.files.arguments import integers
from mrcnn.files.images import TRANSPOSED, Header, read_header, read_stack, turned
from mrcnn.files.ordinary import is_ordinary
from mrcnn.formats import image_files, outlines, problems
from mrcnn.formats.files import Record, Source, is_text
from mrcnn.formats.problems import BrokenEntryError, short
from mrcnn.geometry import masks as mask_geometry
from mrcnn.geometry import polygons
from mrcnn.geometry.mask_crops import MaskCrops
from mrcnn.typing import Box, ClassIds, Image, Masks


@dataclasses.dataclass(frozen=True)
class Instance:
    """One object of an image, with its mask cropped to its box.

    Attributes:
        class_id: The dataset's own class id, negative for a crowd.
        box: (y1, x1, y2, x2) in pixels; row y2 and column x2 are outside.
        mask: bool [y2 - y1, x2 - x1].
    """

    class_id: int
    box: Box
    mask: Masks


class FormatDataset(Dataset):
    """Base class of the datasets that read an annotation format.

    `load` adds classes and images. Call it once for each file or folder, then call `prepare`. It reads and
    checks annotations and the headers of image files. Pixels and masks are read when they are needed. Broken
    entries are left out and named in `problems`, and the rest is loaded.

    If several files have the same source, their classes are merged by name, even if the files use different
    ids. The first file determines the ids. Spaces at the ends of names do not count; upper and lower case do.

    A class that a file does not annotate must not count as background in its images, so files that annotate
    different classes need different sources. Two sources share no class: a name in both stands for two
    classes, which the network learns apart. Training keeps sources apart only in the class loss, and only if
    a batch has one image; see `mrcnn.network.losses.mrcnn_class_loss`.

    Images with an EXIF orientation are rotated as viewers and annotation tools show them, unless the size in
    the annotations, or of the masks, only fits the stored rows and columns. Files of masks and labels are
    rotated by their own orientation.

    `image_info` has, besides id, source and path: `member`, the name in a zip archive or None; `size`, the
    (height, width) that the annotations refer to; `orientation`, the EXIF orientation to follow, 1 for none.

    Args:
        class_map: Ignored. Scripts for the Keras 2 library pass it.
        page: Number of the image to read from files that hold several, such as the slices of a stack; see
            `mrcnn.files.images.read_image`.
        channels: Numbers of the channels to read from images whose channels are not colors; see `read_image`.
            A single channel is repeated three times.

    Attributes:
        problems: The entries that are broken or were changed, counted and named.

    Raises:
        InvalidDataError: If `channels` is not a list of integers.
    """

    _has_own_pages = True

    def __init__(
        self, class_map: Any = None, *, page: int | None = None, channels: Sequence[int] | None = None
    ) -> None:
        super().__init__(class_map)
        self._choice: Record = {} if page is None else {"page": page}
        if channels is not None:
            self._choice["channels"] = integers("channels", channels)
        self.problems = problems.Problems()

    def image_reference(self, image_id: int) -> str:
        """Return the path of the image file, with its name in an archive."""
        return _name(self.image_info[image_id])

    def image_size(self, image_id: int) -> tuple[int, int]:
        """Return (height, width) of the image, without decoding it.

        Raises:
            UnreadableFileError: If the image file cannot be read.
            InvalidDataError: If the size differs from that in the annotations.
        """
        self._orientation(image_id)
        height, width = self.image_info[image_id]["size"]
        return height, width

    def open_image_file(self, image_id: int) -> Source | BinaryIO:
        """Return the path of the image file, or its content if it is in an archive."""
        return self._open(self.image_info[image_id])

    def load_image(self, image_id: int) -> Image:
        """Read the image as RGB, in the orientation that the class docstring describes.

        Returns:
            Array [height, width, 3] in the dtype of the file, or [height, width, C] with a choice of C
            `channels`, two or more.

        Raises:
            UnreadableFileError: If the file is missing or broken.
            InvalidDataError: If the file does not hold exactly one image, or its size differs from that in
                the annotations.
        """
        return turned(super().load_image(image_id), self._orientation(image_id))

    def load_instances(self, image_id: int) -> Iterator[Instance]:
        """Yield the objects of the image, each mask cropped to its box. Subclasses override this method.

        This takes little memory for large images with many objects.
        """
        raise NotImplementedError(f"{type(self).__name__} must override load_instances.")

    def load_mask(self, image_id: int) -> tuple[Masks, ClassIds]:
        """Return the masks and class ids of the objects of the image.

        Returns:
            masks: bool [height, width, N].
            class_ids: int32 [N], negative for crowds.
        """
        crops, class_ids = self._crops(image_id)
        return crops.whole(), class_ids

    def load_mask_crops(self, image_id: int) -> tuple[MaskCrops, ClassIds]:
        """Return cropped masks and class ids int32 [N], negative for crowds. Training uses this method.

        If a subclass overrides `load_mask`, its masks are cropped.
        """
        if type(self).load_mask is not FormatDataset.load_mask:
            masks, class_ids = self.load_mask(image_id)
            return MaskCrops.cut(np.asarray(masks).astype(bool, copy=False)), class_ids
        return self._crops(image_id)

    def _crops(self, image_id: int) -> tuple[MaskCrops, ClassIds]:
        instances = list(self.load_instances(image_id))
        self.problems.warn(changed=False)
        boxes = np.array([instance.box for instance in instances], dtype=np.int32).reshape(-1, 4)
        masks = tuple(instance.mask for instance in instances)
        class_ids = np.array([instance.class_id for instance in instances], dtype=np.int32)
        return MaskCrops(self.image_size(image_id), boxes, masks), class_ids

    def renumber_classes(self, names: Sequence[str]) -> None:
        """Number the classes in the order of a list, such as that of another dataset. Then call `prepare`.

        Classes of the list that the dataset lacks are added, so that both datasets have the same numbers.

        Args:
            names: The names without the background, as in `class_info`. If a name occurs several times, as
                with several sources, its first class comes first.

        Raises:
            InvalidDataError: If the dataset has classes that are not in the list. The message names them.
        """
        background, *own = self.class_info
        source = own[0]["source"] if own else next((info["source"] for info in self.image_info), "")
        ids = [info["id"] for info in own if info["source"] == source]
        ordered = []
        for name in (name.strip() for name in names):
            info = next((info for info in own if info["name"].strip() == name), None)
            if info is None:
                ids.append(_unused_id(ids))
                info = {"source": source, "id": ids[-1], "name": name}
            else:
                own.remove(info)
            ordered.append(info)
        if own:
            raise InvalidDataError(
                f"All classes must be among {short(list(names))}. Received other classes: "
                f"{short([info['name'] for info in own])}. Rename them in the annotations, or remove their "
                "objects.",
                field="classes",
            )
        self.class_info = [background, *ordered]

    def _join_classes(self, source: str, names: Mapping[Any, str], file: Source) -> dict[Any, Any]:
        """Add the classes of a file that the source does not have yet.

        Args:
            source: Name of the source.
            names: The ids of the file and their names.
            file: The file, for notes.

        Returns:
            The id in the source for each id in the file. It is the same id unless another class has it.
        """
        ids = [info["id"] for info in self.class_info if info["source"] == source]
        known = {info["name"]: info["id"] for info in reversed(self.class_info) if info["source"] == source}
        in_lower_case = {name.casefold(): name for name in reversed(known)}
        joined: dict[Any, Any] = {}
        first: dict[str, Any] = {}
        for file_id, name in names.items():
            if name in first:
                note = f"{file}: {short(name)}, ids {short(first[name])} and {short(file_id)}"
                self.problems.add(problems.REPEATED_CLASS_NAME, note)
            first.setdefault(name, file_id)
            if name not in known:
                other = in_lower_case.setdefault(name.casefold(), name)
                if other != name:
                    note = f"{file}: {short(name)} and {short(other)}"
                    self.problems.add(problems.SIMILAR_CLASS_NAME, note)
                is_taken = any(str(file_id) == str(taken) for taken in ids)
                known[name] = _next_id([*ids, *names]) if is_taken else file_id
                ids.append(known[name])
                self.add_class(source, known[name], name)
            joined[file_id] = known[name]
        return joined

    def _add_file(
        self,
        source: str,
        image_id: Any,
        path: Source,
        *,
        member: str | None = None,
        size: tuple[int, int] | None = None,
        mask_sizes: Collection[tuple[int, int]] = (),
        **fields: Any,
    ) -> Record | None:
        """Add an image if its file exists.

        Args:
            source: Name of the source.
            image_id: Id of the image in the source.
            path: The image file, or the zip archive that holds it.
            member: Name in the zip archive.
            size: (height, width) if the annotations contain it. The header of the file is then only read, and
                compared, when the image is used. Otherwise the header is read immediately.
            mask_sizes: Without `size`, the sizes of the image's mask files. The image keeps its stored rows
                and columns if only these fit a mask.
            **fields: More fields for `image_info`.

        Returns:
            The record in `image_info`, or None if the file is missing or unreadable.
        """
        info = {"path": path, "member": member, "size": size, **self._choice, **fields}
        if member is None and not is_ordinary(path):
            self.problems.add(problems.MISSING_IMAGE, _name(info))
            return None
        if size is None:
            try:
                header = self._read_header(info)
            except DataError as error:
                self.problems.add(problems.UNREADABLE_IMAGE, str(error))
                return None
            info["size"] = size_of_labels(header, mask_sizes)
            info["orientation"] = self._fitting_orientation(header, info)
        self.add_image(source, image_id, **info)
        return self.image_info[-1]

    def _located(self, folder: Path, name: str, elsewhere: Mapping[str, str], within: Source | None) -> Path:
        """Return the path of the image that an annotation file names.

        Args:
            folder: The folder of the images.
            name: The name.
            elsewhere: The names of images with another path; see `image_files.moved`.
            within: See `image_files.locate`.

        Raises:
            BrokenEntryError: If the path is outside the folder.
        """
        if name in elsewhere:
            self.problems.add(problems.MOVED_IMAGE, f"{short(name)}: {folder / elsewhere[name]}")
        allowed = None if within is None else Path(within)
        return image_files.locate(folder, elsewhere.get(name, name), allowed)

    def _check_last(self, mismatch: str = problems.STATED_SIZE) -> bool:
        """Compare the header of the last image with its annotated size, and drop the image if they differ."""
        try:
            self._orientation(len(self.image_info) - 1)
        except BrokenEntryError as error:
            self.problems.add(mismatch, str(error))
        except DataError as error:
            self.problems.add(problems.UNREADABLE_IMAGE, str(error))
        else:
            return True
        self.image_info.pop()
        return False

    def _orientation(self, image_id: int) -> int:
        """Return the EXIF orientation to apply. The first call compares header and annotated size."""
        info = self.image_info[image_id]
        if "orientation" not in info:
            header = self._read_header(info)
            orientation = self._fitting_orientation(header, info)
            if orientation is None:
                raise BrokenEntryError(
                    f"The image of image id {image_id} has (height, width) {header.shown_size}, but its "
                    f"annotations give {info['size']}. Was the file resized after it was annotated?",
                    kind=problems.STATED_SIZE,
                    file=_name(info),
                )
            info["orientation"] = orientation
        return int(info["orientation"])

    def _fitting_orientation(self, header: Header, info: Record) -> int | None:
        """Return the orientation that gives an image the size of its annotations, or None."""
        if header.orientation > 1 and header.shown_size == info["size"]:
            self.problems.add(problems.TURNED, _name(info))
            return header.orientation
        if header.orientation > 1 and header.stored_size == info["size"]:
            self.problems.add(problems.NOT_TURNED, _name(info))
        return 1 if header.stored_size == info["size"] else None

    def _note_unclear_turn(self, info: Record) -> None:
        """Note an image whose labels have no orientation, if it has one that its size does not reveal."""
        height, width = info["size"]
        if info["orientation"] > 1 and (info["orientation"] not in TRANSPOSED or height == width):
            self.problems.add(problems.UNCLEAR_TURN, _name(info))

    def _open(self, info: Record) -> Source | BinaryIO:
        path: Source = info["path"]
        return archives.open_member(path, info["member"]) if info["member"] else path

    def _read_header(self, info: Record) -> Header:
        header = read_header(self._open(info), _name(info))
        if header.frames > 1 and not self._choice:
            what = read_stack(self._open(info), _name(info))
            raise InvalidDataError(
                f"The file must hold one image. Received: {what}. Choose with `page` or `channels`, such as "
                f"{type(self).__name__}(page=0), or --page and --channels on the command line.",
                file=_name(info),
            )
        if ";16" in header.mode:
            self.problems.add(problems.SIXTEEN_BIT, _name(info))
        if "A" in header.mode and header.mode != "LAB" and "channels" not in self._choice:
            self.problems.add(problems.ALPHA, _name(info))
        return header

    def _finish(self, file: Source, before: int) -> None:
        """Log the problems.

        Raises:
            InvalidDataError: If no image was added to the `before` images.
        """
        self.problems.warn()
        if len(self.image_info) == before:
            is_missing = problems.MISSING_IMAGE in self.problems.names
            hint = " Pass the folder of the images as `images` (--images)." if is_missing else ""
            raise InvalidDataError(f"The dataset has no usable image.{hint}{self._listing()}", file=file)

    def _class_names(self, classes: Sequence[str] | None, found: Sequence[str], file: Source) -> list[str]:
        """Return the class names in the order of their ids: the given names, else the found ones, sorted.

        Spaces at the ends of given names are removed, as the readers do for found names. A given
        name may be cut at its first comma, as in `class_names` of a dataset; see `_whole_names`.

        Raises:
            ValueError: If `classes` is not a list of names.
            InvalidDataError: If no class is given or found.
        """
        if classes is None:
            if not found:
                raise InvalidDataError(
                    f"No object has a class name. Pass `classes`.{self._listing()}",
                    file=file,
                    field="classes",
                )
            return sorted(set(found))
        names = [] if isinstance(classes, (str, bytes)) else list(classes)
        names = [name.strip() if isinstance(name, str) else name for name in names]
        if not names or not all(isinstance(name, str) and name and is_text(name) for name in names):
            raise InvalidDataError(
                f"`classes` must be a list of one or more names. Received: classes={short(classes)}",
                field="classes",
            )
        return _whole_names(names, found)

    def _listing(self) -> str:
        """Return one line for each kind of problem. Each line starts with a line break."""
        return "".join(f"\n  {line}" for line in self.problems.lines())


class OutlineDataset(FormatDataset):
    """Base class of formats that describe objects as polygons.

    `image_info` has `outlines`, a list of `mrcnn.formats.outlines.Outline`.
    """

    def load_instances(self, image_id: int) -> Iterator[Instance]:
        """Yield the objects that have pixels in the image, each mask cropped to its box."""
        info, size = self.image_info[image_id], self.image_size(image_id)
        for outline in info["outlines"]:
            drawn = polygons.rasterize(outline.parts, size)
            if drawn is not None:
                class_id = self.map_source_class_id(f"{info['source']}.{outline.class_id}")
                yield from cropped(drawn[0], class_id, drawn[1])

    def _add_outline(
        self, info: Record, class_id: Any, parts: Sequence[polygons.Polygon], file: Source, entry: str
    ) -> None:
        """Add an object to an image. Raises BrokenEntryError if it encloses no area."""
        usable = outlines.usable_parts(parts, info["size"], file, entry, self.problems)
        info["outlines"].append(outlines.Outline(class_id, usable))


def size_of_labels(header: Header, mask_sizes: Collection[tuple[int, int]]) -> tuple[int, int]:
    """Return the (height, width) that the labels of an image refer to.

    It is that of the image as viewers show it, unless only its stored rows and columns fit one of its masks.
    """
    only_stored = header.stored_size in mask_sizes and header.shown_size not in mask_sizes
    return header.stored_size if only_stored else header.shown_size


def cropped(mask: Masks, class_id: int, origin: tuple[int, int] = (0, 0)) -> Iterator[Instance]:
    """Yield the object of a mask, cropped to its box, or nothing if the mask is empty.

    Args:
        mask: bool [h, w].
        class_id: The class id of the object.
        origin: (row, column) of the first pixel in the image.
    """
    y1, x1, y2, x2 = (int(side) for side in mask_geometry.extract_bboxes(mask[:, :, np.newaxis])[0])
    if y2 > y1:
        box = (origin[0] + y1, origin[1] + x1, origin[0] + y2, origin[1] + x2)
        yield Instance(class_id, box, mask[y1:y2, x1:x2])


def _whole_names(names: Sequence[str], found: Sequence[str]) -> list[str]:
    """Replace names that are cut at their first comma by whole ones.

    `Dataset.class_names` is cut, and so are the names in weight files of earlier versions. A cut name that
    occurs as often as there are names that begin with it stands for these, sorted. Others stay.

    Args:
        names: Names that may be cut.
        found: The names of the objects in the files.
    """
    known = set(found)
    missing = Counter(name for name in names if name not in known)
    begin_with: dict[str, list[str]] = {}
    for name in sorted(known - set(names)):
        begin_with.setdefault(name.split(",")[0].strip(), []).append(name)
    whole = {cut: iter(same) for cut, same in begin_with.items() if len(same) == missing[cut]}
    return [next(whole[name]) if name in whole else name for name in names]


def _next_id(ids: Sequence[Any]) -> int:
    return max((value for value in ids if isinstance(value, int)), default=0) + 1


def _unused_id(ids: Sequence[Any]) -> int:
    """Return a number that is no id, also not as a text."""
    return max((int(text) for text in map(str, ids) if text.isdecimal()), default=0) + 1


def _name(info: Record) -> str:
    return f"{info['path']}/{info['member']}" if info["member"] else str(info["path"])
