"""Segmentations of COCO files and outlines of other formats: checked at load as deeply as they are used."""

import annotation_files as files
import numpy as np
import pytest
from pycocotools import mask as run_lengths

from mrcnn import formats
from mrcnn.formats import problems
from mrcnn.geometry import polygons

SIZE = [files.HEIGHT, files.WIDTH]
PIXELS = files.HEIGHT * files.WIDTH
SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]
NAN, INF = float("nan"), float("inf")


def coco(folder, segmentation, **first):
    """A dataset of two objects; the first one has this segmentation."""
    files.write_picture(folder / "a.png")
    dataset = formats.CocoDataset()
    content = files.coco_content(segmentation=segmentation, **first)
    dataset.load(files.write_json(folder / "x.json", content))
    dataset.prepare()
    return dataset


def compressed(mask):
    return run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()


BROKEN = {
    "too few pixels": (
        {"size": SIZE, "counts": [10]},
        "`counts` must not be negative and must add up to 5400",
    ),
    "too many pixels": ({"size": SIZE, "counts": [10, PIXELS]}, "must add up"),
    "negative": ({"size": SIZE, "counts": [PIXELS + 5, -5]}, "must not be negative"),
    "huge": ({"size": SIZE, "counts": [10**400]}, "`counts`"),
    "not numbers": ({"size": SIZE, "counts": ["a", 1]}, "`counts` must be a list of integers"),
    "fractions": ({"size": SIZE, "counts": [0.5, PIXELS - 0.5]}, "`counts` must be a list of integers"),
    "nested": ({"size": SIZE, "counts": [[1], [2]]}, "`counts` must be a list of integers"),
    "compressed, too few": ({"size": SIZE, "counts": compressed(np.ones((4, 4)))}, "must add up"),
    "no compressed text": ({"size": SIZE, "counts": "\u20ac\u20ac"}, ""),
    "cut text": ({"size": SIZE, "counts": compressed(files.masks()[1])[:-1]}, ""),
    "no size": ({"counts": [PIXELS]}, "`size` must be"),
    "size of one number": ({"size": 5, "counts": [PIXELS]}, "`size` must be"),
    "size of nothing": ({"size": [60, None], "counts": [PIXELS]}, "`size` must be"),
    "size of fractions": ({"size": [60.5, 90], "counts": [PIXELS]}, "`size` must be"),
    "a number": (7, "`segmentation` must be a list of polygons"),
    "texts": ([["a", "b", "c", "d", "e", "f"]], "`segmentation`"),
    "objects": ([{"x": 1}], "`segmentation`"),
    "not a number": ([[1, 1, NAN, 5, 9, 1]], "finite"),
    "infinite": ([[1, 1, INF, 5, 9, 1]], "finite"),
    "nested too deep": ([[[[[[1]]]]]], "`segmentation`"),
}


