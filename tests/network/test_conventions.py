"""What the conventions of torchvision and Detectron2 change in the layers, by hand from their definitions."""

import numpy as np
import pytest
from tensor_tools import call, check_layer, run

from mrcnn import backend
from mrcnn.config import Config, Detectron2Config, TorchvisionConfig, TorchvisionV2Config
from mrcnn.config.conventions import CONVENTIONS, Conventions
from mrcnn.fast.native_roi_align import NativeROIAlign
from mrcnn.geometry import anchors as geometry_anchors
from mrcnn.network import box_ops, detection_targets, losses, roi_align
from mrcnn.network.anchors import Anchors
from mrcnn.network.convolution import Conv2D, MaxPooling2D
from mrcnn.network.detections import DetectionLayer
from mrcnn.network.normalization import BatchNorm
from mrcnn.network.roi_align import AVERAGE, AVERAGE_ALIGNED, PyramidROIAlign
from mrcnn.network.rpn import ObjectnessLogit

META = np.array([[0, 64, 64, 3, 64, 64, 3, 0, 0, 64, 64, 1, 1, 1]], "float32")


def ramp(rows, columns):
    """A map whose value is 100 * row + column."""
    return (100.0 * np.arange(rows)[:, None] + np.arange(columns)[None])[None, :, :, None].astype("float32")


