"""A folder of results: what it must not replace, images of one name, crowds."""

import csv
import os

import numpy as np
import pytest

from mrcnn.files.calibration import PixelSize, read_calibration
from mrcnn.results import labels
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


def test_a_run_may_be_killed_while_it_finishes(tmp_path, monkeypatch):
    for _ in range(2):
        killed = ResultFolder(tmp_path, NAMES, ["coco", "csv"])
        killed.add(one_cell(), "a", file_name="a.png")
        monkeypatch.setattr(killed, "_table", None)
        with pytest.raises(csv.Error):
            killed.finish()
        assert (tmp_path / "annotations.json").exists() and not (tmp_path / "counts.csv").exists()
    write(tmp_path, "coco")


def test_corrections_stay_when_a_run_of_another_format_was_killed(tmp_path):
    write(tmp_path, "labels")
    later = os.stat(tmp_path / "counts.csv").st_mtime_ns + 10**9
    os.utime(tmp_path / FILES["labels"], ns=(later, later))
    killed = ResultFolder(tmp_path, NAMES, ["geojson"])
    killed.add(one_cell(), "a", file_name="a.png")
    later += 10**9
    os.utime(tmp_path / ".unfinished", ns=(later, later))
    write(tmp_path, "geojson")
    killed = ResultFolder(tmp_path, NAMES, ["geojson"])
    killed.add(one_cell(), "a", file_name="a.png")
    os.utime(tmp_path / FILES["labels"], ns=(2 * later, 2 * later))
    with pytest.raises(FileExistsError, match=r"a\.png may have been corrected"):
        write(tmp_path, "labels")


class KilledAtTheEnd(dict):
    def __setitem__(self, name, count):
        raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["labels", "tiff", "labelme", "yolo", "geojson", "imagej"])
@pytest.mark.parametrize("in_second", [False, True])
def test_a_killed_run_starts_again_but_corrections_stay(tmp_path, kind, in_second):
    killed = ResultFolder(tmp_path, NAMES, [kind])
    killed.add(one_cell(), "a", file_name="a.png")
    if in_second:  # after its files, before the folder knows that they are complete
        killed.counts = KilledAtTheEnd(killed.counts)
        with pytest.raises(KeyboardInterrupt):
            killed.add(one_cell(), "b", file_name="b.png")
        assert (tmp_path / FILES[kind].replace("a.", "b.")).exists()
    write(tmp_path, kind)
    assert not (tmp_path / ".unfinished").exists()

    killed = ResultFolder(tmp_path, NAMES, [kind])
    killed.add(one_cell(), "a", file_name="a.png")
    later = os.stat(tmp_path / ".unfinished").st_mtime_ns + 10**9
    os.utime(tmp_path / FILES[kind], ns=(later, later))
    with pytest.raises(FileExistsError, match="corrected"):
        write(tmp_path, kind)


@pytest.mark.parametrize("unit", ["um", "mm", "in", "pixel"])
def test_label_images_of_32_bits_have_the_size_of_a_pixel(tmp_path, unit):
    size = PixelSize(0.5, 0.25, unit)
    labels.write_labels(np.ones((4, 4), np.uint32), tmp_path / "a.tif", size)
    large = one_cell()
    large.pixel_size = size
    labels.write_label_blocks(large, tmp_path / "b.tif")
    for name in ("a.tif", "b.tif"):
        found = read_calibration(tmp_path / name).pixel_size
        if unit == "pixel":
            assert found is None
        else:
            micrometers = {"um": 1, "mm": 1000, "in": 25400}[unit]
            assert (found.height, found.width, found.unit) == (
                pytest.approx(0.5 * micrometers, rel=1e-4),
                pytest.approx(0.25 * micrometers, rel=1e-4),
                "um",
            )


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
