"""Readers list an image as empty where its annotations say so, and not where they are missing or broken."""

from pathlib import Path

import annotation_files as files
import numpy as np
import PIL.Image
import pytest

from mrcnn import formats
from mrcnn.config import Config
from mrcnn.data.generator import DataGenerator

NAMES = ["objects", "empty", "unclear"]  # the annotations of the last are broken or missing


def pictures(folder):
    for name in NAMES:
        files.write_picture(folder / f"{name}.png")


def coco(folder):
    pictures(folder)
    content = files.coco_content("objects.png")
    size = {"height": files.HEIGHT, "width": files.WIDTH}
    content["images"] += [{"id": n, "file_name": f"{NAMES[n]}.png", **size} for n in (1, 2)]
    content["annotations"].append({"id": 1, "image_id": 2, "category_id": 3, "segmentation": "broken"})
    dataset = formats.CocoDataset()
    dataset.load(files.write_json(folder / "all.json", content))
    return dataset


def via(folder):
    pictures(folder)
    content = files.via_content([files.via_region(name) for name in files.CORNERS], "objects.png")
    content |= files.via_content([], "empty.png")
    broken = {"shape_attributes": {"name": "polygon"}, "region_attributes": {"kind": "leaf"}}
    content |= files.via_content([broken], "unclear.png")
    dataset = formats.ViaDataset()
    dataset.load(files.write_json(folder / "via.json", content), keep_empty=True)
    return dataset


def labelme(folder):
    pictures(folder)
    files.write_json(folder / "0.json", files.labelme_content(image="objects.png"))
    files.write_json(folder / "1.json", files.labelme_content(image="empty.png") | {"shapes": []})
    files.write_json(folder / "2.json", files.labelme_content([{"label": "leaf"}], image="unclear.png"))
    dataset = formats.LabelMeDataset()
    dataset.load(folder, keep_empty=True)
    return dataset


def yolo(folder):
    """The last image has only a box, which says nothing of its outline."""
    pictures(folder / "images")
    texts = {"objects": files.yolo_line(0, "leaf"), "empty": "\n", "unclear": "0 0.5 0.5 0.1 0.1"}
    (folder / "labels").mkdir()
    for name, text in texts.items():
        (folder / "labels" / f"{name}.txt").write_text(text)
    dataset = formats.YoloDataset()
    dataset.load(folder / "images", ["leaf", "nut"])
    return dataset


def yolo_without_file(folder):
    yolo(folder)
    (folder / "labels" / "unclear.txt").unlink()
    dataset = formats.YoloDataset()
    dataset.load(folder / "images", ["leaf", "nut"])
    return dataset


def label_images(folder):
    pictures(folder / "images")
    (folder / "labels").mkdir()
    PIL.Image.fromarray(files.labels()).save(folder / "labels" / "objects.png")
    PIL.Image.fromarray(np.zeros_like(files.labels())).save(folder / "labels" / "empty.png")
    dataset = formats.LabelImageDataset()
    dataset.load(folder, classes=["leaf"])
    return dataset


@pytest.mark.parametrize("reader", [coco, via, labelme, yolo, yolo_without_file, label_images])
def test_images_without_objects_train_only_if_they_are_listed_as_empty(reader, tmp_path):
    dataset = reader(tmp_path)
    dataset.prepare()
    names = [Path(dataset.image_reference(image_id)).stem for image_id in dataset.image_ids]
    assert sorted(names) == sorted(NAMES)
    assert [name for n, name in enumerate(names) if dataset.is_listed_as_empty(n)] == ["empty"]
    assert len(dataset.load_mask(names.index("empty"))[1]) == 0

    config = Config()
    config.NUM_CLASSES, config.IMAGE_MIN_DIM, config.IMAGE_MAX_DIM = dataset.num_classes, 64, 64
    batches = DataGenerator(dataset, config, shuffle=False, steps="all", batch_size=1)
    trained = [int(batches[index][0]["input_image_meta"][0, 0]) for index in range(len(batches))]
    assert {names[image_id] for image_id in trained} == {"objects", "empty"}
