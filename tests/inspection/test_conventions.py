"""The steps of networks that follow torchvision or Detectron2, against numpy and against `detect`."""

import contextlib

import numpy as np
import pytest
from tiny_model import TinyConfig, vary_masks
from toy_data import ArrayDataset, rectangles

from mrcnn import inspection
from mrcnn.config import Config
from mrcnn.data.generator import DataGenerator
from mrcnn.geometry import boxes
from mrcnn.inspection import tensors
from mrcnn.model import MaskRCNN

LIMIT = 100
# Three anchors at each of 16 x 16, 8 x 8, 4 x 4, 2 x 2 and 1 location.
ANCHORS_PER_LEVEL = (768, 192, 48, 12, 3)
BEFORE_NMS = 100 + 100 + 48 + 12 + 3
SIDE = 64

pytestmark = pytest.mark.usefixtures("close_figures", "eager_tensorflow")


@pytest.fixture(scope="module", params=["torchvision", "detectron2"])
def detector(request, build_detector):
    """An untrained network whose heads have varied outputs, and deltas that move boxes out of the image."""
    config = TinyConfig()
    config.CONVENTIONS = request.param
    config.PRE_NMS_LIMIT = LIMIT
    config.DETECTION_MIN_CONFIDENCE = 0.5
    config.DETECTION_MAX_INSTANCES = 40
    return vary_masks(build_detector(config, rpn_deltas=5.0, logits=8.0, deltas=4.0))


@contextlib.contextmanager
def changed(layer, bias):
    """Let the output of a linear layer be constant."""
    before = layer.get_weights()
    layer.set_weights([np.zeros_like(before[0]), np.array(bias)])
    yield
    layer.set_weights(before)


@pytest.fixture(scope="module")
def anchors(detector, image):
    return inspection.sort_anchors(detector, image)


def rows_of(best, anchors):
    """Which anchors these are."""
    index = {tuple(row): i for i, row in enumerate(np.rint(anchors).astype(int).tolist())}
    assert len(index) == len(anchors)
    return np.array([index[tuple(row)] for row in best.tolist()])


@pytest.fixture(scope="module")
def expected(anchors):
    """The best anchors of each level, the best first: rows, refined boxes, clipped boxes and levels."""
    ends = np.cumsum(ANCHORS_PER_LEVEL)
    order = [
        start + np.argsort(-anchors.scores[start:end], kind="stable")[:LIMIT]
        for start, end in zip((0, *ends), ends, strict=False)
    ]
    levels = np.repeat(np.arange(5), [len(rows) for rows in order])
    rows = np.concatenate(order)
    assert len(rows) == BEFORE_NMS
    refined = boxes.apply_box_deltas(anchors.anchors[rows], anchors.deltas[rows])
    clipped = boxes.clip_boxes(refined, anchors.input.window)
    sides = (clipped[:, 2:] - clipped[:, :2]).min(axis=1)
    assert sides[sides > 0].min() > 1e-2  # the shortest side that torchvision allows is 1e-3
    by_score = np.argsort(-anchors.scores[rows], kind="stable")
    by_score = by_score[sides[by_score] > 0]
    return rows[by_score], refined[by_score], clipped[by_score], levels[by_score]


