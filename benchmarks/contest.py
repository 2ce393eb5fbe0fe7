"""The contestants of a benchmark: `mrcnn` on each backend, torchvision and its variants."""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from benchmarks import keras2_library, measure, peak
from benchmarks.workers import Case, Contestant, InProcess, Subprocess, alternate, opened

OURS = "benchmarks.ours:build"
PEER = "benchmarks.peer_torchvision"
PEER_VARIANTS = ("compiled", "channels_last")
# The network of the peer beside each of ours.
PEER_NETWORKS = {"light": "resnet50"}
QUICK = {
    "network": "tiny",
    "height": 64,
    "width": 64,
    "classes": 4,
    "detections": 5,
    "proposals": 40,
    "instances": 5,
    "steps": 1,
}

COLUMNS = {
    "contestant": "contestant",
    "network": "network",
    "seconds": "median s",
    "lower_quartile": "quartile",
    "upper_quartile": "to",
    "images_per_second": "images/s",
    "cpu_seconds": "CPU s",
    "gflop": "GFLOP",
    "times_limit": "times the limit",
    "times_peer": "times faster than torchvision",
    "times_keras2": "than the Keras 2 library",
    "times_keras2_cpu": "in CPU s",
}

Row = dict[str, Any]


def quick(case: Case) -> Case:
    """Return the case with a tiny network and image, to try a benchmark."""
    return replace(case, **QUICK)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose the contestants."""
    parser.add_argument(
        "--backends",
        nargs="+",
        default=[os.environ.get("KERAS_BACKEND", "tensorflow")],
        help="backends that mrcnn runs on (default KERAS_BACKEND)",
    )
    parser.add_argument(
        "--peer-python",
        help="interpreter of an environment with torch and torchvision; without it there is no peer",
    )
    parser.add_argument(
        "--peer-variants",
        nargs="+",
        default=[],
        choices=PEER_VARIANTS,
        help="run the peer in these ways, too",
    )
    parser.add_argument(
        "--in-process", action="store_true", help="run mrcnn in this process, for tests and debuggers"
    )


def makers(arguments: argparse.Namespace, cases: Sequence[Case]) -> list[Callable[[], Contestant]]:
    """Return functions that start the contestants: ours per case and backend, the peers per network."""
    starters: list[Callable[[], Contestant]] = []
    for case in cases:
        case = replace(case, settings=dict(arguments.set))
        for backend in arguments.backends:
            name = f"ours, {backend}, {case.network}"
            if arguments.in_process:
                starters.append(lambda name=name, case=case: InProcess(name, OURS, case))
            else:
                starters.append(
                    lambda name=name, case=case, backend=backend: Subprocess(
                        name, OURS, case, backend=backend
                    )
                )
    if not arguments.peer_python or any(case.task == "fit" for case in cases):
        return starters
    peers = {case.network: case for case in (peer_case(case) for case in cases)}
    for network, case in peers.items():
        for variant in ("eager", *arguments.peer_variants):
            name = f"torchvision, {network}" if variant == "eager" else f"torchvision, {variant}, {network}"
            starters.append(
                lambda name=name, variant=variant, case=case: Subprocess(
                    name, f"{PEER}:{variant}", case, arguments.peer_python
                )
            )
    return starters


def peer_case(case: Case) -> Case:
    """Return the case with the network of the peer."""
    return replace(case, network=PEER_NETWORKS.get(case.network, case.network))


def limits(
    report: measure.Report, arguments: argparse.Namespace, precisions: Sequence[str]
) -> dict[str, float]:
    """Measure the fastest kernel of the machine in each precision, in GFLOP/s, and print it."""
    fastest = {}
    for precision in precisions:
        rows = peak.measured(arguments, precision)
        columns = {
            "contestant": "framework",
            "kernel": "kernel",
            "gflops": "median GFLOP/s",
            "gflops_max": "best",
        }
        report.show(
            [{"table": "limit", **row} for row in rows], columns, f"Limit of the machine, {precision}"
        )
        fastest[precision] = max(row["gflops"] for row in rows)
    return fastest


def compare(
    report: measure.Report,
    arguments: argparse.Namespace,
    cases: Sequence[Case],
    limit: float,
    times: keras2_library.Times,
) -> list[Row]:
    """Run the cases of one image size beside their peers.

    Args:
        report: Notes the versions of all contestants.
        arguments: Parsed options of the benchmark.
        cases: The cases.
        limit: GFLOP/s of the machine.
        times: Seconds of the Keras 2 library.

    Returns:
        Rows with the columns of `COLUMNS`.
    """
    with opened(makers(arguments, cases)) as contestants:
        answers = alternate(contestants, arguments.warmup, arguments.repeats)
        contestants = [contestant for contestant in contestants if contestant.name in answers]
        arithmetic = {c.name: c.ask("gflop")["gflop"] for c in contestants}
        for contestant in contestants:
            report.note_versions(contestant.name, contestant.facts["versions"])
    seconds = {name: [answer["seconds"] for answer in rounds] for name, rounds in answers.items()}
    rows = []
    for contestant in contestants:
        name, case = contestant.name, contestant.case
        row = _row(name, case, answers[name], arithmetic[name], limit)
        peer = seconds.get(f"torchvision, {peer_case(case).network}")
        if peer and name.startswith("ours"):
            row["times_peer"] = measure.ratio(peer, seconds[name])
        if name.startswith("ours") and (earlier := keras2_library.matching(times, case)):
            row["times_keras2"] = earlier["wall"] / row["seconds"]
            row["times_keras2_cpu"] = earlier["cpu"] / row["cpu_seconds"]
        rows.append(row)
    return rows


def _row(
    name: str, case: Case, answers: Sequence[dict], arithmetic: Mapping[str, float], limit: float
) -> Row:
    """The row of one contestant."""
    spread = measure.summary([answer["seconds"] for answer in answers])
    seconds = spread.pop("median")
    gflop = sum(arithmetic.values())
    columns = ("seconds", "cpu_seconds")
    return {
        "table": "contest",
        "contestant": name.rsplit(", ", 1)[0],
        **vars(case),
        "seconds": seconds,
        **spread,
        "all_seconds": [answer["seconds"] for answer in answers],
        "cpu_seconds": measure.summary([answer["cpu_seconds"] for answer in answers])["median"],
        "images_per_second": case.batch * case.steps / seconds,
        "gflop": gflop,
        "gflop_by_part": dict(arithmetic),
        "times_limit": seconds * limit / gflop,
        "seen": {key: value for key, value in answers[-1].items() if key not in columns},
    }
