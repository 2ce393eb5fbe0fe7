import os

import h5py
import keras
import numpy as np
import pytest
import tiny_network
from keras import layers

from mrcnn.checkpoints import weight_files, weights
from mrcnn.checkpoints.model_info import ModelInfo
from mrcnn.network.normalization import BatchNorm


@pytest.fixture
def model():
    return tiny_network.target()


# ---------------------------------------------------------------- order of weights


def test_weights_of_layers_in_the_order_of_files():
    named = weights.model_weights(tiny_network.build())
    assert list(named["conv1"]) == ["conv1/kernel:0", "conv1/bias:0"]
    assert list(named["bn_conv1"]) == [
        f"bn_conv1/{kind}:0" for kind in ("gamma", "beta", "moving_mean", "moving_variance")
    ]
    assert list(named["rpn_model"]) == [
        f"{layer}/{kind}:0"
        for layer in ("rpn_conv_shared", "rpn_class_raw", "rpn_bbox_pred")
        for kind in ("kernel", "bias")
    ]
    assert [tuple(v.shape) for v in named["mrcnn_mask_deconv"].values()] == [(2, 2, 5, 5), (5,)]


def test_order_of_the_rpn_does_not_depend_on_how_its_model_lists_it():
    features = keras.Input((None, None, 4))
    shared = tiny_network.conv(features, "rpn_conv_shared", 5)
    boxes, scores = (
        tiny_network.conv(shared, "rpn_bbox_pred", 12),
        tiny_network.conv(shared, "rpn_class_raw", 6),
    )
    model = keras.Model(features, [boxes, scores], name="rpn_model")
    assert [layer.name for layer in model.layers][2:] == ["rpn_bbox_pred", "rpn_class_raw"]
    kernels = [tuple(weight.shape) for weight in weights.layer_weights(model).values()][::2]
    assert kernels == [(1, 1, 4, 5), (1, 1, 5, 6), (1, 1, 5, 12)]


def test_order_does_not_depend_on_freezing():
    model = tiny_network.build()
    before = {layer: list(named) for layer, named in weights.model_weights(model).items()}
    model.trainable = False
    assert {k: list(v) for k, v in weights.model_weights(model).items()} == before
    frozen = layers.BatchNormalization(name="bn", trainable=False)
    frozen.build((None, 4, 4, 2))
    unbuilt_frozen = list(weights.layer_weights(frozen))
    assert unbuilt_frozen == ["bn/gamma:0", "bn/beta:0", "bn/moving_mean:0", "bn/moving_variance:0"]
    frozen.gamma.trainable = True
    assert list(weights.layer_weights(frozen)) == unbuilt_frozen


def test_layers_without_weights_and_generators_are_left_out():
    model = tiny_network.build(training=True)
    named = weights.model_weights(model)
    assert "proposal_targets" not in named
    assert "mrcnn_bbox" not in named
    assert set(named) == set(weights.model_weights(tiny_network.build()))


def test_integer_state_held_as_a_weight_is_left_out():
    class Counting(layers.Dense):
        def build(self, shape):
            self.add_weight(shape=(), dtype="int32", trainable=False, name="count")
            super().build(shape)

    layer = Counting(2, name="dense")
    layer.build((None, 3))
    assert len(layer.weights) == 3
    assert list(weights.layer_weights(layer)) == ["dense/kernel:0", "dense/bias:0"]


def test_time_distributed_layers_carry_the_wrapper_s_name():
    inputs = keras.Input((2, 8, 8, 3))
    wrapped = layers.TimeDistributed(layers.Conv2D(4, 1), name="mrcnn_class_conv1")(inputs)
    model = keras.Model(inputs, wrapped)
    assert list(weights.model_weights(model)) == ["mrcnn_class_conv1"]
    assert list(weights.model_weights(model)["mrcnn_class_conv1"]) == [
        "mrcnn_class_conv1/kernel:0",
        "mrcnn_class_conv1/bias:0",
    ]


def test_a_layer_of_layers_keeps_all_its_weights(tmp_path):
    class Pair(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.first, self.second = layers.Dense(3), layers.Dense(3)

        def build(self, shape):
            self.first.build(shape)
            self.second.build(shape)

        def call(self, x):
            return self.first(x) + self.second(x)

    def make(seed):
        inputs = keras.Input((3,))
        return tiny_network.randomize(keras.Model(inputs, Pair(name="pair")(inputs)), seed)

    one, two = make(1), make(2)
    assert len(weights.model_weights(one)["pair"]) == 4
    weights.save_weights(one, tmp_path / "w.h5")
    weights.load_weights(two, tmp_path / "w.h5")
    for a, b in zip(one.weights, two.weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b))


