"""Paths in annotation files: of Windows, absolute, to other folders; and names that several files share."""

import os
import unicodedata
import zipfile
from pathlib import Path

import annotation_files as files
import numpy as np
import pytest

from mrcnn import formats
from mrcnn.errors import InvalidDataError
from mrcnn.formats import problems
from mrcnn.formats.image_files import locate, match, moved


def coco(folder, name, **arguments):
    dataset = formats.CocoDataset()
    dataset.load(files.write_json(folder / "x.json", files.coco_content(name)), **arguments)
    return dataset


def via(folder, name, **arguments):
    content = files.via_content([files.via_region("leaf")], name)
    dataset = formats.ViaDataset()
    dataset.load(files.write_json(folder / "x.json", content), classes=["leaf"], **arguments)
    return dataset


def labelme(folder, name, **arguments):
    files.write_json(folder / "x.json", files.labelme_content(image=name))
    dataset = formats.LabelMeDataset()
    dataset.load(folder, **arguments)
    return dataset


READERS = pytest.mark.parametrize("read", [coco, via, labelme])


@READERS
@pytest.mark.parametrize("name", ["images\\a.png", "images/a.png", ".\\images\\..\\images\\a.png"])
def test_backslashes_and_slashes(read, name, tmp_path):
    files.write_picture(tmp_path / "images" / "a.png")
    dataset = read(tmp_path, name)
    dataset.prepare()
    assert dataset.problems.counts == {}
    assert np.array_equal(dataset.load_image(0), files.picture())


@READERS
def test_a_backslash_may_be_a_part_of_a_name(read, tmp_path):
    files.write_picture(tmp_path / "a\\b.png")
    assert read(tmp_path, "a\\b.png").problems.counts == {}


@READERS
@pytest.mark.parametrize("forms", ["CCDD", "DDCC", "CCCD", "CDDC"])
def test_accents_as_one_character_or_two(read, forms, tmp_path):
    """Archives of a Mac have names with separate accents."""
    parts = zip(forms, 2 * ("Bäume", "Blätter.png"), strict=True)
    folder, name, *stored = (unicodedata.normalize(f"NF{form}", part) for form, part in parts)
    stated = f"{folder}/{name}"
    path = files.write_picture(tmp_path.joinpath(*stored))
    dataset = read(tmp_path, stated)
    assert dataset.problems.counts == {}
    assert os.path.samefile(dataset.image_info[0]["path"], path)
    with pytest.raises(InvalidDataError, match="outside the folder"):
        read(tmp_path / "other", f"../../{stated}")


@READERS
def test_absolute_paths_in_the_folder(read, tmp_path):
    path = files.write_picture(tmp_path / "a.png")
    assert read(tmp_path, str(path)).problems.counts == {}


@READERS
@pytest.mark.parametrize("name", ["../../b.png", "..\\..\\b.png", "{}/b.png"])
def test_other_folders_only_if_allowed(read, name, tmp_path):
    files.write_picture(tmp_path / "b.png")
    name = name.format(tmp_path)
    folder = tmp_path / "c" / "d"
    with pytest.raises(InvalidDataError, match=r"outside the folder(.|\n)*Pass `within` to"):
        read(folder, name)
    dataset = read(folder, name, within=tmp_path)
    assert dataset.problems.counts == {}
    assert os.path.samefile(dataset.image_info[0]["path"], tmp_path / "b.png")


@READERS
@pytest.mark.parametrize("name", ["C:\\images\\a.png", "D:a.png", "\\\\server\\share\\a.png"])
def test_drives_and_servers_of_windows(read, name, tmp_path):
    with pytest.raises(InvalidDataError, match="outside the folder"):
        read(tmp_path, name)


MOVED = [
    "C:\\Users\\me\\my leaf\u00e4.png",
    "/home/me/photos/my leaf\u00e4.png",
    "my%20leaf%C3%A4.png",
    "images/default/my leaf\u00e4.png",
    "../../label-studio/data/media/upload/1/0a1b2c3d-my leaf\u00e4.png",
    "/data/local-files/?d=photos/my%20leaf%C3%A4.png",
    "https://example.org/upload/my%20leaf%C3%A4.png?X-Date=1",
]


