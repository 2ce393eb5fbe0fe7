"""ImageJ RoIs: a zip file of the ROI Manager, or a .roi file, for each image."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from mrcnn.errors import DataError, reason
from mrcnn.files import archives
from mrcnn.formats import problems
from mrcnn.formats.files import Source, is_text, read_bytes
from mrcnn.formats.outline_files import OutlineFile, OutlineFilesDataset
from mrcnn.formats.problems import BrokenEntryError, short
from mrcnn.geometry import polygons
from mrcnn.geometry.polygons import Polygon
from mrcnn.packages import require

if TYPE_CHECKING:
    from mrcnn.files.stacks import Stack

SUFFIXES = (".zip", ".roi")
# The largest RoI has some thousand points.
MAX_ROI_SIZE = 1 << 26
# Kinds of RoIs that have an inside and list their corners.
OUTLINES = {"POLYGON", "FREEHAND", "TRACED"}


class ImageJDataset(OutlineFilesDataset):
    """Images with files of ImageJ RoIs of the same name.

    RoIs may be polygons, freehand and traced RoIs, rectangles, ovals, and composites, which may have holes.
    Lines and points are left out. If a `page` of a stack was chosen, so are RoIs with a position on another
    slice, or at another time point. ImageJ counts positions from 1, and `page` counts from 0. The class of
    an RoI is its property `class`, which this library writes, or else the class whose id is its group.
    `image_info` has `outlines`.
    """

    def load(
        self,
        annotations: Source,
        images: Source,
        classes: Sequence[str] | None = None,
        keep_empty: bool = True,
        source: str = "imagej",
    ) -> None:
        """Add the images of a folder.

        Args:
            annotations: The folder of the files NAME.zip or NAME.roi.
            images: The folder of the images.
            classes: Class names in the order of their ids, by default those in the files, sorted. Pass the
                same list for training and validation data. If it has a single name, RoIs without a class get
                it.
            keep_empty: Whether to add images without objects.
            source: Name of this source of ids. Classes of folders with the same source are merged by name.

        Raises:
            ImportError: If the package roifile is missing.
            MissingFileError: If a folder does not exist or has no such file.
            InvalidDataError: If no image can be used. Broken files and RoIs are left out instead, see
                `problems`.
        """
        require("roifile", "ImageJ RoIs need", extra="results")
        self._load_files(annotations, images, SUFFIXES, classes, keep_empty, source)

    def _read_file(self, path: Path) -> OutlineFile:
        found = {}
        try:
            if path.suffix.lower() == ".roi":
                members: dict[str, BinaryIO] = {path.name: io.BytesIO(read_bytes(path))}
            else:
                names = [name for name in archives.member_names(path) if name.lower().endswith(".roi")]
                members = {name: archives.open_member(path, name) for name in names}
        except DataError as error:
            self.problems.add(problems.BROKEN_FIELD, str(error))
            return OutlineFile({}, is_complete=False)
        for name, content in members.items():
            with self.problems.leave_out(path, name):
                found[name] = _parsed(content.read(MAX_ROI_SIZE))
        return OutlineFile(found, is_complete=len(found) == len(members))

    def _label(self, entry: Any) -> str | None:
        return _label(entry)

    def _default(self, entry: Any, names: Sequence[str], is_given: bool) -> str | None:
        """Return the class of an RoI that names none: that of its group, or the only one."""
        if 1 <= entry.group <= len(names):
            return str(names[entry.group - 1])
        return super()._default(entry, names, is_given)

    def _unknown(self, entry: Any, label: str | None) -> str:
        return f"The class is {short(label)}, the group {entry.group}."

    def _places(self, entries: Mapping[str, Any], stack: "Stack") -> Mapping[str, Mapping[str, int]]:
        return {name: _place(roi, stack) for name, roi in entries.items()}

    def _parts(self, entry: Any, file: Path, name: str) -> list[Polygon]:
        return [_outline(entry)]


def _parsed(content: bytes) -> Any:
    import roifile

    try:
        return roifile.ImagejRoi.frombytes(content)
    except Exception as error:  # of many kinds
        raise BrokenEntryError(f"The RoI cannot be read: {reason(error)}") from error


def _label(roi: Any) -> str | None:
    """Return the class in an RoI, or None."""
    prefix = "class:"
    lines = [line for line in str(roi.props).splitlines() if line.startswith(prefix)]
    text = lines[0].removeprefix(prefix).strip() if lines else ""
    return text if text and is_text(text) else None


def _place(roi: Any, stack: "Stack") -> dict[str, int]:
    """Return where an RoI lies in a stack. Positions count from 1; 0 stands for all."""
    if roi.position > 0:  # the number of the image in the stack; 0 if slice and time point are set
        return stack.place(roi.position - 1, per_channel=False)
    z, t = (number - 1 if number > 0 else None for number in (roi.z_position, roi.t_position))
    return stack.place_of(z, t)


def _outline(roi: Any) -> Polygon:
    """Return the outline of an RoI [P, (x, y)] in pixels, without points if it encloses no area."""
    from roifile import ROI_TYPE

    width, height = roi.right - roi.left, roi.bottom - roi.top
    if roi.composite and roi.roitype == ROI_TYPE.RECT:
        try:
            rings = [ring for ring in map(_open, roi.coordinates(multi=True)) if len(ring) >= 3]
        except Exception as error:  # of many kinds; curves are not supported
            raise BrokenEntryError(
                f"The composite RoI cannot be read: {reason(error)}. Convert it to a polygon in ImageJ."
            ) from error
        return polygons.joined(rings) if rings else np.zeros((0, 2))
    if roi.roitype == ROI_TYPE.RECT:
        return polygons.rectangle(roi.left, roi.top, width, height)
    if roi.roitype == ROI_TYPE.OVAL:
        return polygons.ellipse(roi.left + width / 2, roi.top + height / 2, width / 2, height / 2)
    if getattr(roi.roitype, "name", "") in OUTLINES:
        return np.asarray(roi.coordinates(), dtype=np.float64)
    return np.zeros((0, 2))


def _open(ring: np.ndarray) -> Polygon:
    points = np.asarray(ring, dtype=np.float64)
    is_closed = len(points) > 1 and bool((points[0] == points[-1]).all())
    return points[:-1] if is_closed else points
