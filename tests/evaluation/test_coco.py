"""COCO's measures: against pycocotools itself, and worked by hand."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mrcnn.dataset import Dataset
from mrcnn.errors import InvalidDataError, UnreadableFileError
from mrcnn.evaluation import coco, evaluate
from mrcnn.geometry import masks as geometry

STATS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
STATS += ("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large")


def squares(*corners, side=10, shape=(64, 64)):
    """One full square mask per (y, x)."""
    masks = np.zeros((*shape, len(corners)), bool)
    for index, (y, x) in enumerate(corners):
        masks[y : y + side, x : x + side, index] = True
    return masks


def detections(masks, class_ids=None, scores=None):
    """What a detector returns."""
    count = masks.shape[-1]
    class_ids = np.ones(count) if class_ids is None else class_ids
    scores = np.linspace(0.9, 0.1, count) if scores is None else scores
    rois = geometry.extract_bboxes(masks)
    return {"rois": rois, "class_ids": class_ids, "scores": scores, "masks": masks}


def measured(truth_masks, class_ids, found, **options):
    metrics = coco.CocoMetrics({1: "thing", 2: "other"}, **options)
    truth = coco.annotations_of(truth_masks, class_ids)
    metrics.add(1, truth_masks.shape, truth, coco.detections_of(found))
    return metrics.results()


class Pictures(Dataset):
    """(masks, class ids) of each image; the source numbers its classes 7 and 3, its images from 100."""

    def __init__(self, scenes):
        super().__init__()
        self.scenes = scenes
        self.add_class("test", 7, "thing")
        self.add_class("test", 3, "other")
        for index in range(len(scenes)):
            self.add_image("test", 100 + index, None)
        self.prepare()

    def load_image(self, image_id):
        return np.full((*self.scenes[image_id][0].shape[:2], 3), image_id, np.uint8)

    def load_mask(self, image_id):
        return self.scenes[image_id]


def crowded(rng, shape=(120, 150)):
    """Random squares of three sizes, classes and crowds, and detections somewhat beside them."""
    sides = rng.choice([8, 40, 100], 12)
    corners = [(rng.integers(0, shape[0] - side), rng.integers(0, shape[1] - side)) for side in sides]
    masks = np.concatenate(
        [squares(at, side=side, shape=shape) for at, side in zip(corners, sides, strict=True)], -1
    )
    class_ids = rng.choice([1, 1, 2, -1], 12)
    moved = np.stack([np.roll(mask, rng.integers(0, 4), 1) for mask in masks.transpose(2, 0, 1)], -1)
    return masks, class_ids, detections(moved, np.abs(class_ids), rng.random(12))


def reference(truth, found, iou_type):
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = truth
        gt.createIndex()
        evaluation = COCOeval(gt, gt.loadRes(found), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def test_agrees_with_pycocotools(tmp_path):
    """The written files in pycocotools' own hands give the twelve numbers that are returned."""
    rng = np.random.default_rng(0)
    metrics, found = coco.CocoMetrics({1: "thing", 2: "other"}), []
    for image_id in (30, 4, 12):
        masks, class_ids, seen = crowded(rng)
        records = coco.detections_of(seen)
        metrics.add(image_id, masks.shape, coco.annotations_of(masks, class_ids), records)
        found += [{"image_id": image_id, **record} for record in records]
    results = metrics.results()
    metrics.write_truth(tmp_path / "new" / "truth.json")
    truth = (tmp_path / "new" / "truth.json").read_text()
    assert not list(tmp_path.rglob("*.part"))
    for name, iou_type, other in (("box", "bbox", "segmentation"), ("mask", "segm", "bbox")):
        rows = [{k: v for k, v in row.items() if k != other} for row in found]
        stats = reference(json.loads(truth), rows, iou_type)
        assert stats.min() > 0 and stats.max() < 1  # every measure says something
        np.testing.assert_allclose([results[f"{name}_{stat}"][0] for stat in STATS], stats, atol=1e-12)


