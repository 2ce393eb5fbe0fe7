"""Call functions and layers on the running backend: arrays in, arrays out.

On JAX everything is compiled, since single operators are slow to start there.
"""

import contextlib

import keras
import numpy as np
import pytest

BACKEND = keras.backend.backend()


def array(tensor) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def arrays(tensors):
    return keras.tree.map_structure(array, tensors)


def tensor(x):
    return keras.ops.convert_to_tensor(x)


@contextlib.contextmanager
def skipping_missing_gradients():
    """Skip the rest of a test where TensorFlow has no gradient of a dilated convolution: without oneDNN."""
    try:
        yield
    except Exception as error:
        if "do not yet support dilation rates larger than 1" not in str(error):
            raise
        pytest.skip("TensorFlow has no gradient of this dilated convolution on this processor")


def call(function, *inputs):
    """The result of a function of tensors for arrays."""
    if BACKEND == "jax":
        import jax

        return arrays(jax.jit(function)(*inputs))
    return arrays(function(*(keras.tree.map_structure(tensor, x) for x in inputs)))


def run(layer, inputs, **options):
    """The result of one call of a layer."""
    if BACKEND != "jax":
        return arrays(layer(keras.tree.map_structure(tensor, inputs), **options))
    import jax

    if not layer.built:
        layer.build(keras.tree.map_structure(np.shape, inputs))
    state = (
        [v.value for v in layer.trainable_variables],
        [v.value for v in layer.non_trainable_variables],
    )
    stateless = jax.jit(lambda t, n, x: layer.stateless_call(t, n, x, **options)[0])
    return arrays(stateless(*state, inputs))


def gradients(function, *inputs):
    """Gradients of a scalar function of tensors with respect to each of its float arrays; 0 where unused."""
    if BACKEND == "jax":
        import jax

        return arrays(jax.jit(jax.grad(function, argnums=tuple(range(len(inputs)))))(*inputs))
    if BACKEND == "torch":
        tensors = [tensor(x).detach().clone().requires_grad_() for x in inputs]
        function(*tensors).backward()
        return [np.zeros(x.shape) if x.grad is None else array(x.grad) for x in tensors]
    import tensorflow

    tensors = [tensorflow.convert_to_tensor(x) for x in inputs]
    with tensorflow.GradientTape() as tape:
        tape.watch(tensors)
        value = function(*tensors)
    zero = tensorflow.UnconnectedGradients.ZERO
    return arrays(tape.gradient(value, tensors, unconnected_gradients=zero))


def symbolic(inputs):
    """Symbolic tensors of the same shapes and dtypes, with an open batch axis."""
    return keras.tree.map_structure(
        lambda x: keras.KerasTensor((None, *np.shape(x)[1:]), str(np.asarray(x).dtype)), inputs
    )


def rebuilt(layer):
    """A layer from the configuration of another, which is written to JSON and read again."""
    import json

    config = json.loads(json.dumps(layer.get_config()))
    copy = type(layer).from_config(config)
    assert json.loads(json.dumps(copy.get_config())) == config
    return copy


def check_layer(layer, inputs):
    """Check what must hold for every layer of the network.

    The symbolic shapes and dtypes are those of the arrays, a layer rebuilt from the configuration has the
    same outputs, and the inputs do not change.

    Returns:
        The outputs.
    """
    before = keras.tree.map_structure(np.copy, inputs)
    outputs = run(layer, inputs)
    keras.tree.map_structure(np.testing.assert_array_equal, inputs, before)

    expected = layer(symbolic(inputs))
    for found, spec in zip(keras.tree.flatten(outputs), keras.tree.flatten(expected), strict=True):
        assert found.shape[1:] == tuple(spec.shape[1:]), layer.name
        assert spec.shape[0] is None or spec.shape[0] == found.shape[0], layer.name
        assert str(found.dtype) == spec.dtype, layer.name
    shapes = layer.compute_output_shape(keras.tree.map_structure(np.shape, inputs))
    flat = [shapes] if isinstance(shapes[0], (int, type(None))) else list(shapes)
    assert [tuple(shape) for shape in flat] == [x.shape for x in keras.tree.flatten(outputs)], layer.name

    copy = rebuilt(layer)
    if layer.weights:
        copy.build(keras.tree.map_structure(np.shape, inputs))
        copy.set_weights(layer.get_weights())
    keras.tree.map_structure(np.testing.assert_array_equal, run(copy, inputs), outputs)
    return outputs
