"""Detections measured while a tiny network trains, and the best weights kept."""

import os
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
from mrcnn.checkpoints.model_info import ModelInfo, model_info
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


def run(callback, *values, done=0):
    """The callback's view of epochs in which "measure" had these values, after `done` other epochs."""
    network = randomize(build(cls=weights.NamedWeightsModel))
    network.describe = lambda: ModelInfo({})
    callback.set_model(network)
    for epoch, value in enumerate(values, start=done):
        callback.on_epoch_end(epoch, {"loss": 1.0} if value is None else {"measure": value})
    callback.on_train_end()
    return callback


def test_best_of_several_epochs(tmp_path, caplog):
    path = tmp_path / "best.h5"
    assert run(callbacks.SaveBest(path, "measure"), 0.1, None, 0.3, 0.2).best_epoch == 2
    assert path.exists()
    assert run(callbacks.SaveBest(path, "measure", mode="min"), 0.3, 0.1, 0.2).best_epoch == 1
    path.unlink()
    caplog.clear()
    assert run(callbacks.SaveBest(path, "measure", baseline=0.5), 0.4, float("nan")).best == 0.5
    assert not path.exists() and not caplog.text
    run(callbacks.SaveBest(path, "misspelled"), 0.1)
    assert "misspelled" in caplog.text and "'measure'" in caplog.text


def measured(path):
    """The value and the epoch, from 1, of a file."""
    metrics = model_info(path).metrics
    return metrics["measure"], metrics["epoch"]


@pytest.mark.parametrize(("mode", "sign"), [("max", 1), ("min", -1)])
def test_a_run_that_goes_on_keeps_its_best_weights(mode, sign, tmp_path):
    path = tmp_path / "best.h5"
    run(callbacks.SaveBest(path, "measure", mode), sign * 0.3, sign * 0.5, sign * 0.2)
    before = path.read_bytes()
    best = run(callbacks.SaveBest(path, "measure", mode), None, sign * 0.4, sign * 0.1, done=3)
    assert (best.best, best.best_epoch) == (sign * 0.5, 1)
    assert path.read_bytes() == before
    best = run(callbacks.SaveBest(path, "measure", mode), sign * 0.4, sign * 0.6, done=3)
    assert (best.best, best.best_epoch) == (sign * 0.6, 4)
    assert measured(path) == (sign * 0.6, 5)
    assert os.listdir(tmp_path) == ["best.h5"]


@pytest.mark.parametrize("done", [0, 1], ids=["another run", "an earlier epoch"])
def test_best_weights_of_other_epochs_are_moved(done, tmp_path, caplog):
    path = tmp_path / "best.h5"
    run(callbacks.SaveBest(path, "measure"), 0.3, 0.5)
    best = run(callbacks.SaveBest(path, "measure"), None, 0.2, 0.1, done=done)
    assert (best.best, best.best_epoch) == (0.2, done + 1)
    assert measured(path) == (0.2, done + 2)
    (aside,) = tmp_path.glob("replaced-*/best.h5")
    assert measured(aside) == (0.5, 2)
    assert f"SaveBest moved {path} to {aside.parent}: it is not from an earlier" in caplog.text
    run(callbacks.SaveBest(path, "measure"), 0.1)
    assert sorted(map(measured, tmp_path.glob("replaced-*/best.h5"))) == [(0.2, done + 2), (0.5, 2)]


@pytest.mark.parametrize("content", [b"", b"no weight file"])
def test_a_file_that_is_no_weight_file_is_moved(content, tmp_path):
    path = tmp_path / "best.h5"
    path.write_bytes(content)
    assert run(callbacks.SaveBest(path, "measure"), 0.1, done=4).best == 0.1
    assert [moved.read_bytes() for moved in tmp_path.glob("replaced-*/best.h5")] == [content]


def test_a_file_without_the_value_is_moved(tmp_path):
    path = tmp_path / "best.h5"
    run(callbacks.SaveBest(path, "measure"), 0.5)
    other = callbacks.SaveBest(path, "loss", mode="min")
    assert run(other, None, done=4).best_epoch == 4
    assert model_info(path).metrics == {"loss": 1.0, "epoch": 5}
    assert len(list(tmp_path.glob("replaced-*/best.h5"))) == 1


def test_a_baseline_replaces_any_file(tmp_path):
    path = tmp_path / "best.h5"
    run(callbacks.SaveBest(path, "measure"), 0.5)
    run(callbacks.SaveBest(path, "measure", baseline=0.1), 0.05, 0.2, done=3)
    assert measured(path) == (0.2, 5) and os.listdir(tmp_path) == ["best.h5"]


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
