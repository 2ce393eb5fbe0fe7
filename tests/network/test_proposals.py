"""Proposals against the same steps in NumPy."""

import keras
import numpy as np
import pytest
from keras import ops
from tensor_tools import BACKEND, call, check_layer, gradients

from mrcnn.geometry import anchors as anchor_geometry
from mrcnn.geometry import boxes as geometry
from mrcnn.network.proposals import ProposalLayer

STD_DEV = np.array([0.1, 0.1, 0.2, 0.2], "float32")


def scene(seed, images=3, side=8):
    """RPN output for the anchors of one level, with distinct scores."""
    rng = np.random.default_rng(seed)
    pixels = anchor_geometry.generate_anchors(32, [0.5, 1, 2], (side, side), 8, 1)
    anchors = np.repeat(geometry.norm_boxes(pixels, (64, 64))[None], images, axis=0)
    count = anchors.shape[1]
    foreground = np.stack([rng.permutation(count) / count for _ in range(images)]).astype("float32")
    deltas = rng.normal(0, 1.5, (images, count, 4)).astype("float32")
    return [np.stack([1 - foreground, foreground], axis=2), deltas, anchors]


def by_numpy(probs, deltas, anchors, count, threshold, limit, std_dev=STD_DEV):
    """Proposals of one image."""
    order = np.argsort(-probs[:, 1], kind="stable")[:limit]
    boxes = geometry.apply_box_deltas(anchors[order], deltas[order] * std_dev)
    boxes = geometry.clip_boxes(boxes, (0, 0, 1, 1))
    kept = geometry.non_max_suppression(boxes, -np.arange(len(boxes)), threshold)[:count]
    return np.concatenate([boxes[kept], np.zeros((count - len(kept), 4))])


@pytest.mark.parametrize(
    "count, threshold, limit",
    [(50, 0.7, 6000), (50, 0.7, 40), (20, 0.3, 150), (250, 0.99, 100), (192, 1.0, 192)],
)
def test_equals_numpy(count, threshold, limit):
    inputs = scene(1)
    found = check_layer(ProposalLayer(count, threshold, pre_nms_limit=limit), inputs)
    for image in range(3):
        expected = by_numpy(*(x[image] for x in inputs), count, threshold, limit)
        np.testing.assert_allclose(found[image], expected, atol=1e-5)
    assert (found >= 0).all() and (found <= 1).all()


def test_arguments_reach_the_configuration():
    layer = ProposalLayer(7, 0.6, pre_nms_limit=30, bbox_std_dev=(1, 0.5, 0.3, 0.4), name="ROI")
    inputs = scene(2, images=1)
    found = check_layer(layer, inputs)
    expected = by_numpy(*(x[0] for x in inputs), 7, 0.6, 30, np.array([1, 0.5, 0.3, 0.4], "float32"))
    np.testing.assert_allclose(found[0], expected, atol=1e-5)
    config = layer.get_config()
    assert config["bbox_std_dev"] == (1, 0.5, 0.3, 0.4)
    assert (config["proposal_count"], config["nms_threshold"], config["pre_nms_limit"]) == (7, 0.6, 30)


def test_equal_scores_keep_the_order_of_anchors():
    probs, deltas, anchors = scene(3, images=1)
    probs[:] = 0.5
    found = check_layer(ProposalLayer(10, 1.0), [probs, np.zeros_like(deltas), anchors])
    np.testing.assert_allclose(found[0], np.clip(anchors[0, :10], 0, 1), atol=1e-6)


def test_steps():
    inputs = scene(4, images=2)
    steps = call(lambda *x: ProposalLayer(20, 0.5, pre_nms_limit=60).steps(list(x)), *inputs)
    order = np.argsort(-inputs[0][..., 1], axis=1)[:, :60]
    for image in range(2):
        anchors = inputs[2][image][order[image]]
        np.testing.assert_array_equal(steps["pre_nms_anchors"][image], anchors)
        np.testing.assert_array_equal(steps["pre_nms_anchor_ix"][image], order[image])
        refined = geometry.apply_box_deltas(anchors, inputs[1][image][order[image]] * STD_DEV)
        np.testing.assert_allclose(steps["refined_anchors"][image], refined, atol=1e-5)
        clipped = steps["refined_anchors_clipped"][image]
        np.testing.assert_allclose(clipped, np.clip(refined, 0, 1), atol=1e-5)
        filled = steps["proposals"][image].any(axis=1)
        chosen = clipped[steps["rpn_non_max_suppression"][image]]
        np.testing.assert_array_equal(steps["proposals"][image][filled], chosen[filled])


@pytest.mark.skipif(BACKEND != "tensorflow", reason="on other backends every shape is known in a call")
def test_number_of_anchors_known_only_in_the_call():
    import tensorflow

    layer = ProposalLayer(30, 0.7, pre_nms_limit=500)
    spec = [tensorflow.TensorSpec([None, None, width], tensorflow.float32) for width in (2, 4, 4)]
    compiled = tensorflow.function(lambda *x: layer(list(x)), input_signature=spec)
    for side in (2, 8):  # 12 anchors, fewer than proposals, and 192
        inputs = scene(5, side=side)
        np.testing.assert_allclose(compiled(*inputs), layer(inputs), atol=1e-6)
    steps = tensorflow.function(lambda *x: layer.steps(list(x)), input_signature=spec)(*scene(5, side=2))
    index = steps["pre_nms_anchor_ix"].numpy()
    assert index.shape == (3, 500)  # twelve anchors, then padding
    assert np.sort(index[:, :12]).tolist() == [list(range(12))] * 3 and (index[:, 12:] == -1).all()


def test_selected_boxes_stay_functions_of_the_deltas():
    probs, deltas, anchors = scene(6, images=1, side=4)

    def total(probs, deltas):
        layer = ProposalLayer(10, 0.7, pre_nms_limit=30)
        return ops.sum(layer([probs, deltas, keras.ops.convert_to_tensor(anchors)])[..., 0])

    slope_of_probs, slope_of_deltas = gradients(total, probs, deltas)
    assert not slope_of_probs.any()
    moved = np.flatnonzero(slope_of_deltas[0].any(axis=1))
    assert 0 < len(moved) <= 10
    for row in moved:  # d y1 / d dy is the scaled height of the anchor
        height = anchors[0, row, 2] - anchors[0, row, 0]
        assert slope_of_deltas[0, row, 0] == pytest.approx(0.1 * height, rel=1e-4)
