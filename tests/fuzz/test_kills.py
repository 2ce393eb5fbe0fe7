"""Training that is killed at random moments resumes, loses at most the running epoch and tears no file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

PROGRAM = Path(__file__).with_name("killed_training.py")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the program forks"),
]


def kill(folder, kills, backend):
    """Run the program; return its rows, of which the last one only resumes."""
    paths = [str(PROGRAM.parents[1]), str(PROGRAM.parents[2]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder), "--kills", str(kills)],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(paths)},
        check=False,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == kills + 1, done.stderr[-2000:]
    return rows


def summary(rows):
    """Counts over all rows: what has to be zero, and what happened."""
    started = [row for row in rows[1:] if row["resumed_at"] is not None]
    return {
        "kills": len(rows) - 1,
        "during start": sum(row["moment"] == "start" for row in rows[:-1]),
        "during epochs": sum(row["moment"] == "epoch" for row in rows[:-1]),
        "during saving": sum(row["moment"] == "save" for row in rows[:-1]),
        "left a temporary file": sum(row["leftovers_of_this_kill"] > 0 for row in rows[:-1]),
        "came to training again": len(started),
        "resumed at the last saved epoch": sum(row["resumed_at"] == row["on_disk_before"] for row in started),
        "failed": sum(row["failed"] is not None for row in rows),
        "lost a reported epoch": sum(
            row["on_disk"] < max(row["last_reported"] or 0, row["on_disk_before"] or 0) for row in rows
        ),
        "torn files": sum(len(row["torn"]) for row in rows),
        "leftovers after the next start": sum(row["leftovers_at_start"] for row in started),
        "epochs": rows[-1]["on_disk"],
    }


def check(rows, kills):
    counts = summary(rows)
    print(f"\n{keras.backend.backend()}")
    for name, count in counts.items():
        print(f"{name:<35}{count:>6}")
    assert counts["kills"] == kills
    for name in ("failed", "lost a reported epoch", "torn files", "leftovers after the next start"):
        assert counts[name] == 0, rows
    assert counts["resumed at the last saved epoch"] == counts["came to training again"] >= kills // 2
    assert rows[-1]["resumed_at"] == rows[-2]["on_disk"] and rows[-1]["on_disk"] > rows[-1]["resumed_at"]


def test_fifty_kills(tmp_path):
    check(kill(tmp_path, 50, keras.backend.backend()), 50)
