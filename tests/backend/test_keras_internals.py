"""Each private member of Keras that the package uses, in a test of its own.

A test that fails after an update of Keras names the function of `keras_internals` to change.
"""

import inspect
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops
from tensor_tools import BACKEND, array, tensor

from mrcnn import _startup
from mrcnn.backend import keras_internals
from mrcnn.model import InferenceNetwork
from mrcnn.parallel_model import ParallelModel
from mrcnn.training.network import TrainingNetwork

pytestmark = pytest.mark.smoke


@pytest.fixture
def graph():
    """x = first(image); y = first(x); z = x + 2 * y, and the layer."""
    image = keras.Input((4,), name="image")
    first = layers.Dense(4, name="first")
    x = first(image)
    y = first(x)
    z = layers.Add(name="sum")([x, 2.0 * y])
    return {"image": image, "x": x, "y": y, "z": z, "first": first, "model": keras.Model(image, z)}


def test_producer(graph):
    assert keras_internals.producer(graph["x"]) is graph["first"]
    assert keras_internals.producer(graph["z"]).name == "sum"
    assert keras_internals.producer(ops.relu(graph["x"])).__class__.__name__.lower() == "relu"


def test_producing_call(graph):
    """The call tells its operation, its inputs and its outputs."""
    calls = [keras_internals.producing_call(graph[name]) for name in ("image", "x", "y", "z")]
    assert [call.is_input for call in calls] == [True, False, False, False]
    _, x, y, z = calls
    assert x is not y
    assert x.operation is y.operation is graph["first"]
    assert [id(t) for t in x.input_tensors] == [id(graph["image"])]
    assert [id(t) for t in y.input_tensors] == [id(graph["x"])]
    assert [id(t) for t in y.outputs] == [id(graph["y"])]
    assert len(z.input_tensors) == 2


def test_calls_of(graph):
    calls = keras_internals.calls_of(graph["first"])
    assert list(calls) == [keras_internals.producing_call(graph[name]) for name in "xy"]


def test_fill_arguments(graph):
    call = keras_internals.producing_call(graph["z"])
    values = {id(x): index for index, x in enumerate(call.input_tensors)}
    args, options = keras_internals.fill_arguments(call, values)
    assert list(args) == [[0, 1]]
    assert all(value is None for value in options.values())


def test_numbers_of_a_new_process():
    layers.Dense(2), layers.Dense(2)
    with keras_internals.numbers_of_a_new_process(["re_lu_2", "flatten"]):
        names = [layers.Dense(2).name, layers.Dense(2).name, layers.ReLU().name, layers.Flatten().name]
    assert names == ["dense", "dense_1", "re_lu_3", "flatten_1"]
    later = layers.Dense(2).name
    assert int(later.removeprefix("dense_")) >= 2
    with pytest.raises(KeyError), keras_internals.numbers_of_a_new_process():
        raise KeyError
    assert layers.Dense(2).name not in ("dense", later)


def test_without_importing_tensorflow(monkeypatch):
    """Also if TensorFlow is loaded already, and after an error."""
    lazy = keras_internals.module_utils.tensorflow
    assert lazy.name == "tensorflow"
    monkeypatch.setattr(lazy, "_available", None)
    with keras_internals.without_importing_tensorflow():
        assert lazy._available is (None if "tensorflow" in sys.modules else False)
        assert layers.Dense(2, dtype="float32").get_config()["units"] == 2
    assert lazy._available in (None, True)
    monkeypatch.setattr(lazy, "_available", None)
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    with pytest.raises(ZeroDivisionError), keras_internals.without_importing_tensorflow():
        assert lazy.available is False
        raise ZeroDivisionError
    assert lazy._available is None


