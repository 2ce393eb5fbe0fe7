"""Label images, COCO results and counts of a folder and of a zip file."""

import csv
import functools
import gc
import io
import json
import os
import struct
import threading
import warnings
import weakref
import zipfile
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image
from pycocotools import mask as run_lengths

from mrcnn.errors import CappedWarning, InvalidDataError, MissingFileError
from mrcnn.formats import CocoDataset, LabelImageDataset, LabelMeDataset, predictions
from mrcnn.results.labels import shortened
from mrcnn.results.overlays import SIDE
from mrcnn.threads import default_threads, in_order

SIZE = (30, 40)


def png(value):
    file = io.BytesIO()
    Image.fromarray(np.full((*SIZE, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def detect(images):
    """Three overlapping squares by descending score, and one that is not sure."""
    masks = np.zeros((*SIZE, 4), bool)
    masks[2:12, 2:12, 0] = masks[2:12, 8:18, 1] = masks[4:8, 4:8, 2] = masks[20:28, 20:28, 3] = True
    rois = np.array([[2, 2, 12, 12], [2, 8, 12, 18], [4, 4, 8, 8], [20, 20, 28, 28]])
    found = {
        "rois": rois,
        "class_ids": np.ones(4, int),
        "scores": np.array([0.9, 0.8, 0.7, 0.2]),
        "masks": masks,
    }
    if images[0].max() < 128:
        found = {name: value[..., :0] if name == "masks" else value[:0] for name, value in found.items()}
    return [found]


@pytest.fixture(params=["folder", "zip"])
def pictures(request, tmp_path):
    """A bright and a dark picture, and one that is none."""
    content = {"images/b.png": png(200), "images/a.png": png(10), "images/broken.png": b"none"}
    if request.param == "zip":
        with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
        return tmp_path / "in.zip"
    (tmp_path / "in" / "images").mkdir(parents=True)
    for name, data in content.items():
        (tmp_path / "in" / name).write_bytes(data)
    return tmp_path / "in"


def test_what_is_written(pictures, tmp_path, caplog, capsys):
    output = tmp_path / "new" / "out"
    counts = predictions.write_predictions(detect, pictures, output, {1: "cell"}, min_score=0.5)
    assert counts == {"a": 0, "b": 2}  # the third square lies under the first
    assert "broken.png" in caplog.text and "1 of 3 images" in caplog.text
    assert "2 images, 2 instances (cell)" in capsys.readouterr().out

    labels = np.asarray(Image.open(output / "labels" / "b.png"))
    assert labels.dtype == np.uint16 and labels.shape == SIZE
    assert labels[5, 5] == labels[5, 10] == 1 and labels[5, 15] == 2 and labels.max() == 2
    assert not np.asarray(Image.open(output / "labels" / "a.png")).any()
    records = json.loads((output / "detections.json").read_text())
    assert [record["score"] for record in records] == [0.9, 0.8, 0.7]
    assert {record["image_id"] for record in records} == {2}
    assert all(record["file_name"].endswith("b.png") for record in records)
    assert records[1]["bbox"] == [8.0, 2.0, 10.0, 10.0]
    assert run_lengths.area(records[1]["segmentation"]) == 100
    rows = list(csv.reader((output / "counts.csv").read_text().splitlines()))
    assert rows == [["image", "instances"], ["a", "0"], ["b", "2"]]
    assert not list(output.rglob("*.part"))


def test_a_single_picture_and_its_overlay(tmp_path):
    (tmp_path / "b.png").write_bytes(png(200))
    output = tmp_path / "out"
    counts = predictions.write_predictions(
        detect, tmp_path / "b.png", output, {1: "cell"}, verbose=0, overlays=True
    )
    assert counts == {"b": 2}
    overlay = np.asarray(Image.open(output / "overlays" / "b.png"))
    scale = SIDE // max(SIZE)
    assert overlay.shape == (SIZE[0] * scale, SIZE[1] * scale, 3)
    untouched = (overlay == 200).all(axis=-1)[::scale, ::scale]
    assert untouched[15:18].all() and not untouched[3:11, 3:17].any()


def test_turned_as_viewers_show_it(tmp_path):
    stored = np.full((SIZE[1], SIZE[0], 3), 200, np.uint8)
    stored[:8] = 10  # shown on the right
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn to the right
    Image.fromarray(stored).save(tmp_path / "b.jpg", exif=exif, quality=95)
    seen = []

    def look(images):
        seen.extend(images)
        return detect(images)

    counts = predictions.write_predictions(look, tmp_path / "b.jpg", tmp_path, {1: "cell"}, verbose=0)
    assert seen[0].shape == (*SIZE, 3) and seen[0][:, :30].min() > 150 and seen[0][:, 34:].max() < 60
    assert counts == {"b": 2} and Image.open(tmp_path / "labels" / "b.png").size == SIZE[::-1]


def test_written_labels_can_be_read_as_truth(pictures, tmp_path):
    output = tmp_path / "out"
    predictions.write_predictions(detect, pictures, output, {1: "cell"}, verbose=0)
    (output / "images").mkdir()
    (output / "images" / "b.png").write_bytes(png(200))
    dataset = LabelImageDataset()
    dataset.load(output)
    dataset.prepare()
    masks, class_ids = dataset.load_mask(0)
    assert masks.shape == (*SIZE, 2) and class_ids.tolist() == [1, 1]


def test_written_annotations_are_a_dataset(pictures, tmp_path):
    """After corrections by hand one trains on them."""
    output = tmp_path / "out"
    predictions.write_predictions(detect, pictures, output, {1: "cell", 2: "none"}, verbose=0)
    for name in ("a", "b"):
        (output / "images").mkdir(exist_ok=True)
        (output / "images" / f"{name}.png").write_bytes(png(200))
    dataset = CocoDataset()
    dataset.load(output / "annotations.json")  # paths as in the source: images/a.png
    dataset.prepare()
    assert dataset.problems.counts == {} and dataset.class_names == ["BG", "cell", "none"]
    assert [info["path"].name for info in dataset.image_info] == ["a.png", "b.png"]
    assert [dataset.is_listed_as_empty(n) for n in range(2)] == [True, False]
    masks, class_ids = dataset.load_mask(1)
    expected = detect([np.full((*SIZE, 3), 200)])[0]["masks"][..., :3]
    assert np.array_equal(masks, expected) and class_ids.tolist() == [1, 1, 1]
    assert dataset.coco_annotations(1)[2]["area"] == 16
    content = json.loads((output / "annotations.json").read_text())
    assert [one["id"] for one in content["annotations"]] == [1, 2, 3]


def test_images_of_one_name_do_not_replace_each_other(tmp_path):
    for name in ("a.png", "a.PNG.png", "b.png"):
        (tmp_path / name).write_bytes(png(200))
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "a.jpg")
    counts = predictions.write_predictions(detect, tmp_path, tmp_path / "out", {1: "cell"}, verbose=0)
    assert counts == {"a.PNG": 2, "a.jpg": 0, "a.png": 2, "b": 2}
    names = ["a.PNG.png", "a.jpg.png", "a.png.png", "b.png"]
    assert sorted(path.name for path in (tmp_path / "out" / "labels").iterdir()) == names


def test_a_name_may_be_that_of_another_image_with_its_suffix(tmp_path):
    for name in ("a.png", "a.jpg", "a.png.tif"):
        Image.new("RGB", SIZE[::-1]).save(tmp_path / name)
    assert predictions.images_of(tmp_path) == (
        tmp_path,
        {"a.jpg": "a.jpg", "a.png": "a.png", "a.png.tif": "a.png.tif"},
    )


def test_an_archive_with_backslashes(tmp_path):
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as archive:
        for name in ("images\\a.png", "images\\b.png", "images\\b.tif"):
            info = zipfile.ZipInfo()
            info.filename = name
            archive.writestr(info, png(200))
    output = tmp_path / "out"
    counts = predictions.write_predictions(detect, tmp_path / "windows.zip", output, {1: "cell"}, verbose=0)
    assert counts == {"a": 2, "b.png": 2, "b.tif": 2}
    written = sorted(path.name for path in (output / "labels").iterdir())
    assert written == ["a.png", "b.png.png", "b.tif.png"]
    listed = json.loads((output / "annotations.json").read_text())["images"]
    assert [image["file_name"] for image in listed] == ["images/a.png", "images/b.png", "images/b.tif"]


def broken_pictures(folder):
    """Files that decoders stumble over in many ways, beside two good ones."""
    whole = png(200)
    stated = bytearray(whole)
    stated[16:24] = struct.pack(">II", 40000, 40000)
    stated[29:33] = struct.pack(">I", zlib.crc32(bytes(stated[12:29])))
    tiff = io.BytesIO()
    tifffile.imwrite(tiff, np.zeros((*SIZE, 3), np.uint8))
    content = {
        "a.png": whole,
        "bomb.png": bytes(stated),
        "cut.png": whole[:60],
        "empty.tif": b"",
        "html.jpg": b"<html>404</html>",
        "tiff8.tif": tiff.getvalue()[:8],
        "tiff60.tif": tiff.getvalue()[:60],
        "zero.gif": b"GIF89a",
        "zzz.png": whole,
    }
    folder.mkdir()
    for name, data in content.items():
        (folder / name).write_bytes(data)
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to("loop.png")
    return len(content)


def test_broken_images_are_left_out_and_the_rest_is_written(tmp_path, caplog):
    number = broken_pictures(tmp_path / "in")
    output = tmp_path / "out"
    counts = predictions.write_predictions(detect, tmp_path / "in", output, {1: "cell"}, verbose=0)
    assert counts == {"a": 2, "zzz": 2}
    assert f"{number} of {number + 2} images were left out" in caplog.text
    for name in (
        "bomb.png",
        "cut.png",
        "empty.tif",
        "html.jpg",
        "tiff8.tif",
        "zero.gif",
        "pipe.png",
        "loop.png",
    ):
        assert f"Left out {name} of" in caplog.text
    assert len(json.loads((output / "detections.json").read_text())) == 6
    assert (output / "counts.csv").read_text() == "image,instances\na,2\nzzz,2\n"


@pytest.mark.parametrize("error", [RuntimeError("no memory on the GPU"), KeyboardInterrupt()])
def test_an_error_of_the_model_ends_the_run_with_everything_written_so_far(error, tmp_path):
    def second_fails(images):
        if images[0].max() == 100:
            raise error
        return detect(images)

    for name, value in (("a", 200), ("b", 100), ("c", 200)):
        (tmp_path / f"{name}.png").write_bytes(png(value))
    with pytest.raises(type(error)):
        predictions.write_predictions(second_fails, tmp_path, tmp_path / "out", {1: "cell"}, verbose=0)
    assert (tmp_path / "out" / "counts.csv").read_text() == "image,instances\na,2\n"
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text())) == 3
    assert [path.name for path in (tmp_path / "out").rglob(".*")] == [".written"]