@READERS
@pytest.mark.parametrize("name", MOVED)
def test_images_that_were_annotated_on_another_machine(read, name, tmp_path):
    path = files.write_picture(tmp_path / "my leaf\u00e4.png")
    dataset = read(tmp_path, name)
    assert dataset.problems.counts == {problems.MOVED_IMAGE: 1}
    assert os.path.samefile(dataset.image_info[0]["path"], path)


def test_the_longest_end_of_a_path_counts(tmp_path):
    files.write_picture(tmp_path / "a.png")
    deeper = files.write_picture(tmp_path / "b" / "a.png")
    assert moved(tmp_path, ["C:\\b\\a.png"]) == {"C:\\b\\a.png": "b/a.png"}
    assert os.path.samefile(coco(tmp_path, "/data/b/a.png").image_info[0]["path"], deeper)


def test_one_file_does_not_stand_for_two_images(tmp_path):
    """Cameras number their photographs, so that folders have the same names."""
    files.write_picture(tmp_path / "a.png")
    assert moved(tmp_path, ["one/a.png", "two/a.png"]) == {}
    assert moved(tmp_path, ["a.png", "two/a.png", "%61.png"]) == {}
    files.write_picture(tmp_path / "one" / "b.png")
    assert moved(tmp_path, ["one\\b.png", "two/one/b.png"]) == {}


def test_a_backslash_and_an_accent_are_no_other_path(tmp_path):
    files.write_picture(tmp_path / "images" / unicodedata.normalize("NFD", "\u00e4.png"))
    assert moved(tmp_path, ["images\\\u00e4.png"]) == {}


def labelme_tree(folder, image="a.png"):
    for index, name in enumerate(("one", "two")):
        files.write_json(folder / name / "a.json", files.labelme_content(image=image))
        files.write_picture(folder / name / "a.png", files.picture(seed=index))


def test_labelme_files_in_subfolders(tmp_path):
    labelme_tree(tmp_path)
    files.write_json(tmp_path / ".old" / "a.json", files.labelme_content(image="a.png"))
    dataset = formats.LabelMeDataset()
    dataset.load(tmp_path)
    dataset.prepare()
    assert [info["id"] for info in dataset.image_info] == ["one/a", "two/a"]
    assert np.array_equal(dataset.load_image(1), files.picture(seed=1))
    assert len(dataset.image_from_source_map) == 2 and dataset.problems.counts == {}
    files.write_json(tmp_path / "a.json", files.labelme_content(image="one/a.png"))
    dataset = formats.LabelMeDataset()
    dataset.load(tmp_path)
    assert [info["id"] for info in dataset.image_info] == ["a"]


def test_labelme_images_in_a_folder_of_their_own(tmp_path):
    labelme_tree(tmp_path / "json")
    for name in ("one", "two"):
        (tmp_path / "json" / name / "a.png").rename(files.write_picture(tmp_path / "images" / name / "a.png"))
    dataset = formats.LabelMeDataset()
    dataset.load(tmp_path / "json", images=tmp_path / "images")
    dataset.prepare()
    assert np.array_equal(dataset.load_image(1), files.picture(seed=1))
    assert dataset.problems.counts == {}


def test_one_image_does_not_stand_for_those_of_two_labelme_files(tmp_path):
    labelme_tree(tmp_path / "json")
    for name in ("one", "two"):
        (tmp_path / "json" / name / "a.png").unlink()
    files.write_picture(tmp_path / "images" / "a.png")
    dataset = formats.LabelMeDataset()
    with pytest.raises(InvalidDataError, match="2 x image file is missing"):
        dataset.load(tmp_path / "json", images=tmp_path / "images")
    for name in ("one", "two"):
        content = files.labelme_content(image=f"photos/{name}/a.png")
        files.write_json(tmp_path / "images" / f"{name}.json", content)
    with pytest.raises(InvalidDataError, match="2 x image file is missing"):
        formats.LabelMeDataset().load(tmp_path / "images")