def test_watch_assignments():
    """Also when a layer, a model or an optimizer assigns."""
    dense = layers.Dense(2)
    dense.build((None, 3))
    calls = []
    keras_internals.watch_assignments(dense.kernel, lambda: calls.append("kernel"))
    dense.kernel.assign(np.ones((3, 2)))
    assert calls == ["kernel"]
    np.testing.assert_array_equal(array(dense.kernel), np.ones((3, 2)))
    dense.set_weights([np.zeros((3, 2)), np.ones(2)])
    assert calls == ["kernel"] * 2
    dense.kernel.assign_add(np.ones((3, 2)))
    dense.kernel.assign_sub(np.ones((3, 2)))
    assert calls == ["kernel"] * 4
    np.testing.assert_array_equal(array(dense.kernel), np.zeros((3, 2)))


def test_optimized_variables():
    variables = [keras.Variable(np.ones(2), name="a"), keras.Variable(np.ones(3), name="b")]
    optimizer = keras.optimizers.SGD()
    optimizer.build(variables)
    assert [id(v) for v in keras_internals.optimized_variables(optimizer)] == [id(v) for v in variables]


def compiled(optimizer, **options):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(1)(inputs))
    model.compile(optimizer, "mse", **options)
    model.make_train_function()
    model.make_test_function()
    return model


def test_compiled_state():
    """All that `compile` sets belongs to it."""
    model = compiled("sgd")
    names = set(keras_internals.compiled_state(model))
    before = dict(vars(model))
    model.compile("adam", "mae", metrics=["mse"], run_eagerly=True, steps_per_execution=2, jit_compile=False)
    changed = {name for name, value in vars(model).items() if value is not before.get(name)}
    assert changed - names <= {"loss", "predict_function"}


def test_restore_compiled_state():
    model = compiled("sgd", metrics=["mae"])
    state = keras_internals.compiled_state(model)
    metrics, optimizer, function = model.metrics, model.optimizer, model.train_function
    model.compile("adam", "mse", run_eagerly=True)
    keras_internals.restore_compiled_state(model, state)
    assert model.optimizer is optimizer and model.train_function is function and not model.run_eagerly
    assert [id(metric) for metric in model.metrics] == [id(metric) for metric in metrics]
    history = model.fit(np.ones((4, 3), "float32"), np.ones((4, 1), "float32"), verbose=0)
    assert set(history.history) == {"loss", "mae"}


def test_mean_weights():
    """Also of an optimizer that scales the loss."""
    variables = [keras.Variable(np.ones(2, "float32")), keras.Variable(np.zeros(3, "float32"))]
    inner = keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.5)
    inner.build(variables)
    for mean in (0.0, 0.5):
        inner.apply([tensor(np.full(2, mean, "float32")), tensor(np.ones(3, "float32"))])
    for optimizer in (inner, keras.optimizers.LossScaleOptimizer(inner)):
        (first, mean), (second, other) = keras_internals.mean_weights(optimizer)
        assert first is variables[0] and second is variables[1]
        np.testing.assert_allclose(array(mean.value), 0.5 * 1.0 + 0.5 * 0.5)
        np.testing.assert_allclose(array(other.value), 0.5 * -1.0 + 0.5 * -2.0)


def test_without_final_means():
    """Also after an error, on all backends."""

    class Fail(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.set_weights([np.full((3, 1), 7.0), np.zeros(1)])
            raise ZeroDivisionError

    model = compiled(keras.optimizers.SGD(1.0, use_ema=True))
    data = np.ones((4, 3), "float32"), np.ones((4, 1), "float32")
    with pytest.raises(ZeroDivisionError), keras_internals.without_final_means(model.optimizer):
        model.fit(*data, epochs=2, callbacks=[Fail()], verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], np.full((3, 1), 7.0))
    assert "finalize_variable_values" not in vars(model.optimizer)


