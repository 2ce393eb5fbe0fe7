"""Who takes part: ours on each backend, and torchvision as it comes and in its variants."""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from benchmarks import measure, original, peak
from benchmarks.workers import Case, Contestant, InProcess, Subprocess, alternate, opened

OURS = "benchmarks.ours:build"
PEER = "benchmarks.peer_torchvision"
PEER_VARIANTS = ("compiled", "channels_last")
# The network that the peer runs beside each of ours.
PEER_NETWORKS = {"light": "resnet50"}
QUICK = {
    **{"network": "tiny", "height": 64, "width": 64, "classes": 4, "detections": 5, "proposals": 40},
    **{"instances": 5, "steps": 1},
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
    "times_original": "than the original",
    "times_original_cpu": "in CPU s",
}

Row = dict[str, Any]


def quick(case: Case) -> Case:
    """The same case with a tiny network and picture, to try a benchmark."""
    return replace(case, **QUICK)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say who takes part."""
    parser.add_argument(
        "--backends",
        nargs="+",
        default=[os.environ.get("KERAS_BACKEND", "tensorflow")],
        help="backends of Keras that ours runs on (default KERAS_BACKEND)",
    )
    parser.add_argument(
        "--peer-python", help="interpreter of an environment with torch and torchvision; without it no peer"
    )
    parser.add_argument(
        "--peer-variants", nargs="+", default=[], choices=PEER_VARIANTS, help="the peer in other ways, too"
    )
    parser.add_argument(
        "--in-process", action="store_true", help="ours inside this process, for tests and debuggers"
    )


def makers(arguments: argparse.Namespace, cases: Sequence[Case]) -> list[Callable[[], Contestant]]:
    """What opens each contestant: ours for each case and backend, then the peers for each network once."""
    found: list[Callable[[], Contestant]] = []
    for case in cases:
        case = replace(case, settings=dict(arguments.set))
        for backend in arguments.backends:
            name = f"ours, {backend}, {case.network}"
            if arguments.in_process:
                found.append(lambda name=name, case=case: InProcess(name, OURS, case))
            else:
                found.append(
                    lambda name=name, case=case, backend=backend: Subprocess(
                        name, OURS, case, backend=backend
                    )
                )
    if not arguments.peer_python or any(case.task == "fit" for case in cases):
        return found
    peers = {case.network: case for case in (peer_case(case) for case in cases)}
    for network, case in peers.items():
        for variant in ("eager", *arguments.peer_variants):
            name = f"torchvision, {network}" if variant == "eager" else f"torchvision, {variant}, {network}"
            found.append(
                lambda name=name, variant=variant, case=case: Subprocess(
                    name, f"{PEER}:{variant}", case, arguments.peer_python
                )
            )
    return found


def peer_case(case: Case) -> Case:
    """The same case for the peer, with the network that it has."""
    return replace(case, network=PEER_NETWORKS.get(case.network, case.network))


def limits(
    report: measure.Report, arguments: argparse.Namespace, precisions: Sequence[str]
) -> dict[str, float]:
    """Measure the fastest kernel of the machine in each precision, in GFLOP/s, and show it."""
    found = {}
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
        found[precision] = max(row["gflops"] for row in rows)
    return found


def compare(
    report: measure.Report,
    arguments: argparse.Namespace,
    cases: Sequence[Case],
    limit: float,
    timed: Mapping[tuple, Mapping[str, float]],
) -> list[Row]:
    """Run the cases of one picture size beside their peers; rows of `COLUMNS`.

    limit: GFLOP/s of the machine; timed: seconds of the original, a table of original.py.
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
        if name.startswith("ours") and (of_original := original.matching(timed, case)):
            row["times_original"] = of_original["wall"] / row["seconds"]
            row["times_original_cpu"] = of_original["cpu"] / row["cpu_seconds"]
        rows.append(row)
    return rows


def _row(
    name: str, case: Case, answers: Sequence[dict], arithmetic: Mapping[str, float], limit: float
) -> Row:
    """What one contestant measured."""
    spread = measure.summary([answer["seconds"] for answer in answers])
    seconds = spread.pop("median")
    gflop = sum(arithmetic.values())
    timed = ("seconds", "cpu_seconds")
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
        "seen": {key: value for key, value in answers[-1].items() if key not in timed},
    }
