"""Files that are broken as a whole, are no files, or hold other types than they should, in every format."""

import json
import os

import annotation_files as files
import numpy as np
import PIL.Image
import pytest

from mrcnn import formats
from mrcnn.errors import DataError, InvalidDataError, MissingFileError, UnreadableFileError
from mrcnn.formats import problems
from mrcnn.formats.yolo import read_names

DEEP = "[" * 100_000
NAN = float("nan")


def deep_value():
    """Nested as deeply as Python's JSON reader allows."""
    value = []
    for _ in range(900):
        value = [value]
    return value


# --- JSON ---


@pytest.mark.parametrize(
    "text", [DEEP, "{" + '"a":{' * 100_000, "[" + "9" * 5000 + "]", "", "null", "7", '"x"']
)
@pytest.mark.parametrize("reader", [formats.CocoDataset, formats.ViaDataset])
def test_json_of_other_content(reader, text, tmp_path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InvalidDataError, match=r"x\.json: ") as caught:
        reader().load(tmp_path / "x.json")
    assert caught.value.file == str(tmp_path / "x.json")


@pytest.mark.parametrize("reader", [formats.CocoDataset, formats.ViaDataset])
def test_pipes_folders_and_devices_are_not_opened(reader, tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "pipe.json", tmp_path, "/dev/zero"):
        with pytest.raises(UnreadableFileError, match="The path must be a file"):
            reader().load(path)
    with pytest.raises(MissingFileError, match=r"none\.json: There is no such file"):
        reader().load(tmp_path / "none.json")
    with pytest.raises(UnreadableFileError):
        reader().load("a\0b.json")


def test_one_broken_labelme_file_of_many(tmp_path):
    files.write_picture(tmp_path / "a.png")
    files.write_json(tmp_path / "a.json", files.labelme_content())
    (tmp_path / "b.json").write_text(DEEP)
    os.mkfifo(tmp_path / "c.json")
    files.write_json(tmp_path / "d.json", {"imagePath": "a.png", "shapes": [deep_value(), None, 3, "x"]})
    dataset = formats.LabelMeDataset()
    dataset.load(tmp_path)
    assert [info["id"] for info in dataset.image_info] == ["a", "d"]
    names = dataset.problems.names[problems.BROKEN_FIELD]
    assert [name.split(": ")[0][-6:] for name in names] == ["b.json", "c.json", *["d.json"] * 4]


def test_values_nested_deeply(tmp_path):
    files.write_picture(tmp_path / "a.png")
    content = files.coco_content(segmentation=deep_value(), id=deep_value())
    content["annotations"].append(deep_value())
    content["images"].append({"id": deep_value(), "file_name": deep_value()})
    content["categories"].append({"id": 4, "name": deep_value()})
    dataset = formats.CocoDataset()
    dataset.load(files.write_json(tmp_path / "x.json", content))
    dataset.prepare()
    assert dataset.problems.counts == {problems.BROKEN_FIELD: 4}
    assert dataset.load_mask(0)[1].tolist() == [2]


def test_long_and_unprintable_names_stay_on_one_line(tmp_path, caplog, capsys):
    files.write_picture(tmp_path / "a.png")
    content = files.coco_content()
    size = {"height": files.HEIGHT, "width": files.WIDTH}
    content["images"].append({"id": 1, "file_name": "x\ny" + "z" * 5000 + "100%d.png", **size})
    content["categories"].append({"id": 5, "name": "half \ud800"})
    dataset = formats.CocoDataset()
    dataset.load(files.write_json(tmp_path / "x.json", content))
    dataset.prepare()
    for record in caplog.records:
        assert "\n" not in record.getMessage() and len(record.getMessage()) < 1000
        record.getMessage().encode()
    formats.describe(dataset)
    assert dataset.class_names == ["BG", "leaf", "nut"]


# --- VIA and LabelMe ---

