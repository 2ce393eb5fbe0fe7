"""What every test run needs: figures without a screen, and memory that is given back."""

import gc
import os

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="module", autouse=True)
def forget_networks():
    """Drop the networks of a test module: Keras keeps every graph it has built."""
    yield
    import keras

    keras.utils.clear_session()
    gc.collect()
