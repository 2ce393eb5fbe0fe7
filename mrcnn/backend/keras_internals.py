"""Every private member of Keras that the package needs, in one place, checked with Keras 3.12 to 3.15.

Each function has a test of its own, so that a Keras release that changes one of them fails there by name.
"""

import collections
import contextlib
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
from keras.src.backend.common import global_state
from keras.src.utils import module_utils

from mrcnn.backend.custom_gradients import forget_registered_gradient
from mrcnn.typing import Tensor

# A call of an operation in a functional model: Keras' node.
Call = Any


def producer(tensor: Tensor) -> Any:
    """Return the operation (layer or keras.ops function) that computed a symbolic tensor."""
    return tensor._keras_history.operation


def producing_call(tensor: Tensor) -> Call:
    """Return the call that computed a symbolic tensor."""
    operation, index, _ = tensor._keras_history
    return operation._inbound_nodes[index]


def calls_of(operation: Any) -> Sequence[Call]:
    """Return all calls of an operation."""
    return operation._inbound_nodes


def fill_arguments(call: Call, values: dict[int, Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and keyword arguments of a call, with the values of symbolic tensors by id."""
    return call.arguments.fill_in(values)


@contextlib.contextmanager
def without_importing_tensorflow() -> Iterator[None]:
    """Keep Keras from importing TensorFlow while it reads the configuration of layers.

    On JAX and PyTorch, `get_config` of a layer imports TensorFlow, if it is installed, to ask whether a value
    is a shape or a dtype of TensorFlow. If the program has imported it already, nothing changes.
    """
    if module_utils.tensorflow._available is not None or "tensorflow" in sys.modules:
        yield
        return
    module_utils.tensorflow._available = False
    try:
        yield
    finally:
        module_utils.tensorflow._available = None


@contextlib.contextmanager
def numbers_of_a_new_process(taken: Iterable[str] = ()) -> Iterator[None]:
    """Number layers without a name as if they were the first ones of the process: "dense", "dense_1".

    Keras numbers them on from network to network, so that the same function makes other names each time.

    Args:
        taken: Names of operations that the network has already.
    """
    key = "object_name_uids"
    before = global_state.get_global_attribute(key) or {}
    numbers: collections.defaultdict[str, int] = collections.defaultdict(int)
    for name in taken:
        kind, number = re.fullmatch(r"(.*?)(?:_(\d+))?", name, re.DOTALL).groups()  # type: ignore[union-attr]
        numbers[kind] = max(numbers[kind], int(number or 0) + 1)
    global_state.set_global_attribute(key, numbers)
    try:
        yield
    finally:
        for kind, number in before.items():
            numbers[kind] = max(numbers[kind], number)


def watch_assignments(variable: keras.Variable, callback: Callable[[], None]) -> None:
    """Call back after each assignment to a variable. Keras itself notifies nobody."""
    assign = variable.assign

    def assign_and_notify(value: Any) -> Any:
        result = assign(value)
        callback()
        return result

    variable.assign = assign_and_notify


def optimized_variables(optimizer: keras.Optimizer) -> list[keras.Variable]:
    """Return the variables that an optimizer was built for."""
    return list(optimizer._trainable_variables)


def mean_weights(optimizer: keras.Optimizer) -> list[tuple[keras.Variable, keras.Variable]]:
    """Return the trained variables of an optimizer, or of the one whose loss it scales, with their means."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return list(zip(inner._trainable_variables, inner._model_variables_moving_average, strict=True))


@contextlib.contextmanager
def without_final_means(optimizer: keras.Optimizer) -> Iterator[None]:
    """Keep `fit` from replacing weights by their running means at its end, on JAX also after an error."""
    optimizer.finalize_variable_values = lambda variables: None
    try:
        yield
    finally:
        del optimizer.finalize_variable_values


def variable_index(optimizer: keras.Optimizer, variable: Any) -> int:
    """Return the position of a variable, of Keras or of its backend, in `optimized_variables`."""
    return int(optimizer._get_variable_index(variable))


# What Keras' compile sets, in some version, and the functions that fit builds from it.
COMPILED = (
    "optimizer",
    "train_function",
    "test_function",
    "steps_per_execution",
    "_compile_config",
    "_compile_loss",
    "_compile_metrics",
    "_compiled_trainable_state",
    "_jit_compile",
    "_loss_tracker",
    "_run_eagerly",
)


def compiled_state(model: keras.Model) -> dict[str, Any]:
    """Return the state of a compiled model by attribute, for `restore_compiled_state`."""
    return {name: vars(model)[name] for name in COMPILED if name in vars(model)}


def restore_compiled_state(model: keras.Model, state: dict[str, Any]) -> None:
    """Make a model what it was when `compiled_state` was called. Its weights do not change."""
    # Not setattr, by which Keras would list the metric of the loss once more.
    vars(model).update(state)


_jit_lock = threading.RLock()


@contextlib.contextmanager
def keeping_arguments() -> Iterator[None]:
    """In this context, what Keras compiles on JAX does not overwrite (donate) its arguments.

    A step then needs memory for the new weights and optimizer state beside the old ones.
    """
    trainer: Any = sys.modules.get("keras.src.backend.jax.trainer")
    if trainer is None:  # another backend
        yield
        return
    with _jit_lock:
        jit = trainer.jit
        trainer.jit = lambda function, donate_argnums=(), **options: jit(function, **options)
        try:
            yield
        finally:
            trainer.jit = jit


# The kinds of variables in a state of Keras' loops on JAX, in order.
JAX_STATE = ("trainable_variables", "non_trainable_variables", "optimizer_variables", "metrics_variables")


class KeepsWeights(keras.Model):
    """A model that has its weights after an error in a step of `fit`, `evaluate` or `predict`.

    On JAX, Keras takes the values out of the variables before the first step, and puts those of the last
    complete step back. If the first step fails, for instance because of an image or of Ctrl-C while it
    compiles, there are none, and each variable silently has new random values. A compiled step of Keras also
    overwrites the values it was called with, so those of a step that ends with Ctrl-C would be deleted.
    """

    _jax_state: dict[str, Any] | None = None

    def fit(self, *args: Any, **options: Any) -> keras.callbacks.History:
        """Train as `keras.Model.fit` does."""
        with self._puts_values_back():
            return super().fit(*args, **options)

    def evaluate(self, *args: Any, **options: Any) -> Any:
        """Evaluate as `keras.Model.evaluate` does."""
        with self._puts_values_back():
            return super().evaluate(*args, **options)

    def predict(self, *args: Any, **options: Any) -> Any:
        """Predict as `keras.Model.predict` does."""
        with self._puts_values_back():
            return super().predict(*args, **options)

    def make_train_function(self, force: bool = False) -> Any:
        """Make the function that runs a step of `fit`."""
        with keeping_arguments():
            return super().make_train_function(force)

    def make_test_function(self, force: bool = False) -> Any:
        """Make the function that runs a step of `evaluate`."""
        with keeping_arguments():
            return super().make_test_function(force)

    def make_predict_function(self, force: bool = False) -> Any:
        """Make the function that runs a step of `predict`."""
        with keeping_arguments():
            return super().make_predict_function(force)

    @contextlib.contextmanager
    def _puts_values_back(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            if hasattr(self, "jax_state_sync"):
                self.jax_state_sync()
                self._jax_state = None
            raise

    def _get_jax_state(self, **options: bool) -> tuple[Any, ...]:
        """Return the values of the variables by kind. Those taken out of the variables are to be put back."""
        state: tuple[Any, ...] = super()._get_jax_state(**options)
        if options.get("purge_model_variables"):
            kinds = [kind for kind in JAX_STATE if options.get(kind)]
            self._jax_state = dict(zip(kinds, state, strict=True))
        return state


class ClipsAfterSum:
    """Part of an optimizer: clip gradients after tf.distribute has summed them. Keras clips before.

    Attributes:
        clips_after_sum: False leaves Keras' order.
    """

    clips_after_sum = False

    def clipped(self, grads: list[Tensor]) -> list[Tensor]:
        """Return the gradients, clipped as Keras does."""
        return super()._clip_gradients(grads)  # type: ignore[misc]

    def _clip_gradients(self, grads: list[Tensor]) -> list[Tensor]:
        return grads if self.clips_after_sum else self.clipped(grads)

    def _runs_on_one_tensorflow_device(self) -> bool:
        strategy = getattr(self, "_distribution_strategy", None)
        return strategy is not None and strategy.num_replicas_in_sync == 1

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
        if self._runs_on_one_tensorflow_device():  # read the rate once, not for each variable
            learning_rate = keras.ops.convert_to_tensor(learning_rate)
        super()._backend_update_step(grads, trainable_variables, learning_rate)  # type: ignore[misc]

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        if self._runs_on_one_tensorflow_device() and not self.clips_after_sum:
            return grads_and_vars  # without a copy of each gradient
        summed = super()._all_reduce_sum_gradients(grads_and_vars)  # type: ignore[misc]
        for gradient, _ in summed:
            forget_registered_gradient(gradient)  # of the sum, which nobody differentiates
        if not self.clips_after_sum:
            return summed
        grads, variables = zip(*summed, strict=True)
        return list(zip(self.clipped(list(grads)), variables, strict=True))


class AveragesWeights:
    """Part of an optimizer: choose the momentum of the running mean of the weights, which Keras fixes."""

    def momentum_of_mean(self) -> Tensor | None:
        """Return the momentum in this step, or None for that of Keras."""
        return None

    def _update_model_variables_moving_average(self, trainable_variables: Sequence[keras.Variable]) -> None:
        momentum = self.momentum_of_mean()
        if momentum is None:
            super()._update_model_variables_moving_average(trainable_variables)  # type: ignore[misc]
            return
        means = self._model_variables_moving_average  # type: ignore[attr-defined]
        for variable, mean in zip(trainable_variables, means, strict=True):
            mean.assign(mean * momentum + variable * (1.0 - momentum))
