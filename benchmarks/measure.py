"""What all benchmarks share: statistics of repeats, facts about the machine, tables, results as JSON."""

import argparse
import ast
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mrcnn import files

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("mrcnn", "keras", "tensorflow", "jax", "torch", "torchvision", "numpy")


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return median, quartiles, extremes and number of repeats of a measured quantity."""
    ordered = sorted(values)
    low, _, high = statistics.quantiles(ordered, n=4, method="inclusive") if len(ordered) > 1 else ordered * 3
    return {
        "median": statistics.median(ordered),
        "lower_quartile": low,
        "upper_quartile": high,
        "min": ordered[0],
        "max": ordered[-1],
        "repeats": len(ordered),
    }


def ratio(slower: Sequence[float], faster: Sequence[float]) -> float:
    """Return how many times faster: the median of the ratios by round, so that load affects both alike."""
    return statistics.median(a / b for a, b in zip(slower, faster, strict=True))


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages in PACKAGES."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        for name in (package, f"{package}-cpu"):
            try:
                installed[package] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
    return installed


def machine() -> dict[str, Any]:
    """Return processor, usable cores, memory in GB, system, and the GPU if nvidia-smi lists one."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": usable,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "gpu": gpu(),
    }


def gpu() -> str | None:
    """Return name, memory and driver of the NVIDIA GPUs; None if there are none."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    return _output(query)


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Format rows as text in aligned columns. Columns without a value are left out.

    Args:
        rows: Values by key. Numbers get three or four significant digits.
        columns: Heading of each key.
    """
    used = {key: head for key, head in columns.items() if any(row.get(key) is not None for row in rows)}
    lines = [list(used.values())] + [[_text(row.get(key)) for key in used] for row in rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(used))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def add_arguments(parser: argparse.ArgumentParser, repeats: int, warmup: int = 2) -> None:
    """Add the options that all benchmarks have."""
    parser.add_argument("--repeats", type=int, default=repeats, help="measured runs (default %(default)s)")
    parser.add_argument(
        "--warmup", type=int, default=warmup, help="runs before the measured ones (default %(default)s)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="run a tiny network once, to check that the script works"
    )
    parser.add_argument(
        "--set", nargs="+", default=[], type=setting, metavar="NAME=VALUE", help="fields of our Config"
    )
    parser.add_argument(
        "--output", type=Path, help="JSON file to write (default results/QUESTION-BACKENDS.json)"
    )


def setting(text: str) -> tuple[str, Any]:
    """Return name and value of "NAME=VALUE". The value is a Python literal, or a text if it is none."""
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line. With --quick there are at most two repeats and one warm-up."""
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.repeats, arguments.warmup = min(arguments.repeats, 2), min(arguments.warmup, 1)
    return arguments


class Report:
    """The rows of one benchmark, printed at once and written with the facts needed to repeat it.

    Args:
        question: Name of the benchmark.
        arguments: Its parsed options.
        backends: The backends that run.
    """

    def __init__(self, question: str, arguments: argparse.Namespace, backends: Sequence[str]):
        self.question = question
        self.path = arguments.output or RESULTS / f"{question}-{'-'.join(backends)}.json"
        self.content: dict[str, Any] = {
            "question": question,
            "command": shlex.join(["python", "-m", f"benchmarks.{question}", *sys.argv[1:]]),
            "options": json.loads(json.dumps(vars(arguments), default=str)),
            "started": _now(),
            "machine": machine(),
            "versions": {"parent": versions()},
            "commit": _commit(),
            "load_average_before": os.getloadavg(),
            "rows": [],
        }

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows shown up to now."""
        return self.content["rows"]

    def note_versions(self, name: str, installed: Mapping[str, str]) -> None:
        """Add the versions that another process reports."""
        self.content["versions"][name] = dict(installed)

    def show(self, rows: Sequence[dict[str, Any]], columns: Mapping[str, str], title: str) -> None:
        """Add rows, print them as a table and write the file, so that a later failure loses nothing."""
        self.rows.extend(rows)
        print(f"\n{title}\n\n{table(rows, columns)}", flush=True)
        self._write()

    def finish(self) -> Path:
        """Write the file for the last time and print the machine. Returns the file's path."""
        self._write()
        before, after = (self.content[f"load_average_{when}"][0] for when in ("before", "after"))
        facts = self.content["machine"]
        print(
            f"\n{facts['processor']}, {facts['cores']} cores, {facts['memory_gb']} GB, GPU: {facts['gpu']}; "
            f"load average {before:.1f} before, {after:.1f} after.\nWritten: {self.path}",
            flush=True,
        )
        return self.path

    def _write(self) -> None:
        self.content |= {"load_average_after": os.getloadavg(), "finished": _now()}
        files.write_json(self.path, self.content, indent=1)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str | None:
    folder = str(Path(__file__).parent)
    commit = _output(["git", "-C", folder, "rev-parse", "HEAD"])
    changed = commit and _output(["git", "-C", folder, "status", "--porcelain", "--untracked-files=no"])
    return f"{commit} with changes" if changed else commit


def _output(command: Sequence[str]) -> str | None:
    """What a command prints; None if it is missing, fails or prints nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}" if abs(value) >= 100 else f"{value:.3g}"
