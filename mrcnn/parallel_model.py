"""ParallelModel: the Keras 2 library's wrapper for several GPUs. `MaskRCNN` uses GPU_COUNT instead."""

import warnings
from typing import Any

import keras

from mrcnn import backend
from mrcnn.backend import keras_internals


class ParallelModel(keras_internals.KeepsWeights):
    """A model that splits each batch over several devices.

    Compile and use it like any Keras model. Weight files contain the weights of the inner model.

    Args:
        keras_model: A functional model. Create it and its optimizer in the scope of the devices,
            `mrcnn.backend.get_devices(gpu_count).scope()`.
        gpu_count: The number of devices, at least 2.

    Raises:
        ValueError: If gpu_count is below 2, or the model was created outside the scope.
    """

    def __init__(self, keras_model: keras.Model, gpu_count: int):
        if gpu_count < 2:
            raise ValueError(f"`gpu_count` must be at least 2. Received: gpu_count={gpu_count}")
        warnings.warn(
            "ParallelModel is only for existing programs. Set GPU_COUNT in the Config instead.",
            DeprecationWarning,
            stacklevel=2,
        )
        devices = backend.get_devices(gpu_count)
        if not devices.own_variables(keras_model):
            raise ValueError(
                "`keras_model` must be created in the scope of its devices. Received: "
                f'{keras_model.name!r}, which was created outside. Create it inside "with '
                f'mrcnn.backend.get_devices({gpu_count}).scope():".'
            )
        super().__init__(inputs=keras_model.input, outputs=keras_model.output, name=keras_model.name)
        self.inner_model = keras_model
        self.gpu_count = gpu_count
        self._devices = devices

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile as `keras.Model.compile` does, for the devices."""
        with self._devices.scope():
            super().compile(*args, **kwargs)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Train as `keras.Model.fit` does, with each batch split over the devices."""
        with self._devices.scope():
            return super().fit(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate as `keras.Model.evaluate` does, with each batch split over the devices."""
        with self._devices.scope():
            return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Predict as `keras.Model.predict` does, with each batch split over the devices."""
        with self._devices.scope():
            return super().predict(*args, **kwargs)

    def save_weights(self, *args: Any, **kwargs: Any) -> Any:
        """Save the weights of the inner model."""
        return self.inner_model.save_weights(*args, **kwargs)

    def load_weights(self, *args: Any, **kwargs: Any) -> Any:
        """Load the weights of the inner model."""
        return self.inner_model.load_weights(*args, **kwargs)

    def summary(self, *args: Any, **kwargs: Any) -> None:
        """Print the summary of this model, then that of the inner model."""
        super().summary(*args, **kwargs)
        self.inner_model.summary(*args, **kwargs)
