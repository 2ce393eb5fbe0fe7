"""The Parquet files of results: their columns, and how one is written and read.

A file has one row per image:

    path            the image, relative to the folder of the images, with slashes
    error           why the image was left out; null for all others
    error_size      bytes of a file that cannot be used until it changes; null for errors that may pass
    height, width   of the image in pixels; null with an error
    class_ids       int32 [N], by descending score
    class_names     N texts
    scores          float32 [N]
    boxes           int32 [N, (y1, x1, y2, x2)] in pixels; row y2 and column x2 are outside
    counts          N texts: the compressed counts of COCO's run lengths, whose size is [height, width]
"""

import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow
from pyarrow import fs, parquet

from mrcnn.errors import InvalidDataError, reason
from mrcnn.results.detections import Detections
from mrcnn.scale.locations import list_files, open_location

SCHEMA = pyarrow.schema(
    [
        ("path", pyarrow.string()),
        ("error", pyarrow.string()),
        ("error_size", pyarrow.int64()),
        ("height", pyarrow.int32()),
        ("width", pyarrow.int32()),
        ("class_ids", pyarrow.list_(pyarrow.int32())),
        ("class_names", pyarrow.list_(pyarrow.string())),
        ("scores", pyarrow.list_(pyarrow.float32())),
        ("boxes", pyarrow.list_(pyarrow.list_(pyarrow.int32(), 4))),
        ("counts", pyarrow.list_(pyarrow.string())),
    ]
)
# The key of the description of the model in the metadata of each file.
MODEL_KEY = b"mrcnn.model"
# A column that a table may lack; its errors then count as such that may pass.
ERROR_SIZE = "error_size"

Row = dict[str, Any]


class LeftOut(NamedTuple):
    """An image that was left out: the file with its row, and its `error_size`."""

    file: str
    error_size: int | None


def row_of(path: str, result: Detections) -> Row:
    """Return the row of an image.

    Args:
        path: The image, relative to its folder.
        result: Its detections.
    """
    codes = result.mask_crops().run_lengths()
    return {
        "path": path,
        "error": None,
        "error_size": None,
        "height": result.shape[0],
        "width": result.shape[1],
        "class_ids": [int(class_id) for class_id in result["class_ids"]],
        "class_names": [result.name_of(class_id) for class_id in result["class_ids"]],
        "scores": [float(score) for score in result["scores"]],
        "boxes": np.asarray(result["rois"]).reshape(-1, 4).astype(int).tolist(),
        "counts": [_text(code["counts"]) for code in codes],
    }


def row_of_error(path: str, error: BaseException, size: int | None = None) -> Row:
    """Return the row of an image that cannot be used.

    Args:
        path: The image, relative to its folder.
        error: The reason. One of the system or about memory may pass, and so may that of a file which cannot
            be decoded: it may be incomplete because it is still being copied.
        size: Bytes of the file, if it was read.
    """
    empty: Row = dict.fromkeys(SCHEMA.names)
    may_pass = isinstance(error, OSError | MemoryError)
    return empty | {"path": path, "error": reason(error), "error_size": None if may_pass else size}


def result_of(row: Row) -> Detections:
    """Return the detections in a row without error. Masks are COCO run lengths."""
    names = dict(zip(row["class_ids"], row["class_names"], strict=True))
    class_names = ["background", *(names.get(n, f"class {n}") for n in range(1, max(names, default=0) + 1))]
    size = [row["height"], row["width"]]
    return Detections(
        np.array(row["boxes"], np.int32).reshape(-1, 4),
        np.array(row["class_ids"], np.int32),
        np.array(row["scores"], np.float32),
        [{"size": size, "counts": counts} for counts in row["counts"]],
        shape=size,
        class_names=class_names,
        path=row["path"],
    )


def write_rows(output: str, paths: Sequence[str], rows: Sequence[Row], model: str) -> None:
    """Write the rows of some images to one file, which appears when it is complete.

    The paths determine its name, so a second attempt replaces the file of the first.

    Args:
        output: The folder; see `open_location`.
        paths: The images.
        rows: One row per image.
        model: The description of the model.
    """
    name = f"part-{hashlib.sha256(chr(10).join(paths).encode()).hexdigest()[:24]}.parquet"
    schema = SCHEMA.with_metadata({MODEL_KEY: model.encode()})
    _write_table(output, name, pyarrow.Table.from_pylist(list(rows), schema=schema))