LEAF = files.via_region("leaf")
REGIONS = {
    "null": None,
    "a number": 3,
    "attributes a number": LEAF | {"region_attributes": 7},
    "attributes a text": LEAF | {"region_attributes": "kind"},
    "no shape": {"region_attributes": {"kind": "leaf"}},
    "shape a list": LEAF | {"shape_attributes": []},
    "name a number": LEAF | {"shape_attributes": {"name": 3}},
    "radius a text": LEAF | {"shape_attributes": {"name": "circle", "cx": 1, "cy": 1, "r": "x"}},
    "radius not a number": LEAF | {"shape_attributes": {"name": "circle", "cx": 1, "cy": 1, "r": NAN}},
    "huge radius": LEAF | {"shape_attributes": {"name": "circle", "cx": 1, "cy": 1, "r": 10**400}},
    "theta a text": LEAF
    | {"shape_attributes": {"name": "ellipse", "cx": 9, "cy": 9, "rx": 5, "ry": 5, "theta": "x"}},
    "points a text": LEAF
    | {"shape_attributes": {"name": "polygon", "all_points_x": "123", "all_points_y": "1"}},
    "points null": LEAF
    | {"shape_attributes": {"name": "polygon", "all_points_x": [1, None, 9], "all_points_y": [1, 1, 9]}},
    "points nested": LEAF
    | {"shape_attributes": {"name": "polygon", "all_points_x": [[1], [9], [9]], "all_points_y": [1, 1, 9]}},
}


@pytest.mark.parametrize("region", REGIONS.values(), ids=REGIONS)
def test_regions_of_other_types(region, tmp_path):
    files.write_picture(tmp_path / "a.png")
    path = files.write_json(tmp_path / "x.json", files.via_content([region, files.via_region("nut")]))
    dataset = formats.ViaDataset()
    dataset.load(path, class_attribute="kind")
    dataset.prepare()
    (name,) = (name for names in dataset.problems.names.values() for name in names)
    assert "a.png: region 0: " in name
    assert [dataset.class_names[n] for n in dataset.load_mask(0)[1]] == ["nut"]


def test_entries_of_via_of_other_types(tmp_path):
    files.write_picture(tmp_path / "a.png")
    content = files.via_content([LEAF]) | {"b": None, "c": 3, "d": {"filename": 7, "regions": []}}
    content["e"] = {"filename": "a.png", "regions": 7}
    dataset = formats.ViaDataset()
    dataset.load(files.write_json(tmp_path / "x.json", content))
    assert dataset.problems.counts == {problems.BROKEN_FIELD: 4} and len(dataset.image_info) == 1


