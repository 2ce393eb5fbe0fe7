"""A common interface to each backend's data parallelism, on one or several machines.

Each step splits its batch into equal parts, one per device. Every device holds all weights, and gradients are
summed before the weights change. TensorFlow uses tf.distribute, JAX keras.distribution, PyTorch
DistributedDataParallel. Machines find each other through the environment variables of the backend.
"""

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import keras

from mrcnn.typing import Tensor

Result = TypeVar("Result")

# The devices whose scope each thread is in, as `devices`. A new thread is in none.
_entered = threading.local()


class Parts(tuple):
    """The parts of a batch on several TensorFlow devices, in the order of the batch."""


class Devices:
    """The devices that share each batch. This base class is a single device.

    Attributes:
        count: Devices of all processes.
        processes: Processes that train together: one per machine on TensorFlow and JAX, one per device on
            PyTorch.
        process: Number of this process, from 0. Process 0 writes the files.
        loss_scale: Factor of the loss that each device differentiates: 1 / count if the backend sums
            gradients, else 1.
        clips_after_sum: Whether the optimizer has to clip gradients after they are summed over the devices.
    """

    count = 1
    processes = 1
    process = 0
    loss_scale = 1.0
    clips_after_sum = False

    @property
    def is_first_process(self) -> bool:
        """Return whether this process writes files."""
        return self.process == 0

    def scope(self) -> AbstractContextManager[Any]:
        """Return a context in which to build, compile, train and call networks."""
        return contextlib.nullcontext()

    def call_apart(self, function: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        """Call a function outside of the scope of other devices.

        Callbacks run in the scope of the devices that train. What a function builds there for other devices
        would be built for all that train.
        """
        if getattr(_entered, "devices", None) in (None, self):
            return function(*arguments, **options)
        # Scopes belong to a thread, and TensorFlow cannot leave one.
        with ThreadPoolExecutor(1) as new_thread:
            return new_thread.submit(function, *arguments, **options).result()

    def own_variables(self, model: keras.Model) -> bool:
        """Return whether the weights of a model were created in the scope, so that each device has them."""
        return True

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean over the devices of a float tensor, without gradient."""
        return value

    def broadcast(self, value: Tensor) -> Tensor:
        """Return the first device's value of a float tensor on all devices."""
        return value

    def broadcast_int(self, number: int) -> int:
        """Return the number of the first process, below 2**31, in all processes."""
        return number

    def training_loss(self, loss: Tensor) -> Tensor:
        """Return the loss of a training step: its value is the mean over devices, its gradient this share."""
        return loss

    def logs(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the metrics of a step in the form that Keras expects from each device."""
        return values

    def training_forward(self, model: keras.Model, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the forward pass f(inputs, training=True) of a training step, prepared to share gradients.

        Args:
            model: The owner of the weights, whose trainable layers are already selected.
            call: Its forward pass.
        """
        return call

    def batches(self, dataset: Any, inputs: Sequence[Tensor] = ()) -> Any:
        """Return this process' parts of the batches of a DataGenerator, in the form that `fit` takes.

        Args:
            dataset: The DataGenerator.
            inputs: The symbolic inputs of the network. If they leave the size of images open, the batches may
                differ in it.
        """
        return dataset

    def data_errors(self) -> AbstractContextManager[Any]:
        """Return a context in which an error of `batches` is raised as it is, whatever reads them."""
        return contextlib.nullcontext()

    def steps(self, dataset: Any) -> int | None:
        """Return the number of steps to pass to `fit`, or None if the batches end by themselves."""
        return None


@contextlib.contextmanager
def entered(devices: Devices, scope: AbstractContextManager[Any]) -> Iterator[None]:
    """Enter the scope of a framework, and remember whose it is; see `Devices.call_apart`."""
    before = getattr(_entered, "devices", None)
    with scope:
        _entered.devices = devices
        try:
            yield
        finally:
            _entered.devices = before


def one_device(requested: int, present: int, device: Devices, advice: str = "") -> Devices:
    """Warn that a single device runs the whole batch, and return the device.

    Args:
        requested: GPU_COUNT per process.
        present: Number of devices found.
        device: The single device.
        advice: A sentence on how to use more devices.
    """
    warnings.warn(
        f"GPU_COUNT={requested}, but {present} device(s) were found, so one device runs the whole batch. "
        f"{advice}To silence this warning, set GPU_COUNT=1 and raise IMAGES_PER_GPU.",
        stacklevel=5,
    )
    return device


def check_count(requested: int, present: int, processes: int) -> None:
    """Raise ValueError unless GPU_COUNT is the number of devices of all processes."""
    if requested != present:
        raise ValueError(
            "`GPU_COUNT` must be the total number of devices of all processes. Received: "
            f"GPU_COUNT={requested}, with {processes} processes that have {present} devices."
        )
