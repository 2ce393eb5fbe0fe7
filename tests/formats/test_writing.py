"""Datasets in other formats: names of results, paths of images, lost classes, orientation."""

import csv
import json
import warnings
import zipfile

import annotation_files as files
import numpy as np
import pytest
from PIL import Image

from mrcnn import formats
from mrcnn.dataset import Dataset
from mrcnn.errors import InvalidDataError, LeftOutWarning
from mrcnn.formats.shown import objects_of
from mrcnn.formats.writing import unique_names


@pytest.mark.parametrize(
    "paths, names",
    [
        (["a.png", "b.png"], ["a", "b"]),
        (["a.png", "a.jpg", "b.png"], ["a.png", "a.jpg", "b"]),
        (["mon/1.png", "tue/1.png"], ["mon_1", "tue_1"]),
        (["mon/1.png", "tue/1.png", "mon_1.png"], ["mon_1", "tue_1", "mon_1_2"]),
        (["C:/1.png", "D:/1.png"], ["C__1", "D__1"]),
        (["images/a.png", "images/a.png"], ["images_a", "images_a_2"]),
        (["a.jpg", "a.png", "a.png.tif"], ["a.jpg", "a.png", "a.png.tif"]),
        (["a.png", "a.png.tif", "b.png"], ["a", "a.png.tif", "b"]),
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


READERS = {
    "yolo": lambda folder: read(formats.YoloDataset, folder / "images", folder / "data.yaml"),
    "geojson": lambda folder: read(formats.GeoJsonDataset, folder / "geojson", folder / "images"),
    "labelme": lambda folder: read(formats.LabelMeDataset, folder / "labelme"),
    "coco": lambda folder: read(formats.CocoDataset, folder / "annotations.json"),
    "labels": lambda folder: read(formats.LabelImageDataset, folder),
}


def read(kind, *arguments):
    dataset = kind()
    dataset.load(*arguments)
    dataset.prepare()
    return dataset


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("orientation", [6, 7])
def test_objects_stay_on_their_pixels(kind, orientation, tmp_path):
    """The label image fits the stored rows and columns of a photo, but readers turn the photo."""
    mask = np.zeros((40, 60), np.uint8)
    mask[4:16, 8:30] = 1
    photo = np.repeat(mask[..., np.newaxis] * 255, 3, axis=-1)
    files.write_picture(tmp_path / "images" / "a.png", photo, orientation)
    files.write_picture(tmp_path / "labels" / "a.png", mask)
    dataset = read(formats.LabelImageDataset, tmp_path)
    formats.write_dataset(dataset, tmp_path / "new", [kind, "csv"], copy_images=True)
    copy = READERS[kind](tmp_path / "new")
    inside = copy.load_mask(0)[0][..., 0]
    assert inside.shape == (60, 40) and inside.sum() == mask.sum()
    np.testing.assert_array_equal(copy.load_image(0)[..., 0], inside * 255)
    with open(tmp_path / "new" / "measurements.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert {float(value) for name, value in row.items() if "intensity" in name} == {255.0}


@pytest.mark.parametrize("kind", ["labels", "yolo", "labelme", "geojson", "csv", "tiff", "coco"])
@pytest.mark.parametrize("orientation", [None, 8])
def test_an_empty_image_has_the_size_of_the_image(kind, orientation, tmp_path):
    path = files.write_picture(tmp_path / "a.png", orientation=orientation)
    dataset = Dataset()
    dataset.add_class("own", 1, "thing")
    dataset.add_image("own", 0, path, is_empty=True)
    dataset.add_image("own", 1, tmp_path / "b.png")  # nobody knows whether it is empty
    files.write_picture(tmp_path / "b.png")
    dataset.prepare()
    counts = formats.write_dataset(dataset, tmp_path / "new", [kind], copy_images=True)
    assert counts == {"a": 0}
    height, width = (files.HEIGHT, files.WIDTH) if orientation is None else (files.WIDTH, files.HEIGHT)
    if kind == "coco":
        (image,) = json.loads((tmp_path / "new" / "annotations.json").read_text())["images"]
        assert (image["height"], image["width"]) == (height, width)
    if kind in ("coco", "labels", "yolo"):  # the others take the classes from the objects
        copy = READERS[kind](tmp_path / "new")
        assert copy.is_listed_as_empty(0) and copy.load_mask(0)[0].shape == (height, width, 0)


def test_relative_and_absolute_folders(tmp_path, monkeypatch):
    dataset = formats.LabelImageDataset()
    monkeypatch.chdir(tmp_path)
    for folder in ("one", tmp_path / "two"):
        files.write_picture(tmp_path / folder / "images" / "a.png")
        files.write_picture(tmp_path / folder / "labels" / "a.png", files.labels())
        dataset.load(folder)
    dataset.prepare()
    counts = formats.write_dataset(dataset, tmp_path / "new", ["coco"])
    assert list(counts) == ["one_images_a", "two_images_a"]
    content = json.loads((tmp_path / "new" / "annotations.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["one/images/a.png", "two/images/a.png"]


def test_labelme_files_of_an_archive_need_a_copy_of_the_images(tmp_path):
    picture = files.write_picture(tmp_path / "a.png").read_bytes()
    labels = files.write_picture(tmp_path / "labels.png", files.labels()).read_bytes()
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr("images/a.png", picture)
        archive.writestr("labels/a.png", labels)
    dataset = read(formats.LabelImageDataset, tmp_path / "in.zip")
    with pytest.raises(InvalidDataError, match=r"in\.zip.*--copy-images") as caught:
        formats.write_dataset(dataset, tmp_path / "out", ["coco", "labelme"])
    assert caught.value.file == str(tmp_path / "in.zip") and not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="`path` of the result must be set"):
        objects_of(dataset, 0).save(tmp_path / "a.json", "labelme")
    formats.write_dataset(dataset, tmp_path / "out", ["labelme"], copy_images=True)
    assert read(formats.LabelMeDataset, tmp_path / "out" / "labelme").load_mask(0)[0].shape[-1] == 2
    formats.write_dataset(dataset, tmp_path / "out", ["geojson", "coco"])


def test_an_archive_with_backslashes(tmp_path):
    picture = files.write_picture(tmp_path / "a.png").read_bytes()
    labels = files.write_picture(tmp_path / "labels.png", files.labels()).read_bytes()
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as archive:
        for name, content in (("images\\a.png", picture), ("labels\\a.png", labels)):
            info = zipfile.ZipInfo()
            info.filename = name
            archive.writestr(info, content)
    dataset = read(formats.LabelImageDataset, tmp_path / "windows.zip")
    assert formats.write_dataset(dataset, tmp_path / "new", ["labels"], copy_images=True) == {"a": 2}
    assert read(formats.LabelImageDataset, tmp_path / "new").load_mask(0)[0].shape[-1] == 2


@pytest.mark.parametrize("kinds", [["yolo"], ["coco", "yolo"]])
def test_crowds_that_no_format_has_are_named(kinds, tmp_path):
    files.write_picture(tmp_path / "a.png")
    dataset = formats.CocoDataset()
    dataset.load(files.write_json(tmp_path / "x.json", files.coco_content(iscrowd=1)))
    dataset.prepare()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        formats.write_dataset(dataset, tmp_path / "out", kinds)
    texts = [str(warning.message) for warning in caught if warning.category is LeftOutWarning]
    left_out = "1 crowd was left out, because only the format coco has crowds."
    assert texts == ([] if "coco" in kinds else [left_out])
