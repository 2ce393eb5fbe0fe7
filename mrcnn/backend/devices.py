"""Several devices, of one machine or of several: the backend's own data parallelism behind one interface.

Each step's batch is cut into equal parts, one for each device; every device holds all weights, and gradients
are added up before the weights move. TensorFlow: tf.distribute; JAX: keras.distribution; torch:
DistributedDataParallel. Machines find each other by the environment variables of the backend.
"""

import contextlib
import functools
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import keras
from keras import ops

Tensor = Any

# The variables that `keras.distribution.initialize` reads, and one of those that torchrun sets.
JAX_PROCESSES = "KERAS_DISTRIBUTION_NUM_PROCESSES"
TORCH_PROCESSES = "WORLD_SIZE"


class Devices:
    """The devices that share each batch; this class itself is a single one.

    count: devices of all processes. processes: processes that train together, one for each machine
    (TensorFlow, JAX) or for each device (torch). process: number of this one from 0; the first writes files.
    """

    count = 1
    processes = 1
    process = 0
    # What of the loss one device differentiates, where the sum of gradients is that of the whole batch.
    share_of_loss = 1.0

    @property
    def is_first_process(self) -> bool:
        """Whether this process writes what is written once."""
        return self.process == 0

    def scope(self) -> AbstractContextManager:
        """A context to build, compile, train and call networks in."""
        return contextlib.nullcontext()

    def hold(self, model: keras.Model) -> bool:
        """Whether a model's weights were made in the scope, so that each device has them."""
        return True

    def mean(self, value: Tensor) -> Tensor:
        """Mean over the devices of a float tensor that each computed; no gradient flows through it."""
        return value

    def of_first(self, value: Tensor) -> Tensor:
        """The first device's value of a float tensor, on all devices."""
        return value

    def optimizer(self, kind: type) -> type:
        """The class of optimisers of this kind that clip the gradients of the whole batch."""
        return kind

    def training_loss(self, loss: Tensor) -> Tensor:
        """What a training step returns: the devices' mean as value, this device's share as gradient."""
        return loss

    def logs(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """What a step shows, as Keras takes it from each device."""
        return values

    def agree(self, number: int) -> int:
        """The first process' number below 2**31, in all processes."""
        return number

    def forward(self, model: keras.Model, call: Callable) -> Callable:
        """The forward pass of a training step, f(inputs, training=True), prepared to share gradients.

        model: owner of the weights whose `trainable` is settled; call: its own forward pass.
        """
        return call

    def batches(self, dataset: Any) -> Any:
        """A DataGenerator of this process' parts of the batches as `fit` takes them; it may be endless."""
        if keras.backend.backend() != "tensorflow":
            return dataset
        return _tensorflow_data(dataset, lambda: _one_epoch(dataset), len(dataset)).prefetch(1)

    def steps(self, dataset: Any) -> int | None:
        """The number of steps to give to `fit` with `batches`."""
        return None


def devices(device_count: int, training: bool = True) -> Devices:
    """The devices to build a network for.

    device_count: GPU_COUNT of the config, devices of all machines together. training: False for a network
    that detects: each process then works for itself, with its own devices.
    Fewer devices than asked for: a warning, and the whole batch runs on one.
    Raises ValueError if several processes were started and device_count is not the number of their devices.
    """
    backend = keras.backend.backend()
    choose = {"tensorflow": _tensorflow_devices, "jax": _jax_devices, "torch": _torch_devices}[backend]
    return choose(device_count, training)


def scope(device_count: int) -> AbstractContextManager:
    """A context to build a network in whose batches the devices of this machine share, see `devices`."""
    return devices(device_count).scope()


def _one_device(wanted: int, present: int, cure: str = "") -> Devices:
    warnings.warn(
        f"GPU_COUNT={wanted}, but there are {present} devices: the whole batch runs on one. {cure}Set "
        "GPU_COUNT=1 and raise IMAGES_PER_GPU to silence this.",
        stacklevel=5,
    )
    return Devices()


def _check_count(wanted: int, present: int, processes: int) -> None:
    if wanted != present:
        raise ValueError(
            f"GPU_COUNT must be the number of devices of all processes. Received: GPU_COUNT={wanted}; "
            f"{processes} processes with {present} devices have been started."
        )


# --- TensorFlow ---


class _ClipsAfterSum:
    """Part of an optimiser: clip gradients after tf.distribute has added them up; Keras clips before."""

    def _clip_gradients(self, grads):
        return grads

    def _all_reduce_sum_gradients(self, grads_and_vars):
        grads, variables = zip(*super()._all_reduce_sum_gradients(grads_and_vars), strict=True)
        return list(zip(super()._clip_gradients(list(grads)), variables, strict=True))


class _TensorFlowDevices(Devices):
    """The replicas of a tf.distribute strategy."""

    def __init__(self, strategy: Any, process: int = 0, processes: int = 1):
        self.strategy = strategy
        self.count = strategy.num_replicas_in_sync
        self.process, self.processes = process, processes
        self.share_of_loss = 1.0 / self.count

    def scope(self):
        return self.strategy.scope()

    def hold(self, model):
        created_here = self.strategy.extended.variable_created_in_scope
        return all(created_here(variable.value) for variable in model.variables)

    def mean(self, value):
        import tensorflow

        return self._reduced(tensorflow.distribute.ReduceOp.MEAN, value)

    def of_first(self, value):
        import tensorflow

        context = tensorflow.distribute.get_replica_context()
        if context is None:
            return value
        is_first = ops.equal(context.replica_id_in_sync_group, 0)
        return self._reduced(tensorflow.distribute.ReduceOp.SUM, ops.where(is_first, value, 0.0))

    def _reduced(self, operation, value):
        import tensorflow

        context = tensorflow.distribute.get_replica_context()
        value = ops.stop_gradient(value)
        return value if context is None else context.all_reduce(operation, value)

    def optimizer(self, kind):
        return type(kind.__name__, (_ClipsAfterSum, kind), {})

    def training_loss(self, loss):
        # Keras multiplies what it shows by the number of replicas, and adds up their gradients.
        return (loss + ops.stop_gradient(self.mean(loss) - loss)) * self.share_of_loss

    def logs(self, values):
        if self.processes == 1:
            return values
        # Keras 3.15 takes the mean over the machines' first axis, which a scalar lacks.
        return {name: ops.reshape(value, (1,)) for name, value in values.items()}

    def batches(self, dataset):
        import tensorflow

        def read(_):
            endless = tensorflow.data.INFINITE_CARDINALITY
            parts = _tensorflow_data(dataset, lambda: _endless(dataset), endless)
            return parts.rebatch(dataset.batch_size // self.count).prefetch(self.count)

        return self.strategy.distribute_datasets_from_function(read)

    def steps(self, dataset):
        return len(dataset)

    def agree(self, number):
        import tensorflow

        @tensorflow.function
        def shared():
            return self.strategy.run(self.of_first, args=(tensorflow.constant(number, "float64"),))

        return int(self.strategy.experimental_local_results(shared())[0])


def _tensorflow_data(dataset: Any, read: Callable[[], Iterator[dict]], count: int) -> Any:
    """The batches that `read` gives of a DataGenerator, count of them, as a tf.data dataset.

    Without tf.data's tuning, which has nothing to tune here: its thread sleeps longer and longer, up to a
    minute, and the end of a pass often waits for it to wake up.
    """
    from tensorflow import data

    options = data.Options()
    options.autotune.enabled = False
    batches = data.Dataset.from_generator(read, output_signature=_signature(dataset))
    return batches.apply(data.experimental.assert_cardinality(count)).with_options(options)


def _one_epoch(dataset: Any) -> Iterator[dict]:
    """Inputs of a DataGenerator for tf.data, which reads ahead of the training."""
    dataset.on_epoch_begin()
    for index in range(len(dataset)):
        yield dataset[index][0]
    dataset.on_epoch_end()


def _endless(dataset: Any) -> Iterator[dict]:
    """Inputs of a DataGenerator, epoch after epoch."""
    while True:
        yield from _one_epoch(dataset)


def _signature(dataset: Any) -> dict[str, Any]:
    """Shapes and types of a DataGenerator's inputs; what differs between its first batches is left open.

    So is the number of objects, which grows with an image of more than MAX_GT_INSTANCES.
    """
    import tensorflow

    batches = [dataset[index][0] for index in range(min(2, len(dataset)))]
    signature = {}
    for name, array in batches[0].items():
        shapes = zip(*(batch[name].shape[1:] for batch in batches), strict=True)
        shape = [sides[0] if len(set(sides)) == 1 else None for sides in shapes]
        if name in ("input_gt_class_ids", "input_gt_boxes"):
            shape[0] = None
        signature[name] = tensorflow.TensorSpec((None, *shape), array.dtype)
    return signature


def _this_machine() -> tuple[int, int]:
    """The number of this machine among those in TF_CONFIG, and how many they are; a chief comes first."""
    settings = json.loads(os.environ.get("TF_CONFIG", "{}"))
    cluster, task = settings.get("cluster", {}), settings.get("task", {})
    chiefs, workers = (len(cluster.get(kind, [])) for kind in ("chief", "worker"))
    index = int(task.get("index", 0))
    return index + (chiefs if task.get("type") == "worker" else 0), max(chiefs + workers, 1)


@functools.cache
def _strategy_of_machines() -> Any:
    """The strategy of the machines in TF_CONFIG; there may be only one in a process."""
    import tensorflow

    return tensorflow.distribute.MultiWorkerMirroredStrategy()


@functools.cache
def _strategy_of_machine(*names: str) -> Any:
    """The strategy of these devices, one for all models, so that they can share weights."""
    import tensorflow

    return tensorflow.distribute.MirroredStrategy(names)


def _tensorflow_devices(device_count: int, training: bool) -> Devices:
    import tensorflow

    machine, machines = _this_machine()
    if training and machines > 1:
        several = _TensorFlowDevices(_strategy_of_machines(), machine, machines)
        _check_count(device_count, several.count, machines)
        return several
    wanted = device_count // machines
    if wanted < 2:
        return Devices()
    kind = "GPU" if tensorflow.config.list_physical_devices("GPU") else "CPU"
    here = [device.name for device in tensorflow.config.list_logical_devices(kind)]
    if len(here) < wanted:
        return _one_device(wanted, len(here))
    return _TensorFlowDevices(_strategy_of_machine(*here[:wanted]))


# --- JAX ---


class _JaxDevices(Devices):
    """A row of devices among which JAX itself shares the work: a step is written as for the whole batch."""

    def __init__(self, members: list[Any]):
        import jax

        names = [f"{device.platform}:{device.id}" for device in members]
        self.distribution = keras.distribution.DataParallel(devices=names, auto_shard_dataset=False)
        self.count = len(names)
        self.processes = jax.process_count()
        self.process = jax.process_index()

    def scope(self):
        return self.distribution.scope()

    def hold(self, model):
        return all(len(variable.value.sharding.device_set) == self.count for variable in model.variables)

    def agree(self, number):
        from jax.experimental import multihost_utils

        return int(multihost_utils.broadcast_one_to_all(number))


def _jax_devices(device_count: int, training: bool) -> Devices:
    import jax

    if os.environ.get(JAX_PROCESSES) and not jax.distributed.is_initialized():
        keras.distribution.initialize()
    processes = jax.process_count()
    if training and processes > 1:
        _check_count(device_count, jax.device_count(), processes)
        return _JaxDevices(jax.devices())
    here = jax.local_devices()
    wanted = device_count // processes
    if wanted < 2:
        return Devices()
    return _JaxDevices(here[:wanted]) if len(here) >= wanted else _one_device(wanted, len(here))


# --- torch ---


class _TorchDevices(Devices):
    """One process for each device, as torchrun starts them."""

    def __init__(self):
        import torch.distributed

        self.count = self.processes = torch.distributed.get_world_size()
        self.process = torch.distributed.get_rank()

    def mean(self, value):
        import torch.distributed

        total = value.detach().clone()
        torch.distributed.all_reduce(total)
        return total / self.count

    def of_first(self, value):
        import torch.distributed

        value = value.detach().clone()
        torch.distributed.broadcast(value, src=0)
        return value

    def training_loss(self, loss):
        return loss + (self.mean(loss) - loss.detach())

    def agree(self, number):
        return int(self.of_first(ops.convert_to_tensor(number, "int64")))

    def forward(self, model, call):
        import torch

        class Forward(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.model = model

            def forward(self, inputs, training):
                return call(inputs, training=training)

        return torch.nn.parallel.DistributedDataParallel(Forward()).__call__


def _torch_devices(device_count: int, training: bool) -> Devices:
    import torch.distributed

    if training and os.environ.get(TORCH_PROCESSES) and not torch.distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        torch.distributed.init_process_group()
    if training and torch.distributed.is_initialized():
        several = _TorchDevices()
        _check_count(device_count, several.count, several.processes)
        return several
    if device_count < 2 or not training:
        return Devices()
    return _one_device(
        device_count, 1, f"Start the script with torchrun --nproc-per-node={device_count} to use all. "
    )
