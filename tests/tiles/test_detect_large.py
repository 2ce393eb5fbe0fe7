"""Detection tile by tile: bounded memory, resume, caps, contrast of the whole image, real models."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
from synthetic_detector import RegionConfig, as_set, disks, region_model, regions_of

from mrcnn import files, tiles
from mrcnn.errors import CappedWarning, InvalidDataError, MissingFileError, UnreadableFileError
from mrcnn.tiles.detecting import TileModel, detect_large
from mrcnn.tiles.folder import TileStore

TESTS = Path(__file__).resolve().parents[1]


def large(image, model=None, **options):
    options = {"tile": 64, "overlap": 16, "progress": False} | options
    return detect_large(model or region_model(), image, **options)


@pytest.fixture(scope="module")
def image():
    return disks((301, 257), step=13, radius=6)


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_batches_and_folders_change_nothing(image, batch, tmp_path):
    sizes = []

    def detect(images, settings):
        sizes.append(len(images))
        assert batch == settings.IMAGES_PER_GPU
        return [regions_of(tile) for tile in images]

    found = large(image, region_model(detect=detect), batch=batch, resume=tmp_path / "run")
    assert as_set(found) == as_set(regions_of(image))
    assert max(sizes) == min(batch, 36) and sum(sizes) == 36
    assert (np.diff(found["scores"]) <= 0).all()
    again = tiles.read_result(tmp_path / "run")
    assert as_set(again) == as_set(found)
    assert again.class_names == found.class_names == ("BG", "dark", "bright")
    assert again.shape == found.shape == image.shape


def test_the_result_knows_its_file(image, tmp_path):
    pytest.importorskip("zarr")
    path = tmp_path / "a.tif"
    resolution = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, image, tile=(32, 32), **resolution)
    for found in (large(path, resume=tmp_path / "run"), tiles.read_result(tmp_path / "run")):
        assert found.pixel_size.height == pytest.approx(0.5)
        assert Path(found.path) == path
        assert found.save(tmp_path / "a.geojson").exists()
        assert found.select(found["scores"] > 0.9).count < found.count


def test_an_interrupted_run_goes_on(image, tmp_path):
    calls = []

    def detect(images, settings):
        if len(calls) == 12:
            raise KeyboardInterrupt
        calls.append(len(images))
        return [regions_of(tile) for tile in images]

    with pytest.raises(KeyboardInterrupt):
        large(image, region_model(detect=detect), resume=tmp_path)
    with pytest.raises(MissingFileError, match=r"holds no finished result"):
        tiles.read_result(tmp_path)
    calls[:] = [0] * 13
    found = large(image, region_model(detect=detect), resume=tmp_path)
    assert sum(calls) == 36 - 12
    assert as_set(found) == as_set(regions_of(image))


KILLED = """
import sys, time
import numpy as np
from synthetic_detector import region_model, regions_of
from mrcnn.tiles.detecting import TileModel, detect_large

calls = []

def detect(images, settings):
    calls.append(len(images))
    time.sleep(0.02 if len(calls) < 60 else 600)
    return [regions_of(tile) for tile in images]

detect_large(region_model(detect=detect), np.load(sys.argv[1]), tile=32, overlap=8,
             resume=sys.argv[2], progress=False)
