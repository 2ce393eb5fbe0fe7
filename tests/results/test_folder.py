"""A folder of results: what it must not replace, images of one name, crowds."""

import contextlib
import csv
import io
import json
import os
import shutil
import time

import numpy as np
import pytest

from mrcnn.files import atomic_write
from mrcnn.files.calibration import PixelSize, read_calibration
from mrcnn.files.images import read_labels
from mrcnn.results import imagej, labels
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


def corrected(file, later=1):
    """Change a file some seconds after it was written."""
    changed = os.stat(file).st_mtime_ns + later * 10**9
    file.write_bytes(b"corrected")
    os.utime(file, ns=(changed, changed))
    return file


def of_an_earlier_version(folder):
    (folder / ".written").unlink()


@pytest.mark.parametrize("is_large", [True, False])
def test_label_images_that_are_tiff_files_are_not_replaced(tmp_path, monkeypatch, is_large):
    """Those of large images and of many objects are, whatever the format."""
    monkeypatch.setattr(labels, "is_large", lambda result: is_large)
    monkeypatch.setattr(labels, "LARGEST_SHORT", 0)
    write(tmp_path, "labels")
    file = corrected(tmp_path / "labels" / "a.tif")
    for change in (lambda folder: None, of_an_earlier_version):
        change(tmp_path)
        with pytest.raises(FileExistsError, match=r"a\.tif may have been corrected"):
            write(tmp_path, "labels")
    assert file.read_bytes() == b"corrected"


@pytest.mark.parametrize("kind", FILES)
def test_corrections_stay_when_somebody_saves_the_table_of_counts(tmp_path, kind):
    write(tmp_path, kind)
    file = corrected(tmp_path / FILES[kind])
    corrected(tmp_path / "counts.csv", later=10)
    with pytest.raises(FileExistsError, match="corrected"):
        write(tmp_path, kind)
    (tmp_path / "counts.csv").unlink()
    with pytest.raises(FileExistsError, match="corrected"):
        write(tmp_path, kind)
    assert file.read_bytes() == b"corrected"


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_copy_that_loses_the_times_of_files_counts_as_corrected(tmp_path, seconds):
    write(tmp_path, "labels")
    copied = os.stat(tmp_path / FILES["labels"]).st_mtime_ns + seconds * 10**9
    for path in tmp_path.rglob("*"):
        os.utime(path, ns=(copied, copied))
    with pytest.raises(FileExistsError, match="a copy has changed the times"):
        write(tmp_path, "labels")


