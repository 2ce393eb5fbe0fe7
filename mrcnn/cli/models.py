"""Load models by name: weight files, published weights, exported files."""

import ast
import difflib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mrcnn.errors import InvalidDataError
from mrcnn.results.detections import Detections

if TYPE_CHECKING:
    from mrcnn.model import MaskRCNN


class Detecting(Protocol):
    """A detector: a MaskRCNN or a Runner."""

    config: Any

    @property
    def detect(self) -> Callable[..., list[Detections]]:
        """A function from images to the detections of each image."""

    @property
    def detect_large(self) -> Callable[..., Detections]:
        """The method that detects in an image of any size."""


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Return {name: value} from texts NAME=VALUE. A value is a Python literal, or else a string.

    Raises:
        ValueError: If a text has no "=", or Config has no such setting.
    """
    from mrcnn.config import Config

    known = [name for name in dir(Config) if name.isupper()]
    values: dict[str, Any] = {}
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set must be NAME=VALUE, such as IMAGE_MAX_DIM=512. Received: {text}")
        if name not in known:
            close = difflib.get_close_matches(name.upper(), known, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise ValueError(f"--set changes a setting of Config. Received: {name}.{hint}")
        try:
            values[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            values[name] = value
    return values


def load_keras_model(name: str, settings: Sequence[str] = ()) -> "MaskRCNN":
    """Return a model in inference mode of a weight file or a published name.

    Raises:
        InvalidDataError: If it is an exported file.
    """
    if is_exported(Path(name)):
        raise InvalidDataError(
            "This command does not accept exported files. Pass the weight file.", file=Path(name)
        )
    from mrcnn.loading import load

    return load(name, **parse_settings(settings))


def load_model(name: str, settings: Sequence[str] = (), **options: Any) -> Detecting:
    """Return a model of a weight file, a published name, or an exported file.

    Args:
        name: The file or the published name.
        settings: Texts NAME=VALUE.
        options: Options of `mrcnn.runtime.load`, for an exported file.

    Raises:
        InvalidDataError: If settings are given for an exported file.
    """
    from mrcnn.runtime.runner import load

    path = Path(name)
    if not is_exported(path):
        return load_keras_model(name, settings)
    if settings:
        raise InvalidDataError(
            "--set cannot change the settings of an exported file. Export the model again with these "
            "settings.",
            file=path,
        )
    return load(path, **options)


def warn_of_min_score(model: Detecting, min_score: float | None) -> None:
    """Warn if the model leaves out detections that --min-score asks for.

    Args:
        model: The model.
        min_score: The lowest score that the user has given; None without one.
    """
    if min_score is None:
        return
    least = float(model.config.DETECTION_MIN_CONFIDENCE or 0)
    if min_score >= least:
        return
    is_file = hasattr(model, "metadata")
    advice = "Export the model again with" if is_file else "Add"
    warnings.warn(
        f"--min-score {min_score:g} has the same effect as {least:g}, because the model leaves out "
        f"detections with a score below {least:g}. {advice} --set DETECTION_MIN_CONFIDENCE={min_score:g}.",
        stacklevel=2,
    )


def is_exported(path: Path) -> bool:
    """Return whether a path is that of a file or folder that `mrcnn export` writes."""
    from mrcnn.runtime.runner import ENGINES

    suffix = path.suffix.lower()
    return (suffix != "" and suffix in ENGINES) or (path / "saved_model.pb").is_file()