"""


def test_a_killed_run_goes_on(image, tmp_path):
    np.save(tmp_path / "a.npy", image)
    folder = tmp_path / "run"
    command = [sys.executable, "-c", KILLED, str(tmp_path / "a.npy"), str(folder)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    process = subprocess.Popen(command, env=environment)
    done = folder / "tiles"
    while process.poll() is None and not (done.is_dir() and len(list(done.glob("[0-9]*.npz"))) > 20):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in done.glob("[0-9]*.npz")}
    assert 20 < len(before) < 100
    found = large(image, tile=32, overlap=8, resume=folder)
    assert as_set(found) == as_set(regions_of(image))
    assert {name: (done / name).stat().st_mtime_ns for name in before} == before
    assert not [path for path in done.iterdir() if path.name.startswith(".")]


def test_a_folder_of_another_run_is_refused(image, tmp_path):
    large(image, resume=tmp_path)
    with pytest.raises(InvalidDataError, match=r"tile was 64, but is 128 in this call"):
        large(image, resume=tmp_path, tile=128)
    with pytest.raises(InvalidDataError, match=r"image: pixels"):
        large(255 - image, resume=tmp_path)
    model = region_model()
    model.config.DETECTION_MIN_CONFIDENCE = 0.1
    with pytest.raises(
        InvalidDataError, match=r"settings: DETECTION_MIN_CONFIDENCE was 0\.7, but is 0\.1 in this call"
    ):
        large(image, model, resume=tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UnreadableFileError, match=r"run.json: The file does not describe a run"):
        large(image, resume=tmp_path)


@pytest.mark.parametrize("suffix", [".tif", ".svs", ".npy", ".zarr", ".png", ".vrt", ""])
def test_a_folder_of_another_image_of_the_same_name_is_refused(tmp_path, monkeypatch, suffix):
    """Also if the images only differ in a pixel that is not in the sample."""
    monkeypatch.setattr("mrcnn.tiles.contrast.READ_WHOLE", 0)
    path = tmp_path / f"a{suffix}"

    def saved(image):
        if suffix == "":
            return image
        if suffix == ".npy":
            np.save(path, image)
        elif suffix == ".zarr":
            zarr = pytest.importorskip("zarr")
            zarr.open(str(path), mode="w", shape=image.shape, chunks=(64, 64), dtype="u1")[:] = image
        elif suffix == ".png":
            PIL.Image.fromarray(image).save(path)
        else:
            if suffix == ".svs":
                pytest.importorskip("tiffslide")
                image = np.dstack([image] * 3)
            options = {"compression": "zlib", "tile": (64, 64)} if suffix == ".svs" else {}
            tifffile.imwrite(tmp_path / ("b.tif" if suffix == ".vrt" else path.name), image, **options)
        if suffix == ".vrt" and not path.exists():
            pytest.importorskip("rasterio")
            path.write_text(
                '<VRTDataset rasterXSize="257" rasterYSize="301"><VRTRasterBand dataType="Byte" band="1">'
                '<ColorInterp>Gray</ColorInterp><SimpleSource><SourceFilename relativeToVRT="1">b.tif'
                "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
            )
        return path

    image = disks((301, 257), step=13, radius=6)
    found = large(saved(image), resume=tmp_path / "run")
    again = large(path if suffix else image, resume=tmp_path / "run")
    assert as_set(found) == as_set(again)
    other = image.copy()
    other[150, 131] ^= 200
    with pytest.raises(
        InvalidDataError, match=r"tiles of a different run: (image: pixels|source: files: .*[ab]\.)"
    ):
        large(saved(other), resume=tmp_path / "run")


def test_a_folder_of_another_part_of_an_image_is_refused(tmp_path):
    pytest.importorskip("zarr")
    stack = np.zeros((2, 2, 200, 200), np.uint8)
    options = {"photometric": "minisblack", "tile": (64, 64)}
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        file.write(stack, metadata={"axes": "ZCYX"}, subifds=1, **options)
        file.write(stack[..., ::2, ::2], subfiletype=1, **options)
    with pytest.raises(InvalidDataError, match=r"takes images of 3 channels.*channels=\(0, 1\)"):
        large(tmp_path / "a.ome.tif", page=0, channels=(0, 1))
    first = {"page": 0, "channels": (0,), "resume": tmp_path / "run"}
    large(tmp_path / "a.ome.tif", **first)
    large(tmp_path / "a.ome.tif", **first | {"channels": [np.int64(0)]})
    for change, was in (
        ({"page": 1}, "part: page was 0, but is 1"),
        ({"channels": (1,)}, r"part: channels was \[0\], but is \[1\]"),
        ({"level": 1}, r"image: shape"),
    ):
        with pytest.raises(InvalidDataError, match=was):
            large(tmp_path / "a.ome.tif", **first | change)
    source = tiles.TiffSource(tmp_path / "a.ome.tif", 1, (0,))
    with source, pytest.raises(InvalidDataError, match="part: page was 0, but is 1"):
        large(source, resume=tmp_path / "run")


def test_a_file_whose_time_has_changed_and_folders_of_earlier_versions_are_refused(image, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", image)
    found = large(tmp_path / "a.tif", resume=tmp_path / "run")
    before = os.stat(tmp_path / "a.tif").st_mtime_ns
    os.utime(tmp_path / "a.tif", ns=(before + 1000, before + 1000))
    with pytest.raises(
        InvalidDataError, match=r"a\.tif: time_ns was .*If only the time of the same file has changed, set it"
    ):
        large(tmp_path / "a.tif", resume=tmp_path / "run")
    os.utime(tmp_path / "a.tif", ns=(before, before))
    large(tmp_path / "a.tif", resume=tmp_path / "run")
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    del run["source"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(run))
    with pytest.raises(InvalidDataError, match=r"earlier version.*page, channels or level.*delete this one"):
        large(tmp_path / "a.tif", resume=tmp_path / "run")
    assert as_set(tiles.read_result(tmp_path / "run")) == as_set(found)


def test_results_in_a_folder_named_like_the_slide(image, tmp_path):
    pytest.importorskip("tiffslide")
    tifffile.imwrite(tmp_path / "a.svs", np.dstack([image] * 3), compression="zlib", tile=(64, 64))
    found = large(tmp_path / "a.svs", resume=tmp_path / "a")
    assert as_set(large(tmp_path / "a.svs", resume=tmp_path / "a")) == as_set(found)


def test_files_that_programs_write_beside_a_map(image, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    profile = {"driver": "GTiff", "height": image.shape[0], "width": image.shape[1], "dtype": "uint8"}
    place = rasterio.transform.from_origin(500000, 5800000, 0.5, 0.5)
    with rasterio.open(tmp_path / "a.tif", "w", count=1, transform=place, **profile) as file:
        file.write(image, 1)
    found = large(tmp_path / "a.tif", resume=tmp_path / "run")
    tifffile.imwrite(tmp_path / "a.tif.ovr", image[::2, ::2], subfiletype=1)
    (tmp_path / "a.tif.aux.xml").write_text("<PAMDataset></PAMDataset>")
    with rasterio.open(tmp_path / "a.tif") as file:
        assert any(name.endswith(".ovr") for name in file.files)
    assert as_set(large(tmp_path / "a.tif", resume=tmp_path / "run")) == as_set(found)


class Plate(tiles.ArraySource):
    """A source that knows what its pixels depend on."""

    version: object = 1

    def identity(self):
        return {"image": "plate 7", "version": self.version}


def test_a_source_says_what_its_pixels_depend_on(image, tmp_path):
    source = Plate(image)
    found = large(source, resume=tmp_path)
    assert as_set(large(source, resume=tmp_path)) == as_set(found) == as_set(tiles.read_result(tmp_path))
    source.version = 2
    with pytest.raises(InvalidDataError, match="source: version was 1, but is 2"):
        large(source, resume=tmp_path)


class DescribesItself(RegionConfig):
    """A script's own `to_dict`, of values that JSON cannot store."""

    def to_dict(self):
        return {name: getattr(self, name) for name in dir(self) if name.isupper()}