@pytest.mark.parametrize("up", [0, 1])
def test_a_copy_that_rounds_the_times_of_files_does_not(tmp_path, up):
    write(tmp_path, "labels")
    for path in tmp_path.rglob("*"):
        even = (os.stat(path).st_mtime_ns // (2 * 10**9) + up) * 2 * 10**9
        os.utime(path, ns=(even, even))
    write(tmp_path, "labels")


def test_files_of_macos_are_no_corrections(tmp_path):
    write(tmp_path, "labels")
    (tmp_path / "labels" / "._a.png").write_bytes(b"attributes")
    write(tmp_path, "labels")


def test_temporary_files_of_a_killed_run_are_no_corrections(tmp_path):
    write(tmp_path, "labels")
    with contextlib.suppress(KeyboardInterrupt), atomic_write(tmp_path / "labels/b.png") as temporary:
        temporary.write_bytes(b"half")
        shutil.copyfile(temporary, tmp_path / "copy")
        raise KeyboardInterrupt
    shutil.copyfile(tmp_path / "copy", temporary)
    write(tmp_path, "labels")


@pytest.mark.parametrize("drawn", [True, False])
def test_corrections_stay_after_a_run_of_another_format(tmp_path, drawn):
    if drawn:
        (tmp_path / "labels").mkdir()
        (tmp_path / "labels" / "a.png").write_bytes(b"drawn by hand")
    else:
        write(tmp_path, "labels")
        corrected(tmp_path / FILES["labels"])
    os.utime(tmp_path / FILES["labels"], (1, 1))  # long before the next run
    for _ in range(2):
        write(tmp_path, "csv")
        write(tmp_path, "geojson")
    with pytest.raises(FileExistsError, match=r"a\.png may have been corrected"):
        write(tmp_path, "labels")


def test_corrections_stay_after_a_run_of_other_images_replaces_some(tmp_path):
    write(tmp_path, "labels")
    corrected(tmp_path / FILES["labels"])
    results = ResultFolder(tmp_path, NAMES, ["labels"], overwrite=True)
    results.add(one_cell(), "b", file_name="b.png")
    results.finish()
    corrected(tmp_path / "counts.csv", later=10)
    with pytest.raises(FileExistsError, match=r"labels/a\.png may have"):
        write(tmp_path, "labels")


@pytest.mark.parametrize("is_killed", [False, True])
def test_corrections_stay_that_somebody_makes_during_a_run(tmp_path, is_killed):
    results = ResultFolder(tmp_path, NAMES, ["labels"])
    results.add(one_cell(), "a", file_name="a.png")
    time.sleep(0.05)
    (tmp_path / FILES["labels"]).write_bytes(b"corrected")
    time.sleep(0.05)
    results.add(one_cell(), "b", file_name="b.png")
    if not is_killed:
        results.finish()
    with pytest.raises(FileExistsError, match=r"labels/a\.png may have"):
        write(tmp_path, "labels")


@pytest.mark.parametrize("kind", FILES)
def test_folders_of_earlier_versions(tmp_path, kind):
    """They have no notes: what is newer than the table of counts was corrected."""
    write(tmp_path, kind)
    of_an_earlier_version(tmp_path)
    write(tmp_path, kind)
    of_an_earlier_version(tmp_path)
    later = os.stat(tmp_path / "counts.csv").st_mtime_ns + 10**9
    os.utime(tmp_path / FILES[kind], ns=(later, later))
    for _ in range(2):
        with pytest.raises(FileExistsError, match="corrected"):
            write(tmp_path, kind)
        write(tmp_path, "csv")
    write(tmp_path, kind, overwrite=True)


@pytest.mark.parametrize("kind", ["labels", "geojson"])
def test_a_killed_run_of_an_earlier_version_starts_again(tmp_path, kind):
    """It has noted its formats, and the files that it was writing."""
    write(tmp_path, kind)
    for name in (".written", "counts.csv"):
        (tmp_path / name).unlink()
    started = os.stat(tmp_path / FILES[kind]).st_mtime_ns
    marker = tmp_path / ".unfinished"
    marker.write_text(json.dumps({"formats": [kind], "files": []}))
    os.utime(marker, ns=(started, started))
    write(tmp_path, kind)  # all files are older
    (tmp_path / ".written").unlink()
    (tmp_path / "counts.csv").unlink()
    started = os.stat(tmp_path / FILES[kind]).st_mtime_ns - 10**9
    for names, is_corrected in (([], True), (["labels/a.png", "geojson/a.geojson"], False)):
        marker.write_text(json.dumps({"formats": [kind], "files": names}))
        os.utime(marker, ns=(started, started))
        if is_corrected:
            with pytest.raises(FileExistsError, match="corrected"):
                write(tmp_path, kind)
    write(tmp_path, "csv")  # another run does not forget it
    write(tmp_path, kind)


@pytest.mark.parametrize("content", ["", "[]", '{"files": 3, "before": {}}', "{}"])
def test_with_damaged_notes_nothing_is_replaced(tmp_path, content):
    write(tmp_path, "labels")
    (tmp_path / ".written").write_text(content)
    with pytest.raises(FileExistsError, match="corrected"):
        write(tmp_path, "labels")


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
    (tmp_path / ".unfinished").open("a").write('{"wri')  # killed while it noted a file
    write(tmp_path, kind)
    assert not (tmp_path / ".unfinished").exists()

    killed = ResultFolder(tmp_path, NAMES, [kind])
    killed.add(one_cell(), "a", file_name="a.png")
    later = os.stat(tmp_path / ".unfinished").st_mtime_ns + 10**9
    os.utime(tmp_path / FILES[kind], ns=(later, later))
    with pytest.raises(FileExistsError, match="corrected"):
        write(tmp_path, kind)


@pytest.mark.parametrize("kind", ["labels", "geojson"])
def test_a_run_may_be_killed_before_it_notes_a_file(tmp_path, kind):
    killed = ResultFolder(tmp_path, NAMES, [kind])
    killed.add(one_cell(), "a", file_name="a.png")
    notes = (tmp_path / ".unfinished").read_text().splitlines()
    assert "written" in notes.pop()
    (tmp_path / ".unfinished").write_text("\n".join(notes) + "\n")
    write(tmp_path, kind)


@pytest.mark.parametrize("is_large", [True, False])
@pytest.mark.parametrize("is_killed", [True, False])
def test_a_run_that_takes_minutes_for_a_file_starts_again(tmp_path, monkeypatch, is_large, is_killed):
    """It ends while it writes the last file. Those before are minutes newer than its first note."""
    folder, state = tmp_path / "run", tmp_path / "state"
    formats = ["labels", "tiff", "imagej", "geojson"]

    def in_minutes(write):
        def slow(content, path, *rest):
            written = write(content, path, *rest) or path
            later = os.stat(written).st_mtime_ns + 300 * 10**9
            os.utime(written, ns=(later, later))

        return slow

    def end(result, tolerance):
        shutil.copytree(folder, state)  # what a killed run leaves
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(labels, "is_large", lambda result: is_large)
        for module, name in (
            (labels, "write_label_blocks"),
            (labels, "write_labels"),
            (imagej, "write_rois"),
        ):
            patch.setattr(module, name, in_minutes(getattr(module, name)))
        patch.setattr(Detections, "to_geojson", end)
        with pytest.raises(KeyboardInterrupt):
            ResultFolder(folder, NAMES, formats).add(one_cell(), "a", file_name="a.png")
    ended = state if is_killed else folder
    names = {"a.tif", "a.zip"} if is_large else {"a.png", "a.tif", "a.zip"}
    assert {path.name for path in ended.rglob("a.*")} == names
    ResultFolder(ended, NAMES, formats)
    corrected(ended / "labels/a.tif")
    with pytest.raises(FileExistsError, match=r"a\.tif may have been corrected"):
        ResultFolder(ended, NAMES, formats)


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


@pytest.mark.parametrize("unit, name", [("Å", "angstrom"), ("µm", "um"), ("mm", "mm"), ("毫米", None)])
def test_label_images_of_16_bits_have_the_size_of_a_pixel(tmp_path, unit, name):
    labels.write_labels(np.ones((4, 4), np.uint16), tmp_path / "a.tif", PixelSize(0.5, 0.25, unit))
    found = read_calibration(tmp_path / "a.tif").pixel_size
    if name is None:
        assert found is None
    else:
        assert (found.height, found.width, found.unit) == (0.5, 0.25, name)


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


@pytest.mark.parametrize("class_ids", [[1, 1, 1], [-1, 1, 1]])
def test_label_images_and_measurements_number_objects_alike(tmp_path, class_ids):
    masks = np.zeros((20, 20, 3), bool)
    masks[2:8, 2:8, :2] = True  # the second object is covered by a better one, or lies in a crowd
    masks[10:15, 10:18, 2] = True
    boxes, names = np.array([[2, 2, 8, 8], [2, 2, 8, 8], [10, 10, 15, 18]]), ["BG", "cell"]
    scores = None if class_ids[0] < 0 else np.array([0.9, 0.8, 0.7])
    result = Detections(boxes, np.array(class_ids), scores, masks, class_names=names, path="a.png")
    results = ResultFolder(tmp_path, NAMES, ["labels", "csv"])
    results.add(result, "a", file_name="a.png")
    results.finish()
    with open(tmp_path / "measurements.csv") as file:
        areas = {int(row["object"]): float(row["area_px"]) for row in csv.DictReader(file)}
    values, counts = np.unique(read_labels(tmp_path / "labels/a.png"), return_counts=True)
    drawn = dict(zip(values.tolist(), counts.tolist(), strict=True))
    assert drawn.pop(0) == 400 - 36 - 40
    assert drawn == ({2: 36, 3: 40} if class_ids[0] < 0 else {1: 36, 3: 40})
    assert all(areas[number] == count for number, count in drawn.items())
    assert results.counts == {"a": 2}


@pytest.mark.parametrize("is_stream", [False, True])
def test_copies_do_not_replace_other_images(tmp_path, is_stream):
    def copy(data, **options):
        (tmp_path / "a.png").write_bytes(data)
        content = io.BytesIO(data) if is_stream else tmp_path / "a.png"
        results = ResultFolder(tmp_path / "out", NAMES, ["csv"], copy_images=True, **options)
        results.add(one_cell(), "a", file_name="a.png", content=content)

    target = tmp_path / "out/images/a.png"
    copy(b"one")
    copy(b"one")
    with pytest.raises(FileExistsError, match=r"images.a\.png is another image.*overwrite=True"):
        copy(b"two")
    assert target.read_bytes() == b"one"
    copy(b"two", overwrite=True)
    assert target.read_bytes() == b"two"


def test_a_run_without_images_keeps_annotations_drawn_by_hand(tmp_path):
    (tmp_path / "annotations.json").write_text("drawn")
    ResultFolder(tmp_path, NAMES, ["coco"], overwrite=True).finish()
    assert (tmp_path / "annotations.json").read_text() == "drawn"
