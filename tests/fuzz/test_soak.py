"""Memory stays flat over thousands of detections, and many trainings and models, in one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

PROGRAM = Path(__file__).with_name("soak.py")
# The largest growth from the second to the last fifth of the measurements, by their medians.
LARGEST_GROWTH = 0.01
# Each new schedule compiles a training step, of which TensorFlow keeps about 2 MB.
LARGEST_GROWTH_OF_COMPILING = 0.03

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]


def measure(kind, count):
    """Resident memory in MiB, piece by piece."""
    paths = [str(PROGRAM.parents[1]), str(PROGRAM.parents[2]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(PROGRAM), kind, str(count)],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "KERAS_BACKEND": keras.backend.backend(),
            "PYTHONPATH": os.pathsep.join(paths),
        },
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line[:1].isdigit()]


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("detections", 10_000),
        ("trainings", 50),
        ("stages", 20),
        ("schedules", 20),
        ("models", 50),
    ],
)
def test_memory_stays_flat(kind, count):
    values = measure(kind, count)
    fifth = len(values) // 5
    second, last = np.median(values[fifth : 2 * fifth]), np.median(values[-fifth:])
    growth = last / second - 1
    print(
        f"\n{keras.backend.backend()}, {count} {kind}: first {values[0]:.0f} MiB, second fifth {second:.1f}, "
        f"last fifth {last:.1f}, growth {100 * growth:+.2f} %"
    )
    assert growth < (LARGEST_GROWTH_OF_COMPILING if kind == "schedules" else LARGEST_GROWTH)
