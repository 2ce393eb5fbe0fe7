"""How long does detect() take for one image, and how many images per second are there in batches of eight?

    python -m benchmarks.inference --sizes 512 1024 --networks resnet50 light --peer-python PYTHON

From uint8 images in memory to boxes, classes, scores and masks in memory. Ours and the peer take turns.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

from benchmarks import contest, keras2_library, measure
from benchmarks.workers import Case


def cases(arguments: argparse.Namespace) -> list[list[Case]]:
    """Return groups of cases that run side by side: the networks at one size, batch, precision and count."""
    groups = [
        [
            Case("detect", network, *size, batch, precision, arguments.classes, detections)
            for network in arguments.networks
        ]
        for size, batch, precision, detections in itertools.product(
            [sides(text) for text in arguments.sizes],
            arguments.batches,
            arguments.precisions,
            arguments.detections,
        )
    ]
    return [[contest.quick(groups[0][0])]] if arguments.quick else groups


def sides(text: str) -> tuple[int, int]:
    """Return height and width of "512" or "800x1333"."""
    height, _, width = text.partition("x")
    return int(height), int(width or height)


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["512"], help="such as 512 800x1333 1024")
    parser.add_argument("--networks", nargs="+", default=["resnet50"], help="resnet50 resnet101 light")
    parser.add_argument("--batches", nargs="+", type=int, default=[1], help="images per batch, such as 1 8")
    parser.add_argument("--precisions", nargs="+", default=["float32"], help="float32 bfloat16 float16")
    parser.add_argument("--detections", nargs="+", type=int, default=[20], help="kept per image: 20 100")
    parser.add_argument(
        "--classes", type=int, default=81, help="including the background (default %(default)s)"
    )
    contest.add_arguments(parser)
    measure.add_arguments(parser, repeats=9)
    return parser


def main(argv: Sequence[str] | None = None) -> Path:
    """Run the benchmark and return the path of its JSON file."""
    arguments = measure.parsed(options(), argv)
    report = measure.Report("inference", arguments, arguments.backends)
    limits = contest.limits(report, arguments, arguments.precisions)
    for group in cases(arguments):
        first = group[0]
        rows = contest.compare(report, arguments, group, limits[first.precision], keras2_library.DETECT)
        title = (
            f"detect(): {first.height} x {first.width}, batch {first.batch}, {first.precision}, "
            f"{first.detections} detections"
        )
        report.show(rows, contest.COLUMNS, title)
    return report.finish()


if __name__ == "__main__":
    main()
