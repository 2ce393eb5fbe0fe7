"""ImageJ RoIs: a zip file of the RoI Manager, or a .roi file, for each image."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mrcnn.errors import DataError, reason
from mrcnn.files import archives
from mrcnn.formats import image_files, problems
from mrcnn.formats.base import OutlineDataset
from mrcnn.formats.files import Record, Source, is_text, read_bytes
from mrcnn.formats.problems import BrokenEntryError, short
from mrcnn.geometry import polygons
from mrcnn.geometry.polygons import Polygon
from mrcnn.results.packages import require

SUFFIXES = (".zip", ".roi")
# The largest RoI has some thousand points.
MAX_ROI_SIZE = 1 << 26
# Kinds of RoIs that have an inside and list their corners.
OUTLINES = {"POLYGON", "FREEHAND", "TRACED"}


class ImageJDataset(OutlineDataset):
    """Images with files of ImageJ RoIs of the same name.

    RoIs may be polygons, freehand and traced RoIs, rectangles, ovals, and composites, which may have holes.
    Lines and points are left out. The class of an RoI is its property `class`, which this library writes, or
    else the class whose id is its group. `image_info` has `outlines`.
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
        require("roifile", "ImageJ RoIs")
        folder, root = Path(annotations), Path(images)
        files = image_files.annotation_files(folder, SUFFIXES)
        found, others = image_files.by_stem(image_files.images_in(root, ""))
        for other in others:
            self.problems.add(problems.SAME_NAME, str(root / other))
        self._damaged: set[Path] = set()
        rois = {name: self._rois(files[name]) for name in found if name in files}
        labels = [
            label for own in rois.values() for roi in own.values() if (label := _label(roi)) is not None
        ]
        names = self._class_names(classes, labels, folder)
        joined = self._join_classes(source, dict(enumerate(names, start=1)), folder)
        class_ids = {name: joined[number] for number, name in enumerate(names, start=1)}
        before = len(self.image_info)
        for name, image in found.items():
            own = rois.get(name, {})
            if name not in files:
                self.problems.add(problems.MISSING_LABELS, str(root / image))
            if not own and not keep_empty:
                continue
            is_empty = name in rois and not own and files[name] not in self._damaged
            info = self._add_file(source, name, root / image, outlines=[], is_empty=is_empty)
            for entry, roi in own.items() if info is not None else ():
                with self.problems.leave_out(files[name], entry):
                    label = _label(roi) or _default(roi, names, classes is not None)
                    self._add_roi(info or {}, roi, label, class_ids, files[name], entry)
        self._finish(folder, before)

    def _rois(self, path: Path) -> dict[str, Any]:
        """Return the RoIs of a file by their names in it, and note broken ones."""
        found = {}
        try:
            if path.suffix.lower() == ".roi":
                members: dict[str, BinaryIO] = {path.name: io.BytesIO(read_bytes(path))}
            else:
                names = [name for name in archives.member_names(path) if name.lower().endswith(".roi")]
                members = {name: archives.open_member(path, name) for name in names}
        except DataError as error:
            self.problems.add(problems.BROKEN_FIELD, str(error))
            self._damaged.add(path)
            return {}
        for name, content in members.items():
            with self.problems.leave_out(path, name):
                found[name] = _parsed(content.read(MAX_ROI_SIZE))
        if len(found) < len(members):
            self._damaged.add(path)
        return found

    def _add_roi(
        self, info: Record, roi: Any, label: str | None, class_ids: Mapping[str, Any], file: Path, entry: str
    ) -> None:
        if label is None or label not in class_ids:
            raise BrokenEntryError(
                f"The class is {short(label)}, the group {roi.group}.",
                kind=problems.UNKNOWN_CLASS,
                file=file,
                entry=entry,
            )
        self._add_outline(info, class_ids[label], [_outline(roi)], file, entry)


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


def _default(roi: Any, names: Sequence[str], is_given: bool) -> str | None:
    """Return the class of an RoI that names none: that of its group, or the only one."""
    if 1 <= roi.group <= len(names):
        return str(names[roi.group - 1])
    return names[0] if is_given and len(names) == 1 else None


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