class TestAnchors:
    def test_the_best_of_each_level_are_refined_and_clipped_as_in_numpy(self, anchors, expected):
        rows, refined, clipped, _ = expected
        assert LIMIT < len(rows) < BEFORE_NMS  # some lie outside of the image
        assert len(anchors.best) == len(rows)
        np.testing.assert_array_equal(rows_of(anchors.best, anchors.anchors), rows)
        np.testing.assert_array_equal(anchors.best_scores, anchors.scores[rows])
        assert (np.diff(anchors.best_scores) <= 0).all()
        np.testing.assert_allclose(anchors.refined, refined, atol=0.51, rtol=1e-4)
        np.testing.assert_allclose(anchors.clipped, clipped, atol=0.51)
        assert (anchors.refined != anchors.best).any() and (anchors.refined != anchors.clipped).any()

    def test_suppressed_within_levels_as_in_numpy(self, anchors, expected, detector):
        _, _, clipped, levels = expected
        ranks = np.arange(len(clipped), 0, -1)
        kept = []
        for level in np.unique(levels):
            rows = np.flatnonzero(levels == level)
            threshold = detector.config.RPN_NMS_THRESHOLD
            kept.append(rows[boxes.non_max_suppression(clipped[rows], ranks[rows], threshold)])
        kept = np.sort(np.concatenate(kept))[: detector.config.POST_NMS_ROIS_INFERENCE]
        assert anchors.kept.ndim == 1 and anchors.kept.dtype.kind == "i"
        np.testing.assert_array_equal(anchors.kept, kept)
        np.testing.assert_array_equal(anchors.proposals, anchors.clipped[anchors.kept])

    def test_shapes_of_the_symbolic_steps(self, detector):
        roi = detector.keras_model.get_layer("ROI").output
        for name in ("pre_nms_anchors", "refined_anchors", "refined_anchors_clipped"):
            assert detector.ancestor(roi, f"ROI/{name}:0").shape == (None, BEFORE_NMS, 4)
        assert detector.ancestor(roi, "ROI/pre_nms_anchor_ix:0").shape == (None, BEFORE_NMS)
        assert detector.ancestor(roi, "ROI/rpn_non_max_suppression:0").shape == (None, 40)

    def test_figures_count_the_boxes(self, anchors):
        def titles(figure):
            return [ax.get_title() for ax in figure.axes if ax.get_title()]

        assert titles(inspection.draw_top_anchors(anchors, limit=7)) == ["7 best of 1023 anchors"]
        assert titles(inspection.draw_proposals(anchors, limit=20)) == [
            f"20 best of {len(anchors.best)} boxes before NMS",
            f"20 best of {len(anchors.proposals)} boxes after NMS: proposals",
        ]


def test_no_box_of_the_image_enters_nms(detector, image):
    """Every delta moves its box far below the image."""
    layer = detector.keras_model.get_layer("rpn_model").get_layer("rpn_bbox_pred")
    with changed(layer, [1000.0, 0, 0, 0] * 3):
        anchors = inspection.sort_anchors(detector, image)
    for values in (anchors.best, anchors.best_scores, anchors.clipped, anchors.kept, anchors.proposals):
        assert len(values) == 0
    inspection.draw_top_anchors(anchors).canvas.draw()
    inspection.draw_proposals(anchors).canvas.draw()


@pytest.mark.parametrize(("conventions", "limit"), [("keras2", np.inf), ("torchvision", np.log(62.5))])
def test_deltas_have_the_factors_and_the_limit_of_the_network(conventions, limit):
    config = Config()
    config.CONVENTIONS = conventions
    outputs = np.array([[30.0, -2.0, 30.0, -30.0]], np.float32)
    found = tensors.applied_deltas(outputs, [0.1, 0.1, 0.2, 0.2], config)
    np.testing.assert_allclose(found, [[3.0, -0.2, min(6.0, limit), -6.0]], rtol=1e-6)
    assert outputs[0, 2] == 30.0


def test_boxes_in_numpy_are_the_networks_detections(detector, image):
    """A score of at least 0.5: no other class of an RoI can become a detection. Class 3 leaves the image."""
    layer = detector.keras_model.get_layer("mrcnn_bbox_fc")
    bias = np.zeros((4, 4))
    bias[3, 0] = 1000.0
    with changed(layer, bias.ravel()):
        refined = inspection.refine_boxes(detector, image)
    outside = refined.is_confident & (refined.class_ids == 3)
    assert outside.any() and (refined.refined[outside, 2] == refined.refined[outside, 0]).all()
    order = np.flatnonzero(refined.is_kept)
    order = order[np.argsort(-refined.scores[order], kind="stable")]
    assert len(order) > 1
    np.testing.assert_array_equal(refined.class_ids[order], refined.detection_class_ids)
    np.testing.assert_allclose(refined.scores[order], refined.detection_scores, atol=1e-6)
    np.testing.assert_allclose(refined.refined[order], refined.detection_boxes, atol=1)


