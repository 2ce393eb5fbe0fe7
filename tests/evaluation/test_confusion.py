"""Confusion matrices, precision-recall curves and curves against the score, worked by hand."""

import numpy as np
import pytest

from mrcnn.evaluation import coco, evaluate, instances
from mrcnn.evaluation.confusion import ConfusionMatrix
from mrcnn.geometry import masks as geometry

NAMES = {3: "cat", 0: "dog"}  # a source may number its classes from 0


def bars(*spans, height=4, width=100):
    """One mask per (first column, end column)."""
    masks = np.zeros((height, width, len(spans)), bool)
    for index, (start, end) in enumerate(spans):
        masks[:, start:end, index] = True
    return masks


def detections(spans, class_ids, scores):
    masks = bars(*spans)
    rois = geometry.extract_bboxes(masks)
    return {"rois": rois, "masks": masks, "scores": np.array(scores), "class_ids": np.array(class_ids, int)}


def truth(spans, class_ids, crowds=()):
    records = coco.annotations_of(bars(*spans), np.ones(len(spans)))
    for index, (record, class_id) in enumerate(zip(records, class_ids, strict=True)):
        record.update(category_id=class_id, iscrowd=int(index in crowds))
    return records


def test_matrix_by_hand():
    """Two cats found, one taken for a dog, one missed; a dog taken for a cat; a cat where nothing is."""
    spans = [(0, 10), (10, 20), (20, 30), (30, 40), (40, 50)]
    metrics = instances.InstanceMetrics(NAMES)
    metrics.add(
        truth(spans, [3, 3, 3, 3, 0]),
        detections(
            [(0, 10), (11, 20), (20, 29), (40, 50), (60, 70), (80, 90)],
            [3, 3, 0, 3, 3, 0],
            [0.9, 0.9, 0.9, 0.9, 0.9, 0.4],
        ),
    )
    matrix = metrics.confusion_matrix(min_score=0.5)
    assert matrix.class_names == ("cat", "dog")
    assert matrix.counts.tolist() == [[2, 1, 1], [1, 0, 0], [1, 0, 0]]
    assert matrix.precision.tolist() == [2 / 4, 0]
    assert matrix.recall.tolist() == [2 / 4, 0]
    assert matrix.f1.tolist() == [2 / 4, 0]
    assert matrix.normalized().tolist() == [[0.5, 0.25, 0.25], [1, 0, 0], [1, 0, 0]]
    detected = matrix.normalized("detected")
    assert detected[:, 0].tolist() == [0.5, 0.25, 0.25] and detected[:, 1].tolist() == [1, 0, 0]
    with_weak = metrics.confusion_matrix(min_score=0.3)
    assert with_weak.counts.tolist() == [[2, 1, 1], [1, 0, 0], [1, 1, 0]]
    with pytest.raises(ValueError, match="`over` must be"):
        matrix.normalized("both")


def test_its_diagonal_agrees_with_the_table():
    rng = np.random.default_rng(0)
    metrics = instances.InstanceMetrics(NAMES)
    for _ in range(30):
        starts = rng.permutation(9)[:5] * 10
        spans = [(start, start + 10) for start in starts]
        moved = [(start + rng.integers(0, 7), start + 10) for start in starts]
        classes = rng.choice([0, 3], 5)
        metrics.add(
            truth(spans, classes, crowds=(4,)),
            detections(moved, rng.permutation(classes), rng.random(5)),
        )
    matrix, table = metrics.confusion_matrix(), metrics.results()
    assert matrix.counts[0, 0] > 5 and matrix.counts[0, 1] > 0 and matrix.counts[0, 2] > 0
    np.testing.assert_allclose(matrix.precision, table["precision50"][1:])
    np.testing.assert_allclose(matrix.recall, table["recall50"][1:])
    np.testing.assert_allclose(matrix.f1, table["F1_50"][1:])


def test_counts_against_the_score_are_those_of_each_score():
    rng = np.random.default_rng(1)
    metrics = instances.InstanceMetrics(NAMES)
    for _ in range(20):
        starts = rng.permutation(9)[:5] * 10
        spans = [(start, start + 10) for start in starts]
        moved = [(start + rng.integers(0, 7), start + 10) for start in starts]
        metrics.add(
            truth(spans, rng.choice([0, 3], 5), crowds=(4,)),
            detections(moved, rng.choice([0, 3], 5), rng.random(5)),
        )
    curves = metrics.score_curves(scores=[0.9, 0.0, 0.4])
    assert curves.scores.tolist() == [0, 0.4, 0.9] and curves.class_names == ("cat", "dog")
    for row, score in enumerate(curves.scores):
        table = metrics.results(score)
        np.testing.assert_allclose(curves.precision[row], table["precision50"][1:])
        np.testing.assert_allclose(curves.recall[row], table["recall50"][1:])
        np.testing.assert_allclose(curves.f1[row], table["F1_50"][1:])
        np.testing.assert_allclose(curves.f1_of_all[row], table["F1_50"][0])
    assert (
        curves.true_positives[0].min() > 5
        and curves.false_negatives[-1].min() > curves.false_negatives[0].min()
    )
    assert metrics.score_curves().best_score() in np.linspace(0, 1, 101)


def test_counts_of_scores_that_lie_on_a_limit():
    """float32(0.7) is below 0.7 in double precision, and equal to it in single precision."""
    metrics = instances.InstanceMetrics(NAMES)
    metrics.add(truth([(0, 10)], [0]), detections([(0, 10)], [0], np.array([0.7], np.float32)))
    curves = metrics.score_curves(scores=[0.7, 0.71])
    for row, score in enumerate((0.7, 0.71)):
        assert curves.true_positives[row].sum() == np.trace(metrics.confusion_matrix(score).counts[:-1, :-1])