# ---------------------------------------------------------------- round trips


def test_training_file_in_an_inference_model_gives_the_same_outputs(model, tmp_path):
    trained = tiny_network.randomize(tiny_network.build(training=True), seed=1)
    weights.save_weights(trained, tmp_path / "w.h5")
    report = weights.load_weights(model, tmp_path / "w.h5")
    tiny_network.assert_equal(model, trained)
    assert report.loaded == tuple(weights.model_weights(model))
    assert not (report.excluded or report.missing_in_file or report.unused_in_file)
    image = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype("f4")
    want = trained([image, np.zeros((1, 1, 4), "f4")])
    for got, expected in zip(model([image]), want, strict=True):
        got, expected = map(keras.ops.convert_to_numpy, (got, expected))
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_saved_file_lists_layers_as_the_keras_2_library(tmp_path, training):
    tiny_network.saved(tmp_path / "w.h5", training=training)
    with h5py.File(tmp_path / "w.h5") as file:
        names = [name.decode() for name in file.attrs["layer_names"]]
    backbone_names = (
        "conv1 bn_conv1 res4a_branch2a bn4a_branch2a res4a_branch2b bn4a_branch2b res4a_branch2c "
        "res4a_branch1 bn4a_branch2c bn4a_branch1 res4b_branch2a bn4b_branch2a res4b_branch2b "
        "bn4b_branch2b res4b_branch2c bn4b_branch2c fpn_c5p5 fpn_p5 rpn_model"
    )
    heads = {
        True: "mrcnn_mask_conv1 mrcnn_mask_bn1 mrcnn_class_conv1 mrcnn_class_bn1 mrcnn_bbox_fc "
        "mrcnn_mask_deconv mrcnn_class_logits mrcnn_mask",
        False: "mrcnn_class_conv1 mrcnn_class_bn1 mrcnn_class_logits mrcnn_bbox_fc "
        "mrcnn_mask_conv1 mrcnn_mask_bn1 mrcnn_mask_deconv mrcnn_mask",
    }
    assert names == f"{backbone_names} {heads[training]}".split()


def test_order_of_heads_can_be_asked_for(tmp_path):
    weights.save_weights(tiny_network.kept(), tmp_path / "a.h5", training=True)
    tiny_network.saved(tmp_path / "b.h5", training=True)
    read = weights.read_weight_file
    assert list(read(tmp_path / "a.h5")) == list(read(tmp_path / "b.h5"))


def test_keras_reads_the_file_with_its_own_reader_of_old_files(model, tmp_path):
    other = tiny_network.saved(tmp_path / "w.h5")
    model.load_weights(tmp_path / "w.h5", by_name=True)
    tiny_network.assert_equal(model, other)


def test_loading_works_on_a_model_that_has_predicted(model, tmp_path):
    other = tiny_network.saved(tmp_path / "w.h5")
    image = np.ones((1, 8, 8, 3), "f4")
    before = model.predict(image, verbose=0)[0]
    weights.load_weights(model, tmp_path / "w.h5")
    after = model.predict(image, verbose=0)[0]
    assert not np.allclose(before, after)
    np.testing.assert_allclose(after, other.predict(image, verbose=0)[0], rtol=1e-4, atol=1e-5)


def test_half_precision_variables_are_stored_as_float32(tmp_path):
    inputs = keras.Input((3,))
    dense = layers.Dense(2, name="dense", dtype="float16")
    model = tiny_network.randomize(keras.Model(inputs, dense(inputs)))
    weights.save_weights(model, tmp_path / "w.h5")
    assert h5py.File(tmp_path / "w.h5")["dense/dense/kernel:0"].dtype == np.float32
    want = tiny_network.values_of(model)
    tiny_network.randomize(model, seed=5)
    weights.load_weights(model, tmp_path / "w.h5")
    for name, value in tiny_network.values_of(model).items():
        np.testing.assert_array_equal(value, want[name])


def test_whole_model_saved_by_keras_as_h5(model, tmp_path):
    other = tiny_network.randomize(tiny_network.kept(), seed=1)
    other.save(tmp_path / "whole.h5")
    with h5py.File(tmp_path / "whole.h5") as file:
        assert "layer_names" not in file.attrs
    weights.load_weights(model, tmp_path / "whole.h5")
    tiny_network.assert_equal(model, other)


