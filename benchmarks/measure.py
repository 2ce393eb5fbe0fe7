"""What every benchmark shares: statistics of repeats, the machine, its versions, tables, results as JSON."""

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

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("mrcnn", "keras", "tensorflow", "jax", "torch", "torchvision", "numpy")


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles, extremes and number of repeats of a measured quantity."""
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
    """How many times faster: the median of the ratios round by round, so that a busy spell hits both."""
    return statistics.median(a / b for a, b in zip(slower, faster, strict=True))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter, those that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        for name in (package, f"{package}-cpu"):
            try:
                found[package] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
    return found


def machine() -> dict[str, Any]:
    """Processor, cores that may be used, memory in GB, system, and the GPU if nvidia-smi knows one."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": usable,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "gpu": gpu(),
    }


def gpu() -> str | None:
    """Name, memory and driver of the NVIDIA GPUs, None where there is none."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    return _output(query)


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Rows as text in aligned columns, the columns that are empty in every row left out.

    columns: key in a row to heading. Numbers are written with three or four significant digits.
    """
    used = {key: head for key, head in columns.items() if any(row.get(key) is not None for row in rows)}
    lines = [list(used.values())] + [[_text(row.get(key)) for key in used] for row in rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(used))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def add_arguments(parser: argparse.ArgumentParser, repeats: int, warmup: int = 2) -> None:
    """The options that every benchmark has."""
    parser.add_argument("--repeats", type=int, default=repeats, help="measured runs (default %(default)s)")
    parser.add_argument("--warmup", type=int, default=warmup, help="runs before (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a tiny network once: does the script work?")
    parser.add_argument(
        "--set", nargs="+", default=[], type=setting, metavar="NAME=VALUE", help="fields of our Config"
    )
    parser.add_argument(
        "--output", type=Path, help="JSON file to write (default results/QUESTION-BACKENDS.json)"
    )


def setting(text: str) -> tuple[str, Any]:
    """Name and value of "NAME=VALUE"; the value is a Python literal, or else a word."""
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of a command line; --quick repeats little, whatever else is asked for."""
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.repeats, arguments.warmup = min(arguments.repeats, 2), min(arguments.warmup, 1)
    return arguments


class Report:
    """The rows of one benchmark, printed as they come and written with what repeats them.

    question: name of the benchmark; arguments: its parsed options; backends: what ran.
    """

    def __init__(self, question: str, arguments: argparse.Namespace, backends: Sequence[str]):
        self.question = question
        self.path = arguments.output or RESULTS / f"{question}-{'-'.join(backends)}.json"
        options = {
            name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()
        }
        self.content: dict[str, Any] = {
            "question": question,
            "command": shlex.join(["python", "-m", f"benchmarks.{question}", *sys.argv[1:]]),
            "options": options,
            "started": _now(),
            "machine": machine(),
            "versions": {"parent": versions()},
            "commit": _commit(),
            "load_average_before": os.getloadavg(),
            "rows": [],
        }

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows so far."""
        return self.content["rows"]

    def note_versions(self, name: str, found: Mapping[str, str]) -> None:
        """Keep the versions that another process reported."""
        self.content["versions"][name] = dict(found)

    def show(self, rows: Sequence[dict[str, Any]], columns: Mapping[str, str], title: str) -> None:
        """Keep rows, print them as a table and write the file, so that a later failure loses nothing."""
        self.rows.extend(rows)
        print(f"\n{title}\n\n{table(rows, columns)}", flush=True)
        self._write()

    def finish(self) -> Path:
        """Write the file for the last time and print the machine. Returns the file's path."""
        self._write()
        before, after = (self.content[f"load_average_{when}"][0] for when in ("before", "after"))
        told = self.content["machine"]
        print(
            f"\n{told['processor']}, {told['cores']} cores, {told['memory_gb']} GB, GPU: {told['gpu']}; "
            f"load average {before:.1f} before, {after:.1f} after.\nWritten: {self.path}",
            flush=True,
        )
        return self.path

    def _write(self) -> None:
        self.content |= {"load_average_after": os.getloadavg(), "finished": _now()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(self.path.name + ".part")
        temporary.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, self.path)


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
    """What a command prints, None if it is missing, fails or prints nothing."""
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
