"""Detections against the same steps in NumPy, class by class."""

import numpy as np
import pytest
from tensor_tools import check_layer, run

from mrcnn.geometry import boxes as geometry
from mrcnn.network.detections import DetectionLayer

STD_DEV = np.array([0.1, 0.1, 0.2, 0.2], "float32")
SHAPE = (128, 256)


def meta_of(windows, shape=SHAPE, classes=4):
    meta = np.zeros((len(windows), 12 + classes), "float32")
    meta[:, 4:7] = (*shape, 3)
    meta[:, 7:11] = windows
    return meta


def scene(seed, images=3, count=120, classes=4):
    """RoIs in clusters with sharp class probabilities."""
    rng = np.random.default_rng(seed)
    centers = rng.uniform(0.1, 0.9, (images, 8, 2))
    center = centers[np.arange(images)[:, None], rng.integers(0, 8, (images, count))]
    center = center + rng.normal(0, 0.02, center.shape)
    half = rng.uniform(0.05, 0.15, (images, count, 2))
    rois = np.concatenate([center - half, center + half], axis=2).astype("float32")
    logits = rng.normal(0, 3, (images, count, classes))
    probs = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    deltas = rng.normal(0, 0.5, (images, count, classes, 4)).astype("float32")
    windows = np.array([[8, 16, 100, 240], [0, 0, 128, 256], [40, 0, 90, 256]])[:images]
    return [rois, probs.astype("float32"), deltas, meta_of(windows)]


def candidates_by_numpy(rois, probs, deltas, window, confidence):
    """Boxes, class ids and scores of the RoIs of one image that are confident."""
    ids, scores = probs.argmax(axis=1), probs.max(axis=1)
    own = deltas[np.arange(len(ids)), ids] * STD_DEV
    boxes = geometry.clip_boxes(geometry.apply_box_deltas(rois, own), geometry.norm_boxes(window, SHAPE))
    eligible = (ids > 0) & (scores >= confidence)
    return boxes[eligible], ids[eligible], scores[eligible]


def in_slots(boxes, ids, scores, kept, limit):
    kept = kept[:limit]
    rows = np.concatenate([boxes[kept], ids[kept, None], scores[kept, None]], axis=1)
    return np.concatenate([rows, np.zeros((limit - len(kept), 6))])


def by_numpy(rois, probs, deltas, window, confidence, threshold, limit):
    """Detections of one image: NMS within each class, then the best of all classes."""
    boxes, ids, scores = candidates_by_numpy(rois, probs, deltas, window, confidence)
    kept = []
    for class_id in np.unique(ids):
        rows = np.flatnonzero(ids == class_id)
        picked = geometry.non_max_suppression(boxes[rows], scores[rows], threshold)[:limit]
        kept += [rows[i] for i in picked]
    return in_slots(boxes, ids, scores, sorted(kept, key=lambda row: -scores[row]), limit)


@pytest.mark.parametrize(
    "confidence, threshold, limit",
    [(0.7, 0.3, 100), (0.0, 0.3, 30), (0.9, 0.5, 10), (0.5, 0.0, 150), (0.0, 1.0, 120)],
)
def test_equals_numpy(confidence, threshold, limit):
    inputs = scene(1)
    layer = DetectionLayer(min_confidence=confidence, nms_threshold=threshold, max_instances=limit)
    found = check_layer(layer, inputs)
    assert found[..., 4].any(axis=1).all()
    for image in range(3):
        window = inputs[3][image, 7:11]
        arguments = (x[image] for x in inputs[:3])
        expected = by_numpy(*arguments, window, confidence, threshold, limit)
        np.testing.assert_allclose(found[image], expected, atol=1e-5)


@pytest.mark.parametrize("confidence, sigma, limit", [(0.6, 0.5, 30), (0.0, 0.5, 60), (0.0, 2.0, 150)])
def test_soft_nms_equals_numpy(confidence, sigma, limit):
    inputs = scene(1)
    options = {"min_confidence": confidence, "max_instances": limit}
    found = check_layer(DetectionLayer(soft_nms_sigma=sigma, **options), inputs)
    assert (np.diff(found[..., 5]) <= 0).all()
    for image in range(3):
        window = inputs[3][image, 7:11]
        boxes, ids, scores = candidates_by_numpy(*(x[image] for x in inputs[:3]), window, confidence)
        kept, scores = geometry.soft_non_max_suppression(boxes, scores, ids, sigma, confidence)
        np.testing.assert_allclose(found[image], in_slots(boxes, ids, scores, kept, limit), atol=1e-5)
    plain = run(DetectionLayer(nms_threshold=0.3, **options), inputs)
    assert np.count_nonzero(found[..., 4]) > np.count_nonzero(plain[..., 4]) > 30


