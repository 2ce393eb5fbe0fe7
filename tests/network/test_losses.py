"""The five losses: values worked out by hand, empty samples, NaN that must not leak, gradients."""

import math

import numpy as np
import pytest
from tensor_tools import call, gradients, tensor

from mrcnn.network import losses

ln = math.log


def test_smooth_l1():
    found = call(losses.smooth_l1_loss, np.zeros(6, "float32"), np.array([0, 0.5, -0.5, 1, -3, 4], "float32"))
    np.testing.assert_allclose(found, [0, 0.125, 0.125, 0.5, 2.5, 3.5])


class TestRpnClass:
    def test_by_hand(self):
        """Only the positive and the negative anchor count: -ln 3/4 and -ln 1/2."""
        match = np.array([[[1], [0]], [[-1], [0]]], "int32")
        logits = np.array([[[0, ln(3)], [9, -9]], [[2, 2], [5, 0]]], "float32")
        loss = call(losses.rpn_class_loss, match, logits)
        assert loss == pytest.approx((ln(4 / 3) + ln(2)) / 2, rel=1e-6)

    def test_zero_without_targets(self):
        assert call(losses.rpn_class_loss, np.zeros((2, 5, 1), "int32"), np.ones((2, 5, 2), "float32")) == 0

    def test_neutral_anchors_do_not_leak(self):
        match = np.array([[[1], [0], [0]]], "int32")
        logits = np.array([[[0, 0], [np.nan, 1], [np.inf, -np.inf]]], "float32")
        assert call(losses.rpn_class_loss, match, logits) == pytest.approx(ln(2), rel=1e-6)

    def test_large_logits_stay_finite(self):
        match = np.array([[[1], [-1]]], "int32")
        logits = np.array([[[1e4, -1e4], [1e4, -1e4]]], "float32")
        assert call(losses.rpn_class_loss, match, logits) == pytest.approx(1e4)


class TestRpnBbox:
    match = np.array([[[0], [1], [-1], [1]], [[1], [0], [0], [0]]], "int32")

    def test_by_hand(self):
        """Targets belong to the positives in order: image 0 has anchors 1 and 3, image 1 anchor 0."""
        deltas = np.full((2, 4, 4), 77, "float32")
        deltas[0, 1] = (1, 0, 0, 0)
        deltas[0, 3] = (0, 0, 0, 4)
        deltas[1, 0] = (0, 0.5, 0, 0)
        targets = np.zeros((2, 3, 4), "float32")
        targets[0, 1] = (0, 0, 0, 1)  # the second target is that of anchor 3
        loss = call(losses.rpn_bbox_loss, targets, self.match, deltas)
        assert loss == pytest.approx((0.5 + 2.5 + 0.125) / 12, rel=1e-6)

    def test_zero_without_positives(self):
        match = np.array([[[-1], [0]]], "int32")
        assert call(losses.rpn_bbox_loss, np.ones((1, 3, 4)), match, np.full((1, 2, 4), 5, "float32")) == 0

    def test_other_anchors_do_not_leak(self):
        deltas = np.full((2, 4, 4), np.nan, "float32")
        deltas[0, 1] = deltas[0, 3] = deltas[1, 0] = 0
        targets = np.zeros((2, 3, 4), "float32")
        targets[:, 2] = np.nan
        assert call(losses.rpn_bbox_loss, targets, self.match, deltas) == 0

    def test_targets_in_float64(self):
        """As data pipelines produce them."""
        found = call(losses.rpn_bbox_loss, np.ones((2, 3, 4)), self.match, np.ones((2, 4, 4), "float32"))
        assert (found.dtype, found) == (np.float32, 0)


class TestClass:
    logits = np.array([[[0, 0, 0], [ln(2), 0, 0]], [[0, 0, ln(6)], [0, ln(2), 0]]], "float32")
    ids = np.array([[1, 0], [2, 1]], "int32")
    each = (ln(3), ln(2), ln(8 / 6), ln(2))

    def test_by_hand(self):
        active = np.ones((2, 3), "float32")
        loss = call(losses.mrcnn_class_loss, self.ids, self.logits, active)
        assert loss == pytest.approx(sum(self.each) / 4, rel=1e-6)

    def test_rois_predicted_as_an_inactive_class_do_not_count(self):
        """Class 2 is not active in the first image. The flags of the second image are not read."""
        active = np.array([[1, 1, 0], [0, 0, 1]], "float32")
        loss = call(losses.mrcnn_class_loss, self.ids, self.logits, active)
        assert loss == pytest.approx((self.each[0] + self.each[1] + self.each[3]) / 3, rel=1e-6)

    @pytest.mark.parametrize("flags", [(0, 0, 0), (1, 0, 0)])
    def test_zero_without_an_roi_that_counts(self, flags):
        """All RoIs are predicted as classes that are not active in the first image."""
        logits = np.array([[[0, 1, 0], [0, 2, 0]], [[0, 0, 6], [0, 2, 0]]], "float32")
        active = np.array([flags, (1, 1, 1)], "float32")
        assert call(losses.mrcnn_class_loss, self.ids, logits, active) == 0
        ids, flags = tensor(self.ids), tensor(active)
        (gradient,) = gradients(lambda x: losses.mrcnn_class_loss(ids, x, flags), logits)
        assert (gradient == 0).all()


