"""ParallelModel, the original's wrapper for several GPUs, handed over to `mrcnn.distribution`."""

import warnings
from typing import Any

import keras


class ParallelModel(keras.Model):
    """A model whose batches are shared by several devices; weight files are those of the inner model.

    keras_model: a functional model, built inside `mrcnn.distribution.scope(gpu_count)`, which does the
    sharing; gpu_count: at least 2. `MaskRCNN` needs no wrapper: it builds in that scope by GPU_COUNT.
    Raises ValueError for a gpu_count below 2.
    """

    def __init__(self, keras_model: keras.Model, gpu_count: int):
        if gpu_count < 2:
            raise ValueError(f"ParallelModel needs at least two devices. Received: gpu_count={gpu_count}")
        warnings.warn(
            "ParallelModel is kept for old code: set GPU_COUNT in the config instead.",
            DeprecationWarning,
            stacklevel=2,
        )
        super().__init__(inputs=keras_model.input, outputs=keras_model.output, name=keras_model.name)
        self.inner_model = keras_model
        self.gpu_count = gpu_count

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
