"""Broken entries are named, counted and left out, or end the reading with an error naming file and field."""

import logging

import annotation_files as files
import numpy as np
import PIL.Image
import pytest
import tifffile

from mrcnn import formats
from mrcnn.errors import InvalidDataError
from mrcnn.formats import problems


def coco(folder, content, **arguments):
    files.write_picture(folder / "a.png")
    dataset = formats.CocoDataset()
    dataset.load(files.write_json(folder / "x.json", content), **arguments)
    dataset.prepare()
    return dataset


def label_dataset(folder, picture=None, labels=None, **arguments):
    if not (folder / "images").exists():
        files.write_picture(folder / "images" / "a.png", picture)
    files.write_picture(folder / "labels" / "a.png", files.labels() if labels is None else labels)
    dataset = formats.LabelImageDataset()
    dataset.load(folder, **arguments)
    dataset.prepare()
    return dataset


def only(dataset, kind):
    """The names of the one kind of problem that a dataset has."""
    assert dataset.problems.counts == {kind: len(dataset.problems.names[kind])}
    return dataset.problems.names[kind]


FIRST_ANNOTATION = {
    "wrong category id": ({"category_id": 99}, problems.UNKNOWN_CLASS, "category_id 99"),
    "no category id": (
        {"category_id": None},
        problems.BROKEN_FIELD,
        "`category_id` must be a number or a string",
    ),
    "unknown image": ({"image_id": 8}, problems.UNKNOWN_IMAGE, "of image 8"),
    "a box alone": ({"segmentation": []}, problems.NO_OUTLINE, "id 5 of image 42"),
    "no segmentation": ({"segmentation": None}, problems.NO_OUTLINE, "id 5 of image 42"),
    "two points": ({"segmentation": [[1, 1, 5, 5]]}, problems.NO_OUTLINE, "id 5 of image 42"),
    "zero area": ({"segmentation": [[1, 1, 5, 5, 9, 9]]}, problems.NO_AREA, "id 5 of image 42"),
    "odd coordinates": ({"segmentation": [[1, 1, 5, 5, 9]]}, problems.BROKEN_FIELD, "segmentation"),
    "no counts": ({"segmentation": {"size": [60, 90]}}, problems.BROKEN_FIELD, "segmentation"),
    "run lengths of another size": (
        {"segmentation": {"counts": [0, 4], "size": [2, 2]}},
        problems.MASK_SIZE,
        "id 5 of image 42",
    ),
}


@pytest.mark.parametrize("change, kind, name", FIRST_ANNOTATION.values(), ids=FIRST_ANNOTATION)
def test_a_broken_coco_annotation_is_left_out(change, kind, name, tmp_path, caplog):
    dataset = coco(tmp_path, files.coco_content(**change))
    (named,) = only(dataset, kind)
    assert "x.json: annotations[0]" in named and name in named
    assert dataset.load_mask(0)[1].tolist() == [2]  # the nut stays
    assert [record.message for record in caplog.records] == [f"1 x {kind} ({named})"]


def test_an_outline_outside_its_image_is_clipped(tmp_path):
    polygon = [-20, 10, 200, 10, 200, 20, -20, 20]
    dataset = coco(tmp_path, files.coco_content(segmentation=[polygon]))
    assert "annotations[0]" in only(dataset, problems.OUTSIDE)[0]
    expected = np.zeros((files.HEIGHT, files.WIDTH), bool)
    expected[10:20] = True
    assert np.array_equal(dataset.load_mask(0)[0][..., 0], expected)


def test_an_outline_wholly_outside_gives_no_object(tmp_path):
    region = {"name": "rect", "x": 500, "y": 10, "width": 20, "height": 20}
    files.write_picture(tmp_path / "a.png")
    regions = [{"shape_attributes": region, "region_attributes": {}}, files.via_region("nut")]
    dataset = formats.ViaDataset()
    dataset.load(files.write_json(tmp_path / "via.json", files.via_content(regions)), classes=["x"])
    dataset.prepare()
    assert "a.png: region 0" in only(dataset, problems.OUTSIDE)[0]
    assert dataset.load_mask(0)[1].tolist() == [1]


