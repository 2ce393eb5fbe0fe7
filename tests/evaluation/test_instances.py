"""AP(tau) and panoptic quality, worked by hand."""

import itertools

import numpy as np
import pytest

from mrcnn.evaluation import coco, evaluate, instances
from mrcnn.geometry import masks as geometry


def bars(*spans, height=4, width=60):
    """One mask per (first column, end column)."""
    masks = np.zeros((height, width, len(spans)), bool)
    for index, (start, end) in enumerate(spans):
        masks[:, start:end, index] = True
    return masks


def found(*spans, scores=None, class_ids=None):
    masks = bars(*spans)
    scores = np.linspace(1.0, 0.6, len(spans)) if scores is None else np.array(scores)
    class_ids = np.ones(len(spans), int) if class_ids is None else np.array(class_ids)
    rois = geometry.extract_bboxes(masks)
    return {"rois": rois, "masks": masks, "scores": scores, "class_ids": class_ids}


def measured(*images, **options):
    """Each image is (spans, class ids, detections)."""
    metrics = instances.InstanceMetrics({1: "thing", 2: "other"})
    for spans, class_ids, detections in images:
        metrics.add(coco.annotations_of(bars(*spans), class_ids), detections)
    return metrics.results(**options)


def test_perfect_instances():
    spans = [(0, 10), (10, 20), (30, 40)]
    results = measured((spans, [1, 1, 2], found(*spans, class_ids=[1, 1, 2])))
    for name in ("tau_AP50", "tau_AP95", "tau_AP", "precision50", "recall50", "F1_50", "PQ", "SQ", "RQ"):
        assert results[name] == [1.0, 1.0, 1.0], name


def test_a_hit_a_near_miss_and_a_false_one():
    """IoU of the pairs: 8 / 10, 8 / 12; one object and one detection are left over."""
    results = measured(([(0, 10), (20, 30), (40, 50)], [1, 1, 1], found((0, 8), (22, 32), (54, 60))))
    assert results["tau_AP50"][1] == results["tau_AP65"][1] == pytest.approx(2 / 4)
    assert results["tau_AP70"][1] == results["tau_AP80"][1] == pytest.approx(1 / 5)
    assert results["tau_AP85"][1] == 0
    # four of ten thresholds at 2 / 4, three at 1 / 5
    assert results["tau_AP"][1] == pytest.approx((4 * 0.5 + 3 * 0.2) / 10)
    assert results["precision50"][1] == results["recall50"][1] == results["F1_50"][1] == pytest.approx(2 / 3)
    assert results["SQ"][1] == pytest.approx((0.8 + 8 / 12) / 2)
    assert results["RQ"][1] == pytest.approx(2 / 3)
    assert results["PQ"][1] == pytest.approx((0.8 + 8 / 12) / 3)
    assert np.isnan(results["PQ"][2]) and results["PQ"][0] == results["PQ"][1]


def test_pooled_and_by_image():
    """1 of 1 in the first, 1 of 4 in the second: pooled 2 / 5, the mean of images (1 + 1 / 4) / 2."""
    images = [
        ([(0, 10)], [1], found((0, 10))),
        ([(0, 10), (10, 20), (20, 30), (30, 40)], [1] * 4, found((0, 10))),
        ([], [], found()),
    ]
    assert measured(*images)["tau_AP50"][0] == pytest.approx(2 / 5)
    assert measured(*images, by_image=True)["tau_AP50"][0] == pytest.approx((1 + 1 / 4) / 2)


@pytest.mark.parametrize("form", ["polygon", "numbers", "text"])
def test_every_segmentation_of_a_coco_file(form):
    (record,) = coco.annotations_of(bars((10, 20)), [1])
    if form == "polygon":
        record["segmentation"] = [[10, 0, 20, 0, 20, 4, 10, 4]]
    elif form == "numbers":
        record["segmentation"] = {"size": [4, 60], "counts": [40, 40, 160]}
    metrics = instances.InstanceMetrics({1: "thing"})
    metrics.add([record], found((10, 20)))
    assert metrics.results()["tau_AP95"] == [1.0, 1.0]


def test_classes_must_agree():
    results = measured(([(0, 10)], [1], found((0, 10), class_ids=[2])))
    assert results["tau_AP50"] == [0.0, 0.0, 0.0]
    assert np.isnan(results["SQ"]).all() and results["PQ"] == [0.0, 0.0, 0.0]


def test_a_pixel_goes_to_the_best_scored():
    """The second detection keeps 3 of its 10 columns, as a label image would show it."""
    detections = found((0, 10), (3, 13), scores=[0.9, 0.8])
    results = measured(([(0, 10), (3, 13)], [1, 1], detections))
    assert results["tau_AP50"][1] == pytest.approx(1 / 3)
    # a detection below the least score takes nothing away
    assert measured(([(0, 10)], [1], detections), min_score=0.85)["tau_AP50"][1] == 1.0


def test_crowds_take_what_lies_mostly_inside():
    """Inside by 6, 4 and 5 of 10 columns: not counted, false, false."""
    crowd = [(0, 10), (20, 36)], [1, -1]
    assert measured((*crowd, found((0, 10), (30, 40))))["tau_AP50"][1] == 1.0
    assert measured((*crowd, found((0, 10), (32, 42))))["tau_AP50"][1] == 0.5
    assert measured((*crowd, found((0, 10), (31, 41))))["tau_AP50"][1] == 0.5


def test_the_matching_with_the_most_pairs():
    """Greedy would take the 0.9 and lose both others."""
    overlaps = np.array([[0.9, 0.6], [0.7, 0.0]])
    rows, columns = instances.match(overlaps, 0.5)
    assert list(zip(rows, columns, strict=True)) == [(0, 1), (1, 0)]
    rows, columns = instances.match(overlaps, 0.8)
    assert list(zip(rows, columns, strict=True)) == [(0, 0)]
    assert len(instances.match(np.zeros((0, 3)), 0.5)[0]) == 0


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 3)])
def test_matching_against_all_matchings(shape):
    rng = np.random.default_rng(0)
    for _ in range(30):
        overlaps = rng.random(shape)
        small = min(shape)
        best = max(
            _value(overlaps, rows, columns, 0.4)
            for rows in itertools.permutations(range(shape[0]), small)
            for columns in itertools.permutations(range(shape[1]), small)
        )
        rows, columns = instances.match(overlaps, 0.4)
        assert _value(overlaps, rows, columns, 0.4) == pytest.approx(best)
        assert (overlaps[rows, columns] >= 0.4).all()


def _value(overlaps, rows, columns, threshold):
    kept = [overlaps[row, column] for row, column in zip(rows, columns, strict=True)]
    kept = [overlap for overlap in kept if overlap >= threshold]
    return len(kept), sum(kept)


def test_evaluate_measures_them_in_the_same_pass():
    class Bars:
        image_ids = (0,)
        num_classes = 2
        class_names = ("BG", "thing")
        class_info = ({"name": "BG"}, {"id": 1, "name": "thing"})
        image_info = ({"id": 1},)

        def load_image(self, image_id):
            return np.zeros((4, 60, 3), np.uint8)

        def load_mask(self, image_id):
            return bars((0, 10), (20, 30)), np.array([1, 1])

    detect = lambda images: [found((0, 10), (20, 28), scores=[0.9, 0.3])]  # noqa: E731
    results = evaluate.evaluate(detect, Bars(), min_score=0.5, verbose=0)
    assert results["tau_AP50"] == [0.5, 0.5] and results["mask_AP50"] == pytest.approx([1, 1])
    assert "tau_AP50" not in evaluate.evaluate(detect, Bars(), verbose=0)