class TestKeepsWeights:
    @pytest.mark.parametrize("cls", [InferenceNetwork, ParallelModel, TrainingNetwork])
    def test_the_networks(self, cls):
        assert issubclass(cls, keras_internals.KeepsWeights)

    @pytest.mark.parametrize("loop", ["fit", "evaluate", "predict"])
    def test_after_an_error_in_the_first_step(self, loop):
        class Fails(keras_internals.KeepsWeights):
            def train_step(self, *args):
                raise ZeroDivisionError

            test_step = predict_step = train_step

        image = keras.Input((3,))
        model = Fails(image, layers.Dense(1)(image))
        model.compile(keras.optimizers.SGD(1.0), "mse", run_eagerly=True)
        model.set_weights([np.full((3, 1), 7.0), np.full(1, 2.0)])
        data = [np.ones((4, 3), "float32"), np.ones((4, 1), "float32")]
        with pytest.raises(ZeroDivisionError):
            getattr(model, loop)(*data[: 1 + (loop != "predict")], verbose=0)
        kernel, bias = model.get_weights()
        np.testing.assert_array_equal(kernel, np.full((3, 1), 7.0))
        np.testing.assert_array_equal(bias, [2.0])

    def test_in_a_later_epoch_the_last_step_counts(self):
        class Fail(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == 1:
                    self.model.train_function = lambda *args: 1 / 0

        image = keras.Input((1,))
        model = keras_internals.KeepsWeights(image, layers.Dense(1, use_bias=False)(image))
        model.compile(keras.optimizers.SGD(0.5), "mse")
        model.set_weights([np.full((1, 1), 2.0)])
        data = np.ones((1, 1)), np.ones((1, 1))
        with pytest.raises(ZeroDivisionError):
            model.fit(*data, epochs=2, validation_data=data, callbacks=[Fail()], verbose=0)
        np.testing.assert_allclose(model.get_weights()[0], [[1.0]])  # 2 - 0.5 * 2 * (2 - 1)

    @pytest.mark.parametrize("loop, kind", [("fit", "train"), ("evaluate", "test"), ("predict", "predict")])
    def test_after_an_interrupted_step(self, loop, kind):
        """Ctrl-C arrives while the step computes, so that Keras never sees its result."""
        image = keras.Input((1,))
        model = keras_internals.KeepsWeights(image, layers.Dense(1, use_bias=False)(image))
        model.compile(keras.optimizers.SGD(0.5), "mse")
        model.set_weights([np.full((1, 1), 2.0)])

        def interrupt(logs=None):
            step = getattr(model, f"{kind}_function")

            def interrupted(*args):
                step(*args)
                raise KeyboardInterrupt

            setattr(model, f"{kind}_function", interrupted)

        callback = keras.callbacks.Callback()
        setattr(callback, f"on_{kind}_begin", interrupt)
        data = [np.ones((1, 1)), np.ones((1, 1))]
        with pytest.raises(KeyboardInterrupt):
            getattr(model, loop)(*data[: 1 + (loop != "predict")], callbacks=[callback], verbose=0)
        trained = 1.0 if loop == "fit" and BACKEND != "jax" else 2.0  # 2 - 0.5 * 2 * (2 - 1)
        np.testing.assert_allclose(model.get_weights()[0], [[trained]])


@pytest.mark.skipif(BACKEND != "jax", reason="JAX alone overwrites arguments")
def test_keeping_arguments():
    from keras.src.backend.jax import trainer

    before, x = trainer.jit, keras.ops.ones(3)
    with keras_internals.keeping_arguments():
        step = trainer.jit(lambda x: x + 1, donate_argnums=0, out_shardings=None)
    assert step(x)[0] == 2 and not x.is_deleted()
    assert trainer.jit is before


def test_variable_index():
    variables = [keras.Variable(np.zeros(2, "float32")) for _ in range(3)]
    optimizer = keras.optimizers.SGD()
    optimizer.build(variables)
    assert [keras_internals.variable_index(optimizer, variable) for variable in variables] == [0, 1, 2]


class TestClipsAfterSum:
    @staticmethod
    def optimizer(clips_after_sum):
        """An optimizer that records in which order Keras clips and sums."""
        order = []

        class Recorded(type(keras.optimizers.SGD())):
            def _clip_gradients(self, grads):
                order.append("clip")
                return super()._clip_gradients(grads)

            def _all_reduce_sum_gradients(self, grads_and_vars):
                order.append("sum")
                return super()._all_reduce_sum_gradients(grads_and_vars)

        class Optimizer(keras_internals.ClipsAfterSum, Recorded):
            pass

        optimizer = Optimizer(1.0, global_clipnorm=1.0)
        optimizer.clips_after_sum = clips_after_sum
        return optimizer, order

    def step(self, clips_after_sum):
        """The change of a variable by a gradient of norm 5, and the order of clipping and summing."""
        optimizer, order = self.optimizer(clips_after_sum)
        variable = keras.Variable(np.zeros(2, "float32"))
        optimizer.apply([tensor(np.array([3, 4], "float32"))], [variable])
        return -array(variable), order

    def test_without_it_keras_clips_first(self):
        change, order = self.step(clips_after_sum=False)
        np.testing.assert_allclose(change, [0.6, 0.8], rtol=1e-5)
        assert order == ["clip"]  # and one device has nothing to sum

    @pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow sums gradients in the optimizer")
    def test_clips_once_and_after_the_sum(self):
        change, order = self.step(clips_after_sum=True)
        np.testing.assert_allclose(change, [0.6, 0.8], rtol=1e-5)
        assert order == ["sum", "clip"]


class TestAveragesWeights:
    @pytest.mark.parametrize(("momentum", "expected"), [(None, -1.5), (0.25, -1.75)])
    def test_the_momentum_of_the_mean(self, momentum, expected):
        """Of weights that are -1 and then -2; without a choice, the momentum is that of Keras."""

        class Optimizer(keras_internals.AveragesWeights, type(keras.optimizers.SGD())):
            def momentum_of_mean(self):
                if momentum is None:
                    return super().momentum_of_mean()
                return ops.where(self.iterations == 0, 0.0, momentum)

        optimizer = Optimizer(1.0, use_ema=True, ema_momentum=0.5)
        variable = keras.Variable(np.zeros(1, "float32"))
        for _ in range(2):
            optimizer.apply([tensor(np.ones(1, "float32"))], [variable])
        ((_, mean),) = keras_internals.mean_weights(optimizer)
        np.testing.assert_allclose(array(mean.value), expected)


on_torch = pytest.mark.skipif(BACKEND != "torch", reason="needs PyTorch as backend")


@on_torch
@pytest.mark.parametrize("name", _startup.DECORATED)
def test_modules_that_decorate_functions_with_the_compiler(name):
    """They need nothing else of PyTorch's compiler, which `mrcnn._startup` postpones."""
    lines = inspect.getsource(sys.modules[name]).splitlines()
    code = [line for line in lines if "dynamo" in line and not line.startswith("#")]
    assert code == ["import torch._dynamo as dynamo", "@dynamo.disable()"]


@on_torch
def test_no_other_module_of_the_backend_imports_the_compiler():
    here = "keras.src.backend.torch"
    modules = [sys.modules[name] for name in sys.modules if name.startswith(here)]
    found = [module.__name__ for module in modules if "torch._dynamo" in inspect.getsource(module)]
    assert sorted(found) == sorted(_startup.DECORATED)


@on_torch
@pytest.mark.parametrize("is_called_before", [False, True])
def test_random_functions_stay_out_of_compiled_programs(is_called_before):
    """As without the package: the programs before and after the generator are two."""
    first = "keras.random.normal((3,), seed=7)" if is_called_before else ""
    code = f"""
import mrcnn, keras, sys, torch
assert "torch._dynamo" not in sys.modules
{first}
def add(x):
    return x * 2 + keras.random.normal((3,), seed=7)
x = torch.ones(3)
assert torch.equal(torch.compile(add, backend="eager")(x), add(x))
found = torch._dynamo.explain(add)(x)
print(found.graph_count, found.graph_break_count)
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "1"]


def test_every_function_has_a_test():
    here = vars(sys.modules[__name__])
    functions = inspect.getmembers(keras_internals, inspect.isfunction)
    names = [name for name, function in functions if inspect.getmodule(function) is keras_internals]
    assert [name for name in names if f"test_{name}" not in here] == []
    assert {"TestClipsAfterSum", "TestAveragesWeights", "TestKeepsWeights"} <= set(here)
