"""What the files of results say about the model: its name, its settings, and a hash of its weights.

The description does not depend on the folder of the weights, so they can be moved between runs. Another file
of the same name has another hash.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mrcnn.errors import MissingFileError

DIGITS = 16
SAVED_MODEL = "saved_model.pb"  # which only the folders of this format contain
BLOCK = 1 << 20  # bytes
PLAIN = (str, int, float, bool, type(None))  # types of arguments whose text is the same in every run


def describe(model: str | os.PathLike[str] | Callable[[], Any], description: str | None = None) -> str:
    """Return the description of a model.

    Args:
        model: The source of `mrcnn.load`, or a function that returns a model. Of a `functools.partial`, the
            files among its arguments count as weights.
        description: Text to use in place of name and settings. The hash is added to it.

    Raises:
        MissingFileError: If `model` is neither a file nor the name of published weights.
    """
    if callable(model):
        values = _arguments(model)
        name = description or _name_of(model)
    else:
        values, name = [model], description or Path(model).name
        if weights_hash(model) is None:
            raise MissingFileError(
                "There is no such weight file. Correct the path, or use a name of published weights, such as "
                "nucleus-light.",
                file=model,
            )
    hashes = [found for value in values if (found := weights_hash(value)) is not None]
    return f"{name} (weights {' '.join(hashes)})" if hashes else name


def weights_hash(source: Any) -> str | None:
    """Return a hash of weights: of the content of a file or a folder, or the known one of published weights.

    Args:
        source: A path or a name that `mrcnn.load` knows. Anything else has no hash.

    Returns:
        The first digits of the hash, or None.
    """
    if not isinstance(source, str | os.PathLike):
        return None
    path = Path(source)
    if not path.suffix and (known := _known(os.fspath(source))) is not None:
        if isinstance(known, str):
            return known
        path = known
    files = list(_files_of(path))
    if not files:
        return None
    whole = hashlib.sha256()
    for name, file in files:
        whole.update(name.encode())
        with open(file, "rb") as stream:
            while block := stream.read(BLOCK):
                whole.update(block)
    return whole.hexdigest()[:DIGITS]


def _known(name: str) -> str | Path | None:
    """Return the hash of weights that are downloaded by name, or the file of weights in the package."""
    try:
        from mrcnn.checkpoints import downloads
    except ImportError:  # exported files need none of its packages
        return None
    if name == "coco":
        return downloads.COCO_MODEL_HASH.rpartition(":")[2][:DIGITS]
    if name in downloads.PUBLISHED:
        return downloads.PUBLISHED[name].known_hash.rpartition(":")[2][:DIGITS]
    return downloads.shipped_weights(name) if name in downloads.SHIPPED else None


def _files_of(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a model, each with its name in the folder of a SavedModel, otherwise with ""."""
    if path.is_file():
        yield "", path
        if path.suffix.lower() == ".xml" and path.with_suffix(".bin").is_file():  # the weights of OpenVINO
            yield "", path.with_suffix(".bin")
    elif (path / SAVED_MODEL).is_file():  # no other folder, such as that of training runs
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            yield file.relative_to(path).as_posix(), file


def _arguments(function: Callable[[], Any]) -> list[Any]:
    if not isinstance(function, functools.partial):
        return []
    return [*function.args, *function.keywords.values()]


def _name_of(function: Callable[[], Any]) -> str:
    """Return the name of a function; of a `functools.partial`, return its arguments as text."""
    if not isinstance(function, functools.partial):
        return getattr(function, "__name__", type(function).__name__)
    named = [f"{key}={value}" for key, value in sorted(function.keywords.items()) if _is_plain(value)]
    return ", ".join([*(_text(value) for value in function.args), *named]) or _name_of(function.func)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(part) for part in value)
    return isinstance(value, PLAIN) and not _is_file(value)


def _text(value: Any) -> str:
    return Path(value).name if _is_file(value) else str(value)


def _is_file(value: Any) -> bool:
    return isinstance(value, str | os.PathLike) and any(True for _ in _files_of(Path(value)))