POLYGON = {"label": "leaf", "points": files.CORNERS["leaf"], "shape_type": "polygon"}
MASK = {"label": "leaf", "shape_type": "mask", "points": [[1, 1], [4, 4]]}
SHAPES = {
    "label null": POLYGON | {"label": None},
    "label a list": POLYGON | {"label": []},
    "empty label": POLYGON | {"label": ""},
    "points a number": POLYGON | {"points": 3},
    "points of three": POLYGON | {"points": [[1, 2, 3], [4, 5, 6], [7, 8, 1]]},
    "points flat": POLYGON | {"points": [1, 2, 3, 4, 5, 6]},
    "points null": POLYGON | {"points": [[1, 1], [None, 4], [9, 9]]},
    "type a list": POLYGON | {"shape_type": ["polygon"]},
    "corner not a number": MASK
    | {"points": [[NAN, 1], [4, 4]], "mask": files.base64_png(np.ones((3, 3), "u1"))},
    "mask a number": MASK | {"mask": 7},
    "no mask": MASK,
    "mask not ASCII": MASK | {"mask": "\u20ac\u20ac\u20ac\u20ac"},
    "mask not an image": MASK | {"mask": "AAAA"},
    "mask larger than the image": MASK | {"mask": files.base64_png(np.ones((99, 9), "u1"))},
    "circle of three points": POLYGON | {"shape_type": "circle"},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_shapes_of_other_types(shape, tmp_path):
    files.write_picture(tmp_path / "a.png")
    nut = POLYGON | {"label": "nut", "points": files.CORNERS["nut"]}
    files.write_json(tmp_path / "a.json", files.labelme_content([shape, nut]))
    dataset = formats.LabelMeDataset()
    dataset.load(tmp_path)
    dataset.prepare()
    (name,) = (name for names in dataset.problems.names.values() for name in names)
    assert "a.json: shapes[0]: " in name
    assert [dataset.class_names[n] for n in dataset.load_mask(0)[1]] == ["nut"]


def test_a_broken_size_in_a_labelme_file_is_replaced_by_that_of_the_image(tmp_path):
    files.write_picture(tmp_path / "a.png")
    files.write_json(tmp_path / "a.json", files.labelme_content(imageHeight=NAN))
    dataset = formats.LabelMeDataset()
    dataset.load(tmp_path)
    assert dataset.image_size(0) == (files.HEIGHT, files.WIDTH)
    assert "`imageHeight` must be a finite number" in dataset.problems.lines()[0]


def test_a_part_of_a_group_that_is_a_point(tmp_path):
    files.write_picture(tmp_path / "a.png")
    shapes = [POLYGON | {"group_id": 1}, POLYGON | {"group_id": 1, "points": [[50, 50]]}]
    files.write_json(tmp_path / "a.json", files.labelme_content(shapes))
    dataset = formats.LabelMeDataset()
    dataset.load(tmp_path)
    dataset.prepare()
    assert dataset.problems.counts == {problems.STRAY_PART: 1}
    assert dataset.load_mask(0)[0].sum() == files.masks()[0].sum()


@pytest.mark.parametrize("data", ["AAAA", "%%%", "\u20ac", 7])
def test_broken_images_in_labelme_files(data, tmp_path):
    files.write_json(tmp_path / "a.json", files.labelme_content(image="gone.png", imageData=data))
    with pytest.raises(InvalidDataError, match=r"The dataset has no usable image\..*\n  1 x image file"):
        formats.LabelMeDataset().load(tmp_path)


# --- YOLO ---


def test_a_broken_character_costs_its_line(tmp_path):
    files.write_picture(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    lines = [
        b"0 .1 .1 .5 .1 .5 .5\xff",
        files.yolo_line(0, "leaf").encode(),
        b"nan 1 1 2 2 3 1",
        b"1e999 1 1 2 2 3 1",
    ]
    lines += [b"0 nan .1 .5 .1 .5 .5", b"0 1e308 1e308 .5 .1 .5 1e308", b"0.5 .1 .1 .5 .1 .5 .5"]
    (tmp_path / "labels" / "a.txt").write_bytes(b"\xef\xbb\xbf\n" + b"\r\n".join(lines))
    dataset = formats.YoloDataset()
    dataset.load(tmp_path / "images", ["leaf"])
    dataset.prepare()
    assert dataset.load_mask(0)[1].tolist() == [1]
    assert dataset.problems.counts == {problems.BROKEN_FIELD: 3, problems.UNKNOWN_CLASS: 3}
    assert "a.txt: line 2: A line must be numbers" in dataset.problems.lines()[0]


def test_a_label_file_that_is_a_pipe(tmp_path):
    files.write_picture(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    os.mkfifo(tmp_path / "labels" / "a.txt")
    dataset = formats.YoloDataset()
    dataset.load(tmp_path / "images", ["leaf"])
    assert dataset.problems.counts == {problems.MISSING_LABELS: 1}
    assert not dataset.is_listed_as_empty(0)


ALIASES = "a: &a [x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)
)
YAML = {
    "aliases": (ALIASES + "names: *h", "aliases such as"),
    "deep": ("names: " + "[" * 20_000, "nested too deeply|not valid YAML"),
    "mixed keys": ("names: {0: a, x: b}", "must be numbered 0, 1, 2"),
    "null": ("names: [null, a]", "must be a list of names"),
    "empty": ("names: ['', a]", "must be a list of names"),
    "lists": ("names: [[a], b]", "must be a list of names"),
    "a tab": ("names:\n\t0: a", "not valid YAML"),
    "a text": ("names", "`names` must be a list or an object|the entry is not a JSON object"),
    "a control character": ("names: [a\0]", "not valid YAML"),
    "large": ("# " + "x" * (1 << 20) + "\nnames: [a]", "at most 1048576 bytes"),
}


@pytest.mark.parametrize("text, message", YAML.values(), ids=YAML)
def test_broken_class_names_of_yolo(text, message, tmp_path):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(InvalidDataError, match=message) as caught:
        read_names(tmp_path / "data.yaml")
    assert caught.value.file == str(tmp_path / "data.yaml")


def test_names_that_yaml_takes_for_other_types(tmp_path):
    (tmp_path / "data.yaml").write_text(
        "names: {0: no, 1: on, 2: 7, 3: 2001-99-99, 4: !!python/name:os.system x}"
    )
    assert read_names(tmp_path / "data.yaml") == ["no", "on", "7", "2001-99-99", "x"]


@pytest.mark.parametrize("classes", ["leaf", [], ["leaf", ""], [7], None, [None]])
def test_classes_of_other_types(classes, tmp_path):
    files.write_picture(tmp_path / "images" / "a.png")
    files.write_picture(tmp_path / "labels" / "a.png", files.labels())
    with pytest.raises(InvalidDataError, match=r"`classes` must be a list|Pass `classes`"):
        formats.LabelImageDataset().load(tmp_path, classes=classes)


# --- Label images and mask files ---


def label_dataset(folder, labels, **arguments):
    files.write_picture(folder / "images" / "a.png")
    files.write_picture(folder / "labels" / "a.png", labels)
    dataset = formats.LabelImageDataset()
    dataset.load(folder, **arguments)
    dataset.prepare()
    return dataset


def test_void_pixels(tmp_path):
    labels = np.where(files.labels() == 3, 1, 0) + np.where(files.labels() == 7, 2, 0)
    labels = labels.astype(np.uint8)
    labels[:, 85:] = 255
    dataset = label_dataset(tmp_path, labels)
    assert dataset.load_mask(0)[1].tolist() == [1, 1, 1]
    assert dataset.problems.counts == {problems.VOID_LABELS: 1}
    dataset = label_dataset(tmp_path, labels, void=[255])
    assert dataset.load_mask(0)[1].tolist() == [1, 1] and dataset.problems.counts == {}
    dataset = label_dataset(tmp_path, np.where(labels == 255, labels, 0).astype(np.uint8), void=[255])
    assert dataset.is_listed_as_empty(0) and len(dataset.load_mask(0)[1]) == 0


@pytest.mark.parametrize("void", [255, "255", [2.5], None])
def test_void_values_are_a_list(void, tmp_path):
    with pytest.raises(InvalidDataError, match=r"`void` must be a list of integers, such as void=\[\d+\]"):
        label_dataset(tmp_path, files.labels(), void=void)
    assert label_dataset(tmp_path, files.labels(), void=np.array([7])).load_mask(0)[1].tolist() == [1]


def test_a_binary_mask_in_place_of_labels_is_named(tmp_path):
    dataset = label_dataset(tmp_path, (files.labels() > 0).astype(np.uint8) * 255)
    assert dataset.load_mask(0)[1].tolist() == [1]
    assert dataset.problems.counts == {problems.BINARY_LABELS: 1}
    dataset = label_dataset(tmp_path, (files.labels() == 3).astype(np.uint8))
    assert dataset.load_mask(0)[1].tolist() == [1] and dataset.problems.counts == {}


def test_negative_labels_are_background(tmp_path):
    files.write_picture(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    for factor in (1, 100_000):
        labels = files.labels(np.int32) * factor
        labels[:5] = -1
        PIL.Image.fromarray(labels).save(tmp_path / "labels" / "a.tif")
        dataset = formats.LabelImageDataset()
        dataset.load(tmp_path)
        dataset.prepare()
        assert dataset.load_mask(0)[0].sum(axis=(0, 1)).tolist() == [mask.sum() for mask in files.masks()]


def test_labels_stored_as_jpeg_are_refused(tmp_path):
    label_dataset(tmp_path, files.labels())
    files.write_picture(tmp_path / "images" / "b.png")
    files.write_picture(tmp_path / "labels" / "b.jpg", files.labels())
    dataset = label_dataset(tmp_path, files.labels())
    assert dataset.problems.names == {problems.LOSSY_LABELS: [str(tmp_path / "labels" / "b.jpg")]}
    assert [info["id"] for info in dataset.image_info] == ["a"]


def test_masks_stored_as_jpeg_are_cut_at_half(tmp_path):
    files.write_picture(tmp_path / "x" / "images" / "x.png")
    mask = files.masks()[0]
    path = files.write_picture(tmp_path / "x" / "masks" / "1.jpg", mask.astype(np.uint8) * 255)
    assert (np.asarray(PIL.Image.open(path)) > 0).sum() > mask.sum()  # noise round the object
    dataset = formats.MaskFileDataset()
    dataset.load(tmp_path)
    dataset.prepare()
    assert np.array_equal(dataset.load_mask(0)[0][..., 0], mask)
    assert dataset.problems.names == {problems.LOSSY_MASK: [str(path)]}


@pytest.mark.parametrize("cut", [0, 8, 12, 60, 200])
def test_one_cut_label_image_of_three(cut, tmp_path):
    for name in "abc":
        files.write_picture(tmp_path / "images" / f"{name}.png")
        files.write_picture(tmp_path / "labels" / f"{name}.tif", files.labels())
    path = tmp_path / "labels" / "b.tif"
    path.write_bytes(path.read_bytes()[:cut])
    dataset = formats.LabelImageDataset()
    dataset.load(tmp_path)
    dataset.prepare()
    assert [info["id"] for info in dataset.image_info if info["id"] != "b"] == ["a", "c"]
    for image_id, info in enumerate(dataset.image_info):
        if info["id"] == "b":  # the header was whole
            with pytest.raises(DataError, match=r"b\.tif"):
                dataset.load_mask(image_id)
        else:
            assert dataset.load_mask(image_id)[0].shape[2] == 2
    assert problems.BROKEN_MASK in dataset.problems.counts or len(dataset.image_info) == 3


def test_pipes_among_images_and_labels(tmp_path):
    label_dataset(tmp_path, files.labels())
    os.mkfifo(tmp_path / "images" / "b.png")
    files.write_picture(tmp_path / "labels" / "b.png", files.labels())
    files.write_picture(tmp_path / "images" / "c.png")
    os.mkfifo(tmp_path / "labels" / "c.png")
    dataset = label_dataset(tmp_path, files.labels())
    assert dataset.problems.counts == {problems.MISSING_IMAGE: 1, problems.BROKEN_MASK: 1}


def test_a_file_of_several_images_is_left_out(tmp_path):
    pages = [PIL.Image.fromarray(files.picture(seed=n)) for n in range(2)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    content = files.via_content([LEAF], "a.tif")
    with pytest.raises(InvalidDataError, match=r"a\.tif: The file must hold one image. Received: 2 pages"):
        formats.ViaDataset().load(files.write_json(tmp_path / "x.json", content))


def test_problems_survive_in_another_process(tmp_path):
    import pickle

    dataset = label_dataset(tmp_path, (files.labels() > 0).astype(np.uint8) * 255)
    copy = pickle.loads(pickle.dumps(dataset))
    copy.load_mask(0)
    assert copy.problems.counts == {problems.BINARY_LABELS: 1}
    error = problems.BrokenEntryError("broken", kind=problems.NO_AREA, file="a.json", entry="shapes[1]")
    copy = pickle.loads(pickle.dumps(error))
    assert copy.kind == problems.NO_AREA and str(copy) == "a.json: shapes[1]: broken"
    assert json.dumps(dataset.problems.counts)
