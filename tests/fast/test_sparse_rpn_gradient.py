"""The RPN's gradient at a few anchors against that of the whole RPN."""

import keras
import numpy as np
import pytest
from keras import ops
from tensor_tools import BACKEND, call, gradients, run, tensor

from mrcnn.fast import sparse_rpn_gradient
from mrcnn.network.rpn import build_rpn_model

SIZES = ((8, 6), (5, 3), (2, 2))  # of the levels; odd sides reach over their edge with stride 2
CHANNELS, WIDTH, RATIOS = 5, 7, 3
MAPS = [np.random.default_rng(2).normal(size=(2, *size, CHANNELS)).astype("float32") for size in SIZES]


def network(stride, most=None):
    """Results of all levels, joined; with `most` by way of RpnGradient. Equal weights each time."""
    rpn = build_rpn_model(stride, RATIOS, CHANNELS, WIDTH)
    rng = np.random.default_rng(3)
    rpn.set_weights([0.3 * rng.normal(size=weights.shape) for weights in rpn.get_weights()])
    maps = [keras.Input((*size, CHANNELS)) for size in SIZES]
    levels = [rpn(level) for level in maps]
    said = [ops.concatenate([level[part] for level in levels], axis=1) for part in (0, 2)]
    if most is not None:
        said = sparse_rpn_gradient.RpnGradient(rpn, stride, RATIOS, most)([*said, *maps])
    return keras.Model(maps, ops.concatenate(said, axis=-1))


def some_anchors(count):
    """Weights of a loss [2, count, 6] that touch all levels, the first and the last anchor."""
    chosen = np.zeros((2, count, 1), "float32")
    chosen[0, [0, 1, 7, count // 2, count - 1]] = 1
    chosen[1, [3, count - 20]] = 1
    return chosen * np.random.default_rng(4).normal(size=(2, count, 6)).astype("float32")


@pytest.mark.parametrize("stride", [1, 2])
def test_the_maps_get_the_gradient_of_the_whole_rpn(stride):
    whole, few = network(stride), network(stride, most=6)
    loss = tensor(some_anchors(run(whole, MAPS).shape[1]))
    np.testing.assert_array_equal(run(whole, MAPS), run(few, MAPS))
    wanted, found = (
        gradients(lambda *maps, net=net: ops.sum(ops.sin(net(list(maps))) * loss), *MAPS)
        for net in (whole, few)
    )
    for expected, gradient in zip(wanted, found, strict=True):
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(gradient, expected, atol=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_weights_take_the_step_of_the_whole_rpn(stride):
    """In the compiled step of training, whose batch axis is open."""
    steps = []
    for net in (network(stride), network(stride, most=6)):
        before = net.get_weights()
        loss = some_anchors_loss(run(net, MAPS).shape[1])
        net.compile(keras.optimizers.SGD(1.0), loss=loss)
        net.train_on_batch(MAPS, np.zeros((2, 1), "float32"))
        steps.append([after - start for after, start in zip(net.get_weights(), before, strict=True)])
    assert len(steps[1]) == 6
    for expected, step in zip(*steps, strict=True):
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(step, expected, atol=1e-6)


def some_anchors_loss(count):
    factors = some_anchors(count)

    def loss(_, said):
        return ops.sum(ops.sin(said) * ops.convert_to_tensor(factors), axis=(1, 2))

    return loss


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the order of reads and writes in TensorFlow's graphs")
def test_the_results_wait_for_the_weights():
    """Once results are there an optimiser may move weights: the backward pass must have read its own."""
    import tensorflow

    net, maps = network(1, most=6), [tensor(level) for level in MAPS]
    graph = tensorflow.function(lambda: net(maps)).get_concrete_function().graph
    waiting, needed = [graph.structured_outputs], set()
    while waiting:
        result = waiting.pop()
        if result.name not in needed:
            needed.add(result.name)
            sources, place = (
                result.op.inputs,
                result.value_index,
            )  # custom gradients hand all on in one operation
            waiting += [sources[place]] if result.op.type == "IdentityN" else sources
    reads = {x.outputs[0].name for x in graph.get_operations() if x.type == "ReadVariableOp"}
    assert len(reads) >= 6
    assert reads <= needed


def test_too_many_anchors_are_no_gradient_at_all():
    few = network(1, most=3)
    loss = tensor(some_anchors(run(few, MAPS).shape[1]))
    of_map, *_ = gradients(lambda *maps: ops.sum(few(list(maps)) * loss), *MAPS)
    assert np.isnan(of_map[0]).any()  # five anchors
    assert np.isfinite(of_map[1]).all()  # two


def test_a_broken_gradient_is_handed_on():
    upstream = np.zeros((1, 12, 6), "float32")
    upstream[0, 4, 2] = np.nan
    index, found = call(lambda x: sparse_rpn_gradient.places_with_gradient(x, 3), upstream)
    assert index[0, 0] == 4
    assert np.isnan(found[0, 0, 2])
    assert not found[0, 1:].any()