def test_perfect_detections():
    masks = squares((0, 0), (20, 20), (40, 5))
    results = measured(masks, [1, 1, 2], detections(masks, [1, 1, 2]))
    for name in ("box", "mask"):
        for stat in ("AP", "AP50", "AP75", "AP_small", "AR10", "AR100"):
            assert results[f"{name}_{stat}"] == pytest.approx([1, 1, 1])
    assert results["class"] == ["all", "thing", "other"]
    assert results["objects"] == [3, 2, 1] and results["images"] == [1, 1, 1]
    # one detection of each class: half of the things, all of the others
    assert results["mask_AR1"] == pytest.approx([0.75, 0.5, 1])
    assert np.isnan(results["mask_AP_large"]).all()


def test_shifted_detections_by_hand():
    """Squares of 10 x 10, shifted by 2: IoU 80 / 120 = 0.67, found at 0.50, 0.55, 0.60, 0.65 of ten."""
    masks = squares((0, 0), (20, 20))
    results = measured(masks, [1, 1], detections(squares((0, 2), (22, 20))))
    for name in ("box", "mask"):
        assert results[f"{name}_AP"][1] == pytest.approx(0.4)
        assert results[f"{name}_AP50"][1] == pytest.approx(1) and results[f"{name}_AP75"][1] == 0.0
    # the mean over classes leaves out the class without an object
    assert results["mask_AP"][0] == pytest.approx(0.4) and np.isnan(results["mask_AP"][2])


def test_false_detection_by_hand():
    """Hit, miss, hit of two: precision 1 up to recall 0.5, 2/3 up to 1: (51 + 50 * 2 / 3) / 101."""
    masks = squares((0, 0), (20, 20))
    results = measured(masks, [1, 1], detections(squares((0, 0), (40, 40), (20, 20))))
    assert results["mask_AP50"][1] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_crowds_neither_help_nor_harm():
    """Detections inside a crowd region are no errors, and the region is nothing to be found."""
    thing, crowd = squares((0, 0)), squares((20, 20), side=40)
    truth = np.concatenate([thing, crowd], -1)
    found = detections(np.concatenate([squares((25, 25), (40, 40)), thing], -1))
    assert measured(truth, [1, -1], found)["mask_AP"][1] == pytest.approx(1)
    assert measured(truth, [1, -1], found)["objects"][1] == 1
    # without the crowd two errors come before the hit
    assert measured(thing, [1], found)["mask_AP"][1] == pytest.approx(1 / 3)


