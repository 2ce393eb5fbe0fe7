"""`mrcnn.load`: a whole model from one file, and what a user sees if that cannot work."""

import json
import warnings
from copy import deepcopy

import h5py
import keras
import numpy as np
import pytest
from tiny_model import TinyConfig
from toy_data import rectangles, toy_dataset

import mrcnn
from mrcnn import loading
from mrcnn.checkpoints import downloads, weights
from mrcnn.checkpoints.model_info import model_info
from mrcnn.errors import InvalidDataError, MissingFileError, UnreadableFileError

NAMES = ["BG", "one", "two"]


class SmallConfig(mrcnn.LightConfig):
    NAME = "small"
    NUM_CLASSES = 3
    IMAGE_MIN_DIM = IMAGE_MAX_DIM = 64
    TOP_DOWN_PYRAMID_SIZE = RPN_CHANNELS = MASK_HEAD_CHANNELS = 8
    FPN_CLASSIF_FC_LAYERS_SIZE = 16
    RPN_ANCHOR_SCALES = (8, 16, 32, 64, 128)
    MEAN_PIXEL = np.array([97.0, 98.0, 99.0])
    DETECTION_MIN_CONFIDENCE = 0
    DETECTION_MAX_INSTANCES = 10
    POST_NMS_ROIS_INFERENCE = 40
    GPU_COUNT = 1
    OWN_SETTING = (1, 2)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model and the file that it was saved to."""
    model = mrcnn.MaskRCNN("inference", SmallConfig(), tmp_path_factory.mktemp("logs"))
    model.class_names = list(NAMES)
    path = tmp_path_factory.mktemp("files") / "small.h5"
    model.save(path)
    return model, path


@pytest.fixture
def copy(small, tmp_path):
    """A copy of the file of `small` to damage."""
    path = tmp_path / "copy.h5"
    path.write_bytes(small[1].read_bytes())
    return path


def test_half_of_the_bytes_give_nearly_the_same_detections(small, tmp_path):
    model, path = small
    model.save(tmp_path / "half.h5", kernel_dtype="float16")
    assert (tmp_path / "half.h5").stat().st_size < 0.65 * path.stat().st_size
    loaded = mrcnn.load(tmp_path / "half.h5")
    for before, now in zip(model.keras_model.weights, loaded.keras_model.weights, strict=True):
        assert now.path == before.path
        before, now = (keras.ops.convert_to_numpy(weight) for weight in (before, now))
        assert now.dtype == np.float32
        if before.ndim < 2:
            np.testing.assert_array_equal(now, before)
        else:
            np.testing.assert_array_equal(now, before.astype(np.float16).astype(np.float32))
    image = rectangles(1)[0]
    ours, exact = loaded.detect([image])[0], model.detect([image])[0]
    assert len(ours["scores"]) == len(exact["scores"])
    np.testing.assert_allclose(ours["scores"], exact["scores"], atol=2e-3)


def test_kernels_that_float16_cannot_store_are_named(small, tmp_path):
    model = mrcnn.load(small[1])
    layer = model.keras_model.get_layer("mrcnn_mask")
    layer.set_weights([1e6 * np.sign(layer.get_weights()[0]), layer.get_weights()[1]])
    with pytest.raises(ValueError, match=r"mrcnn_mask/kernel:0 has values of up to 1e\+06.*float32"):
        model.save(tmp_path / "half.h5", kernel_dtype="float16")
    with pytest.raises(ValueError, match=r"`kernel_dtype` must be .* Received: kernel_dtype='int8'"):
        model.save(tmp_path / "half.h5", kernel_dtype="int8")
    assert not list(tmp_path.iterdir())


def set_attribute(path, name, value):
    with h5py.File(path, "r+") as file:
        file.attrs[f"mrcnn_{name}"] = np.bytes_(json.dumps(value).encode())


def set_setting(path, **settings):
    set_attribute(path, "settings", {**model_info(path).settings, **settings})


@pytest.mark.smoke
def test_a_file_is_a_whole_model(small):
    model, path = small
    loaded = mrcnn.load(path)
    assert loaded.mode == "inference" and loaded.class_names == NAMES
    assert loaded.config.to_dict() == {**model.config.to_dict(), "IMAGES_PER_GPU": 1}
    image = rectangles(1)[0]
    for found, expected in zip(
        loaded.detect([image])[0].values(), model.detect([image])[0].values(), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    assert model_info(path).version == mrcnn.__version__


def test_a_deep_copy_is_a_model_of_its_own(small):
    model, _ = small
    copied = deepcopy({"best": model, "again": model})
    assert copied["best"] is copied["again"] is not model
    copied = copied["best"]
    assert copied.class_names == NAMES and copied.class_names is not model.class_names
    assert copied.config.to_dict() == model.config.to_dict()
    image = rectangles(1)[0]
    before = model.detect([image])[0]
    for found, expected in zip(copied.detect([image])[0].values(), before.values(), strict=True):
        np.testing.assert_array_equal(found, expected)
    for variable in copied.keras_model.trainable_variables:
        variable.assign(variable * 0)
    copied.config.DETECTION_MIN_CONFIDENCE = 0.9
    np.testing.assert_array_equal(model.detect([image])[0]["scores"], before["scores"])


def test_overrides_win(small, tmp_path):
    model = mrcnn.load(small[1], DETECTION_MIN_CONFIDENCE=0.9, IMAGES_PER_GPU=4, model_dir=tmp_path)
    assert (model.config.DETECTION_MIN_CONFIDENCE, model.config.BATCH_SIZE, model.model_dir) == (
        0.9,
        4,
        tmp_path,
    )


def test_the_config_of_a_program_wins(small):
    config = SmallConfig()
    config.DETECTION_MIN_CONFIDENCE = 0.3
    model = mrcnn.load(small[1], config=config, NAME="other")
    assert (model.config.DETECTION_MIN_CONFIDENCE, model.config.NAME, config.NAME) == (0.3, "other", "small")
    assert model.config.IMAGES_PER_GPU == 2


def test_settings_of_a_training_become_those_of_a_detector(copy):
    set_setting(copy, IMAGE_RESIZE_MODE="crop", IMAGES_PER_GPU=8, GPU_COUNT=4)
    config = mrcnn.load(copy).config
    assert (config.IMAGE_RESIZE_MODE, config.IMAGES_PER_GPU, config.GPU_COUNT) == ("pad64", 1, 1)
    config = loading._config_of_file(copy, {})
    assert (config.IMAGE_RESIZE_MODE, config.IMAGES_PER_GPU, config.GPU_COUNT) == ("crop", 8, 4)


def test_other_classes_with_exclude(small):
    model = mrcnn.load(small[1], mode="training", NUM_CLASSES=2, exclude=weights.CLASS_LAYERS)
    assert model.config.NUM_CLASSES == 2 and model.class_names is None and model.epoch == 0
    with pytest.raises(InvalidDataError, match="the file has 3 classes, but the model has NUM_CLASSES=2"):
        model.load_weights(small[1])


def test_weights_with_other_settings(small):
    """They would load without a word and find nothing."""

    class PlainConfig(SmallConfig):
        RPN_ANCHOR_SCALES = mrcnn.LightConfig.RPN_ANCHOR_SCALES
        MEAN_PIXEL = mrcnn.LightConfig.MEAN_PIXEL
        IMAGE_MIN_DIM = IMAGE_MAX_DIM = 128
        DETECTION_MIN_CONFIDENCE = 0.5

    with pytest.warns(UserWarning, match="different settings") as caught:
        mrcnn.MaskRCNN("inference", PlainConfig(), "logs").load_weights(small[1])
    (text,) = [str(warning.message) for warning in caught if "different settings" in str(warning.message)]
    assert "RPN_ANCHOR_SCALES: file [8, 16, 32, 64, 128], model [32, 64, 128, 256, 512]" in text
    assert "MEAN_PIXEL: file [97.0, 98.0, 99.0]" in text and "IMAGE_MIN_DIM: file 64, model 128" in text
    assert "DETECTION_MIN_CONFIDENCE" not in text and f"mrcnn.load({str(small[1])!r})" in text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small[0].load_weights(small[1])
        mrcnn.MaskRCNN("training", PlainConfig(), "logs").load_weights(small[1])  # training adapts them


@pytest.mark.usefixtures("eager_tensorflow")
class TestTraining:
    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls, tmp_path_factory, eager_tensorflow):
        model = mrcnn.MaskRCNN("training", TinyConfig(), tmp_path_factory.mktemp("logs"))
        train = toy_dataset(4)
        train.class_info[3]["name"] = "class 3, rare"  # `class_names` of the dataset is cut at the comma
        train.prepare()
        model.train(train, toy_dataset(2), 1e-3, epochs=1, layers="heads")
        return model

    def test_names_of_the_dataset_and_measures_of_the_epoch(self, trained, tmp_path):
        info = model_info(trained.find_last())
        assert info.class_names == ("BG", "class 1", "class 2", "class 3, rare")
        assert info.metrics["epoch"] == 1 and {"loss", "val_loss", "mrcnn_mask_loss"} < info.metrics.keys()
        assert trained.inference_model().class_names == list(info.class_names)
        trained.save(tmp_path / "again.h5")
        assert model_info(tmp_path / "again.h5") == info
        trained.keras_model.save_weights(tmp_path / "weights.h5")  # as the notebooks do
        assert model_info(tmp_path / "weights.h5") == info

    def test_functions_are_named_and_passed(self, trained):
        path = trained.find_last()
        with pytest.raises(
            InvalidDataError, match="BACKBONE=tiny_backbone, COMPUTE_BACKBONE_SHAPE="
        ) as error:
            mrcnn.load(path)
        assert "a file does not store" in str(error.value) and str(path) in str(error.value)
        functions = {name: getattr(TinyConfig, name) for name in ("BACKBONE", "COMPUTE_BACKBONE_SHAPE")}
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            model = mrcnn.load(path, **functions)
        assert model.class_names[1] == "class 1" and model.metrics["epoch"] == 1
        assert mrcnn.load(path, config=TinyConfig()).class_names == model.class_names
        assert len(model.detect([rectangles(0)[0]])) == 1


class TestErrors:
    def test_no_such_file_or_name(self):
        with pytest.raises(MissingFileError, match="Did you mean 'nucleus-light'"):
            mrcnn.load("nucleus_light")
        with pytest.raises(MissingFileError, match=r"no-such\.h5: there is no such file.*'torchvision-v2'"):
            mrcnn.load("no-such.h5")

    def test_a_folder(self, tmp_path):
        with pytest.raises(UnreadableFileError, match="it is a folder"):
            mrcnn.load(tmp_path)
        for name in ("a20260101T0000/mask_rcnn_a_0002.h5", "a20260102T0000/mask_rcnn_a_0001.h5"):
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).touch()
        for folder in (tmp_path, tmp_path / "a20260102T0000"):
            with pytest.raises(UnreadableFileError, match=r"newest weight file is .*/mask_rcnn_a_0001\.h5"):
                mrcnn.load(folder)

    def test_a_file_of_something_else(self, tmp_path):
        (tmp_path / "notes.h5").write_text("no weights")
        with pytest.raises(InvalidDataError, match=r"notes\.h5"):
            mrcnn.load(tmp_path / "notes.h5")

    def test_arguments(self, small):
        with pytest.raises(ValueError, match="`mode` must be one of"):
            mrcnn.load(small[1], mode="train")
        with pytest.raises(TypeError, match=r"such as MyConfig\(\)"):
            mrcnn.load(small[1], config=SmallConfig)
        with pytest.raises(
            ValueError, match=r"uppercase\. Received: detection_min_confidence\. Did you mean DET"
        ):
            mrcnn.load(small[1], detection_min_confidence=0.5)
        with pytest.raises(ValueError, match="DETECTION_MIN_CONFIDENCE must be a number from 0 to 1"):
            mrcnn.load(small[1], DETECTION_MIN_CONFIDENCE=2)

    def test_weights_without_settings(self, copy):
        with h5py.File(copy, "r+") as file:
            for name in [name for name in file.attrs if name.startswith("mrcnn_")]:
                del file.attrs[name]
        with pytest.raises(InvalidDataError, match=r"config=MyConfig\(\)") as error:
            mrcnn.load(copy)
        assert "NUM_CLASSES = 3." in str(error.value) and "TOP_DOWN_PYRAMID_SIZE = 8." in str(error.value)
        assert mrcnn.load(copy, config=SmallConfig()).class_names is None

    def test_a_keras_file(self, small, tmp_path):
        small[0].keras_model.save(tmp_path / "model.keras")
        with pytest.raises(InvalidDataError, match=r"keras\.models\.load_model.*MaskRCNN\.save"):
            mrcnn.load(tmp_path / "model.keras")
        for name in ("model.keras", "model.weights.h5", "model"):
            with pytest.raises(ValueError, match=r"must be the name of an \.h5 file"):
                small[0].save(tmp_path / name)

    @pytest.mark.parametrize(
        "settings, message",
        [
            ({"NUM_CLASSES": "many"}, "NUM_CLASSES must be an integer"),
            ({"BACKBONE": "vgg16"}, "BACKBONE must be one of"),
            ({"BACKBONE": ["resnet50"]}, "BACKBONE must be"),
            ({"RPN_ANCHOR_SCALES": [1e999] * 5}, "RPN_ANCHOR_SCALES must be"),
            ({"MEAN_PIXEL": None}, "MEAN_PIXEL must be"),
            ({"LOSS_WEIGHTS": 3}, "LOSS_WEIGHTS must be"),
            ({"IMAGE_MAX_DIM": 10**400}, "IMAGE_MAX_DIM must be"),
            ({"NAME": "../../etc"}, "NAME must be a short text"),
            ({"COMPUTE_BACKBONE_SHAPE": "os.system"}, "COMPUTE_BACKBONE_SHAPE must be"),
            ({"FPN_CLASSIF_FC_LAYERS_SIZE": 65_536}, "the settings describe a network of at least"),
            ({"POOL_SIZE": 1024}, "the settings describe a network of at least"),
        ],
    )
    def test_settings_that_cannot_be(self, copy, settings, message):
        set_setting(copy, **settings)
        if "NUM_CLASSES" in settings:
            set_attribute(copy, "class_names", None)
        with pytest.raises(InvalidDataError, match=message) as error:
            mrcnn.load(copy)
        assert str(copy) in str(error.value)

    def test_every_setting_with_values_of_every_type(self, copy):
        """A stranger's file gives a model or an InvalidDataError, and nothing else."""
        values = (None, True, -1, 0.5, 10**30, "x", [], [1, "x"], [[1]], {}, {"a": 1}, "\udcff")
        settings = model_info(copy).settings
        rng = np.random.default_rng(0)
        counts = {True: 0, False: 0}
        for name in settings:
            for value in values if name != "OWN_SETTING" else values[:1]:
                if rng.random() < 0.5:
                    continue
                info = weights.ModelInfo({**settings, name: json.loads(json.dumps(value))}, None)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    try:
                        loading._config_of_info(copy, info, {})
                        counts[True] += 1
                    except InvalidDataError:
                        counts[False] += 1
        assert counts[False] > 100


def test_shipped_weights(monkeypatch, tmp_path):
    model = mrcnn.load("nucleus-light")
    assert model.class_names == ["BG", "nucleus"] and model.config.IMAGE_RESIZE_MODE == "pad64"
    assert model.metrics["val_mask_AP"] > 0.5
    monkeypatch.setitem(downloads.SHIPPED, "nucleus-light", "samples/nowhere.h5")
    with pytest.raises(MissingFileError, match="this installation lacks the weights"):
        mrcnn.load("nucleus-light")


def test_published_names_are_downloaded(monkeypatch, small):
    """The file of a name, with the settings that it cannot tell."""
    asked = []

    def download(name):
        asked.append(str(name))
        return str(small[1])

    monkeypatch.setattr(downloads, "download_trained_weights", download)
    path, config = loading._find("torchvision-v2")
    assert (path, config) == (small[1], None)
    path, config = loading._find("coco")
    assert path == small[1] and config().NUM_CLASSES == 81
    assert asked[0] == "torchvision-v2" and asked[1].endswith("mask_rcnn_coco.h5")
