"""What a weight file says about its model: written as attributes, checked when it is read."""

import json

import h5py
import numpy as np
import pytest
import tiny_network

from mrcnn.checkpoints import foreign, weight_report, weights
from mrcnn.checkpoints.model_info import (
    ModelInfo,
    clean_names,
    describe_differences,
    differing_settings,
    model_info,
    write_attributes,
)
from mrcnn.checkpoints.records import MAX_TEXT
from mrcnn.config import LightConfig
from mrcnn.errors import InvalidDataError

SETTINGS = {**LightConfig().to_dict(), "NAME": "coins", "NUM_CLASSES": 2}
INFO = ModelInfo(SETTINGS, ("BG", "coin"), {"epoch": 3, "loss": 0.5, "val_mask_AP": 0.25}, "3.0.0")


def written(path, info=INFO, **attributes):
    with h5py.File(path, "w") as file:
        write_attributes(file, {**info.attributes(), **attributes})
    return path


def test_read_what_was_written(tmp_path):
    info = model_info(written(tmp_path / "a.h5"))
    assert info == INFO
    with h5py.File(tmp_path / "a.h5") as file:
        preprocessing = json.loads(file.attrs["mrcnn_preprocessing"])
    assert preprocessing["range"] == [0, 255] and preprocessing["MEAN_PIXEL"] == [123.7, 116.8, 103.9]


def test_texts_longer_than_an_attribute(tmp_path):
    names = tuple(f"class {number} \N{GREEK SMALL LETTER ALPHA}" + "x" * 40 for number in range(3000))
    info = ModelInfo({**SETTINGS, "NUM_CLASSES": len(names)}, names)
    assert model_info(written(tmp_path / "long.h5", info)).class_names == names
    with h5py.File(tmp_path / "long.h5") as file:
        assert {"mrcnn_class_names", "mrcnn_class_names1", "mrcnn_class_names2"} <= set(file.attrs)


def test_numbers_that_are_not_finite_are_left_out(tmp_path):
    info = ModelInfo(SETTINGS, None, {"loss": float("nan"), "epoch": 1})
    assert model_info(written(tmp_path / "nan.h5", info)).metrics == {"epoch": 1}


class TestWhatIsWrittenCanBeRead:
    def read(self, folder, settings=SETTINGS, class_names=None, metrics=None):
        return model_info(written(folder / "a.h5", ModelInfo(settings, class_names, metrics or {})))

    def test_a_large_attribute_is_left_out(self, tmp_path):
        own = {"FLAT_FIELD": np.random.default_rng(0).random((512, 512)).tolist(), "SMALL": [1, 2]}
        with pytest.warns(UserWarning, match=r"the Config: FLAT_FIELD\. All settings .* 4,194,304 bytes"):
            assert self.read(tmp_path, SETTINGS | own).settings == SETTINGS | {"SMALL": [1, 2]}

    def test_the_warning_of_many_attributes_is_short(self, tmp_path):
        own = {f"{'LONG_' * 40}{number}": 1 for number in range(99)}
        with pytest.warns(UserWarning, match=r"LONG.* and 89 more\. All settings") as caught:
            assert self.read(tmp_path, SETTINGS | own).settings == SETTINGS
        assert len(str(caught[0].message)) < 3000

    def test_attributes_that_are_too_large_together(self, tmp_path):
        own = {f"TEXT_{number}": "x" * (number * 2**20) for number in (3, 2, 1)}
        settings = self.read(tmp_path, own | SETTINGS).settings
        assert set(settings) - set(SETTINGS) == {"TEXT_1", "TEXT_2"}

    def test_a_text_of_the_largest_size(self, tmp_path):
        room = MAX_TEXT - len(json.dumps(SETTINGS | {"TEXT": ""}))
        settings = SETTINGS | {"TEXT": "x" * room}
        assert len(json.dumps(settings)) == MAX_TEXT
        assert self.read(tmp_path, settings).settings == settings
        assert self.read(tmp_path, settings | {"TEXT": "x" * (room + 1)}).settings == SETTINGS

    def test_names_that_are_not_valid(self, tmp_path):
        own = {"A.B": 1, "lower": 1, "_HIDDEN": 1, "L" * 201: 1, "L" * 200: 1}
        callables = {"BACKBONE": "own.<locals>." * 20, "COMPUTE\n": "a", "L" * 201: "a", "LINE": "a\nb"}
        found = self.read(tmp_path, SETTINGS | own | {"CALLABLES": callables})
        assert found.settings == SETTINGS | {"L" * 200: 1, "CALLABLES": found.callables}
        assert found.callables == {"BACKBONE": callables["BACKBONE"][:200], "LINE": "a b"}

    def test_many_entries(self, tmp_path):
        settings = self.read(tmp_path, SETTINGS | {f"X{number}": 1 for number in range(70_000)}).settings
        assert len(settings) == 65_536

    def test_metrics(self, tmp_path):
        metrics = {"loss": 0.5, "a\nb": 1, "x" * 201: 1, "huge": 10**400, "nan": np.nan, "yes": True}
        assert self.read(tmp_path, metrics=metrics).metrics == {"loss": 0.5}

    @pytest.mark.parametrize(
        "names", [("BG",), ("BG", "a\nb"), ("BG", "x" * 201), ("BG", *("x" * 199 for _ in range(30_000)))]
    )
    def test_class_names_that_are_not_valid(self, tmp_path, names):
        settings = SETTINGS | {"NUM_CLASSES": max(2, len(names))}
        with pytest.warns(UserWarning, match=f"will not contain the {len(names):,} class names"):
            assert self.read(tmp_path, settings, names).class_names is None

    def test_a_config_that_trains(self, tmp_path):
        class FlatConfig(LightConfig):
            NAME, NUM_CLASSES = "coins", 2
            FLAT_FIELD = np.random.default_rng(0).random((512, 512))

        model = tiny_network.build(classes=2, cls=weights.NamedWeightsModel)
        model.describe = lambda: ModelInfo(FlatConfig().to_dict(), ("BG", "coin"))
        model.save_weights(tmp_path / "a.h5")
        assert weights.load_weights(model, tmp_path / "a.h5").info.settings == SETTINGS


