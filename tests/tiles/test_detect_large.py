"""Detection tile by tile: bounded memory, resume, caps, contrast of the whole image, real models."""

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from synthetic_detector import RegionConfig, as_set, disks, region_model, regions_of

from mrcnn import tiles
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


@pytest.mark.skipif(os.name == "nt", reason="no locks")
def test_one_process_at_a_time(tmp_path):
    store = TileStore(tmp_path, {"version": 1})
    with pytest.raises(InvalidDataError, match="Another process is using this folder"):
        TileStore(tmp_path, {"version": 1})
    store.close()
    TileStore(tmp_path, {"version": 1}).close()


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
        ({"batch": 0}, "`batch` must be a number of tiles"),
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