def test_file_of_a_multi_gpu_model(model, tmp_path):
    other = tiny_network.randomize(tiny_network.kept(), seed=1)
    flat = tiny_network.values_of(other)
    kinds = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
    names = sorted(flat, key=lambda name: kinds.index(name.split("/")[1][:-2]))
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names"] = [b"input_image", b"lambda_1", b"model_1", b"mrcnn_mask"]
        for group in ("input_image", "lambda_1", "mrcnn_mask"):
            file.create_group(group).attrs["weight_names"] = np.zeros((0,))
        inner = file.create_group("model_1")
        suffixed = [name.replace("/", "_1/") for name in names]
        inner.attrs["weight_names"] = [name.encode() for name in suffixed]
        for name, suffix in zip(names, suffixed, strict=True):
            inner[suffix] = flat[name]
    report = weights.load_weights(model, tmp_path / "w.h5")
    assert set(report.loaded) == set(weights.model_weights(model))
    tiny_network.assert_equal(model, other)


# ---------------------------------------------------------------- other files


def test_layouts_of_keras_3_are_told_apart(model, tmp_path):
    model.save_weights(tmp_path / "w.weights.h5")
    with pytest.raises(ValueError, match=r"layout of Keras 3.*save_weights \(or as \.keras\)"):
        weights.load_weights(model, tmp_path / "w.weights.h5")
    model.save(tmp_path / "w.keras")
    with pytest.raises(ValueError, match="zip archive"):
        weights.load_weights(model, tmp_path / "w.keras")


def test_truncated_file_leaves_the_model(model, tmp_path):
    tiny_network.saved(tmp_path / "w.h5")
    content = (tmp_path / "w.h5").read_bytes()
    (tmp_path / "w.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="download it again"):
        weights.load_weights(model, tmp_path / "w.h5")
    tiny_network.assert_equal(model, tiny_network.randomize(tiny_network.kept(), seed=2))


def test_model_without_weights(tmp_path):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.ReLU()(inputs))
    with pytest.raises(ValueError, match="`model` must have weights"):
        weights.save_weights(model, tmp_path / "w.h5")
    assert os.listdir(tmp_path) == []


# ---------------------------------------------------------------- NamedWeightsModel