def test_files_that_say_nothing(tmp_path):
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file.attrs["backend"] = b"tensorflow"
    (tmp_path / "text.h5").write_text("no HDF5")
    assert model_info(tmp_path / "plain.h5") is None and model_info(tmp_path / "text.h5") is None


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("settings", "{", "must be JSON"),
        ("settings", "[" * 100_000, "must be JSON"),
        ("settings", "[1]", "must be a table of settings"),
        ("settings", '{"validate": 1}', "'validate' is not the name of a setting"),
        ("settings", '{"__class__": 1}', "'__class__' is not the name of a setting"),
        ("settings", '{"A.B": 1}', "'A.B' is not the name of a setting"),
        ("settings", '{"CALLABLES": ["os.system"]}', "CALLABLES must be a table of names"),
        ("class_names", '["BG"]', "one name per class, with NUM_CLASSES=2. Received: 1"),
        ("class_names", '{"BG": 0}', "must be a list of printable names"),
        ("class_names", '["BG", "\\u001b[31m"]', "must be a list of printable names"),
        ("class_names", json.dumps(["BG", "x" * 1000]), "must be a list of printable names"),
        ("metrics", '{"loss": NaN}', "must be a table of finite numbers"),
        ("metrics", '{"loss": "low"}', "must be a table of finite numbers"),
        ("metrics", '{"loss": true}', "must be a table of finite numbers"),
        ("metrics", json.dumps({"loss": 10**400}), "must be a table of finite numbers"),
    ],
)
def test_attributes_that_cannot_be_used(tmp_path, name, text, message):
    path = written(tmp_path / "bad.h5", **{f"mrcnn_{name}": text})
    with pytest.raises(InvalidDataError) as error:
        model_info(path)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{path}: attribute mrcnn_{name}: ")
    assert error.value.field == f"mrcnn_{name}"


