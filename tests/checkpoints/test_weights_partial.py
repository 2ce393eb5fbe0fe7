import logging
import pickle
import warnings

import h5py
import keras
import numpy as np
import pytest
import tiny_network
from keras import layers

from mrcnn.checkpoints import weight_report, weights


@pytest.fixture
def model():
    return tiny_network.target()


def test_excluded_layers_keep_their_weights(tmp_path):
    other = tiny_network.saved(tmp_path / "w.h5", classes=81)
    model = tiny_network.randomize(tiny_network.build(classes=2), seed=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = weights.load_weights(model, tmp_path / "w.h5", exclude=weights.CLASS_LAYERS)
    assert report.excluded == tuple(weights.CLASS_LAYERS)
    assert set(weights.CLASS_LAYERS).isdisjoint(report.loaded)
    tiny_network.assert_equal(model, other, but=weights.CLASS_LAYERS)
    untouched = tiny_network.values_of(tiny_network.randomize(tiny_network.build(classes=2), seed=2))
    for name, value in tiny_network.values_of(model).items():
        if name.split("/")[0] in weights.CLASS_LAYERS:
            np.testing.assert_array_equal(value, untouched[name])


def test_one_name_may_be_given_alone(tmp_path):
    other = tiny_network.saved(tmp_path / "w.h5", channels=1)
    model = tiny_network.build(channels=3)
    report = weights.load_weights(model, tmp_path / "w.h5", exclude="conv1")
    assert report.excluded == ("conv1",)
    tiny_network.assert_equal(model, other, but={"conv1"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"classes": 81},
            ["the file has 81 classes, but the model has NUM_CLASSES=4", *weights.CLASS_LAYERS],
        ),
        (
            {"channels": 1},
            ["the file has 1 image channels, but the model has IMAGE_CHANNEL_COUNT=3", "(3,3,1,4)"],
        ),
        ({"pyramid": 9}, ["the model has TOP_DOWN_PYRAMID_SIZE=6", "fpn_p5", "mrcnn_mask_conv1"]),
        ({"ratios": 5}, ["file has 5 anchor ratios", "exclude=['rpn_model']"]),
        (
            {"blocks": "abcdefg"},
            ["the file has resnet101, but the model has resnet50", "res4g_branch2a", "bn4c_branch2b"],
        ),
        ({"blocks": "a"}, ["In the model but not in the file", "res4b_branch2a", "strict=False"]),
    ],
)
def test_a_model_that_does_not_fit_stays_as_it_was(model, tmp_path, options, words):
    tiny_network.saved(tmp_path / "other.h5", **options)
    before = tiny_network.values_of(model)
    with pytest.raises(ValueError, match=r"other\.h5: the weights do not fit") as caught:
        weights.load_weights(model, tmp_path / "other.h5")
    for word in words:
        assert word in str(caught.value)
    for name, value in tiny_network.values_of(model).items():
        np.testing.assert_array_equal(value, before[name])


def test_shapes_must_agree_even_if_not_strict(model, tmp_path):
    tiny_network.saved(tmp_path / "w.h5", classes=81, blocks="abc")
    with pytest.raises(ValueError, match="81 classes") as caught:
        weights.load_weights(model, tmp_path / "w.h5", strict=False)
    for name in ("mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_mask", "res4c_branch2a"):
        assert name in str(caught.value)


def test_not_strict_warns_of_both_sides(model, tmp_path):
    other = tiny_network.saved(tmp_path / "w.h5", blocks="abc")
    tiny_network.remove(tmp_path / "w.h5", "fpn_p5")
    with pytest.warns(UserWarning, match="Only some weights of .* fit the model") as caught:
        report = weights.load_weights(model, tmp_path / "w.h5", strict=False)
    assert caught[0].filename == __file__
    assert "fpn_p5" in str(caught[0].message)
    assert "res4c_branch2a" in str(caught[0].message)
    assert report.missing_in_file == ("fpn_p5",)
    assert "bn4c_branch2c" in report.unused_in_file
    tiny_network.assert_equal(model, other, but={"fpn_p5"})


