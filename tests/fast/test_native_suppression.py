"""NMS by TensorFlow's operator against the loop of `suppression`: the same boxes in the same order."""

import keras
import numpy as np
import pytest
from keras import ops
from tensor_tools import BACKEND, array, call

from mrcnn import backend
from mrcnn.fast import native_suppression
from mrcnn.fast.native_suppression import NativeSuppression
from mrcnn.network import suppression
from mrcnn.network.detections import DetectionLayer
from mrcnn.network.proposals import ProposalLayer

on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has the operator")


def boxes_of(batch=2, count=700, seed=3):
    """Boxes that overlap, with equal, inverted, empty and infinite ones."""
    rng = np.random.default_rng(seed)
    corner, side = rng.random((batch, count, 2)), rng.uniform(0.05, 0.4, (batch, count, 2))
    boxes = np.concatenate([corner, corner + side], axis=2).astype(np.float32)
    boxes[:, 10:20] = boxes[:, :1]
    boxes[:, 30:40, 2:] = boxes[:, 30:40, :2]
    boxes[:, 50] = boxes[:, 50, [2, 3, 0, 1]]
    boxes[:, 60, 2] = np.inf
    return boxes, rng.random((batch, count)) < 0.9, rng.integers(0, 5, (batch, count)).astype(np.int32)


@on_tensorflow
@pytest.mark.parametrize("most", [1, 40, 1000])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("grouped", [False, True])
def test_keeps_the_same_boxes(most, threshold, grouped):
    def keep(function):
        return call(
            lambda b, v, g: function(b, v, most, threshold, groups=g if grouped else None), *boxes_of()
        )

    results = (keep(function) for function in (suppression.non_max_suppression, backend.non_max_suppression))
    for expected, found in zip(*results, strict=True):
        np.testing.assert_array_equal(array(found), array(expected))


@on_tensorflow
def test_no_box_takes_part():
    boxes, valid, _ = boxes_of()
    index, filled = call(lambda b, v: backend.non_max_suppression(b, v, 5, 0.5), boxes, valid & False)
    assert not array(index).any() and not array(filled).any()


@on_tensorflow
def test_the_stand_in_follows_its_layer():
    rng = np.random.default_rng(0)
    scores, deltas = rng.random((2, 300, 2)), rng.normal(scale=0.1, size=(2, 300, 4))
    inputs = [x.astype(np.float32) for x in (scores, deltas, boxes_of(count=300)[0])]
    layer = ProposalLayer(50, 0.7, pre_nms_limit=200, name="ROI")
    stand_in = NativeSuppression(layer)
    for threshold in (0.7, 0.2):
        layer.nms_threshold = threshold
        found, expected = (array(x([ops.convert_to_tensor(y) for y in inputs])) for x in (stand_in, layer))
        np.testing.assert_array_equal(found, expected)
    assert stand_in.compute_output_shape([x.shape for x in inputs]) == (2, 50, 4)


@pytest.mark.parametrize("has_operator", [False, True])
@pytest.mark.parametrize("sizes_may_vary", [False, True])
def test_replacements(monkeypatch, has_operator, sizes_may_vary):
    monkeypatch.setattr(backend, "non_max_suppression", print if has_operator else None)
    monkeypatch.setattr(backend, "sizes_may_vary", lambda choice=None: sizes_may_vary)
    rpn = [keras.Input((40, last)) for last in (2, 4, 4)]
    heads = [keras.Input(shape) for shape in ((30, 7), (30, 7, 4), (19,))]
    rois = ProposalLayer(30, 0.7, name="ROI")(rpn)
    detections = DetectionLayer(name="mrcnn_detection")([rois, *heads])
    found = native_suppression.replacements(keras.Model([*rpn, *heads], detections))
    assert sorted(found) == (["ROI", "mrcnn_detection"] if has_operator and sizes_may_vary else [])


def test_only_tensorflow_has_the_operator():
    assert (backend.non_max_suppression is not None) == (BACKEND == "tensorflow")
