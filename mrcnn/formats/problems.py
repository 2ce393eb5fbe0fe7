"""The problems of a dataset: entries that are broken or were changed, counted and named.

A reader notes a broken entry here, leaves it out and continues. Each kind of problem describes what is wrong
and what happened to the entry.
"""

import contextlib
import logging
import os
import reprlib
from collections.abc import Iterator

from mrcnn.errors import InvalidDataError

logger = logging.getLogger(__name__)

MISSING_IMAGE = "image file is missing: left out"
UNREADABLE_IMAGE = "image file cannot be read: left out, if not here then in training"
MOVED_IMAGE = "image file is not where the annotations say: the file of its name in the folder is used"
OUTSIDE_FOLDER = "image file lies outside the folder of the images: left out"
SAME_NAME = "several files share one name: only the first is used"
REPEATED_ID = "image id is used for several files: left out"
REPEATED_IMAGE = "image is listed several times: only the first entry is used"
REPEATED_FILE = "image file is listed under several ids: each id keeps its own objects"
UNKNOWN_IMAGE = "annotation of an image that is not listed: left out"
BROKEN_FIELD = "field is missing or invalid: left out"
UNKNOWN_CLASS = "class id or name is unknown: left out"
REPEATED_CLASS_ID = "class id is used for several names: left out"
REPEATED_CLASS_NAME = "class name has several ids: merged into one class"
SIMILAR_CLASS_NAME = (
    "class name differs from another only in upper and lower case: taken as a class of its own"
)
NO_OUTLINE = "shape encloses no area, or is only a box: left out"
NO_AREA = "object has no area: left out"
STRAY_PART = "part of an object cannot be used: the part is left out, the object is kept"
OUTSIDE = "object reaches outside its image: clipped"
MASK_SIZE = "mask has a different size than its image: left out"
CROWD_SIZE = "mask of a crowd has a different size than its image: taken as the whole image"
MASK_AS_CROWD = (
    "mask is marked as a crowd, as CVAT marks every mask: no object in training; if it is one, read it with "
    "crowds_as_objects (--crowds-as-objects)"
)
OTHER_PAGE = "object lies on another page of its file, such as another slice of a stack: left out"
STATED_SIZE = "image has a different size than its annotations say: left out in training"
UNSTATED_SIZE = "image has no size in the annotations: that of its file is used"
MISSING_ANNOTATED = "annotation file has no image of its name: left out"
MISSING_LABELS = "image has no labels: taken as an image without objects"
BROKEN_MASK = "mask file cannot be read or holds no mask: left out"
NOT_ANNOTATED = "image has no annotation file: left out"
LOSSY_LABELS = "label image is a JPEG, which changes its values: left out"
LOSSY_MASK = "mask is a JPEG, which changes its values: pixels above half the range are inside"
BINARY_LABELS = "label image has the same value in several separate pieces: taken as one object"
VOID_LABELS = "label image has consecutive values and 255: 255 is taken as an object"
SIXTEEN_BIT = (
    "image has 16 bits per channel: stretched if CONTRAST_PERCENTILES is set; otherwise IMAGE_VALUE_RANGE, "
    "by default 0..65535, is scaled to 0..255"
)
ALPHA = "image has an alpha channel: dropped"
TURNED = "image has an EXIF orientation: rotated as viewers show it"
NOT_TURNED = "image has an EXIF orientation, but its annotations fit the stored rows and columns: not rotated"
UNCLEAR_TURN = (
    "image has an EXIF orientation that does not change its size, and its labels have none: taken as drawn "
    "on the image as viewers show it"
)

# Entries that are used, in another way than they are stored.
CHANGED = {SIXTEEN_BIT, ALPHA, TURNED, NOT_TURNED, MOVED_IMAGE, UNSTATED_SIZE}
# Kinds that leave out nothing that somebody has annotated.
COMPLETE = CHANGED | {
    BINARY_LABELS,
    CROWD_SIZE,
    LOSSY_MASK,
    MISSING_LABELS,
    NOT_ANNOTATED,
    OUTSIDE,
    REPEATED_CLASS_NAME,
    REPEATED_FILE,
    REPEATED_IMAGE,
    SIMILAR_CLASS_NAME,
    STRAY_PART,
    UNCLEAR_TURN,
    VOID_LABELS,
}