def test_excluding_the_layers_of_one_side_is_enough(model, tmp_path):
    tiny_network.saved(tmp_path / "w.h5")
    tiny_network.remove(tmp_path / "w.h5", "fpn_p5")
    with pytest.raises(ValueError, match="fpn_p5"):
        weights.load_weights(model, tmp_path / "w.h5")
    report = weights.load_weights(model, tmp_path / "w.h5", exclude=["fpn_p5"])
    assert report.missing_in_file == ()


def imagenet_file(path, blocks):
    """A file of the backbone alone, with the names that Keras 1 gave to weights."""
    image = keras.Input((8, 8, 3))
    model = tiny_network.randomize(keras.Model(image, tiny_network.backbone(image, blocks)), seed=3)
    with h5py.File(path, "w") as file:
        named = weights.model_weights(model)
        file.attrs["layer_names"] = [layer.encode() for layer in ["activation_1", *named]]
        file.create_group("activation_1").attrs["weight_names"] = np.zeros((0,))
        for layer, variables in named.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}_{i}:0".encode() for i in range(len(variables))]
            for i, variable in enumerate(variables.values()):
                group[f"{layer}_{i}:0"] = keras.ops.convert_to_numpy(variable)
    return model


def test_imagenet_file_fills_the_backbone(model, tmp_path, caplog):
    source = imagenet_file(tmp_path / "w.h5", tiny_network.BLOCKS)
    with warnings.catch_warnings(), caplog.at_level(logging.INFO):
        warnings.simplefilter("error")
        report = weights.load_weights(model, tmp_path / "w.h5")
    assert report.is_backbone_only
    assert report.loaded == tuple(weights.model_weights(source))
    assert "mrcnn_mask_deconv" in report.missing_in_file
    tiny_network.assert_equal(source, model)
    assert str(report) in caplog.text


def test_imagenet_file_of_another_depth_warns_and_names_the_layers(tmp_path):
    imagenet_file(tmp_path / "w.h5", "ab")
    with pytest.warns(UserWarning, match="Only some weights of .* fit the model") as caught:
        weights.load_weights(tiny_network.build(blocks="abc"), tmp_path / "w.h5")
    text = str(caught[0].message)
    assert "res4c_branch2a" in text
    assert "bn4c_branch2c" in text
    assert "mrcnn_mask" not in text

    imagenet_file(tmp_path / "w.h5", "abc")
    with pytest.raises(ValueError, match="In the file but not in the model:\n    res4c_branch2a"):
        weights.load_weights(tiny_network.build(blocks="ab"), tmp_path / "w.h5")


@pytest.mark.parametrize("strict", [True, False])
def test_nothing_in_common_is_an_error(model, tmp_path, strict):
    inputs = keras.Input((3,))
    other = keras.Model(inputs, layers.Dense(2, name="predictions")(inputs))
    weights.save_weights(other, tmp_path / "w.h5")
    with pytest.raises(ValueError, match=r"layer names in common.*predictions"):
        weights.load_weights(model, tmp_path / "w.h5", strict=strict)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mrcnn_class_logit", "Did you mean 'mrcnn_class_logits'?"),
        ("rpn_conv_shared", "It is part of 'rpn_model'"),
        ("xyz", "neither the model nor the file"),
    ],
)
def test_unknown_names_in_exclude_are_reported(model, tmp_path, name, hint):
    tiny_network.saved(tmp_path / "w.h5")
    with pytest.warns(UserWarning, match="`exclude` lists") as caught:
        report = weights.load_weights(model, tmp_path / "w.h5", exclude=[name])
    assert hint in str(caught[0].message)
    assert report.excluded == ()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(model, tmp_path, value):
    tiny_network.saved(tmp_path / "w.h5")
    with h5py.File(tmp_path / "w.h5", "r+") as file:
        file["mrcnn_mask/mrcnn_mask/bias:0"][1] = value
    with pytest.raises(ValueError, match=r"file:\n    mrcnn_mask/bias:0 \(1 of 4 values\)\n"):
        weights.load_weights(model, tmp_path / "w.h5")
    weights.load_weights(model, tmp_path / "w.h5", exclude=["mrcnn_mask"])


