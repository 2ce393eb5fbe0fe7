"""Where compiled networks are kept, and that XLA keeps them there."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from mrcnn.backend import compilation_cache, cpu

PROGRAM = """
import keras, numpy as np
from mrcnn import backend

x = keras.Input((8,), name="x")
y = x
for _ in range({layers}):
    y = keras.layers.Dense(8, activation="tanh")(y)
model = keras.Model({{"x": x}}, {{"y": y}})
print(backend.compiled(model, xla=True)({{"x": np.ones((2, 8), "float32")}})["y"].shape)
"""


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("", None), ("0", None), ("1", "home/compiled"), ("/data/cache", "/data/cache"), ("~/own", "user/own")],
)
def test_the_folder(choice, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv(compilation_cache.VARIABLE, choice)
    folder = compilation_cache.cache_folder("jax")
    assert (folder and folder.parent) == (expected and tmp_path / expected)
    if folder is not None:
        assert folder.name.startswith("jax-") and not (tmp_path / "home").exists()
        monkeypatch.setattr(cpu, "flags", lambda: {"another", "processor"})
        assert compilation_cache.cache_folder("jax") != folder
        assert compilation_cache.cache_folder("tensorflow") != compilation_cache.cache_folder("jax")


def test_flags_of_the_user_stay(tmp_path, monkeypatch):
    monkeypatch.setenv(compilation_cache.VARIABLE, str(tmp_path))
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_auto_jit=1")
    compilation_cache.use_for_tensorflow()
    folder = compilation_cache.cache_folder("tensorflow")
    assert os.environ["TF_XLA_FLAGS"] == f"--tf_xla_auto_jit=1 --tf_xla_persistent_cache_directory={folder}"
    assert folder.is_dir()
    compilation_cache.use_for_tensorflow()
    assert os.environ["TF_XLA_FLAGS"].count("cache_directory") == 1


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch compiles nothing")
def test_xla_keeps_what_it_compiles(tmp_path):
    environment = os.environ | {
        compilation_cache.VARIABLE: str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(Path(compilation_cache.__file__).parents[2]),
    }
    written = []
    for _ in range(2):
        command = [sys.executable, "-c", PROGRAM.format(layers=6)]
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
        kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
        written.append({path: path.stat().st_mtime_ns for path in kept if "atime" not in path.name})
    assert written[0] and written[0] == written[1]  # the second process compiles nothing
