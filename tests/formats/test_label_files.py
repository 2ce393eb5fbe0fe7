"""Label images as other programs name and store them: beside their images, by Cellpose, and as stacks."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import annotation_files as files
import numpy as np
import pytest
import tifffile

from mrcnn import formats
from mrcnn.cli.datasets import open_dataset
from mrcnn.errors import InvalidDataError, UnreadableFileError
from mrcnn.formats import cellpose, problems
from mrcnn.formats.image_files import by_image, match

TINY = np.array([[0, 1, 1], [2, 2, 0]], np.uint16)


def write_seg(path, masks, **fields):
    """Write the file that Cellpose writes beside an image."""
    np.save(path, {"masks": masks, "outlines": masks * 0, "est_diam": np.float64(30), **fields})
    return path


def objects(dataset):
    dataset.prepare()
    return [len(dataset.load_mask(image_id)[1]) for image_id in dataset.image_ids]


@pytest.mark.parametrize("end", ["", "_cp_masks", "_masks", "_mask", "_labels", "_label"])
def test_names_of_label_images(end, tmp_path):
    files.write_picture(tmp_path / "images" / "a b.png")
    files.write_picture(tmp_path / "labels" / f"a b{end}.png", files.labels())
    dataset = formats.LabelImageDataset()
    dataset.load(tmp_path)
    assert objects(dataset) == [2] and dataset.problems.counts == {}


def test_the_whole_name_of_a_label_image_comes_first():
    assert by_image(["a_mask.png", "a.png", "b_mask_mask.png"], ["a.jpg", "a_mask.jpg", "b_mask.jpg"]) == (
        {"a": "a.png", "a_mask": "a_mask.png", "b_mask": "b_mask_mask.png"},
        [],
    )
    assert by_image(["a_mask.png", "a_label.png"], ["a.jpg"]) == ({"a": "a_mask.png"}, ["a_label.png"])


@pytest.mark.parametrize(
    "folder, label",
    [
        ("labels", "a.tif"),
        ("labels", "a.ome.tif"),
        ("labels", "a_masks.png"),
        ("images", "a_masks.png"),
        ("images", "a.ome_cp_masks.png"),
    ],
)
def test_label_images_of_ome_tiff_files(folder, label, tmp_path):
    files.write_picture(tmp_path / "images" / "a.ome.tif")
    files.write_picture(tmp_path / folder / label, files.labels())
    dataset = formats.LabelImageDataset()
    dataset.load(tmp_path, labels=folder)
    assert objects(dataset) == [2] and dataset.problems.counts == {}


def test_other_annotation_files_of_ome_tiff_files():
    images = ["a.ome.tif", "b.ome.tif", "b.tif"]
    found = {"a": "a.ome.tif", "b.ome": "b.ome.tif", "b": "b.tif"}
    assert match(images, ["a", "b"]) == (found, [], [])
    assert match(images[:2], ["a.ome", "b"])[0] == {"a.ome": "a.ome.tif", "b": "b.ome.tif"}
    assert by_image(["a.ome.tif"], ["a.png"]) == ({"a": "a.ome.tif"}, [])


@pytest.mark.parametrize("is_seg", [True, False])
def test_label_images_beside_their_images(is_seg, tmp_path):
    """Other images there, such as the flows of Cellpose, have no label image and are left out."""
    for name in ("a.png", "b.png", "a_flows.png"):
        files.write_picture(tmp_path / name)
    for name in "ab":
        if is_seg:
            write_seg(tmp_path / f"{name}_seg.npy", files.labels())
        else:
            files.write_picture(tmp_path / f"{name}_cp_masks.png", files.labels())
    np.save(tmp_path / "a.npy", files.labels())
    dataset = formats.LabelImageDataset()
    dataset.load(tmp_path, images="", labels="")
    assert objects(dataset) == [2, 2]
    assert dataset.problems.counts == {problems.NOT_ANNOTATED: 1}
    assert objects(open_dataset(tmp_path)) == [2, 2]


def test_corrections_in_cellpose_come_before_its_first_result(tmp_path):
    files.write_picture(tmp_path / "a.png")
    files.write_picture(tmp_path / "a_cp_masks.png", files.labels())
    write_seg(tmp_path / "a_seg.npy", files.labels() // 7)
    dataset = formats.LabelImageDataset()
    dataset.load(tmp_path, images="", labels="")
    assert objects(dataset) == [1]
    assert dataset.problems.names[problems.SAME_NAME] == [str(tmp_path / "a_cp_masks.png")]


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_files_of_cellpose_run_no_code(protocol, tmp_path):
    """Objects of other classes, such as paths, are not built."""

    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "trap",)

    content = {"masks": TINY, "filename": tmp_path, "trap": Trap(), "flows": [np.zeros(3), np.float32(1)]}
    with open(tmp_path / "a_seg.npy", "wb") as file:
        header = {"descr": "|O", "fortran_order": False, "shape": ()}
        np.lib.format.write_array_header_1_0(file, header)
        pickle.dump(np.array(content, dtype=object), file, protocol=protocol)
    with open(tmp_path / "a_seg.npy", "rb") as file:
        assert np.array_equal(cellpose.read_seg(file, "a"), TINY)
    assert not (tmp_path / "trap").exists()


def test_files_of_cellpose_have_no_addresses():
    """Bytes of an array that claims to hold objects are no objects: their use would end the process."""

    class Objects:
        def __reduce__(self):
            return np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0)

    class Addresses:
        def __reduce__(self):
            return np.empty(0).__reduce__()[0], (np.ndarray, (0,), b"b"), (1, (), Objects(), False, b"A" * 8)

    for content in (Addresses(), np.array({"masks": Addresses()}, dtype=object)):
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": ()})
        pickle.dump(content, stream)
        stream.seek(0)
        with pytest.raises(UnreadableFileError, match="Cellpose"):
            cellpose.read_seg(stream, "a")


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("masks", [np.asfortranarray(TINY), TINY.astype(">u4"), TINY > 0])
def test_arrays_of_cellpose_in_any_layout(masks, protocol):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": ()})
    pickle.dump(np.array({"masks": masks}, dtype=object), stream, protocol=protocol)
    stream.seek(0)
    read = cellpose.read_seg(stream, "a")
    assert np.array_equal(read, masks) and read.dtype == masks.dtype.newbyteorder("=")


def test_broken_files_of_cellpose(tmp_path):
    whole = write_seg(tmp_path / "a_seg.npy", TINY).read_bytes()
    np.save(tmp_path / "b_seg.npy", TINY)
    plain = (tmp_path / "b_seg.npy").read_bytes()
    for content in (b"", whole[:90], whole[:-40], b"no array", plain):
        with pytest.raises(UnreadableFileError, match="Cellpose"):
            cellpose.read_seg(io.BytesIO(content), "b")
    for masks in (np.zeros(3, int), np.zeros((2, 2))):
        content = write_seg(tmp_path / "c_seg.npy", masks).read_bytes()
        with pytest.raises(InvalidDataError, match="`masks` must be integers"):
            cellpose.read_seg(io.BytesIO(content), "c")


def write_stack(path, values, axes):
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, values, imagej=True, metadata={"axes": axes})


@pytest.mark.parametrize("is_seg", [True, False])
def test_label_images_of_stacks(is_seg, tmp_path):
    """Slice 1 has both objects, slice 2 the second one."""
    stack = np.stack([np.stack([files.picture(seed=z)[..., 0]] * 2) for z in range(3)])
    labels = np.stack([files.labels() * 0, files.labels(), files.labels() // 7])
    write_stack(tmp_path / "images" / "a.tif", stack, "ZCYX")
    write_stack(tmp_path / "labels" / "a.tif", labels, "ZYX")
    if is_seg:
        (tmp_path / "labels" / "a.tif").unlink()
        write_seg(tmp_path / "labels" / "a_seg.npy", labels)
    for choice, expected in (
        ({"page": 0, "channels": [0]}, 0),
        ({"page": 1, "channels": [0]}, 2),
        ({"page": 2, "channels": [1]}, 1),
        ({"page": 3}, 2),  # the second channel of slice 1
    ):
        dataset = formats.LabelImageDataset(**choice)
        dataset.load(tmp_path)
        assert objects(dataset) == [expected]
        assert dataset.is_listed_as_empty(0) == (expected == 0)


def test_label_images_of_other_stacks(tmp_path):
    write_stack(tmp_path / "images" / "a.tif", np.zeros((4, 60, 90), np.uint8), "ZYX")
    write_stack(tmp_path / "labels" / "a.tif", np.ones((3, 60, 90), np.uint8), "ZYX")
    dataset = formats.LabelImageDataset(page=1)
    with pytest.raises(
        InvalidDataError, match=r"Received: 3 pages of labels, an image of 4 slices, and page=1"
    ):
        dataset.load(tmp_path)
    files.write_picture(tmp_path / "one" / "a.png")
    dataset = formats.LabelImageDataset()
    with pytest.raises(InvalidDataError, match="an image of one page, and page=None"):
        dataset.load(tmp_path, images="one")


# --- What the command line recognizes ---


def write_labels(folder, images="images", labels="labels"):
    files.write_picture(folder / images / "a.png")
    files.write_picture(folder / labels / "a.png", files.labels())


def test_folders_of_label_images_that_are_recognized(tmp_path):
    write_labels(tmp_path / "cells", labels="masks")
    for data in (tmp_path / "cells", tmp_path / "cells" / "masks"):
        dataset = open_dataset(data)
        assert objects(dataset) == [2] and dataset.class_names == ["BG", "object"]
    write_labels(tmp_path, "photos", "outlines")
    assert objects(open_dataset(tmp_path / "outlines", tmp_path / "photos")) == [2]
    for top in ("", "cells/"):
        with zipfile.ZipFile(tmp_path / "cells.zip", "w") as archive:
            for name in ("images/a.png", "masks/a.png"):
                archive.write(tmp_path / "cells" / name, top + name)
                archive.writestr(f"__MACOSX/{top}{name.replace('a.png', '._a.png')}", b"attributes")
        assert objects(open_dataset(tmp_path / "cells.zip")) == [2]


def test_a_mask_file_for_each_object_is_recognized(tmp_path):
    files.write_picture(tmp_path / "a" / "images" / "a.png")
    for index, mask in enumerate(files.masks()):
        files.write_picture(tmp_path / "a" / "masks" / f"{index}.png", mask.astype(np.uint8) * 255)
    dataset = open_dataset(tmp_path, choice={"class": "cell"})
    assert objects(dataset) == [2] and dataset.class_names == ["BG", "cell"]
    files.write_picture(tmp_path / "a" / "images" / "b.png")
    with pytest.raises(InvalidDataError, match="No dataset was recognized"):  # these are label images
        open_dataset(tmp_path)


@pytest.mark.parametrize("kind", ["geojson", "imagej"])
def test_outlines_without_a_class(kind, tmp_path):
    if kind == "geojson":
        ring = [[float(x), float(y)] for x, y in [*files.CORNERS["leaf"], files.CORNERS["leaf"][0]]]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        feature = {"type": "Feature", "geometry": geometry, "properties": {}}
        files.write_json(tmp_path / "geojson" / "a.geojson", [feature])
    else:
        roifile = pytest.importorskip("roifile")
        (tmp_path / "rois").mkdir()
        roifile.ImagejRoi.frompoints(np.float32(files.CORNERS["leaf"])).tofile(tmp_path / "rois" / "a.roi")
    files.write_picture(tmp_path / "images" / "a.png")
    for choice, name in (({}, "object"), ({"class": "cell"}, "cell")):
        dataset = open_dataset(tmp_path, choice=choice)
        assert objects(dataset) == [1] and dataset.class_names == ["BG", name]


@pytest.mark.parametrize(
    "json_file, image, name",
    [
        ("_annotations.coco.json", "a.png", "a.png"),  # Roboflow
        ("result.json", "images/a.png", "images/a.png"),  # Label Studio
        ("annotations/instances_default.json", "images/default/a.png", "a.png"),  # CVAT
        ("annotations/instances_default.json", "images/a.png", "a.png"),
        ("annotations/instances_train2017.json", "train2017/a.png", "a.png"),  # COCO
        ("annotations/all.json", "a.png", "a.png"),
        ("annotations/all.json", "annotations/one/a.png", "one/a.png"),
        ("export.json", "images/a.png", "a.png"),
        ("export.json", "photos/a.png", "a.png"),
        ("annotations/train.json", "train/a.png", "train/a.png"),
    ],
)
def test_folders_of_coco_files_that_are_recognized(json_file, image, name, tmp_path):
    files.write_json(tmp_path / json_file, files.coco_content(name))
    files.write_picture(tmp_path / image)
    for data in (tmp_path, tmp_path / json_file):
        assert objects(open_dataset(data)) == [2]


def test_a_folder_of_parts_names_them(tmp_path):
    for part in ("train", "valid"):
        files.write_json(tmp_path / part / "_annotations.coco.json", files.coco_content())
    (tmp_path / "README.txt").write_text("An export")
    with pytest.raises(InvalidDataError, match=r"in these subfolders: train, valid\. Pass the path of one"):
        open_dataset(tmp_path)


def test_images_of_a_via_file_are_found(tmp_path):
    content = files.via_content([files.via_region("leaf")])
    path = files.write_json(tmp_path / "via.json", content)
    files.write_picture(tmp_path / "images" / "a.png")
    assert objects(open_dataset(path)) == [1]
    files.write_json(path, {"_via_img_metadata": content})
    assert objects(open_dataset(path)) == [1]


def test_a_name_that_no_file_can_have(tmp_path):
    path = files.write_json(tmp_path / "a.json", files.coco_content("x" * 300 + ".png"))
    with pytest.raises(InvalidDataError, match=r"no usable image.*\n  1 x image file is missing"):
        open_dataset(path)


def test_images_beside_a_coco_file_come_first(tmp_path):
    path = files.write_json(tmp_path / "annotations" / "train.json", files.coco_content("a.png"))
    for folder in ("annotations", "images"):
        files.write_picture(tmp_path / folder / "a.png")
    assert open_dataset(path).image_info[0]["path"] == tmp_path / "annotations" / "a.png"


def test_folders_of_via_files_that_are_recognized(tmp_path):
    content = files.via_content([files.via_region("leaf")])
    files.write_json(tmp_path / "via_region_data.json", content)
    files.write_picture(tmp_path / "a.png")
    assert open_dataset(tmp_path).class_names == ["BG", "leaf"]
    assert open_dataset(tmp_path, choice={"class": "plant"}).class_names == ["BG", "plant"]


def test_subfolders_of_labelme_files_are_recognized(tmp_path):
    files.write_json(tmp_path / "one" / "a.json", files.labelme_content())
    files.write_picture(tmp_path / "one" / "a.png")
    assert objects(open_dataset(tmp_path)) == [2]
    (tmp_path / "one" / "a.json").write_text(json.dumps([1]))
    with pytest.raises(InvalidDataError, match="No dataset was recognized"):
        open_dataset(tmp_path)


def test_other_json_files_beside_labelme_files(tmp_path):
    for name in "abcd":
        files.write_json(tmp_path / f"{name}.json", {"version": 1})
    files.write_json(tmp_path / "x.json", files.labelme_content())
    files.write_picture(tmp_path / "a.png")
    assert objects(open_dataset(tmp_path)) == [2]


def test_a_broken_json_file_is_no_dataset(tmp_path):
    files.write_json(tmp_path / "logs" / "state.json", {})
    (tmp_path / "logs" / "state.json").write_text("{")
    with pytest.raises(InvalidDataError, match="not valid JSON"):
        open_dataset(tmp_path)
    write_labels(tmp_path, labels="masks")
    assert objects(open_dataset(tmp_path)) == [2]


def test_a_class_for_files_that_have_classes(tmp_path):
    files.write_json(tmp_path / "a.json", files.labelme_content())
    files.write_picture(tmp_path / "a.png")
    with pytest.raises(ValueError, match="--class is only for files whose objects may have no class"):
        open_dataset(tmp_path, choice={"class": "leaf"})
