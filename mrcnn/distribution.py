"""Several devices of one machine: the backend's own data parallelism, asked for in one way."""

import contextlib
import warnings
from contextlib import AbstractContextManager

import keras


def scope(device_count: int) -> AbstractContextManager:
    """A context in which a network has to be built so that its batches are shared by the devices.

    device_count: GPU_COUNT of the config. One device, or fewer devices than asked for (with a warning): the
    whole batch runs on one. TensorFlow: MirroredStrategy; JAX: keras.distribution.DataParallel, for the whole
    process; torch: not available in one process, so a warning.
    """
    if device_count < 2:
        return contextlib.nullcontext()
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _tensorflow_scope(device_count)
    if backend == "jax":
        return _jax_scope(device_count)
    warnings.warn(
        f"GPU_COUNT={device_count}: with torch one process uses one device; the whole batch runs on it.",
        stacklevel=3,
    )
    return contextlib.nullcontext()


def _tensorflow_scope(device_count: int) -> AbstractContextManager:
    import tensorflow

    devices = tensorflow.config.list_logical_devices("GPU") or tensorflow.config.list_logical_devices("CPU")
    if len(devices) < device_count:
        return _one_device(device_count, len(devices))
    names = [device.name for device in devices[:device_count]]
    return tensorflow.distribute.MirroredStrategy(names).scope()


def _jax_scope(device_count: int) -> AbstractContextManager:
    devices = keras.distribution.list_devices()
    if len(devices) < device_count:
        return _one_device(device_count, len(devices))
    parallel = keras.distribution.DataParallel(devices=devices[:device_count])
    keras.distribution.set_distribution(parallel)
    return contextlib.nullcontext()


def _one_device(wanted: int, present: int) -> AbstractContextManager:
    warnings.warn(
        f"GPU_COUNT={wanted}, but there are {present} devices: the whole batch runs on one. Set GPU_COUNT=1 "
        "and raise IMAGES_PER_GPU to silence this.",
        stacklevel=4,
    )
    return contextlib.nullcontext()
