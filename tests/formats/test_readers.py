"""Each format read without broken entries: the same two objects come out of all of them."""

import json
import pickle
import tracemalloc
import zipfile

import annotation_files as files
import numpy as np
import PIL.Image
import pytest
from pycocotools import mask as rle

from mrcnn import formats, utils
from mrcnn.config import Config
from mrcnn.data.loading import load_image_gt
from mrcnn.dataset import Dataset
from mrcnn.formats import problems


def coco(folder):
    files.write_picture(folder / "a.png")
    dataset = formats.CocoDataset()
    dataset.load(files.write_json(folder / "all.json", files.coco_content()))
    return dataset


def via(regions):
    def read(folder):
        files.write_picture(folder / "a.png")
        dataset = formats.ViaDataset()
        dataset.load(files.write_json(folder / "via.json", files.via_content(regions)))
        return dataset

    return read


def labelme(folder):
    files.write_picture(folder / "a.png")
    files.write_json(folder / "a.json", files.labelme_content())
    dataset = formats.LabelMeDataset()
    dataset.load(folder)
    return dataset


def yolo(folder):
    files.write_picture(folder / "images" / "train" / "a.png")
    text = folder / "labels" / "train" / "a.txt"
    text.parent.mkdir(parents=True, exist_ok=True)
    text.write_text(f"{files.yolo_line(0, 'leaf')}\n\n{files.yolo_line(1, 'nut')}\n")
    dataset = formats.YoloDataset()
    dataset.load(folder / "images" / "train", ["leaf", "nut"])
    return dataset


def label_images(folder):
    files.write_picture(folder / "images" / "a.png")
    files.write_picture(
        folder / "labels" / "a.png",
        np.where(files.labels() == 3, 1001, 0).astype(np.uint16)
        + np.where(files.labels() == 7, 2001, 0).astype(np.uint16),
    )
    dataset = formats.LabelImageDataset()
    dataset.load(folder, classes=["leaf", "nut"], class_divisor=1000)
    return dataset