def test_more_detections_than_coco_counts():
    corners = [(12 * (i // 12), 12 * (i % 12)) for i in range(120)]
    masks = squares(*corners, shape=(120, 144))
    assert measured(masks, [1] * 120, detections(masks))["mask_AP"][1] < 0.9
    results = measured(masks, [1] * 120, detections(masks), max_detections=(1, 10, 400))
    assert results["mask_AP"][1] == pytest.approx(1) and results["mask_AR400"][1] == pytest.approx(1)


def test_no_detections_and_no_objects():
    masks, none = squares((0, 0)), squares()
    assert measured(masks, [1], detections(none))["mask_AP"][:2] == [0.0, 0.0]
    results = measured(none, [], detections(masks))
    assert np.isnan(results["mask_AP"]).all() and results["objects"] == [0, 0, 0]


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="iou_types"):
        coco.CocoMetrics({1: "thing"}, iou_types=("boxes",))
    with pytest.raises(ValueError, match="max_detections"):
        coco.CocoMetrics({1: "thing"}, max_detections=(1, 10))
    metrics = coco.CocoMetrics({1: "thing"})
    metrics.add(5, (4, 4), [], [])
    with pytest.raises(ValueError, match="image_id=5"):
        metrics.add(5, (4, 4), [], [])
    with pytest.raises(ValueError, match="must have at least one image"):
        evaluate.evaluate(None, Pictures([]))


def test_evaluate_goes_through_a_dataset(tmp_path, capsys):
    """Batches, ids of the source in the file, and a table in print."""
    scenes = [(squares((0, 0), (20, 20)), np.array([1, -2])), (squares(), np.array([])), crowded_scene()]
    sizes = []

    def detect(images):
        sizes.append(len(images))
        truths = [scenes[int(image[0, 0, 0])] for image in images]
        return [detections(masks[..., ids > 0], ids[ids > 0]) for masks, ids in truths]

    path = tmp_path / "found.json"
    results = evaluate.evaluate(detect, Pictures(scenes), batch_size=2, results_path=path)
    assert sizes == [2, 1]
    assert results["mask_AP"] == pytest.approx([1, 1, 1]) and results["objects"] == [3, 2, 1]
    rows = json.loads(path.read_text())
    assert {row["image_id"] for row in rows} == {100, 102}
    assert [row["category_id"] for row in rows] == [7, 7, 3]
    assert rows[0]["bbox"] == [0.0, 0.0, 10.0, 10.0]
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:4] == ["class", "objects", "box_AP", "box_AP50"]
    assert table[3].split()[:3] == ["other", "1", "1.000"]
    assert table[4].split()[:4] == ["class", "objects", "mask_AP", "mask_AP50"] and len(table) == 8


def test_absent_classes_have_no_row_in_print(capsys):
    results = {"class": ["all", "here", "absent"], "objects": [2, 2, 0], "mask_AP": [0.5, 0.5, float("nan")]}
    evaluate.print_results(results)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["class", "all", "here"]
    evaluate.print_results({name: [values[0]] for name, values in results.items()} | {"objects": [0]})
    assert capsys.readouterr().out.split()[3] == "all"


def test_groups_of_images_in_one_pass():
    """Perfect in the first image, blind in the second; each is detected once."""
    scenes = [(squares((0, 0)), np.array([1])), (squares((20, 20)), np.array([1]))]
    calls = []

    def detect(images):
        calls.append(len(images))
        return [detections(scenes[0][0] if int(image[0, 0, 0]) == 0 else squares()) for image in images]

    groups = {"both": [0, 1], "first": [0], "second": np.array([1])}
    results = evaluate.evaluate_groups(detect, Pictures(scenes), groups, min_score=0.5, verbose=0)
    assert calls == [1, 1]
    assert [results[name]["tau_AP50"][1] for name in groups] == [0.5, 1.0, 0.0]
    assert [results[name]["mask_AP50"][1] for name in groups] == pytest.approx([51 / 101, 1, 0])
    with pytest.raises(ValueError, match="must have at least one image"):
        evaluate.evaluate_groups(detect, Pictures(scenes), {"none": []})
    for outside in (-1, 2, 139):
        with pytest.raises(ValueError, match=rf"from 0 to 1, not the ids.*Received: \[{outside}\]"):
            evaluate.evaluate(detect, Pictures(scenes), [outside], verbose=0)


@pytest.mark.parametrize("class_id", [0, 5])
def test_a_class_that_the_dataset_lacks_is_named(class_id):
    dataset = Pictures([(squares((0, 0)), np.array([class_id]))])
    message = rf"image id 0: Class ids of the ground truth must be from 1 to .*Received: \[{class_id}\]"
    with pytest.raises(InvalidDataError, match=message):
        evaluate.evaluate(lambda images: [detections(squares())], dataset, verbose=0)


def test_ids_of_the_source_may_be_integers_of_numpy():
    dataset = Pictures([(squares((0, 0)), np.array([1]))] * 2)
    for info, number in zip(dataset.image_info, (139, 285), strict=True):
        info["id"] = np.int64(number)
    found = evaluate.source_ids(dataset, [0, 1])
    assert found == {0: 139, 1: 285} and {type(number) for number in found.values()} == {int}


@pytest.mark.parametrize("part", ["load_image", "load_mask"])
def test_images_that_cannot_be_read_are_left_out_and_counted(part, capsys):
    class Broken(Pictures):
        broken = (1, 3, 4, 5)

    def read(dataset, image_id):
        if image_id in dataset.broken:
            raise UnreadableFileError("The file ends early.", file=f"{image_id}.png")
        return getattr(Pictures, part)(dataset, image_id)

    setattr(Broken, part, read)
    scene = (squares((0, 0)), np.array([1]))
    sizes = []

    def detect(images):
        sizes.append(len(images))
        return [detections(squares((0, 0))) for _ in images]

    dataset = Broken([scene] * 7)
    message = r"4 of 7 images cannot be read.*: image id 1, .*3, .*4, \.\.\.\. The"
    with pytest.warns(UserWarning, match=message) as one:
        results = evaluate.evaluate(detect, dataset, batch_size=2, min_score=0.5)
    assert len(one) == 1 and "1.png: The file ends early." in str(one[0].message)
    assert sizes == [2, 1]
    assert results["images"][0] == 3 and results["objects"][0] == 3
    assert results["mask_AP"][0] == results["tau_AP50"][0] == pytest.approx(1)
    with pytest.warns(UserWarning, match="1 of 2 images"):
        groups = evaluate.evaluate_groups(detect, dataset, {"broken": [1], "fine": [2]}, verbose=0)
    assert np.isnan(groups["broken"]["mask_AP"][0]) and groups["fine"]["mask_AP"][0] == pytest.approx(1)
    with pytest.raises(ValueError, match=r"2 images, none of which can be read(.|\n)*1\.png: The file ends"):
        evaluate.evaluate(detect, dataset, [1, 3], verbose=0)


def test_masks_and_annotations_that_do_not_fit_the_image_are_left_out():
    class Turned(Pictures):
        def load_mask(self, image_id):
            masks, class_ids = super().load_mask(image_id)
            return (masks[:20] if image_id == 1 else masks), class_ids

    class Annotated(Pictures):
        def coco_annotations(self, image_id):
            records = coco.annotations_of(*self.load_mask(image_id))
            return [{**row, "area": "large" if image_id == 1 else row["area"]} for row in records]

    scene = (squares((0, 0)), np.array([1]))
    for dataset, message in ((Turned([scene] * 2), "masks.shape"), (Annotated([scene] * 2), "`area` of an")):
        with pytest.warns(UserWarning, match=rf"1 of 2 images cannot be read.*image id 1: .*{message}"):
            results = evaluate.evaluate(lambda images: [detections(squares((0, 0)))], dataset, verbose=0)
        assert results["images"][0] == 1 and results["mask_AP"][0] == pytest.approx(1)


def test_an_error_of_the_detector_is_raised():
    def detect(images):
        raise OSError("no device")

    with pytest.raises(OSError, match="no device"):
        evaluate.evaluate(detect, Pictures([(squares((0, 0)), np.array([1]))]), verbose=0)


def crowded_scene():
    return squares((0, 0), (30, 30)), np.array([1, 2])


def test_a_dataset_may_bring_its_annotations():
    """Their boxes and areas are taken as they are: here a box half as wide as the mask's."""

    class Annotated(Pictures):
        def coco_annotations(self, image_id):
            (record,) = coco.annotations_of(squares((0, 0)), [1])
            return [{**record, "bbox": [0, 0, 5, 10], "id": 77}]

    dataset = Annotated([(squares((0, 0)), np.array([1]))])
    results = evaluate.evaluate(lambda images: [detections(squares((0, 0)))], dataset, verbose=0)
    assert results["mask_AP"][1] == pytest.approx(1)
    assert results["box_AP"][1] == pytest.approx(0.1)  # IoU 0.5

    class Masked(Annotated):
        def load_mask(self, image_id):
            return super().load_mask(image_id)

    results = evaluate.evaluate(
        lambda images: [detections(squares((0, 0)))], Masked(dataset.scenes), verbose=0
    )
    assert results["box_AP"][1] == pytest.approx(1)  # the box of the mask