def test_a_config_with_its_own_to_dict(image, tmp_path):
    model = dataclasses.replace(region_model(), config=DescribesItself())
    assert as_set(large(image, model, resume=tmp_path)) == as_set(regions_of(image))


@pytest.mark.skipif(os.name == "nt", reason="no locks")
def test_one_process_at_a_time(tmp_path):
    store = TileStore(tmp_path, {"version": 1})
    with pytest.raises(InvalidDataError, match="Another process is using this folder"):
        TileStore(tmp_path, {"version": 1})
    store.close()
    TileStore(tmp_path, {"version": 1}).close()


@pytest.mark.skipif(os.name == "nt", reason="no locks")
def test_processes_that_start_together_do_not_share_a_folder(tmp_path, monkeypatch):
    """A second one comes just before the first one writes the description of its run."""
    seconds = []

    def write_json(*arguments, **options):
        monkeypatch.undo()
        with pytest.raises(InvalidDataError, match="Another process is using this folder"):
            seconds.append(TileStore(tmp_path / "run", {"version": 1}))
        files.write_json(*arguments, **options)

    monkeypatch.setattr("mrcnn.tiles.folder.files.write_json", write_json)
    TileStore(tmp_path / "run", {"version": 1}).close()
    assert not seconds


def test_a_refused_folder_is_given_back(tmp_path):
    TileStore(tmp_path, {"version": 1, "tile": 64}).close()
    with pytest.raises(InvalidDataError, match="tile was 64, but is 32"):
        TileStore(tmp_path, {"version": 1, "tile": 32})
    TileStore(tmp_path, {"version": 1, "tile": 64}).close()


