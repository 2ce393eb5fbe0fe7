"""Several devices, of one machine or of several: each backend's data parallelism behind one interface.

Each step splits its batch into equal parts, one per device. Every device holds all weights, and gradients are
summed before the weights change. TensorFlow uses tf.distribute, JAX keras.distribution, PyTorch
DistributedDataParallel. Machines find each other through the environment variables of the backend.
"""

import contextlib
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import keras

from mrcnn.typing import Tensor


class Parts(tuple):
    """The tensors that several TensorFlow devices hold of one batch, in the order of the batch."""


class Devices:
    """The devices that share each batch. This class itself is a single device.

    Attributes:
        count: Devices of all processes.
        processes: Processes that train together: one per machine on TensorFlow and JAX, one per device on
            PyTorch.
        process: Number of this process, from 0. Process 0 writes the files.
        loss_scale: The share of its loss that each device differentiates: 1 / count where the backend sums
            gradients, else 1.
        clips_after_sum: Whether the optimizer has to clip gradients after the devices have summed them.
    """

    count = 1
    processes = 1
    process = 0
    loss_scale = 1.0
    clips_after_sum = False

    @property
    def is_first_process(self) -> bool:
        """Whether this process writes the files."""
        return self.process == 0

    def scope(self) -> AbstractContextManager[Any]:
        """A context in which to build, compile, train and call networks."""
        return contextlib.nullcontext()

    def own_variables(self, model: keras.Model) -> bool:
        """Whether the weights of a model were created in the scope, so that each device has them."""
        return True

    def mean(self, value: Tensor) -> Tensor:
        """Mean over the devices of a float tensor that each computed. No gradient flows through it."""
        return value

    def broadcast(self, value: Tensor) -> Tensor:
        """The first device's value of a float tensor, on all devices."""
        return value

    def broadcast_int(self, number: int) -> int:
        """The first process' number, below 2**31, in all processes."""
        return number

    def training_loss(self, loss: Tensor) -> Tensor:
        """The loss a training step returns: its value is the mean of the devices, its gradient this share."""
        return loss

    def logs(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """The metrics of a step in the form that Keras expects from each device."""
        return values

    def training_forward(self, model: keras.Model, call: Callable[..., Any]) -> Callable[..., Any]:
        """The forward pass f(inputs, training=True) of a training step, prepared to share gradients.

        Args:
            model: The owner of the weights. Which of them train is settled.
            call: Its forward pass.
        """
        return call

    def batches(self, dataset: Any) -> Any:
        """This process' parts of the batches of a DataGenerator, in the form that `fit` takes."""
        return dataset

    def steps(self, dataset: Any) -> int | None:
        """The number of steps to give to `fit` beside `batches`; None if the batches end by themselves."""
        return None


def one_device(requested: int, present: int, device: Devices, advice: str = "") -> Devices:
    """Warn that a single device runs the whole batch, and return it.

    Args:
        requested: GPU_COUNT per process.
        present: Devices that were found.
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
