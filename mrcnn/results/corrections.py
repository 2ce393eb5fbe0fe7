"""Which annotations in a folder of results somebody has corrected or drawn.

A run notes the time of each annotation file that it writes: line by line in the hidden file `.unfinished`,
and in `.written`, together with those of all earlier runs, when it ends. A file of another time was changed
by somebody else. In a folder without `.written`, as earlier versions leave it, this is a file that is newer
than `counts.csv`.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

from mrcnn import files
from mrcnn.results.places import CORRECTED, COUNTS, corrected_places

WRITTEN, UNFINISHED = ".written", ".unfinished"
SECOND = 10**9  # in ns
ROUNDING = 2 * SECOND  # zip files and USB sticks keep even seconds, which Windows rounds up
MINUTE = 60 * SECOND  # the file that a killed run was writing is not much newer than its note
LISTED = 3  # files that an error names


def changed_files(folder: Path, formats: Sequence[str] = tuple(CORRECTED)) -> list[Path]:
    """Return the annotations that no run has written as they are, sorted.

    Somebody may have corrected or drawn them. In a folder without results, these are all annotations, and in
    a copy that lost the times of the files, too. The files that a killed run was writing, and its temporary
    files, do not count.

    Args:
        folder: The folder of results.
        formats: The formats of the annotations, some of `mrcnn.results.folder.FORMATS`.
    """
    known = _read(folder)
    return sorted(
        path
        for place in corrected_places(formats)
        for path in folder.glob(place.format("*"))
        if not files.LEFTOVER.fullmatch(path.name)
        and not path.name.startswith("._")  # files of macOS beside those of other file systems
        and known.is_changed(path.relative_to(folder).as_posix(), place, _time_of(path))
    )


def refuse_changed(folder: Path, formats: Sequence[str]) -> None:
    """Raise FileExistsError if a run of these formats could replace what somebody has corrected or drawn."""
    changed = changed_files(folder, formats)
    if changed:
        more = f" and {len(changed) - LISTED} more" if len(changed) > LISTED else ""
        raise FileExistsError(
            f"{', '.join(map(str, changed[:LISTED]))}{more} may have been corrected or drawn by hand: no run "
            "has written them as they are, or a copy has changed the times of the files. Choose another "
            "folder for the results, or pass overwrite=True (--overwrite on the command line) to replace "
            "them."
        )


def has_results(folder: Path) -> bool:
    """Return whether a run has written results to a folder."""
    return (folder / WRITTEN).exists() or (folder / COUNTS).exists()


class RunNotes:
    """Notes the times of the annotations that a run writes to a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._has_begun = False

    def begin(self) -> None:
        """Add the notes of a killed run to those of all runs. Call this before the run writes anything."""
        if not self._has_begun:
            self.close()
            self._has_begun = True

    @contextlib.contextmanager
    def writing(self, names: Sequence[str]) -> Iterator[None]:
        """Note that the block writes a file, and its time after the block, also if it ends with an error.

        Args:
            names: The possible names of the file, relative to the folder, with slashes.
        """
        if not names:
            yield
            return
        before = {name: _version(self._folder / name) for name in names}
        self._append({"time": time.time_ns(), "writing": list(names)})
        try:
            yield
        finally:
            after = {name: _version(self._folder / name) for name in names}
            self._append(
                {"written": {name: after[name][0] if after[name] != before[name] else 0 for name in names}}
            )

    def close(self) -> None:
        """Add the notes of the run to those of all runs."""
        files.write_json(self._folder / WRITTEN, dataclasses.asdict(_read(self._folder)))
        (self._folder / UNFINISHED).unlink(missing_ok=True)

    def _append(self, note: dict[str, Any]) -> None:
        with open(self._folder / UNFINISHED, "a", encoding="utf-8") as log:
            log.write(json.dumps(note) + "\n")


@dataclasses.dataclass(frozen=True)
class _Known:
    """What runs have written to a folder.

    Attributes:
        files: The time of each file, in ns.
        before: For each place, the time up to which other files there are results.
    """

    files: dict[str, int]
    before: dict[str, int]

    def is_changed(self, name: str, place: str, changed: int) -> bool:
        """Return whether a file, last changed at some time, is not as a run has written it."""
        if name in self.files:
            later = changed - self.files[name]
            return later < -ROUNDING or later > (ROUNDING if changed % ROUNDING == 0 else 0)
        return changed > self.before.get(place, 0)


def _read(folder: Path) -> _Known:
    """Return what is known of a folder from the notes of all runs. Damaged notes make all files unknown."""
    try:
        content = json.loads((folder / WRITTEN).read_bytes())
        known = _Known(dict(content["files"]), dict(content["before"]))
    except FileNotFoundError:
        known = _Known({}, dict.fromkeys(corrected_places(), _time_of(folder / COUNTS)))
    except (ValueError, TypeError, KeyError):
        known = _Known({}, {})
    unfinished: dict[str, int] = {}  # when a run noted that it writes these files
    for note in _unfinished_notes(folder, known):
        unfinished |= dict.fromkeys(note.get("writing", ()), note.get("time", 0))
        for name, written in note.get("written", {}).items():
            unfinished.pop(name, None)
            if written:
                known.files[name] = written
    for name, noted in unfinished.items():
        changed = _time_of(folder / name)
        if noted - ROUNDING <= changed < noted + MINUTE:
            known.files[name] = changed
    return known


def _unfinished_notes(folder: Path, known: _Known) -> Iterator[dict[str, Any]]:
    """Yield the notes of a run that has not ended.

    An earlier version has noted its formats and the files that it was writing. All older files of these
    formats are results.
    """
    path = folder / UNFINISHED
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            note = json.loads(line)
        except ValueError:  # the run was killed before it had written the line
            continue
        if "formats" in note:
            started, places = _time_of(path), corrected_places(note["formats"])
            known.before.update({place: max(known.before.get(place, 0), started) for place in places})
            patterns = [place.format("*") for place in places]
            own = [name for name in note["files"] if any(map(PurePath(name).match, patterns))]
            note = {"time": started, "writing": own}
        yield note


def _time_of(path: Path) -> int:
    """Return the time of the last change of a file in ns, or 0 without a file."""
    return _version(path)[0]


def _version(path: Path) -> tuple[int, int]:
    """Return when a file was changed, in ns, and a number that changes when it is replaced; 0 without one."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return 0, 0
    return status.st_mtime_ns, status.st_ino