def test_a_missing_image_is_left_out(tmp_path):
    content = files.coco_content()
    content["images"].append({"id": 1, "file_name": "gone.png", "height": 9, "width": 9})
    dataset = coco(tmp_path, content)
    assert only(dataset, problems.MISSING_IMAGE) == [str(tmp_path / "gone.png")]
    assert [info["id"] for info in dataset.image_info] == [42]


def test_no_image_at_all_is_an_error_with_the_reasons(tmp_path):
    files.write_json(tmp_path / "x.json", files.coco_content("gone.png"))
    with pytest.raises(
        InvalidDataError,
        match=r"x\.json: .* no usable image\. Pass the folder .*\n  1 x image file is missing.*gone\.png",
    ):
        formats.CocoDataset().load(tmp_path / "x.json")


def test_an_unreadable_image_is_left_out(tmp_path):
    label_dataset(tmp_path)
    (tmp_path / "images" / "b.png").write_bytes(b"no picture")
    files.write_picture(tmp_path / "labels" / "b.png", files.labels())
    dataset = label_dataset(tmp_path)
    assert "b.png" in only(dataset, problems.UNREADABLE_IMAGE)[0]
    assert [info["id"] for info in dataset.image_info] == ["a"]


WHOLE_FILES = {
    "cut off": ('{"images": [', r"x\.json: The file is not valid JSON: .* at line 1, column 13"),
    "no text": (b"\xff\xfe\x00", r"x\.json: The file must be UTF-8 text"),
    "a list": ("[]", r"x\.json: `images` must be a list, but the entry is not a JSON object"),
    "no annotations": (
        '{"images": []}',
        r"`annotations` must be a list, but it is missing.*\['images'\]",
    ),
    "wrong kind": (
        '{"images": {}, "annotations": [], "categories": []}',
        r"x\.json: `images` must be a list\. Received: {}",
    ),
    "category without name": (
        '{"images": [], "annotations": [], "categories": [{"id": 1}]}',
        r"x\.json: categories\[0\]: `name` must be",
    ),
}


@pytest.mark.parametrize("text, message", WHOLE_FILES.values(), ids=WHOLE_FILES)
def test_a_broken_coco_file_is_named_with_its_field(text, message, tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InvalidDataError, match=message) as caught:
        formats.CocoDataset().load(path)
    assert caught.value.file == str(path)


@pytest.mark.parametrize("lack", ["id", "file_name"])
def test_a_broken_coco_image_is_left_out(lack, tmp_path):
    content = files.coco_content()
    content["images"].append({"id": 1, "file_name": "a.png", "height": 9, "width": 9})
    del content["images"][1][lack]
    dataset = coco(tmp_path, content)
    (named,) = only(dataset, problems.BROKEN_FIELD)
    assert f"images[1]: `{lack}` must be" in named


@pytest.mark.parametrize("height", [None, 0, "missing"])
def test_a_size_that_coco_does_not_state_is_that_of_the_file(height, tmp_path):
    content = files.coco_content()
    content["images"][0] |= {"height": height}
    content["images"].append({"id": 1, "file_name": "lost.png"})
    content["annotations"].append(content["annotations"][0] | {"id": 1, "image_id": 1})
    if height == "missing":
        del content["images"][0]["height"]
    dataset = coco(tmp_path, content)
    assert dataset.image_info[0]["size"] == (files.HEIGHT, files.WIDTH)
    assert dataset.image_info[0]["height"] == files.HEIGHT
    assert np.array_equal(dataset.load_mask(0)[0][..., 0], files.masks()[0])
    assert dataset.problems.counts == {problems.UNSTATED_SIZE: 1, problems.MISSING_IMAGE: 1}


