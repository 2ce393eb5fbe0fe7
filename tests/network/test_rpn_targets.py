"""RPN targets as tensors against `data.rpn_targets`, whose own test compares it with the recordings."""

import re

import numpy as np
import pytest
from golden_files import golden_params, load
from tensor_tools import array, call, check_layer, run
from toy_data import ToyConfig, recorded_config

from mrcnn.data.rpn_targets import build_rpn_targets
from mrcnn.geometry.anchors import AnchorCache
from mrcnn.geometry.boxes import compute_overlaps
from mrcnn.network.rpn_targets import RpnTargetLayer, match_anchors


def layer_of(config, **options):
    """The layer that `graphs.training_graph` builds for a Config."""
    return RpnTargetLayer(
        scales=config.RPN_ANCHOR_SCALES,
        ratios=config.RPN_ANCHOR_RATIOS,
        strides=config.BACKBONE_STRIDES,
        anchor_stride=config.RPN_ANCHOR_STRIDE,
        positive_iou=config.RPN_POSITIVE_IOU,
        negative_iou=config.RPN_NEGATIVE_IOU,
        crowd_iou=config.CROWD_IOU,
        anchors_per_image=config.RPN_TRAIN_ANCHORS_PER_IMAGE,
        bbox_std_dev=config.RPN_BBOX_STD_DEV,
        **options,
    )


def pixel_anchors(config, shape):
    return AnchorCache(config).of(shape)


def padded(cases, slots=12):
    """Class ids [B, slots] and boxes [B, slots, 4] of several images."""
    class_ids = np.zeros((len(cases), slots), "int32")
    boxes = np.zeros((len(cases), slots, 4), "float32")
    for row, (ids, gt_boxes) in enumerate(cases):
        class_ids[row, : len(ids)] = ids
        boxes[row, : len(ids)] = np.reshape(gt_boxes, (-1, 4))
    return class_ids, boxes


def compare(config, shape, cases):
    """Yield the matches of the layer and of the NumPy function for each image, with all anchors sampled.

    The deltas must be equal. Where the matches differ, an IoU must be a tie or at a threshold up to rounding.
    """
    config.RPN_TRAIN_ANCHORS_PER_IMAGE = 200_000
    layer = layer_of(config, shuffle=False)
    images = np.zeros((len(cases), *shape[:2], 3), "float32")
    match, bbox = run(layer, [images, *padded(cases)])
    anchors = pixel_anchors(config, shape)
    for row, (ids, boxes) in enumerate(cases):
        expected, deltas = build_rpn_targets(shape, anchors, np.asarray(ids), boxes, config)
        different = np.flatnonzero(match[row, :, 0] != expected)
        assert len(different) <= 0.01 * len(anchors)
        assert all(is_borderline(anchors, index, ids, boxes) for index in different)
        both = np.flatnonzero((match[row, :, 0] == 1) & (expected == 1))
        slot = np.cumsum(match[row, :, 0] == 1)[both] - 1
        np.testing.assert_allclose(
            bbox[row, slot], deltas[(np.cumsum(expected == 1) - 1)[both]], rtol=2e-5, atol=2e-5
        )
        assert not bbox[row, (match[row] == 1).sum() :].any()
        yield match[row, :, 0], expected


def is_borderline(anchors, index, ids, boxes):
    """Whether an anchor's best IoU equals that of another anchor, or a threshold, up to rounding."""
    boxes = np.asarray(boxes, "float64")[np.asarray(ids) > 0]
    overlaps = compute_overlaps(anchors, boxes)
    best = overlaps.max(axis=0)
    tie = np.isclose(overlaps[index], best, rtol=3e-6, atol=0) & (best > 0)
    threshold = np.isclose(overlaps[index].max(), [0.3, 0.7], rtol=1e-5)
    return tie.any() or threshold.any()


@pytest.mark.parametrize("path", golden_params("utils_data*.npz"))
def test_equals_numpy_on_the_recordings(path):
    recording = load(path)
    names = {re.fullmatch(r"gt_(\w+)_full(\d+)_rpn_match", key) for key in recording}
    equal = 0
    for name in filter(None, names):
        before = name.group(0).removesuffix("rpn_match")
        config = recorded_config(recording, name.group(1))
        case = (recording[f"{before}class_ids"], recording[f"{before}bbox"])
        for ours, _ in compare(config, recording[f"{before}image"].shape, [case]):
            equal += np.array_equal(ours, recording[f"{before}rpn_match"])
    assert equal > 0
    crowd = (recording["crowdall_class_ids"], recording["crowdall_boxes"])
    config = recorded_config(recording)
    for ours, _ in compare(config, tuple(config.IMAGE_SHAPE), [crowd]):
        np.testing.assert_array_equal(ours, recording["crowdall_rpn_match"])


