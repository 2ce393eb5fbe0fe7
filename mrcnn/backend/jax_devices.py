"""Several JAX devices. JAX itself distributes a step that is written for the whole batch."""

import os
from typing import Any

import jax
import keras
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from mrcnn.backend.devices import Devices, check_count, entered, one_device

# A variable that `keras.distribution.initialize` reads.
PROCESS_COUNT = "KERAS_DISTRIBUTION_NUM_PROCESSES"


class JaxDevices(Devices):
    """Several devices under keras.distribution.DataParallel."""

    def __init__(self, members: list[Any]):
        names = [f"{device.platform}:{device.id}" for device in members]
        self.distribution = keras.distribution.DataParallel(devices=names, auto_shard_dataset=False)
        self.count = len(names)
        self.processes = jax.process_count()
        self.process = jax.process_index()

    def scope(self) -> Any:
        return entered(self, self.distribution.scope())

    def own_variables(self, model: keras.Model) -> bool:
        return all(len(variable.value.sharding.device_set) == self.count for variable in model.variables)

    def broadcast_int(self, number: int) -> int:
        return int(multihost_utils.broadcast_one_to_all(number))


def parts_of_batch(model: keras.Model) -> NamedSharding | None:
    """Return the sharding of a batch over the devices that hold the weights of a model; None for one device.

    The distribution in scope may be another one: a detector of one device may run in a callback of a training
    on several, and a detector of several outside of their scope.
    """
    shardings = (getattr(variable.value, "sharding", None) for variable in model.variables)
    sharding = next(shardings, None)
    if not isinstance(sharding, NamedSharding) or len(sharding.device_set) == 1:
        return None
    return NamedSharding(sharding.mesh, PartitionSpec(sharding.mesh.axis_names[0]))


def get_devices(device_count: int, training: bool = True) -> Devices:
    """See `mrcnn.backend.plain.get_devices`."""
    if os.environ.get(PROCESS_COUNT) and not jax.distributed.is_initialized():
        keras.distribution.initialize()
    processes = jax.process_count()
    if training and processes > 1:
        check_count(device_count, jax.device_count(), processes)
        return JaxDevices(jax.devices())
    present = jax.local_devices()
    requested = device_count // processes
    if requested < 2:
        return Devices()
    if len(present) < requested:
        return one_device(requested, len(present), Devices())
    return JaxDevices(present[:requested])
