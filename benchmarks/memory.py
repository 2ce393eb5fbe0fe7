"""How much memory do detect() and a training step need?

    python -m benchmarks.memory --sizes 512 1024 --peer-python PYTHON

Each figure is the peak of a new process after two runs, including its libraries. On a GPU, the framework's
own count is listed too.
"""

import argparse
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import contest, inference, measure, workers
from benchmarks.workers import Case, Contestant

COLUMNS = {
    "task": "task",
    "height": "height",
    "width": "width",
    "batch": "batch",
    "precision": "precision",
    "contestant": "contestant",
    "built_mb": "MB when built",
    "peak_mb": "peak MB",
    "device_peak_mb": "peak MB of GPU",
}


def cases(arguments: argparse.Namespace) -> list[Case]:
    """Return the cases, each of which runs in a process of its own."""
    batches = {"detect": arguments.detect_batches, "train": arguments.train_batches}
    all_cases = [
        Case(task, network, *size, batch, precision)
        for task, size, network, precision in itertools.product(
            arguments.tasks,
            [inference.sides(text) for text in arguments.sizes],
            arguments.networks,
            arguments.precisions,
        )
        for batch in batches[task]
    ]
    return [contest.quick(all_cases[0])] if arguments.quick else all_cases


def measured(make: Callable[[], Contestant]) -> list[contest.Row]:
    """Return one row with the peaks of a contestant; no row if it cannot run."""
    with workers.opened([make]) as contestants:
        for contestant in contestants:
            built = contestant.ask("memory")["peak_rss"]
            try:
                answer = [contestant.ask("run") for _ in range(2)][-1]
            except workers.WorkerError as error:
                print(f"\nNot measured: {error}", flush=True)
                return []
            peaks = contestant.ask("memory")
            device = peaks["device_peak"]
            return [
                {
                    "contestant": contestant.name,
                    **vars(contestant.case),
                    "built_mb": built / 1e6,
                    "peak_mb": peaks["peak_rss"] / 1e6,
                    "device_peak_mb": None if device is None else device / 1e6,
                    "seen": answer,
                }
            ]
    return []


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["detect", "train"])
    parser.add_argument("--sizes", nargs="+", default=["512", "1024"], help="such as 512 800x1333 1024")
    parser.add_argument("--networks", nargs="+", default=["resnet50"], help="resnet50 resnet101 light")
    parser.add_argument("--detect-batches", nargs="+", type=int, default=[1], help="images per batch")
    parser.add_argument("--train-batches", nargs="+", type=int, default=[1], help="images per batch")
    parser.add_argument("--precisions", nargs="+", default=["float32"], help="float32 bfloat16 float16")
    contest.add_arguments(parser)
    measure.add_arguments(parser, repeats=1)
    return parser


def main(argv: Sequence[str] | None = None) -> Path:
    """Run the benchmark and return the path of its JSON file."""
    arguments = measure.parsed(options(), argv)
    report = measure.Report("memory", arguments, arguments.backends)
    rows = []
    for case in cases(arguments):
        for make in contest.makers(arguments, [case]):
            rows += [row for _ in range(arguments.repeats) for row in measured(make)]
    report.show(rows, COLUMNS, "Peak memory of a new process")
    return report.finish()


if __name__ == "__main__":
    main()
