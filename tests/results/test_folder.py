"""A folder of results: what it must not replace, images of one name, crowds."""

import os

import numpy as np
import pytest

from mrcnn.results.detections import Detections
from mrcnn.results.folder import ResultFolder

NAMES = {1: "cell"}
FILES = {
    "labels": "labels/a.png",
    "tiff": "labels/a.tif",
    "coco": "annotations.json",
    "labelme": "labelme/a.json",
    "yolo": "labels/a.txt",
    "geojson": "geojson/a.geojson",
    "imagej": "rois/a.zip",
}


def one_cell(class_id=1):
    masks = np.zeros((20, 20, 1), bool)
    masks[4:12, 4:12] = True
    boxes, names = np.array([[4, 4, 12, 12]]), ["BG", "cell"]
    return Detections(boxes, np.array([class_id]), None, masks, class_names=names, path="a.png")


def write(folder, kind, **options):
    results = ResultFolder(folder, NAMES, [kind], **options)
    results.add(one_cell(), "a", file_name="a.png")
    results.finish()


@pytest.mark.parametrize("kind", FILES)
def test_corrections_are_not_replaced(tmp_path, kind):
    write(tmp_path, kind)
    write(tmp_path, kind)  # its own results are
    file = tmp_path / FILES[kind]
    later = os.stat(tmp_path / "counts.csv").st_mtime_ns + 10**9
    file.write_bytes(b"corrected")
    os.utime(file, ns=(later, later))
    with pytest.raises(FileExistsError, match=rf"{file.name}.*corrected.*overwrite=True"):
        write(tmp_path, kind)
    assert file.read_bytes() == b"corrected"
    write(tmp_path, kind, overwrite=True)
    assert file.read_bytes() != b"corrected"


def test_annotations_that_no_run_wrote_are_not_replaced(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.png").write_bytes(b"drawn by hand")
    with pytest.raises(FileExistsError, match="drawn by hand"):
        write(tmp_path, "labels")
    write(tmp_path, "geojson")  # touches none of them


def test_a_run_without_images_keeps_the_files_of_the_last_one(tmp_path):
    write(tmp_path, "coco")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    ResultFolder(tmp_path, NAMES, ["coco", "csv"]).finish()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_two_images_of_one_name_are_refused(tmp_path):
    results = ResultFolder(tmp_path, NAMES, ["labels"])
    results.add(one_cell(), "a", file_name="x/a.png")
    with pytest.raises(ValueError, match="Received twice: name='a'"):
        results.add(one_cell(), "a", file_name="y/a.png")


@pytest.mark.parametrize("kind", FILES)
def test_crowds_are_neither_objects_nor_background(tmp_path, kind):
    """Only COCO can express them. An empty file would say that there is nothing in the image."""
    results = ResultFolder(tmp_path, NAMES, [kind])
    results.add(one_cell(class_id=-1), "a", file_name="a.png")
    results.finish()
    assert (tmp_path / FILES[kind]).exists() == (kind == "coco")
    assert results.counts == {"a": 0}
