"""Base of the formats that have one file of outlines for each image, of the same name.

The file of a.png is called a.geojson, or a.png.geojson, which comes first. If a page of a stack was chosen,
objects that lie on another slice, or at another time point, are left out. Channels show the same objects.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcnn.errors import DataError
from mrcnn.files.calibration import GeoReference
from mrcnn.files.images import read_stack
from mrcnn.formats import image_files, problems
from mrcnn.formats.base import OutlineDataset
from mrcnn.formats.files import Source
from mrcnn.formats.problems import BrokenEntryError
from mrcnn.geometry.polygons import Polygon

if TYPE_CHECKING:
    from mrcnn.files.stacks import Stack


@dataclasses.dataclass(frozen=True)
class OutlineFile:
    """The content of an annotation file.

    Attributes:
        entries: The objects, by the names that notes give them.
        is_complete: Whether all entries of the file are here. If not, because some are broken or lie on
            another page, an image without objects may have some.
        crs: The coordinate system of a map; None for pixels.
    """

    entries: Mapping[str, Any]
    is_complete: bool = True
    crs: Any = None


class OutlineFilesDataset(OutlineDataset):
    """Images with annotation files of the same name. `image_info` has `outlines`.

    A subclass reads a file, and finds the class and the outline of each of its entries.
    """

    def _read_file(self, path: Path) -> OutlineFile:
        """Return the content of a file. Note what is broken in it."""
        raise NotImplementedError

    def _label(self, entry: Any) -> str | None:
        """Return the class that an entry names, or None."""
        raise NotImplementedError

    def _default(self, entry: Any, names: Sequence[str], is_given: bool) -> str | None:
        """Return the class of an entry without a class name: the only class, if the user passed one."""
        return names[0] if is_given and len(names) == 1 else None

    def _unknown(self, entry: Any, label: str | None) -> str:
        """Return a sentence about an entry whose class is unknown."""
        return f"The class is {problems.short(label)}."

    def _places(self, entries: Mapping[str, Any], stack: "Stack") -> Mapping[str, Mapping[str, int]]:
        """Return where entries of a file lie in its stack; see `Stack.place_of`. Others lie on every page."""
        raise NotImplementedError

    def _georeference(self, content: OutlineFile, image: Path) -> GeoReference | None:
        """Return the place of an image on a map, if the file has map coordinates."""
        return None

    def _parts(self, entry: Any, file: Path, name: str) -> list[Polygon]:
        """Return the polygons [P, (x, y)] of an entry, in the coordinates of the file."""
        raise NotImplementedError

    def _load_files(
        self,
        annotations: Source,
        images: Source,
        suffixes: Sequence[str],
        classes: Sequence[str] | None,
        keep_empty: bool,
        source: str,
    ) -> None:
        """Add the images of a folder; the arguments are those of `load` in the subclasses.

        Args:
            annotations: The folder of the annotation files.
            images: The folder of the images.
            suffixes: The suffixes of the annotation files.
            classes: The names of the classes; None for those in the files.
            keep_empty: Whether to add images without objects.
            source: The name of the source of ids.
        """
        folder, root = Path(annotations), Path(images)
        paths = image_files.annotation_files(folder, suffixes)
        found, others, unused = image_files.match(image_files.images_in(root, ""), paths)
        for other in others:
            self.problems.add(problems.SAME_NAME, str(root / other))
        for name in unused:
            self.problems.add(problems.MISSING_ANNOTATED, str(paths[name]))
        contents = {name: self._read_file(paths[name]) for name in found if name in paths}
        named = (self._label(entry) for content in contents.values() for entry in content.entries.values())
        names = self._class_names(classes, [label for label in named if label is not None], folder)
        joined = self._join_classes(source, dict(enumerate(names, start=1)), folder)
        class_ids = {name: joined[number] for number, name in enumerate(names, start=1)}
        before = len(self.image_info)
        for name, image in found.items():
            content = contents.get(name)
            if content is None:
                self.problems.add(problems.MISSING_LABELS, str(root / image))
                content = OutlineFile({}, is_complete=False)
            else:
                content = self._on_page(content, root / image, paths[name])
            if not content.entries and not keep_empty:
                continue
            is_empty = content.is_complete and not content.entries
            info = self._add_file(source, name, root / image, outlines=[], is_empty=is_empty)
            if info is None:
                continue
            with self.problems.leave_out(paths.get(name, root / image)):
                place = self._georeference(content, root / image)
                for key, entry in content.entries.items():
                    with self.problems.leave_out(paths[name], key):
                        label = self._label(entry) or self._default(entry, names, classes is not None)
                        if label is None or label not in class_ids:
                            raise BrokenEntryError(
                                self._unknown(entry, label),
                                kind=problems.UNKNOWN_CLASS,
                                file=paths[name],
                                entry=key,
                            )
                        parts = self._parts(entry, paths[name], key)
                        parts = parts if place is None else [_in_pixels(part, place) for part in parts]
                        self._add_outline(info, class_ids[label], parts, paths[name], key)
        self._finish(folder, before)

    def _on_page(self, content: OutlineFile, image: Path, file: Path) -> OutlineFile:
        """Return the entries on the chosen page of an image, if one was chosen. Note the others."""
        page = self._choice.get("page")
        if page is None:
            return content
        try:
            stack = read_stack(image)
        except DataError:  # the image will be left out
            return content
        chosen = stack.place(page, per_channel="channels" in self._choice)
        places = self._places(content.entries, stack)
        here = {}
        for key, entry in content.entries.items():
            place = places.get(key, {})
            if all(place.get(axis, index) == index for axis, index in chosen.items()):
                here[key] = entry
            else:
                self.problems.add(problems.OTHER_PAGE, f"{file}: {key}")
        is_complete = content.is_complete and len(here) == len(content.entries)
        return dataclasses.replace(content, entries=here, is_complete=is_complete)


def _in_pixels(part: Polygon, place: GeoReference) -> Polygon:
    """Return a polygon in pixels. Huge numbers overflow; the points are checked later."""
    with np.errstate(over="ignore", invalid="ignore"):
        return place.to_pixels(part)
