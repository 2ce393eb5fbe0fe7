"""How much arithmetic does each part of the network need, and how fast could this machine be?

    python -m benchmarks.flops --sizes 512 1024 --networks resnet50 light

Convolutions and matrix products of one image, in GFLOP, and the least time that they take at the speed of the
fastest large matrix product or 3x3 convolution of any installed framework.
"""

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import arithmetic, contest, inference, measure, workers
from benchmarks.workers import Case

COLUMNS = {
    "contestant": "contestant",
    "network": "network",
    "height": "height",
    "width": "width",
    "detections": "detections",
    **{part: part for part in arithmetic.PARTS},
    "gflop": "GFLOP",
    "least_seconds": "least s",
}


def counted(arguments: argparse.Namespace, case: Case, limit: float) -> list[contest.Row]:
    """Count the arithmetic of ours and of the peer, if there is one. The peer has to run for it."""
    rows = []
    with workers.opened(contest.makers(arguments, [case])) as contestants:
        for contestant in contestants:
            parts = contestant.ask("gflop")["gflop"]
            total = sum(parts.values())
            rows.append(
                {
                    "table": "arithmetic",
                    "contestant": contestant.name.split(",")[0],
                    **vars(contestant.case),
                    **parts,
                    "gflop": total,
                    "least_seconds": total / limit,
                }
            )
    return rows


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["512", "800x1333", "1024"])
    parser.add_argument("--networks", nargs="+", default=["resnet50", "resnet101", "light"])
    parser.add_argument("--detections", nargs="+", type=int, default=[20, 100], help="masks per image")
    parser.add_argument("--precisions", nargs="+", default=["float32"], help="precisions of the limit")
    contest.add_arguments(parser)
    measure.add_arguments(parser, repeats=1)
    return parser


def main(argv: Sequence[str] | None = None) -> Path:
    """Run the benchmark and return the path of its JSON file."""
    arguments = measure.parsed(options(), argv)
    report = measure.Report("flops", arguments, arguments.backends)
    limits = contest.limits(report, arguments, arguments.precisions)
    sizes = [inference.sides(text) for text in arguments.sizes]
    cases = [Case("detect", network, *size) for network in arguments.networks for size in sizes]
    counts = arguments.detections
    if arguments.quick:
        cases, counts = [contest.quick(cases[0])], [5]
    limit = max(limits.values())
    rows = []
    for case, detections in itertools.product(cases, counts):
        rows += counted(arguments, replace(case, detections=detections), limit)
    report.show(rows, COLUMNS, "Arithmetic of one image")
    return report.finish()


if __name__ == "__main__":
    main()