def test_ids_that_are_numbers_here_and_texts_there(tmp_path):
    content = files.coco_content(category_id="3", image_id="42")
    content["annotations"][1]["category_id"] = "017"  # another id
    dataset = coco(tmp_path, content)
    assert len(dataset.load_mask(0)[1]) == 1
    assert "no category_id '017'" in only(dataset, problems.UNKNOWN_CLASS)[0]


@pytest.mark.parametrize("is_shown", [True, False])
def test_run_lengths_tell_how_an_image_of_unstated_size_was_shown(is_shown, tmp_path):
    height, width = (files.WIDTH, files.HEIGHT) if is_shown else (files.HEIGHT, files.WIDTH)
    code = {"size": [height, width], "counts": [0, height * width]}
    content = files.coco_content(segmentation=code)
    content["images"][0] = {"id": 42, "file_name": "b.png"}
    del content["annotations"][1]
    files.write_picture(tmp_path / "b.png", orientation=6)
    dataset = coco(tmp_path, content)
    assert dataset.load_image(0).shape[:2] == dataset.load_mask(0)[0].shape[:2] == (height, width)
    assert dataset.load_mask(0)[0].all()


def test_via_names_broken_entries(tmp_path):
    files.write_picture(tmp_path / "a.png")
    nut = files.via_region("nut")
    point = {"shape_attributes": {"name": "point", "cx": 1, "cy": 1}, "region_attributes": {"kind": "nut"}}
    uneven = {"name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1, 2]}
    regions = [
        nut,
        point,
        {"shape_attributes": uneven, "region_attributes": {"kind": "nut"}},
        {"shape_attributes": {"name": "circle", "cx": 1}, "region_attributes": {"kind": "nut"}},
        {**nut, "region_attributes": {}},
        {**nut, "region_attributes": {"kind": "stone"}},
    ]
    content = files.via_content(regions) | {
        "b": {"filename": "b.png"},
        "c": {"filename": "c.png", "regions": {}},
    }
    dataset = formats.ViaDataset()
    dataset.load(files.write_json(tmp_path / "via.json", content), classes=["nut"], class_attribute="kind")
    dataset.prepare()
    assert dataset.load_mask(0)[1].tolist() == [1]
    assert dataset.problems.counts == {
        problems.BROKEN_FIELD: 3,
        problems.NO_OUTLINE: 1,
        problems.UNKNOWN_CLASS: 2,
    }
    assert (
        "via.json: 'b': `regions` must be an object or a list"
        in dataset.problems.names[problems.BROKEN_FIELD][0]
    )
    assert "'cy'" not in dataset.problems.names[problems.NO_OUTLINE][0]


def test_via_3_is_recognised(tmp_path):
    path = files.write_json(tmp_path / "v3.json", {"project": {}, "file": {}, "view": {}, "metadata": {}})
    with pytest.raises(ValueError, match=r"v3\.json: This file is a VIA 3 project.*Export it as COCO"):
        formats.ViaDataset().load(path)


def test_labelme_names_broken_files_and_shapes(tmp_path):
    files.write_picture(tmp_path / "a.png")
    leaf = {"label": "leaf", "points": files.CORNERS["leaf"], "shape_type": "polygon"}
    shapes = [
        leaf,
        leaf | {"label": "stone"},
        leaf | {"points": "here"},
        leaf | {"points": [[1, 1]], "shape_type": "point"},
        leaf | {"points": [[1, 1]], "shape_type": "circle"},
        leaf | {"points": [[1, 1], [3, 3]], "shape_type": "mask", "mask": "%%%"},
        leaf
        | {
            "points": [[1, 1], [3, 3]],
            "shape_type": "mask",
            "mask": files.base64_png(np.zeros((3, 3), np.uint8)),
        },
    ]
    files.write_json(tmp_path / "a.json", files.labelme_content(shapes))
    (tmp_path / "b.json").write_text("{")
    files.write_json(tmp_path / "c.json", {"imagePath": "a.png"})
    dataset = formats.LabelMeDataset()
    dataset.load(tmp_path, classes=["leaf"])
    dataset.prepare()
    assert dataset.load_mask(0)[1].tolist() == [1]
    assert dataset.problems.counts == {
        problems.BROKEN_FIELD: 4,
        problems.UNKNOWN_CLASS: 1,
        problems.NO_OUTLINE: 1,
        problems.BROKEN_MASK: 1,
        problems.NO_AREA: 1,
    }
    broken = dataset.problems.names[problems.BROKEN_FIELD]
    assert (
        "b.json: The file is not valid JSON" in broken[0] and "c.json: `shapes` must be a list" in broken[1]
    )
    with pytest.raises(FileNotFoundError, match="nowhere: The folder has no LabelMe files"):
        formats.LabelMeDataset().load(tmp_path / "nowhere")


def test_yolo_names_broken_lines(tmp_path):
    files.write_picture(tmp_path / "images" / "a.png")
    files.write_picture(tmp_path / "images" / "b.png")
    (tmp_path / "labels").mkdir()
    lines = [
        files.yolo_line(0, "leaf"),
        files.yolo_line(5, "leaf"),
        "0 0.5 0.5 0.1 0.1",
        "0 0.1 0.1 0.2 0.2 0.3",
        "0 zero 0.1 0.2 0.2 0.3 0.1",
        "0 0.1 0.1 0.2 0.2 0.3 0.3",
        "0 -0.5 0.1 0.5 0.1 0.5 0.5",
    ]
    (tmp_path / "labels" / "a.txt").write_text("\n".join(lines))
    dataset = formats.YoloDataset()
    dataset.load(tmp_path / "images", ["leaf"])
    dataset.prepare()
    assert dataset.load_mask(0)[1].tolist() == [1, 1]
    assert dataset.load_mask(1)[0].shape == (files.HEIGHT, files.WIDTH, 0)
    assert dataset.problems.counts == {
        problems.UNKNOWN_CLASS: 1,
        problems.NO_OUTLINE: 1,
        problems.BROKEN_FIELD: 2,
        problems.NO_AREA: 1,
        problems.OUTSIDE: 1,
        problems.MISSING_LABELS: 1,
    }
    assert dataset.problems.names[problems.NO_OUTLINE] == [
        f"{tmp_path / 'labels' / 'a.txt'}: line 3: The line is a box."
    ]
    with pytest.raises(ValueError, match=r"a folder named 'images'.*Pass `labels`"):
        formats.YoloDataset().load(tmp_path / "labels", ["leaf"])


@pytest.mark.parametrize("text", ["nothing: 1", "names: {1: leaf}", "names: [leaf"])
def test_a_broken_yolo_yaml_is_named(text, tmp_path):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"data\.yaml"):
        formats.YoloDataset().load(tmp_path, tmp_path / "data.yaml")


