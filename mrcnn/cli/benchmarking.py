"""The command `mrcnn benchmark`: run processes that measure, and print a table of the results."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mrcnn.cli.models import is_exported
from mrcnn.cli.options import refuse, refuse_setting
from mrcnn.errors import MissingFileError
from mrcnn.threads import available_cores

# A process that measures: the environment variables by which frameworks count their threads.
THREAD_VARIABLES = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    *("TF_NUM_INTRAOP_THREADS", "PJRT_NPROC"),
)
COLUMNS = {
    "size": "image",
    "batch": "batch",
    "threads": "threads",
    "precision": "precision",
    "median": "s/image",
    "spread": "quartiles",
    "per_second": "images/s",
    "prepare": "prepare",
    "network": "network",
    "masks": "masks",
    "objects": "objects",
    "megabytes": "MB",
}
# What distinguishes the rows.
CASE = ("size", "batch", "threads", "precision")
LEAST_WIDTH = 110  # characters
# A part of the time from which on it is named as what limits.
LARGE_SHARE = 0.25
SUBJECTS = {"network": "The network", "prepare": "Preparing images", "masks": "Placing masks"}
ADVICE = {
    "network": "To make it faster, use a GPU, {export}smaller images (IMAGE_MAX_DIM) or a light network.",
    "prepare": "It runs in one Python thread. Prepare images in several processes, or store smaller images.",
    "masks": 'Pass masks="cropped" or masks="rle" to skip it.',
}


def benchmark_model(
    model: str,
    *,
    sizes: Sequence[int],
    batches: Sequence[int],
    threads: Sequence[int],
    precisions: Sequence[str],
    repeats: int,
    images: Path | None,
    choice: Mapping[str, Any],
    settings: Sequence[str],
    quiet: bool,
) -> tuple[dict[str, Any], str]:
    """Measure a model on this machine; see the command.

    Raises:
        RuntimeError: If a measurement fails.
        MissingFileError: If the folder of the images does not exist, or has no images.
        ValueError: If there is a `choice` of pages or channels, but no `images`; or if a setting is one that
            an option determines.
    """
    if images is None:
        refuse(
            choice,
            "{given} can only be used with --images. Pass a folder of images with --images, or leave out "
            "{given}.",
        )
    else:
        _check_images(images)
    refuse_setting(settings, "IMAGES_PER_GPU", "--batch")
    if precisions:
        refuse_setting(settings, "PRECISION", "--precision")
    rows: list[dict[str, Any]] = []
    for precision in precisions or [""]:
        for count in threads or [available_cores()]:
            case = {
                "model": model,
                "sizes": list(sizes),
                "batches": list(batches),
                "threads": count,
                "precision": precision,
                "repeats": repeats,
                "images": None if images is None else str(images),
                "choice": dict(choice),
                "settings": list(settings),
            }
            if not quiet:
                label = f", {precision}" if precision else ""
                print(f"Measuring {model} with {count} threads{label} ...", file=sys.stderr)
            rows += _measured(case)
    if not quiet:
        _show(rows)
    limits = what_limits(rows, is_exported(Path(model)))
    return {"model": model, "cores": available_cores(), "rows": rows, "limits": limits}, "\n".join(limits)


def _check_images(folder: Path) -> None:
    """Raise MissingFileError if the folder does not exist or has no images."""
    from mrcnn.formats.image_files import images_in

    if not images_in(folder, ""):
        raise MissingFileError(
            "There are no images in this folder. Pass a folder of images to --images.", file=folder
        )


def _measured(case: dict[str, Any]) -> list[dict[str, Any]]:
    """Run one process and return its rows."""
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(case["threads"]))
    done = subprocess.run(
        [sys.executable, "-m", "mrcnn.cli.benchmark_worker", json.dumps(case)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    answer = json.loads(lines[-1]) if lines else {}
    if done.returncode or "rows" not in answer:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(
            answer.get("error") or f"The measurement ended with code {done.returncode}: {last}"
        )
    rows: list[dict[str, Any]] = answer["rows"]
    return rows


def _show(rows: Sequence[dict[str, Any]]) -> None:
    """Print a table. What is equal in all rows stands above it, so that it fits into a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    texts = [_texts(row) for row in rows]
    equal = [name for name in CASE if len(rows) == 1 or len({row[name] for row in rows}) == 1]
    columns = {name: title for name, title in COLUMNS.items() if name not in equal}
    facts = ", ".join(f"{COLUMNS[name]} {texts[0][name]}" for name in equal)
    table = Table(title=facts, title_justify="left", box=box.SIMPLE_HEAD)
    for title in columns.values():
        table.add_column(title, justify="right", no_wrap=True)
    for row in texts:
        table.add_row(*(row[name] for name in columns))
    Console(width=max(Console().width, LEAST_WIDTH)).print(table)


def _texts(row: dict[str, Any]) -> dict[str, str]:
    """Return the cells of a row by column."""
    shares = {name: f"{row[name] / row['median']:.0%}" for name in ADVICE}
    return {
        **{name: str(row[name]) for name in ("batch", "threads", "precision", "objects", "megabytes")},
        "size": f"{row['size']} x {row['size']}" if row["size"] else "as stored",
        "median": f"{row['median']:.3g}",
        "spread": f"{row['lower']:.2g}-{row['upper']:.2g}",
        "per_second": f"{1 / row['median']:.3g}",
        **shares,
    }


def what_limits(rows: Sequence[dict[str, Any]], is_file: bool = False) -> list[str]:
    """Return sentences about the bottleneck and how to remove it.

    Args:
        rows: Of `benchmark_worker`.
        is_file: Whether the model is an exported file.
    """
    export = "" if is_file else "a model from `mrcnn export`, "
    slowest = max(rows, key=lambda row: float(row["median"]))
    sentences = []
    for name in sorted(ADVICE, key=lambda name: -slowest[name]):
        share = slowest[name] / slowest["median"]
        if share >= LARGE_SHARE:
            advice = ADVICE[name].format(export=export)
            sentences.append(f"{SUBJECTS[name]} takes {share:.0%} of the time. {advice}")
    for name, words in (("threads", "{} threads"), ("batch", "Batches of {}"), ("precision", "{}")):
        sentences += _comparison(rows, name, words)
    return sentences


def _comparison(rows: Sequence[dict[str, Any]], name: str, words: str) -> list[str]:
    """Compare the first and last value of a column, with all others equal."""
    others = [column for column in CASE if column != name]
    first = rows[0]
    same = [row for row in rows if all(row[column] == first[column] for column in others)]
    if len(same) < 2:
        return []
    last = same[-1]
    if last["lower"] <= first["upper"] and first["lower"] <= last["upper"]:
        return [f"{words.format(last[name])}: no faster or slower than {first[name]} beyond the spread."]
    ratio = first["median"] / last["median"]
    kind = f"{ratio:.2g} times as fast as" if ratio >= 1 else f"{1 / ratio:.2g} times as slow as"
    return [f"{words.format(last[name])}: {kind} {first[name]}, per image."]
