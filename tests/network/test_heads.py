"""Box head and mask head: shapes, weights, the order of outputs, mixed precision."""

import keras
import numpy as np
import pytest
from tensor_tools import run

from mrcnn.network.heads import box_head, mask_head


def head_inputs(channels=4):
    maps = [keras.Input((side, side, channels)) for side in (16, 8, 4, 2)]
    return keras.Input((None, 4)), maps, keras.Input((15,))


def head_arrays(rois=3, channels=4):
    rng = np.random.default_rng(7)
    maps = [rng.normal(size=(2, side, side, channels)).astype("float32") for side in (16, 8, 4, 2)]
    corner = rng.uniform(0, 0.5, (2, rois, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.1, 0.5, (2, rois, 2))], 2).astype("float32")
    meta = np.zeros((2, 15), "float32")
    meta[:, 4:7] = (512, 512, 3)
    return [boxes, *maps, meta]


@pytest.fixture(scope="module")
def box_model():
    rois, maps, meta = head_inputs()
    outputs = box_head(rois, maps, meta, 3, 5, train_bn=False, fc_layers_size=8)
    return keras.Model([rois, *maps, meta], outputs)


@pytest.fixture(scope="module")
def mask_model():
    rois, maps, meta = head_inputs()
    masks = mask_head(rois, maps, meta, 4, 5, train_bn=False, channels=6)
    return keras.Model([rois, *maps, meta], masks)


class TestBoxHead:
    def test_outputs(self, box_model):
        logits, probs, deltas = run(box_model, head_arrays())
        assert (logits.shape, probs.shape, deltas.shape) == ((2, 3, 5), (2, 3, 5), (2, 3, 5, 4))
        expected = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
        np.testing.assert_allclose(probs, expected, rtol=1e-5)

    def test_weights_are_those_of_convolutions_and_dense_layers(self, box_model):
        shapes = {layer.name: [w.shape for w in layer.weights] for layer in box_model.layers if layer.weights}
        assert shapes == {
            "mrcnn_class_conv1": [(3, 3, 4, 8), (8,)],
            "mrcnn_class_bn1": [(8,)] * 4,
            "mrcnn_class_conv2": [(1, 1, 8, 8), (8,)],
            "mrcnn_class_bn2": [(8,)] * 4,
            "mrcnn_class_logits": [(8, 5), (5,)],
            "mrcnn_bbox_fc": [(8, 20), (20,)],
        }

    def test_deltas_are_ordered_by_class(self, box_model):
        """The dense layer returns the four deltas of the first class, then those of the second."""
        inputs = head_arrays()
        fc = box_model.get_layer("mrcnn_bbox_fc")
        before = fc.get_weights()
        bias = np.arange(20, dtype="float32")
        fc.set_weights([np.zeros_like(before[0]), bias])
        deltas = run(box_model, inputs)[2]
        fc.set_weights(before)
        np.testing.assert_array_equal(deltas[1, 2], bias.reshape(5, 4))

    def test_rois_are_independent(self, box_model):
        inputs = head_arrays()
        together = run(box_model, inputs)
        alone = run(box_model, [inputs[0][:, 1:2], *inputs[1:]])
        for pair, single in zip(together, alone, strict=True):
            np.testing.assert_allclose(pair[:, 1:2], single, atol=1e-5)


class TestMaskHead:
    def test_outputs(self, mask_model):
        masks = run(mask_model, head_arrays())
        assert masks.shape == (2, 3, 8, 8, 5)
        assert (masks > 0).all() and (masks < 1).all()

    def test_weights_are_those_of_convolutions(self, mask_model):
        shapes = {
            layer.name: [w.shape for w in layer.weights] for layer in mask_model.layers if layer.weights
        }
        expected = {"mrcnn_mask_deconv": [(2, 2, 6, 6), (6,)], "mrcnn_mask": [(1, 1, 6, 5), (5,)]}
        for number in range(1, 5):
            expected[f"mrcnn_mask_conv{number}"] = [(3, 3, 4 if number == 1 else 6, 6), (6,)]
            expected[f"mrcnn_mask_bn{number}"] = [(6,)] * 4
        assert shapes == expected


@pytest.fixture
def bfloat16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


class TestMixedPrecision:
    def test_boxes_and_scores_stay_float32(self, bfloat16):
        rois, maps, meta = head_inputs()
        logits, probs, deltas = box_head(rois, maps, meta, 3, 5, train_bn=False, fc_layers_size=8)
        masks = mask_head(rois, maps, meta, 4, 5, train_bn=False, channels=6)
        assert {x.dtype for x in (logits, probs, deltas, masks)} == {"float32"}
        model = keras.Model([rois, *maps, meta], [logits, probs, deltas, masks])
        computed = {layer.name: layer.compute_dtype for layer in model.layers if "conv" in layer.name}
        assert set(computed.values()) == {"bfloat16"}
        assert {w.dtype for w in model.weights} == {"float32"}
        for found in run(model, head_arrays()):
            assert found.dtype == np.float32
            assert np.isfinite(found).all()
