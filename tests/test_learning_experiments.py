"""The experiments on learning: runs that continue, the division of the data, and the tables."""

import json

import keras
import numpy as np
import pytest
from tiny_model import TinyConfig
from toy_data import toy_dataset

import mrcnn
from benchmarks import learning, learning_curve, nucleus_recipe, robustness, transfer
from mrcnn.evaluation.robustness import SHIFTS
from mrcnn.training.schedules import Stage, warm_up_and_decay
from samples import stand_ins
from samples.nucleus import nucleus

pytestmark = pytest.mark.usefixtures("eager_tensorflow")


def run(epochs=2, patience=None):
    stages = [
        Stage(warm_up_and_decay(0.01, 2), 1, "heads"),
        Stage(warm_up_and_decay(0.01, 2 * (epochs - 1)), epochs, "all"),
    ]
    return learning.Run("tiny", 3, TinyConfig(), stages, patience=patience)


@pytest.fixture(scope="module")
def bowl(tmp_path_factory):
    folder = stand_ins.write_tissue_as_bowl(tmp_path_factory.mktemp("bowl"))
    names = [info["id"] for info in nucleus.load_dataset(folder, "train").image_info]
    modalities = ("histology", "fluorescence", "fluorescence")
    entries = [{"id": name, "modality": kind} for name, kind in zip(names, modalities, strict=True)]
    (folder / "split.json").write_text(json.dumps({"train": entries, "val": []}))
    return folder


