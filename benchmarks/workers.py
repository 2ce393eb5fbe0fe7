"""Contestants: programs that build a network in a process of their own and run it on request, in turn.

A worker process imports a module, calls its builder with a Case and answers requests, one JSON object per
line. Each contestant has its own framework, backend, environment and memory, and other work on the machine
affects all of them alike. This module needs the standard library only: a peer has its own environment.
"""

import contextlib
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchmarks import measure

ROOT = Path(__file__).resolve().parent.parent
LINES_OF_ERROR = 12


@dataclass(frozen=True)
class Case:
    """What to run: the same for every contestant.

    Attributes:
        task: "detect", "train" (on a ready batch) or "fit" (with the loader).
        network: "resnet50", "resnet101", "light" or "tiny".
        height, width: Size of each image in pixels.
        batch: Images per batch.
        precision: "float32", "bfloat16" or "float16" (mixed).
        classes: Number of classes including the background.
        detections: Detections kept per image.
        proposals: Proposals per image.
        instances: Objects per image in training.
        steps: Training steps per run.
        workers: Workers of the loader.
        settings: Fields of our Config to change.
    """

    task: str = "detect"
    network: str = "resnet50"
    height: int = 512
    width: int = 512
    batch: int = 1
    precision: str = "float32"
    classes: int = 81
    detections: int = 20
    proposals: int = 1000
    instances: int = 20
    steps: int = 1
    workers: int = 0
    settings: dict[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """What a builder returns."""

    def run(self) -> Any:
        """Do the work that is measured. Its results are in host memory when it returns."""

    def describe(self, result: Any) -> dict[str, Any]:
        """Facts about the results, not measured. A key "seconds" replaces the seconds of the run."""

    def gflop(self) -> dict[str, float] | None:
        """Arithmetic of one run by part of the network, in 10^9 floating point operations."""

    def device_peak(self) -> int | None:
        """Peak of GPU memory in bytes; None on a CPU."""


class WorkerError(RuntimeError):
    """A contestant cannot be built or run. The message ends with the last lines that it printed."""


class InProcess:
    """A contestant in this process, for tests and debuggers. Its memory is that of the whole process.

    Args:
        name: Name in tables.
        builder: "module:function".
        case: The case to build.
    """

    def __init__(self, name: str, builder: str, case: Case):
        self.name, self.case = name, case
        self.server = Server(builder, case)
        self.facts = self.server.facts

    def ask(self, request: str) -> dict[str, Any]:
        """Return the answer to a request; see `Server.answer`."""
        return self.server.answer(request)

    def close(self) -> None:
        """Drop the network."""
        del self.server


class Subprocess:
    """A contestant in a process of its own.

    The constructor returns when the contestant is built; `facts` holds its times and versions.

    Args:
        name: Name in tables.
        builder: "module:function".
        case: The case to build.
        python: Interpreter of the process.
        backend: KERAS_BACKEND of the process.

    Raises:
        WorkerError: If the contestant cannot be built.
    """

    def __init__(
        self, name: str, builder: str, case: Case, python: str = sys.executable, backend: str | None = None
    ):
        self.name, self.case = name, case
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open as long as the process)
        environment = {
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # the GPU is shared with the other contestants
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",
            **os.environ,
            **({"KERAS_BACKEND": backend} if backend else {}),
        }
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [python, "-m", "benchmarks.workers", builder, json.dumps(asdict(case))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        self.facts = self._read()
        self.facts["ready_seconds"] = time.perf_counter() - started

    def ask(self, request: str) -> dict[str, Any]:
        """Return the answer to a request; see `Server.answer`. WorkerError if the process ends instead."""
        with contextlib.suppress(BrokenPipeError):  # the process has ended: _read reports why
            self.process.stdin.write(request + "\n")
            self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        code = self.process.wait()
        self.log.seek(0)
        printed = "".join(self.log.readlines()[-LINES_OF_ERROR:])
        self.close()
        raise WorkerError(f"{self.name} ended with code {code}:\n{printed}")

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(BrokenPipeError):  # the process has ended already
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()


Contestant = InProcess | Subprocess


class Server:
    """The side of the worker process: builds the task and answers requests."""

    def __init__(self, builder: str, case: Case):
        module, function = builder.split(":")
        started = time.perf_counter()
        build = getattr(importlib.import_module(module), function)
        imported = time.perf_counter()
        self.task: Task = build(case)
        self.facts = {
            "import_seconds": imported - started,
            "build_seconds": time.perf_counter() - imported,
            "versions": measure.versions(),
        }

    def answer(self, request: str) -> dict[str, Any]:
        """Answer a request.

        Args:
            request: "run" for the seconds, the CPU seconds of all threads and facts about the results;
                "gflop" for the arithmetic by part; "memory" for the peaks in bytes.

        Raises:
            ValueError: For another request.
        """
        if request == "gflop":
            return {"gflop": self.task.gflop()}
        if request == "memory":
            return {"peak_rss": peak_rss(), "device_peak": self.task.device_peak()}
        if request != "run":
            raise ValueError(f"`request` must be 'run', 'gflop' or 'memory'. Received: {request!r}")
        cpu, wall = time.process_time(), time.perf_counter()
        result = self.task.run()
        seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, **self.task.describe(result)}


def peak_rss() -> int:
    """Return the peak of this process's memory in bytes."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # not Linux; the unit is bytes on macOS
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # A child process inherits ru_maxrss of its parent, so Linux's own count is read.
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def alternate(
    contestants: Sequence[Contestant], warmup: int, repeats: int
) -> dict[str, list[dict[str, Any]]]:
    """Let the contestants run in turn.

    A contestant that fails is left out with a message; the others continue.

    Args:
        contestants: The contestants.
        warmup: Rounds before the measured ones.
        repeats: Measured rounds.

    Returns:
        {name: answers of the measured rounds}.
    """
    answers: dict[str, list[dict[str, Any]]] = {contestant.name: [] for contestant in contestants}
    for turn in range(warmup + repeats):
        for contestant in contestants:
            if contestant.name not in answers:
                continue
            try:
                answer = contestant.ask("run")
            except WorkerError as error:
                print(f"\nLeft out: {error}", file=sys.stderr, flush=True)
                del answers[contestant.name]
                continue
            if turn >= warmup:
                answers[contestant.name].append(answer)
    return answers


@contextlib.contextmanager
def opened(makers: Sequence[Callable[[], Contestant]]) -> Iterator[list[Contestant]]:
    """Build contestants one after another and close them at the end. Failures are printed."""
    with contextlib.ExitStack() as stack:
        contestants = []
        for make in makers:
            try:
                contestant = make()
            except WorkerError as error:
                print(f"\nLeft out: {error}", file=sys.stderr, flush=True)
                continue
            stack.callback(contestant.close)
            contestants.append(contestant)
        yield contestants


def main() -> None:
    """Serve one contestant. Arguments: "module:function" and a Case as JSON. Requests: standard input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the output of frameworks must not look like an answer
    builder, case = sys.argv[1:]
    server = Server(builder, Case(**json.loads(case)))
    print(json.dumps(server.facts), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(server.answer(line.strip())), file=answers, flush=True)


if __name__ == "__main__":
    main()
