"""Anchors and drawings of `samples.training_targets`."""

import matplotlib.pyplot
import numpy as np
import pytest
from matplotlib.figure import Figure

import mrcnn
from mrcnn.geometry import anchors
from samples import training_targets


@pytest.mark.parametrize("preset", [mrcnn.Config, mrcnn.TorchvisionConfig, mrcnn.Detectron2Config])
@pytest.mark.parametrize("stride", [1, 2])
def test_anchors_follow_the_conventions(preset, stride):
    config = preset()
    config.RPN_ANCHOR_STRIDE = stride
    levels = training_targets.anchors_by_level(config, (800, 1088, 3))
    assert np.array_equal(np.concatenate(levels), anchors.pixel_anchors(config, (800, 1088)))
    shapes = anchors.backbone_shapes(config, (800, 1088))
    rows_and_columns = -(-shapes // stride)
    assert [len(level) for level in levels] == (3 * rows_and_columns.prod(axis=1)).tolist()


def test_drawings_are_figures():
    image = np.zeros((128, 128, 3), np.uint8)
    targets = training_targets.RoiTargets(
        np.array([[10, 20, 60, 80]]), np.array([1]), np.array([[12, 20, 60, 84]]), np.ones((1, 28, 28))
    )
    draw_anchors, draw_masks = training_targets.draw_center_anchors, training_targets.draw_roi_masks
    for figure in (draw_anchors(image, mrcnn.Config()), draw_masks(image, targets, ["BG", "coin"])):
        assert isinstance(figure, Figure)
        matplotlib.pyplot.close(figure)
    assert {draw.__annotations__["return"] for draw in (draw_anchors, draw_masks)} == {"Figure"}
