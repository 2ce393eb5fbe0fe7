"""Several annotation files in one dataset: classes join by name, in every format."""

import annotation_files as files
import numpy as np
import pytest

from mrcnn import formats
from mrcnn.formats import problems

LEAF, NUT = files.CORNERS["leaf"], files.CORNERS["nut"]


def coco(dataset, folder, name, names):
    """Add a file with an object of the first class."""
    files.write_picture(folder / f"{name}.png")
    content = files.coco_content(f"{name}.png", category_id=1)
    content["annotations"] = content["annotations"][:1]
    content["categories"] = [{"id": n, "name": one} for n, one in enumerate(names, start=1)]
    dataset.load(files.write_json(folder / f"{name}.json", content))


def via(dataset, folder, name, names):
    files.write_picture(folder / f"{name}.png")
    regions = [files.via_region("leaf", names[0])]
    path = files.write_json(folder / f"{name}.json", files.via_content(regions, f"{name}.png"))
    dataset.load(path, class_attribute="kind", classes=names)


def via_of_one_class(dataset, folder, name, names):
    files.write_picture(folder / f"{name}.png")
    content = files.via_content([files.via_region("leaf")], f"{name}.png")
    dataset.load(files.write_json(folder / f"{name}.json", content), classes=names[:1])


def labelme(dataset, folder, name, names):
    files.write_picture(folder / name / f"{name}.png")
    shapes = [{"label": names[0], "points": LEAF, "shape_type": "polygon"}]
    files.write_json(folder / name / f"{name}.json", files.labelme_content(shapes, f"{name}.png"))
    dataset.load(folder / name, classes=names)


def yolo(dataset, folder, name, names):
    files.write_picture(folder / name / "images" / f"{name}.png")
    (folder / name / "labels").mkdir()
    (folder / name / "labels" / f"{name}.txt").write_text(files.yolo_line(0, "leaf"))
    dataset.load(folder / name / "images", names)


def label_images(dataset, folder, name, names):
    files.write_picture(folder / name / "images" / f"{name}.png")
    labels = np.where(files.labels() == 3, 1001, 0).astype(np.uint16)
    files.write_picture(folder / name / "labels" / f"{name}.png", labels)
    dataset.load(folder / name, classes=names, class_divisor=1000)


def mask_files(dataset, folder, name, names):
    files.write_picture(folder / name / "x" / "images" / "x.png")
    mask = files.masks()[0].astype(np.uint8)
    files.write_picture(folder / name / "x" / "masks" / "1.png", mask)
    dataset.load(folder / name, names[0])


ADDERS = {
    "coco": (formats.CocoDataset, coco),
    "via": (formats.ViaDataset, via),
    "via, one class": (formats.ViaDataset, via_of_one_class),
    "labelme": (formats.LabelMeDataset, labelme),
    "yolo": (formats.YoloDataset, yolo),
    "label images": (formats.LabelImageDataset, label_images),
    "mask files": (formats.MaskFileDataset, mask_files),
}


@pytest.mark.parametrize("kind, add", ADDERS.values(), ids=ADDERS)
def test_the_same_ids_stand_for_other_names_in_the_second_file(kind, add, tmp_path):
    dataset = kind()
    add(dataset, tmp_path, "a", ["cat", "dog"])
    add(dataset, tmp_path, "b", ["dog", "cat"])
    add(dataset, tmp_path, "c", ["bird", "dog"])
    dataset.prepare()
    found = [[dataset.class_names[n] for n in dataset.load_mask(i)[1]] for i in dataset.image_ids]
    assert found == [["cat"], ["dog"], ["bird"]]
    assert sorted(dataset.class_names) == ["BG", "bird", "cat", "dog"]
    assert len(set(dataset.class_from_source_map.values())) == 4
    assert dataset.problems.counts == {}


def test_annotations_for_evaluation_have_the_joined_classes(tmp_path):
    dataset = formats.CocoDataset()
    coco(dataset, tmp_path, "a", ["cat", "dog"])
    coco(dataset, tmp_path, "b", ["dog", "cat"])
    dataset.prepare()
    ids = [dataset.coco_annotations(image_id)[0]["category_id"] for image_id in dataset.image_ids]
    assert [dataset.class_names[class_id] for class_id in ids] == ["cat", "dog"]
    assert [dataset.get_source_class_id(class_id, "coco") for class_id in ids] == [1, 2]


