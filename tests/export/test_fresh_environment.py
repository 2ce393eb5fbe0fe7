"""An exported file runs in a new environment with NumPy and ONNX Runtime alone."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from exported_models import TinyConfig, build, pictures

from mrcnn import export

pytest.importorskip("onnx")

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import importlib.util, sys
import numpy as np
for name in ("keras", "tensorflow", "jax", "torch", "onnx", "scipy", "skimage", "cv2", "matplotlib", "PIL"):
    assert importlib.util.find_spec(name) is None, name
from mrcnn import runtime
result = runtime.load(sys.argv[1]).detect(np.load(sys.argv[2]))[0]
np.savez(sys.argv[3], rois=result["rois"], scores=result["scores"], masks=result["masks"])
"""


@pytest.mark.slow
@pytest.mark.network
def test_a_file_runs_in_a_new_environment(tmp_path):
    model = build(TinyConfig())
    path = export.export(model, tmp_path / "tiny.onnx")
    (image,) = pictures((50, 64, 3))
    np.save(tmp_path / "image.npy", image)
    expected = model.detect(image)[0]
    environment = tmp_path / "environment"
    python = environment / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "numpy", "onnxruntime"], check=True)
    subprocess.run([*pip, "--no-deps", str(ROOT)], check=True)
    arguments = [str(path), str(tmp_path / "image.npy"), str(tmp_path / "result.npz")]
    subprocess.run([str(python), "-c", PROGRAM, *arguments], cwd=tmp_path, check=True)
    found = np.load(tmp_path / "result.npz")
    assert len(expected["rois"])
    np.testing.assert_array_equal(found["rois"], expected["rois"])
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-4)
    assert np.mean(found["masks"] == expected["masks"]) > 0.999
