"""`keras.ops.custom_gradient` without the memory that TensorFlow keeps forever."""

import sys
from collections.abc import Callable
from typing import Any

from keras import ops

from mrcnn.typing import Tensor


def custom_gradient(function: Callable[..., tuple[Tensor, Callable[..., Any]]]) -> Callable[..., Tensor]:
    """Return a function with a gradient of its own, for training steps.

    For each call in a graph, TensorFlow registers the gradient under a name and keeps it, with the graph, for
    the whole life of the process. A `tf.GradientTape` in the same graph does not need the name; only
    `tf.gradients` does.

    Args:
        function: From tensors to a tensor and the gradient function; see `keras.ops.custom_gradient`.
    """
    with_gradient = ops.custom_gradient(function)

    def call(*inputs: Tensor) -> Tensor:
        output = with_gradient(*inputs)
        forget_registered_gradient(output)
        return output

    return call


def forget_registered_gradient(output: Tensor) -> None:
    """Remove the gradient of a call from TensorFlow's registry.

    Args:
        output: A tensor in a graph of TensorFlow that a function with a gradient of its own has returned.
            Other tensors change nothing.
    """
    operation = getattr(output, "op", None)
    if operation is None or operation.type != "IdentityN":
        return
    # Private, and checked by a test. Without it, training goes on as before and only the memory stays.
    registry = getattr(sys.modules["tensorflow.python.framework.ops"], "gradient_registry", None)
    names = getattr(registry, "_registry", {})
    try:
        name = operation.get_attr("_gradient_op_type")
    except ValueError:  # an identity without a gradient of its own
        return
    names.pop(name.decode(), None)
