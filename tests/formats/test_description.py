"""describe: numbers, warnings, and a figure, of datasets with and without files."""

import annotation_files as files
import numpy as np
import pytest
from toy_data import toy_dataset

from mrcnn import formats
from mrcnn.dataset import Dataset
from mrcnn.formats import problems


def test_numbers_of_a_coco_file(tmp_path, capsys):
    files.write_picture(tmp_path / "a.png")
    files.write_picture(tmp_path / "b.png", files.picture(30, 40))
    content = files.coco_content(iscrowd=1)
    content["images"].append({"id": 2, "file_name": "b.png", "height": 30, "width": 40})
    content["categories"].append({"id": 1, "name": "absent"})
    dataset = formats.CocoDataset()
    dataset.load(files.write_json(tmp_path / "x.json", content))
    dataset.prepare()
    numbers = formats.describe(dataset)
    leaf, nut = (mask.sum() for mask in files.masks())
    assert numbers["images"] == numbers["images_looked_at"] == 2
    assert numbers["instances"] == 2 and numbers["crowds"] == 1
    assert numbers["images_without_instances"] == 1
    assert numbers["image_heights"] == [30, 37.5, 45, 52.5, 60]
    assert numbers["instance_heights"][0] == 22 and numbers["instance_widths"] == [30] * 5
    assert numbers["instance_areas"][-1] == leaf and abs(numbers["instance_areas"][0] - nut) < 20
    assert numbers["classes"] == {"absent": 0, "leaf": 1, "nut": 1}
    printed = capsys.readouterr().out
    assert "2 images; 2 objects, 1 of them crowds" in printed
    assert "warning: classes without an object: absent" in printed
    assert "warning: 1 images have no object" in printed
    titles = [ax.get_title() for ax in numbers["figure"].axes]
    assert titles == ["Image sizes", "Objects per image", "Object sizes", "Objects per class"]


def test_masks_that_a_subclass_changes_are_described(tmp_path):
    class Largest(formats.CocoDataset):
        def load_mask(self, image_id):
            masks, class_ids = super().load_mask(image_id)
            largest = [int(np.argmax(masks.sum((0, 1))))]
            return masks[:, :, largest], class_ids[largest]

    files.write_picture(tmp_path / "a.png")
    dataset = Largest()
    dataset.load(files.write_json(tmp_path / "x.json", files.coco_content()))
    dataset.prepare()
    numbers = formats.describe(dataset)
    assert numbers["instances"] == 1
    assert numbers["instance_areas"] == [max(mask.sum() for mask in files.masks())] * 5


def test_broken_entries_are_warned_of_by_name(tmp_path, capsys):
    files.write_picture(tmp_path / "a.png", np.dstack([files.picture(), files.picture()[..., :1]]))
    files.write_picture(tmp_path / "b.png", files.picture(30, 40))
    content = files.coco_content(category_id=99)
    content["images"].append({"id": 2, "file_name": "b.png", "height": 31, "width": 40})
    content["images"].append({"id": 3, "file_name": "gone.png", "height": 31, "width": 40})
    dataset = formats.CocoDataset()
    dataset.load(files.write_json(tmp_path / "x.json", content))
    dataset.prepare()
    numbers = formats.describe(dataset)
    assert numbers["problems"] == {
        problems.UNKNOWN_CLASS: 1,
        problems.MISSING_IMAGE: 1,
        problems.ALPHA: 1,
        problems.STATED_SIZE: 1,
    }
    printed = capsys.readouterr().out
    for name in (
        "gone.png",
        "of image id 1 has (height, width) (30, 40)",
        "category_id 99",
        "a.png",
    ):
        assert any(name in line for line in printed.splitlines() if line.startswith("warning: 1 x "))


def test_any_dataset_can_be_described(capsys):
    numbers = formats.describe(toy_dataset(7), limit=3)
    assert numbers["images"] == 7 and numbers["images_looked_at"] == 3
    assert numbers["instances"] == 9 and sum(numbers["classes"].values()) == 9
    assert "7 images, 3 of them examined; 9 objects" in capsys.readouterr().out


def test_rare_classes_small_and_many_objects_are_named():
    class Crowded(Dataset):
        def load_image(self, image_id):
            return np.zeros((100, 300, 3), np.uint8)

        def load_mask(self, image_id):
            masks = np.zeros((100, 300, 101), bool)
            for index in range(101):
                masks[index % 50 * 2, index // 50 * 20 : index // 50 * 20 + 9, index] = True
            return masks, np.array([1] * 100 + [2], np.int32)

    dataset = Crowded()
    dataset.add_class("x", 1, "common")
    dataset.add_class("x", 2, "rare")
    dataset.add_image("x", 1, None)
    dataset.prepare()
    warnings = formats.describe(dataset)["warnings"]
    assert len(warnings) == 3
    assert warnings[0] == "classes with less than 2% of the objects: rare"
    assert warnings[1].startswith("at least a quarter of the objects are no more than 1 pixels high or wide")
    assert warnings[2].startswith("an image has up to 101 objects")


def test_a_dataset_without_objects_or_images(capsys):
    class Empty(Dataset):
        def load_image(self, image_id):
            if image_id == 1:
                raise OSError("cannot be read")
            return np.zeros((10, 20, 3), np.uint8)

    dataset = Empty()
    dataset.add_class("x", 1, "thing")
    dataset.prepare()
    with pytest.raises(ValueError, match="no images"):
        formats.describe(dataset)
    dataset.add_image("x", "a", None)
    dataset.add_image("x", "b", "b.png")
    dataset.prepare()
    numbers = formats.describe(dataset)
    assert numbers["images_looked_at"] == 1 and numbers["instance_areas"] == []
    assert "none of the images examined has an object" in numbers["warnings"]
    assert any("cannot be read" in text for text in numbers["warnings"])


def test_damaged_images_are_found_if_all_are_decoded(tmp_path):
    path = files.write_picture(tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:-3000])
    dataset = formats.CocoDataset()
    dataset.load(files.write_json(tmp_path / "x.json", files.coco_content()))
    dataset.prepare()
    assert formats.describe(dataset)["problems"] == {}
    numbers = formats.describe(dataset, decode=True)
    assert numbers["problems"] == {problems.UNREADABLE_IMAGE: 1} and numbers["images_looked_at"] == 0
