"""The package without the folder fast/: it trains and detects with the numbers of FAST_PATHS = False."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fast.train_and_detect import WORK

import mrcnn

TESTS = Path(__file__).parent.parent


@pytest.fixture
def package(tmp_path):
    """A copy of the package without fast/."""
    copy = tmp_path / "package"
    ignored = shutil.ignore_patterns("fast", "__pycache__")
    shutil.copytree(Path(mrcnn.__file__).parent, copy / "mrcnn", ignore=ignored)
    return copy


def run(package, results, work):
    """Run the program with a copy of the package."""
    program = TESTS / "fast" / "train_and_detect.py"
    return subprocess.run(
        [sys.executable, str(program), str(package), str(results), work],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("work", ["detect", pytest.param("train", marks=pytest.mark.slow)])
def test_trains_and_detects(package, work, tmp_path):
    results = tmp_path / "results.npz"
    process = run(package, results, work)
    assert process.returncode == 0, process.stderr[-3000:]
    found = np.load(results)
    expected = WORK[work](tmp_path / "runs", FAST_PATHS=False)
    assert set(found.files) == set(expected)
    assert {"rois 0", "masks 1"} <= set(expected)
    assert work == "detect" or {"loss loss", "weights 0"} <= set(expected)
    assert len(expected["rois 0"]) > 0
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_an_error_within_the_folder_is_raised(package, tmp_path):
    """It must not turn the fast paths off without a word."""
    folder = package / "mrcnn" / "fast"
    folder.mkdir()
    (folder / "__init__.py").write_text("from mrcnn.backend import no_such_name\n")
    process = run(package, tmp_path / "results.npz", "detect")
    assert process.returncode != 0
    assert "no_such_name" in process.stderr
