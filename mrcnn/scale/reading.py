"""Read the results of many images back."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from mrcnn.results.detections import Detections
from mrcnn.scale.tables import read_tables, result_of


@dataclass
class Summary:
    """What a folder of results contains.

    Attributes:
        images: Number of images with results.
        instances: Number of detections.
        errors: The images that were left out, each with the reason.
    """

    images: int = 0
    instances: int = 0
    errors: dict[str, str] = field(default_factory=dict)


def read_results(output: str | os.PathLike[str]) -> Iterator[Detections]:
    """Yield the detections of each image, in no particular order. One file at a time is in memory.

    Images that were left out are skipped; see `read_errors`. For tables, read the folder with
    `pandas.read_parquet(output)` or any other program that reads Parquet.

    Args:
        output: The folder of `detect_images`, on disk or in an object store.

    Yields:
        Detections, with COCO run lengths as masks. `path` is relative to the folder of the images.

    Raises:
        MissingFileError: If the folder does not exist.
        InvalidDataError: If a file is damaged, or of another program.
    """
    for table in read_tables(output):
        for row in table.to_pylist():
            if row["error"] is None:
                yield result_of(row)


def read_errors(output: str | os.PathLike[str]) -> dict[str, str]:
    """Return the images that were left out, each with the reason; see `read_results` for arguments."""
    return summarize(output).errors


def summarize(output: str | os.PathLike[str]) -> Summary:
    """Return the numbers of images and detections, and the images that were left out.

    Args:
        output: The folder of `detect_images`, on disk or in an object store.
    """
    summary = Summary()
    for table in read_tables(output, ["path", "error", "class_ids"]):
        for row in table.to_pylist():
            if row["error"] is None:
                summary.images += 1
                summary.instances += len(row["class_ids"])
            else:
                summary.errors[row["path"]] = row["error"]
    return summary
