"""Folders with one mask file for each object, as in the 2018 Data Science Bowl."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from mrcnn.errors import DataError
from mrcnn.files.images import Header, read_header, read_mask
from mrcnn.formats import image_files, problems
from mrcnn.formats.base import FormatDataset, Instance, cropped
from mrcnn.formats.files import Record, Source


class MaskFileDataset(FormatDataset):
    """Images <name>/images/<name>.png with masks <name>/masks/*.png, one file for each object.

    Pixels that are not black are inside the object. In JPEG files, which change values, pixels above half of
    white are inside, and `problems` names the file.

    `image_info` has `masks`, the paths of the mask files; and `class_id`, the id of their class in the
    source.
    """

    def load(
        self,
        root: Source,
        class_name: str = "object",
        images: str = "images",
        masks: str = "masks",
        only: Collection[str] | None = None,
        source: str = "masks",
    ) -> None:
        """Add the images of all folders below `root`.

        Args:
            root: The folder that contains a folder for each image.
            class_name: The class of all objects.
            images: Name of the folder of the image in each.
            masks: Name of the folder of the masks in each.
            only: Names of the folders to load; all by default.
            source: Name of this source of ids. Classes of loads with the same source are merged by name.

        Raises:
            MissingFileError: If `root` is not a folder.
            UnreadableFileError: If it cannot be read.
            InvalidDataError: If no image can be used. Broken entries are left out instead; see `problems`.
        """
        root = Path(root)
        known = image_files.folders_in(root)
        names = self._class_names([class_name], (), root)
        class_id = self._join_classes(source, dict(enumerate(names, start=1)), root)[1]
        before = len(self.image_info)
        for name in known if only is None else sorted(only):
            found = _images_in(root, f"{name}/{images}")
            if not found:
                self.problems.add(problems.MISSING_IMAGE, str(root / name / images))
                continue
            by_name, _ = image_files.by_stem(found)
            path = root / by_name.get(name, found[0])
            for other in found:
                if root / other != path:
                    self.problems.add(problems.SAME_NAME, f"{root / other}, beside {path.name}")
            mask_paths = [root / mask for mask in _images_in(root, f"{name}/{masks}")]
            if not mask_paths:
                self.problems.add(problems.MISSING_LABELS, str(root / name / masks))
            headers = {mask: header for mask in mask_paths if (header := self._mask_header(mask)) is not None}
            sizes = {header.shown_size for header in headers.values()}
            info = self._add_file(source, name, path, mask_sizes=sizes, masks=[], class_id=class_id)
            if info is not None:
                info["masks"] = self._fitting(headers, info)
        self._finish(root, before)

    def load_instances(self, image_id: int) -> Iterator[Instance]:
        """Yield the objects in the order of the names of their files, each mask cropped to its box.

        A mask file that cannot be decoded or is empty is left out and named in `problems`.
        """
        info, size = self.image_info[image_id], self.image_size(image_id)
        class_id = self.map_source_class_id(f"{info['source']}.{info['class_id']}")
        for path in info["masks"]:
            try:
                mask = read_mask(path, warn=False)
            except DataError as error:
                self.problems.add(problems.BROKEN_MASK, str(error))
                continue
            if mask.shape != size:
                self.problems.add(problems.MASK_SIZE, f"{path}: {mask.shape}, image {size}")
            elif not mask.any():
                self.problems.add(problems.NO_AREA, str(path))
            else:
                yield from cropped(mask, class_id)

    def _mask_header(self, path: Path) -> Header | None:
        """Return the header of a mask file, or None, and noted, if it cannot be read."""
        try:
            return read_header(path)
        except DataError as error:
            self.problems.add(problems.BROKEN_MASK, str(error))
            return None

    def _fitting(self, headers: Mapping[Path, Header], info: Record) -> list[Path]:
        """Return the mask files of the size of their image. Note the others, and what is unusual in these."""
        fitting = []
        for path, header in headers.items():
            if header.shown_size != info["size"]:
                self.problems.add(problems.MASK_SIZE, f"{path}: {header.shown_size}, image {info['size']}")
                continue
            fitting.append(path)
            if header.is_lossy:
                self.problems.add(problems.LOSSY_MASK, str(path))
            if header.orientation == 1:
                self._note_unclear_turn(info)
        return fitting


def _images_in(root: Path, folder: str) -> list[str]:
    return image_files.images_in(root, folder) if (root / folder).is_dir() else []