def test_label_image_of_another_size_or_with_channels(tmp_path):
    label_dataset(tmp_path)
    files.write_picture(tmp_path / "images" / "b.png")
    files.write_picture(tmp_path / "labels" / "b.png", files.labels()[:-1])
    files.write_picture(tmp_path / "images" / "c.png")
    files.write_picture(tmp_path / "labels" / "c.png", files.picture())
    files.write_picture(tmp_path / "images" / "d.png")
    dataset = label_dataset(tmp_path)
    assert dataset.problems.counts == {
        problems.MASK_SIZE: 1,
        problems.BROKEN_MASK: 1,
        problems.MISSING_LABELS: 1,
    }
    assert "b.png" in dataset.problems.names[problems.MASK_SIZE][0]
    assert "one channel" in dataset.problems.names[problems.BROKEN_MASK][0]
    assert [info["id"] for info in dataset.image_info] == ["a", "d"]
    assert dataset.load_mask(1)[0].shape == (files.HEIGHT, files.WIDTH, 0)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_label_image_that_is_cut_off_fails_by_name(ending, tmp_path):
    files.write_picture(tmp_path / "images" / "a.png")
    path = tmp_path / "labels" / f"a.{ending}"
    path.parent.mkdir()
    # Pillow writes the directory of a TIFF to its end, tifffile to its beginning.
    write = tifffile.imwrite if ending == "tif" else files.write_picture
    write(path, files.picture()[..., 0])
    path.write_bytes(path.read_bytes()[:-3000])
    dataset = formats.LabelImageDataset()
    dataset.load(tmp_path)
    dataset.prepare()
    with pytest.raises(OSError, match=rf"labels/a\.{ending}: The image cannot be read"):
        dataset.load_mask(0)


