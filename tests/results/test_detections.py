"""What `detect` returns: a dict that knows its image, in three forms of masks."""

import copy
import csv
import pickle
import subprocess
import sys

import annotation_files as files
import numpy as np
import pytest
from skimage.measure import regionprops

from mrcnn import formats
from mrcnn.files.calibration import PixelSize
from mrcnn.geometry.mask_crops import MaskCrops
from mrcnn.results import Detections
from mrcnn.results.measurements import measure

NAMES = ("BG", "leaf", "nut")


def detections(**facts):
    masks = np.moveaxis(files.masks(), 0, -1)
    crops = MaskCrops.cut(masks)
    ids, scores = np.array([1, 2], np.int32), np.array([0.9, 0.75], np.float32)
    return Detections(crops.boxes, ids, scores, masks, class_names=NAMES, **facts)


def in_form(form):
    result = detections()
    crops = result.mask_crops()
    return result.with_masks(
        {"full": crops.whole, "cropped": lambda: crops, "rle": crops.run_lengths}[form]()
    )


def test_it_is_a_dict():
    result = detections()
    assert isinstance(result, dict) and list(result) == ["rois", "class_ids", "scores", "masks"]
    assert set({**result}) == {"rois", "class_ids", "scores", "masks"} and len(result) == 4
    assert result.shape == (files.HEIGHT, files.WIDTH) and result.count == 2


@pytest.mark.parametrize("form", ["full", "cropped", "rle"])
def test_forms_of_masks(form, tmp_path):
    result = in_form(form)
    for (box, crop), mask in zip(result.crops(), files.masks(), strict=True):
        whole = np.zeros_like(mask)
        whole[box[0] : box[2], box[1] : box[3]] = crop
        np.testing.assert_array_equal(whole, mask)
    np.testing.assert_array_equal(result.mask_crops().whole()[..., 1], files.masks()[1])
    chosen = result.select(result["scores"] < 0.8)
    assert chosen["class_ids"].tolist() == [2] and chosen.class_names == NAMES
    assert chosen.mask_crops().whole().sum() == files.masks()[1].sum()
    assert result.select(np.array([1, 0]))["class_ids"].tolist() == [2, 1]
    assert result.select(np.zeros(2, bool)).count == 0
    one = result.save(tmp_path / "a.geojson").read_bytes()
    assert one == detections().save(tmp_path / "b.geojson").read_bytes()


def test_copies_keep_everything():
    result = detections(path="a.png", pixel_size=PixelSize(0.5, 0.5))
    for other in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result), copy.copy(result)):
        assert type(other) is Detections and other.class_names == NAMES and other.path == "a.png"
        assert (
            other.pixel_size == PixelSize(0.5, 0.5) and other["scores"].tolist() == result["scores"].tolist()
        )


def test_names():
    assert [detections().name_of(number) for number in (1, -2, 7)] == ["leaf", "nut", "class 7"]


def test_errors():
    result = detections()
    with pytest.raises(ValueError, match="one entry per object"):
        Detections(result["rois"], result["class_ids"][:1], result["scores"], result["masks"])
    with pytest.raises(ValueError, match="`shape` is required"):
        Detections(result["rois"][:0], result["class_ids"][:0], result["scores"][:0], [])
    with pytest.raises(ValueError, match=r"Cannot tell the format from the suffix of a\.json. Pass `format`"):
        result.save("a.json")
    with pytest.raises(ValueError, match="`format` must be one of"):
        result.save("a.json", "voc")
    for kind in ("coco", "labelme"):
        with pytest.raises(ValueError, match=rf"a\.json would name no image: .*'{kind}'.*result\.path = "):
            result.save("a.json", kind)
    with pytest.raises(ValueError, match=r"`image`.*overlay|overlay.*`image`"):
        result.save("a.png", "overlay")
    with pytest.raises(ValueError, match=r"must have the \(height, width\) of the masks"):
        result.save("a.png", "overlay", image=np.zeros((5, 5, 3), np.uint8))


