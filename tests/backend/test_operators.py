"""The operations on tensors, on the running backend: against NumPy, and against the plain version.

Axes: B images, h and w cells, C channels.
"""

import inspect

import keras
import ml_dtypes
import numpy as np
import pytest
from keras import ops
from tensor_tools import BACKEND, array, call, gradients, skipping_missing_gradients, tensor

from mrcnn import backend
from mrcnn.backend import cpu, plain

HALVES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
# Relative rounding error of a few operations in half precision.
HALF_TOLERANCE = {"float16": 4e-3, "bfloat16": 3e-2}

half = pytest.mark.parametrize("dtype", HALVES)


def random(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def in_half(dtype, *arrays):
    return [x.astype(HALVES[dtype]) for x in arrays]


# --- The seam ---


def test_every_operation_exists_with_the_parameters_of_the_plain_one():
    for name in plain.__all__:
        ours, theirs = getattr(backend, name), getattr(plain, name)
        if not inspect.isfunction(theirs):
            continue
        parameters, expected = (list(inspect.signature(f).parameters.values()) for f in (ours, theirs))
        described = [(p.name, p.kind) for p in parameters]
        assert described == [(p.name, p.kind) for p in expected], name
        # conv2d_matmul_grad has a switch whose default is the backend's choice.
        required = [p.name for p in parameters if p.default is p.empty]
        assert required == [p.name for p in expected if p.default is p.empty], name


# --- Convolution and pooling ---


def pairs_of(padding, size, kernel_size, strides, dilation=(1, 1)):
    """Zeros before and after rows and columns, by TensorFlow's rule for "same"."""
    if padding == "valid":
        return ((0, 0), (0, 0))
    if padding != "same":
        return padding
    pairs = []
    for length, cells, stride, step in zip(size, kernel_size, strides, dilation, strict=True):
        remainder = length % stride or stride
        total = max((cells - 1) * step + 1 - remainder, 0)
        pairs.append((total // 2, total - total // 2))
    return pairs


def windows_of(inputs, kernel_size, strides, pairs, dilation=(1, 1), fill=0.0):
    """What a kernel reads at each position: [B, h', w', rows, columns, C]."""
    padded = np.pad(inputs, ((0, 0), *pairs, (0, 0)), constant_values=fill)
    span = [(cells - 1) * step + 1 for cells, step in zip(kernel_size, dilation, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, span, axis=(1, 2))
    windows = windows[:, :: strides[0], :: strides[1], :, :: dilation[0], :: dilation[1]]
    return np.moveaxis(windows, 3, -1)


def convolved(inputs, kernel, bias, *, strides=(1, 1), padding="same", dilation=(1, 1), groups=1):
    """Convolution in float64."""
    size, kernel_size = inputs.shape[1:3], kernel.shape[:2]
    pairs = pairs_of(padding, size, kernel_size, strides, dilation)
    windows = windows_of(inputs.astype("float64"), kernel_size, strides, pairs, dilation)
    parts = zip(np.split(windows, groups, axis=-1), np.split(kernel, groups, axis=-1), strict=True)
    outputs = np.concatenate([np.einsum("bhwrkc,rkcf->bhwf", *part) for part in parts], axis=-1)
    return outputs if bias is None else outputs + bias


def depthwise(inputs, kernel, bias, **options):
    """Depthwise convolution in float64: one group per channel."""
    rows, columns, channels, multiplier = kernel.shape
    kernel = kernel.reshape(rows, columns, 1, channels * multiplier)
    return convolved(inputs, kernel, bias, groups=channels, **options)


CONVOLUTIONS = [
    ((3, 3), {}),
    ((1, 1), {}),
    ((4, 2), {}),
    ((3, 3), {"strides": (2, 2)}),
    ((3, 3), {"strides": (2, 2), "padding": "valid"}),
    ((1, 1), {"strides": (2, 2)}),
    ((2, 3), {"padding": "valid"}),
    ((3, 3), {"dilation": (2, 2)}),
    ((3, 2), {"dilation": (3, 1), "padding": "valid"}),
    ((3, 3), {"padding": ((1, 1), (1, 1))}),
    ((3, 3), {"padding": ((1, 0), (0, 2))}),
    ((3, 3), {"padding": ((0, 1), (0, 1)), "strides": (2, 2)}),
    ((3, 3), {"padding": ((3, 2), (4, 1))}),
    ((3, 3), {"padding": ((2, 1), (1, 0)), "dilation": (2, 2)}),
    ((1, 1), {"padding": ((1, 0), (0, 2))}),
    ((1, 1), {"padding": ((1, 0), (0, 2)), "strides": (2, 2)}),
]
# Keras takes equal strides only for depthwise kernels.
UNEQUAL_STRIDES = [
    ((2, 3), {"strides": (1, 2), "padding": "valid"}),
    ((1, 1), {"strides": (2, 1)}),
    ((1, 1), {"strides": (2, 1), "padding": ((1, 0), (0, 2))}),
    ((3, 3), {"strides": (2, 1), "padding": ((1, 0), (0, 2))}),
]
GROUPS = [
    ((3, 3), {"groups": 2}),
    ((1, 1), {"groups": 4, "strides": (2, 2)}),
    ((3, 3), {"groups": 2, "padding": ((1, 0), (0, 2))}),
]


def check_convolution(function, reference, inputs, kernel, bias, options):
    """Outputs and gradients of a convolution.

    The outputs are linear in the inputs and in the kernel, so each gradient follows from the outputs for a
    change of the inputs or of the kernel.
    """
    expected = reference(inputs, kernel, bias, **options)
    found = call(lambda *x: function(*x, **options), inputs, kernel, bias)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    without_bias = call(lambda *x: function(*x, **options), inputs, kernel)
    np.testing.assert_allclose(without_bias, expected - bias, rtol=1e-4, atol=1e-4)

    weights = random(9, *expected.shape)
    with skipping_missing_gradients():
        slopes = gradients(
            lambda *x: ops.sum(function(*x, **options) * tensor(weights)), inputs, kernel, bias
        )
    for seed in (11, 12, 13):
        changes = random(seed, *inputs.shape), random(seed, *kernel.shape)
        of_inputs = (reference(changes[0], kernel, None, **options) * weights).sum()
        of_kernel = (reference(inputs, changes[1], None, **options) * weights).sum()
        assert (slopes[0] * changes[0]).sum() == pytest.approx(of_inputs, rel=1e-3, abs=1e-2)
        assert (slopes[1] * changes[1]).sum() == pytest.approx(of_kernel, rel=1e-3, abs=1e-2)
    np.testing.assert_allclose(slopes[2], weights.sum((0, 1, 2)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("kernel_size", "options"), CONVOLUTIONS + UNEQUAL_STRIDES + GROUPS, ids=str)
@pytest.mark.parametrize("size", [(8, 10), (7, 9)], ids=str)
def test_conv2d(size, kernel_size, options):
    groups = options.get("groups", 1)
    inputs, kernel, bias = random(0, 2, *size, 4), random(1, *kernel_size, 4 // groups, 8), random(2, 8)
    found, expected = (
        call(lambda *x, f=module.conv2d: f(*x, **options), inputs, kernel, bias)
        for module in (backend, plain)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    check_convolution(backend.conv2d, convolved, inputs, kernel, bias, options)


@pytest.mark.parametrize(("kernel_size", "options"), CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_conv2d(multiplier, kernel_size, options):
    inputs, kernel = random(0, 2, 7, 10, 3), random(1, *kernel_size, 3, multiplier)
    bias = random(2, 3 * multiplier)
    check_convolution(backend.depthwise_conv2d, depthwise, inputs, kernel, bias, options)
    found, expected = (
        call(lambda *x, f=module.depthwise_conv2d: f(*x, **options), inputs, kernel, bias)
        for module in (backend, plain)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel_size", [(1, 1), (3, 3), (3, 1), (1, 5), (7, 3)], ids=str)
def test_conv2d_matmul_grad(kernel_size):
    """Also for kernels that are larger than the map."""

    def function(inputs, kernel, bias=None):
        return backend.conv2d_matmul_grad(inputs, kernel, bias)

    for size in ((6, 9), (2, 3)):
        inputs, kernel, bias = random(0, 2, *size, 4), random(1, *kernel_size, 4, 5), random(2, 5)
        check_convolution(function, convolved, inputs, kernel, bias, {})


@half
def test_convolutions_in_half_precision(dtype):
    inputs, kernel, bias = random(0, 1, 6, 5, 4), 0.3 * random(1, 3, 3, 4, 8), random(2, 8)
    found = call(backend.conv2d, *in_half(dtype, inputs, kernel, bias))
    assert found.dtype == HALVES[dtype]
    expected = convolved(inputs, kernel, bias)
    tolerance = HALF_TOLERANCE[dtype] * np.abs(expected).max()
    np.testing.assert_allclose(found.astype("float32"), expected, atol=tolerance)


POOLS = [
    ((3, 3), (2, 2), "same"),
    ((2, 2), (1, 1), "same"),
    ((3, 2), (2, 1), "same"),
    ((5, 5), (3, 3), "same"),
    ((1, 1), (2, 2), "same"),
    ((3, 3), (2, 2), "valid"),
    ((2, 3), (1, 1), "valid"),
    ((3, 3), (2, 2), ((1, 1), (1, 1))),
    ((3, 3), (2, 2), ((0, 1), (0, 1))),
    ((3, 3), (3, 3), ((0, 1), (0, 1))),
    ((3, 3), (4, 4), ((1, 2), (1, 2))),
    ((2, 2), (1, 1), ((0, 1), (0, 1))),
    ((3, 3), (1, 1), ((2, 0), (0, 1))),
    ((3, 3), (1, 1), ((2, 2), (2, 2))),
]


@pytest.mark.parametrize(("pool_size", "strides", "padding"), POOLS, ids=str)
@pytest.mark.parametrize("size", [(8, 10), (7, 9), (8, 8)], ids=str)
def test_max_pool(size, pool_size, strides, padding):
    """Of negative numbers, so that padding with zeros would show."""
    rng = np.random.default_rng(0)
    inputs = -1.0 - rng.permutation(2 * size[0] * size[1] * 3).reshape(2, *size, 3).astype("float32")
    pairs = pairs_of(padding, size, pool_size, strides)
    expected = windows_of(inputs, pool_size, strides, pairs, fill=-np.inf).max(axis=(3, 4))

    def function(x):
        return backend.max_pool(x, pool_size, strides, padding)

    np.testing.assert_array_equal(call(function, inputs), expected)
    weights = random(1, *expected.shape)
    (slopes,) = gradients(lambda x: ops.sum(function(x) * tensor(weights)), inputs)
    largest = np.zeros_like(inputs)
    position = {value: index for index, value in np.ndenumerate(inputs)}  # all values differ
    for index, value in np.ndenumerate(expected):
        largest[position[value]] += weights[index]
    np.testing.assert_allclose(slopes, largest, atol=1e-5)


# --- Other layers ---


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4), (2, 3, 1, 1, 4), (0, 4)], ids=str)
def test_affine(shape):
    inputs, kernel, bias = random(0, *shape), random(1, 4, 6), random(2, 6)
    expected = inputs @ kernel + bias
    np.testing.assert_allclose(call(backend.affine, inputs, kernel, bias), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["relu", "sigmoid", "linear"])
def test_activate(name):
    inputs = random(0, 4, 5)
    expected = {"relu": np.maximum(inputs, 0), "sigmoid": 1 / (1 + np.exp(-inputs)), "linear": inputs}[name]
    found = call(lambda x: backend.activate(x + 0.0, keras.activations.get(name)), inputs)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_relu_inplace():
    inputs = random(0, 4, 5)
    found = call(lambda x: backend.relu_inplace(x + 0.0), inputs)
    np.testing.assert_array_equal(found, np.maximum(inputs, 0))


def test_add_inplace():
    target, other = random(0, 4, 5), random(1, 4, 5)
    found = call(lambda x, y: backend.add_inplace(x + 0.0, y), target, other)
    np.testing.assert_array_equal(found, target + other)


def test_add_inplace_where_elements_share_memory():
    target, other = random(0, 1, 1, 1, 3), random(1, 1, 4, 2, 3)
    found = call(lambda x, y: backend.add_inplace(ops.broadcast_to(x, (1, 4, 2, 3)), y), target, other)
    np.testing.assert_allclose(found, target + other, rtol=1e-6)


STATISTICS = [np.array([2, 3, 4]), np.array([1, 4, 0.25]), np.array([1, 2, -0.5]), np.array([0, -1, 1])]


@pytest.mark.parametrize("shape", [(6, 3), (2, 4, 5, 3), (2, 2, 4, 5, 3), (0, 3)], ids=str)
@pytest.mark.parametrize("without", [(), ("gamma",), ("beta",), ("gamma", "beta")], ids=str)
def test_batch_norm(shape, without):
    inputs = random(0, *shape)
    mean, variance, gamma, beta = (x.astype("float32") for x in STATISTICS)
    expected = (inputs - mean) / np.sqrt(variance + 0.001)
    gamma, beta = (
        None if name in without else x for name, x in zip(("gamma", "beta"), (gamma, beta), strict=True)
    )
    expected = expected * (1 if gamma is None else gamma) + (0 if beta is None else beta)
    found = call(lambda x: backend.batch_norm(x, mean, variance, gamma, beta, 0.001), inputs)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@half
def test_batch_norm_in_half_precision(dtype):
    """The result is rounded once: everything between is float32."""
    inputs = in_half(dtype, 100.0 + random(0, 2, 4, 5, 3))[0]
    mean, variance, gamma, beta = (x.astype("float32") for x in STATISTICS)
    mean = mean + np.float32(100.03)
    found = call(lambda x: backend.batch_norm(x, mean, variance, gamma, beta, 0.001), inputs)
    assert found.dtype == HALVES[dtype]
    exact = (inputs.astype("float32") - mean) / np.sqrt(variance + 0.001) * gamma + beta
    spacing = float(ml_dtypes.finfo(HALVES[dtype]).eps) * np.maximum(np.abs(exact), 0.5)
    assert (np.abs(found.astype("float32") - exact) <= spacing).all()


def test_to_convolution_layout():
    kernel = random(0, 3, 2, 4, 5)
    variable = keras.Variable(kernel)
    backend.to_convolution_layout(variable)
    np.testing.assert_array_equal(array(variable), kernel)
    inputs = random(1, 1, 5, 6, 4)
    np.testing.assert_allclose(
        array(backend.conv2d(tensor(inputs), variable)), convolved(inputs, kernel, None), atol=1e-4
    )
    variable.assign(2.0 * kernel)
    np.testing.assert_array_equal(array(variable), 2.0 * kernel)


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's own layouts of memory")
class TestTorchLayouts:
    def test_kernels_are_stored_as_convolutions_read_them(self):
        import torch

        variable = keras.Variable(random(0, 3, 3, 4, 5))
        backend.to_convolution_layout(variable)
        images_first = variable.value.permute(3, 2, 0, 1)
        assert images_first.is_contiguous(memory_format=torch.channels_last)

    def test_features_are_not_copied(self):
        import torch

        inputs = tensor(random(0, 1, 8, 8, 3))
        outputs = backend.conv2d(inputs, tensor(random(1, 3, 3, 3, 4)))
        assert outputs.permute(0, 3, 1, 2).is_contiguous(memory_format=torch.channels_last)
        assert outputs.is_contiguous()
        assert backend.max_pool(inputs, (3, 3), (2, 2), "same").is_contiguous()


# --- Gather and select ---


def test_top_k_prefers_the_lower_index():
    scores = np.array([[1, 3, 2, 3, 2], [0, 0, 0, 0, 0]], "float32")
    found = call(lambda x: backend.top_k(x, 4), scores)
    assert keras.backend.standardize_dtype(backend.top_k(tensor(scores), 4).dtype) == "int32"
    assert found.tolist() == [[1, 3, 2, 4], [0, 1, 2, 3]]


def test_top_k_with_many_ties():
    scores = np.random.default_rng(6).integers(0, 40, (3, 4000)).astype("float32")
    found = call(lambda x: backend.top_k(x, 900), scores)
    np.testing.assert_array_equal(found, np.argsort(-scores, axis=1, kind="stable")[:, :900])


def bilinear_inputs():
    """A table, corners [2, 3, 4, 5], weights that broadcast to them, and which samples are inside."""
    rng = np.random.default_rng(0)
    corners = [rng.integers(0, 9, (2, 3, 4, 5)).astype("int32") for _ in range(4)]
    weight_y = rng.uniform(size=(2, 3, 4, 1)).astype("float32")
    weight_x = rng.uniform(size=(2, 3, 1, 5)).astype("float32")
    return random(1, 9, 6), corners, weight_y, weight_x, rng.uniform(size=(2, 3, 4, 5)) > 0.2


def test_bilinear_gather():
    table, corners, weight_y, weight_x, inside = bilinear_inputs()

    def function(table):
        tensors = [tensor(x) for x in (weight_y, weight_x, inside)]
        return backend.bilinear_gather(table, [tensor(x) for x in corners], *tensors)

    weights = [(1 - weight_y) * (1 - weight_x), (1 - weight_y) * weight_x]
    weights += [weight_y * (1 - weight_x), weight_y * weight_x]
    expected = sum(
        table[corner] * (weight * inside)[..., None] for corner, weight in zip(corners, weights, strict=True)
    )
    np.testing.assert_allclose(call(function, table), expected, rtol=1e-5, atol=1e-6)
    upstream = random(2, *expected.shape)
    (slopes,) = gradients(lambda x: ops.sum(function(x) * tensor(upstream)), table)
    of_table = np.zeros_like(table)
    for corner, weight in zip(corners, weights, strict=True):
        np.add.at(of_table, corner, upstream * (weight * inside)[..., None])
    np.testing.assert_allclose(slopes, of_table, rtol=1e-4, atol=1e-4)


def test_bilinear_gather_averages_neighbors():
    table, corners, weight_y, weight_x, inside = bilinear_inputs()
    corners = [np.concatenate([x, x[..., :1]], axis=-1) for x in corners]  # 4 x 6 points
    weight_x, inside = (np.concatenate([x, x[..., :1]], axis=-1) for x in (weight_x, inside))

    def function(table, samples):
        tensors = [tensor(x) for x in (weight_y, weight_x, inside)]
        return backend.bilinear_gather(table, [tensor(x) for x in corners], *tensors, samples)

    single = call(lambda x: function(x, 1), table)
    expected = single.reshape(2, 3, 2, 2, 3, 2, 6).mean(axis=(3, 5))
    np.testing.assert_allclose(call(lambda x: function(x, 2), table), expected, rtol=1e-5, atol=1e-6)


@half
def test_bilinear_gather_in_half_precision(dtype):
    table, corners, weight_y, weight_x, inside = bilinear_inputs()
    arrays = in_half(dtype, table, weight_y, weight_x)

    def function(module):
        return lambda *x: module.bilinear_gather(
            x[0], [tensor(corner) for corner in corners], x[1], x[2], tensor(inside)
        )

    found = call(function(backend), *arrays)
    assert found.dtype == HALVES[dtype]
    expected = call(function(plain), *(x.astype("float32") for x in arrays))
    np.testing.assert_allclose(found.astype("float32"), expected, atol=3 * HALF_TOLERANCE[dtype])


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has the operator")
def test_crop_and_resize():
    """Boxes whose samples lie on cells, on two levels of two images, in mixed order."""
    maps = [random(0, 2, 5, 9, 3), random(1, 2, 3, 5, 3)]
    boxes = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0.5, 1, 1], [0, 0, 0.5, 0.5], [-1, 0, 0, 1]], "float32")
    images, levels = np.array([1, 0, 1, 0, 0], "int32"), np.array([1, 0, 0, 1, 1], "int32")
    found = call(
        lambda *x: backend.crop_and_resize(list(x[:2]), *x[2:], (3, 3)), *maps, boxes, images, levels
    )
    expected = np.zeros((5, 3, 3, 3), "float32")
    expected[0] = maps[1][1][:, ::2]
    expected[1] = maps[0][0][::2, ::4]
    expected[2] = maps[0][1][::2, 4::2]
    upper_left = maps[1][0][:2, :3]
    expected[3] = np.stack([upper_left[0], upper_left.mean(axis=0), upper_left[1]])
    expected[4, 2] = maps[1][0][0, ::2]  # the other rows lie outside
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_first_maximum():
    scores = np.array([[0.1, 0.7, 0.7], [-0.0, 0.0, -1.0], [3.0, 2.0, 1.0]], "float32")
    found = call(backend.first_maximum, scores)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, [1, 0, 0])


def test_mean_of_neighbors():
    x = random(0, 2, 4, 6, 3)
    expected = x.reshape(2, 2, 2, 3, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(call(lambda x: backend.mean_of_neighbors(x, 2), x), expected, atol=1e-6)
    np.testing.assert_array_equal(call(lambda x: backend.mean_of_neighbors(x, 1), x), x)


# --- Which formulation pays ---


def test_only_tensorflow_makes_its_graphs():
    assert (BACKEND == "tensorflow") == backend.MAKES_TENSORFLOW_GRAPHS


def test_is_on_cpu():
    """Where the backend puts a tensor."""
    x = tensor(np.ones(3, "float32"))
    device = {
        "tensorflow": lambda: x.device,
        "jax": lambda: next(iter(x.devices())).platform,
        "torch": lambda: x.device.type,
    }[BACKEND]()
    assert backend.is_on_cpu(x) == ("cpu" in device.lower())


@pytest.mark.parametrize("lacks_avx512", [True, False])
@pytest.mark.parametrize("on_cpu", [True, False])
def test_matmul_gradient_pays(on_cpu, lacks_avx512, monkeypatch):
    """On a CPU: always with JAX, otherwise for large kernels (TensorFlow: and maps) without AVX-512."""
    monkeypatch.setattr(running_module(), "is_on_cpu", lambda tensor: on_cpu)
    monkeypatch.setattr(cpu, "lacks_avx512", lambda: lacks_avx512)
    large, small, unknown = (1, 64, 64, 4), (1, 8, 8, 4), (None, None, None, 4)
    cases = [(large, (3, 3)), (small, (3, 3)), (unknown, (3, 3)), (large, (1, 1))]
    pays = on_cpu and lacks_avx512
    expected = {
        "tensorflow": [pays, False, pays, False],
        "torch": [pays, pays, pays, False],
        "jax": [on_cpu] * 4,
    }
    found = [backend.matmul_gradient_pays(keras.KerasTensor(shape), size) for shape, size in cases]
    assert found == expected[BACKEND]


@pytest.mark.parametrize("on_cpu", [True, False])
def test_compiles_with_xla(on_cpu, monkeypatch):
    """The user's choice, or the backend's default. JAX always compiles, so its sizes are always known."""
    monkeypatch.setattr(running_module(), "is_on_cpu", lambda tensor: on_cpu)
    default = {"tensorflow": not on_cpu, "jax": True, "torch": False}[BACKEND]
    for choice, compiles in ((None, default), (True, True), (False, False)):
        assert backend.compiles_with_xla(choice) == compiles
        assert backend.sizes_may_vary(choice) == (not compiles and BACKEND != "jax")


def running_module():
    return inspect.getmodule(backend.is_on_cpu)


# --- Operations that a program of torch.export can hold ---


def test_rows():
    x = random(1, 2, 9, 4)
    np.testing.assert_array_equal(
        call(lambda x: backend.rows_from(x, ops.convert_to_tensor(3), 4), x), x[:, 3:7]
    )
    np.testing.assert_array_equal(array(backend.first_rows(tensor(x), tensor(np.int32(5)))), x[:, :5])


def test_a_vector_of_numbers_and_sizes():
    found = array(backend.float_vector([7, ops.convert_to_tensor(3), 0.5]))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [7, 3, 0.5])


def test_images_are_padded_with_zeros():
    images = random(2, 2, 3, 4, 3)
    zero, one, two = (ops.convert_to_tensor(size) for size in (0, 1, 2))
    found = array(backend.pad_images(tensor(images), (one, zero), (zero, two)))
    np.testing.assert_array_equal(found, np.pad(images, ((0, 0), (1, 0), (0, 2), (0, 0))))


def test_a_loop():
    """Numbers 1, 2, 4, ... below 100, and how many they are."""
    found = backend.while_loop(
        lambda x, count: x < 100,
        lambda x, count: (2 * x, count + 1),
        (tensor(np.int32(1)), tensor(np.int32(0))),
    )
    assert [int(array(x)) for x in found] == [128, 7]


def test_programs_are_written_by_pytorch_alone():
    """tests/export/test_torch_format.py runs them."""
    assert callable(backend.write_torch_program) is (BACKEND == "torch")


def test_gather():
    x, index = random(0, 2, 5, 3), np.array([[4, 0], [2, 2]])
    found = call(lambda x: backend.gather(x, ops.convert_to_tensor(index)), x)
    np.testing.assert_array_equal(found, np.take_along_axis(x, index[..., None], axis=1))


def test_half_sum_of_squares():
    x = random(0, 4, 5)
    found = call(lambda x: backend.half_sum_of_squares(x), x)
    np.testing.assert_allclose(found, 0.5 * np.square(x).sum(), rtol=1e-6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("has_gamma", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (6, 5)])
def test_normalize_by_batch(shape, has_gamma, training):
    x, gamma, beta = random(0, *shape), random(1, 5) if has_gamma else None, random(2, 5)
    outputs, mean, variance = (
        call(lambda x, part=part: backend.normalize_by_batch(x, gamma, beta, 0.001, training)[part], x)
        for part in range(3)
    )
    axes = tuple(range(len(shape) - 1))
    expected = (x - x.mean(axes)) / np.sqrt(x.var(axes) + 0.001) * (1 if gamma is None else gamma) + beta
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mean, x.mean(axes), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(variance, x.var(axes, ddof=1), rtol=1e-4)


def test_momentum_step():
    if backend.momentum_step is None:
        pytest.skip("the backend has no such operator")
    start, speed, gradient = random(0, 4), random(1, 4), random(2, 4)
    variable, velocity = keras.Variable(start), keras.Variable(speed)
    backend.momentum_step(variable, velocity, ops.convert_to_tensor(gradient), 0.1, 0.9)
    expected = 0.9 * speed - 0.1 * gradient
    np.testing.assert_allclose(array(velocity), expected, rtol=1e-6)
    np.testing.assert_allclose(array(variable), start + expected, rtol=1e-6)


def test_move_average():
    start, value = random(0, 4), random(1, 4)
    average = keras.Variable(start)
    backend.move_average(average, ops.convert_to_tensor(value), ops.convert_to_tensor(0.1))
    np.testing.assert_allclose(array(average), start + (value - start) * np.float32(0.1), rtol=1e-6)


def test_non_max_suppression():
    if backend.non_max_suppression is None:
        pytest.skip("the backend has no such operator")
    boxes = np.array([[[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [0, 0, 1, 1]]], "float32")
    kept, filled = backend.non_max_suppression(
        ops.convert_to_tensor(boxes), ops.convert_to_tensor([[True, True, True, False]]), 3, 0.5
    )
    assert array(filled).tolist() == [[True, True, False]]
    assert array(kept)[0, :2].tolist() == [0, 2]
