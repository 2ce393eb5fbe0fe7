"""How long does the first detection of a new process take, and how much of it is importing?

    python -m benchmarks.start --peer-python PYTHON

Weights are random instead of read from a file. The first detect() includes the compilation of the network.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import contest, inference, measure, workers
from benchmarks.workers import Case, Contestant

PHASES = {
    "import_seconds": "import s",
    "build_seconds": "build s",
    "first_seconds": "first detect() s",
    "second_seconds": "second s",
    "until_first_seconds": "process start to first result s",
}


def started(make: Callable[[], Contestant]) -> dict[str, Any] | None:
    """Return the seconds of each phase of one new contestant; None if it cannot run."""
    with workers.opened([make]) as contestants:
        for contestant in contestants:
            first, second = (contestant.ask("run")["seconds"] for _ in range(2))
            facts = contestant.facts
            ready = facts.get("ready_seconds", facts["import_seconds"] + facts["build_seconds"])
            return {
                "contestant": contestant.name,
                "import_seconds": facts["import_seconds"],
                "build_seconds": facts["build_seconds"],
                "first_seconds": first,
                "second_seconds": second,
                "until_first_seconds": ready + first,
            }
    return None


def medians(runs: Sequence[dict[str, Any]], case: Case) -> contest.Row:
    """Return one row of a contestant's runs: the median of each phase, and the spread of the whole."""
    row = {phase: measure.summary([run[phase] for run in runs])["median"] for phase in PHASES}
    whole = measure.summary([run["until_first_seconds"] for run in runs])
    return {"contestant": runs[0]["contestant"], **vars(case), **row, "whole": whole, "runs": list(runs)}


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["512"], help="such as 512 800x1333 1024")
    parser.add_argument("--networks", nargs="+", default=["resnet50"], help="resnet50 resnet101 light")
    contest.add_arguments(parser)
    measure.add_arguments(parser, repeats=3)
    return parser


def main(argv: Sequence[str] | None = None) -> Path:
    """Run the benchmark and return the path of its JSON file."""
    arguments = measure.parsed(options(), argv)
    report = measure.Report("start", arguments, arguments.backends)
    sizes = [inference.sides(text) for text in arguments.sizes]
    cases = [Case("detect", network, *size) for size in sizes for network in arguments.networks]
    if arguments.quick:
        cases = [contest.quick(cases[0])]
    for case in cases:
        makers = contest.makers(arguments, [case])
        rounds = [[started(make) for make in makers] for _ in range(arguments.repeats)]
        runs = [[run for run in of_one if run] for of_one in zip(*rounds, strict=True)]
        rows = [medians(of_one, case) for of_one in runs if of_one]
        report.show(
            rows,
            {"contestant": "contestant", **PHASES},
            f"Start: {case.network}, {case.height} x {case.width}",
        )
    return report.finish()


if __name__ == "__main__":
    main()