def test_an_image_that_two_labelme_files_name(tmp_path):
    for name in ("a", "copy of a"):
        files.write_json(tmp_path / f"{name}.json", files.labelme_content(image="a.png"))
    files.write_picture(tmp_path / "a.png")
    dataset = formats.LabelMeDataset()
    dataset.load(tmp_path)
    assert dataset.problems.counts == {problems.REPEATED_FILE: 1}


def test_labelme_images_that_nobody_annotated(tmp_path):
    for name in ("a.png", "new.png", "broken.png", "outside.png"):
        files.write_picture(tmp_path / name)
    files.write_json(tmp_path / "x.json", files.labelme_content(image="a.png"))
    files.write_json(tmp_path / "outside.json", files.labelme_content(image="../../a.png"))
    (tmp_path / "broken.json").write_text("{")
    dataset = formats.LabelMeDataset()
    dataset.load(tmp_path)
    assert dataset.problems.names[problems.NOT_ANNOTATED] == [str(tmp_path / "new.png")]


def test_labelme_may_name_a_neighboring_folder(tmp_path):
    """LabelMe writes such paths if its output folder is not that of the images."""
    files.write_picture(tmp_path / "images" / "a.png")
    assert labelme(tmp_path / "json", "..\\images\\a.png").problems.counts == {}


@READERS
@pytest.mark.parametrize(
    "name", ["", ".", "a\0.png", "\ud800.png", "a" * 5000 + ".png", "pipe.png", "/dev/null"]
)
def test_names_that_no_file_can_have(read, name, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InvalidDataError, match="The dataset has no usable image"):
        read(tmp_path, name, within="/")


def test_links_are_followed(tmp_path):
    """Large images are often links into a store."""
    files.write_picture(tmp_path / "store" / "a.png")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").symlink_to(tmp_path / "store" / "a.png")
    assert locate(tmp_path / "images", "a.png") == tmp_path / "images" / "a.png"
    assert coco(tmp_path / "images", "a.png").problems.counts == {}


def test_two_images_of_one_name(tmp_path):
    for name in ("a.jpg", "a.png", "b.png"):
        files.write_picture(tmp_path / "images" / name)
    files.write_picture(tmp_path / "labels" / "a.png", files.labels())
    files.write_picture(tmp_path / "labels" / "b.png", files.labels())
    files.write_picture(tmp_path / "labels" / "b.tif", files.labels())
    dataset = formats.LabelImageDataset()
    dataset.load(tmp_path)
    names = dataset.problems.names[problems.SAME_NAME]
    assert names == [str(tmp_path / "images" / "a.png"), str(tmp_path / "labels" / "b.tif")]
    assert [info["path"].name for info in dataset.image_info] == ["a.jpg", "b.png"]

    for name in "ab":
        (tmp_path / "labels" / f"{name}.txt").write_text(files.yolo_line(0, "leaf"))
    dataset = formats.YoloDataset()
    dataset.load(tmp_path / "images", ["leaf"])
    assert dataset.problems.names[problems.SAME_NAME] == [str(tmp_path / "images" / "a.png")]


def geojson_files(folder):
    square = [[10, 8], [40, 8], [40, 30], [10, 30]]
    geometry = {"type": "Polygon", "coordinates": [square]}
    for name in ("a.jpg", "a.png", "b", "c"):
        feature = {"type": "Feature", "geometry": geometry, "properties": {"classification": "leaf"}}
        files.write_json(folder / "labels" / f"{name}.geojson", [feature])
    dataset = formats.GeoJsonDataset()
    dataset.load(folder / "labels", folder / "images")
    return dataset


def yolo_files(folder):
    (folder / "labels").mkdir()
    for name in ("a.jpg", "a.png", "b", "c"):
        (folder / "labels" / f"{name}.txt").write_text(files.yolo_line(0, "leaf"))
    (folder / "labels" / "classes.txt").write_text("leaf")
    dataset = formats.YoloDataset()
    dataset.load(folder / "images", ["leaf"])
    return dataset


