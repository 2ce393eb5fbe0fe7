"""The RPN with a sparse backward pass: the outputs and the gradients of the RPN itself.

Few locations with a gradient take the sparse backward pass, many the dense one.
"""

import keras
import numpy as np
import pytest
from keras import ops
from tensor_tools import BACKEND, array, gradients, run, tensor

from mrcnn import backend
from mrcnn.backend import layer_graph
from mrcnn.fast import sparse_rpn_gradient
from mrcnn.network.rpn import build_rpn_model

SIZES = ((8, 6), (5, 3), (2, 2))  # of the levels; with stride 2, odd sides are padded unequally
CHANNELS, WIDTH, RATIOS = 5, 7, 3
MAPS = [np.random.default_rng(2).normal(size=(2, *size, CHANNELS)).astype("float32") for size in SIZES]
OUTPUTS = 2 + 2 + 4  # logits, scores and deltas of an anchor

strides = pytest.mark.parametrize("stride", [1, 2])
# A level has a gradient at three locations at most: the sparse pass just suffices, or just does not.
limits = pytest.mark.parametrize("limit", [3, 2])


pytestmark = pytest.mark.usefixtures("eager_tensorflow")

SMALLEST_ARITHMETIC = sparse_rpn_gradient.SMALLEST_ARITHMETIC


@pytest.fixture(autouse=True)
def sparse_at_every_level(monkeypatch):
    """The levels here are smaller than those for which the sparse pass is meant."""
    monkeypatch.setattr(sparse_rpn_gradient, "SMALLEST_ARITHMETIC", 0)


def plain_network(stride, sizes=SIZES):
    """All outputs of the RPN at every level, joined. The weights are the same each time."""
    rpn = build_rpn_model(stride, RATIOS, CHANNELS, WIDTH)
    rng = np.random.default_rng(3)
    rpn.set_weights([0.3 * rng.normal(size=weights.shape) for weights in rpn.get_weights()])
    maps = [keras.Input((*size, CHANNELS), name=f"map{i}") for i, size in enumerate(sizes)]
    levels = [ops.concatenate(rpn(level), axis=-1) for level in maps]
    return keras.Model(maps, ops.concatenate(levels, axis=1))


def with_sparse_gradient(model, limit):
    return layer_graph.replace_layers(model, sparse_rpn_gradient.replacements(model, limit))


