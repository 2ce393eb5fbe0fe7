"""Settings: defaults, derived values, copies, warnings of misspelled names, rules, records."""

import inspect
import json
import re
import warnings

import numpy as np
import pytest
from golden_files import golden_params, load, text

from mrcnn.config import KNOWN_BACKBONES, Config, LightConfig


class ToyConfig(Config):
    NAME = "toy"
    NUM_CLASSES = 4
    IMAGE_MIN_DIM = 128
    IMAGE_MAX_DIM = 128


def changed(**values):
    config = ToyConfig()
    for name, value in values.items():
        setattr(config, name, value)
    return config


def test_documented_defaults():
    config = Config()
    assert config.NAME is None
    assert (config.GPU_COUNT, config.IMAGES_PER_GPU, config.BATCH_SIZE) == (1, 2, 2)
    assert config.IMAGE_SHAPE.tolist() == [1024, 1024, 3]
    assert config.IMAGE_SHAPE.dtype.kind == "i"
    assert config.IMAGE_META_SIZE == 13
    assert config.BACKBONE == "resnet101"
    assert config.MINI_MASK_SHAPE == (56, 56)
    assert config.MEAN_PIXEL.tolist() == [123.7, 116.8, 103.9]
    assert config.DETECTION_MIN_CONFIDENCE == 0.7
    assert config.TRAIN_BN is False
    assert set(config.LOSS_WEIGHTS.values()) == {1.0}


def test_derived_values_follow_later_edits():
    config = ToyConfig()
    config.IMAGES_PER_GPU = 3
    config.GPU_COUNT = 2
    config.NUM_CLASSES = 10
    config.IMAGE_MAX_DIM = 256
    config.IMAGE_CHANNEL_COUNT = 4
    assert config.BATCH_SIZE == 6
    assert config.IMAGE_META_SIZE == 22
    assert config.IMAGE_SHAPE.tolist() == [256, 256, 4]
    config.IMAGE_RESIZE_MODE = "crop"
    assert config.IMAGE_SHAPE.tolist() == [128, 128, 4]


def test_setting_the_batch_size_sets_images_per_device():
    config = changed(GPU_COUNT=2)
    config.BATCH_SIZE = 8
    assert config.IMAGES_PER_GPU == 4
    with pytest.raises(ValueError, match=r"multiple of GPU_COUNT=2.*BATCH_SIZE=7"):
        config.BATCH_SIZE = 7
    with pytest.raises(ValueError, match="BATCH_SIZE=0"):
        config.BATCH_SIZE = 0


@pytest.mark.parametrize("mode", ["square", "crop"])
def test_setting_the_image_shape_sets_what_defines_it(mode):
    config = changed(IMAGE_RESIZE_MODE=mode, IMAGE_MIN_DIM=800, IMAGE_MAX_DIM=1024)
    config.IMAGE_SHAPE = np.array([512, 512, 1])
    assert config.IMAGE_SHAPE.tolist() == [512, 512, 1]
    assert config.IMAGE_MIN_DIM == 512
    with pytest.raises(ValueError, match="square"):
        config.IMAGE_SHAPE = (512, 640, 3)
    for value in (None, 512, (512, 512), ("a", 1, 2), (float("nan"), 1, 1)):
        with pytest.raises(ValueError, match=r"IMAGE_SHAPE must be \(height, width, channels\)"):
            config.IMAGE_SHAPE = value
    for value in (None, "2", 2.0, 0, [2]):
        with pytest.raises(ValueError, match="BATCH_SIZE must be a positive multiple"):
            config.BATCH_SIZE = value


@pytest.mark.parametrize("mode", ["none", "pad64", "shortest"])
def test_the_nominal_image_shape_need_not_be_square(mode):
    config = changed(IMAGE_RESIZE_MODE=mode, IMAGE_MAX_DIM=512)
    config.IMAGE_SHAPE = np.array([128, 192, 1])
    assert config.IMAGE_SHAPE.tolist() == [128, 192, 1]
    assert config.IMAGE_CHANNEL_COUNT == 1 and config.IMAGE_MAX_DIM == 512
    config.IMAGE_SHAPE = (256, 256, 3)
    assert config.IMAGE_SHAPE.tolist() == [256, 256, 3]
    with pytest.raises(ValueError, match="square"):
        config.IMAGE_SHAPE = (0, 64, 3)


