"""The functions of the Keras 2 network by their old names, against its recordings and plain NumPy."""

import keras
import numpy as np
import pytest
from golden_files import golden_params, load, text, unpack_bits
from keras import ops

from mrcnn import model as modellib
from mrcnn.config import Config
from mrcnn.geometry.boxes import norm_boxes
from mrcnn.geometry.image_meta import FIELDS


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def config_of(recorded):
    config = Config()
    for name, value in recorded.items():
        setattr(config, name, value)
    return config


@pytest.mark.parametrize("path", golden_params("layers_detection*.npz"))
def test_refine_detections_graph(path):
    z = load(path)
    compared = 0
    for n in range(sum(key.endswith("_probs") for key in z)):
        config = config_of(text(z[f"dl{n}_cfg"]))
        for image, expected in enumerate(z[f"dl{n}_out"]):
            meta = z[f"dl{n}_meta"][image]
            window = norm_boxes(meta[FIELDS["window"]], meta[FIELDS["image_shape"]][:2])
            arrays = [z[f"dl{n}_{name}"][image] for name in ("rois", "probs", "deltas")]
            inputs = [ops.convert_to_tensor(x) for x in (*arrays, window)]
            refined = array(modellib.refine_detections_graph(*inputs, config))
            assert refined.shape == (config.DETECTION_MAX_INSTANCES, 6)
            np.testing.assert_allclose(refined, expected, rtol=0, atol=1e-5, err_msg=f"case {n}, {image}")
            compared += int(np.count_nonzero(expected[:, 4]))
    assert compared > 20


def test_refine_detections_graph_with_detections_per_class():
    class PerClassConfig(Config):
        DETECTIONS_PER_CLASS = True
        DETECTION_MIN_CONFIDENCE = 0.2
        DETECTION_MAX_INSTANCES = 3

    rois = np.array([[0.1, 0.1, 0.4, 0.4], [0.5, 0.5, 0.9, 0.8]], "float32")
    probs = np.array([[0.5, 0.2, 0.3], [0.9, 0.05, 0.05]], "float32")
    inputs = [rois, probs, np.zeros((2, 3, 4), "float32"), np.array([0, 0, 1, 1], "float32")]
    refined = array(
        modellib.refine_detections_graph(*[ops.convert_to_tensor(x) for x in inputs], PerClassConfig())
    )
    np.testing.assert_allclose(refined, [[*rois[0], 2, 0.3], [*rois[0], 1, 0.2], [0] * 6], atol=1e-6)


def rows_in_order(rois, class_ids, deltas, masks):
    """The RoIs of an image in an order that does not depend on the sampling."""
    rows = np.concatenate([rois, class_ids[:, None], deltas], axis=1)
    order = np.lexsort(np.round(rows, 4).T[::-1])
    return rows[order], masks[order]


@pytest.mark.parametrize("path", golden_params("layers_targets*.npz"))
def test_detection_targets_graph(path):
    """Where all RoIs fit, the sampling chooses none: only their order is random."""
    z = load(path)
    compared = 0
    for n in range(sum(key.endswith("_proposals") for key in z)):
        recorded = text(z[f"dt{n}_cfg"])
        if recorded.pop("identity_shuffle"):
            continue
        config, masks = config_of(recorded), unpack_bits(z, f"dt{n}_gt_masks")
        for image in range(len(masks)):
            inputs = [z[f"dt{n}_{name}"][image] for name in ("proposals", "gt_class_ids", "gt_boxes")]
            tensors = [ops.convert_to_tensor(x) for x in (*inputs, masks[image])]
            found = [array(x) for x in modellib.detection_targets_graph(*tensors, config)]
            expected = [z[f"dt{n}_{name}"][image] for name in ("rois", "class_ids", "bbox")]
            expected.append(unpack_bits(z, f"dt{n}_mask")[image])
            rows, pixels = rows_in_order(*found)
            expected_rows, expected_pixels = rows_in_order(*expected)
            np.testing.assert_allclose(rows, expected_rows, rtol=1e-5, atol=1e-5, err_msg=f"case {n}")
            assert np.mean(pixels != expected_pixels) < 1e-4
            compared += int(np.count_nonzero(expected[1]))
    assert compared > 5


@pytest.mark.parametrize("stride", [1, 2])
def test_rpn_graph(stride):
    """A 3x3 convolution with ReLU, then one 1x1 convolution for logits and one for deltas."""
    keras.utils.set_random_seed(3)
    feature_map = keras.Input((6, 8, 5))
    outputs = modellib.rpn_graph(feature_map, anchors_per_location=3, anchor_stride=stride)
    network = keras.Model(feature_map, outputs)
    values = np.random.default_rng(0).standard_normal((2, 6, 8, 5)).astype(np.float32)
    logits, scores, deltas = (array(x) for x in network(values))

    kernel, bias, to_logits, logit_bias, to_deltas, delta_bias = network.get_weights()
    assert kernel.shape == (3, 3, 5, 512)
    rows, columns = -(-6 // stride), -(-8 // stride)
    # "same" padding: with stride 2 and an even side, the cell is added at the end.
    before = 1 if stride == 1 else 0
    padded = np.pad(values, ((0, 0), (before, 1), (before, 1), (0, 0)))
    shared = np.zeros((2, rows, columns, 512), np.float32)
    for row in range(rows):
        for column in range(columns):
            y, x = row * stride, column * stride
            patch = padded[:, y : y + 3, x : x + 3].reshape(2, -1)
            shared[:, row, column] = np.maximum(patch @ kernel.reshape(-1, 512) + bias, 0)
    expected_logits = (shared @ to_logits[0, 0] + logit_bias).reshape(2, -1, 2)
    expected_deltas = (shared @ to_deltas[0, 0] + delta_bias).reshape(2, -1, 4)
    assert logits.shape == (2, rows * columns * 3, 2)
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(deltas, expected_deltas, rtol=1e-4, atol=1e-5)
    shares = np.exp(expected_logits) / np.exp(expected_logits).sum(axis=2, keepdims=True)
    np.testing.assert_allclose(scores, shares, rtol=1e-4, atol=1e-5)


def test_trim_zeros_graph():
    x = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, -1, 1]], "float32")
    rows, kept = modellib.trim_zeros_graph(ops.convert_to_tensor(x))
    np.testing.assert_array_equal(array(rows), x[[1, 3]])
    np.testing.assert_array_equal(array(kept), [False, True, False, True])


def test_batch_pack_graph():
    x = np.arange(12, dtype="float32").reshape(2, 3, 2)
    packed = modellib.batch_pack_graph(ops.convert_to_tensor(x), ops.convert_to_tensor([1, 2]), 2)
    np.testing.assert_array_equal(array(packed), [x[0, 0], x[1, 0], x[1, 1]])
