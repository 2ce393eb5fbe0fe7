"""Half precision: the Keras policy with which a network is built."""

import contextlib
from collections.abc import Iterator

import keras

from mrcnn import backend

# Weights are float32 in each. Layers of boxes, scores and losses are pinned to float32 where they are made.
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def chosen(choice: str, is_safe: bool) -> str:
    """Return the precision of a network: "float32", "bfloat16" or "float16".

    Args:
        choice: PRECISION. "auto" is bfloat16 where that is faster than float32 and safe.
        is_safe: Whether the detections of the network in bfloat16 are known to be about as accurate.
    """
    if choice != "auto":
        return choice
    return "bfloat16" if is_safe and backend.bfloat16_is_fast() else "float32"


@contextlib.contextmanager
def scope(choice: str, is_safe: bool = False) -> Iterator[None]:
    """Return a context in which layers and models are built with the policy of a precision; see `chosen`.

    A model built under "float16" scales its loss when it is compiled, as Keras does for that policy
    (Mixed Precision Training, section 3.2).
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(POLICIES[chosen(choice, is_safe)])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
