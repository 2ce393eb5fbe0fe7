"""The running mean of the weights: what the network shows, and with what the next training goes on."""

import keras
import numpy as np
import pytest
from tiny_model import TinyConfig
from toy_data import toy_dataset

from mrcnn.model import MaskRCNN
from mrcnn.training import mean_weights

pytestmark = pytest.mark.usefixtures("eager_tensorflow")


class Watch(keras.callbacks.Callback):
    """The weights before the first step and after the last one."""

    def __init__(self):
        super().__init__()
        self.first = self.last = None

    def on_train_batch_begin(self, batch, logs=None):
        if self.first is None:
            self.first = self.model.get_weights()

    def on_train_batch_end(self, batch, logs=None):
        self.last = self.model.get_weights()


class Interrupt(keras.callbacks.Callback):
    """Fail in the first step or the first validation of the second epoch."""

    def __init__(self, event):
        super().__init__()
        self._epoch = 0
        setattr(self, event, self._fail)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def _fail(self, *args, **options):
        if self._epoch == 1:
            raise KeyboardInterrupt


def build(folder):
    config = TinyConfig()
    config.EMA_MOMENTUM, config.TRAIN_BN = 0.999, None
    keras.utils.set_random_seed(1)
    return MaskRCNN("training", config, folder)


def train(model, epochs, layers="heads", callbacks=(), val=None, steps=1):
    """Train, and return the weights before the first and after the last step.

    After a single step, the mean is the trained weights: tests that need a difference take two.
    """
    watch = Watch()
    model.config.STEPS_PER_EPOCH = steps
    model.train(toy_dataset(4), val, 0.05, epochs, layers, custom_callbacks=[watch, *callbacks])
    return watch.first, watch.last


def assert_same(found, expected):
    for array, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(array, other)


def differ(found, expected):
    return any(not np.array_equal(array, other) for array, other in zip(found, expected, strict=True))


def test_the_next_training_goes_on_with_the_trained_weights_and_statistics(tmp_path):
    """Also with other layers, and after the weights of the last epoch were loaded."""
    model = build(tmp_path)
    _, trained = train(model, 1, steps=2)
    assert differ(model.keras_model.get_weights(), trained)
    first, again = train(model, 2, "all", steps=2)
    assert_same(first, trained)
    model.load_weights(model.find_last())
    assert differ(model.keras_model.get_weights(), again)
    first, _ = train(model, 3, "all")
    assert_same(first, again)


@pytest.mark.parametrize("change", ["load", "set", "copy"])
def test_weights_that_were_changed_in_between_count(change, tmp_path):
    model, other = build(tmp_path / "a"), build(tmp_path / "b")
    train(model, 2)
    if change == "load":
        model.load_weights(model.checkpoint_path.format(epoch=1))
    elif change == "set":
        layer = model.keras_model.get_layer("fpn_p2")
        layer.set_weights([2 * array for array in layer.get_weights()])
    else:
        model.copy_weights(other)
    expected = model.keras_model.get_weights()
    first, _ = train(model, 3)
    assert_same(first, expected)


@pytest.mark.parametrize("event", ["on_train_batch_end", "on_test_batch_end"])
def test_an_interrupted_training_goes_on_with_the_trained_weights(event, tmp_path):
    model, watch = build(tmp_path), Watch()
    with pytest.raises(KeyboardInterrupt):
        train(model, 3, callbacks=[watch, Interrupt(event)], val=toy_dataset(2))
    assert model.epoch == 1
    first, _ = train(model, 2)
    assert_same(first, watch.last)


@pytest.mark.parametrize("content", [None, b"", b"no archive"])
def test_a_resumed_run_goes_on_with_the_trained_weights(content, tmp_path):
    """Without their file, or with a damaged one, with the means."""
    model = build(tmp_path)
    _, trained = train(model, 1, steps=2)
    shown = model.keras_model.get_weights()
    path = next(tmp_path.glob(f"*/{mean_weights.TRAINED_WEIGHTS}"))
    if content is not None:
        path.write_bytes(content)
    resumed = build(tmp_path)
    resumed.load_weights(resumed.find_last())
    assert_same(resumed.keras_model.get_weights(), shown)
    first, _ = train(resumed, 2)
    assert_same(first, trained if content is None else shown)


def test_a_run_without_its_file_of_trained_weights_starts_with_the_means(tmp_path, caplog, monkeypatch):
    """And a full disk costs only this file."""

    def fail(self, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(mean_weights.TrainedWeights, "write", fail)
    model = build(tmp_path)
    train(model, 1, steps=2)
    assert "No space left" in caplog.text
    resumed = build(tmp_path)
    resumed.load_weights(resumed.find_last())
    shown = resumed.keras_model.get_weights()
    first, _ = train(resumed, 2)
    assert_same(first, shown)


def test_the_mean_of_a_short_training_is_near_the_trained_weights(tmp_path):
    model = build(tmp_path)
    first, trained = train(model, 6, steps=2)
    shown = model.keras_model.get_weights()
    distances = [sum(np.abs(a - b).sum() for a, b in zip(x, trained, strict=True)) for x in (shown, first)]
    assert 0 < distances[0] < distances[1] / 4
