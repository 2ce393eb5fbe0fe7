"""Targets of the heads against a plain loop over RoIs, and the rules of their sampling."""

import numpy as np
import pytest
from keras import ops
from tensor_tools import call, check_layer, gradients, run

from mrcnn.geometry import boxes as geometry
from mrcnn.network import losses
from mrcnn.network.detection_targets import DetectionTargetLayer, sample_rois
from mrcnn.network.mask_targets import crop_masks

STD_DEV = np.array([0.1, 0.1, 0.2, 0.2], "float32")
TRUTHS = 5
PROPOSALS = 90


def truth(seed, mask_side=12):
    """Boxes of three objects and a crowd, padded, with a random mask each."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 0.6, (TRUTHS, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.2, 0.4, (TRUTHS, 2))], axis=1)
    ids = np.array([3, 1, 2, -1, 0], "int32")
    boxes[ids == 0] = geometry.norm_boxes(np.zeros(4), (64, 64))  # padding, as the data pipeline writes it
    return ids, boxes.astype("float32"), rng.uniform(size=(mask_side, mask_side, TRUTHS)) > 0.5


def proposals_near(boxes, seed, count=PROPOSALS, padding=10):
    """Boxes around the true ones at all distances, and zero rows at the end."""
    rng = np.random.default_rng(seed)
    near = boxes[rng.integers(0, 4, count)] + rng.normal(0, 0.06, (count, 4))
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 0.05)
    return np.concatenate([near, np.zeros((padding, 4))]).astype("float32")


def scene(seed, images=2, mask_side=12):
    rows = []
    for image in range(images):
        ids, boxes, masks = truth(seed + image, mask_side)
        rows.append((proposals_near(boxes, seed + 100 + image), ids, boxes, masks))
    return [np.stack(column) for column in zip(*rows, strict=True)]


def targets(**options):
    options = {"rois_per_image": 60, "mask_shape": (6, 5), "shuffle": False, **options}
    return DetectionTargetLayer(**options)


def crop(mask, box, shape):
    """Bilinear samples of a mask from edge to edge of a normalized box, zero outside."""
    out = np.zeros(shape)
    for i, j in np.ndindex(shape):
        y = (box[0] + (box[2] - box[0]) * i / (shape[0] - 1)) * (mask.shape[0] - 1)
        x = (box[1] + (box[3] - box[1]) * j / (shape[1] - 1)) * (mask.shape[1] - 1)
        if 0 <= y <= mask.shape[0] - 1 and 0 <= x <= mask.shape[1] - 1:
            top, left = int(y), int(x)
            bottom, right = min(top + 1, mask.shape[0] - 1), min(left + 1, mask.shape[1] - 1)
            upper = mask[top, left] * (1 - x + left) + mask[top, right] * (x - left)
            lower = mask[bottom, left] * (1 - x + left) + mask[bottom, right] * (x - left)
            out[i, j] = upper * (1 - y + top) + lower * (y - top)
    return out


def by_loop(layer, proposals, ids, boxes, masks):
    """The targets of one image if the first candidates are taken; the masks are not rounded."""
    objects, crowds = np.flatnonzero(ids > 0), np.flatnonzero(ids < 0)
    if layer.include_gt:
        proposals = np.concatenate([proposals, boxes * (ids > 0)[:, None]])
    iou = np.nan_to_num(geometry.compute_overlaps(proposals, boxes))
    filled = proposals.any(axis=1)
    best = iou[:, objects].max(axis=1, initial=-1)
    no_crowd = iou[:, crowds].max(axis=1, initial=-1) < layer.crowd_iou
    positive = np.flatnonzero(filled & (best >= layer.positive_iou))[: layer.max_positives]
    wanted = int(np.float32(1 / layer.positive_ratio) * np.float32(len(positive))) - len(positive)
    negative = np.flatnonzero(filled & (best < layer.positive_iou) & no_crowd)[:wanted]
    size = layer.rois_per_image
    rois = np.zeros((size, 4))
    rois[: len(positive) + len(negative)] = proposals[[*positive, *negative]][:size]
    own = objects[iou[positive][:, objects].argmax(axis=1)] if len(positive) else np.zeros(0, int)
    class_ids, deltas = np.zeros(size, int), np.zeros((size, 4))
    class_ids[: len(own)] = ids[own]
    deltas[: len(own)] = geometry.box_refinement(proposals[positive], boxes[own]) / STD_DEV
    mask_targets = np.zeros((size, *layer.mask_shape))
    for slot, (index, truth_index) in enumerate(zip(positive, own, strict=True)):
        box = proposals[index].astype(float)
        if layer.use_mini_mask:
            y1, x1, y2, x2 = boxes[truth_index].astype(float)
            box = (box - (y1, x1, y1, x1)) / (y2 - y1, x2 - x1, y2 - y1, x2 - x1)
        mask_targets[slot] = crop(masks[..., truth_index].astype(float), box, layer.mask_shape)
    return rois, class_ids, deltas, mask_targets


def assert_equal(found, expected):
    rois, class_ids, deltas, masks = expected
    np.testing.assert_allclose(found[0], rois, atol=1e-6)
    np.testing.assert_array_equal(found[1], class_ids)
    np.testing.assert_allclose(found[2], deltas, rtol=1e-4, atol=1e-4)
    clear = np.abs(masks - 0.5) > 1e-4
    np.testing.assert_array_equal(found[3][clear], masks.round()[clear])
    assert clear.mean() > 0.99


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_mini_mask": False},
        {"rois_per_image": 20},
        {"rois_per_image": 200},
        {"positive_ratio": 0.5},
        {"positive_iou": 0.7, "crowd_iou": 0.2, "mask_shape": (3, 4)},
        {"rois_per_image": 7, "positive_ratio": 0.9},
        {"rois_per_image": 200, "include_gt": True},
    ],
    ids=str,
)
def test_equals_the_loop(options):
    layer, inputs = targets(**options), scene(1)
    found = check_layer(layer, inputs)
    assert [str(x.dtype) for x in found] == ["float32", "int32", "float32", "float32"]
    for image in range(2):
        expected = by_loop(layer, *(x[image] for x in inputs))
        assert (expected[1] > 0).any()
        assert_equal([x[image] for x in found], expected)


@pytest.mark.parametrize("emptied", ["no truth", "no positive", "no proposal", "crowds alone"])
def test_without_positives_every_slot_is_empty(emptied):
    proposals, ids, boxes, masks = scene(2)
    if emptied == "no truth":
        ids[:] = 0
    elif emptied == "crowds alone":
        ids[:] = -1
    elif emptied == "no proposal":
        proposals[:] = 0
    else:
        proposals = proposals * 0.1
    for x in run(targets(), [proposals, ids, boxes, masks]):
        assert not x.any()


@pytest.mark.parametrize("rois", [60, 200])
def test_an_image_without_objects_gives_negatives_on_request(rois):
    proposals, ids, boxes, masks = scene(2)
    layer = targets(rois_per_image=rois, negatives_without_objects=True)
    usual = run(targets(rois_per_image=rois), [proposals, ids, boxes, masks])
    ids[1] = 0
    found = run(layer, [proposals, ids, boxes, masks])
    for array, same in zip(found, usual, strict=True):
        np.testing.assert_array_equal(array[0], same[0])
    count = min(rois, PROPOSALS)
    np.testing.assert_array_equal(found[0][1, :count], proposals[1, :count])
    assert not found[0][1, count:].any()
    assert not any(array[1].any() for array in found[1:])
    assert layer.get_config()["negatives_without_objects"]


def test_proposals_on_a_crowd_are_not_sampled_without_objects():
    proposals = np.array([[[0.5, 0.5, 0.7, 0.7], [0.8, 0, 0.9, 0.1]]], "float32")
    boxes = np.array([[[0.4, 0.4, 0.8, 0.8]]], "float32")
    inputs = [proposals, np.array([[-2]], "int32"), boxes, np.ones((1, 4, 4, 1), bool)]
    rois, ids, _, _ = run(targets(negatives_without_objects=True), inputs)
    np.testing.assert_array_equal(rois[0, :2], [proposals[0, 1], [0, 0, 0, 0]])
    assert not ids.any()


def test_proposals_of_objects_without_masks_are_neither_positive_nor_negative():
    """Also those that fit an object with a mask well, but another one better, and those of other crowds."""
    boxes = np.array(
        [[[0, 0, 0.2, 0.2], [0, 0, 0.2, 0.3], [0.5, 0.5, 0.7, 0.7], [0, 0.8, 0.2, 1]]], "float32"
    )
    ids = np.array([[2, 1, 3, -1]], "int32")
    background = np.array([[[0.8, 0, 0.9, 0.1], [0.5, 0.5, 0.56, 0.7]]], "float32")  # the last one: IoU 0.3
    inputs = [np.concatenate([boxes, background], axis=1), ids, boxes, np.ones((1, 4, 4, 1), bool)]
    layer = targets(positive_ratio=0.1, max_instances=1)
    rois, class_ids, deltas, masks = check_layer(layer, inputs)
    np.testing.assert_allclose(rois[0, :4], [boxes[0, 0], *background[0], [0, 0, 0, 0]])
    assert class_ids[0].tolist() == [2] + [0] * 59
    np.testing.assert_allclose(deltas, 0, atol=1e-6)
    assert masks[0, 0].all() and not masks[0, 1:].any()


@pytest.mark.parametrize("include_gt", [False, True])
def test_free_places_for_objects_change_nothing(include_gt):
    """As in a batch with an image of more objects."""
    proposals, ids, boxes, masks = scene(4)
    options = {"include_gt": include_gt, "shuffle": True, "seed": 3}
    expected = run(targets(**options), [proposals, ids, boxes, masks])
    places = ((0, 0), (0, TRUTHS))
    padded = [proposals, np.pad(ids, places), np.pad(boxes, (*places, (0, 0)), mode="edge"), masks]
    found = run(targets(max_instances=TRUTHS, **options), padded)
    for array, same in zip(found, expected, strict=True):
        np.testing.assert_array_equal(array, same)


def test_images_are_independent():
    inputs = scene(3)
    alone = run(targets(), [x[:1] for x in inputs])
    inputs[1][1] = 0
    both = run(targets(), inputs)
    for single, pair in zip(alone, both, strict=True):
        np.testing.assert_array_equal(pair[0], single[0])
        assert not pair[1].any()


def test_proposals_on_a_crowd_are_no_negatives():
    """Of one positive, one box on a crowd and one box on background, only the last may be negative."""
    proposals = np.array([[[0, 0, 0.2, 0.2], [0.5, 0.5, 0.7, 0.7], [0.8, 0, 0.9, 0.1]]], "float32")
    boxes = np.array([[[0, 0, 0.2, 0.2], [0.4, 0.4, 0.8, 0.8]]], "float32")
    masks = np.ones((1, 4, 4, 2), bool)
    rois, ids, deltas, masks = run(targets(), [proposals, np.array([[2, -2]], "int32"), boxes, masks])
    np.testing.assert_allclose(rois[0, :3], [proposals[0, 0], proposals[0, 2], [0, 0, 0, 0]])
    assert ids[0].tolist() == [2] + [0] * 59
    np.testing.assert_allclose(deltas, 0, atol=1e-6)
    assert masks[0, 0].all() and not masks[0, 1:].any()


@pytest.mark.parametrize(
    "found, ratio, total", [(66, 0.33, 200), (42, 0.33, 127), (10, 0.33, 30), (4, 0.5, 8)]
)
def test_negatives_follow_the_positives(found, ratio, total):
    positive = np.arange(1000)[None] < found
    keys = np.random.default_rng(4).uniform(size=(1, 1000)).astype("float32")
    index, positives, rois = call(lambda *x: sample_rois(*x, 200, ratio), positive, ~positive, keys)
    assert (positives.tolist(), rois.tolist()) == ([found], [total])
    assert sorted(index[0, :found]) == list(range(found))
    assert len(set(index[0, :total])) == total


class TestSampling:
    def sample(self, seed, inputs):
        return run(targets(shuffle=True, seed=seed, rois_per_image=24), inputs)

    def test_samples_differ_and_are_full(self):
        inputs = scene(5)
        rois, ids, deltas, masks = self.sample(11, inputs)
        everything = targets(rois_per_image=300, positive_ratio=0.5)
        all_rois, all_ids, all_deltas, all_masks = run(everything, inputs)
        for image in range(2):
            known = {tuple(r): i for i, r in enumerate(all_rois[image])}
            chosen = [known[tuple(row)] for row in rois[image] if row.any()]
            assert len(set(chosen)) == len(chosen)
            assert chosen != sorted(chosen)
            count = len(chosen)
            np.testing.assert_array_equal(ids[image, :count], all_ids[image, chosen])
            np.testing.assert_allclose(deltas[image, :count], all_deltas[image, chosen], atol=1e-5)
            np.testing.assert_array_equal(masks[image, :count], all_masks[image, chosen])
            assert (ids[image, :7] > 0).all()  # trunc(24 * 0.33) positives come first
            assert not ids[image, 7:].any()

    def test_the_seed_decides(self):
        inputs = scene(6)
        first, again, other = (self.sample(seed, inputs)[0] for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()


def test_crop_masks_keeps_ones_and_zeros():
    masks = np.zeros((1, 4, 4, 2), bool)
    masks[0, :, 2:, 0] = True
    masks[0, ..., 1] = True
    boxes = np.array([[[0, 0, 1, 1], [0, 0, 1, 1], [-1, 0, 1, 1]]], "float32")
    assigned = np.array([[0, 1, 1]], "int32")
    found = call(lambda *x: crop_masks(*x, (4, 4)), masks, assigned, boxes)
    np.testing.assert_array_equal(found[0, 0], masks[0, ..., 0])
    assert found[0, 1].all()
    assert found[0, 2].tolist() == [[0] * 4, [0] * 4, [1] * 4, [1] * 4]


def test_the_box_loss_reaches_the_proposals_through_its_targets():
    proposals, ids, boxes, masks = scene(7, images=1)

    def loss(proposals):
        layer = targets()
        _, class_ids, deltas, _ = layer([proposals, *(ops.convert_to_tensor(x) for x in (ids, boxes, masks))])
        return losses.mrcnn_bbox_loss(deltas, class_ids, ops.zeros((1, 60, 4, 4)))

    slope = gradients(loss, proposals)[0]
    assert np.isfinite(slope).all()
    expected = by_loop(targets(), *(x[0] for x in (proposals, ids, boxes, masks)))
    positives = {tuple(row) for row in expected[0][expected[1] > 0].astype("float32")}
    reached = {tuple(row) for row, s in zip(proposals[0], slope[0], strict=True) if s.any()}
    assert reached == positives

    row = next(i for i, box in enumerate(proposals[0]) if tuple(box) in positives)
    change = []
    for step in (1e-3, -1e-3):
        moved = proposals.copy()
        moved[0, row, 0] += step
        change.append(call(loss, moved))
    numeric = (change[0] - change[1]) / 2e-3
    assert slope[0, row, 0] == pytest.approx(numeric, rel=0.05, abs=0.01)


def test_arguments_reach_the_configuration():
    arguments = {
        "rois_per_image": 12,
        "positive_ratio": 0.25,
        "bbox_std_dev": (0.2, 0.2, 0.1, 0.1),
        "mask_shape": (8, 6),
        "use_mini_mask": False,
        "positive_iou": 0.6,
        "crowd_iou": 0.01,
        "include_gt": True,
        "max_instances": 7,
        "shuffle": False,
        "seed": 5,
    }
    layer = DetectionTargetLayer(**arguments)
    config = layer.get_config()
    assert {name: config[name] for name in arguments} == arguments
    assert layer.max_positives == 3