POLYGONS = [files.via_region(name) for name in files.CORNERS]
READERS = {
    "coco": coco,
    "via 1": via({"0": POLYGONS[0], "1": POLYGONS[1]}),
    "via 2": via(POLYGONS),
    "labelme": labelme,
    "yolo": yolo,
    "label images": label_images,
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_all_formats_agree(reader, tmp_path):
    dataset = reader(tmp_path)
    dataset.prepare()
    assert dataset.class_names == ["BG", "leaf", "nut"]
    assert dataset.problems.counts == {}
    assert dataset.image_size(0) == (files.HEIGHT, files.WIDTH)
    assert np.array_equal(dataset.load_image(0), files.picture())
    masks, class_ids = dataset.load_mask(0)
    assert masks.dtype == bool and masks.shape == (files.HEIGHT, files.WIDTH, 2)
    assert class_ids.dtype == np.int32 and class_ids.tolist() == [1, 2]
    for index, expected in enumerate(files.masks()):
        overlap = (masks[..., index] & expected).sum() / (masks[..., index] | expected).sum()
        assert overlap > 0.97
    assert np.array_equal(masks[..., 0], files.masks()[0])


@pytest.mark.parametrize("reader, place", [(labelme, "._a.json"), (yolo, "labels/train/._a.txt")])
def test_hidden_files_of_a_mac_are_ignored(reader, place, tmp_path):
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_bytes(b"\0\5\x16\7")
    assert reader(tmp_path).problems.counts == {}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_instances_are_crops_of_the_masks(reader, tmp_path):
    dataset = reader(tmp_path)
    dataset.prepare()
    dataset = pickle.loads(pickle.dumps(dataset))  # worker processes get it so
    masks, class_ids = dataset.load_mask(0)
    instances = list(dataset.load_instances(0))
    assert [instance.class_id for instance in instances] == class_ids.tolist()
    assert instances[0].box == (8, 10, 30, 40)
    for index, instance in enumerate(instances):
        y1, x1, y2, x2 = instance.box
        assert instance.mask.shape == (y2 - y1, x2 - x1)
        assert instance.mask.sum() == masks[..., index].sum()
        assert np.array_equal(masks[y1:y2, x1:x2, index], instance.mask)


def test_coco_crowds_run_lengths_and_ids_with_gaps(tmp_path):
    files.write_picture(tmp_path / "a.png")
    leaf, nut = files.masks()
    counts = np.flatnonzero(np.diff(np.concatenate([[0], leaf.T.ravel(), [0]]).astype(int)))
    counts = np.diff([0, *counts, leaf.size]).tolist()
    packed = rle.encode(np.asfortranarray(nut.astype(np.uint8)))
    content = files.coco_content()
    size = [files.HEIGHT, files.WIDTH]
    content["annotations"] = [
        {
            "id": 2**40,
            "image_id": 42,
            "category_id": 17,
            "iscrowd": 1,
            "segmentation": {"counts": counts, "size": size},
        },
        {
            "id": 1,
            "image_id": 42,
            "category_id": 3,
            "segmentation": {"counts": packed["counts"].decode(), "size": size},
        },
        {
            "id": 2,
            "image_id": 42,
            "category_id": 3,
            "iscrowd": 1,
            "segmentation": {"counts": [0, 4], "size": [2, 2]},
        },
        {
            "id": 3,
            "image_id": 42,
            "category_id": 3,
            "segmentation": [[1, 1, 4, 1, 4, 4, 1, 4], [9, 1, 12, 1, 12, 4, 9, 4]],
        },
    ]
    dataset = formats.CocoDataset()
    dataset.load(files.write_json(tmp_path / "x.json", content), tmp_path, source="mine")
    dataset.prepare()
    masks, class_ids = dataset.load_mask(0)
    assert class_ids.tolist() == [-2, 1, -1, 1]  # nut is 17 of 3 and 17
    assert np.array_equal(masks[..., 0], leaf) and np.array_equal(masks[..., 1], nut)
    assert masks[..., 2].all()  # a crowd's mask of a wrong size covers the image
    assert masks[..., 3].sum() == 18 and masks[1:4, 9:12, 3].all()  # two parts, one object
    assert dataset.get_source_class_id(2, "mine") == 17
    assert dataset.image_info[0]["id"] == 42
    truth = dataset.coco_annotations(0)
    assert [record["category_id"] for record in truth] == [2, 1, 1, 1]
    assert [record["area"] for record in truth] == [leaf.sum(), nut.sum(), leaf.size, 18]
    assert truth[0]["bbox"] == [10, 8, 30, 22] and truth[0]["iscrowd"] == 1


def test_coco_classes_are_chosen_by_name_or_id(tmp_path):
    files.write_picture(tmp_path / "a.png")
    path = files.write_json(tmp_path / "x.json", files.coco_content())
    for classes in (["nut"], [17]):
        dataset = formats.CocoDataset()
        dataset.load(path, classes=classes)
        dataset.prepare()
        assert dataset.class_names == ["BG", "nut"]
        assert dataset.load_mask(0)[1].tolist() == [1]
    with pytest.raises(ValueError, match=r"x\.json: `classes` must be.*Unknown: \['acorn'\].*17: 'nut'"):
        dataset.load(path, classes=["acorn"])


def test_images_without_objects_stay_if_wanted(tmp_path):
    files.write_picture(tmp_path / "a.png")
    files.write_picture(tmp_path / "b.png")
    content = files.coco_content()
    content["images"].append({"id": 7, "file_name": "b.png", "height": files.HEIGHT, "width": files.WIDTH})
    path = files.write_json(tmp_path / "x.json", content)
    found = []
    for keep_empty in (True, False):
        dataset = formats.CocoDataset()
        dataset.load(path, keep_empty=keep_empty)
        dataset.prepare()
        found.append([info["id"] for info in dataset.image_info])
    assert found == [[42, 7], [42]]


def test_via_shapes_projects_and_attributes(tmp_path):
    files.write_picture(tmp_path / "a.png")
    shapes = [
        {"name": "rect", "x": 10, "y": 8, "width": 30, "height": 22},
        {"name": "circle", "cx": 30, "cy": 30, "r": 10},
        {"name": "ellipse", "cx": 45, "cy": 30, "rx": 20, "ry": 5, "theta": np.pi / 2},
        {"name": "polyline", "all_points_x": [0, 9, 9, 0], "all_points_y": [0, 0, 9, 9]},
    ]
    ticked = {"leaf": True, "nut": False}
    regions = [
        {"shape_attributes": shape, "region_attributes": {"kind": ticked, "age": "3"}} for shape in shapes
    ]
    project = {"_via_settings": {}, "_via_img_metadata": files.via_content(regions), "_via_attributes": {}}
    path = files.write_json(tmp_path / "project.json", project)
    dataset = formats.ViaDataset()
    with pytest.raises(ValueError, match=r"`class_attribute` .*must name.*\['age', 'kind'\]"):
        dataset.load(path)
    dataset.load(path, class_attribute="kind")
    dataset.prepare()
    masks, class_ids = dataset.load_mask(0)
    assert dataset.class_names == ["BG", "leaf"] and class_ids.tolist() == [1] * 4
    assert np.array_equal(masks[..., 0], files.masks()[0])
    assert masks[..., 1].sum() == pytest.approx(np.pi * 100, rel=0.03)
    assert masks[..., 2].sum() == pytest.approx(np.pi * 100, rel=0.03)
    assert masks[12:48, 45, 2].all() and not masks[30, 55:, 2].any()  # upright after a quarter turn
    assert masks[1:9, 1:9, 3].all()


def test_via_gives_one_class_to_all_regions(tmp_path):
    files.write_picture(tmp_path / "a.png")
    path = files.write_json(tmp_path / "via.json", files.via_content(POLYGONS))
    dataset = formats.ViaDataset()
    dataset.load(path, classes=["thing"])
    dataset.prepare()
    assert dataset.load_mask(0)[1].tolist() == [1, 1]
    assert dataset.image_info[0]["width"] == files.WIDTH and dataset.image_info[0]["height"] == files.HEIGHT


@pytest.mark.parametrize("kind", ["rectangle", "oriented_rectangle", "rotation", "quadrilateral"])
def test_labelme_shapes_of_four_corners(kind, tmp_path):
    """LabelMe and X-AnyLabeling have turned rectangles. X-AnyLabeling writes four corners of all of them."""
    content = files.labelme_content(image="a.png")
    corners = [[30, 10], [50, 30], [30, 50], [10, 30]]
    content["shapes"] = [{"label": "leaf", "points": corners, "shape_type": kind}]
    files.write_picture(tmp_path / "a.png")
    files.write_json(tmp_path / "a.json", content)
    dataset = formats.LabelMeDataset()
    dataset.load(tmp_path)
    dataset.prepare()
    mask = dataset.load_mask(0)[0][..., 0]
    assert mask[30, 12] and mask[30, 47] and not mask[12, 12] and dataset.problems.counts == {}
    assert mask.sum() == pytest.approx(800, abs=30)


def test_labelme_groups_masks_circles_and_the_picture_inside(tmp_path):
    mask = np.full((5, 7), 255, np.uint8)
    mask[0, 0] = 0
    shapes = [
        {"label": "leaf", "points": [[1, 1], [4, 4]], "shape_type": "rectangle", "group_id": 1},
        {"label": "leaf", "points": [[9, 1], [12, 4]], "shape_type": "rectangle", "group_id": 1},
        {"label": "nut", "points": [[40, 30], [50, 30]], "shape_type": "circle", "group_id": 1},
        {"label": "nut", "points": [[-2, 20], [5, 25]], "shape_type": "mask", "mask": files.base64_png(mask)},
    ]
    content = files.labelme_content(shapes, image="gone.png", imageData=files.base64_png(files.picture()))
    files.write_json(tmp_path / "a.json", content)
    dataset = formats.LabelMeDataset()
    dataset.load(tmp_path)
    dataset.prepare()
    assert np.array_equal(dataset.load_image(0), files.picture())
    masks, class_ids = dataset.load_mask(0)
    assert class_ids.tolist() == [1, 2, 2]
    assert masks[..., 0].sum() == 18
    assert masks[..., 1].sum() == pytest.approx(np.pi * 100, rel=0.03)
    assert masks[20:25, 0:5, 2].all() and masks[..., 2].sum() == 25  # two columns are outside
    assert dataset.problems.counts == {}


def test_labelme_unites_masks_and_outlines_of_one_group(tmp_path):
    mask = files.base64_png(np.full((5, 7), 255, np.uint8))
    square = {"label": "leaf", "points": [[1, 1], [4, 4]], "shape_type": "rectangle", "group_id": 1}
    placed = {"label": "leaf", "points": [[20, 30], [26, 34]], "shape_type": "mask", "mask": mask}
    outside = {"points": [[-70, 20], [-64, 24]], "group_id": 1}
    shapes = [
        placed | {"group_id": 1},
        square,
        placed | {"group_id": 1, "points": [[85, 57], [91, 61]]},  # partly outside
        placed | outside,
        placed | {"group_id": 2},  # another object, on the same pixels
        placed | {"group_id": 1, "label": "nut"},
        {"label": "leaf", "points": [[1, 1]], "shape_type": "point", "group_id": 2},
    ]
    files.write_picture(tmp_path / "a.png")
    files.write_json(tmp_path / "a.json", files.labelme_content(shapes))
    dataset = formats.LabelMeDataset()
    dataset.load(tmp_path)
    dataset.prepare()
    masks, class_ids = dataset.load_mask(0)
    assert class_ids.tolist() == [1, 1, 2]
    assert masks[..., 0].sum() == 9 + 35 + 3 * 5 and masks[1:4, 1:4, 0].all()
    assert masks[30:35, 20:27, 0].all() and masks[57:, 85:, 0].all()
    for index in (1, 2):
        assert masks[30:35, 20:27, index].all() and masks[..., index].sum() == 35
    assert dataset.problems.counts == {problems.OUTSIDE: 1, problems.NO_OUTLINE: 1}


def test_a_broken_mask_leaves_the_outline_of_its_group(tmp_path):
    square = {"label": "leaf", "points": [[1, 1], [4, 4]], "shape_type": "rectangle", "group_id": 1}
    broken = {"label": "leaf", "points": [[1, 1], [3, 3]], "shape_type": "mask", "mask": "%%%", "group_id": 1}
    files.write_picture(tmp_path / "a.png")
    files.write_json(tmp_path / "a.json", files.labelme_content([broken, square]))
    dataset = formats.LabelMeDataset()
    dataset.load(tmp_path)
    dataset.prepare()
    assert dataset.load_mask(0)[0].sum(axis=(0, 1)).tolist() == [9]
    assert dataset.problems.counts == {problems.BROKEN_MASK: 1}


@pytest.mark.parametrize("classes", [["cat", "dog"], ["cat"], None])
def test_via_regions_without_a_class_get_the_only_one(classes, tmp_path):
    """Of several classes, nobody knows which one it is."""
    files.write_picture(tmp_path / "a.png")
    region = files.via_region("leaf") | {"region_attributes": {}}
    dataset = formats.ViaDataset()
    content = files.via_content([region]) | files.via_content([], "b.png")
    dataset.load(files.write_json(tmp_path / "via.json", content), classes=classes)
    dataset.prepare()
    is_known = classes is None or len(classes) == 1
    assert dataset.load_mask(0)[1].tolist() == ([1] if is_known else [])
    assert dataset.problems.counts == ({} if is_known else {problems.UNKNOWN_CLASS: 1})
    assert is_known or "region 0: The region has no class." in dataset.problems.lines()[0]
    assert not dataset.is_listed_as_empty(0)


def test_label_images_in_a_zip_with_palette_gaps_and_a_choice(tmp_path):
    labels = PIL.Image.fromarray(files.labels())
    labels.putpalette(list(range(256)) * 3)
    labels.save(tmp_path / "a_labels.png")
    files.write_picture(tmp_path / "a.jpg")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in ("a", "b"):
            archive.write(tmp_path / "a.jpg", f"data/images/{name}.jpg")
            archive.write(tmp_path / "a_labels.png", f"data/masks/{name}.png")
    dataset = formats.LabelImageDataset()
    dataset.load(tmp_path / "all.zip", "data/images", "data/masks", classes=["seed"], only=["b"])
    dataset.prepare()
    assert [info["id"] for info in dataset.image_info] == ["b"]
    assert dataset.image_reference(0).endswith("all.zip/data/images/b.jpg")
    masks, class_ids = dataset.load_mask(0)
    assert class_ids.tolist() == [1, 1]
    assert np.array_equal(masks, np.stack(files.masks(), axis=-1))
    assert dataset.load_image(0).shape == (files.HEIGHT, files.WIDTH, 3)


def test_label_images_of_32_bits_and_of_one(tmp_path):
    files.write_picture(tmp_path / "images" / "a.png")
    leaf, nut = files.masks()
    for kind, expected in (
        ((leaf * 70_000_000 + nut * 5).astype(np.int32), [nut, leaf]),
        ((~leaf * 70_000_000 + leaf * 5).astype(np.int32), [leaf, ~leaf]),  # no background
        (leaf, [leaf]),
    ):
        (tmp_path / "labels").mkdir(exist_ok=True)
        PIL.Image.fromarray(kind).save(tmp_path / "labels" / "a.tif")
        dataset = formats.LabelImageDataset()
        dataset.load(tmp_path)
        dataset.prepare()
        assert np.array_equal(dataset.load_mask(0)[0], np.stack(expected, axis=-1))


def test_mask_files_of_the_data_science_bowl(tmp_path):
    files.write_picture(tmp_path / "x1" / "images" / "x1.png")
    for name, mask in zip("ab", files.masks(), strict=True):
        files.write_picture(tmp_path / "x1" / "masks" / f"{name}.png", mask.astype(np.uint8) * 255)
    dataset = formats.MaskFileDataset()
    dataset.load(tmp_path, "nucleus")
    dataset.prepare()
    assert dataset.class_names == ["BG", "nucleus"]
    assert np.array_equal(dataset.load_mask(0)[0], np.stack(files.masks(), axis=-1))


@pytest.mark.parametrize("text", ["names: [leaf, nut]\n", "names:\n  0: leaf\n  1: nut\n", "leaf\nnut\n"])
def test_yolo_names_come_from_a_file(text, tmp_path):
    path = tmp_path / ("data.yaml" if "names" in text else "classes.txt")
    path.write_text(text)
    files.write_picture(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text(files.yolo_line(1, "nut"))
    dataset = formats.YoloDataset()
    dataset.load(tmp_path / "images", path)
    dataset.prepare()
    assert dataset.class_names == ["BG", "leaf", "nut"]
    assert dataset.load_mask(0)[1].tolist() == [2]


def test_several_sources_in_one_dataset(tmp_path):
    files.write_picture(tmp_path / "a.png")
    path = files.write_json(tmp_path / "x.json", files.coco_content())
    dataset = formats.CocoDataset()
    dataset.load(path, source="first")
    dataset.load(path, source="second", classes=["nut"])
    dataset.prepare()
    assert dataset.source_class_ids == {"": [0], "first": [0, 1, 2], "second": [0, 3]}
    assert dataset.load_mask(0)[1].tolist() == [1, 2]
    assert dataset.load_mask(1)[1].tolist() == [3]


def test_rare_groups_come_again():
    dataset = utils.Dataset()
    for number in range(12):
        dataset.add_image("toy", number, path=None)
    balanced = formats.repeat_rare(dataset, {"many": range(8), "few": [8, 9], "none": [], "one": [10]})
    ids = [info["id"] for info in balanced.image_info]
    assert ids == [*range(12), 8, 9, 10, 10, 10]
    assert balanced.num_images == 17 and len(dataset.image_info) == 12
    assert formats.repeat_rare(dataset, {}).num_images == 12


def test_split_and_subset(tmp_path):
    for number in range(10):
        files.write_picture(tmp_path / f"{number}.png")
        files.write_json(tmp_path / f"{number}.json", files.labelme_content(image=f"{number}.png"))
    dataset = formats.LabelMeDataset()
    dataset.load(tmp_path)
    train, val = formats.split(dataset, share=0.3)
    names = [{info["id"] for info in part.image_info} for part in (train, val)]
    assert [len(own) for own in names] == [7, 3]
    assert names[0] | names[1] == set("0123456789") and not names[0] & names[1]
    assert formats.split(dataset, share=0.3)[1].image_info == val.image_info
    assert formats.split(dataset, share=0.3, seed=1)[1].image_info != val.image_info
    assert val.class_names == ["BG", "leaf", "nut"] and val.load_mask(2)[1].tolist() == [1, 2]
    with pytest.raises(ValueError, match="at least two images"):
        formats.split(formats.subset(dataset, [3]))


@pytest.mark.usefixtures("usual_collector")
def test_a_large_image_with_many_objects_needs_little_memory(tmp_path):
    """450 objects on 3,000 x 4,000 pixels: whole masks would be 5.4 GB."""
    labels = np.zeros((3000, 4000), np.uint16)
    for number in range(450):
        y, x = 190 * (number // 30), 130 * (number % 30)
        labels[y : y + 100, x : x + 100] = number + 1
    files.write_picture(tmp_path / "images" / "a.png", np.zeros((3000, 4000, 3), np.uint8))
    files.write_picture(tmp_path / "labels" / "a.png", labels)
    dataset = formats.LabelImageDataset()
    dataset.load(tmp_path)
    dataset.prepare()
    tracemalloc.start()
    _, _, class_ids, boxes, masks = load_image_gt(dataset, Config(), 0, use_mini_mask=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(class_ids) == 450 and masks.shape == (56, 56, 450) and masks.all()
    assert boxes[0].tolist() == [128, 0, 154, 26]
    assert peak < 0.2e9, peak


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_training_gets_the_same_from_crops_and_from_whole_masks(reader, tmp_path):
    class Whole(Dataset):
        def load_image(self, image_id):
            return dataset.load_image(image_id)

        def load_mask(self, image_id):
            return dataset.load_mask(image_id)

    dataset = reader(tmp_path)
    whole = Whole()
    whole.class_info, whole.image_info = dataset.class_info, dataset.image_info
    for each in (dataset, whole):
        each.prepare()
    config = Config()
    config.IMAGE_MIN_DIM = config.IMAGE_MAX_DIM = 128
    for got, expected in zip(load_image_gt(dataset, config, 0), load_image_gt(whole, config, 0), strict=True):
        assert np.array_equal(got, expected) and got.dtype == expected.dtype


def test_training_follows_a_subclass_that_overrides_load_mask(tmp_path):
    class First(formats.CocoDataset):
        def load_mask(self, image_id):
            masks, class_ids = super().load_mask(image_id)
            return masks[..., :1], class_ids[:1]

    files.write_picture(tmp_path / "a.png")
    dataset = First()
    dataset.load(files.write_json(tmp_path / "x.json", files.coco_content()))
    dataset.prepare()
    assert load_image_gt(dataset, Config(), 0)[2].tolist() == [1]


def test_json_with_a_byte_order_mark(tmp_path):
    files.write_picture(tmp_path / "a.png")
    path = tmp_path / "x.json"
    path.write_text("\ufeff" + json.dumps(files.coco_content()), encoding="utf-8")
    dataset = formats.CocoDataset()
    dataset.load(path)
    assert len(dataset.image_info) == 1
