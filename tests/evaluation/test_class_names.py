"""Detections are joined with the classes of a dataset by name, also if both number them differently."""

import numpy as np
import pytest

from mrcnn.dataset import Dataset
from mrcnn.evaluation import evaluate
from mrcnn.evaluation.class_names import joined_numbers
from mrcnn.results.detections import Detections

BOXES = np.array([[0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]], np.int32)
MASKS = np.zeros((64, 64, 3), bool)
for index, (y1, x1, y2, x2) in enumerate(BOXES):
    MASKS[y1:y2, x1:x2, index] = True


class Animals(Dataset):
    """One image with a cat, a dog and a horse, which COCO numbers 17, 18 and 19."""

    def __init__(self):
        super().__init__()
        for number, name in ((17, "cat"), (18, "dog"), (19, "horse")):
            self.add_class("coco", number, name)
        self.add_image("coco", 1, None)
        self.prepare()

    def load_image(self, image_id):
        return np.zeros((64, 64, 3), np.uint8)

    def load_mask(self, image_id):
        return MASKS, np.array([1, 2, 3], np.int32)


def measure(class_ids, class_names):
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    found = Detections(BOXES, np.array(class_ids, np.int32), scores, MASKS, class_names=class_names)
    return evaluate.evaluate(lambda images: [found], Animals(), min_score=0.5, verbose=0)


@pytest.mark.parametrize(
    "class_ids, class_names",
    [
        ([1, 2, 3], None),
        ([1, 2, 3], ["BG", "1", "2", "3"]),
        ([1, 2, 3], ["BG", "cat", "dog", "horse"]),
        ([3, 1, 2], ["BG", "dog", "horse", "cat"]),
        ([5, 6, 1], ["BG", "horse", "N/A", "person", "N/A", "cat", "dog"]),
    ],
)
def test_right_detections_are_right_under_any_numbers(class_ids, class_names):
    results = measure(class_ids, class_names)
    assert results["mask_AP"] == pytest.approx([1, 1, 1, 1])
    assert results["tau_AP50"][0] == 1


def test_detections_of_classes_that_the_dataset_lacks_are_left_out():
    results = measure([2, 1, 1], ["BG", "person", "cat", "dog"])
    assert results["mask_AP"] == pytest.approx([1 / 3, 1, 0, 0])
    assert results["tau_AP50"][1] == 1


def test_names_decide_not_numbers():
    assert measure([1, 2, 3], ["BG", "dog", "horse", "cat"])["mask_AP"] == pytest.approx([0, 0, 0, 0])


def test_numbers_without_a_class_are_refused():
    with pytest.raises(ValueError, match=r"1 to 3\. Received: class ids \[17, 18\]"):
        measure([17, 18, 3], None)


def perfect_results(sources, class_names=None):
    """The results of perfect detections in a dataset of the classes (source, id, name), one object each."""
    dataset = Animals()
    dataset.class_info = dataset.class_info[:1]
    for source in sources:
        dataset.add_class(*source)
    dataset.prepare()
    names = class_names or dataset.class_names
    found = Detections(BOXES, np.arange(1, 4), np.ones(3, np.float32), MASKS, class_names=names)
    return evaluate.evaluate(lambda images: [found], dataset, min_score=0.5, verbose=0)


@pytest.mark.parametrize(
    "sources",
    [
        [("coco", 0, "cat"), ("coco", 1, "dog"), ("coco", 2, "horse")],
        [("farm", 1, "cat"), ("farm", 2, "dog"), ("town", 1, "cat")],
        [("coco", 1, "cat, asleep"), ("coco", 2, "cat, awake"), ("coco", 3, "dog")],
    ],
    ids=["ids from 0", "two sources with one class", "names with a comma"],
)
def test_a_perfect_detector_is_perfect(sources):
    results = perfect_results(sources)
    assert results["mask_AP50"] == pytest.approx([1, 1, 1, 1])
    assert results["tau_AP50"] == pytest.approx([1, 1, 1, 1])


CATS = ["cat, asleep", "cat, awake"]


@pytest.mark.parametrize(
    "names, dataset_names, joined",
    [
        (CATS, CATS, {1: 1, 2: 2}),
        (CATS[::-1], CATS, {1: 2, 2: 1}),
        (["cat", "cat"], CATS, {1: 1, 2: 2}),  # of an earlier version
        (CATS, ["cat", "cat"], {1: 1, 2: 2}),
        (["dog", *CATS], ["cat, awake"], {3: 1}),
        (["cat, awake"], ["cat, asleep"], {}),
        (["cat, awake", "cat"], ["cat", "cat, asleep"], {2: 1}),
        (["cat ", " dog"], ["dog", "cat"], {1: 2, 2: 1}),  # in a weight file of an earlier version
    ],
)
def test_names_may_be_cut_at_a_comma(names, dataset_names, joined):
    assert joined_numbers(["BG", *names], ["BG", *dataset_names]) == joined


def test_whole_names_decide():
    """The order of the model is another one than that of the dataset."""
    sources = [("coco", 1, CATS[0]), ("coco", 2, CATS[1]), ("coco", 3, "dog")]
    results = perfect_results(sources, ["BG", *CATS, "dog"])
    assert results["class"] == ["all", *CATS, "dog"] and results["mask_AP50"] == pytest.approx([1, 1, 1, 1])
    results = perfect_results(sources, ["BG", CATS[1], CATS[0], "dog"])
    assert results["mask_AP50"] == pytest.approx([1 / 3, 0, 0, 1])
