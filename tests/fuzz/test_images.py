"""Thousands of damaged images, archives and weight files: each is read, or refused by a clear error."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

IMAGES, WEIGHTS = (Path(__file__).with_name(f"{name}_cases.py") for name in ("image", "weight"))
# Damaged files of each kind. A tenth of them is read by default.
CASES = {
    "png": 1500,
    "jpeg": 1000,
    "tiff": 2000,
    "bmp": 600,
    "gif": 900,
    "webp": 1000,
    "zip": 1500,
    "h5": 1500,
    "pth": 1500,
    "pkl": 1500,
    "safetensors": 1000,
}
WEIGHT_KINDS = ("h5", "pth", "pkl", "safetensors")

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="limits memory and time as Linux does"
)


def read(kind, first, last):
    """Run the program; return its counts, and the lines about cases that are neither ok nor clear."""
    program = WEIGHTS if kind in WEIGHT_KINDS else IMAGES
    paths = [str(program.parents[2]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(program), kind, str(first), str(last)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, (
        f"{lines[-1:]} ended the process with {done.returncode}: {done.stderr[-2000:]}"
    )
    return json.loads(lines[-1]), [line for line in lines[:-1] if not line.startswith("#")]


def check(share):
    wrong, rows = [], []
    for kind, cases in CASES.items():
        counts, lines = read(kind, 0, cases // 10) if share == "tenth" else read(kind, cases // 10, cases)
        rows.append(counts)
        wrong += lines
    print(f"\n{'kind':<12}{'cases':>8}{'ok':>8}{'clear':>8}{'else':>8}")
    total = {
        "kind": "sum",
        **{name: sum(row[name] for row in rows) for name in ("cases", "ok", "clear", "else")},
    }
    for row in [*rows, total]:
        print(f"{row['kind']:<12}{row['cases']:>8}{row['ok']:>8}{row['clear']:>8}{row['else']:>8}")
    assert not wrong, "\n".join(wrong)
    # Both happen, for every kind.
    assert all(row["ok"] and row["clear"] for row in rows)


def test_damaged_files():
    check("tenth")


@pytest.mark.slow
def test_many_damaged_files():
    check("rest")
