"""Proposals per level, by hand."""

import numpy as np
from tensor_tools import call, check_layer, run

from mrcnn.network.level_proposals import LevelProposalLayer

SIZE = 64  # pixels of the molded image
# Maps of 2 x 2 and 1 x 1 cells, with one anchor per location.
MAPS = [np.zeros((1, 2, 2, 3), "float32"), np.zeros((1, 1, 1, 3), "float32")]


def meta(window=(0, 0, SIZE, SIZE)):
    return np.array([[0, SIZE, SIZE, 3, SIZE, SIZE, 3, *window, 1, 1, 1]], "float32")


def inputs(foreground, boxes, deltas=None, window=(0, 0, SIZE, SIZE)):
    """Logits with any background, and anchors in pixels."""
    foreground = np.array(foreground, "float32")
    logits = np.stack([np.full_like(foreground, 2.0), foreground + 2.0], axis=-1)[None]
    anchors = np.array([boxes], "float32") / SIZE
    deltas = np.zeros_like(anchors) if deltas is None else np.array([deltas], "float32")
    return [logits, deltas, anchors, meta(window), *MAPS]


BOXES = [[0, 0, 16, 16], [0, 0, 16, 15], [32, 32, 48, 48], [0, 40, 20, 60], [0, 0, 16, 16]]


def proposals(layer, arrays):
    return run(layer, arrays)[0] * SIZE


def test_nms_compares_boxes_of_one_level_only():
    """The second anchor overlaps the first on its level; the last is equal to it on another level."""
    layer = LevelProposalLayer(5, 0.7)
    found = proposals(layer, inputs([3.0, 2.0, 1.0, -5.0, 2.5], BOXES))
    np.testing.assert_allclose(found, [BOXES[0], BOXES[4], BOXES[2], BOXES[3], [0] * 4], atol=1e-4)


def test_the_limit_counts_for_each_level():
    layer = LevelProposalLayer(5, 0.7, pre_nms_limit=1)
    found = proposals(layer, inputs([3.0, 2.0, 9.0, -5.0, -8.0], BOXES))
    np.testing.assert_allclose(found[:2], [BOXES[2], BOXES[4]], atol=1e-4)
    assert not found[2:].any()


def test_boxes_are_clipped_to_the_window_and_small_ones_left_out():
    layer = LevelProposalLayer(5, 0.7, min_side=9.0)
    found = proposals(layer, inputs([1.0, 0.0, 2.0, 3.0, -1.0], BOXES, window=(0, 0, 40, 48)))
    # The box at row 32 keeps 8 rows, the one at column 40 keeps 8 columns.
    np.testing.assert_allclose(found[:2], [BOXES[0], BOXES[4]], atol=1e-4)
    assert not found[2:].any()


def test_deltas_are_limited():
    deltas = np.zeros((5, 4), "float32")
    deltas[2] = [0, 0, 10.0, np.log(0.5)]
    layer = LevelProposalLayer(5, 0.7, delta_limit=np.log(1.5))
    found = proposals(layer, inputs([0.0, 0.0, 9.0, 0.0, 0.0], BOXES, deltas))
    np.testing.assert_allclose(found[0], [28, 36, 52, 44], atol=1e-4)


def test_steps_say_which_anchors_enter_nms():
    """The last box of the first level lies outside of the window, so it comes last and has no anchor."""
    layer = LevelProposalLayer(3, 0.7, pre_nms_limit=3)
    arrays = inputs([1.0, 2.0, 3.0, 2.5, -1.0], BOXES, window=(0, 0, SIZE, 40))
    steps = call(lambda *x: layer.steps(list(x)), *arrays)
    assert steps["pre_nms_anchor_ix"].tolist() == [[2, 1, 4, -1]]
    np.testing.assert_allclose(steps["pre_nms_anchors"][0, :3] * SIZE, [BOXES[i] for i in (2, 1, 4)])
    assert steps["rpn_non_max_suppression"].tolist() == [[0, 1, 2]]
    shapes = [x.shape for x in arrays]
    assert layer.pre_nms_count(shapes) == steps["pre_nms_anchors"].shape[1] == 4


def test_number_of_anchors_before_nms():
    """Three levels of 8 x 6, 4 x 3 and 2 x 2 locations, three anchors at each."""
    maps = [(None, 8, 6, 5), (None, 4, 3, 5), (None, 2, 2, 5)]
    shapes = [(None, 192, 2), (None, 192, 4), (None, 192, 4), (None, 15), *maps]
    assert LevelProposalLayer(9, 0.7, pre_nms_limit=30).pre_nms_count(shapes) == 30 + 30 + 12
    assert LevelProposalLayer(9, 0.7).pre_nms_count(shapes) == 192
    # A stride of 2: 4 x 3, 2 x 2 and 1 location.
    strided = [(None, 51, 2), (None, 51, 4), (None, 51, 4), (None, 15), *maps]
    assert LevelProposalLayer(9, 0.7, pre_nms_limit=30, anchor_stride=2).pre_nms_count(strided) == 30 + 12 + 3
    unknown = [(None, None, 2), (None, None, 4), (None, None, 4), (None, 15), *[(None, None, None, 5)] * 3]
    assert LevelProposalLayer(9, 0.7, pre_nms_limit=30).pre_nms_count(unknown) == 90


def test_layer():
    check_layer(
        LevelProposalLayer(3, 0.7, delta_limit=4.0, min_side=1.0), inputs([3.0, 2.0, 1.0, 0.0, 2.5], BOXES)
    )