def factors(count, broken=None):
    """Factors [2, count, 8] of the outputs in a loss: 0 except at a few anchors of every level.

    Args:
        count: Anchors.
        broken: A factor of one anchor instead of its own, such as NaN.
    """
    sampled = np.zeros((2, count, 1), "float32")
    sampled[0, [0, 1, 7, count // 2, count - 1]] = 1
    sampled[1, [3, count - 20]] = 1
    values = sampled * np.random.default_rng(4).normal(size=(2, count, OUTPUTS)).astype("float32")
    if broken is not None:
        values[0, 7, 5] = broken
    return values


def loss_of(network, values):
    return lambda *maps: ops.sum(ops.sin(network(list(maps))) * ops.convert_to_tensor(values))


def weight_gradients(model, network, values):
    """Gradients with respect to the weights of `model`, by the name of the layer and of the weight."""

    def loss(inputs):
        return loss_of(network, values)(*(inputs[f"map{i}"] for i in range(len(MAPS))))

    found = backend.loss_gradients(model, loss)({f"map{i}": level for i, level in enumerate(MAPS)})
    return {
        "/".join(variable.path.split("/")[-2:]): gradient
        for variable, gradient in zip(model.trainable_variables, found, strict=True)
    }


def assert_close(found, expected):
    """Both finite and equal, or both with a NaN and equal elsewhere.

    How far a NaN spreads differs between backends: it depends on whether they skip products with 0.
    """
    assert np.isnan(found).any() == np.isnan(expected).any()
    finite = np.isfinite(expected) & np.isfinite(found)
    largest = np.abs(expected[finite]).max(initial=0.0)
    assert largest > 1e-3 or not finite.all()
    # A small entry is the difference of large terms, which are rounded.
    np.testing.assert_allclose(found[finite], expected[finite], rtol=1e-5, atol=1e-6 * max(1.0, largest))


def test_what_is_replaced():
    model = plain_network(1)
    found = sparse_rpn_gradient.replacements(model, 6)
    assert list(found) == ["rpn_model"]
    assert found["rpn_model"].weights == []  # they stay those of the RPN


@strides
def test_outputs_are_equal(stride):
    plain = plain_network(stride)
    np.testing.assert_array_equal(run(with_sparse_gradient(plain, 6), MAPS), run(plain, MAPS))


@limits
@strides
@pytest.mark.parametrize("broken", [None, np.nan], ids=["finite", "nan"])
def test_gradients_equal_those_of_the_rpn(stride, limit, broken):
    """A NaN must reach the gradients in which the RPN itself has one, and no others."""
    plain = plain_network(stride)
    sparse = with_sparse_gradient(plain, limit)
    values = factors(run(plain, MAPS).shape[1], broken)
    expected, found = (gradients(loss_of(net, values), *MAPS) for net in (plain, sparse))
    for level, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert np.isnan(other).any() == (broken is not None and level == 0)
        assert_close(one, other)
    expected, found = (weight_gradients(plain, net, values) for net in (plain, sparse))
    assert len(expected) == 6
    for name, gradient in expected.items():
        assert np.isnan(gradient).any() == (broken is not None and not name.startswith("rpn_class_raw"))
        assert_close(found[name], gradient)


@strides
def test_a_loss_on_every_anchor(stride):
    plain = plain_network(stride)
    sparse = with_sparse_gradient(plain, 6)
    count = run(plain, MAPS).shape[1]
    values = np.random.default_rng(5).normal(size=(2, count, OUTPUTS)).astype("float32")
    for found, expected in zip(
        *(gradients(loss_of(net, values), *MAPS) for net in (sparse, plain)), strict=True
    ):
        assert_close(found, expected)
    expected, found = (weight_gradients(plain, net, values) for net in (plain, sparse))
    for name, gradient in expected.items():
        assert_close(found[name], gradient)


@pytest.mark.skipif(BACKEND == "jax", reason="JAX traces both backward passes")
@pytest.mark.parametrize(("limit", "dense_levels"), [(6, 0), (3, 0), (2, 1)])
def test_few_locations_take_the_sparse_backward_pass(limit, dense_levels, monkeypatch):
    vjp, calls = backend.vjp, []
    monkeypatch.setattr(backend, "vjp", lambda *args: calls.append(args) or vjp(*args))
    plain = plain_network(1)
    values = factors(run(plain, MAPS).shape[1])
    gradients(loss_of(with_sparse_gradient(plain, limit), values), *MAPS)
    assert len(calls) == dense_levels


@pytest.mark.parametrize(("smallest", "plain_levels"), [(9, 1), (15, 1), (16, 2), (49, 3)])
def test_small_levels_take_the_plain_backward_pass(smallest, plain_levels, monkeypatch):
    """The levels have 48, 15 and 4 locations."""
    monkeypatch.setattr(sparse_rpn_gradient, "SMALLEST_ARITHMETIC", smallest * 9 * CHANNELS * WIDTH)
    sparse_pass, calls = sparse_rpn_gradient.gradients, []
    monkeypatch.setattr(
        sparse_rpn_gradient, "gradients", lambda *args: calls.append(args) or sparse_pass(*args)
    )
    plain = plain_network(1)
    values = factors(run(plain, MAPS).shape[1])
    expected = gradients(loss_of(plain, values), *MAPS)
    for one, other in zip(
        gradients(loss_of(with_sparse_gradient(plain, 6), values), *MAPS), expected, strict=True
    ):
        assert_close(one, other)
    assert len(calls) == len(SIZES) - plain_levels


def test_levels_of_a_narrow_rpn_are_small_up_to_more_locations(monkeypatch):
    monkeypatch.setattr(sparse_rpn_gradient, "SMALLEST_ARITHMETIC", SMALLEST_ARITHMETIC)
    wide, narrow = (3, 3, 256, 512), (3, 3, 64, 64)
    assert sparse_rpn_gradient.is_small((16, 16), 1, wide)
    assert sparse_rpn_gradient.is_small((128, 128), 1, narrow)
    for size in ((32, 32), (None, 32)):
        assert not sparse_rpn_gradient.is_small(size, 1, wide)
    assert sparse_rpn_gradient.is_small((32, 32), 2, wide)
    assert not sparse_rpn_gradient.is_small((256, 256), 1, narrow)


@limits
@pytest.mark.usefixtures("compiled_test")
@pytest.mark.skipif(BACKEND != "tensorflow", reason="on other backends every size is known in a call")
def test_open_sizes(limit):
    import tensorflow

    plain = plain_network(2, sizes=[(None, None)] * len(SIZES))
    sparse = with_sparse_gradient(plain, limit)
    values = factors(run(plain, MAPS).shape[1])
    weights = [variable.value for variable in plain.trainable_variables]

    @tensorflow.function(input_signature=[tensorflow.TensorSpec((None, None, None, CHANNELS))] * len(SIZES))
    def found(*maps):
        with tensorflow.GradientTape() as tape:
            tape.watch(maps)
            loss = loss_of(sparse, values)(*maps)
        return tape.gradient(loss, [*maps, *weights])

    expected = [*gradients(loss_of(plain, values), *MAPS), *weight_gradients(plain, plain, values).values()]
    for one, other in zip(found(*MAPS), expected, strict=True):
        assert_close(array(one), other)


@limits
def test_half_precision(limit):
    """Features in half precision: gradients are computed in float32 and returned in the dtype of the map."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = plain_network(1)
    finally:
        keras.config.set_dtype_policy(before)
    values = factors(run(half, MAPS).shape[1])
    expected = weight_gradients(*[plain_network(1)] * 2, values)
    found = weight_gradients(half, with_sparse_gradient(half, limit), values)
    for name, gradient in expected.items():
        error = np.linalg.norm(found[name] - gradient) / np.linalg.norm(gradient)
        assert error < 0.05, name


@pytest.mark.skipif(BACKEND != "tensorflow", reason="other backends read weights before they change")
def test_outputs_depend_on_the_weights_of_the_backward_pass():
    """An optimizer may change weights once the outputs are known, so they must have been read by then."""
    import tensorflow

    net, maps = with_sparse_gradient(plain_network(1), 6), [tensor(level) for level in MAPS]
    graph = tensorflow.function(lambda: net(maps)).get_concrete_function().graph
    waiting, needed = [graph.structured_outputs], set()
    while waiting:
        output = waiting.pop()
        if output.name in needed:
            continue
        needed.add(output.name)
        inputs = output.op.inputs
        # A custom gradient passes all its tensors through one operation.
        waiting += [inputs[output.value_index]] if output.op.type == "IdentityN" else inputs
    reads = {x.outputs[0].name for x in graph.get_operations() if x.type == "ReadVariableOp"}
    assert len(reads) >= 6
    assert reads <= needed


@strides
@pytest.mark.parametrize("size", [(4, 4), (5, 3), (1, 2)], ids=str)
def test_patches_are_what_the_convolution_reads(size, stride):
    """A convolution whose kernel selects one cell returns that cell of every patch."""
    height, width = size
    cells = np.arange(1, height * width + 1, dtype="float32").reshape(1, height, width, 1)
    patches = array(sparse_rpn_gradient.patch_cells(height, width, stride))
    for position in range(9):
        kernel = np.zeros((3, 3, 1, 1), "float32")
        kernel[position // 3, position % 3] = 1
        selected = array(backend.conv2d(tensor(cells), tensor(kernel), strides=(stride, stride)))
        np.testing.assert_array_equal(patches[:, position] + 1, selected.ravel())


def test_scatter_is_the_transpose_of_gather():
    rng = np.random.default_rng(6)
    cells = rng.normal(size=(2, 12, 3)).astype("float32")
    patches = rng.integers(-1, 12, (2, 4, 9)).astype("int32")
    content = rng.normal(size=(2, 4, 27)).astype("float32")
    gathered = array(sparse_rpn_gradient.gather_patches(*map(tensor, (cells, patches))))
    scattered = array(sparse_rpn_gradient.scatter_add_patches(*map(tensor, (content, patches, cells))))
    assert (gathered * content).sum() == pytest.approx((scattered * cells).sum(), rel=1e-4)
    assert (gathered.reshape(2, 4, 9, 3)[patches < 0] == 0).all()