def label_files(folder, **options):
    for name in ("a.jpg", "a.png", "b", "c"):
        files.write_picture(folder / "labels" / f"{name}.png", files.labels() // 7)
    dataset = formats.LabelImageDataset()
    dataset.load(folder, **options)
    return dataset


@pytest.mark.parametrize("read", [geojson_files, yolo_files, label_files])
def test_annotation_files_may_have_the_whole_name_of_their_image(read, tmp_path):
    """`write_predictions` names results so if two images have one name without suffix."""
    for name in ("a.jpg", "a.png", "b.png"):
        files.write_picture(tmp_path / "images" / name)
    dataset = read(tmp_path)
    dataset.prepare()
    assert [info["path"].name for info in dataset.image_info] == ["a.jpg", "a.png", "b.png"]
    assert [len(dataset.load_mask(image_id)[1]) for image_id in range(3)] == [1, 1, 1]
    ((kind, (unused,)),) = dataset.problems.names.items()
    assert kind == problems.MISSING_ANNOTATED and Path(unused).stem == "c"


def test_the_whole_name_comes_before_the_stem(tmp_path):
    found, others, unused = match(["a.jpg", "a.png", "a.png.png", "d.png"], ["a", "a.png", "c"])
    assert found == {"a": "a.jpg", "a.png": "a.png", "d": "d.png"}
    assert others == ["a.png.png"] and unused == ["c"]


def test_a_choice_of_label_images_by_either_name(tmp_path):
    for name in ("a.jpg", "a.png", "b.png"):
        files.write_picture(tmp_path / "images" / name)
    assert len(label_files(tmp_path, only=["a"]).image_info) == 2
    dataset = label_files(tmp_path, only=["a.png", "z"])
    assert [info["path"].name for info in dataset.image_info] == ["a.png"]
    assert dataset.problems.counts[problems.MISSING_IMAGE] == 1


def test_names_in_zip_files(tmp_path):
    """Windows programs write backslashes; names that lead outside of the archive are not used."""
    path = files.write_picture(tmp_path / "a.png")
    labels = files.write_picture(tmp_path / "labels.png", files.labels())
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name, file in (("images\\a.png", path), ("labels\\a.png", labels), ("../b.png", path)):
            info = zipfile.ZipInfo("x")
            info.filename = name  # the constructor would change it on Windows
            archive.writestr(info, file.read_bytes())
    dataset = formats.LabelImageDataset()
    dataset.load(tmp_path / "all.zip")
    dataset.prepare()
    assert dataset.problems.names == {problems.OUTSIDE_FOLDER: [f"{tmp_path / 'all.zip'}/../b.png"]}
    assert [info["id"] for info in dataset.image_info] == ["a"]
    assert np.array_equal(dataset.load_image(0), files.picture()) and len(dataset.load_mask(0)[1]) == 2


def test_masks_of_one_name_are_two_objects(tmp_path):
    files.write_picture(tmp_path / "x" / "images" / "x.png")
    for name, mask in zip(("1.png", "1.tif"), files.masks(), strict=True):
        files.write_picture(tmp_path / "x" / "masks" / name, mask.astype(np.uint8))
    dataset = formats.MaskFileDataset()
    dataset.load(tmp_path)
    dataset.prepare()
    assert dataset.load_mask(0)[0].shape[2] == 2


def test_one_file_under_several_names(tmp_path):
    files.write_picture(tmp_path / "a.png")
    content = files.coco_content()
    content["images"].append({"id": 7, "file_name": "a.png", "height": files.HEIGHT, "width": files.WIDTH})
    dataset = formats.CocoDataset()
    dataset.load(files.write_json(tmp_path / "x.json", content))
    assert list(dataset.problems.counts) == [problems.REPEATED_FILE]
    entries = files.via_content([files.via_region("leaf")])
    entries |= {"other": next(iter(entries.values()))}
    dataset = formats.ViaDataset()
    dataset.load(files.write_json(tmp_path / "v.json", entries))
    assert list(dataset.problems.counts) == [problems.REPEATED_FILE]
