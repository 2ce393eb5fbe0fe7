"""Replicas of a tf.distribute strategy, and the tf.data pipeline that feeds them."""

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from mrcnn.backend.devices import Devices, Parts, check_count, entered, one_device
from mrcnn.typing import Shape, Tensor

Batch: TypeAlias = dict[str, np.ndarray]

# Axes of the arrays of a batch whose lengths depend on the number of instances, and on the size of images.
AXES_OF_INSTANCES = {"input_gt_class_ids": (1,), "input_gt_boxes": (1,)}
AXES_OF_SIZE = {"input_image": (1, 2), "input_gt_masks": (1, 2), "input_rpn_match": (1,)}

# The strategies of all TensorFlowDevices.
_strategies: set[Any] = set()


class ReadsTfData(Devices):
    """Devices that read their batches through tf.data, which raises errors of its own kinds."""

    _failure: Exception | None = None

    def _read(self, dataset: Any) -> Iterator[Batch]:
        """Yield the inputs of a DataGenerator in one epoch. tf.data reads ahead of the training."""
        try:
            dataset.on_epoch_begin()
            for index in range(len(dataset)):
                yield dataset[index][0]
            dataset.on_epoch_end()
        except Exception as error:
            self._failure = error
            raise

    @contextlib.contextmanager
    def data_errors(self) -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError:
            if self._failure is None:
                raise
            # TensorFlow's error only repeats it as text, or says that the data ended.
            raise self._failure from self._failure.__cause__
        finally:
            self._failure = None


class TensorFlowDevice(ReadsTfData):
    """A single device that reads its batches through tf.data."""

    def batches(self, dataset: Any, inputs: Sequence[Tensor] = ()) -> Any:
        return _to_tf_data(dataset, inputs, lambda: self._read(dataset), len(dataset)).prefetch(1)