def test_label_image_with_an_unknown_class(tmp_path, caplog):
    labels = files.labels(np.uint16)
    labels[labels == 7] = 9007
    labels[labels == 3] = 1003
    dataset = label_dataset(tmp_path, labels=labels, classes=["leaf", "nut"], class_divisor=1000)
    assert dataset.load_mask(0)[1].tolist() == [1]
    assert only(dataset, problems.UNKNOWN_CLASS) == ["labels/a.png: value 9007"]
    dataset.load_mask(0)
    assert len(caplog.records) == 1  # named once, however often the image is loaded
    with pytest.raises(ValueError, match="`class_divisor` must be given"):
        label_dataset(tmp_path, classes=["leaf", "nut"])


def test_mask_files_that_are_broken(tmp_path):
    files.write_picture(tmp_path / "x" / "images" / "x.png")
    leaf, nut = files.masks()
    for name, mask in {"a": leaf, "b": nut[:-1], "c": leaf & nut}.items():
        files.write_picture(tmp_path / "x" / "masks" / f"{name}.png", mask.astype(np.uint8))
    (tmp_path / "x" / "masks" / "d.png").write_bytes(b"no picture")
    files.write_picture(tmp_path / "y" / "images" / "y.png")
    (tmp_path / "z").mkdir()
    dataset = formats.MaskFileDataset()
    dataset.load(tmp_path)
    dataset.prepare()
    assert np.array_equal(dataset.load_mask(0)[0], leaf[..., np.newaxis])
    assert dataset.problems.counts == {
        problems.MISSING_LABELS: 1,
        problems.MISSING_IMAGE: 1,
        problems.MASK_SIZE: 1,
        problems.NO_AREA: 1,
        problems.BROKEN_MASK: 1,
    }


def test_16_bit_and_rgba_pictures_are_read_and_named(tmp_path):
    deep = np.full((files.HEIGHT, files.WIDTH), 40000, np.uint16)
    clear = np.dstack([files.picture(), np.full((files.HEIGHT, files.WIDTH), 9, np.uint8)])
    for kind, picture in ((problems.SIXTEEN_BIT, deep), (problems.ALPHA, clear)):
        folder = tmp_path / kind[:3]
        dataset = label_dataset(tmp_path / str(picture.ndim), picture)
        (name,) = only(dataset, kind)
        assert name.endswith("a.png"), folder
        image = dataset.load_image(0)
        assert image.shape == (files.HEIGHT, files.WIDTH, 3) and image.dtype == picture.dtype
        assert np.array_equal(image, picture[..., :3] if picture.ndim == 3 else np.dstack([picture] * 3))


def test_a_chosen_fourth_channel_is_not_dropped(tmp_path):
    label_dataset(tmp_path, np.dstack([files.picture(), np.full((files.HEIGHT, files.WIDTH), 9, np.uint8)]))
    dataset = formats.LabelImageDataset(channels=(0, 1, 2, 3))
    dataset.load(tmp_path)
    assert dataset.load_image(0).shape[2] == 4 and dataset.problems.counts == {}


