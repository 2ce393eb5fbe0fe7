"""Datasets in other formats: names of results, paths of images, lost classes."""

import annotation_files as files
import numpy as np
import pytest
from PIL import Image

from mrcnn import formats
from mrcnn.errors import LeftOutWarning
from mrcnn.formats.writing import unique_names


@pytest.mark.parametrize(
    "paths, names",
    [
        (["a.png", "b.png"], ["a", "b"]),
        (["a.png", "a.jpg", "b.png"], ["a.png", "a.jpg", "b"]),
        (["mon/1.png", "tue/1.png"], ["mon_1", "tue_1"]),
        (["mon/1.png", "tue/1.png", "mon_1.png"], ["mon_1", "tue_1", "mon_1_2"]),
        (["images/a.png", "images/a.png"], ["images_a", "images_a_2"]),
    ],
)
def test_each_image_has_a_name_of_its_own(paths, names):
    assert unique_names(paths) == names


@pytest.fixture
def two_folders(tmp_path):
    """A dataset of two images of one name, with one square each."""
    content = files.coco_content("mon/1.png")
    content["images"].append(content["images"][0] | {"id": 99, "file_name": "tue/1.png"})
    content["annotations"] += [
        record | {"image_id": 99, "id": 100 + number} for number, record in enumerate(content["annotations"])
    ]
    for folder in ("mon", "tue"):
        (tmp_path / folder).mkdir()
        files.write_picture(tmp_path / folder / "1.png", files.picture())
    dataset = formats.CocoDataset()
    dataset.load(files.write_json(tmp_path / "all.json", content))
    dataset.prepare()
    return dataset


@pytest.mark.parametrize("kind", ["labels", "yolo", "labelme", "geojson", "coco"])
@pytest.mark.filterwarnings("ignore:Label images")
def test_images_of_one_name_keep_their_own_results(kind, two_folders, tmp_path):
    counts = formats.write_dataset(two_folders, tmp_path / "new", [kind], copy_images=True)
    assert list(counts) == ["mon_1", "tue_1"]
    assert len(list((tmp_path / "new" / "images").iterdir())) == 2


def test_a_folder_above_the_images_needs_no_path_to_them(two_folders, tmp_path):
    formats.write_dataset(two_folders, tmp_path, ["coco"])
    again = formats.CocoDataset()
    again.load(tmp_path / "annotations.json")
    again.prepare()
    assert [info["path"].name for info in again.image_info] == ["1.png", "1.png"]


def test_classes_that_label_images_lose_are_named(tmp_path):
    Image.fromarray(np.zeros((30, 30, 3), np.uint8)).save(tmp_path / "a.png")
    content = files.coco_content("a.png")
    content["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    content["images"][0].update(height=30, width=30)
    content["annotations"] = [
        {"id": 1, "image_id": content["images"][0]["id"], "category_id": 1, "iscrowd": 0, "area": 100,
         "bbox": [5, 5, 10, 10], "segmentation": [[5, 5, 15, 5, 15, 15, 5, 15]]}
    ]  # fmt: skip
    dataset = formats.CocoDataset()
    dataset.load(files.write_json(tmp_path / "two.json", content))
    dataset.prepare()
    with pytest.warns(UserWarning, match="this dataset has 2: cat, dog"):
        formats.write_dataset(dataset, tmp_path / "labels only", ["labels"])


def test_images_that_cannot_be_read_are_left_out(two_folders, tmp_path):
    (tmp_path / "tue" / "1.png").write_bytes(b"broken")
    with pytest.warns(LeftOutWarning, match="1 of 2 images cannot be read.*tue/1.png"):
        counts = formats.write_dataset(two_folders, tmp_path / "new", ["geojson", "csv"])
    assert list(counts) == ["mon_1"]