def test_a_damaged_zip_file_is_named(tmp_path):
    (tmp_path / "in.zip").write_bytes(b"PK\x05\x06" + bytes(17))
    with pytest.raises((InvalidDataError, OSError), match=r"in\.zip"):
        predictions.write_predictions(detect, tmp_path / "in.zip", tmp_path / "out", {1: "cell"})


def test_no_pictures(tmp_path):
    with pytest.raises(MissingFileError, match="nothing"):
        predictions.write_predictions(detect, tmp_path / "nothing", tmp_path, {1: "cell"})
    with pytest.raises(MissingFileError, match="There are no images here"):
        predictions.write_predictions(detect, tmp_path, tmp_path / "out", {1: "cell"})
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(ValueError, match=r"notes\.txt: The file must be a zip file, or an image"):
        predictions.write_predictions(detect, tmp_path / "notes.txt", tmp_path / "out", {1: "cell"})


@pytest.mark.parametrize("largest, dtype", [(65535, np.uint16), (65536, np.uint32)])
def test_large_numbers_of_objects_take_32_bits(largest, dtype):
    labels = shortened(np.array([[0, 7], [3, largest]]))
    assert labels.tolist() == [[0, 7], [3, largest]] and labels.dtype == dtype


class TestOverlap:
    """Reading, detecting and writing overlap."""

    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / "in").mkdir()
        for number in range(9):
            (tmp_path / "in" / f"{number}.png").write_bytes(png(200))
        (tmp_path / "in" / "4.png").write_bytes(b"none")
        return tmp_path / "in"

    def test_threads_read_ahead_and_write_behind(self, folder, tmp_path, monkeypatch):
        places = {"read": set(), "detect": set(), "write": []}
        read, add = predictions.read_image, predictions.ResultFolder.add

        def reading(*arguments, **options):
            places["read"].add(threading.current_thread())
            return read(*arguments, **options)

        def adding(self, result, name, **options):
            places["write"].append(name)
            assert threading.current_thread() is not threading.main_thread()
            add(self, result, name, **options)

        def detecting(images):
            places["detect"].add(threading.current_thread())
            return detect(images)

        monkeypatch.setattr(predictions, "read_image", reading)
        monkeypatch.setattr(predictions.ResultFolder, "add", adding)
        predictions.write_predictions(detecting, folder, tmp_path / "out", {1: "cell"}, verbose=0)
        assert places["detect"] == {threading.main_thread()} and not places["detect"] & places["read"]
        assert places["write"] == list("01235678")

    def test_a_stream(self, folder, tmp_path, caplog):
        """It takes functions that read, and may yield errors."""

        def stream(readers):
            for number, reader in enumerate(readers):
                try:
                    yield ValueError("not this one") if number == 2 else detect([reader()])[0]
                except OSError as error:
                    yield error

        counts = predictions.write_predictions(
            detect, folder, tmp_path / "out", {1: "cell"}, verbose=0, formats=["overlay"], stream=stream
        )
        assert list(counts) == list("0135678")
        assert "not this one" in caplog.text and "4.png" in caplog.text
        assert len(list((tmp_path / "out" / "overlays").iterdir())) == 7

    @pytest.mark.parametrize("place", ["detect", "write"])
    def test_an_error_ends_it_and_keeps_what_is_done(self, folder, tmp_path, monkeypatch, place):
        def fail():
            raise RuntimeError("no device left")

        add, calls = predictions.ResultFolder.add, []

        def adding(self, result, name, **options):
            if place == "write" and name == "3":
                fail()
            add(self, result, name, **options)

        def detecting(images):
            calls.append(images)
            if place == "detect" and len(calls) == 4:
                fail()
            return detect(images)

        monkeypatch.setattr(predictions.ResultFolder, "add", adding)
        with pytest.raises(RuntimeError, match="no device left"):
            predictions.write_predictions(detecting, folder, tmp_path / "out", {1: "cell"}, verbose=0)
        rows = list(csv.reader((tmp_path / "out" / "counts.csv").read_text().splitlines()))
        names = [name for name, _ in rows[1:]]
        assert names[:3] == list("012") and "3" not in names
        written = json.loads((tmp_path / "out" / "annotations.json").read_text())["images"]
        assert len(written) == len(names) < 8
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("in-order")]