def test_classes_that_were_added_before_keep_their_ids(tmp_path):
    dataset = formats.CocoDataset()
    dataset.add_class("coco", 90, "dog")
    coco(dataset, tmp_path, "a", ["cat", "dog"])
    dataset.prepare()
    assert dataset.class_names == ["BG", "dog", "cat"]
    assert dataset.load_mask(0)[1].tolist() == [2]


def test_a_name_with_two_ids_is_one_class(tmp_path):
    files.write_picture(tmp_path / "a.png")
    content = files.coco_content()
    content["categories"] = [{"id": 3, "name": "leaf"}, {"id": 17, "name": "leaf"}]
    dataset = formats.CocoDataset()
    dataset.load(files.write_json(tmp_path / "x.json", content))
    dataset.prepare()
    assert dataset.class_names == ["BG", "leaf"] and dataset.load_mask(0)[1].tolist() == [1, 1]
    assert dataset.problems.counts == {problems.REPEATED_CLASS_NAME: 1}
    assert "'leaf', ids 3 and 17" in dataset.problems.lines()[0]
    chosen = formats.CocoDataset()
    chosen.load(tmp_path / "x.json", classes=["leaf"])
    chosen.prepare()
    assert chosen.load_mask(0)[1].tolist() == [1, 1]


def test_an_id_of_two_names_is_left_out(tmp_path):
    files.write_picture(tmp_path / "a.png")
    content = files.coco_content()
    content["categories"].append({"id": 3, "name": "stone"})
    dataset = formats.CocoDataset()
    dataset.load(files.write_json(tmp_path / "x.json", content))
    dataset.prepare()
    assert dataset.class_names == ["BG", "nut"] and dataset.load_mask(0)[1].tolist() == [1]
    assert dataset.problems.counts == {problems.REPEATED_CLASS_ID: 1, problems.UNKNOWN_CLASS: 1}
    assert "categories[2]: The id 3 stands for 'leaf' and for 'stone'" in dataset.problems.lines()[0]


ROUND, FLAT = "cell, round", "cell, flat"


def load_labels(kind, folder, labels, classes=None):
    """Load a file of an object with each of the labels."""
    files.write_picture(folder / "a.png")
    if kind == "labelme":
        dataset = formats.LabelMeDataset()
        shapes = [{"label": label, "points": LEAF, "shape_type": "polygon"} for label in labels]
        files.write_json(folder / "a.json", files.labelme_content(shapes))
        dataset.load(folder, classes)
    elif kind == "geojson":
        dataset = formats.GeoJsonDataset()
        features = [
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [[*LEAF, LEAF[0]]]},
                "properties": {"classification": {"name": label}},
            }
            for label in labels
        ]
        content = {"type": "FeatureCollection", "features": features}
        files.write_json(folder / "a.geojson", content)
        dataset.load(folder, folder, classes)
    else:
        dataset = formats.ViaDataset()
        content = files.via_content([files.via_region("leaf", label) for label in labels])
        path = files.write_json(folder / "via.json", content)
        dataset.load(path, classes=classes, class_attribute="kind")
    dataset.prepare()
    return dataset


@pytest.mark.parametrize(
    "labels, classes, found",
    [
        ([ROUND, FLAT], None, [ROUND, FLAT]),
        ([ROUND, FLAT], ["cell", "cell"], [ROUND, FLAT]),
        ([ROUND, FLAT], [ROUND, FLAT], [ROUND, FLAT]),
        ([ROUND, "dog"], ["dog", "cell"], [ROUND, "dog"]),
        ([ROUND, "cell"], ["cell"], ["cell"]),  # the other is another class
        ([ROUND, FLAT], ["cell"], []),  # nobody knows which one it is
        ([ROUND], ["cell", "cell"], []),
        ([ROUND, FLAT], [ROUND, "cell"], [ROUND, FLAT]),
    ],
)
@pytest.mark.parametrize("kind", ["labelme", "geojson", "via"])
def test_class_names_may_be_cut_at_a_comma(kind, labels, classes, found, tmp_path):
    """`class_names` of a dataset is."""
    dataset = load_labels(kind, tmp_path, labels, classes)
    assert [dataset.class_info[number]["name"] for number in dataset.load_mask(0)[1]] == found
    assert dataset.problems.counts.get(problems.UNKNOWN_CLASS, 0) == len(labels) - len(found)


