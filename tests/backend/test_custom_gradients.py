"""Functions with a gradient of their own, and the memory that TensorFlow would keep for them."""

import gc
import sys
import weakref

import keras
import numpy as np
import pytest
from keras import ops
from tensor_tools import BACKEND, call, gradients

from mrcnn import backend


@backend.custom_gradient
def product(x, factor):
    """x * factor with gradients of another function, so that the two can be told apart."""

    def gradient(*upstreams, upstream=None):
        upstream = upstreams[0] if upstream is None else upstream
        return 7.0 * upstream, ops.zeros_like(factor)

    return x * factor, gradient


def test_the_gradient_is_its_own():
    x = np.array([1.0, 2.0], "float32")
    of_x, of_factor = gradients(lambda *inputs: ops.sum(product(*inputs)), x, 3 * x)
    np.testing.assert_allclose(of_x, [7.0, 7.0])
    np.testing.assert_allclose(of_factor, [0.0, 0.0])
    np.testing.assert_allclose(call(product, x, 3 * x), [3.0, 12.0])


@pytest.mark.skipif(BACKEND != "tensorflow", reason="memory of TensorFlow's graphs")
def test_the_graph_of_a_training_step_is_freed():
    import tensorflow as tf

    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            outputs = network(x)
            loss = ops.sum(product(outputs, outputs))
        return tape.gradient(loss, network.trainable_variables[0].value)

    def registered():
        names = sys.modules["tensorflow.python.framework.ops"].gradient_registry.list()
        return {name for name in names if name.startswith("CustomGradient")}

    before = registered()
    traced = step.get_concrete_function(tf.TensorSpec((1, 2), tf.float32))
    graph = weakref.ref(traced.graph)
    np.testing.assert_allclose(traced(tf.ones((1, 2))), np.full((2, 2), 7.0))
    assert registered() == before
    del step, traced
    gc.collect()
    assert graph() is None
