"""The package without the folder fast/: it trains and detects with the numbers of FAST_PATHS = False."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from fast.train_and_detect import losses_and_detections

import mrcnn

TESTS = Path(__file__).parent.parent
# JAX compiles every network twice.
slow_on_jax = pytest.mark.slow if keras.backend.backend() == "jax" else lambda test: test


@pytest.fixture
def package(tmp_path):
    """A copy of the package without fast/."""
    copy = tmp_path / "package"
    ignored = shutil.ignore_patterns("fast", "__pycache__")
    shutil.copytree(Path(mrcnn.__file__).parent, copy / "mrcnn", ignore=ignored)
    return copy


def run(package, results):
    """Run the program with a copy of the package."""
    program = TESTS / "fast" / "train_and_detect.py"
    return subprocess.run(
        [sys.executable, str(program), str(package), str(results)],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )


@slow_on_jax
def test_trains_and_detects(package, tmp_path):
    results = tmp_path / "results.npz"
    process = run(package, results)
    assert process.returncode == 0, process.stderr[-3000:]
    found = np.load(results)
    expected = losses_and_detections(tmp_path / "runs", FAST_PATHS=False)
    assert set(found.files) == set(expected)
    assert {"loss loss", "weights 0", "rois 0", "masks 1"} <= set(expected)
    assert len(expected["rois 0"]) > 0
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_an_error_within_the_folder_is_raised(package, tmp_path):
    """It must not turn the fast paths off without a word."""
    folder = package / "mrcnn" / "fast"
    folder.mkdir()
    (folder / "__init__.py").write_text("from mrcnn.backend import no_such_name\n")
    process = run(package, tmp_path / "results.npz")
    assert process.returncode != 0
    assert "no_such_name" in process.stderr