@pytest.mark.parametrize("value", [7, np.zeros(3), "text of any length", np.array([b"a", b"b"])])
def test_attributes_of_other_types(tmp_path, value):
    path = written(tmp_path / "bad.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["mrcnn_settings"] = value
    with pytest.raises(InvalidDataError, match="attribute mrcnn_settings: the text must be text of fixed"):
        model_info(path)


def test_settings_that_differ():
    model = {
        **SETTINGS,
        "MEAN_PIXEL": [97.0] * 3,
        "RPN_ANCHOR_SCALES": [8, 16, 32, 64, 128],
        "LEARNING_RATE": 1,
    }
    assert differing_settings(SETTINGS, model) == {
        "RPN_ANCHOR_SCALES": ([32, 64, 128, 256, 512], [8, 16, 32, 64, 128]),
        "MEAN_PIXEL": ([123.7, 116.8, 103.9], [97.0] * 3),
    }
    assert differing_settings({"MEAN_PIXEL": 97}, {"MEAN_PIXEL": [97.0] * 3}) == {}
    assert differing_settings({"CONTRAST_PERCENTILES": None}, {"CONTRAST_PERCENTILES": [1, 99]}) != {}
    assert "IMAGE_MIN_DIM: file 800, model 64" in describe_differences(
        SETTINGS, {**model, "IMAGE_MIN_DIM": 64}
    )
    assert describe_differences(SETTINGS, {**SETTINGS, "IMAGE_MIN_DIM": 64}) == ""


def test_names_that_a_file_can_hold():
    assert clean_names(["a\nb", 7, "x" * 300]) == ("a b", "7", "x" * 200)
    assert clean_names(None) is None


class TestWeightFiles:
    def model(self, info=INFO):
        model = tiny_network.randomize(tiny_network.build(classes=2, cls=weights.NamedWeightsModel), seed=1)
        model.describe = lambda: info
        return model

    def test_only_attributes_are_added(self, tmp_path):
        """Readers of weights see the same file."""
        model = self.model()
        weights.save_weights(
            model, tmp_path / "with.h5", metrics={"loss": np.float32(0.5), "bad": np.inf, "text": "x"}
        )
        model.describe = None
        weights.save_weights(model, tmp_path / "without.h5")
        with h5py.File(tmp_path / "with.h5") as one, h5py.File(tmp_path / "without.h5") as other:
            added = {
                f"mrcnn_{name}" for name in ("settings", "preprocessing", "class_names", "metrics", "version")
            }
            assert set(one.attrs) - set(other.attrs) == added
            found, expected = [], []
            one.visititems(lambda name, item: found.append((name, str(item), len(item.attrs))))
            other.visititems(lambda name, item: expected.append((name, str(item), len(item.attrs))))
            assert found == expected
        assert model_info(tmp_path / "with.h5").metrics == {"loss": 0.5}

    def test_the_report_has_what_the_file_says(self, tmp_path):
        model = self.model()
        model.save_weights(tmp_path / "a.h5")
        report = weights.load_weights(model, tmp_path / "a.h5")
        assert report.info == INFO and report.class_names == ("BG", "coin")
        report = weights.load_weights(model, tmp_path / "a.h5", exclude=weights.CLASS_LAYERS)
        assert report.class_names is None

    @pytest.mark.parametrize("classes, names", [(81, foreign.classes.COCO_CLASS_NAMES), (4, None)])
    def test_names_of_coco(self, tmp_path, classes, names):
        """The published weights of the Keras 2 library do not tell their names."""
        model = tiny_network.build(classes=classes)
        weights.save_weights(model, tmp_path / "a.h5")
        report = weights.load_weights(model, tmp_path / "a.h5")
        assert report.info is None and report.class_names == names


def test_settings_that_follow_from_shapes(tmp_path):
    weights.save_weights(tiny_network.build(classes=5), tmp_path / "a.h5")
    with weights.weight_files.open_weight_file(tmp_path / "a.h5") as layers:
        shapes = {layer: [array.shape for array in arrays] for layer, arrays in layers.items()}
    found = weight_report.settings_of(shapes)
    assert (found["BACKBONE"], found["NUM_CLASSES"], found["TOP_DOWN_PYRAMID_SIZE"]) == ("resnet50", 5, 6)


def test_the_least_size_of_a_network():
    """It is a lower bound for the real network, which the tests of `load` build."""
    small = {
        **SETTINGS,
        "POOL_SIZE": 1,
        "TOP_DOWN_PYRAMID_SIZE": 1,
        "RPN_CHANNELS": 1,
        "MASK_HEAD_CHANNELS": 1,
    }
    small |= {"FPN_CLASSIF_FC_LAYERS_SIZE": 1, "NUM_CLASSES": 1, "RPN_ANCHOR_RATIOS": [1]}
    assert weight_report.least_size(small) == 1 + 1 + 9 + 2 + 1 + 6
    assert weight_report.least_size({**small, "FPN_CLASSIF_FC_LAYERS_SIZE": 65_536}) > 2**32
    assert weight_report.size({"a": [(2, 3), (4,)], "b": [()]}) == 11
