"""Support for training loops of Keras 2 programs: batches as lists, and arguments that Keras 3 dropped."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn.backend import keras_internals
from mrcnn.checkpoints import weights
from mrcnn.typing import Tensor

# The arrays of a batch of `mrcnn.model.data_generator`, in order.
BATCH_INPUTS = (
    "input_image",
    "input_image_meta",
    "input_rpn_match",
    "input_rpn_bbox",
    "input_gt_class_ids",
    "input_gt_boxes",
    "input_gt_masks",
    "input_roi",
)
# Arguments of `fit` that Keras 3 takes from the data instead.
DROPPED = ("max_queue_size", "workers", "use_multiprocessing")


class Keras2Loops(keras_internals.KeepsWeights, weights.NamedWeightsModel):
    """A model whose `fit`, `train_on_batch` and so on also take the batches of `data_generator`.

    Such a batch is a list of the BATCH_INPUTS. Arrays for which the model has no input are left out.
    """

    def fit(self, x: Any = None, *args: Any, **options: Any) -> keras.callbacks.History:
        """Train as `keras.Model.fit` does. Arguments of Keras 2 about workers are ignored."""
        options = {name: value for name, value in options.items() if name not in DROPPED}
        if "validation_data" in options:
            options["validation_data"] = self._named_source(options["validation_data"])
        if isinstance(x, list):
            args = (None, *args[1:])  # the empty list of outputs
        return self.fit_named(self._named_source(x), *args, **options)

    def fit_named(self, *args: Any, **options: Any) -> keras.callbacks.History:
        """Train as `keras.Model.fit` does, on inputs that are dicts."""
        return super().fit(*args, **options)

    def fit_generator(self, generator: Any, *args: Any, **options: Any) -> keras.callbacks.History:
        """Train as Keras 2 did: `fit` with the batches of a generator.

        Args:
            generator: Yields (inputs, []) with lists of arrays.
            *args: steps_per_epoch and epochs.
            **options: Arguments of `fit`.
        """
        positional = dict(zip(("steps_per_epoch", "epochs", "verbose", "callbacks"), args, strict=False))
        return self.fit(generator, **positional, **options)

    def train_step(self, *args: Any) -> Any:
        """Run one step of training, with the inputs by name."""
        *state, data = args  # JAX passes its state, too
        return super().train_step(*state, self._named(data))

    def test_step(self, *args: Any) -> Any:
        """Run one step of validation, with the inputs by name."""
        *state, data = args
        return super().test_step(*state, self._named(data))

    def _named_source(self, source: Any) -> Any:
        """Return a batch, a generator of batches or a Sequence of batches, with the inputs by name."""
        if isinstance(source, list):  # inputs alone
            return self._named(source)[0]
        if isinstance(source, tuple):
            return self._named(source)
        if isinstance(source, keras.utils.PyDataset):
            return _NamedSequence(source, self._named)
        # Keras knows generators only.
        return (self._named(batch) for batch in source) if isinstance(source, Iterator) else source

    def _named(self, data: Any) -> Any:
        """Return a batch (inputs, outputs) with its inputs by name, and without the empty list of outputs."""
        # Keras on PyTorch makes a list of the tuple.
        has_parts = isinstance(data, (list, tuple)) and isinstance(data[0], (list, tuple, Mapping))
        inputs = data[0] if has_parts or isinstance(data, tuple) else data
        if isinstance(inputs, Mapping):
            return data
        return (named_inputs(inputs, {x.name: x.dtype for x in keras.tree.flatten(self.input)}),)


class _NamedSequence(keras.utils.PyDataset):
    """The batches of a `keras.utils.Sequence`, changed by a function."""

    def __init__(self, source: keras.utils.PyDataset, change: Callable[[Any], Any]) -> None:
        super().__init__()
        self.source, self.change = source, change

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        return self.change(self.source[index])

    def on_epoch_begin(self) -> None:
        self.source.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self.source.on_epoch_end()


def named_inputs(arrays: Sequence[Tensor], dtypes: Mapping[str, str]) -> dict[str, Tensor]:
    """Return the inputs of a network by name.

    Args:
        arrays: The arrays of a batch of `data_generator`, or only those for which the network has an input,
            in the same order.
        dtypes: {name: dtype} of the inputs.

    Raises:
        ValueError: If the number of arrays does not fit.
    """
    own = [name for name in BATCH_INPUTS if name in dtypes]
    names = own if len(arrays) == len(own) else list(BATCH_INPUTS[: len(arrays)])
    if not set(own) <= set(names):
        raise ValueError(
            "A batch must be a dict, or a list of the arrays of data_generator: "
            f"{list(BATCH_INPUTS[:-1])}. Received: {len(arrays)} arrays"
        )
    values = dict(zip(names, arrays, strict=True))
    return {
        name: value.astype(dtypes[name]) if isinstance(value, np.ndarray) else ops.cast(value, dtypes[name])
        for name, value in values.items()
        if name in own
    }