def test_setting_the_image_shape_to_itself_changes_nothing():
    config = Config()
    config.IMAGE_SHAPE = config.IMAGE_SHAPE
    assert (config.IMAGE_MIN_DIM, config.IMAGE_MAX_DIM) == (800, 1024)


def test_the_meta_size_cannot_be_set_to_something_else():
    config = ToyConfig()
    config.IMAGE_META_SIZE = 12 + 4
    with pytest.raises(AttributeError, match="Set NUM_CLASSES"):
        config.IMAGE_META_SIZE = 17


def test_class_values_of_derived_settings_are_ignored_with_a_warning():
    with pytest.warns(UserWarning, match=r"Old\.BATCH_SIZE is ignored.*Set IMAGES_PER_GPU and GPU_COUNT"):

        class Old(ToyConfig):
            BATCH_SIZE = 16

    assert Old().BATCH_SIZE == 2
    Old.IMAGE_SHAPE = (1, 2, 3)
    with pytest.warns(UserWarning, match=r"Old\.IMAGE_SHAPE is ignored"):
        config = Old()
    assert config.IMAGE_SHAPE.tolist() == [128, 128, 3]


def test_a_property_of_a_subclass_may_replace_a_derived_one():
    class Wide(ToyConfig):
        @property
        def IMAGE_SHAPE(self):  # noqa: N802
            return np.array([128, 256, 3])

    assert Wide().IMAGE_SHAPE.tolist() == [128, 256, 3]


def test_lists_dicts_and_arrays_belong_to_one_instance():
    class Own(ToyConfig):
        MY_LIST = [[1], [2]]  # noqa: RUF012

    first, second = Own(), Own()
    first.MY_LIST[0].append(5)
    first.LOSS_WEIGHTS["rpn_class_loss"] = 9.0
    first.MEAN_PIXEL[0] = 0
    first.BACKBONE_STRIDES[0] = 99
    for other in (second, Own(), Own):
        assert other.MY_LIST == [[1], [2]]
        assert other.LOSS_WEIGHTS["rpn_class_loss"] == 1.0
        assert other.MEAN_PIXEL[0] == 123.7
        assert other.BACKBONE_STRIDES[0] == 4


def test_values_set_before_the_constructor_are_kept():
    class Late(ToyConfig):
        def __init__(self, classes):
            self.NUM_CLASSES = classes
            self.MEAN_PIXEL = mean
            super().__init__()

    mean = np.zeros(3)
    config = Late(7)
    assert config.IMAGE_META_SIZE == 19
    assert config.MEAN_PIXEL is mean


def test_a_misspelled_class_attribute_is_named():
    class Misspelled(ToyConfig):
        DETECTION_MIN_CONFIDANCE = 0.9

    with pytest.warns(
        UserWarning, match=r"Misspelled\.DETECTION_MIN_CONFIDANCE .* Did you mean DETECTION_MIN_CONFIDENCE"
    ):
        Misspelled()


def test_a_misspelled_instance_attribute_is_named_on_validation():
    config = changed(IMAGES_PRE_GPU=1)
    with pytest.warns(UserWarning, match="Did you mean IMAGES_PER_GPU"):
        config.validate()


