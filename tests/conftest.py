"""For every test run: figures without a screen, exact float32, and memory that is released."""

import gc
import os

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
# Tests compare float32 numbers. GPUs of NVIDIA would round the factors of products to 10 bits (TF32).
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
if os.path.exists("/dev/nvidiactl"):
    os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")


@pytest.fixture(scope="module", autouse=True)
def forget_networks():
    """Drop the networks of a test module: Keras keeps every graph it has built."""
    yield
    import keras

    keras.utils.clear_session()
    gc.collect()