def test_tiff_files_that_pillow_does_not_know(tmp_path):
    picture = np.random.default_rng(0).integers(0, 2**16, (files.HEIGHT, files.WIDTH, 3)).astype(np.uint16)
    for folder, pixels in (("images", picture), ("labels", files.labels(np.int64))):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "a.tif", pixels)
    dataset = formats.LabelImageDataset()
    dataset.load(tmp_path)
    dataset.prepare()
    only(dataset, problems.SIXTEEN_BIT)
    assert np.array_equal(dataset.load_image(0), picture)
    assert np.array_equal(dataset.load_mask(0)[0], np.stack(files.masks(), axis=-1))
    tifffile.imwrite(tmp_path / "labels" / "a.tif", files.labels(np.float32))
    with pytest.raises(ValueError, match="one channel of integers"):
        formats.LabelImageDataset().load(tmp_path)


def test_broken_exif_data_do_not_matter(tmp_path):
    path = files.write_picture(tmp_path / "images" / "a.jpg", orientation=6)
    content = path.read_bytes()
    start = content.index(b"Exif") + 6
    path.write_bytes(content[:start] + b"XXXXXXXX" + content[start + 8 :])
    dataset = label_dataset(tmp_path)
    assert dataset.problems.counts == {} and dataset.load_image(0).shape[:2] == (files.HEIGHT, files.WIDTH)