MAPS = [ramp(64 // stride, 64 // stride) for stride in (4, 8, 16, 32)]


class TestRoiAlign:
    """A linear map has the value of the center of a bin as its mean, as long as no sample is clamped."""

    def pooled(self, box, method, size=2):
        boxes = np.array([[box]], "float32") / 64
        return run(PyramidROIAlign((size, size), method), [boxes, META, *MAPS])[0, 0, :, :, 0]

    def test_cells_at_their_upper_left_corner(self):
        # On P2: rows 2 to 6, columns 3 to 5. The centers of the bins are rows 3 and 5, columns 3.5 and 4.5.
        found = self.pooled([8, 12, 24, 20], AVERAGE)
        np.testing.assert_allclose(found, [[303.5, 304.5], [503.5, 504.5]], atol=1e-3)

    def test_cells_at_their_center(self):
        found = self.pooled([8, 12, 24, 20], AVERAGE_ALIGNED)
        np.testing.assert_allclose(found, np.array([[303.5, 304.5], [503.5, 504.5]]) - 50.5, atol=1e-3)

    def test_least_size_of_a_roi(self):
        # One pixel is a quarter of a cell. AVERAGE makes it a whole cell.
        np.testing.assert_allclose(self.pooled([8, 8, 9, 9], AVERAGE, 1), [[252.5]], atol=1e-3)
        np.testing.assert_allclose(self.pooled([8, 8, 9, 9], AVERAGE_ALIGNED, 1), [[164.125]], atol=1e-3)

    def test_samples_outside_read_the_outermost_cells(self):
        # Samples of the only bin lie at rows and columns -0.25 and 0.25, of which the first reads cell 0.
        found = self.pooled([0, 0, 4, 4], AVERAGE_ALIGNED, 1)
        np.testing.assert_allclose(found, [[0.125 * 101]], atol=1e-3)

    @pytest.mark.parametrize(("side", "level"), [(111, 2), (112, 3), (223, 3), (224, 4), (447, 4), (448, 5)])
    def test_levels_are_rounded_down(self, side, level):
        box = np.array([[[0, 0, side, side]]], "float32") / 512
        assert call(lambda x: roi_align.roi_levels(x, 512.0**2, AVERAGE), box).tolist() == [[level]]

    @pytest.mark.skipif(backend.crop_and_resize is None, reason="this backend has no such operator")
    @pytest.mark.parametrize("method", [AVERAGE, AVERAGE_ALIGNED])
    def test_native(self, method):
        rng = np.random.default_rng(0)
        corner = rng.uniform(0, 0.8, (2, 30, 2))
        boxes = np.concatenate([corner, np.minimum(corner + rng.uniform(0, 0.7, corner.shape), 1)], axis=-1)
        maps = [rng.normal(size=(2, *m.shape[1:3], 5)).astype("float32") for m in MAPS]
        arrays = [boxes.astype("float32"), np.tile(META, (2, 1)), *maps]
        plain, native = (run(cls((7, 7), method), arrays) for cls in (PyramidROIAlign, NativeROIAlign))
        np.testing.assert_allclose(native, plain, atol=2e-5)

    def test_layer(self):
        boxes = np.array([[[8, 12, 24, 20], [0, 0, 64, 64]]], "float32") / 64
        check_layer(PyramidROIAlign((2, 3), AVERAGE), [boxes, META, *MAPS])


class TestAnchors:
    def config(self, preset):
        config = preset()
        config.RPN_ANCHOR_SCALES = (8, 16, 32, 64, 128)
        return config

    def test_torchvision_rounds_half_sides(self):
        """Ratio 0.5: sides of 8 are 11.3 and 5.7, half of them 5.66 and 2.83, rounded 6 and 3."""
        first = geometry_anchors.pixel_anchors(self.config(TorchvisionConfig), (96, 64))[:3]
        np.testing.assert_array_equal(first, [[-6, -3, 6, 3], [-4, -4, 4, 4], [-3, -6, 3, 6]])

    def test_detectron2_does_not(self):
        first = geometry_anchors.pixel_anchors(self.config(Detectron2Config), (96, 64))[0]
        np.testing.assert_allclose(first, np.array([-4, -2, 4, 2]) * 2**0.5, rtol=1e-6)

    @pytest.mark.parametrize(("preset", "step"), [(TorchvisionConfig, 48), (Detectron2Config, 64)])
    def test_steps_of_a_level_that_does_not_divide_the_image(self, preset, step):
        """96 rows have two rows of P6: 96 // 2 pixels apart in torchvision."""
        anchors = geometry_anchors.pixel_anchors(self.config(preset), (96, 64))
        centers = (anchors[-6:, 0] + anchors[-6:, 2]) / 2
        np.testing.assert_allclose(centers, [0, 0, 0, step, step, step], atol=1e-9)

    @pytest.mark.parametrize("preset", [Config, TorchvisionConfig, Detectron2Config])
    def test_tensors_are_those_of_the_arrays(self, preset):
        config = self.config(preset)
        rules = config.conventions()
        layer = Anchors(
            config.RPN_ANCHOR_SCALES,
            config.RPN_ANCHOR_RATIOS,
            config.BACKBONE_STRIDES,
            rounded=rules.rounded_anchors,
            fill_image=rules.anchors_fill_image,
            half_open=rules.half_open_boxes,
        )
        found = check_layer(layer, np.zeros((1, 96, 64, 3), "float32"))[0]
        expected = geometry_anchors.AnchorCache(config).normalized((96, 64))
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_deltas_are_limited():
    box, delta = np.array([[10, 10, 20, 30]], "float32"), np.array([[0, 0, 9, np.log(2)]], "float32")
    found = call(lambda *x: box_ops.apply_box_deltas(*x, limit=np.log(3)), box, delta)
    np.testing.assert_allclose(found, [[0, 0, 30, 40]], rtol=1e-5)


class TestDetectionsPerClass:
    ROIS = np.array([[[0, 0, 32, 32], [0, 0, 32, 30], [40, 40, 60, 60], [0, 0, 0, 0]]], "float32") / 64

    def detections(self, scores, **settings):
        scores = np.array([scores], "float32")
        deltas = np.zeros((1, 4, 3, 4), "float32")
        settings = {"min_confidence": 0.05, "nms_threshold": 0.5, "max_instances": 5, **settings}
        return check_layer(
            DetectionLayer(per_class=True, half_open_boxes=True, **settings),
            [self.ROIS, scores, deltas, META],
        )[0]

    def test_every_class_above_the_threshold_counts(self):
        found = self.detections([[0.2, 0.5, 0.3], [0.1, 0.6, 0.3], [0.98, 0.02, 0.0], [0.0, 1.0, 0.0]])
        # Class 1: the second RoI suppresses the first. Class 2: equal scores, the first RoI comes first. The
        # last RoI is an empty slot.
        np.testing.assert_allclose(found[:, 4:], [[1, 0.6], [2, 0.3], [0, 0], [0, 0], [0, 0]], atol=1e-6)
        np.testing.assert_allclose(found[:2, :4] * 64, [[0, 0, 32, 30], [0, 0, 32, 32]], atol=1e-4)

    def test_one_class_keeps_its_scores_below_a_half(self):
        scores = np.array([[[0.7, 0.3], [0.6, 0.4], [0.9, 0.1], [1, 0]]], "float32")
        inputs = [self.ROIS, scores, np.zeros((1, 4, 2, 4), "float32"), META]
        settings = {"min_confidence": 0.2, "nms_threshold": 0.5, "max_instances": 3}
        np.testing.assert_array_equal(check_layer(DetectionLayer(**settings), inputs), np.zeros((1, 3, 6)))
        found = check_layer(DetectionLayer(per_class=True, **settings), inputs)[0]
        np.testing.assert_allclose(found[:, 4:], [[1, 0.4], [0, 0], [0, 0]], atol=1e-6)
        np.testing.assert_allclose(found[0, :4], self.ROIS[0, 1], atol=1e-6)

    def test_soft_nms_lowers_the_scores_within_each_class(self):
        scores = [[0.2, 0.5, 0.3], [0.1, 0.6, 0.3], [0.98, 0.02, 0.0], [0.0, 1.0, 0.0]]
        found = self.detections(scores, soft_nms_sigma=0.5)
        kept = np.exp(-((30 / 32) ** 2) / 0.5)
        expected = [[1, 0.6], [2, 0.3], [1, 0.5 * kept], [2, 0.3 * kept], [0, 0]]
        np.testing.assert_allclose(found[:, 4:], expected, atol=1e-5)

    def test_small_boxes_are_left_out(self):
        found = self.detections(
            [[0.2, 0.5, 0.3], [0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [1, 0, 0]], min_side=25.0, max_instances=2
        )
        np.testing.assert_allclose(found[:, 4:], [[1, 0.5], [2, 0.3]], atol=1e-6)


class TestLosses:
    def test_smooth_l1(self):
        zeros, values = np.zeros(3, "float32"), np.array([0.05, 0.5, -2], "float32")
        found = call(lambda *x: losses.smooth_l1_loss(*x, beta=0.1), zeros, values)
        np.testing.assert_allclose(found, [0.0125, 0.45, 1.95], rtol=1e-5)
        found = call(lambda *x: losses.smooth_l1_loss(*x, beta=0.0), zeros, values)
        np.testing.assert_allclose(found, [0.05, 0.5, 2], rtol=1e-5)

    def test_rpn_deltas_are_divided_by_all_samples(self):
        match = np.array([[[1], [-1], [0], [-1]]], "int32")
        target, found = np.zeros((1, 2, 4), "float32"), np.full((1, 4, 4), 2.0, "float32")
        loss = call(lambda *x: losses.rpn_bbox_loss(*x, per_sample=True), target, match, found)
        np.testing.assert_allclose(loss, 4 * 1.5 / 3, rtol=1e-6)

    def test_roi_deltas_are_divided_by_all_rois(self):
        class_ids, is_roi = np.array([[1, 0, 0]], "int32"), np.array([[True, True, False]])
        found = np.full((1, 3, 2, 4), 2.0, "float32")
        loss = call(
            lambda *x: losses.mrcnn_bbox_loss(*x[:3], is_roi=x[3]),
            np.zeros((1, 3, 4), "float32"),
            class_ids,
            found,
            is_roi,
        )
        np.testing.assert_allclose(loss, 4 * 1.5 / 2, rtol=1e-6)

    def test_empty_slots_do_not_count_in_the_class_loss(self):
        logits = np.array([[[0, 0], [0, 0], [0, 9]]], "float32")
        loss = call(
            lambda *x: losses.mrcnn_class_loss(*x[:3], is_roi=x[3]),
            np.array([[1, 0, 0]], "int32"),
            logits,
            np.ones((1, 2), "float32"),
            np.array([[True, True, False]]),
        )
        np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)


def test_negatives_fill_the_sample():
    positive = np.array([[True, False, False, False, False, False]])
    index, positives, total = call(
        lambda *x: detection_targets.sample_rois(*x, 5, 0.25, negatives_fill=True),
        positive,
        ~positive,
        np.linspace(1, 0, 6, dtype="float32")[None],
    )
    assert (positives.tolist(), total.tolist()) == ([1], [5])
    assert index.tolist() == [[0, 1, 2, 3, 4]]


def test_the_background_has_no_logit():
    logits = np.array([[[3.0, 1.0], [0.0, -2.0]]], "float32")
    found = check_layer(ObjectnessLogit(), logits)
    np.testing.assert_array_equal(found, [[[0, 1], [0, -2]]])


class TestSymmetricPadding:
    """With stride 2, output i is centered on cell 2i; TensorFlow's "same" centers it on 2i + 1."""

    X = np.arange(8, dtype="float32").reshape(1, 8, 1, 1) * np.ones((1, 1, 8, 1), "float32")

    def test_convolution(self):
        layer = Conv2D(1, 3, strides=2, padding="same", symmetric=True, use_bias=False)
        layer.build(self.X.shape)
        kernel = np.zeros((3, 3, 1, 1), "float32")
        kernel[1, 1] = 1
        layer.set_weights([kernel])
        assert check_layer(layer, self.X)[0, :, 0, 0].tolist() == [0, 2, 4, 6]

    def test_pooling(self):
        layer = MaxPooling2D(3, strides=2, padding="same", symmetric=True)
        assert check_layer(layer, self.X)[0, :, 0, 0].tolist() == [1, 3, 5, 7]


def test_frozen_batch_norm_never_trains():
    layer = BatchNorm(train_bn=False, frozen=True)
    layer.build((None, 4, 4, 2))
    layer.trainable = True
    assert layer.trainable_variables == []
    assert not layer.gamma.trainable
    layer = BatchNorm(train_bn=False)
    layer.build((None, 4, 4, 2))
    layer.trainable = False
    layer.trainable = True
    assert len(layer.trainable_variables) == 2


@pytest.mark.parametrize("preset", [TorchvisionConfig, TorchvisionV2Config, Detectron2Config])
def test_presets_are_valid_and_survive_a_record(preset):
    config = preset()
    config.validate()
    again = Config.from_dict(config.to_dict())
    assert again.to_dict() == config.to_dict()
    assert again.conventions() == CONVENTIONS[config.CONVENTIONS]


def test_the_default_is_the_keras_2_library():
    assert Config().conventions() == Conventions()
