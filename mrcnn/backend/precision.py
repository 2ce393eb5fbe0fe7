"""Half precision: the Keras policy with which a network is built."""

import contextlib
from collections.abc import Iterator

import keras

# Weights are float32 in each. Layers of boxes, scores and losses are pinned to float32 where they are made.
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


@contextlib.contextmanager
def scope(precision: str) -> Iterator[None]:
    """Return a context in which layers and models are built with the policy of config.PRECISION.

    A model built under "float16" scales its loss when it is compiled, as Keras does for that policy
    (Mixed Precision Training, section 3.2).
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(POLICIES[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