def test_an_image_too_large_for_pillow_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"a\.png: .*MAX_IMAGE_PIXELS"):
        label_dataset(tmp_path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_followed_as_pillow_does(orientation, tmp_path):
    path = files.write_picture(tmp_path / "a.png", orientation=orientation)
    with PIL.Image.open(path) as picture:
        shown = np.asarray(PIL.ImageOps.exif_transpose(picture))
    dataset = formats.ViaDataset()
    content = files.via_content([files.via_region("leaf")])
    dataset.load(files.write_json(tmp_path / "via.json", content))
    dataset.prepare()
    assert np.array_equal(dataset.load_image(0), shown)
    assert dataset.image_size(0) == shown.shape[:2] == dataset.load_mask(0)[0].shape[:2]
    assert (problems.TURNED in dataset.problems.counts) == (orientation > 1)


def test_stated_size_decides_whether_a_picture_is_turned(tmp_path):
    files.write_picture(tmp_path / "a.png", orientation=6)
    upright, stored = files.coco_content(), files.coco_content()
    upright["images"][0].update(height=files.WIDTH, width=files.HEIGHT)
    for content, shape, kind in (
        (upright, (files.WIDTH, files.HEIGHT, 3), problems.TURNED),
        (stored, (files.HEIGHT, files.WIDTH, 3), problems.NOT_TURNED),
    ):
        dataset = formats.CocoDataset()
        dataset.load(files.write_json(tmp_path / "x.json", content))
        dataset.prepare()
        assert dataset.load_image(0).shape == shape
        assert dataset.load_mask(0)[0].shape[:2] == shape[:2]
        assert kind in dataset.problems.counts


def test_label_image_decides_whether_a_picture_is_turned(tmp_path):
    for labels, turned in ((files.labels(), False), (files.labels().T, True)):
        folder = tmp_path / str(turned)
        files.write_picture(folder / "images" / "a.jpg", orientation=8)
        dataset = label_dataset(folder, labels=labels)
        assert dataset.load_image(0).shape[:2] == labels.shape
        assert (problems.TURNED in dataset.problems.counts) == turned


PHOTO = np.repeat((files.labels() > 0)[..., np.newaxis], 3, axis=-1).astype(np.uint8) * 255


def folder_of_labels(folder, suffix, orientation, label_orientation, photo=PHOTO):
    """A photo in which objects are white, with a label image of the same stored rows and columns."""
    files.write_picture(folder / "images" / f"a.{suffix}", photo, orientation)
    labels = files.labels()[:, : photo.shape[1]]
    files.write_picture(folder / "labels" / f"a.{suffix}", labels, label_orientation)
    dataset = formats.LabelImageDataset()
    dataset.load(folder)
    return dataset


def folder_of_masks(folder, suffix, orientation, mask_orientation, photo=PHOTO):
    """The same photo with a mask file."""
    files.write_picture(folder / "a" / "images" / f"a.{suffix}", photo, orientation)
    files.write_picture(folder / "a" / "masks" / f"0.{suffix}", photo[..., 0], mask_orientation)
    dataset = formats.MaskFileDataset()
    dataset.load(folder)
    return dataset


def is_on_its_pixels(dataset):
    dataset.prepare()
    masks, _ = dataset.load_mask(0)
    return masks.shape[2] > 0 and np.array_equal(masks.any(axis=2), dataset.load_image(0)[..., 0] > 0)


@pytest.mark.parametrize("read", [folder_of_labels, folder_of_masks])
@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_labels_are_turned_like_their_image(read, suffix, orientation, tmp_path):
    dataset = read(tmp_path, suffix, orientation, orientation)
    assert is_on_its_pixels(dataset)
    assert dataset.problems.counts == ({problems.TURNED: 1} if orientation > 1 else {})


@pytest.mark.parametrize("read", [folder_of_labels, folder_of_masks])
@pytest.mark.parametrize("orientation", range(5, 9))
def test_an_image_stays_as_stored_if_only_this_fits_its_labels(read, orientation, tmp_path):
    dataset = read(tmp_path, "png", orientation, None)
    assert is_on_its_pixels(dataset)
    assert dataset.image_size(0) == (files.HEIGHT, files.WIDTH)
    assert dataset.problems.counts == {problems.NOT_TURNED: 1}


@pytest.mark.parametrize("read", [folder_of_labels, folder_of_masks])
@pytest.mark.parametrize("orientation, columns", [(2, 90), (3, 90), (4, 90), (6, 60)])
def test_labels_without_an_orientation_are_taken_as_shown(read, orientation, columns, tmp_path):
    """The size of the photo does not tell: it is mirrored, upside down or square."""
    dataset = read(tmp_path, "png", orientation, None, PHOTO[:, :columns])
    dataset.prepare()
    assert np.array_equal(dataset.load_mask(0)[0].any(axis=2), PHOTO[:, :columns, 0] > 0)
    assert dataset.problems.counts == {problems.TURNED: 1, problems.UNCLEAR_TURN: 1}
    assert any("a.png" in line for line in dataset.problems.lines())


def test_an_image_of_another_size_than_stated_fails_by_name(tmp_path):
    content = files.coco_content()
    content["images"][0]["width"] = 45
    dataset = coco(tmp_path, content)
    for load in (dataset.load_image, dataset.load_mask):
        with pytest.raises(ValueError, match=r"a\.png: .*image id 0 has .*\(60, 90\).*give \(60, 45\)"):
            load(0)


def test_long_lists_of_problems_are_cut(tmp_path, caplog):
    content = files.coco_content()
    content["annotations"] += [{"id": n, "image_id": 42, "category_id": 8} for n in range(100)]
    with caplog.at_level(logging.WARNING):
        dataset = coco(tmp_path, content)
    assert dataset.problems.counts == {problems.UNKNOWN_CLASS: 100}
    (record,) = caplog.records
    assert record.message.startswith("100 x class id") and record.message.count("category_id 8") == 3


@pytest.mark.parametrize(
    "dataset, arguments",
    [
        (formats.LabelImageDataset(), ["nowhere"]),
        (formats.MaskFileDataset(), ["nowhere"]),
        (formats.YoloDataset(), ["nowhere/images", ["leaf"]]),
        (formats.CocoDataset(), ["nowhere.json"]),
        (formats.ViaDataset(), ["nowhere.json"]),
    ],
)
def test_missing_folders_and_files_are_named(dataset, arguments):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        dataset.load(*arguments)
