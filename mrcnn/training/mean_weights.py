"""The running mean of the weights (EMA_MOMENTUM), which a network shows while it is not in training.

The network shows the means in each validation, from the end of an epoch to the start of the next, and after
the training. The weights behind them are kept in memory and, for those of the last epoch, in the file
TRAINED_WEIGHTS of the run, so that the next training continues with them.
"""

import hashlib
import logging
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mrcnn import files
from mrcnn.backend import keras_internals
from mrcnn.backend.devices import Devices
from mrcnn.checkpoints import weights
from mrcnn.training import optimizers

logger = logging.getLogger(__name__)

TRAINED_WEIGHTS = "trained_weights.npz"
DIGEST = "digest"  # its name in the file; names of weights have a slash
STATISTICS = ("moving_mean", "moving_variance")


@dataclass(frozen=True)
class TrainedWeights:
    """The trained weights and statistics behind the means that a network shows.

    Attributes:
        shown: Digest of all weights of the network while it shows the means; see `digest`.
        arrays: The weights and statistics that the means replace, by name.
    """

    shown: str
    arrays: dict[str, np.ndarray]

    def write(self, path: Path) -> None:
        """Write an .npz file, atomically.

        Raises:
            OSError: If the file cannot be written.
        """
        content: dict[str, Any] = {DIGEST: np.array(self.shown), **self.arrays}
        with files.atomic_write(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **content)

    @classmethod
    def read(cls, path: Path) -> "TrainedWeights | None":
        """Read a file of `write`. Returns None if there is none or it is damaged."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = dict(archive)
            return cls(str(arrays.pop(DIGEST)), arrays)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None


def named_weights(network: keras.Model) -> dict[str, keras.Variable]:
    """Return all weights of a network, with names like "conv1/conv1/kernel:0"."""
    layers = weights.model_weights(network)
    return {
        f"{layer}/{name}": variable for layer, named in layers.items() for name, variable in named.items()
    }


def digest(network: keras.Model) -> str:
    """Return a digest of the names and values of all weights of a network."""
    hashed = hashlib.blake2b()
    for name, variable in named_weights(network).items():
        hashed.update(name.encode())
        hashed.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable.value)).data)
    return hashed.hexdigest()


class MeanWeights(keras.callbacks.Callback):
    """Show the running mean of the weights and of the statistics of batch norm (EMA_MOMENTUM).

    The optimizer averages the trained weights. The statistics that belong to them are averaged here with the
    same momentum, every STATISTICS_EVERY steps; see `optimizers.mean_momentum`.

    A training starts with the weights behind the means, if the network still shows the means. If weights were
    loaded or changed in between, it starts with those.

    Args:
        momentum: Largest share of the mean that is left after a step.
        folder: Folder of the run, in which the trained weights are saved; None for no file.
    """

    STATISTICS_EVERY = 10

    def __init__(self, momentum: float, folder: Path | None = None) -> None:
        super().__init__()
        self.momentum = momentum
        self._file = None if folder is None else folder / TRAINED_WEIGHTS
        self._means: list[np.ndarray] = []  # of the statistics
        self._steps = self._averaged_steps = 0
        self._shows_means = False

    def on_train_begin(self, logs: Any = None) -> None:
        self._means, self._steps, self._averaged_steps, self._shows_means = [], 0, 0, False
        if getattr(self.model, "devices", Devices()).processes > 1:
            self._file = None  # the other processes have no file, but all must start with the same weights
        for known in self._known():
            if known.shown == digest(self.model):
                self._assign(known.arrays)
                return

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._steps += 1
        if self._steps - self._averaged_steps >= self.STATISTICS_EVERY:
            self._average_statistics()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._show_trained()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._show_means()
        if self._file is None:
            return
        try:
            self.model.trained_weights.write(self._file)
        except OSError as error:
            logger.warning(
                "Cannot save the trained weights, so this run would resume from the mean weights. Free disk "
                "space, or choose another model_dir. %s",
                error,
            )

    def on_test_begin(self, logs: Any = None) -> None:
        self._show_means()

    def on_test_end(self, logs: Any = None) -> None:
        self._show_trained()

    def _known(self) -> Iterator[TrainedWeights]:
        """Yield the trained weights of earlier trainings: in memory, and of the last epoch of the run."""
        if self.model.trained_weights is not None:
            yield self.model.trained_weights
        stored = None if self._file is None else TrainedWeights.read(self._file)
        if stored is not None:
            yield stored

    def _statistics(self) -> list[keras.Variable]:
        """Return the moving means and variances of all batch-norm layers."""
        return [variable for variable in self.model.non_trainable_variables if variable.name in STATISTICS]

    def _average_statistics(self) -> None:
        """Average the statistics of now into their means. The first ones are the means."""
        now = [keras.ops.convert_to_numpy(variable) for variable in self._statistics()]
        steps = np.arange(self._averaged_steps, self._steps)
        kept = np.float32(np.prod(np.minimum(optimizers.mean_momentum(steps), self.momentum)))
        pairs = zip(self._means or now, now, strict=True)
        self._means = [kept * mean + (1 - kept) * value for mean, value in pairs]
        self._averaged_steps = self._steps

    def _show_means(self) -> None:
        """Replace the weights and statistics of the network by their means, unless it shows these."""
        if self._shows_means:
            return
        if self._steps > self._averaged_steps:
            self._average_statistics()
        network = self.model
        means = {id(v): mean for v, mean in keras_internals.mean_weights(network.optimizer)}
        means |= {id(v): mean for v, mean in zip(self._statistics(), self._means, strict=True)}
        replaced = {name: v for name, v in named_weights(network).items() if id(v) in means}
        trained = {name: keras.ops.convert_to_numpy(v.value) for name, v in replaced.items()}
        self._assign({name: keras.ops.convert_to_numpy(means[id(v)]) for name, v in replaced.items()})
        network.trained_weights = TrainedWeights(digest(network), trained)
        self._shows_means = True

    def _show_trained(self) -> None:
        """Put the trained weights and statistics back, if the network shows the means."""
        if self._shows_means:
            self._assign(self.model.trained_weights.arrays)
            self._shows_means = False

    def _assign(self, arrays: dict[str, np.ndarray]) -> None:
        named = named_weights(self.model)
        for name, array in arrays.items():
            named[name].assign(array)