def test_scores_fall_and_boxes_stay_in_the_window():
    inputs = scene(2)
    found = run(DetectionLayer(min_confidence=0), inputs)
    for image, window in zip(found, inputs[3][:, 7:11], strict=True):
        scores = image[:, 5]
        assert (np.diff(scores) <= 0).all()
        rows = image[image[:, 4] > 0]
        y1, x1, y2, x2 = geometry.norm_boxes(window, SHAPE)
        assert (rows[:, :2] >= (y1 - 1e-6, x1 - 1e-6)).all()
        assert (rows[:, 2:4] <= (y2 + 1e-6, x2 + 1e-6)).all()


def one_hot(rows, classes=4):
    """Probabilities [1, N, classes] from (class, score) pairs; the rest goes to the other classes."""
    probs = np.zeros((1, len(rows), classes), "float32")
    for row, (class_id, score) in enumerate(rows):
        probs[0, row] = (1 - score) / (classes - 1)
        probs[0, row, class_id] = score
    return probs


def apart(count):
    """RoIs side by side that do not touch."""
    left = np.arange(count) / (count + 1)
    return np.stack([0 * left, left, 0 * left + 0.5, left + 0.5 / (count + 1)], 1)[None].astype("float32")


def found_for(rows, rois=None, **options):
    rois = apart(len(rows)) if rois is None else rois
    deltas = np.zeros((1, len(rows), 4, 4), "float32")
    return run(DetectionLayer(**options), [rois, one_hot(rows), deltas, meta_of([(0, 0, *SHAPE)])])[0]


def test_the_confidence_limit_itself_is_kept():
    found = found_for([(1, 0.75), (2, 0.5), (3, 0.499)], min_confidence=0.5)
    assert found[:3, 4].tolist() == [1, 2, 0]


def test_no_limit_keeps_every_score():
    for min_confidence in (0, None):
        found = found_for([(1, 0.3), (2, 0.9)], min_confidence=min_confidence)
        assert found[:3, 4].tolist() == [2, 1, 0]


def test_background_alone_gives_zeros():
    assert not found_for([(0, 0.9)] * 5, min_confidence=0).any()


@pytest.mark.parametrize("options", [{}, {"per_class": True}, {"per_class": True, "soft_nms_sigma": 0.5}])
def test_a_network_of_the_background_alone_finds_nothing(options):
    """That is a Config whose NUM_CLASSES nobody has set."""
    inputs = [apart(3), np.ones((1, 3, 1), "float32"), np.zeros((1, 3, 1, 4), "float32")]
    found = run(DetectionLayer(min_confidence=0, **options), [*inputs, meta_of([(0, 0, *SHAPE)])])
    assert found.shape == (1, 100, 6) and not found.any()


def test_equal_scores_keep_the_order_of_rois():
    rows = [(1, 0.9), (3, 0.9), (2, 0.9)]
    assert found_for(rows)[:3, 4].tolist() == [1, 3, 2]


def test_classes_do_not_suppress_each_other():
    rois = np.repeat(apart(1), 3, axis=1)
    found = found_for([(1, 0.9), (2, 0.8), (1, 0.75)], rois)
    assert found[:3, 4].tolist() == [1, 2, 0]


def test_max_instances_keeps_the_best_of_all_classes():
    rows = [(1, 0.75), (1, 0.76), (1, 0.77), (2, 0.9), (3, 0.8)]
    found = found_for(rows, max_instances=3)
    assert found[:, 4].tolist() == [2, 3, 1]
    np.testing.assert_allclose(found[:, 5], [0.9, 0.8, 0.77], rtol=1e-6)


def test_arguments_reach_the_configuration():
    layer = DetectionLayer(
        bbox_std_dev=np.array([0.2, 0.2, 0.1, 0.1]),
        min_confidence=None,
        nms_threshold=0.4,
        max_instances=9,
        soft_nms_sigma=2,
        name="mrcnn_detection",
    )
    config = layer.get_config()
    assert config["bbox_std_dev"] == (0.2, 0.2, 0.1, 0.1)
    assert (config["min_confidence"], config["nms_threshold"], config["max_instances"]) == (0, 0.4, 9)
    assert config["soft_nms_sigma"] == 2.0 and DetectionLayer().get_config()["soft_nms_sigma"] is None
    check_layer(layer, scene(3, count=20))