class TensorFlowDevices(ReadsTfData):
    """The replicas of a tf.distribute strategy."""

    clips_after_sum = True

    def __init__(self, strategy: Any, process: int = 0, processes: int = 1):
        self.strategy = strategy
        _strategies.add(strategy)
        self.count = strategy.num_replicas_in_sync
        self.process, self.processes = process, processes
        self.loss_scale = 1.0 / self.count

    def scope(self) -> Any:
        return entered(self, self.strategy.scope())

    def own_variables(self, model: keras.Model) -> bool:
        created_here = self.strategy.extended.variable_created_in_scope
        return all(created_here(variable.value) for variable in model.variables)

    def mean(self, value: Tensor) -> Tensor:
        return self._reduce(tf.distribute.ReduceOp.MEAN, value)

    def broadcast(self, value: Tensor) -> Tensor:
        context = tf.distribute.get_replica_context()
        if context is None:
            return value
        is_first = ops.equal(context.replica_id_in_sync_group, 0)
        return self._reduce(tf.distribute.ReduceOp.SUM, ops.where(is_first, value, 0.0))

    def _reduce(self, operation: Any, value: Tensor) -> Tensor:
        context = tf.distribute.get_replica_context()
        value = ops.stop_gradient(value)
        return value if context is None else context.all_reduce(operation, value)

    def broadcast_int(self, number: int) -> int:
        @tf.function
        def shared() -> Tensor:
            return self.strategy.run(self.broadcast, args=(tf.constant(number, "float64"),))

        return int(self.strategy.experimental_local_results(shared())[0])

    def training_loss(self, loss: Tensor) -> Tensor:
        # Keras multiplies the loss it shows by the number of replicas, and sums their gradients.
        return (loss + ops.stop_gradient(self.mean(loss) - loss)) * self.loss_scale

    def logs(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.processes == 1:
            return values
        # Keras averages over the first axis of each machine's value, which a scalar lacks.
        return {name: ops.reshape(value, (1,)) for name, value in values.items()}

    def batches(self, dataset: Any, inputs: Sequence[Tensor] = ()) -> Any:
        def endless() -> Iterator[Batch]:
            while True:
                yield from self._read(dataset)

        def read(_: Any) -> Any:
            parts = _to_tf_data(dataset, inputs, endless, tf.data.INFINITE_CARDINALITY)
            return parts.rebatch(dataset.batch_size // self.count).prefetch(self.count)

        return self.strategy.distribute_datasets_from_function(read)

    def steps(self, dataset: Any) -> int:
        return len(dataset)


def _to_tf_data(
    dataset: Any, inputs: Sequence[Tensor], read: Callable[[], Iterator[Batch]], count: int
) -> Any:
    """Return the batches that `read` yields from a DataGenerator, `count` of them, as a tf.data dataset.

    Without tf.data's autotuning, which has nothing to tune here: its thread sleeps for up to a minute, and
    the end of a pass often waits for it.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    signature = _signature(dataset[0][0], {x.name: tuple(x.shape) for x in inputs})
    batches = tf.data.Dataset.from_generator(read, output_signature=signature)
    return batches.apply(tf.data.experimental.assert_cardinality(count)).with_options(options)


def _signature(batch: Batch, inputs: Mapping[str, Shape]) -> dict[str, tf.TensorSpec]:
    """Return the shapes and dtypes of all batches. Only axes that differ between batches stay open.

    These are the number of images, that of instances, which grows with an image of more than
    MAX_GT_INSTANCES, and, if the network takes images of all sizes, what follows from their size.

    Args:
        batch: One of the batches.
        inputs: Shapes of the inputs of the network, by name.
    """
    sizes_differ = None in inputs.get("input_image", ())[1:]
    signature = {}
    for name, array in batch.items():
        shape: list[int | None] = [None, *array.shape[1:]]
        for axis in AXES_OF_INSTANCES.get(name, ()):
            shape[axis] = None
        for axis in AXES_OF_SIZE.get(name, ()) if sizes_differ else ():
            shape[axis] = inputs[name][axis] if name in inputs else None  # mini-masks have one size
        signature[name] = tf.TensorSpec(shape, array.dtype)
    return signature


def strategy_of(model: keras.Model) -> Any:
    """Return the strategy whose replicas hold the weights of a model; None for one device.

    The strategy in scope may be another one: a detector of one device may run in a callback of a training on
    several, and a detector of several outside of their scope.
    """
    strategies = (getattr(variable.value, "distribute_strategy", None) for variable in model.variables)
    strategy = next(strategies, None)
    return strategy if strategy in _strategies else None  # not one that the program has chosen itself


def call_on_replicas(model: keras.Model, strategy: Any) -> Callable[[Mapping[str, Any]], dict[str, Parts]]:
    """Return an inference call of a model that splits each batch over the replicas of a strategy.

    The batch must be a multiple of the number of replicas.
    """

    @tf.function
    def call(inputs: Any) -> Any:
        return strategy.run(lambda part: model(part, training=False), args=(inputs,))

    def to_devices(value: np.ndarray | Parts) -> Tensor:
        parts = value if isinstance(value, Parts) else Parts(np.split(value, strategy.num_replicas_in_sync))
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.convert_to_tensor(parts[context.replica_id_in_sync_group])
        )

    def run(inputs: Mapping[str, Any]) -> dict[str, Parts]:
        outputs = call({name: to_devices(value) for name, value in inputs.items()})
        return {name: Parts(strategy.experimental_local_results(value)) for name, value in outputs.items()}

    return run


def machine_index() -> tuple[int, int]:
    """Return the index of this machine in TF_CONFIG, and the number of machines. A chief comes first."""
    settings = json.loads(os.environ.get("TF_CONFIG", "{}"))
    cluster, task = settings.get("cluster", {}), settings.get("task", {})
    chiefs, workers = (len(cluster.get(kind, [])) for kind in ("chief", "worker"))
    index = int(task.get("index", 0))
    return index + (chiefs if task.get("type") == "worker" else 0), max(chiefs + workers, 1)


@functools.cache
def _strategy_of_machines() -> Any:
    """Return the strategy of the machines in TF_CONFIG. A process may create only one."""
    return tf.distribute.MultiWorkerMirroredStrategy()


@functools.cache
def _strategy_of_devices(*names: str) -> Any:
    """Return the strategy of these devices. All models use the same one, so that they can share weights."""
    return tf.distribute.MirroredStrategy(names)


def get_devices(device_count: int, training: bool = True) -> Devices:
    """See `mrcnn.backend.plain.get_devices`."""
    machine, machines = machine_index()
    if training and machines > 1:
        several = TensorFlowDevices(_strategy_of_machines(), machine, machines)
        check_count(device_count, several.count, machines)
        return several
    requested = device_count // machines
    if requested < 2:
        return TensorFlowDevice()
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    present = [device.name for device in tf.config.list_logical_devices(kind)]
    if len(present) < requested:
        return one_device(requested, len(present), TensorFlowDevice())
    return TensorFlowDevices(_strategy_of_devices(*present[:requested]))
