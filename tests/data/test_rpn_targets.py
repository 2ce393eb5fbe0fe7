"""build_rpn_targets: equal to the recordings and to plain loops; crowds, sampling, no objects."""

import re

import numpy as np
import pytest
from golden_files import golden_params, load
from toy_data import ToyConfig, recorded_config, recorded_dataset

from mrcnn.data.loading import load_image_gt
from mrcnn.data.rpn_targets import build_rpn_targets
from mrcnn.geometry.anchors import AnchorCache


def anchors_of(config, shape=None):
    return AnchorCache(config).of(config.IMAGE_SHAPE if shape is None else shape)


@pytest.mark.parametrize("path", golden_params("utils_data*.npz"))
def test_equal_to_the_recordings_without_sampling(path):
    recording = load(path)
    cases = {re.fullmatch(r"gt_(\w+)_full(\d+)_rpn_match", key) for key in recording}
    for case in filter(None, cases):
        config = recorded_config(recording, case.group(1))
        before = case.group(0).removesuffix("rpn_match")
        shape = recording[f"{before}image"].shape
        match, bbox = build_rpn_targets(
            shape,
            anchors_of(config, shape),
            recording[f"{before}class_ids"],
            recording[f"{before}bbox"],
            config,
        )
        filled = recording[f"{before}rpn_bbox_pos"]
        assert match.dtype == np.int32
        np.testing.assert_array_equal(match, recording[f"{before}rpn_match"])
        np.testing.assert_allclose(bbox[: len(filled)], filled, rtol=1e-9, atol=1e-12)
        assert not bbox[len(filled) :].any()


