"""Detection with two workers of a local Ray: results of `detect`, broken images, resume."""

import functools
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("ray")

import pyarrow
import tifffile
from PIL import Image

import mrcnn
from mrcnn import scale
from mrcnn.errors import InvalidDataError, MissingFileError
from mrcnn.geometry import rle
from mrcnn.results import Detections
from mrcnn.scale import detecting, locations, tables
from mrcnn.scale.identity import describe
from mrcnn.scale.worker import Worker

SIDE = 96


def write_images(folder, count, broken=()):
    """Write images of bright disks on dark ground, in two subfolders; some of the files are cut off."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for index in range(count):
        pixels = np.full((SIDE, SIDE, 3), 20, np.uint8)
        for y, x in rng.integers(12, SIDE - 12, (3, 2)):
            pixels[(rows - y) ** 2 + (columns - x) ** 2 < 64] = 200
        path = folder / f"{'ab'[index % 2]}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        if index in broken:
            path.write_bytes(path.read_bytes()[:40])
    return folder


def result(count=2):
    masks = np.zeros((20, 30, count), bool)
    for index in range(count):
        masks[2 : 8 + index, 4:9, index] = True
    boxes = np.array([[2, 4, 8 + index, 9] for index in range(count)], np.int32).reshape(-1, 4)
    scores = np.linspace(0.9, 0.5, count).astype(np.float32)
    return Detections(boxes, np.full(count, 2, np.int32), scores, masks, class_names=["background", "a", "b"])


@pytest.mark.parametrize("count", [0, 2])
def test_rows_hold_the_whole_result(count, tmp_path):
    written = result(count)
    tables.write_rows(str(tmp_path), ["x/y.png"], [tables.row_of("x/y.png", written)], "model")
    (read,) = scale.read_results(tmp_path)
    assert read.path == "x/y.png" and read.shape == (20, 30)
    for name in ("rois", "class_ids", "scores"):
        np.testing.assert_array_equal(read[name], written[name])
        assert read[name].dtype == written[name].dtype
    np.testing.assert_array_equal(read.mask_crops().whole(), written["masks"])
    assert [read.name_of(class_id) for class_id in read["class_ids"]] == ["b"] * count


def test_files_are_replaced_and_complete(tmp_path):
    row = tables.row_of_error("x.png", ValueError("no image"))
    for _ in range(2):
        tables.write_rows(str(tmp_path), ["x.png"], [row], "model")
    assert len(list(tmp_path.iterdir())) == 1
    assert scale.read_errors(tmp_path) == {"x.png": "no image"}
    done, left_out = tables.finished_paths(tmp_path, "model")
    assert not done and left_out.keys() == {"x.png"}
    with pytest.raises(ValueError, match="results of model, for other"):
        tables.finished_paths(tmp_path, "other")


def test_tables_without_sizes_of_errors_are_read(tmp_path):
    rows = [tables.row_of("a.png", result(2)), tables.row_of_error("b.png", ValueError("no image"), 9)]
    tables.write_rows(str(tmp_path), ["a.png", "b.png"], rows, "model")
    (path,) = tmp_path.iterdir()
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).drop_columns([tables.ERROR_SIZE]), path)
    (read,) = scale.read_results(tmp_path)
    assert read.path == "a.png" and read.count == 2
    done, left_out = tables.finished_paths(tmp_path, "model")
    assert done == {"a.png"} and left_out == {"b.png": tables.LeftOut(path.name, None)}
    tables.remove_rows(tmp_path, {"b.png"}, {path.name})
    assert tables.finished_paths(tmp_path, "model") == ({"a.png"}, {})


def test_damaged_and_foreign_files_are_named(tmp_path):
    path = tmp_path / "part-0.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(InvalidDataError, match=r"part-0\.parquet: the file is damaged"):
        scale.summarize(tmp_path)
    pyarrow.parquet.write_table(pyarrow.table({"x": [1]}), path)
    with pytest.raises(InvalidDataError, match="no columns"):
        scale.summarize(tmp_path)


def test_locations(tmp_path):
    write_images(tmp_path, 2)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_text("no image")
    for location in (tmp_path, str(tmp_path), tmp_path.as_uri()):
        assert locations.list_images(location) == ["a/0.png", "b/1.png"]
    with pytest.raises(MissingFileError, match="no such folder"):
        locations.list_images(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFileError, match="contains no images"):
        locations.list_images(tmp_path / "empty")


def test_addresses_of_fsspec():
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open("memory://photos/x.png", "wb") as stream:
        stream.write(b"1")
    assert locations.list_images("memory://photos") == ["x.png"]
    with pytest.raises(ValueError, match="No installed package"):
        locations.open_location("nothing://photos")


def test_errors_of_object_stores_leave_out_one_image(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    from fsspec.implementations.memory import MemoryFileSystem

    class ClientError(Exception):
        """Clients of object stores raise errors that derive from Exception alone."""

    class Store(MemoryFileSystem):
        protocol = "store"

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(path.replace("store://", "memory://"))

        def _open(self, path, *args, **kwargs):
            if path.endswith("a.png"):
                raise ClientError("status 403")
            return super()._open(path, *args, **kwargs)

    class Model:
        def detect(self, images, masks):
            return [result(0)]

    fsspec.register_implementation("store", Store, clobber=True)
    stream = io.BytesIO()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(stream, "png")
    for name in ("a.png", "b.png"):
        fsspec.filesystem("memory").pipe(f"/images/{name}", stream.getvalue())
    worker = Worker(Model, "store://images", str(tmp_path), "model", min_score=0.5)
    worker({"path": np.array(["a.png", "b.png"])})
    assert [read.path for read in scale.read_results(tmp_path)] == ["b.png"]
    assert scale.read_errors(tmp_path) == {"a.png": "status 403"}


def test_the_chosen_part_of_images_is_read(tmp_path):
    seen = []

    class Model:
        config = mrcnn.Config()

        def detect(self, images, masks):
            seen.extend(images)
            return [result(0)]

    stack = np.random.default_rng(0).integers(0, 256, (2, 4, 20, 30)).astype(np.uint8)
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "a.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    for channels in ((3,), (2, 1, 0)):
        choice = {"page": 1, "channels": channels}
        worker = Worker(Model, str(tmp_path / "in"), str(tmp_path / "out"), "model", 0.5, choice)
        assert worker({"path": np.array(["a.tif"])}) == {"images": [1], "refusal": [""]}
    assert np.array_equal(seen[0], stack[1, 3]) and np.array_equal(seen[1][..., 0], stack[1, 2])
    assert len(seen) == 2


class NothingThere:
    """A model that finds nothing in any image of three channels."""

    config = mrcnn.Config()

    def detect(self, images, masks):
        return [result(0)]


def test_channels_that_the_model_does_not_take_are_refused(tmp_path):
    """Nothing is written, as no image could be used."""
    folder, output = write_images(tmp_path / "images", 1), tmp_path / "found"
    worker = Worker(NothingThere, str(folder), str(output), "model", 0.5, {"channels": (0, 1)})
    answer = worker({"path": np.array(["a/0.png"])})
    assert answer["images"] == [0] and "takes images of 3 channels" in answer["refusal"][0]
    assert not output.exists()


STACK = np.random.default_rng(0).integers(0, 256, (2, 4, 20, 30)).astype(np.uint8)


@pytest.mark.parametrize(
    "files, choice, message",
    [
        ("ab", {"channels": [7]}, r"a\.tif: `channels` must be .* all 2 images that were tried"),
        ("ab", {"channels": [1]}, "Choose one with `page`, from 0"),
        ("ab", {"channels": [1], "page": 2}, "`page` must be from 0 to 1"),
        ("ab", {}, "Choose `channels`, such as"),
        ("ab?", {"page": 8}, r"`page` must be from 0 to 7: .* all 2 images"),
    ],
)
def test_options_that_fit_no_image_are_refused_at_once(files, choice, message, tmp_path):
    for name in files:
        path = tmp_path / "in" / f"{name.replace('?', 'broken')}.tif"
        path.parent.mkdir(exist_ok=True)
        tifffile.imwrite(path, STACK, imagej=True, metadata={"axes": "ZCYX"})
        if name == "?":
            path.write_bytes(b"II*\0")
    with pytest.raises(InvalidDataError, match=message):
        scale.detect_images(tmp_path / "in", tmp_path / "out", no_model, **choice)
    assert not (tmp_path / "out").exists()


def no_model():
    raise AssertionError("the model is not needed")


def test_options_that_fit_one_image_are_used(tmp_path):
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "b.tif", STACK, imagej=True, metadata={"axes": "ZCYX"})
    detecting._check_fits(tmp_path, ["a.png", "b.tif"], {"page": 1, "channels": (3,)})
    detecting._check_fits(tmp_path, ["a.png", "b.tif"], {})
    few = ["a.png", "b.tif", *["a.png"] * 98]
    detecting._check_fits(tmp_path, few, {"page": 1, "channels": (3,)})


def test_images_whose_errors_may_pass_are_tried_again(tmp_path):
    """Those that were still being copied, among them a TIFF file whose pixels are not all there."""
    folder, output = write_images(tmp_path / "in", 2), tmp_path / "out"
    for name, pixels in (("c.tif", STACK[0, 0].astype(np.uint16)), ("d.tif", STACK[0])):
        tifffile.imwrite(folder / name, pixels, photometric="minisblack")
    whole = {path: path.read_bytes() for path in (folder / "b" / "1.png", folder / "c.tif")}
    for path, content in whole.items():
        path.write_bytes(content[: len(content) * 3 // 4])

    def run(paths):
        Worker(NothingThere, str(folder), str(output), "model", 0.5)({"path": np.array(paths)})

    images = locations.list_images(folder)
    assert detecting._waiting(folder, output, "model", images) == images
    run(images)
    assert scale.read_errors(output).keys() == {"b/1.png", "c.tif", "d.tif"}
    for path, content in whole.items():
        path.write_bytes(content)
    assert detecting._waiting(folder, output, "model", images) == ["b/1.png", "c.tif"]
    assert scale.read_errors(output).keys() == {"d.tif"}
    assert scale.summarize(output).images == 1  # an interruption here loses no result
    run(["b/1.png", "c.tif"])
    assert sorted(one.path for one in scale.read_results(output)) == ["a/0.png", "b/1.png", "c.tif"]
    assert detecting._waiting(folder, output, "model", images) == []
    assert scale.read_errors(output).keys() == {"d.tif"}


def test_files_of_nothing_but_passing_errors_are_removed(tmp_path):
    tables.write_rows(
        str(tmp_path / "out"), ["a/0.png"], [tables.row_of_error("a/0.png", OSError())], "model"
    )
    folder = write_images(tmp_path / "in", 1)
    assert detecting._waiting(folder, tmp_path / "out", "model", ["a/0.png"]) == ["a/0.png"]
    assert list((tmp_path / "out").iterdir()) == []


def test_the_description_depends_on_the_weights_only(tmp_path):
    names = []
    for folder, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        path = tmp_path / folder / "mask_rcnn_0001.h5"
        path.parent.mkdir()
        path.write_bytes(content)
        names.append(describe(path))
    assert names[0] == names[1] != names[2]
    assert names[0].startswith("mask_rcnn_0001.h5 (weights ")
    (tmp_path / "a" / "mask_rcnn_0001.h5").write_bytes(b"3")
    assert describe(tmp_path / "a" / "mask_rcnn_0001.h5") not in names
    with pytest.raises(MissingFileError, match=r"none\.h5: There is no such weight file"):
        describe(tmp_path / "none.h5")


def test_the_description_of_published_weights():
    assert describe("nucleus-light").startswith("nucleus-light (weights ")
    assert describe("torchvision") == "torchvision (weights bf2d0c1e)"
    assert describe("coco") == "coco (weights e98aaff6f99e307b)"


def test_the_description_of_a_function(tmp_path):
    path = tmp_path / "leaves.onnx"
    path.write_bytes(b"1")
    loads = functools.partial(mrcnn.load, path, IMAGE_MIN_SCALE=1.0, config=object())
    name = describe(loads)
    assert name.startswith("leaves.onnx, IMAGE_MIN_SCALE=1.0 (weights ")
    assert describe(loads, "mine") == f"mine ({name.split('(')[1]}"
    path.write_bytes(b"2")
    assert describe(loads) != name
    assert describe(lambda: None) == "<lambda>"
    for network in (tmp_path / "a.xml", tmp_path / "b.XML"):
        network.write_bytes(b"network")
        network.with_suffix(".bin").write_bytes(b"1")
        name = describe(functools.partial(str, network))
        network.with_suffix(".bin").write_bytes(b"2")
        assert describe(functools.partial(str, network)) != name
    assert "(" not in describe(functools.partial(str, tmp_path))  # a folder of other files
    (tmp_path / "saved_model.pb").write_bytes(b"1")
    assert describe(functools.partial(str, tmp_path)).startswith(f"{tmp_path.name} (weights ")


def test_results_of_other_weights_are_refused(tmp_path):
    folder, output = write_images(tmp_path / "images", 2), tmp_path / "found"
    weights = tmp_path / "mask_rcnn_0001.h5"
    weights.write_bytes(b"1")
    rows = [tables.row_of(path, result(0)) for path in ("a/0.png", "b/1.png")]
    done = ["a/0.png", "b/1.png"]
    tables.write_rows(str(output), done, rows, f"{describe(weights)}, min_score=0.5")
    assert scale.detect_images(folder, output, weights).images == 2  # nothing is left to detect
    weights.write_bytes(b"2")
    with pytest.raises(ValueError, match=r"mask_rcnn_0001.h5 \(weights .*Choose another folder"):
        scale.detect_images(folder, output, weights)
    tables.write_rows(str(tmp_path / "old"), done, rows, "mask_rcnn_0001.h5, min_score=0.5")
    with pytest.raises(ValueError, match="same model"):
        scale.detect_images(folder, tmp_path / "old", weights)


def test_arguments(tmp_path):
    with pytest.raises(ValueError, match="`workers` must be positive"):
        scale.detect_images(tmp_path, tmp_path, "nucleus-light", workers=0)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="only Linux lists threads there")
def test_a_worker_on_jax_uses_the_threads_of_its_share():
    pytest.importorskip("jax")
    code = (
        "import pathlib, jax; jax.numpy.ones(3).block_until_ready()\n"
        "names = [path.read_text() for path in pathlib.Path('/proc/self/task').glob('*/comm')]\n"
        "print(sum('XLAEigen' in name for name in names))"
    )
    env = os.environ | {"JAX_PLATFORMS": "cpu"} | dict.fromkeys(detecting.THREAD_VARIABLES, "3")
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3"]


@pytest.mark.slow
def test_workers_refuse_channels_that_the_model_does_not_take(tmp_path):
    folder, output = write_images(tmp_path / "images", 2), tmp_path / "found"
    loads = functools.partial(mrcnn.load, "nucleus-light")
    with pytest.raises(InvalidDataError, match=r"takes images of 3 channels .* Nothing was detected\."):
        scale.detect_images(folder, output, loads, channels=[0, 1])
    assert not output.exists()


@pytest.mark.slow
def test_two_workers_find_what_detect_finds(tmp_path):
    folder, output = write_images(tmp_path / "images", 12, broken=(3, 8)), tmp_path / "found"
    loads = functools.partial(mrcnn.load, "nucleus-light", IMAGE_MIN_SCALE=1.0)
    # Results of four images exist already, as after an interruption: they are not detected again.
    existing = ["a/0.png", "b/1.png", "a/2.png", "a/4.png"]
    rows = [tables.row_of(path, result(0)) for path in existing]
    tables.write_rows(str(output), existing, rows, f"{describe(loads, 'test')}, min_score=0.5")
    summary = scale.detect_images(folder, output, loads, workers=2, images_per_file=3, description="test")
    assert summary.errors.keys() == {"b/3.png", "a/8.png"}
    assert summary.images == 10
    model, found = loads(), {one.path: one for one in scale.read_results(output)}
    assert found.keys() | summary.errors.keys() == set(locations.list_images(folder))
    for path, one in found.items():
        if path in existing:
            assert one.count == 0
            continue
        (wanted,) = model.detect([np.asarray(Image.open(folder / path))], masks="cropped")
        wanted = wanted.select(wanted["scores"] >= 0.5)
        np.testing.assert_array_equal(one["rois"], wanted["rois"])
        np.testing.assert_allclose(one["scores"], wanted["scores"], atol=1e-5)
        assert [rle.decode(code, one.shape).sum() for code in one["masks"]] == [
            crop.sum() for _, crop in wanted.crops()
        ]
    assert sum(one.count for one in found.values()) == summary.instances > 0
    again = scale.detect_images(folder, output, loads, workers=2, description="test")
    assert again == summary  # the broken images are tried again