def _write_table(output: str | os.PathLike[str], name: str, table: Any) -> None:
    system, root = open_location(output)
    # Two workers may write the same file, if one was taken for dead.
    unfinished = f"{root}/.{name}.{os.getpid()}-{os.urandom(4).hex()}"
    system.create_dir(root, recursive=True)
    try:
        parquet.write_table(table, unfinished, filesystem=system, compression="zstd")
        system.move(unfinished, f"{root}/{name}")
    except BaseException:
        if system.get_file_info(unfinished).type == fs.FileType.File:
            system.delete_file(unfinished)
        raise


def read_tables(output: str | os.PathLike[str], columns: Sequence[str] | None = None) -> Iterator[Any]:
    """Yield each file of a folder as a pyarrow.Table.

    Args:
        output: The folder; see `open_location`.
        columns: Columns to read; all by default.

    Raises:
        MissingFileError: If the folder does not exist.
        InvalidDataError: If a file is damaged, or has other columns.
    """
    for _, table in _named_tables(output, columns):
        yield table


def _named_tables(output: str | os.PathLike[str], columns: Sequence[str] | None) -> Iterator[tuple[str, Any]]:
    system, root = open_location(output)
    for name in list_files(output, {".parquet"}):
        try:
            with system.open_input_file(f"{root}/{name}") as stream:
                file = parquet.ParquetFile(stream)
                missing = set(SCHEMA.names) - set(file.schema_arrow.names)
                if missing - {ERROR_SIZE}:
                    raise InvalidDataError(
                        f"the file has no columns {sorted(missing)}. Move files from other programs "
                        "elsewhere.",
                        file=f"{root}/{name}",
                    )
                wanted = SCHEMA.names if columns is None else list(columns)
                table = file.read(columns=[column for column in wanted if column not in missing])
                if missing:
                    table = table.append_column(ERROR_SIZE, pyarrow.nulls(table.num_rows, pyarrow.int64()))
                yield name, table.select(wanted)
        except pyarrow.ArrowInvalid as error:
            raise InvalidDataError(
                f"the file is damaged ({reason(error)}). Delete it to process its images again.",
                file=f"{root}/{name}",
            ) from error


def finished_paths(output: str | os.PathLike[str], model: str) -> tuple[set[str], dict[str, LeftOut]]:
    """Return the images that already have results, and those that were left out.

    Args:
        output: The folder; see `open_location`. It need not exist.
        model: The description of the model.

    Raises:
        ValueError: If another model wrote them.
        InvalidDataError: If a file is damaged.
    """
    system, root = open_location(output)
    found: set[str] = set()
    left_out: dict[str, LeftOut] = {}
    if system.get_file_info(root).type == fs.FileType.NotFound:
        return found, left_out
    for name, table in _named_tables(output, ["path", "error", "error_size"]):
        written_by = (table.schema.metadata or {}).get(MODEL_KEY, b"").decode()
        if written_by != model:
            raise ValueError(
                f"`output` must be a new folder, or one with results of the same model. Received: "
                f"output={os.fspath(output)!r}, with results of {written_by}, for {model}. "
                "Choose another folder."
            )
        for row in table.to_pylist():
            if row["error"] is None:
                found.add(row["path"])
            else:
                left_out[row["path"]] = LeftOut(name, row["error_size"])
    return found, left_out


def remove_rows(output: str | os.PathLike[str], paths: Collection[str], names: Collection[str]) -> None:
    """Remove the rows of images from files, and delete the files that have no other rows.

    Args:
        output: The folder; see `open_location`.
        paths: The images.
        names: The files in which they are.
    """
    system, root = open_location(output)
    for name in names:
        table = parquet.read_table(f"{root}/{name}", filesystem=system, partitioning=None)
        rest = table.filter(pyarrow.array([path not in paths for path in table["path"].to_pylist()]))
        if rest.num_rows:
            _write_table(output, name, rest)
        else:
            system.delete_file(f"{root}/{name}")


def _text(counts: str | bytes) -> str:
    return counts.decode("ascii") if isinstance(counts, bytes) else counts
