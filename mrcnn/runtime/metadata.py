"""The description of an exported file: settings, class names, versions.

Every format stores the same JSON text under the key `KEY`.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mrcnn.errors import InvalidDataError

if TYPE_CHECKING:
    from mrcnn.config import Config

# The key of the text in the metadata of a file, and the file that holds it in a folder or archive.
KEY = "mrcnn"
FILE_NAME = "mrcnn.json"
# Raised when older runners cannot read newer files.
FORMAT_VERSION = 1

# The outputs of an exported network, in this order where a format has no names.
OUTPUTS = ("boxes", "class_ids", "scores", "masks", "count")
INPUT = "images"
DTYPES = ("float32", "uint8")
PRECISIONS = ("float32", "float16", "int8")


@dataclass(frozen=True)
class Metadata:
    """The description of an exported file.

    Attributes:
        version: Version of the package that wrote the file.
        class_names: Names of the classes, background first.
        dtype: Dtype of the input: "float32" or "uint8".
        size: (height, width) of the images if the file takes only one size, else None.
        canvas: (height, width) to which the file pads images; None for the next multiples of `multiple`.
        multiple: What both sides of a padded image are a multiple of.
        padding: "center" for black on all sides, "after" for the mean on the right and at the bottom.
        config: The settings of the model, as `Config.to_dict` returns them.
        precision: The precision of the network: "float32", "float16" or "int8".
    """

    version: str
    class_names: tuple[str, ...]
    dtype: str
    size: tuple[int, int] | None
    canvas: tuple[int, int] | None
    multiple: int
    padding: str
    config: dict[str, Any]
    precision: str = "float32"

    def to_json(self) -> str:
        """Return the text that a file stores."""
        return json.dumps({"format_version": FORMAT_VERSION, **asdict(self)})

    @classmethod
    def from_json(cls, text: str | None, file: str) -> "Metadata":
        """Read the text of a file.

        Args:
            text: The text in the file, or None if there is none.
            file: Path of the file, for errors.

        Raises:
            InvalidDataError: If the text does not describe an exported Mask R-CNN, or has a newer format.
        """
        if not text:
            raise InvalidDataError(
                f"The file has no metadata {KEY!r}, so it does not come from MaskRCNN.export. Export the "
                "model with MaskRCNN.export.",
                file=file,
            )
        try:
            values = json.loads(text)
            version = int(values["format_version"])
        except (ValueError, KeyError, TypeError) as error:
            raise _unreadable(error, file) from error
        if version > FORMAT_VERSION:
            raise InvalidDataError(
                f"The file has a newer format ({version} > {FORMAT_VERSION}), written by version "
                f"{values.get('version')} of the package. Update keras-mrcnn.",
                file=file,
            )
        try:
            return cls(
                version=values["version"],
                class_names=tuple(values["class_names"]),
                dtype=values["dtype"],
                size=_pair(values["size"]),
                canvas=_pair(values["canvas"]),
                multiple=int(values["multiple"]),
                padding=values["padding"],
                config=dict(values["config"]),
                precision=values.get("precision", "float32"),
            )
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise _unreadable(error, file) from error

    def read_config(self) -> "Config":
        """Return the settings as a Config. Callables are left out, because the file holds the network."""
        from mrcnn.config import Config

        return Config.from_dict({name: x for name, x in self.config.items() if name != "CALLABLES"})


def _unreadable(error: Exception, file: str) -> InvalidDataError:
    what = f"there is no field {error}" if isinstance(error, KeyError) else str(error)
    return InvalidDataError(
        f"The metadata {KEY!r} cannot be read: {what}. Export the model again.", file=file
    )


def _pair(value: Sequence[int] | None) -> tuple[int, int] | None:
    return None if value is None else (int(value[0]), int(value[1]))


def check_names(class_names: Sequence[str] | None, num_classes: int) -> tuple[str, ...]:
    """Return class names, background first.

    Args:
        class_names: Names with or without the background ("BG"), or None for numbers.
        num_classes: Classes including the background.

    Raises:
        ValueError: If the number of names does not fit.
    """
    if class_names is None:
        return ("BG", *(str(number) for number in range(1, num_classes)))
    names = tuple(str(name) for name in class_names)
    if len(names) == num_classes - 1:
        names = ("BG", *names)
    if len(names) != num_classes:
        raise ValueError(
            f"`class_names` must have one name for each of the NUM_CLASSES={num_classes} classes; the "
            f"background may be left out. Received: {len(names)} names"
        )
    return names