def test_own_names_are_silent():
    class Own(ToyConfig):
        LEARNING_RATE_DECAY = 0.1
        DATASET_FOLDER = "here"
        LR = 1

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = Own()
        config.EXTRA = 1
        config.validate()


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"IMAGE_RESIZE_MODE": "pad64", "IMAGE_MIN_DIM": None, "IMAGE_MAX_DIM": 100},
        {"IMAGE_RESIZE_MODE": "pad64", "IMAGE_MIN_DIM": 192},
        {"IMAGE_RESIZE_MODE": "none", "IMAGE_MIN_DIM": 100, "IMAGE_MAX_DIM": 100},
        {"IMAGE_RESIZE_MODE": "crop", "IMAGE_MAX_DIM": None},
        {"IMAGE_MIN_DIM": None},
        {"IMAGE_MIN_DIM": 800},
        {"IMAGE_CHANNEL_COUNT": 1, "MEAN_PIXEL": 115.0},
        {"IMAGE_CHANNEL_COUNT": 4, "MEAN_PIXEL": [1, 2, 3, 4]},
        {"BACKBONE": lambda image, **kw: image, "COMPUTE_BACKBONE_SHAPE": lambda shape: []},
        {"MASK_POOL_SIZE": 7, "MASK_SHAPE": (14, 14)},
        {"NUM_CLASSES": np.int64(3), "MINI_MASK_SHAPE": [28, 56]},
        {"STEPS_PER_EPOCH": None, "VALIDATION_STEPS": None, "SEED": 0},
        {"TRAIN_BN": None, "GRADIENT_CLIP_NORM": None, "DETECTION_MIN_CONFIDENCE": 0},
        {"TRAIN_BN": "heads"},
        {"TRAIN_ROIS_PER_IMAGE": 4, "RPN_TRAIN_ANCHORS_PER_IMAGE": 2, "CROWD_IOU": 1e-6},
        {"TRAIN_ROIS_PER_IMAGE": 1, "ROI_POSITIVE_RATIO": 1},
        {"SOFT_NMS_SIGMA": 1},
        {"RPN_ANCHOR_SCALES": np.array([8, 16, 32, 64, 128])},
        {"IMAGE_CHANNEL_COUNT": 1, "MEAN_PIXEL": np.array(115.0)},
        {"MEAN_PIXEL": np.zeros((1, 1, 3), np.float32)},
        {"USE_MINI_MASK": np.False_, "MASK_POSITIVES_ONLY": True, "TRAIN_ON_EMPTY_IMAGES": False},
        *({"NAME": name} for name in ("my run", "a.b", "{b}", "..", "über")),
        *({"BACKBONE": name} for name in KNOWN_BACKBONES),
    ],
)
def test_valid_settings_pass(values):
    changed(**values).validate()