# Names in one line. All entries are counted and kept in `names`.
NAMES_PER_LINE = 3
LONGEST_NAME = 500

_SHORTENER = reprlib.Repr()
_SHORTENER.maxlevel = 3
_SHORTENER.maxlist = _SHORTENER.maxdict = 10
_SHORTENER.maxstring = _SHORTENER.maxother = _SHORTENER.maxlong = 60


class BrokenEntryError(InvalidDataError):
    """An entry of a dataset cannot be used.

    Attributes:
        kind: The kind of problem, one of the constants of this module.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str = BROKEN_FIELD,
        file: str | os.PathLike[str] | None = None,
        entry: str | None = None,
        field: str | None = None,
    ) -> None:
        super().__init__(message, file=file, entry=entry, field=field)
        self.kind = kind


class Problems:
    """The problems of one dataset, by kind. Each entry counts once.

    Attributes:
        names: Dict from kind to the names of the entries, in the order in which they were found.
    """

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}
        self._known: set[tuple[str, str]] = set()
        self._reported: dict[str, int] = {}

    def add(self, kind: str, name: str) -> None:
        """Note an entry.

        Args:
            kind: One of the constants of this module.
            name: File and entry, and what is wrong.
        """
        name = _printable(name)
        if (kind, name) not in self._known:
            self._known.add((kind, name))
            self.names.setdefault(kind, []).append(name)

    @contextlib.contextmanager
    def leave_out(self, file: str | os.PathLike[str], entry: str | None = None) -> Iterator[None]:
        """Note an entry if the block raises an error about data, instead of raising the error.

        Args:
            file: The file of the entry.
            entry: The entry, such as "annotations[3]".
        """
        where = f"{file}: {entry}" if entry else str(file)
        try:
            yield
        except BrokenEntryError as error:
            self.add(error.kind, str(error) if error.file else f"{where}: {error}")
        except InvalidDataError as error:
            self.add(BROKEN_FIELD, str(error) if error.file else f"{where}: {error}")
        except RecursionError:
            self.add(BROKEN_FIELD, f"{where}: The entry is nested too deeply.")

    @property
    def counts(self) -> dict[str, int]:
        """The number of entries of each kind."""
        return {kind: len(names) for kind, names in list(self.names.items())}

    def lines(self) -> list[str]:
        """Return one line for each kind: its number of entries, the kind, and the first names."""
        return [_line(kind, names) for kind, names in list(self.names.items())]

    def warn(self, changed: bool = True) -> None:
        """Log one warning for each kind that has new entries since the last call.

        Args:
            changed: Whether to also warn about entries that are used differently than they are stored.
        """
        for kind, names in list(self.names.items()):  # other threads may add kinds
            new = names[self._reported.get(kind, 0) :]
            if new and (changed or kind not in CHANGED):
                logger.warning("%s", _line(kind, new))
                self._reported[kind] = len(names)


@contextlib.contextmanager
def not_logged() -> Iterator[None]:
    """Return a context in which no problems are logged, for programs that list them themselves."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def short(value: object) -> str:
    """Return a value from a file as a short text for a message, even if it is large or deeply nested."""
    if isinstance(value, int) and value.bit_length() < 64:
        return str(value)  # by far the most frequent case
    try:
        text = _SHORTENER.repr(value)
    except ValueError:  # an integer of more digits than Python converts
        text = type(value).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."


def _line(kind: str, names: list[str]) -> str:
    more = "; ..." if len(names) > NAMES_PER_LINE else ""
    return f"{len(names)} x {kind} ({'; '.join(names[:NAMES_PER_LINE])}{more})"


def _printable(text: str) -> str:
    """Escape text that terminals and log files cannot show: line breaks, and lone surrogates."""
    text = text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}..."
    escaped = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in escaped)
