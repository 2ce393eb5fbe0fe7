"""Detections measured while a tiny network trains, and the best weights kept."""

import time
from pathlib import Path

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_model import TinyConfig
from tiny_network import build, randomize
from toy_data import toy_dataset

from mrcnn.checkpoints import weights
from mrcnn.checkpoints.model_info import model_info
from mrcnn.model import MaskRCNN
from mrcnn.training import callbacks

pytestmark = pytest.mark.usefixtures("eager_tensorflow")


class CropConfig(TinyConfig):
    IMAGE_RESIZE_MODE = "crop"
    STEPS_PER_EPOCH = 1


def test_measures_reach_history_tensorboard_and_other_callbacks(tmp_path):
    """Training takes crops, detection whole images; of three epochs the second is evaluated."""
    model = MaskRCNN("training", CropConfig(), tmp_path)
    found = callbacks.Evaluate(model, toy_dataset(2), every=2, min_score=0.1)
    best = callbacks.SaveBest(tmp_path / "best.h5", monitor="val_mask_AP")
    seen = []
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append("val_mask_AP50" in logs)
    )
    history = model.train(
        toy_dataset(4), None, 0.01, epochs=3, layers="all", custom_callbacks=[found, best, look]
    )
    assert seen == [False, True, False]
    assert history.history["val_mask_AP50"] == found.results["mask_AP50"][:1]
    assert history.history["val_tau_AP50"] == found.results["tau_AP50"][:1]
    assert len(history.history["loss"]) == 3
    events = EventAccumulator(f"{model.log_dir}/validation").Reload()
    assert {"epoch_mask_AP", "epoch_box_AP50"} <= set(events.Tags()["tensors"])

    # the best weights are those of the second epoch, and they fit the inference network
    assert best.best_epoch == 1 and best.best == found.results["mask_AP"][0]
    second = weights.read_weight_file(model.checkpoint_path.format(epoch=2))
    kept = weights.read_weight_file(tmp_path / "best.h5")
    assert all(np.array_equal(a, b) for name in kept for a, b in zip(kept[name], second[name], strict=True))
    detector = model.inference_model()
    assert detector.config.IMAGE_RESIZE_MODE == "pad64" and detector.mode == "inference"
    detector.load_weights(tmp_path / "best.h5")
    again = detector.evaluate(toy_dataset(2), verbose=0)
    np.testing.assert_array_equal(again["mask_AP"], found.results["mask_AP"])


def run(callback, *values):
    """The callback's view of epochs in which "measure" had these values."""
    callback.set_model(randomize(build(cls=weights.NamedWeightsModel)))
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {"loss": 1.0} if value is None else {"measure": value})
    callback.on_train_end()
    return callback


def test_best_of_several_epochs(tmp_path, caplog):
    path = tmp_path / "best.h5"
    assert run(callbacks.SaveBest(path, "measure"), 0.1, None, 0.3, 0.2).best_epoch == 2
    assert path.exists()
    assert run(callbacks.SaveBest(path, "measure", mode="min"), 0.3, 0.1, 0.2).best_epoch == 1
    path.unlink()
    assert run(callbacks.SaveBest(path, "measure", baseline=0.5), 0.4, float("nan")).best == 0.5
    assert not path.exists() and not caplog.text
    run(callbacks.SaveBest(path, "misspelled"), 0.1)
    assert "misspelled" in caplog.text and "'measure'" in caplog.text


def test_bad_arguments():
    with pytest.raises(ValueError, match="every=0"):
        callbacks.Evaluate(None, None, every=0)
    with pytest.raises(ValueError, match="largest"):
        callbacks.SaveBest("best.h5", mode="largest")


def test_the_bar_starts_after_the_first_step(capsys):
    """The first step compiles. Later epochs show each step, and all show the logs of other callbacks."""
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    network.compile("sgd", "mse")
    slow = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: time.sleep(0.1),  # Keras skips steps that follow faster
        on_epoch_end=lambda epoch, logs: logs.update(added=1.5),
    )
    x = np.ones((3, 1))
    network.fit(x, x, batch_size=1, epochs=2, callbacks=[slow, callbacks.ProgressBar()])
    first, second = capsys.readouterr().out.split("Epoch 2/2")
    assert ["1/3" in first, "2/3" in first, "3/3" in first] == [False, True, True]
    assert ["1/3" in second, "2/3" in second, "3/3" in second] == [True, True, True]
    assert "added: 1.5" in first


def test_the_best_weights_of_twin_runs_are_in_their_own_folders(tmp_path):
    models = [MaskRCNN("training", CropConfig(), tmp_path) for _ in range(2)]
    paths = [f"{model.log_dir}/best.h5" for model in models]
    for model, path in zip(models, paths, strict=True):
        best = callbacks.SaveBest(path, monitor="loss", mode="min")
        model.train(toy_dataset(2), None, 0.01, epochs=1, layers="heads", custom_callbacks=[best])
    folders = sorted(path.parent for path in tmp_path.glob("*/best.h5"))
    assert folders == sorted(Path(model.log_dir) for model in models) and len(set(folders)) == 2


def test_the_metrics_are_those_of_the_weights(tmp_path):
    """Other callbacks add to them, and EarlyStopping goes back to an earlier epoch."""
    model = MaskRCNN("training", CropConfig(), tmp_path)
    values = iter([0.5, 0.2, 0.1])
    add = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.__setitem__("val_mask_AP", next(values))
    )
    stop = keras.callbacks.EarlyStopping("val_mask_AP", mode="max", patience=1, restore_best_weights=True)
    model.train(toy_dataset(2), None, 0.01, epochs=1, layers="heads", custom_callbacks=[add])
    assert model.metrics["val_mask_AP"] == 0.5 and model.metrics["epoch"] == 1
    model.train(toy_dataset(2), None, 0.01, epochs=3, layers="heads", custom_callbacks=[add, stop])
    assert model.metrics["val_mask_AP"] == 0.2 and model.metrics["epoch"] == 2
    model.save(tmp_path / "final.h5")
    assert model_info(tmp_path / "final.h5").metrics["val_mask_AP"] == 0.2