def test_after_an_error_the_source_is_closed_when_nothing_reads_it(image, monkeypatch):
    """The results of the first row cannot be joined while a thread reads the next tile."""
    reading, closed = threading.Event(), []

    class Slow(tiles.ArraySource):
        def read(self, *window):
            if threading.current_thread() is not threading.main_thread():
                reading.set()
                time.sleep(0.1)
                reading.clear()
            return super().read(*window)

        def close(self):
            closed.append(not reading.is_set())

    def fail(*_):
        assert reading.wait(10)
        raise MemoryError

    monkeypatch.setattr("mrcnn.tiles.detecting.open_source", lambda *_, **__: Slow(image))
    monkeypatch.setattr("mrcnn.tiles.detecting.Sweep.add", fail)
    with pytest.raises(MemoryError):
        large(image, tile=256)
    assert closed == [True]


def test_a_folder_of_other_files_and_damaged_tiles_are_refused(image, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InvalidDataError, match=r"has other files"):
        large(image, resume=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    folder = tmp_path / "run"
    large(image, resume=folder)
    (folder / "tiles" / "00003.npz").write_bytes(b"damaged")
    with pytest.raises(UnreadableFileError, match=r"00003.npz: The file is damaged"):
        large(image, resume=folder)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"tile": 0}, "`tile` must be a number of pixels of at least 8. Received: tile=0"),
        ({"tile": 64.0}, "`tile` must be"),
        (
            {"tile": 64, "overlap": 64},
            "`overlap` must be .* less than half of `tile`. Received: tile=64, overlap=64",
        ),
        ({"tile": 64, "overlap": 32}, "`overlap` must be"),
        ({"overlap": 0}, "`overlap` must be"),
        ({"overlap": True}, "`overlap` must be"),
        ({"batch": 0}, "`batch`, the number of tiles in a batch, must be an integer"),
        ({"channels": (1,)}, "`channels` must be numbers from 0 to 0"),
    ],
)
def test_bad_arguments(image, options, message):
    with pytest.raises(ValueError, match=message):
        large(image, **options)


def test_a_full_tile_is_divided(image):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = large(image, region_model(limit=60), tile=128)  # about 95 disks in a tile
    assert as_set(found) == as_set(regions_of(image))


def test_full_tiles_that_cannot_be_divided_are_counted(image):
    with pytest.warns(UserWarning, match=r"\d+ of 9 tiles .* DETECTION_MAX_INSTANCES=4 "):
        large(image, region_model(limit=4), tile=128, overlap=32)
    model = region_model(limit=60)
    model.config.IMAGE_RESIZE_MODE = "square"  # a part of a tile would be enlarged
    model.config.IMAGE_MIN_DIM = model.config.IMAGE_MAX_DIM = 128
    with pytest.warns(UserWarning, match=r"9 of 9 tiles"):
        large(image, model, tile=128)