def test_the_best_score():
    """A false detection at 0.3, hits at 0.6 and 0.8: limits above 0.3 are best, the lowest of them counts."""
    metrics = instances.InstanceMetrics(NAMES)
    assert np.isnan(metrics.score_curves().best_score())
    found = detections([(0, 10), (20, 30), (50, 60)], [3, 3, 3], [0.8, 0.6, 0.3])
    metrics.add(truth([(0, 10), (20, 30)], [3, 3]), found)
    curves = metrics.score_curves()
    assert curves.best_score() == pytest.approx(0.31) and curves.f1_of_all[31] == 1
    assert np.isnan(curves.f1[:, 1]).all() and np.isnan(curves.precision[-1, 0])


def test_the_same_class_comes_first():
    """A dog overlaps the cat more than the other cat does, and matches nothing."""
    metrics = instances.InstanceMetrics(NAMES)
    found = detections([(0, 9), (0, 10)], [0, 3], [0.8, 0.9])
    found["masks"] = bars((0, 4), (4, 10))
    metrics.add(truth([(0, 10)], [3]), found)
    assert metrics.confusion_matrix().counts.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_detections_in_crowds_do_not_count():
    metrics = instances.InstanceMetrics(NAMES)
    metrics.add(truth([(0, 50)], [3], crowds=(0,)), detections([(5, 15), (60, 70)], [3, 3], [0.9, 0.9]))
    assert metrics.confusion_matrix().counts.tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_nothing_to_divide_by():
    matrix = ConfusionMatrix(("a",), np.zeros((2, 2), int), 0.5, 0.5)
    for values in (matrix.precision, matrix.recall, matrix.f1, matrix.normalized().ravel()):
        assert np.isnan(values).all()


def curve_metrics():
    """Of two cats: a hit at 0.9, a false one at 0.8, a hit at 0.7. No dogs."""
    metrics = coco.CocoMetrics(NAMES)
    found = detections([(0, 10), (50, 60), (20, 30)], [3, 3, 3], [0.9, 0.8, 0.7])
    metrics.add(1, (4, 100), truth([(0, 10), (20, 30)], [3, 3]), coco.detections_of(found))
    return metrics


def test_curves_by_hand():
    curves = curve_metrics().precision_recall("mask")
    assert curves.class_names == ("cat", "dog") and curves.precision.shape == (10, 101, 2)
    precision, scores = curves.at(0.5)[:, 0], curves.scores[0, :, 0]
    assert precision[:51] == pytest.approx(1) and precision[51:] == pytest.approx(2 / 3)
    assert scores[:51] == pytest.approx(0.9) and scores[51:] == pytest.approx(0.7)
    assert np.isnan(curves.at(0.5)[:, 1]).all() and np.isnan(curves.scores[..., 1]).all()
    f1, score = curves.best_f1()
    assert f1[0] == pytest.approx(2 * (2 / 3) / (1 + 2 / 3)) and score[0] == pytest.approx(0.7)
    assert np.isnan([f1[1], score[1]]).all()
    with pytest.raises(ValueError, match=r"`iou_threshold` must be one of \[0\.5, 0\.55"):
        curves.at(0.4)
    with pytest.raises(ValueError, match="`iou_type` must be one of"):
        curve_metrics().precision_recall("points")


def test_the_area_under_a_curve_is_the_average_precision():
    metrics = curve_metrics()
    results = metrics.results()
    for name in ("box", "mask"):
        curves = metrics.precision_recall(name)
        assert curves.at(0.5)[:, 0].mean() == pytest.approx(results[f"{name}_AP50"][1])
        assert curves.precision[..., 0].mean() == pytest.approx(results[f"{name}_AP"][1])


class Bars:
    image_ids = (0,)
    num_classes = 3
    class_names = ("BG", "cat", "dog")
    class_info = ({"name": "BG"}, {"id": 3, "name": "cat"}, {"id": 0, "name": "dog"})
    image_info = ({"id": 1},)

    def load_image(self, image_id):
        return np.zeros((4, 100, 3), np.uint8)

    def load_mask(self, image_id):
        return bars((0, 10), (20, 30)), np.array([1, 2])


def test_evaluate_brings_curves_and_matrix():
    def detect(images):
        return [detections([(0, 10), (20, 30)], [1, 1], [0.9, 0.8])]

    results = evaluate.evaluate(detect, Bars(), min_score=0.5, verbose=0)
    assert results.confusion_matrix.counts.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert set(results.precision_recall) == {"box", "mask"}
    assert results["precision50"][:2] == [0.5, 0.5] and np.isnan(results["precision50"][2])
    without = evaluate.evaluate(detect, Bars(), verbose=0)
    assert without.confusion_matrix is None and set(without) < set(results)
    assert results.score_curves.true_positives.sum(axis=1)[[50, 90, 91]].tolist() == [1, 1, 0]
    assert without.score_curves is None


BROKEN = {
    "category_id": "3",
    "iscrowd": 2,
    "bbox": [0, 0, float("nan"), 1],
    "area": None,
    "segmentation": {"size": [4, 100], "counts": [5]},
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_annotation_is_refused_by_name(name):
    (record,) = truth([(0, 10)], [3])
    metrics = coco.CocoMetrics(NAMES)
    with pytest.raises(
        ValueError, match="`counts`" if name == "segmentation" else f"`{name}` of an annotation"
    ):
        metrics.add(1, (4, 100), [{**record, name: BROKEN[name]}], [])
    metrics.add(1, (4, 100), [record], [])  # it left nothing behind