class Interruption(keras.callbacks.Callback):
    """End the process of training, as it were, in the second epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.usefixtures("eager_test")
def test_an_interrupted_run_continues(tmp_path, monkeypatch):
    clock = learning.Clock
    monkeypatch.setattr(learning, "Clock", lambda path: Both(clock(path), Interruption()))
    with pytest.raises(KeyboardInterrupt):
        learning.train(run(), toy_dataset(), None, tmp_path)
    assert learning.read_facts(tmp_path / learning.FACTS)["epochs"] == 1
    monkeypatch.setattr(learning, "Clock", clock)
    model = learning.train(run(), toy_dataset(), None, tmp_path)
    facts = learning.read_facts(tmp_path / learning.FACTS)
    assert (facts["epochs"], len(facts["losses"])) == (2, 2)
    assert facts["cpu_seconds"] > 0 and np.isfinite(facts["losses"]).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["facts.json", "weights.h5"]
    again = learning.train(run(), toy_dataset(), None, tmp_path)
    for first, second in zip(model.keras_model.get_weights(), again.keras_model.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)
    measured = learning.evaluate(again, learning.detection_config(run().config), toy_dataset(2))
    assert {"mask_AP", "mask_AP50", "box_AP"} <= measured["all"].keys()
    summary = learning.summary_of(run(), tmp_path)
    assert (summary["steps"], summary["images_per_step"]) == (4, 2)


class Both(keras.callbacks.Callback):
    """Two callbacks as one."""

    def __init__(self, *callbacks):
        super().__init__()
        self.callbacks = callbacks

    def on_train_begin(self, logs=None):
        self.callbacks[0].on_train_begin(logs)

    def on_epoch_begin(self, epoch, logs=None):
        self.callbacks[1].on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch, logs=None):
        self.callbacks[0].on_epoch_end(epoch, logs)


@pytest.mark.slow
def test_a_run_ends_when_patience_does(tmp_path):
    """Without objects in the held-back images that it could find, the first evaluation stays the best."""
    model = learning.train(run(epochs=9, patience=1), toy_dataset(), toy_dataset(2), tmp_path)
    facts = learning.read_facts(tmp_path / learning.FACTS)
    values = [value for _, value in facts["held_back_AP"]]
    assert learning.is_exhausted(facts, 1) or len(values) == 9
    if len(values) < 9:
        assert np.argmax(values) == len(values) - 2
    assert model.metrics["epoch"] == np.argmax(values) + 1


def test_patience_counts_evaluations_since_the_best():
    def is_exhausted(*values):
        return learning.is_exhausted({"held_back_AP": list(enumerate(values))}, 2)

    assert not is_exhausted() and not is_exhausted(0.5) and not is_exhausted(0.5, 0.4)
    assert is_exhausted(0.5, 0.4, 0.5) and not is_exhausted(0.5, 0.4, 0.6)


def test_the_table_joins_seeds(tmp_path):
    path = tmp_path / "rows.json"
    for seed, value in ((0, 0.5), (1, 0.6)):
        row = {"row": "a", "on": "b", "group": "c", "seed": seed, "steps": 10, "cpu_seconds": 60.0}
        learning.Results(path, "x").add({**row, "mask_AP": value})
    results = learning.Results(path, "x")
    assert results.find(row="a", seed=1)["mask_AP"] == 0.6 and results.find(row="a", seed=2) is None
    heads, _, line = results.table().splitlines()
    assert heads.split("  ")[0] == "row" and "0.550 +- 0.050" in line and "2" in line.split()


def test_held_back_images_of_each_modality(bowl):
    dataset = nucleus.load_dataset(bowl, "train")
    train_set, held_back = nucleus_recipe.divide(dataset, bowl)
    kinds = sorted(info["modality"] for info in held_back.image_info)
    assert kinds == ["fluorescence", "histology"] and len(train_set.image_info) == 1
    names = {info["id"] for part in (train_set, held_back) for info in part.image_info}
    assert len(names) == 3
    with pytest.raises(ValueError, match=r"must have a split\.json"):
        nucleus_recipe.divide(dataset, bowl / "stage1_test")


@pytest.mark.parametrize("name", nucleus_recipe.ROWS)
def test_rows_of_the_recipe_are_valid(name):
    row = nucleus_recipe.ROWS[name]
    training = nucleus_recipe.run_of(name, 0, 10, 6, [])
    training.config.validate()
    assert training.stages[-1].epochs == 10 * row.longer
    assert training.config.STEPS_PER_EPOCH * training.config.BATCH_SIZE == 24
    for change in nucleus_recipe.DETECTION.values():
        config = nucleus_recipe.detection_config(training, change)
        config.validate()
        assert (config.BACKBONE, config.MASK_SHAPE) == (training.config.BACKBONE, training.config.MASK_SHAPE)


def test_rows_of_the_other_experiments_are_valid(tmp_path):
    for name in learning_curve.ROWS:
        learning_curve.run_of(name, 0, 60, 100, [("IMAGES_PER_GPU", 2)]).config.validate()
    schedule = learning_curve.run_of(name, 0, 60, 100, []).stages[0].learning_rate
    assert float(schedule(1)) < float(schedule(100)) == pytest.approx(float(schedule(5000)))


def test_fewer_images_are_among_more():
    sets = [learning_curve.choose(toy_dataset(), count) for count in (2, 4, None)]
    names = [{info["id"] for info in part.image_info} for part in sets]
    assert [len(part) for part in names] == [2, 4, 7] and names[0] < names[1] < names[2]


@pytest.mark.slow
def test_a_row_of_nuclei_from_training_to_the_table(bowl, tmp_path, capsys):
    common = ["--dataset", str(bowl), "--work", str(tmp_path), "--output", str(tmp_path / "rows.json")]
    tiny = ["IMAGE_MIN_DIM=64", "IMAGE_MAX_DIM=64", "IMAGES_PER_GPU=2", "TRAIN_ROIS_PER_IMAGE=8"]
    line = [*common, "--row", "scratch", "--epochs", "1", "--steps", "1", "--set", *tiny]
    nucleus_recipe.main(line)
    printed = capsys.readouterr().out
    assert "held back" in printed and "fluorescence" in printed
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert {row["group"] for row in rows} == {"all", "fluorescence", "other"}
    nucleus_recipe.main(line)  # a finished row is not measured again
    assert len(json.loads((tmp_path / "rows.json").read_text())["rows"]) == len(rows)
    robustness.main([*line, "--output", str(tmp_path / "shifts.json")])  # nor is a trained one trained again
    assert "noise 15 levels" in capsys.readouterr().out
    shifts = json.loads((tmp_path / "shifts.json").read_text())["rows"]
    assert len(shifts) == len(SHIFTS) and all(row["steps"] == 1 for row in shifts)
    robustness.main([*line, "--held-back", "--output", str(tmp_path / "held-back.json")])
    held_back = json.loads((tmp_path / "held-back.json").read_text())["rows"]
    assert {row["on"] for row in held_back} == {"held back"} and {row["on"] for row in shifts} == {"val.zip"}


@pytest.mark.slow
def test_a_row_that_continues_another(bowl, tmp_path):
    common = ["--dataset", str(bowl), "--work", str(tmp_path), "--output", str(tmp_path / "rows.json")]
    tiny = ["IMAGE_MIN_DIM=64", "IMAGE_MAX_DIM=64", "IMAGES_PER_GPU=2", "TRAIN_ROIS_PER_IMAGE=8"]
    options = ["--epochs", "1", "--steps", "1", "--set", *tiny]
    with pytest.raises(SystemExit, match='Train the row "whole recipe, turns only" with this seed first'):
        nucleus_recipe.main([*common, "--row", "noise afterwards", *options])
    nucleus_recipe.main([*common, "--row", "scratch", *options])  # the same network
    first = tmp_path / "nucleus_recipe-whole-recipe-turns-only-seed0"
    (tmp_path / "nucleus_recipe-scratch-seed0").rename(first)
    nucleus_recipe.main([*common, "--row", "noise afterwards", *options])
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert rows[-1]["weights"] == "whole recipe, turns only" and rows[-1]["steps"] == 2
    begun, continued = (
        mrcnn.load(folder / "weights.h5")
        for folder in (first, tmp_path / "nucleus_recipe-noise-afterwards-seed0")
    )
    kernels = [
        keras.ops.convert_to_numpy(network.keras_model.get_layer("fpn_p2").kernel)
        for network in (begun, continued)
    ]
    difference = np.abs(kernels[1] - kernels[0]).max()
    assert 0 < difference < 0.01  # two steps of Adam, not other random weights


@pytest.mark.slow
def test_a_row_of_photographs(tmp_path, capsys):
    stand_ins.write_coins_as_via(tmp_path / "coins")
    for path in (tmp_path / "coins").glob("*/via_region_data.json"):
        path.write_text(path.read_text().replace('"coin"', '"balloon"'))
    transfer.main(
        [
            *["--data", "balloon", "--dataset", str(tmp_path / "coins"), "--choose", "--row", "scratch"],
            *["--work", str(tmp_path), "--output", str(tmp_path / "rows.json")],
            *["--epochs", "1", "--steps", "1", "--set", "TRAIN_ROIS_PER_IMAGE=8"],
        ]
    )
    assert "a fifth of the training part" in capsys.readouterr().out
    assert mrcnn.load(tmp_path / "balloon-choose-scratch-seed0" / "weights.h5").config.NAME == "balloon-light"