@pytest.mark.parametrize(
    ("name", "value", "cure"),
    [
        ("NAME", None, "short text"),
        ("NAME", "", "short text"),
        ("NAME", "a/b", "short text .* without"),
        ("NAME", "..\\up", "short text .* without"),
        ("NAME", "a\0", "short text .* without"),
        ("NAME", "ü" * 101, "at most 200 bytes"),
        ("NUM_CLASSES", 0, "from 1 to"),
        ("NUM_CLASSES", 2.0, "from 1 to"),
        ("NUM_CLASSES", True, "from 1 to"),
        ("NUM_CLASSES", 10**30, "from 1 to 65536"),
        ("IMAGE_MAX_DIM", 64 * 10**9, "up to 65536"),
        ("IMAGES_PER_GPU", 0, "from 1 to"),
        ("BACKBONE", "resnet18", "mobilenetv2"),
        ("OPTIMIZER", "adagrad", "'adam'"),
        ("NORM", "layer", "'group'"),
        ("MASK_NMS_THRESHOLD", 2, "0 to 1"),
        ("SOFT_NMS_SIGMA", 0, "positive finite number, such as 0.5, or None"),
        ("SOFT_NMS_SIGMA", -0.5, "positive finite"),
        ("SOFT_NMS_SIGMA", float("inf"), "positive finite"),
        ("SOFT_NMS_SIGMA", True, "positive finite"),
        ("SOFT_NMS_SIGMA", "0.5", "positive finite"),
        ("TEST_TIME_FLIPS", True, "'horizontal'"),
        ("CONTRAST_PERCENTILES", (99, 1), "rising percentiles"),
        ("CONTRAST_PERCENTILES", (1, 999), "rising percentiles"),
        ("CONTRAST_PERCENTILES", 1, "rising percentiles"),
        ("LEARNING_MOMENTUM", 1.0, "from 0 to below 1"),
        ("LEARNING_MOMENTUM", "0.9", "from 0 to below 1"),
        ("IMAGE_VALUE_RANGE", (1, 0), "rising numbers, black and white"),
        ("IMAGE_VALUE_RANGE", (0, float("nan")), "rising numbers"),
        ("IMAGE_VALUE_RANGE", 255, "rising numbers"),
        ("IMAGE_MAX_DIM", 400, "256, 320, 384, 448, 512"),
        ("IMAGE_MAX_DIM", 30, "64, 128, 192, 256, 320"),
        ("IMAGE_MAX_DIM", None, "positive integer"),
        ("IMAGE_RESIZE_MODE", "pad32", "pad64"),
        ("MEAN_PIXEL", [1.0], "IMAGE_CHANNEL_COUNT=3"),
        ("MASK_SHAPE", [56, 56], r"\(28, 28\)"),
        ("RPN_ANCHOR_SCALES", (8, 16), "5 positive numbers"),
        ("RPN_ANCHOR_SCALES", (8, 16, 32, 64, 0), "5 positive numbers"),
        ("BACKBONE_STRIDES", [4, 8], "5 positive numbers"),
        ("BACKBONE_STRIDES", [8, 16, 32, 64, 128], "unless BACKBONE is a callable"),
        ("RPN_ANCHOR_RATIOS", [], "positive numbers"),
        ("RPN_NEGATIVE_IOU", 0.8, "RPN_POSITIVE_IOU=0.7"),
        ("MINI_MASK_SHAPE", 56, "two positive integers"),
        ("MINI_MASK_SHAPE", (56, 0), "two positive integers"),
        ("BBOX_STD_DEV", [0.1, 0.1], "four positive"),
        ("TRAIN_BN", "no", "False"),
        ("TRAIN_BN", 0, "False"),
        ("TRAIN_BN", "backbone", '"heads"'),
        ("DETECTION_NMS_THRESHOLD", 30, "from 0 to 1"),
        ("LEARNING_RATE", float("nan"), "at least 0"),
        ("STEPS_PER_EPOCH", 0, "None for one pass"),
        ("GRADIENT_CLIP_NORM", 0, "None"),
        ("USE_MINI_MASK", "yes", "True or False"),
        ("SEED", -1, "None"),
        ("SEED", 2**32, "from 0 to 4294967295"),
        ("MAX_IMAGE_ERRORS", -1, "from 0 to"),
        ("LEARNING_RATE", float("inf"), "finite"),
        ("GRADIENT_CLIP_NORM", float("inf"), "finite"),
        ("MASK_SHAPE", float("nan"), r"\(28, 28\)"),
        ("MASK_SHAPE", 28, r"\(28, 28\)"),
        ("MEAN_PIXEL", [1.0, "x", 2.0], "finite number per channel"),
        ("MEAN_PIXEL", [1.0, float("nan"), 2.0], "finite number per channel"),
        ("MASK_POSITIVES_ONLY", "False", "True, False or None"),
        ("ROI_INCLUDE_GT", "False", "True or False"),
        ("CROWD_IOU", 0, "above 0, so that anchors and RoIs without a crowd can be negative"),
        ("RPN_NEGATIVE_IOU", 0.0, "above 0"),
        ("RPN_TRAIN_ANCHORS_PER_IMAGE", 1, "at least 2"),
        ("ROI_POSITIVE_IOU", 0, "above 0"),
        ("ROI_POSITIVE_RATIO", 0, "above 0"),
        ("TRAIN_ROIS_PER_IMAGE", 3, r"at least 1 / ROI_POSITIVE_RATIO, .*\(it is 0.33\)"),
        ("FAST_PATHS", None, "True or False"),
        ("TRAIN_ON_EMPTY_IMAGES", "no", "True, False or None"),
        ("COMPUTE_BACKBONE_SHAPE", "x", "callable"),
        ("BACKBONE_STRIDES", [[4], [8, 16]], "5 positive numbers"),
        ("LOSS_WEIGHTS", {3: 1.0}, "for each loss name"),
        ("LOSS_WEIGHTS", {"rpn_class_loss": -1}, "at least 0"),
    ],
)
def test_broken_settings_are_named_with_value_and_cure(name, value, cure):
    config = changed(**{name: value})
    with pytest.raises(ValueError, match=rf"^{name} must be .*{cure}.*Received: {name}="):
        config.validate()


def settings():
    """The names of all settings that can be set."""
    derived = ("BATCH_SIZE", "IMAGE_SHAPE", "IMAGE_META_SIZE")
    return [name for name in vars(Config) if name.isupper() and name not in derived]