class Derived(weights.NamedWeightsModel):
    """Stands for a network with its own training step."""

    def __init__(self, *args, factor=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.factor = factor


@pytest.mark.parametrize("cls", [weights.NamedWeightsModel, Derived])
def test_methods_of_the_model_go_by_name(tmp_path, cls):
    model = tiny_network.randomize(tiny_network.build(cls=cls, training=True), seed=1)
    assert isinstance(model, cls)
    assert isinstance(model, keras.Model)
    path = str(tmp_path / "w.h5")
    model.save_weights(path)
    assert set(weight_files.read_weight_file(path)) == set(weights.model_weights(model))
    other = tiny_network.build(cls=cls)
    report = other.load_weights(path, by_name=True)
    assert isinstance(report, weights.LoadReport)
    tiny_network.assert_equal(other, model)
    with pytest.raises(FileExistsError, match="overwrite=False") as caught:
        model.save_weights(path, overwrite=False)
    assert caught.value.filename == path
    with pytest.raises(TypeError, match="skip_mismatch"):
        other.load_weights(path, skip_mismatch=True)
    with pytest.raises(TypeError, match="max_shard_size"):
        other.save_weights(path, max_shard_size=1)


def test_excluding_through_the_method(tmp_path):
    tiny_network.saved(tmp_path / "w.h5", classes=9)
    model = tiny_network.build(cls=weights.NamedWeightsModel)
    report = model.load_weights(tmp_path / "w.h5", exclude=weights.CLASS_LAYERS)
    assert report.excluded == tuple(weights.CLASS_LAYERS)


def test_formats_of_keras_stay_with_keras(tmp_path):
    model = tiny_network.randomize(tiny_network.build(cls=weights.NamedWeightsModel), seed=1)
    path = tmp_path / "x.weights.h5"
    model.save_weights(path)
    assert "layers" in h5py.File(path)
    other = tiny_network.build(cls=weights.NamedWeightsModel)
    assert other.load_weights(path, skip_mismatch=True) is None
    tiny_network.assert_equal(other, model)
    with pytest.raises(ValueError, match="stores layers by name"):
        other.load_weights(path, exclude=["conv1"])
    with pytest.raises(ValueError, match="strict=False require a file that stores layers by name"):
        other.load_weights(path, strict=False)


def test_whole_model_as_keras_archive(tmp_path):
    model = tiny_network.randomize(tiny_network.build(cls=weights.NamedWeightsModel), seed=1)
    model.save(tmp_path / "x.keras")
    again = keras.models.load_model(tmp_path / "x.keras")
    assert isinstance(again, weights.NamedWeightsModel)
    tiny_network.assert_equal(again, model)
    other = tiny_network.build(cls=weights.NamedWeightsModel)
    other.load_weights(tmp_path / "x.keras")
    tiny_network.assert_equal(other, model)


def test_model_trains_after_loading(tmp_path):
    tiny_network.saved(tmp_path / "w.h5")
    inner = tiny_network.kept()
    model = Derived(inner.inputs, inner.outputs[0], factor=2.0, name="trained")
    with pytest.warns(UserWarning, match="mrcnn_mask_deconv"):
        model.load_weights(tmp_path / "w.h5", strict=False, exclude=["mrcnn_mask"])
    before = tiny_network.values_of(model)
    model.compile(optimizer="sgd", loss="mse")
    model.fit(np.ones((2, 8, 8, 3)), np.ones((2, 4)), epochs=1, verbose=0)
    after = tiny_network.values_of(model)
    assert any(not np.array_equal(before[name], after[name]) for name in before)
    model.save_weights(tmp_path / "trained.h5")
    read = weight_files.read_weight_file(tmp_path / "trained.h5")
    np.testing.assert_array_equal(read["conv1"][0], after["conv1/kernel:0"])


class NormNetwork:
    """A network of batch norms that learn statistics, also inside of other layers, and its file."""

    def __init__(self, path, info=None):
        image = keras.Input((8, 8, 3))
        features = keras.Input((8, 8, 3))
        inner = keras.Model(features, BatchNorm(train_bn=True, name="inner_bn")(features), name="rpn_model")
        x = inner(BatchNorm(train_bn=True, name="bn_conv1")(image))
        x = layers.Reshape((1, 8, 8, 3))(x)
        x = layers.TimeDistributed(BatchNorm(train_bn=True), name="mrcnn_class_bn1")(x)
        self.model = weights.NamedWeightsModel(image, x)
        self.model.describe = lambda: info
        self.path = path

    def step(self, mean):
        """The means of the first layer before and after a step with images of this mean."""
        before = self.model.get_weights()[2]
        self.model(np.full((2, 8, 8, 3), mean, "float32"), training=True)
        return before, self.model.get_weights()[2]

    def counts(self):
        return [float(v) for v in self.model.non_trainable_variables if v.name == "updates"]


@pytest.mark.parametrize("is_own", [True, False])
def test_learned_statistics_go_on_after_loading_a_file_of_this_library(is_own, tmp_path):
    """Those of the Keras 2 library and of ImageNet are replaced."""
    info = ModelInfo(settings={}, class_names=None, metrics={}, version="3") if is_own else None
    trained = NormNetwork(tmp_path / "w.h5", info)
    trained.step(4.0)
    trained.model.save_weights(trained.path)
    network = NormNetwork(tmp_path)
    network.model.load_weights(trained.path, exclude=["mrcnn_class_bn1"])
    before, after = network.step(5.0)
    np.testing.assert_allclose(before, 4.0, rtol=1e-5)
    np.testing.assert_allclose(after, 4.01 if is_own else 5.0, rtol=1e-5)
    counts = network.counts()
    assert len(counts) == 3
    assert (np.array(counts) > 1000).tolist() == [is_own, is_own, False]


def test_copied_statistics_go_on_as_those_of_the_source(tmp_path):
    trained, network = NormNetwork(tmp_path), NormNetwork(tmp_path)
    trained.step(4.0)
    weights.copy_weights(trained.model, network.model)
    assert network.counts() == [1, 1, 1]
    np.testing.assert_allclose(network.step(6.0), trained.step(6.0))


def test_copy_weights_by_name():
    """Between a training and an inference network, whose layers come in another order; all or nothing."""
    source = tiny_network.randomize(tiny_network.build(training=True), seed=1)
    copied = tiny_network.randomize(tiny_network.build(), seed=2)
    weights.copy_weights(source, copied)
    tiny_network.assert_equal(copied, source)
    other = tiny_network.randomize(tiny_network.build(classes=5), seed=3)
    before = tiny_network.values_of(other)
    with pytest.raises(ValueError, match="mrcnn_class_logits"):
        weights.copy_weights(source, other)
    assert all(np.array_equal(before[name], value) for name, value in tiny_network.values_of(other).items())