@pytest.mark.parametrize("place", ["detect", "stream", "write"])
def test_images_that_cannot_be_used_are_freed(place, tmp_path, monkeypatch):
    """With formats that need the pixels, and without the garbage collector."""
    for number in range(40):
        (tmp_path / f"{number:02}.png").write_bytes(png(200))
    arrays, alive, read = [], [], predictions.read_image

    def reading(*arguments, **options):
        image = read(*arguments, **options)
        arrays.append(weakref.ref(image))
        return image

    def refusing(images):
        alive.append(sum(array() is not None for array in arrays))
        if place == "write":
            return detect(images)
        raise InvalidDataError("Five channels.") from ValueError("A cause.")

    def stream(readers):
        def caught(reader):
            try:
                return refusing([reader()])
            except ValueError as error:
                return error

        yield from in_order(caught, readers)

    def unreadable(path):
        raise OSError("The disk is gone.")

    monkeypatch.setattr(predictions, "read_image", reading)
    if place == "write":
        monkeypatch.setattr(predictions, "read_calibration", unreadable)
    write = functools.partial(
        predictions.write_predictions, refusing, tmp_path, tmp_path / "out", {1: "cell"}
    )
    gc.disable()
    try:
        counts = write(verbose=0, formats=["overlay"], stream=stream if place == "stream" else None)
    finally:
        gc.enable()
    assert counts == {} and len(arrays) == 40
    assert max(alive) <= 2 * default_threads() + 6