class TestBbox:
    ids = np.array([[2, 0, 1]], "int32")

    def test_by_hand(self):
        predicted = np.full((1, 3, 3, 4), 50, "float32")
        predicted[0, 0, 2] = (0.5, 0, 0, 0)
        predicted[0, 2, 1] = (0, 3, 0, 0)
        loss = call(losses.mrcnn_bbox_loss, np.zeros((1, 3, 4), "float32"), self.ids, predicted)
        assert loss == pytest.approx((0.125 + 2.5) / 8, rel=1e-6)

    def test_zero_without_positives(self):
        arguments = np.ones((2, 3, 4), "float32"), np.zeros((2, 3), "int32"), np.ones((2, 3, 5, 4), "float32")
        assert call(losses.mrcnn_bbox_loss, *arguments) == 0

    def test_background_and_other_classes_do_not_leak(self):
        predicted = np.full((1, 3, 3, 4), np.nan, "float32")
        predicted[0, 0, 2] = predicted[0, 2, 1] = 1
        targets = np.ones((1, 3, 4), "float32")
        targets[0, 1] = np.inf
        assert call(losses.mrcnn_bbox_loss, targets, self.ids, predicted) == 0

    def test_gradient(self):
        predicted = np.zeros((1, 3, 3, 4), "float32")
        predicted[0, 0, 2] = (0.5, -2, 0, 0)
        targets, ids = tensor(np.zeros((1, 3, 4), "float32")), tensor(self.ids)
        gradient = gradients(lambda x: losses.mrcnn_bbox_loss(targets, ids, x), predicted)[0]
        expected = np.zeros_like(predicted)
        expected[0, 0, 2] = (0.5 / 8, -1 / 8, 0, 0)
        np.testing.assert_allclose(gradient, expected, atol=1e-7)


class TestMask:
    ids = np.array([[1, 0]], "int32")

    def test_by_hand(self):
        predicted = np.full((1, 2, 1, 2, 3), 0.01, "float32")
        predicted[0, 0, 0, :, 1] = (0.75, 0.5)
        target = np.array([[[[1, 0]], [[1, 1]]]], "float32")
        loss = call(losses.mrcnn_mask_loss, target, self.ids, predicted)
        assert loss == pytest.approx((ln(4 / 3) + ln(2)) / 2, rel=1e-5)

    def test_certain_and_wrong_is_finite(self):
        predicted = np.zeros((1, 2, 2, 2, 3), "float32")
        loss = call(losses.mrcnn_mask_loss, np.ones((1, 2, 2, 2), "float32"), self.ids, predicted)
        assert loss == pytest.approx(-ln(1e-7), rel=1e-4)

    def test_zero_without_positives(self):
        arguments = np.ones((1, 2, 2, 2), "float32"), self.ids * 0, np.zeros((1, 2, 2, 2, 3), "float32")
        assert call(losses.mrcnn_mask_loss, *arguments) == 0

    def test_background_and_other_classes_do_not_leak(self):
        predicted = np.full((1, 2, 1, 1, 3), np.nan, "float32")
        predicted[0, 0, ..., 1] = 0.5
        loss = call(losses.mrcnn_mask_loss, np.ones((1, 2, 1, 1), "float32"), self.ids, predicted)
        assert loss == pytest.approx(ln(2), rel=1e-6)


RNG = np.random.default_rng(1)
MATCH = np.array([[[1], [-1], [1]], [[0], [0], [-1]]], "int32")
IDS = np.array([[2, 1, 0], [0, 0, 1]], "int32")
# Arguments of each loss for a batch of two images in which unequal numbers of rows count.
BATCHES = {
    "rpn_class_loss": (MATCH, RNG.normal(size=(2, 3, 2))),
    "rpn_bbox_loss": (RNG.normal(size=(2, 3, 4)), MATCH, RNG.normal(size=(2, 3, 4))),
    "mrcnn_class_loss": (IDS, RNG.normal(size=(2, 3, 3)), np.array([[1, 0, 1]] * 2)),
    "mrcnn_bbox_loss": (RNG.normal(size=(2, 3, 4)), IDS, RNG.normal(size=(2, 3, 3, 4))),
    "mrcnn_mask_loss": (RNG.integers(0, 2, (2, 3, 2, 2)), IDS, RNG.uniform(0.1, 0.9, (2, 3, 2, 2, 3))),
}


@pytest.mark.parametrize("name", BATCHES)
def test_the_mean_of_two_devices_is_the_loss_of_the_batch(name):
    loss = getattr(losses, name)
    arrays = [x if x.dtype == np.int32 else x.astype("float32") for x in BATCHES[name]]
    parts = [[x[image : image + 1] for x in arrays] for image in (0, 1)]

    def count_of(*inputs):
        counts = []
        loss(*inputs, mean_count=lambda count: counts.append(count) or count)
        return counts[0]

    counts = [float(call(count_of, *part)) for part in parts]
    assert counts[0] != counts[1]
    mean_count = np.float32(np.mean(counts))
    found = [call(lambda *x: loss(*x, mean_count=lambda _: mean_count), *part) for part in parts]
    expected = call(loss, *arrays)
    assert expected > 0
    assert np.mean(found) == pytest.approx(expected, rel=1e-5)