@pytest.mark.parametrize("name", ["a.geojson", "a.zip", "a.txt"])
def test_a_negative_tolerance(name, tmp_path):
    with pytest.raises(ValueError, match=r"`tolerance` must be at least 0. Received: tolerance=-1"):
        detections().save(tmp_path / name, tolerance=-1)
    assert not (tmp_path / name).exists()


def test_files_that_name_their_image_can_be_read(tmp_path):
    result = detections()
    result.path = files.write_picture(tmp_path / "a.png")
    coco, labelme = formats.CocoDataset(), formats.LabelMeDataset()
    coco.load(result.save(tmp_path / "coco.json", "coco"))
    labelme.load(result.save(tmp_path / "shapes" / "a.json", "labelme").parent)
    assert coco.problems.counts == labelme.problems.counts == {}


def test_measurements_are_those_of_scikit_image():
    image = files.picture()
    columns = measure(detections(pixel_size=PixelSize(0.5, 0.25)), image)
    for index, mask in enumerate(files.masks()):
        (expected,) = regionprops(mask.astype(np.uint8), image)
        assert columns["area_px"][index] == expected.area == mask.sum()
        assert columns["perimeter_px"][index] == pytest.approx(expected.perimeter)
        assert columns["centroid_y_px"][index] == pytest.approx(expected.centroid[0])
        assert columns["centroid_x_px"][index] == pytest.approx(expected.centroid[1])
        assert columns["mean_intensity_2"][index] == pytest.approx(expected.intensity_mean[2])
        assert columns["area_um2"][index] == pytest.approx(expected.area * 0.125)
        assert columns["centroid_x_um"][index] == pytest.approx(expected.centroid[1] * 0.25)
        assert np.isnan(columns["perimeter_um"][index])  # pixels that are not square
    assert columns["class"] == ["leaf", "nut"]
    square = measure(detections(pixel_size=PixelSize(0.5, 0.5, "mm")))
    assert square["perimeter_mm"][0] == pytest.approx(square["perimeter_px"][0] / 2)
    assert measure(detections(), image[..., 0])["mean_intensity"][0] == pytest.approx(
        image[..., 0][files.masks()[0]].mean()
    )


def test_an_object_without_a_pixel_has_a_row(tmp_path):
    result = detections(path=tmp_path / "a.png")
    result["masks"][..., 1] = False
    columns = measure(result, files.picture())
    assert columns["area_px"][1] == 0 and np.isnan(columns["mean_intensity_0"][1])
    for name in ("a.geojson", "a.zip", "a.txt", "a.png", "a.csv"):
        result.save(tmp_path / name)
    result.save(tmp_path / "a.json", "labelme")
    assert len(result.to_coco()["annotations"]) == 1


def test_csv(tmp_path):
    with open(detections().save(tmp_path / "a.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["leaf", "nut"] and rows[1]["score"] == "0.75"
    assert (rows[0]["y1"], rows[0]["x2"]) == ("8", "40")


def test_to_dataframe():
    pandas = pytest.importorskip("pandas")
    frame = detections().to_dataframe(files.picture())
    assert isinstance(frame, pandas.DataFrame) and frame["class"].tolist() == ["leaf", "nut"]


def test_to_supervision():
    pytest.importorskip("supervision")
    result = detections()
    other = result.to_supervision()
    np.testing.assert_array_equal(other.xyxy[0], [10, 8, 40, 30])
    np.testing.assert_array_equal(other.mask, files.masks())
    assert other.class_id.tolist() == [1, 2] and list(other.data["class_name"]) == ["leaf", "nut"]
    np.testing.assert_array_equal(other.confidence, result["scores"])
    assert len(result.select(np.zeros(2, bool)).to_supervision()) == 0


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r'need the package pandas.*pip install "keras-mrcnn\[results\]"'):
        detections().to_dataframe()


def test_the_import_loads_no_framework():
    code = "import mrcnn.results, sys; print(*sys.modules)"
    names = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"keras", "tensorflow", "torch", "jax", "shapely", "pandas", "matplotlib"} & set(names)
