"""Several PyTorch devices: one process per device under DistributedDataParallel, started by torchrun."""

import os
from collections.abc import Callable
from typing import Any

import keras
import torch
import torch.distributed
from keras import ops

from mrcnn.backend.devices import Devices, check_count, one_device
from mrcnn.typing import Tensor

# One of the variables that torchrun sets.
PROCESS_COUNT = "WORLD_SIZE"


class TorchDevices(Devices):
    """The devices of all processes of a torch.distributed group."""

    def __init__(self) -> None:
        self.count = self.processes = torch.distributed.get_world_size()
        self.process = torch.distributed.get_rank()

    def mean(self, value: Tensor) -> Tensor:
        total = value.detach().clone()
        torch.distributed.all_reduce(total)
        return total / self.count

    def broadcast(self, value: Tensor) -> Tensor:
        value = value.detach().clone()
        torch.distributed.broadcast(value, src=0)
        return value

    def broadcast_int(self, number: int) -> int:
        return int(self.broadcast(ops.convert_to_tensor(number, "int64")))

    def training_loss(self, loss: Tensor) -> Tensor:
        return loss + (self.mean(loss) - loss.detach())

    def training_forward(self, model: keras.Model, call: Callable[..., Any]) -> Callable[..., Any]:
        class Forward(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, inputs: Any, training: bool) -> Any:
                return call(inputs, training=training)

        return torch.nn.parallel.DistributedDataParallel(Forward()).__call__


def get_devices(device_count: int, training: bool = True) -> Devices:
    """See `mrcnn.backend.plain.get_devices`."""
    if training and os.environ.get(PROCESS_COUNT) and not torch.distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        torch.distributed.init_process_group()
    if training and torch.distributed.is_initialized():
        several = TorchDevices()
        check_count(device_count, several.count, several.processes)
        return several
    if device_count < 2 or not training:
        return Devices()
    advice = f"To use all devices, start the script with torchrun --nproc-per-node={device_count}. "
    return one_device(device_count, 1, Devices(), advice)
