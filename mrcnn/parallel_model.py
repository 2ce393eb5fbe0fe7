"""ParallelModel, the original's wrapper for several GPUs, handed over to `mrcnn.backend.devices`."""

import warnings
from typing import Any

import keras

from mrcnn import backend


class ParallelModel(keras.Model):
    """A model whose batches are shared by several devices; weight files are those of the inner model.

    keras_model: a functional model, built inside `mrcnn.backend.get_devices(gpu_count).scope()`, as its optimizer
    has to be; gpu_count: at least 2. Compile and use it as any model. `MaskRCNN` needs no wrapper: it does
    the same by GPU_COUNT.
    Raises ValueError for a gpu_count below 2, or a model whose weights are on one of the devices only.
    """

    def __init__(self, keras_model: keras.Model, gpu_count: int):
        if gpu_count < 2:
            raise ValueError(f"ParallelModel needs at least two devices. Received: gpu_count={gpu_count}")
        warnings.warn(
            "ParallelModel is kept for old code: set GPU_COUNT in the config instead.",
            DeprecationWarning,
            stacklevel=2,
        )
        devices = backend.get_devices(gpu_count)
        if not devices.own_variables(keras_model):
            raise ValueError(
                "The weights must be on all devices: build keras_model inside "
                f"mrcnn.backend.get_devices({gpu_count}).scope(). Received: {keras_model.name!r}, built outside."
            )
        super().__init__(inputs=keras_model.input, outputs=keras_model.output, name=keras_model.name)
        self.inner_model = keras_model
        self.gpu_count = gpu_count
        self._devices = devices

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As any model's, for the devices."""
        with self._devices.scope():
            super().compile(*args, **kwargs)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """As any model's, each batch shared by the devices."""
        with self._devices.scope():
            return super().fit(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As any model's, each batch shared by the devices."""
        with self._devices.scope():
            return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """As any model's, each batch shared by the devices."""
        with self._devices.scope():
            return super().predict(*args, **kwargs)

    def save_weights(self, *args: Any, **kwargs: Any) -> Any:
        """As the inner model's."""
        return self.inner_model.save_weights(*args, **kwargs)

    def load_weights(self, *args: Any, **kwargs: Any) -> Any:
        """As the inner model's."""
        return self.inner_model.load_weights(*args, **kwargs)

    def summary(self, *args: Any, **kwargs: Any) -> None:
        """Print the summaries of the wrapper and of the inner model."""
        super().summary(*args, **kwargs)
        self.inner_model.summary(*args, **kwargs)
