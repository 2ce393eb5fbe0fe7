"""How long do people wait before things run: for the first detection, for new image sizes, for a first step?

    python -m benchmarks.first_result --root ../before . --peer-python PYTHON

Each task runs in a process of its own, for each checkout, backend and round in turn. Weights are random.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import measure
from mrcnn.backend import compilation_cache

TASKS = Path(__file__).with_name("first_result_tasks.py")
LIMIT = 1200  # seconds of one process

DETECT = {
    "import_seconds": "import s",
    "build_seconds": "build s",
    "first_seconds": "first detect() s",
    "second_seconds": "second s",
    "total_seconds": "start to first result s",
    "total_cpu": "in CPU s",
    "peak_mb": "peak MB",
}
SIZES = {
    "sizes": "sizes",
    "folder_seconds": "63 images s",
    "folder_cpu": "in CPU s",
    "memory_per_size_kb": "KB kept per random size",
    "peak_mb": "peak MB",
}
TRAIN = {
    "step_1_seconds": "first step s",
    "step_1_cpu": "in CPU s",
    "step_3_seconds": "third step s",
    "memory_per_training_mb": "MB kept per train()",
    "peak_mb": "peak MB",
}
COLUMNS = {"detect": DETECT, "sizes": SIZES, "train": TRAIN}
TITLES = {
    "detect": "From the start of Python to the first detection",
    "sizes": "A folder of images of ten sizes, one by one",
    "train": "The first training step, batch 2",
}


@dataclass(frozen=True)
class Case:
    """What one process measures.

    Args:
        who: Name in the table.
        python: Interpreter.
        root: Checkout of the package.
        task: Name of the task.
        network: Name of the network.
        numbers: Side of the images and number of repetitions.
        settings: Fields of the Config.
        environment: Variables of the environment.
    """

    who: str
    python: str
    root: Path
    task: str
    network: str
    numbers: tuple[int, int]
    settings: dict[str, Any]
    environment: dict[str, str]


def run(case: Case) -> dict[str, Any] | None:
    """Return the result of one task in a new process, or None if it fails."""
    words = [case.root, case.task, case.network, *case.numbers, json.dumps(case.settings)]
    command = [case.python, "-c", TASKS.read_text(), *map(str, words)]
    environment = {**os.environ, **case.environment}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=LIMIT)
    if done.returncode:
        print(f"{case.task} failed, {case.who}: {done.stderr.strip().splitlines()[-1:]}", flush=True)
        return None
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    if "first_seconds" in result:
        for unit in ("seconds", "cpu"):
            result[f"total_{unit}"] = sum(result[f"{part}_{unit}"] for part in ("import", "build", "first"))
    return result


def cases(task: str, arguments: argparse.Namespace) -> Iterator[Case]:
    """Yield the processes of a task, in order."""
    count = {"sizes": arguments.count, "train": arguments.trainings}.get(task, 0)
    numbers, settings = (arguments.side, count), dict(arguments.set)
    for network in ["light"] if task == "sizes" else arguments.networks:
        for backend in arguments.backends:
            for root in map(Path.resolve, arguments.root):
                case = Case(
                    f"{root.name}, {backend}",
                    sys.executable,
                    root,
                    task,
                    network,
                    numbers,
                    settings,
                    {"KERAS_BACKEND": backend},
                )
                if not arguments.cold_and_warm:
                    yield case
                    continue
                with tempfile.TemporaryDirectory() as folder:
                    for state in ("cold", "warm"):
                        environment = {**case.environment, compilation_cache.VARIABLE: folder}
                        yield replace(case, who=f"{case.who}, {state}", environment=environment)
    if task == "detect" and arguments.peer_python:
        python, name = arguments.peer_python, "torchvision"
        yield Case(name, python, Path.cwd(), name, "resnet50", numbers, {}, {})


def medians(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of each number of several results."""
    return {name: statistics.median(one[name] for one in runs) for name in runs[0]}


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("--root", nargs="+", type=Path, default=[here], help="checkouts, in order")
    parser.add_argument("--tasks", nargs="+", choices=COLUMNS, default=list(COLUMNS))
    parser.add_argument("--networks", nargs="+", default=["resnet50", "light"])
    parser.add_argument("--backends", nargs="+", default=["tensorflow"], help="tensorflow jax torch")
    parser.add_argument("--side", type=int, default=512, help="side of the images (default %(default)s)")
    parser.add_argument("--count", type=int, default=150, help="random sizes (default %(default)s)")
    parser.add_argument("--trainings", type=int, default=4, help="repeated trainings (default %(default)s)")
    parser.add_argument(
        "--cold-and-warm", action="store_true", help="run each task twice with one MRCNN_COMPILATION_CACHE"
    )
    parser.add_argument("--peer-python", help="interpreter of an environment with torchvision")
    measure.add_arguments(parser, repeats=1)
    return parser


def main(argv: Sequence[str] | None = None) -> Path:
    """Run the benchmark and return the path of its JSON file, next to which the tables are as Markdown."""
    arguments = measure.parsed(options(), argv)
    if arguments.quick:
        arguments.side, arguments.count, arguments.trainings = 128, 2, 0
        arguments.networks = ["light"]
    report = measure.Report("first_result", arguments, arguments.backends)
    texts = []
    for task in arguments.tasks:
        runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for case in itertools.chain.from_iterable(cases(task, arguments) for _ in range(arguments.repeats)):
            result = run(case)
            if result:
                runs.setdefault((case.who, case.network), []).append(result)
        rows = [
            {"task": task, "who": who, "network": network, **medians(results)}
            for (who, network), results in runs.items()
        ]
        columns = {"who": "checkout", "network": "network", **COLUMNS[task]}
        report.show(rows, columns, TITLES[task])
        texts.append(f"{TITLES[task]}\n\n```text\n{measure.table(rows, columns)}\n```\n")
    path = report.finish()
    path.with_suffix(".md").write_text("\n".join(texts))
    return path


if __name__ == "__main__":
    main()