def test_float64_beyond_float32_is_not_finite(model, tmp_path):
    tiny_network.saved(tmp_path / "w.h5")
    with h5py.File(tmp_path / "w.h5", "r+") as file:
        del file["conv1/conv1/bias:0"]
        file["conv1/conv1/bias:0"] = np.full(4, 1e300)
    with pytest.raises(ValueError, match=r"file:\n    conv1/bias:0 \(4 of 4 values\)\n"):
        weights.load_weights(model, tmp_path / "w.h5")


def test_shapes_are_compared_before_memory_is_allocated(model, tmp_path):
    tiny_network.saved(tmp_path / "w.h5")
    with h5py.File(tmp_path / "w.h5", "r+") as file:
        del file["conv1/conv1/kernel:0"]
        file["conv1"].create_dataset("conv1/kernel:0", (10**6, 10**6), "f4")
    with pytest.raises(ValueError, match=r"conv1: file \(1000000,1000000\) \(4,\), model \(3,3,3,4\)"):
        weights.load_weights(model, tmp_path / "w.h5")


# ---------------------------------------------------------------- weights of other libraries


def foreign_target(classes=5):
    """A network with some layers of torchvision's."""
    image = keras.Input((None, None, 3))
    x = layers.Conv2D(64, 7, use_bias=False, name="conv1")(image)
    x = layers.BatchNormalization(name="bn_conv1")(x)
    logits = layers.Dense(classes, name="mrcnn_class_logits")(layers.Dense(1024)(x))
    return tiny_network.randomize(keras.Model(image, logits), seed=2)


def write_foreign_file(path, classes=5):
    """A pickle of NumPy arrays with torchvision's keys: first layers, logits and a part of a layer."""
    rng = np.random.default_rng(0)
    shapes = {
        "backbone.body.conv1.weight": (64, 3, 7, 7),
        **{f"backbone.body.bn1.{n}": (64,) for n in ("weight", "bias", "running_mean", "running_var")},
        "roi_heads.box_head.fc6.weight": (2, 256),
        "roi_heads.box_predictor.cls_score.weight": (classes, 1024),
        "roi_heads.box_predictor.cls_score.bias": (classes,),
    }
    state = {key: rng.normal(size=shape).astype("f4") for key, shape in shapes.items()}
    path.write_bytes(pickle.dumps({"model": state}, 2))
    return state


def test_weights_of_torchvision_are_loaded_by_layer_name(tmp_path):
    state = write_foreign_file(tmp_path / "w.pkl")
    model = foreign_target()
    with pytest.raises(ValueError, match=r"In the file but not in the model:\n +roi_heads\.box_head\.fc6"):
        weights.load_weights(model, tmp_path / "w.pkl", exclude=["dense"])
    with pytest.warns(UserWarning, match="Only some weights of .* fit the model"):
        report = weights.load_weights(model, tmp_path / "w.pkl", strict=False)
    assert report.loaded == ("conv1", "bn_conv1", "mrcnn_class_logits")
    assert report.origin == "torchvision's maskrcnn_resnet50_fpn"
    assert report.unused_in_file == ("roi_heads.box_head.fc6.weight",)
    values = tiny_network.values_of(model)
    np.testing.assert_array_equal(
        values["mrcnn_class_logits/kernel:0"], state["roi_heads.box_predictor.cls_score.weight"].T
    )


def test_other_classes_than_torchvision_s_can_be_excluded(tmp_path):
    write_foreign_file(tmp_path / "w.pkl", classes=91)
    model = foreign_target()
    with pytest.raises(ValueError, match="the file has 91 classes, but the model has NUM_CLASSES=5"):
        weights.load_weights(model, tmp_path / "w.pkl")
    with pytest.warns(UserWarning, match="Only some weights of .* fit the model"):
        report = weights.load_weights(model, tmp_path / "w.pkl", weights.CLASS_LAYERS, strict=False)
    assert report.loaded == ("conv1", "bn_conv1")


def test_weights_of_another_network_name_it():
    shapes = {f"res{index}": [(3, 3)] for index in range(10)}
    other = {name: [(3, 3), (3,)] for name in shapes}
    report = weight_report.compare("w.pth", shapes, other, (), "torchvision's maskrcnn")
    remedies = weight_report.likely_remedies(report, shapes, other)
    assert remedies == [
        "these are weights of torchvision's maskrcnn; build the model with the settings for them"
    ]