def test_masks_are_those_of_the_result(detector):
    """An image of the size of the network is neither resized nor padded."""
    result = inspection.compose_result(detector, rectangles(3, shape=(SIDE, SIDE))[0])
    assert len(result.scores) > 1
    np.testing.assert_array_equal(result.generated.boxes, result.rois)
    assert result.masks.any()
    np.testing.assert_array_equal(result.generated.masks, result.masks)


@pytest.fixture(scope="module")
def pooled(detector, image):
    return inspection.pool_rois(detector, image, np.array([[8, 16, 40, 48], [0, 0, SIDE, SIDE]]))


class TestRoiAlign:
    def test_samples_in_cells(self, pooled, detector):
        # P2 has 16 cells for 64 pixels. 14 samples divide 8 cells.
        shift = {"torchvision": 0.0, "detectron2": 0.5}[detector.config.CONVENTIONS]
        samples = (np.arange(14) + 0.5) * 8 / 14 - shift
        np.testing.assert_allclose(pooled.sample_rows[0], 2 + samples, rtol=1e-5)
        np.testing.assert_allclose(pooled.sample_columns[0], 4 + samples, rtol=1e-5)
        np.testing.assert_allclose(
            pooled.outlines, np.array([[2, 4, 10, 12], [0, 0, 16, 16]]) - shift, atol=1e-5
        )

    def test_roi_pool_rounds_half_open_boxes(self, pooled):
        # From cell 2 to cell 10 at the other edge, as in torchvision: nine cells for seven bins.
        assert pooled.bin_rows[0, [0, -1]].tolist() == [[2, 4], [9, 11]]
        assert pooled.bin_columns[0, [0, -1]].tolist() == [[4, 6], [11, 13]]

    def test_figure_has_the_samples_where_the_roi_is(self, pooled):
        on_image, on_level = inspection.draw_pooled_rois(pooled, limit=1).axes[:2]
        # matplotlib's coordinates are 0 at the center of the first pixel.
        offsets = np.asarray(on_image.collections[0].get_offsets()) + 0.5
        step = 32 / 14
        np.testing.assert_allclose(offsets[0], [16 + step / 2, 8 + step / 2], atol=1e-3)
        np.testing.assert_allclose(offsets[-1], [48 - step / 2, 40 - step / 2], atol=1e-3)
        corners = on_image.lines[0].get_xydata() + 0.5
        np.testing.assert_allclose([corners.min(axis=0), corners.max(axis=0)], [[16, 8], [48, 40]], atol=1e-3)
        corners = on_level.lines[0].get_xydata()
        np.testing.assert_allclose(corners.min(axis=0), pooled.outlines[0, 1::-1], atol=1e-5)


def striped_dataset():
    """Images of rectangles with masks of diagonal stripes, so that many cells are partly inside."""
    items = [rectangles(seed) for seed in range(2)]
    stripes = np.indices(items[0][0].shape[:2]).sum(axis=0) % 5 < 3
    return ArrayDataset((image, masks & stripes[..., None], ids) for image, masks, ids in items)


def test_soft_mask_targets_count_by_their_fraction(tmp_path):
    config = TinyConfig()
    config.CONVENTIONS = "torchvision"
    trainer = MaskRCNN("training", config, tmp_path)
    losses = inspection.mask_losses(trainer, DataGenerator(striped_dataset(), config, shuffle=False)[0][0])
    targets, p = losses.targets, losses.predictions
    assert ((targets > 0.01) & (targets < 0.99)).any()
    expected = -(targets * np.log(p) + (1 - targets) * np.log(1 - p))
    np.testing.assert_allclose(losses.pixel_losses, expected, rtol=1e-4, atol=1e-6)
