"""For every test run: figures without a screen, exact float32, seeds, and memory that is released."""

import contextlib
import gc
import os
import random
import sys

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
# Tests compare float32 numbers. GPUs of NVIDIA would round the factors of products to 10 bits (TF32).
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
if os.path.exists("/dev/nvidiactl"):
    os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")


# Building and tracing networks makes so many objects that Python would look for garbage all the time.
gc.set_threshold(50_000, 20, 50)


def seed_everything():
    random.seed(1)
    np.random.seed(1)
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(1)


@pytest.fixture(scope="module", autouse=True)
def seeded_module():
    """The fixtures of a module have the same weights in every run."""
    seed_everything()


@pytest.fixture(autouse=True)
def seeded_test():
    """A test has the same weights alone and after others."""
    seed_everything()


@contextlib.contextmanager
def running_eagerly(eagerly=True):
    """Run TensorFlow step by step, or compiled. For a few steps, compiling takes three times as long."""
    import keras

    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(eagerly)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


@pytest.fixture(scope="module")
def eager_tensorflow():
    """All tests of a module run TensorFlow step by step; see `running_eagerly`."""
    with running_eagerly():
        yield


@pytest.fixture
def eager_test():
    """A single test of a module runs TensorFlow step by step; see `running_eagerly`."""
    with running_eagerly():
        yield


@pytest.fixture
def compiled_test():
    """A single test of a module that runs TensorFlow step by step compiles; see `running_eagerly`."""
    with running_eagerly(False):
        yield


@pytest.fixture
def usual_collector():
    """A test of memory: Python looks for garbage as often as in any program."""
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


@pytest.fixture(scope="module", autouse=True)
def forget_networks():
    """Drop the networks of a test module: Keras keeps every graph it has built."""
    yield
    import keras

    keras.utils.clear_session()
    gc.collect()
    gc.freeze()  # what is left lives on, so the next collections need not look at it
