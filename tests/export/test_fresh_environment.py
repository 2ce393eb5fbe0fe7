"""An exported file runs in a new environment with NumPy and the runtime of its format alone."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from exported_models import pictures

pytest.importorskip("onnx")

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import importlib.util, sys
import numpy as np
absent = {"keras", "tensorflow", "jax", "torch", "onnx", "scipy", "skimage", "cv2", "matplotlib", "PIL"}
for name in absent - set(sys.argv[4:]):
    assert importlib.util.find_spec(name) is None, name
from mrcnn import runtime
result = runtime.load(sys.argv[1]).detect(np.load(sys.argv[2]))[0]
np.savez(sys.argv[3], rois=result["rois"], scores=result["scores"], masks=result["masks"])
"""
# File -> packages to install, and modules that they bring.
FILES = {
    "tiny.onnx": (["onnxruntime"], []),
    "tiny.xml": (["openvino"], []),
    "tiny.tflite": (["ai-edge-litert"], []),
    "tiny.pt2": (["torch", "--index-url", "https://download.pytorch.org/whl/cpu"], ["torch"]),
}
BACKENDS = {"tiny.tflite": "tensorflow", "tiny.pt2": "torch"}


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("name", FILES)
def test_a_file_runs_in_a_new_environment(name, model, exported, tmp_path):
    if BACKENDS.get(name, keras.backend.backend()) != keras.backend.backend():
        pytest.skip("another backend writes this file")
    path = exported(name)
    (image,) = pictures((50, 64, 3))
    np.save(tmp_path / "image.npy", image)
    expected = model.detect(image)[0]
    environment = tmp_path / "environment"
    python = environment / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    packages, modules = FILES[name]
    subprocess.run([*pip, "numpy"], check=True)
    subprocess.run([*pip, *packages], check=True)
    subprocess.run([*pip, "--no-deps", str(ROOT)], check=True)
    arguments = [str(path), str(tmp_path / "image.npy"), str(tmp_path / "result.npz"), *modules]
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([str(python), "-c", PROGRAM, *arguments], cwd=tmp_path, env=clean, check=True)
    found = np.load(tmp_path / "result.npz")
    assert len(expected["rois"])
    np.testing.assert_array_equal(found["rois"], expected["rois"])
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-4)
    assert np.mean(found["masks"] == expected["masks"]) > 0.999
