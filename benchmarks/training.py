"""How long does a training step take?

    python -m benchmarks.training --sizes 512 --batches 1 2 --peer-python PYTHON

Forward, backward and update of all layers, with 20 objects and 200 RoIs per image. The batch is ready in
memory; see data_pipeline for the time to make it. With --loader N, train() runs with N loader workers
instead. Ours and the peer take turns.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

from benchmarks import contest, inference, keras2_library, measure
from benchmarks.workers import Case


def cases(arguments: argparse.Namespace) -> list[list[Case]]:
    """Return groups of cases that run side by side: the networks at one size, batch and precision."""
    task = "train" if arguments.loader is None else "fit"
    groups = [
        [
            Case(
                task,
                network,
                *size,
                batch,
                precision,
                arguments.classes,
                steps=arguments.steps,
                workers=arguments.loader or 0,
            )
            for network in arguments.networks
        ]
        for size, batch, precision in itertools.product(
            [inference.sides(text) for text in arguments.sizes], arguments.batches, arguments.precisions
        )
    ]
    return [[contest.quick(groups[0][0])]] if arguments.quick else groups


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["512"], help="such as 512 1024")
    parser.add_argument("--networks", nargs="+", default=["resnet50"], help="resnet50 resnet101 light")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2], help="images per batch")
    parser.add_argument("--precisions", nargs="+", default=["float32"], help="float32 bfloat16 float16")
    parser.add_argument(
        "--classes", type=int, default=81, help="including the background (default %(default)s)"
    )
    parser.add_argument(
        "--steps", type=int, default=1, help="steps of each measured run; 20 or more on a GPU"
    )
    parser.add_argument(
        "--loader", type=int, help="run train() with this number of loader workers, without a peer"
    )
    contest.add_arguments(parser)
    measure.add_arguments(parser, repeats=7)
    return parser


def main(argv: Sequence[str] | None = None) -> Path:
    """Run the benchmark and return the path of its JSON file."""
    arguments = measure.parsed(options(), argv)
    if arguments.loader is not None:
        arguments.warmup, arguments.repeats = 0, 1
    report = measure.Report("training", arguments, arguments.backends)
    limits = contest.limits(report, arguments, arguments.precisions)
    for group in cases(arguments):
        first = group[0]
        rows = contest.compare(report, arguments, group, limits[first.precision], keras2_library.TRAIN)
        size = f"{first.height} x {first.width}"
        source = "a ready batch" if first.task == "train" else f"{first.workers} loader workers"
        title = f"{first.steps} training step(s): {size}, batch {first.batch}, {first.precision}, {source}"
        report.show(rows, contest.COLUMNS, title)
    return report.finish()


if __name__ == "__main__":
    main()