def test_equals_numpy_for_every_kind_of_ground_truth():
    box = [20, 30, 61, 75]
    cases = [
        ([1, 2], [box, box]),  # equal overlaps: the first counts
        ([3, -1, 2], [box, [0, 0, 128, 40], [70, 80, 74, 84]]),  # a crowd; an object smaller than any anchor
        ([-2], [box]),  # a crowd alone
        ([1, 1], [[900, 900, 950, 950], box]),  # an object that no anchor touches
        ([1], [[900, 900, 950, 950]]),
        ([1, 2, 3], [[0, 0, 128, 128], [3, 5, 19, 20], [100, 2, 128, 9]]),
    ]
    results = list(compare(ToyConfig(), (128, 128), cases))
    assert not (results[2][0] == 1).any()
    assert not (results[4][0] == 1).any()
    assert (results[2][0] == 0).any()
    np.testing.assert_array_equal(results[4][0], results[4][1])


@pytest.mark.parametrize("seed", range(3))
def test_equals_numpy_for_random_ground_truth(seed):
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 100, (2, 8, 2))
    boxes = np.concatenate([corner, corner + rng.integers(2, 90, (2, 8, 2))], axis=-1)
    ids = rng.choice([-1, 1, 2, 3], (2, 8))
    assert len(list(compare(ToyConfig(), (128, 192), list(zip(ids, boxes, strict=True))))) == 2


def test_ties_do_not_depend_on_the_location():
    """All anchors that contain a small object are equally good, however far they are from the origin."""
    config = ToyConfig()
    config.RPN_ANCHOR_SCALES = (32,) * 5
    config.RPN_ANCHOR_RATIOS = [0.5]
    (match, _) = next(iter(compare(config, (1024, 64), [([1], [[1001, 31, 1003, 33]])])))
    anchors = pixel_anchors(config, (1024, 64))
    holds = (anchors[:, :2] <= [1001, 31]).all(axis=1) & (anchors[:, 2:] >= [1003, 33]).all(axis=1)
    np.testing.assert_array_equal(match == 1, holds)


def test_the_sample_is_balanced_and_random():
    config = ToyConfig()
    config.RPN_TRAIN_ANCHORS_PER_IMAGE = 9
    config.RPN_POSITIVE_IOU = 0.4
    inputs = [
        np.zeros((2, 128, 128, 3), "float32"),
        *padded([([1, 2], [[1, 2, 63, 61], [40, 40, 101, 90]])] * 2),
    ]
    layer = layer_of(config, seed=1)
    samples = [run(layer, inputs) for _ in range(2)]
    for match, bbox in samples:
        assert (match == 1).sum(axis=1).tolist() == [[4], [4]]
        assert (match == -1).sum(axis=1).tolist() == [[5], [5]]
        assert bbox.shape == (2, 9, 4)
        assert bbox[:, :4].any(axis=2).all()
        assert not bbox[:, 4:].any()
    assert not np.array_equal(samples[0][0][0], samples[0][0][1])
    full = ToyConfig()
    full.RPN_TRAIN_ANCHORS_PER_IMAGE, full.RPN_POSITIVE_IOU = 200_000, 0.4
    everything, deltas = run(layer_of(full, shuffle=False), inputs)
    match, bbox = samples[0]
    assert (everything[match == 1] == 1).all()
    assert (everything[match == -1] == -1).all()
    for row in range(2):  # deltas are in the order of the positive anchors
        slot = np.cumsum(everything[row, :, 0] == 1)[match[row, :, 0] == 1] - 1
        np.testing.assert_array_equal(bbox[row, :4], deltas[row, slot])


def test_shapes_and_configuration():
    config = ToyConfig()
    images = np.zeros((2, 64, 128, 3), "float32")
    layer = layer_of(config, shuffle=False)
    inputs = [images, *padded([([1], [[2, 3, 40, 50]]), ([2], [[30, 30, 64, 100]])])]
    match, bbox = check_layer(layer, inputs)
    assert match.shape == (2, 3 * (16 * 32 + 8 * 16 + 4 * 8 + 2 * 4 + 1 * 2), 1)
    assert bbox.shape == (2, 256, 4)
    assert set(np.unique(match)) == {-1, 0, 1}


def test_match_anchors_by_hand():
    """Boxes of unequal number; the padding between two objects of an image does not count."""
    center = np.array([[4.0, 4.0], [20.0, 20.0]], "float32")
    half = np.array([[4.0, 4.0], [4.0, 4.0]], "float32")
    ids, boxes = padded([([1], [[0, 0, 8, 8]]), ([0, 0, 2], [[0] * 4, [0] * 4, [16, 16, 24, 28]])])
    best, iou, best_for_some_gt, crowd = (array(x) for x in call(match_anchors, center, half, ids, boxes))
    np.testing.assert_array_equal(best, [[0, 0], [0, 2]])
    np.testing.assert_allclose(iou, [[1, 0], [0, 64 / 96]], rtol=1e-6)
    np.testing.assert_array_equal(best_for_some_gt, [[True, False], [False, True]])
    assert not crowd.any()