@pytest.mark.parametrize("path", golden_params("utils_data*.npz"))
def test_equal_to_the_recording_with_sampling(path):
    recording = load(path)
    (name,) = (key for key in recording if re.fullmatch(r"sub\d+_seed\d+_rpn_match", key))
    budget, seed = map(int, re.findall(r"\d+", name))
    config = recorded_config(recording)
    config.RPN_TRAIN_ANCHORS_PER_IMAGE = budget
    dataset = recorded_dataset(recording)
    results = []
    for image_id in dataset.image_ids:  # which of them was recorded is not said
        image, _, class_ids, gt_boxes, _ = load_image_gt(dataset, config, image_id)
        np.random.seed(seed)
        results.append(build_rpn_targets(image.shape, anchors_of(config), class_ids, gt_boxes, config))
    (bbox,) = (bbox for match, bbox in results if np.array_equal(match, recording[name]))
    wanted = recording[name.replace("rpn_match", "rpn_bbox")]
    np.testing.assert_allclose(bbox, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("path", golden_params("utils_data*.npz"))
def test_equal_to_the_recording_of_a_crowd_over_the_whole_image(path):
    recording = load(path)
    config = recorded_config(recording)
    match, bbox = build_rpn_targets(
        config.IMAGE_SHAPE,
        anchors_of(config),
        recording["crowdall_class_ids"],
        recording["crowdall_boxes"],
        config,
    )
    filled = recording["crowdall_rpn_bbox_pos"]
    np.testing.assert_array_equal(match, recording["crowdall_rpn_match"])
    np.testing.assert_allclose(bbox[: len(filled)], filled, rtol=1e-9)


def iou(a, b):
    height = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    width = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    both = height * width
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def labels_by_loops(anchors, objects, crowds):
    match = []
    best_of_object = [max(iou(anchor, box) for anchor in anchors) for box in objects]
    for anchor in anchors:
        overlaps = [iou(anchor, box) for box in objects]
        crowded = any(iou(anchor, box) >= 0.001 for box in crowds)
        if max(overlaps) >= 0.7 or any(
            value == best > 0 for value, best in zip(overlaps, best_of_object, strict=True)
        ):
            match.append(1)
        else:
            match.append(-1 if max(overlaps) < 0.3 and not crowded else 0)
    return match


@pytest.mark.parametrize("seed", range(6))
def test_labels_and_deltas_as_by_plain_loops(seed):
    rng = np.random.default_rng(seed)
    anchors = rng.uniform(-10, 90, (150, 4))
    anchors[:, 2:] = anchors[:, :2] + rng.uniform(5, 50, (150, 2))
    boxes = rng.integers(0, 70, (6, 4))
    boxes[:, 2:] = boxes[:, :2] + rng.integers(3, 40, (6, 2))
    boxes[5] = boxes[0]  # equal overlaps: the first counts
    class_ids = np.array([1, 2, -3, 1, -1, 3]) if seed % 2 else np.arange(1, 7)
    config = ToyConfig()
    config.RPN_TRAIN_ANCHORS_PER_IMAGE = 1000
    match, bbox = build_rpn_targets(None, anchors, class_ids, boxes, config)
    objects = boxes[class_ids > 0]
    assert match.tolist() == labels_by_loops(anchors, objects, boxes[class_ids < 0])
    for row, index in enumerate(np.flatnonzero(match == 1)):
        anchor = anchors[index]
        gt = objects[np.argmax([iou(anchor, box) for box in objects])]
        size, gt_size = anchor[2:] - anchor[:2], gt[2:] - gt[:2]
        shift = ((gt[:2] + gt[2:]) - (anchor[:2] + anchor[2:])) / 2 / size
        wanted = np.concatenate([shift / 0.1, np.log(gt_size / size) / 0.2])
        np.testing.assert_allclose(bbox[row], wanted, rtol=1e-9, atol=1e-9)


def test_the_budget_is_shared():
    config = ToyConfig()
    config.RPN_TRAIN_ANCHORS_PER_IMAGE = 9
    config.RPN_POSITIVE_IOU = 0.4
    boxes = np.array([[1, 2, 63, 61], [40, 40, 101, 90]])
    for rng in (np.random.default_rng(0), np.random.RandomState(0)):
        match, bbox = build_rpn_targets(None, anchors_of(config), [1, 2], boxes, config, rng=rng)
        assert (match == 1).sum() == 4
        assert (match == -1).sum() == 5
        assert bbox.shape == (9, 4)
        assert bbox[:4].any(axis=1).all()
        assert not bbox[4:].any()


def test_a_generator_makes_sampling_repeatable():
    config = ToyConfig()
    boxes = np.array([[0, 0, 64, 64]])
    results = [
        build_rpn_targets(None, anchors_of(config), [1], boxes, config, np.random.default_rng(s))[0]
        for s in (0, 0, 1)
    ]
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


@pytest.mark.parametrize("boxes", [np.zeros((0, 4)), []])
def test_without_objects_all_are_negative(boxes):
    config = ToyConfig()
    match, bbox = build_rpn_targets(None, anchors_of(config), [], boxes, config)
    assert ((match == -1).sum(), (match == 1).sum()) == (256, 0)
    assert not bbox.any()


def test_with_crowds_only_the_crowds_are_no_negatives():
    config = ToyConfig()
    config.RPN_TRAIN_ANCHORS_PER_IMAGE = 100_000
    anchors = anchors_of(config)
    match, _ = build_rpn_targets(None, anchors, [-1], np.array([[0, 0, 64, 128]]), config)
    assert set(match.tolist()) == {-1, 0}
    touching = (anchors[:, 0] < 64) & (anchors[:, 2] > 0) & (anchors[:, 1] < 128)
    assert not (match[~touching] == 0).any()


def test_an_object_outside_all_anchors_makes_none_positive():
    config = ToyConfig()
    match, _ = build_rpn_targets(None, anchors_of(config), [1], np.array([[900, 900, 950, 950]]), config)
    assert not (match == 1).any()


def test_thresholds_come_from_the_configuration():
    config = ToyConfig()
    config.RPN_TRAIN_ANCHORS_PER_IMAGE = 100_000
    boxes = np.array([[10, 10, 50, 60]])
    counts = []
    for positive, negative in ((0.7, 0.3), (0.5, 0.3), (0.5, 0.1)):
        config.RPN_POSITIVE_IOU, config.RPN_NEGATIVE_IOU = positive, negative
        match, _ = build_rpn_targets(None, anchors_of(config), [1], boxes, config)
        counts.append([(match == label).sum() for label in (1, -1)])
    assert counts[0][0] < counts[1][0] == counts[2][0]
    assert counts[0][1] == counts[1][1] > counts[2][1]