NONSENSE = {
    "text": "nonsense/",
    "NaN": float("nan"),
    "array": np.zeros((2, 2)),
    "vector": np.full(5, np.nan),
    "ragged list": [1, [2, 3]],
    "dict": {"a": "b"},
    "object": object(),
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_every_setting_has_a_rule_that_names_it(kind):
    names = settings()
    assert len(names) > 60
    for name in names:
        with pytest.raises(ValueError, match=f"^{name} must be .*Received: {name}="):
            changed(**{name: NONSENSE[kind]}).validate()


def test_every_setting_is_documented():
    source = inspect.getsource(Config)
    undocumented = [
        name for name in settings() if not re.search(rf'\n    {name}(: [^\n]*)? = [^\n]*\n    """\w', source)
    ]
    assert undocumented == []


@pytest.mark.parametrize("mode", ["crop", "pad64"])
def test_short_side_must_divide_where_it_is_the_size(mode):
    config = changed(IMAGE_RESIZE_MODE=mode, IMAGE_MIN_DIM=200)
    with pytest.raises(ValueError, match=r"IMAGE_MIN_DIM must be a multiple of 64.*192"):
        config.validate()


def test_a_callable_backbone_needs_its_shapes():
    config = changed(BACKBONE=lambda image, **kw: image)
    with pytest.raises(ValueError, match="COMPUTE_BACKBONE_SHAPE must be a function"):
        config.validate()


def test_a_factor_of_no_loss_is_warned_of():
    config = changed(LOSS_WEIGHTS={"mrcnn_box_loss": 2.0})
    with pytest.warns(UserWarning, match="mrcnn_box_loss"):
        config.validate()


@pytest.mark.parametrize("path", golden_params("net_*.npz"))
def test_settings_of_the_recordings_are_valid(path):
    values = text(load(path)["config"])
    config = Config.from_dict(values)
    config.validate()
    assert {name: config.to_dict()[name] for name in values} == values


def test_display_lists_all_but_callables(capsys):
    config = changed(BACKBONE=lambda image, **kw: image, OWN_FIELD=[1, 2], _own=3)
    assert config.display() is None
    lines = capsys.readouterr().out.split("\n")
    assert lines[:2] == ["", "Configurations:"]
    assert lines[-3:] == ["", "", ""]
    names = [line.split()[0] for line in lines[2:-3]]
    assert names == sorted(names)
    assert {"BATCH_SIZE", "IMAGE_SHAPE", "IMAGE_META_SIZE", "OWN_FIELD", "_own"} <= set(names)
    assert [name for name in names if name.startswith("_")] == ["_own"]  # no state of the library
    assert not {"BACKBONE", "display", "validate"} & set(names)
    assert "OWN_FIELD".ljust(30) + " [1, 2]" in lines
    assert "IMAGE_SHAPE".ljust(30) + " [128 128   3]" in lines


def test_record_and_return():
    config = changed(MEAN_PIXEL=np.array([1.5, 2.5, 3.5]), NUM_CLASSES=np.int64(5), OWN_FIELD="mine")
    config.SECRET = object()
    record = json.loads(json.dumps(config.to_dict()))
    assert not {"BATCH_SIZE", "IMAGE_SHAPE", "IMAGE_META_SIZE", "SECRET"} & set(record)
    back = Config.from_dict(record)
    assert back.to_dict() == config.to_dict()
    assert isinstance(back.MEAN_PIXEL, np.ndarray)
    assert isinstance(back.MINI_MASK_SHAPE, tuple)
    assert back.OWN_FIELD == "mine"
    assert back.IMAGE_META_SIZE == 17


def test_callables_are_recorded_by_name_only():
    config = changed(BACKBONE=ToyConfig.display)
    record = config.to_dict()
    assert "BACKBONE" not in record
    assert record["CALLABLES"] == {"BACKBONE": "Config.display"}
    with pytest.warns(UserWarning, match=r"callables.*BACKBONE.*Set them yourself"):
        Config.from_dict(record)


def test_what_json_cannot_hold_is_left_out():
    nested = []
    for _ in range(10_000):
        nested = [nested]
    config = changed(WIDE=np.longdouble([1, 2]), NESTED=nested, CALLABLES="mine", OWN=1)
    record = config.to_dict()
    assert record["OWN"] == 1 and not {"WIDE", "NESTED", "CALLABLES"} & set(record)
    assert list(record) == sorted(record)


def test_rules_of_training_leave_detection_alone():
    config = changed(TRAIN_ROIS_PER_IMAGE=2, CROWD_IOU=0)
    config.validate("inference")
    with pytest.raises(ValueError, match="CROWD_IOU must be above 0"):
        config.validate()


def test_light_preset_is_valid_and_narrow():
    config = LightConfig()
    config.NAME = "light"
    config.validate()
    assert config.BACKBONE == "mobilenetv2"
    assert config.TRAIN_BN is None
    assert config.TOP_DOWN_PYRAMID_SIZE < Config.TOP_DOWN_PYRAMID_SIZE