@pytest.mark.parametrize("segmentation, message", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("iscrowd", [0, 1])
def test_broken_segmentations(segmentation, message, iscrowd, tmp_path):
    dataset = coco(tmp_path, segmentation, iscrowd=iscrowd)
    (name,) = dataset.problems.names[problems.BROKEN_FIELD]
    assert "x.json: annotations[0], id 5 of image 42: `segmentation`: " in name and message in name
    assert dataset.problems.counts == {problems.BROKEN_FIELD: 1}
    for _ in range(3):  # memory that is not filled would differ
        masks, class_ids = dataset.load_mask(0)
        assert class_ids.tolist() == [2] and np.array_equal(masks[..., 0], dataset.load_mask(0)[0][..., 0])


def test_run_lengths_without_a_pixel(tmp_path):
    dataset = coco(tmp_path, {"size": SIZE, "counts": [PIXELS]})
    assert dataset.problems.counts == {problems.NO_AREA: 1} and len(dataset.load_mask(0)[1]) == 1


def test_a_crowd_of_another_size_is_never_decoded(tmp_path):
    dataset = coco(tmp_path, {"size": [60000, 60000], "counts": [10]}, iscrowd=1)
    assert dataset.problems.counts == {problems.CROWD_SIZE: 1}
    masks, class_ids = dataset.load_mask(0)
    assert masks[..., 0].all() and class_ids.tolist() == [-1, 2]


SQUARES = {
    "list of polygons": [SQUARE],
    "flat": SQUARE,
    "points": [[10, 10], [30, 10], [30, 30], [10, 30]],
    "list of points": [[[10, 10], [30, 10], [30, 30], [10, 30]]],
    "whole numbers as fractions": [[float(value) for value in SQUARE]],
    "counts as fractions": {"size": SIZE, "counts": [610.0, *[20.0, 40.0] * 19, 20.0, 3630.0]},
}


@pytest.mark.parametrize("segmentation", SQUARES.values(), ids=SQUARES)
def test_forms_of_a_segmentation(segmentation, tmp_path):
    dataset = coco(tmp_path, segmentation)
    expected = np.zeros(SIZE, bool)
    expected[10:30, 10:30] = True
    assert dataset.problems.counts == {}
    assert np.array_equal(dataset.load_mask(0)[0][..., 0], expected)
    code = dataset.coco_annotations(0)[0]["segmentation"]
    assert np.array_equal(run_lengths.decode(code), expected)


STRAY = {
    "a point": [32.0, 32.0],
    "two points": [1, 1, 50, 50],
    "a line": [1, 1, 20, 20, 40, 40],
    "one place": [5, 5, 5, 5, 5, 5],
    "an odd number": [1, 1, 5, 5, 9],
    "not a number": [1, 1, NAN, 5, 9, 1],
    "texts": ["1", "1", "5", "5", "9", "1"],
    "nothing": [],
    "null": None,
}


@pytest.mark.parametrize("part", STRAY.values(), ids=STRAY)
@pytest.mark.parametrize("is_first", [True, False])
def test_a_stray_part_does_not_cost_the_object(part, is_first, tmp_path):
    parts = [part, SQUARE] if is_first else [SQUARE, part]
    dataset = coco(tmp_path, parts)
    masks, class_ids = dataset.load_mask(0)
    assert class_ids.tolist() == [1, 2] and masks[..., 0].sum() == 400
    (name,) = dataset.problems.names[problems.STRAY_PART]
    assert dataset.problems.counts == {problems.STRAY_PART: 1}
    assert "annotations[0], id 5 of image 42" in name
    assert dataset.coco_annotations(0)[0]["area"] == 400


def test_a_figure_of_eight_has_an_inside(tmp_path):
    dataset = coco(tmp_path, [[10, 10, 30, 30, 30, 10, 10, 30]])
    assert polygons.area(np.array([(10, 10), (30, 30), (30, 10), (10, 30)])) == 0
    assert dataset.problems.counts == {} and dataset.load_mask(0)[0][..., 0].sum() > 150


@pytest.mark.parametrize("value", [5e7, 1e12, 1e300])
def test_huge_coordinates_are_clipped(value, tmp_path):
    """pycocotools would allocate memory for every pixel of the way, and crash."""
    corners = [(10, 10), (value, 10), (value, 20), (10, 20)]
    datasets = [coco(tmp_path / "coco", [[x for corner in corners for x in corner]])]

    shape = {"name": "polygon", "all_points_x": [x for x, _ in corners], "all_points_y": [10, 10, 20, 20]}
    region = {"shape_attributes": shape, "region_attributes": {"kind": "leaf"}}
    files.write_picture(tmp_path / "via" / "a.png")
    datasets.append(formats.ViaDataset())
    datasets[-1].load(files.write_json(tmp_path / "via" / "x.json", files.via_content([region])))

    files.write_picture(tmp_path / "labelme" / "a.png")
    shapes = [{"label": "leaf", "points": corners, "shape_type": "polygon"}]
    files.write_json(tmp_path / "labelme" / "a.json", files.labelme_content(shapes))
    datasets.append(formats.LabelMeDataset())
    datasets[-1].load(tmp_path / "labelme")

    files.write_picture(tmp_path / "yolo" / "images" / "a.png")
    words = [f"{x / files.WIDTH} {y / files.HEIGHT}" for x, y in corners]
    (tmp_path / "yolo" / "labels").mkdir()
    (tmp_path / "yolo" / "labels" / "a.txt").write_text(" ".join(["0", *words]))
    datasets.append(formats.YoloDataset())
    datasets[-1].load(tmp_path / "yolo" / "images", ["leaf"])

    for dataset in datasets:
        dataset.prepare()
        assert dataset.problems.counts == {problems.OUTSIDE: 1}
        mask = dataset.load_mask(0)[0][..., 0]
        # Those of VIA are half a pixel farther.
        assert mask[11:20, 11:].all()
        assert not mask[:10].any() and not mask[21:].any() and not mask[:, :10].any()


@pytest.mark.parametrize("iscrowd", ["yes", 2, [1], {}])
def test_iscrowd_is_0_or_1(iscrowd, tmp_path):
    dataset = coco(tmp_path, [SQUARE], iscrowd=iscrowd)
    assert "`iscrowd` must be 0 or 1" in dataset.problems.names[problems.BROKEN_FIELD][0]


@pytest.mark.parametrize(
    "bbox, area",
    [
        *[(None, None), ([1, 2], "x"), ([NAN] * 4, NAN), ([10**400] * 4, -1), ({}, [])],
        *[([0, 0, 0, 0], 0), ([10, 10, 20, 0], -400), ([30, 30, -20, -20], 0)],
    ],
)
def test_broken_boxes_and_areas_are_computed(bbox, area, tmp_path):
    dataset = coco(tmp_path, [SQUARE], bbox=bbox, area=area)
    record = dataset.coco_annotations(0)[0]
    assert record["bbox"] == [10, 10, 20, 20] and record["area"] == 400


@pytest.mark.parametrize("changed", [lambda x: x, lambda x: x.astype(np.uint8) * 255, lambda x: x.tolist()])
def test_masks_of_a_subclass_in_any_form(changed, tmp_path):
    class Own(formats.CocoDataset):
        def load_mask(self, image_id):
            masks, class_ids = super().load_mask(image_id)
            return changed(masks), class_ids

    files.write_picture(tmp_path / "a.png")
    content = files.coco_content(segmentation=[[10, 10, 30, 12, 24, 30]])
    datasets = [formats.CocoDataset(), Own()]
    for dataset in datasets:
        dataset.load(files.write_json(tmp_path / "x.json", content))
        dataset.prepare()
    expected, found = (dataset.load_mask_crops(0)[0] for dataset in datasets)
    assert found.shape == expected.shape and {crop.dtype for crop in found.crops} == {np.dtype(bool)}
    np.testing.assert_array_equal(found.mini((56, 56)), expected.mini((56, 56)))


# --- Records of COCO files ---

IMAGES = {
    "a number": 3,
    "a list as id": {"id": [1]},
    "a fraction as id": {"id": 1.5},
    "nothing as id": {"id": None},
    "height not a number": {"height": NAN},
    "infinite height": {"height": INF},
    "huge height": {"height": 10**400},
    "a negative height": {"height": -60},
    "half a pixel": {"width": 9.5},
    "a text as width": {"width": "90"},
    "true": {"height": True},
    "a number as name": {"file_name": 7},
}


@pytest.mark.parametrize("change", IMAGES.values(), ids=IMAGES)
def test_broken_image_records(change, tmp_path):
    files.write_picture(tmp_path / "a.png")
    content = files.coco_content()
    record = {"id": 7, "file_name": "b.png", "height": 60, "width": 90}
    content["images"].insert(0, record | change if isinstance(change, dict) else change)
    dataset = formats.CocoDataset()
    dataset.load(files.write_json(tmp_path / "x.json", content))
    (name,) = dataset.problems.names[problems.BROKEN_FIELD]
    assert "x.json: images[0]: `" in name
    assert [info["id"] for info in dataset.image_info] == [42]


def test_images_of_one_id(tmp_path):
    """Nobody can tell whose the annotations are."""
    for name in ("a.png", "b.png", "c.png"):
        files.write_picture(tmp_path / name)
    content = files.coco_content()
    size = {"height": files.HEIGHT, "width": files.WIDTH}
    content["images"] += [{"id": 42, "file_name": "b.png", **size}, {"id": 7, "file_name": "c.png", **size}]
    content["images"].append(dict(content["images"][2]))
    dataset = formats.CocoDataset()
    dataset.load(files.write_json(tmp_path / "x.json", content))
    assert [info["id"] for info in dataset.image_info] == [7]
    assert dataset.problems.counts == {
        problems.REPEATED_ID: 1,
        problems.REPEATED_IMAGE: 1,
        problems.UNKNOWN_IMAGE: 2,
    }
    (name,) = dataset.problems.names[problems.REPEATED_ID]
    assert "images[1]: The id 42 stands here for 'b.png', and in images[0] for 'a.png'" in name


def test_ids_that_are_whole_numbers_as_fractions(tmp_path):
    content = files.coco_content()
    for annotation in content["annotations"]:
        annotation |= {"image_id": 42.0, "category_id": float(annotation["category_id"])}
    files.write_picture(tmp_path / "a.png")
    dataset = formats.CocoDataset()
    dataset.load(files.write_json(tmp_path / "x.json", content))
    dataset.prepare()
    assert dataset.problems.counts == {} and dataset.load_mask(0)[1].tolist() == [1, 2]
    assert not dataset.is_listed_as_empty(0)


def test_masks_that_cvat_marks_as_crowds(tmp_path, capsys):
    counts = {"size": SIZE, "counts": [0, 10, PIXELS - 10]}
    marks = {"iscrowd": 1, "attributes": {"occluded": False}}
    dataset = coco(tmp_path, counts, **marks)
    assert dataset.load_mask(0)[1].tolist() == [-1, 2]
    assert dataset.problems.counts == {problems.MASK_AS_CROWD: 1}
    dataset = formats.CocoDataset()
    dataset.load(tmp_path / "x.json", crowds_as_objects=True)
    dataset.prepare()
    assert dataset.load_mask(0)[1].tolist() == [1, 2] and dataset.problems.counts == {}
    assert [record["iscrowd"] for record in dataset.coco_annotations(0)] == [0, 0]


def test_crowds_of_other_programs_are_usual(tmp_path):
    assert coco(tmp_path, {"size": SIZE, "counts": [0, 10, PIXELS - 10]}, iscrowd=1).problems.counts == {}


def test_advice_if_all_objects_are_crowds(tmp_path):
    content = files.coco_content()
    for record in content["annotations"]:
        record["iscrowd"] = 1
    files.write_picture(tmp_path / "a.png")
    dataset = formats.CocoDataset()
    dataset.load(files.write_json(tmp_path / "x.json", content))
    dataset.prepare()
    assert any("--crowds-as-objects" in text for text in formats.describe(dataset)["warnings"])
