"""What is broken in a data set, entry by entry: counted, named, and what was done about it."""

import logging

logger = logging.getLogger(__name__)

# Each kind says what is wrong and what happens to the entry.
MISSING_IMAGE = "image file is missing: left out"
UNREADABLE_IMAGE = "image file cannot be read: left out, in training at the latest"
UNKNOWN_IMAGE = "annotation of an image that is not listed: left out"
BROKEN_FIELD = "field is missing or of a wrong kind: left out"
UNKNOWN_CLASS = "class id or name is unknown: left out"
NO_OUTLINE = "shape has no inside, or a box stands in the outline's place: left out"
NO_AREA = "object has no area: left out"
OUTSIDE = "object reaches outside its image: clipped"
MASK_SIZE = "mask has another size than its image: left out"
STATED_SIZE = "image has another size than its annotations state: left out in training"
MISSING_LABELS = "image has no labels: taken as without objects"
BROKEN_MASK = "mask file cannot be read or holds no mask: left out"
SIXTEEN_BIT = "picture has 16 bits a channel: 0..65535 are taken as 0..255"
ALPHA = "picture has an alpha channel: dropped"
TURNED = "picture has an EXIF orientation: turned as viewers show it"
NOT_TURNED = (
    "picture has an EXIF orientation, but its annotations fit the stored rows and columns: not turned"
)

# Whole entries that are read in another way than they are stored.
CHANGED = {SIXTEEN_BIT, ALPHA, TURNED, NOT_TURNED}

NAMED = 3  # entries named in a line; all are counted, and kept in `names`


class Problems:
    """Broken entries of one data set, by kind, each once.

    names: of the entries of each kind, in the order they were found.
    """

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}
        self._known: set[tuple[str, str]] = set()
        self._told: dict[str, int] = {}

    def add(self, kind: str, name: str) -> None:
        """Note an entry; name: file and entry, for people to find it."""
        if (kind, name) not in self._known:
            self._known.add((kind, name))
            self.names.setdefault(kind, []).append(name)

    @property
    def counts(self) -> dict[str, int]:
        """How many entries there are of each kind."""
        return {kind: len(names) for kind, names in self.names.items()}

    def lines(self) -> list[str]:
        """One line for each kind: how many, what, and the first names."""
        return [_line(kind, names) for kind, names in self.names.items()]

    def warn(self, changed: bool = True) -> None:
        """One warning in the log for each kind that has new entries since the last one.

        changed: warn of whole entries that are read in another way than they are stored, too.
        """
        for kind, names in self.names.items():
            new = names[self._told.get(kind, 0) :]
            if new and (changed or kind not in CHANGED):
                logger.warning(_line(kind, new))
                self._told[kind] = len(names)


def _line(kind: str, names: list[str]) -> str:
    more = "; ..." if len(names) > NAMED else ""
    return f"{len(names)} x {kind} ({'; '.join(names[:NAMED])}{more})"
