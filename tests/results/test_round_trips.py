"""Every format written, read back by its own library, and read as a dataset: the same objects."""

import json

import annotation_files as files
import numpy as np
import pytest
import tifffile
from pycocotools.coco import COCO

from mrcnn import formats
from mrcnn.files.calibration import GeoReference, read_calibration
from mrcnn.geometry.mask_crops import MaskCrops
from mrcnn.results import Detections
from mrcnn.results.folder import ResultFolder
from mrcnn.results.labels import label_image

NAMES = ["BG", "leaf", "nut"]
SIZE = (files.HEIGHT, files.WIDTH)


def objects():
    """An object with a hole, one of two parts, one at the border, one of a single pixel, a ragged one."""
    masks = np.zeros((*SIZE, 5), bool)
    masks[2:14, 3:18, 0] = True
    masks[5:9, 6:11, 0] = False
    masks[20:26, 1:7, 1] = masks[31:35, 10:21, 1] = True
    masks[50:60, 80:90, 2] = True
    masks[40, 40, 3] = True
    masks[10:30, 40:70, 4] = np.random.default_rng(0).random((20, 30)) > 0.3
    return masks


def detections(masks=None, **facts):
    masks = objects() if masks is None else masks
    crops = MaskCrops.cut(masks)
    class_ids = np.array([1, 2, 1, 2, 1], np.int32)[: len(crops.crops)]
    scores = np.linspace(0.9, 0.5, len(class_ids)).astype(np.float32)
    return Detections(crops.boxes, class_ids, scores, masks, class_names=NAMES, **facts)


def loaded(dataset, *arguments, **options):
    dataset.load(*arguments, **options)
    dataset.prepare()
    return dataset


def written(tmp_path, kind, result=None, **options):
    """A folder of results of one image, which lies in images/."""
    path = files.write_picture(tmp_path / "images" / "a.png")
    result = detections() if result is None else result
    result.path = path
    folder = ResultFolder(tmp_path / "out", {1: "leaf", 2: "nut"}, [kind], **options)
    folder.add(result, "a", file_name="a.png", image=files.picture(), content=path)
    folder.finish()
    return tmp_path / "out"


def opened(kind, out, images):
    """The dataset of a folder of results."""
    if kind == "coco":
        return loaded(formats.CocoDataset(), out / "annotations.json", images)
    if kind == "labelme":
        return loaded(formats.LabelMeDataset(), out / "labelme", NAMES[1:], True, within=images)
    if kind == "yolo":
        return loaded(formats.YoloDataset(), images, out / "data.yaml", out / "labels")
    if kind == "geojson":
        return loaded(formats.GeoJsonDataset(), out / "geojson", images, NAMES[1:])
    if kind == "imagej":
        pytest.importorskip("roifile")
        return loaded(formats.ImageJDataset(), out / "rois", images, NAMES[1:])
    return loaded(formats.LabelImageDataset(), out, str(images))