@pytest.mark.parametrize("kind", ["labelme", "geojson", "via"])
@pytest.mark.parametrize("classes", [None, ["nut", " cell "]])
def test_spaces_at_the_ends_of_labels_do_not_count(kind, classes, tmp_path):
    dataset = load_labels(kind, tmp_path, ["cell", "cell ", "\tcell", "nut"], classes)
    names = [dataset.class_names[number] for number in dataset.load_mask(0)[1]]
    assert names == ["cell", "cell", "cell", "nut"]
    assert sorted(dataset.class_names) == ["BG", "cell", "nut"]
    assert dataset.problems.counts == {}


@pytest.mark.parametrize("kind", ["labelme", "geojson", "via"])
def test_labels_that_differ_in_case_are_named(kind, tmp_path):
    dataset = load_labels(kind, tmp_path, ["cell", "Cell ", "CELL", "nut"])
    assert dataset.class_names == ["BG", "CELL", "Cell", "cell", "nut"]
    assert dataset.problems.counts == {problems.SIMILAR_CLASS_NAME: 2}
    assert "'Cell' and 'CELL'" in dataset.problems.lines()[0]
    dataset = load_labels(kind, tmp_path, ["cell", "Cell"], ["cell"])
    assert dataset.class_names == ["BG", "cell"]
    assert dataset.problems.counts == {problems.UNKNOWN_CLASS: 1}


@pytest.mark.parametrize("kind, add", ADDERS.values(), ids=ADDERS)
def test_a_second_file_spells_names_in_another_way(kind, add, tmp_path):
    dataset = kind()
    add(dataset, tmp_path, "a", ["cat", "dog"])
    add(dataset, tmp_path, "b", [" cat", "dog "])
    assert dataset.problems.counts == {}
    add(dataset, tmp_path, "c", ["Cat", "dog"])
    assert dataset.problems.counts == {problems.SIMILAR_CLASS_NAME: 1}
    dataset.prepare()
    assert [dataset.class_names[dataset.load_mask(i)[1][0]] for i in range(3)] == ["cat", "cat", "Cat"]


@pytest.mark.parametrize("ids", [(3, 17), (3, 3), (" a ", "b")])
def test_coco_categories_that_differ_in_spaces_are_one_class(ids, tmp_path):
    """If they have the same id, they are the same category."""
    files.write_picture(tmp_path / "a.png")
    content = files.coco_content()
    content["categories"] = [
        {"id": one, "name": name} for one, name in zip(ids, ("leaf", " leaf "), strict=True)
    ]
    for annotation, one in zip(content["annotations"], ids, strict=True):
        annotation["category_id"] = one
    path = files.write_json(tmp_path / "x.json", content)
    for classes in (None, ["leaf"], ["leaf "], list(dict.fromkeys(ids))):
        dataset = formats.CocoDataset()
        dataset.load(path, classes=classes)
        dataset.prepare()
        assert dataset.class_names == ["BG", "leaf"] and dataset.load_mask(0)[1].tolist() == [1, 1]
        repeated = {problems.REPEATED_CLASS_NAME: 1}
        assert dataset.problems.counts == ({} if len(set(ids)) == 1 else repeated)


def test_numbers_of_yolo_that_share_a_name(tmp_path):
    dataset = formats.YoloDataset()
    yolo(dataset, tmp_path, "a", ["cat", "dog", "cat"])
    dataset.prepare()
    assert dataset.class_names == ["BG", "cat", "dog"]
    assert dataset.problems.counts == {problems.REPEATED_CLASS_NAME: 1}