def test_full_tiles_are_divided_into_parts_that_the_model_takes(image):
    model = region_model(limit=60)
    model = dataclasses.replace(model, takes=lambda size: size == (128, 128))
    with pytest.warns(UserWarning, match=r"9 of 9 tiles"):
        large(image, model, tile=128)
    sizes = set()

    def detect(images, settings):
        sizes.update(tile.shape for tile in images)
        return [regions_of(tile, 60) for tile in images]

    model = region_model(limit=60, detect=detect)
    model.config.IMAGE_RESIZE_MODE = "none"
    square = disks((256, 256), step=13, radius=6)
    with pytest.warns(UserWarning, match=r"tiles"):  # 128 pixels are not divided into multiples of 64
        large(square, model, tile=256, overlap=32)
    assert sizes == {(256, 256), (192, 192), (128, 128)}


def test_contrast_and_value_range_are_those_of_the_whole_image():
    image = np.zeros((200, 200), np.uint16)
    image[:, 100:] = 4000
    seen = []

    def detect(images, settings):
        assert settings.CONTRAST_PERCENTILES is None
        seen.extend(images)
        return [regions_of(np.zeros(tile.shape[:2], np.uint8)) for tile in images]

    model = region_model(detect=detect)
    model.config.CONTRAST_PERCENTILES = (1, 99)
    large(image, model)
    assert {int(value) for tile in seen for value in np.unique(tile)} == {0, 255}
    assert np.unique(seen[0]).tolist() == [0]  # not stretched by itself

    ranges = []

    def keep_range(images, settings):
        ranges.append(settings.IMAGE_VALUE_RANGE)
        return [regions_of(np.zeros(tile.shape[:2], np.uint8)) for tile in images]

    bright = np.full((200, 200), 0.5, np.float32)
    bright[:100] = 200.0
    with pytest.warns(UserWarning):
        large(bright, region_model(detect=keep_range))
    assert set(ranges) == {(0, 255)}  # also of the tiles that look like 0 to 1


@pytest.mark.parametrize("percentiles", [None, (1, 99.8)])
@pytest.mark.parametrize("place", [(5, 5), (2001, 2003)])  # of which the second is in no sample
def test_values_that_are_not_finite_are_an_error(percentiles, place, tmp_path):
    pixels = np.zeros((2100, 2100, 3), np.float32)
    pixels[..., 0] = np.linspace(0, 1, 2100)
    pixels[place] = np.nan
    np.save(tmp_path / "a.npy", pixels)
    model = TileModel(lambda images, settings: [regions_of(image) for image in images], RegionConfig())
    model.config.CONTRAST_PERCENTILES = percentiles
    with pytest.raises(InvalidDataError, match=r"a\.npy: .*must be finite. Received: .* NaN or infinite"):
        detect_large(model, tmp_path / "a.npy", progress=False)


def test_bool_images_are_stretched():
    seen = []

    def detect(images, settings):
        seen.extend(images)
        return [regions_of(image) for image in images]

    model = TileModel(detect, RegionConfig())
    model.config.CONTRAST_PERCENTILES = (1, 99.8)
    image = np.zeros((40, 40), bool)
    image[10:20, 10:20] = True
    detect_large(model, image, progress=False)
    assert seen[0].dtype == np.uint8
    np.testing.assert_array_equal(seen[0][..., 0], image * 255)