def full(images):
    """As many detections as the model allows, if the image is bright."""
    found = detect(images)
    if found[0]["rois"].size:
        warnings.warn("The image has DETECTION_MAX_INSTANCES=4 detections.", CappedWarning, stacklevel=2)
    return found


@pytest.mark.parametrize("streams", [False, True])
def test_images_whose_detections_are_cut_short_are_counted_and_named(streams, tmp_path):
    for name, value in (("a", 200), ("b", 10), ("c", 200), ("d", 200), ("e", 200)):
        (tmp_path / f"{name}.png").write_bytes(png(value))

    def stream(readers):
        for reader in readers:
            warnings.warn("Another warning.", UserWarning, stacklevel=2)
            yield full([reader()])[0]

    chosen = stream if streams else None
    with pytest.warns(UserWarning) as shown:
        predictions.write_predictions(full, tmp_path, tmp_path / "out", {1: "cell"}, verbose=0, stream=chosen)
    capped = [str(one.message) for one in shown if one.category is CappedWarning]
    assert len(capped) == 1
    assert capped[0].startswith("4 of 5 images have as many detections as DETECTION_MAX_INSTANCES allows")
    assert "missing: a.png, c.png, d.png and 1 more. Raise this setting" in capped[0]
    assert streams == any("Another warning." in str(one.message) for one in shown)


