"""JAX and PyTorch need no TensorFlow beside them; Keras imports it for some of its layers."""

import subprocess
import sys
from pathlib import Path

import keras
import pytest

HERE = Path(__file__).parent


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="it is the backend")
def test_train_and_detect(tmp_path):
    command = [sys.executable, str(HERE / "without_tensorflow.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "trained and detected" in done.stdout