@pytest.mark.usefixtures("usual_collector")
def test_memory_does_not_grow_with_the_image(tmp_path, monkeypatch):
    """Reading and joining need memory for tiles, not for the image, whose tiles are on the disk."""
    monkeypatch.setattr("mrcnn.tiles.contrast.READ_WHOLE", 1 << 16)
    peaks = []
    for height in (128, 512, 4096):  # the first one imports what is needed
        path = tmp_path / f"{height}.npy"
        array = np.lib.format.open_memmap(path, "w+", np.uint8, (height, 512))
        array[::64, ::64] = 200
        del array
        tracemalloc.start()
        found = large(path, tile=128, overlap=16, resume=tmp_path / f"run{height}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found.count == height // 64 * 8
    # The last image has 1.8 MB more than the one before, and eight times as many detections.
    assert peaks[2] - peaks[1] < 0.25 * (4096 - 512) * 512 and peaks[2] < 4096 * 512


def test_detect_names_the_cap():
    from mrcnn.inference.outputs import completed

    config = RegionConfig()
    config.DETECTION_MAX_INSTANCES = 4
    image = disks((40, 40), step=13, radius=6)
    with pytest.warns(CappedWarning, match=r"The image has DETECTION_MAX_INSTANCES=4 detections"):
        completed([regions_of(image, 4)], None, config)
    with pytest.warns(CappedWarning, match=r"2 of 3 images have"):
        completed([regions_of(image, count) for count in (4, 3, 4)], None, config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        completed([regions_of(image, 3)], None, config)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    from tiny_model import TinyConfig

    import mrcnn

    class Tiny(TinyConfig):
        IMAGE_RESIZE_MODE = "pad64"
        IMAGE_MIN_DIM = 64
        IMAGES_PER_GPU = GPU_COUNT = 1
        DETECTION_MIN_CONFIDENCE = 0.0
        DETECTION_MAX_INSTANCES = 4

    model = mrcnn.MaskRCNN("inference", Tiny(), tmp_path_factory.mktemp("logs"))
    # No proposal is background, so that every tile has more objects than the limit.
    logits = model.keras_model.get_layer("mrcnn_class_logits")
    kernel, bias = logits.get_weights()
    bias[1] = 20
    logits.set_weights([kernel, bias])
    return model


@pytest.mark.parametrize("sigma", [None, 0.5])
def test_a_network_sees_a_single_tile_as_an_image(network, sigma, monkeypatch):
    monkeypatch.setattr(network.config, "SOFT_NMS_SIGMA", sigma)
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    with pytest.warns(CappedWarning):
        (whole,) = network.detect([image])
    with pytest.warns(UserWarning, match=r"1 of 1 tiles"):
        found = network.detect_large(image, tile=64, progress=False)
    np.testing.assert_array_equal(found["rois"], whole["rois"])
    np.testing.assert_allclose(found["scores"], whole["scores"], atol=1e-6)
    np.testing.assert_array_equal(found["masks"].whole(), whole["masks"])
    assert network.config.IMAGES_PER_GPU == 1


def test_a_network_without_padding_sees_parts_of_full_tiles(network, monkeypatch):
    monkeypatch.setattr(network.config, "IMAGE_RESIZE_MODE", "none")
    image = np.random.default_rng(0).integers(0, 255, (192, 192, 3), np.uint8)
    with pytest.warns(UserWarning, match=r"4 of 1 tiles or parts of tiles"):
        found = network.detect_large(image, tile=192, overlap=32, progress=False)
    assert found.count > 4


def test_a_network_detects_in_tiles_and_knows_its_weights(network, tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (150, 200, 3), np.uint8)
    options = {"tile": 64, "batch": 3, "progress": False, "resume": tmp_path}
    with pytest.warns(UserWarning, match=r"tiles"):
        found = network.detect_large(image, **options)
    assert found.count > 10
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["image"]["shape"] == [150, 200]
    weights = network.keras_model.get_weights()
    network.keras_model.set_weights([array + 1 for array in weights])
    with pytest.raises(InvalidDataError, match=r"weights"):
        network.detect_large(image, **options)
    network.keras_model.set_weights(weights)