def test_several_images_of_any_folders(tmp_path):
    paths = [tmp_path / "in" / "b.png", tmp_path / "a.jpg", tmp_path / "a.png"]
    paths[0].parent.mkdir()
    for path in paths:
        path.write_bytes(png(200))
    output = tmp_path / "out"
    write = functools.partial(predictions.write_predictions, detect, output=output, class_names={1: "cell"})
    counts = write(source=paths, verbose=0, formats=["coco", "labelme"])
    assert counts == {"a.jpg": 2, "a.png": 2, "b": 2}
    images = json.loads((output / "annotations.json").read_text())["images"]
    assert [image["file_name"] for image in images] == ["a.jpg", "a.png", "b.png"]
    written = json.loads((output / "labelme" / "b.json").read_text())
    assert written["imagePath"] == "../../in/b.png"


@pytest.mark.parametrize(
    "names, message",
    [
        ([], "at least one image"),
        (["a.png", "x/a.png"], r"Two images are named a\.png"),
        (["B.png", "c.png", "x/b.PNG"], r"Two images are named b\.PNG"),
        (["a.png", "x"], r"must be image files with one of the suffixes .*Received: .*x\."),
        (["a.png", "notes.txt"], r"Received: .*notes\.txt\. Leave it out"),
    ],
)
def test_several_sources_must_be_images_of_different_names(names, message, tmp_path):
    (tmp_path / "x").mkdir()
    paths = [tmp_path / name for name in names]
    with pytest.raises(ValueError, match=message):
        predictions.write_predictions(detect, paths, tmp_path / "out", {1: "cell"})
    assert not (tmp_path / "out").exists()


def test_labelme_files_of_an_archive_need_a_copy_of_the_images(tmp_path):
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr("a.png", png(200))
    write = functools.partial(
        predictions.write_predictions, detect, tmp_path / "in.zip", tmp_path / "out", {1: "cell"}, verbose=0
    )
    with pytest.raises(InvalidDataError, match=r"in\.zip.*--copy-images"):
        write(formats=["labelme"])
    assert not (tmp_path / "out").exists()
    write(formats=["labelme"], copy_images=True)
    assert (tmp_path / "out" / "images" / "a.png").is_file()


def test_an_image_whose_copy_would_replace_another_one_is_left_out(tmp_path, caplog):
    for folder, grays in (("first", {"a": 200}), ("second", {"a": 90, "b": 200})):
        (tmp_path / folder).mkdir()
        for name, gray in grays.items():
            (tmp_path / folder / f"{name}.png").write_bytes(png(gray))
        counts = predictions.write_predictions(
            detect, tmp_path / folder, tmp_path / "out", {1: "cell"}, copy_images=True, verbose=0
        )
    assert list(counts) == ["b"]
    assert (tmp_path / "out/images/a.png").read_bytes() == png(200)
    assert "Left out a.png" in caplog.text and "another image of the same name" in caplog.text


def test_labelme_files_name_the_link_of_an_image(tmp_path):
    """What the link points to may lie outside the folder that the reader allows."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "x1.png").write_bytes(png(200))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").symlink_to(tmp_path / "raw" / "x1.png")
    output = tmp_path / "out"
    predictions.write_predictions(
        detect, tmp_path / "in", output, {1: "cell"}, verbose=0, formats=["labelme"]
    )
    assert json.loads((output / "labelme" / "a.json").read_text())["imagePath"] == "../../in/a.png"
    dataset = LabelMeDataset()
    dataset.load(output / "labelme", within=tmp_path / "in")
    assert dataset.problems.counts == {}
    assert [info["path"] for info in dataset.image_info] == [tmp_path / "in" / "a.png"]


def test_images_with_long_names(tmp_path):
    """255 bytes are the longest."""
    names = ["細胞" * 40, "x" * 251]
    (tmp_path / "in").mkdir()
    for name in names:
        (tmp_path / "in" / f"{name}.png").write_bytes(png(200))
    counts = predictions.write_predictions(
        detect, tmp_path / "in", tmp_path / "out", {1: "cell"}, overlays=True, copy_images=True, verbose=0
    )
    assert set(counts) == set(names)
    for folder in ("labels", "images", "overlays"):
        assert {path.stem for path in (tmp_path / "out" / folder).iterdir()} == set(names)