KINDS = ["coco", "labelme", "yolo", "geojson", "imagej"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read(kind, tmp_path):
    dataset = opened(kind, written(tmp_path, kind, tolerance=0), tmp_path / "images")
    assert dataset.problems.counts == {} and dataset.class_names == NAMES
    masks, class_ids = dataset.load_mask(0)
    order = [0, 1, 2, 3, 4]
    if kind == "labelme":  # its masks come after its polygons
        order = [
            int(np.argmax((masks & one).sum(axis=(0, 1)))) for one in np.moveaxis(objects()[..., None], 2, 0)
        ]
    assert sorted(order) == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(masks[..., order], objects())
    assert class_ids[order].tolist() == [1, 2, 1, 2, 1]


@pytest.mark.parametrize("kind", ["labels", "tiff"])
def test_label_images(kind, tmp_path):
    dataset = opened(kind, written(tmp_path, kind), tmp_path / "images")
    masks, class_ids = dataset.load_mask(0)
    np.testing.assert_array_equal(masks, objects())
    assert class_ids.tolist() == [1] * 5  # a label image has no classes


@pytest.mark.parametrize("kind", [*KINDS, "labels", "tiff", "csv", "overlay"])
def test_without_objects(kind, tmp_path):
    out = written(tmp_path, kind, detections(np.zeros((*SIZE, 0), bool)))
    assert (out / "counts.csv").read_text() == "image,instances\na,0\n"
    if kind not in ("csv", "overlay"):
        dataset = opened(kind, out, tmp_path / "images")
        assert dataset.num_images == 1 and dataset.is_listed_as_empty(0)
        assert dataset.load_mask(0)[0].shape == (*SIZE, 0)


@pytest.mark.parametrize("kind", [*KINDS, "labels"])
def test_a_folder_with_copied_images_is_a_dataset(kind, tmp_path):
    from mrcnn.cli.datasets import open_dataset

    out = written(tmp_path, kind, copy_images=True)
    (tmp_path / "images" / "a.png").unlink()
    dataset = open_dataset(out)
    assert dataset.num_images == 1 and len(dataset.load_mask(0)[1]) == 5
    np.testing.assert_array_equal(dataset.load_image(0), files.picture())


def test_coco_by_pycocotools(tmp_path):
    coco = COCO(written(tmp_path, "coco") / "annotations.json")
    assert [coco.loadCats(n)[0]["name"] for n in (1, 2)] == NAMES[1:]
    for number, annotation in enumerate(coco.loadAnns(coco.getAnnIds(imgIds=1))):
        np.testing.assert_array_equal(coco.annToMask(annotation), objects()[..., number])
        assert annotation["area"] == objects()[..., number].sum()
    assert len(coco.loadRes(str(tmp_path / "out" / "detections.json")).anns) == 5


def test_labelme_has_few_points(tmp_path):
    """People move them; those of holes are a mask, and parts share a group."""
    yy, xx = np.mgrid[: SIZE[0], : SIZE[1]]
    disk = (yy - 30) ** 2 + (xx - 45) ** 2 < 24**2
    content = json.loads(
        (written(tmp_path, "labelme", detections(disk[..., None])) / "labelme/a.json").read_text()
    )
    (shape,) = content["shapes"]
    assert (shape["label"], shape["shape_type"], shape["group_id"]) == ("leaf", "polygon", None)
    assert len(shape["points"]) < 60 and content["imagePath"] == "../../images/a.png"
    read = opened("labelme", tmp_path / "out", tmp_path / "images").load_mask(0)[0][..., 0]
    assert (read & disk).sum() / (read | disk).sum() > 0.97
    content = json.loads((written(tmp_path, "labelme") / "labelme" / "a.json").read_text())
    kinds = [(shape["shape_type"], shape["group_id"]) for shape in content["shapes"][:4]]
    assert kinds == [("mask", None), ("polygon", 2), ("polygon", 2), ("polygon", None)]


def test_geojson_by_shapely(tmp_path):
    from shapely.geometry import shape

    content = json.loads((written(tmp_path, "geojson") / "geojson" / "a.geojson").read_text())
    for number, feature in enumerate(content["features"]):
        geometry, properties = shape(feature["geometry"]), feature["properties"]
        assert geometry.is_valid and geometry.area == objects()[..., number].sum()
        assert properties["classification"]["name"] == NAMES[(1, 2, 1, 2, 1)[number]]
        assert properties["objectType"] == "annotation"
        assert properties["measurements"]["score"] == pytest.approx(0.9 - 0.1 * number)
    assert len(shape(content["features"][0]["geometry"]).interiors) == 1
    assert content["features"][1]["geometry"]["type"] == "MultiPolygon"
    assert "crs" not in content


def test_geojson_on_a_map(tmp_path):
    """An image of a map: coordinates of the map, and back to pixels by the tags of the image."""
    tags = [
        (33550, "d", 3, (0.5, 0.5, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 1000.0, 2000.0, 0.0), True),
        (34735, "H", 12, (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32633), True),
    ]
    (tmp_path / "maps").mkdir()
    tifffile.imwrite(tmp_path / "maps" / "a.tif", files.picture(), photometric="rgb", extratags=tags)
    place = read_calibration(tmp_path / "maps" / "a.tif").georeference
    assert place == GeoReference((0.5, 0.0, 1000.0, 0.0, -0.5, 2000.0), "EPSG:32633")
    path = detections(georeference=place).save(tmp_path / "map" / "a.geojson")
    content = json.loads(path.read_text())
    assert content["features"][2]["geometry"]["coordinates"][0][0] == [1040.0, 1975.0]
    assert content["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"
    dataset = loaded(formats.GeoJsonDataset(), tmp_path / "map", tmp_path / "maps")
    np.testing.assert_array_equal(dataset.load_mask(0)[0], objects())
    content["crs"]["properties"]["name"] = "urn:ogc:def:crs:EPSG::3857"
    files.write_json(path, content)
    dataset = loaded(formats.GeoJsonDataset(), tmp_path / "map", tmp_path / "maps")
    assert "must be in the system of the image, EPSG:32633" in str(dataset.problems.names)


def test_rois_by_roifile(tmp_path):
    roifile = pytest.importorskip("roifile")
    rois = roifile.roiread(written(tmp_path, "imagej") / "rois" / "a.zip")
    assert [roi.name for roi in rois] == ["leaf 1", "nut 2", "leaf 3", "nut 4", "leaf 5"]
    assert [roi.group for roi in rois] == [1, 2, 1, 2, 1]
    assert [roi.composite for roi in rois][:4] == [True, True, False, False]
    assert rois[2].coordinates().tolist() == [[80, 50], [90, 50], [90, 60], [80, 60]]
    assert (rois[0].left, rois[0].top, rois[0].right, rois[0].bottom) == (3, 2, 18, 14)


def test_yolo_by_its_own_rules(tmp_path):
    import yaml

    out = written(tmp_path, "yolo")
    assert yaml.safe_load((out / "data.yaml").read_text())["names"] == {0: "leaf", 1: "nut"}
    lines = [line.split() for line in (out / "labels" / "a.txt").read_text().splitlines()]
    assert [int(line[0]) for line in lines] == [0, 1, 0, 1, 0]
    numbers = np.array([float(value) for line in lines for value in line[1:]])
    assert numbers.min() >= 0 and numbers.max() <= 1 and all(len(line) % 2 for line in lines)


def test_70000_objects_make_a_label_image_of_32_bits(tmp_path):
    side = np.arange(300)
    boxes = np.stack(np.broadcast_arrays(side[:, None], side, side[:, None] + 1, side + 1), axis=-1).reshape(
        -1, 4
    )
    boxes = boxes[:70000].astype(np.int32)
    crops = MaskCrops((300, 300), boxes, (np.ones((1, 1), bool),) * 70000)
    result = Detections(boxes, np.ones(70000, np.int32), np.ones(70000, np.float32), crops)
    path = result.save(tmp_path / "a.png")
    labels = tifffile.imread(path)
    assert path.name == "a.tif" and labels.dtype == np.uint32 and labels.max() == 70000
    np.testing.assert_array_equal(labels, label_image(result))


@pytest.mark.parametrize("kind", [*KINDS, "labels"])
def test_a_dataset_in_another_format(kind, tmp_path):
    """From COCO to each format, as `mrcnn convert` does."""
    source = opened("coco", written(tmp_path, "coco"), tmp_path / "images")
    counts = formats.write_dataset(source, tmp_path / "new", [kind], tolerance=0)
    assert counts == {"a": 5}
    dataset = opened(kind, tmp_path / "new", tmp_path / "images")
    masks, _ = dataset.load_mask(0)
    areas = objects().sum(axis=(0, 1))
    assert sorted(masks.sum(axis=(0, 1))) == sorted(areas)
