"""Results of large images as files, and the command `mrcnn detect --tile`."""

import functools
import json

import numpy as np
import pytest
import tifffile
from synthetic_detector import disks, region_model, regions_of

from mrcnn.cli.detecting import detect_sources
from mrcnn.cli.messages import IncompleteError
from mrcnn.cli.tiling import check_tiles, detect_in_tiles, files_of
from mrcnn.errors import InvalidDataError
from mrcnn.geometry.mask_crops import MaskCrops
from mrcnn.geometry.packed_crops import PackedCrops
from mrcnn.results import labels
from mrcnn.results.detections import Detections
from mrcnn.tiles.detecting import detect_large


class Model:
    """The synthetic detector with the methods of a model."""

    def __init__(self):
        self.tile_model = region_model()
        self.config, self.class_names = self.tile_model.config, ["BG", "dark", "bright"]

    def detect_large(self, source, tile, overlap, **options):
        return detect_large(self.tile_model, source, tile=tile, overlap=overlap, **options)


@pytest.fixture
def image():
    return disks((150, 130), step=13, radius=6)


def test_packed_crops_are_a_sequence():
    rng = np.random.default_rng(0)
    crops = [rng.random(shape) < 0.5 for shape in ((3, 5), (8, 8), (0, 4), (1, 1), (17, 3))]
    packed = PackedCrops.pack(crops)
    assert len(packed) == 5 and len(PackedCrops.pack([])) == 0
    for one, other in zip(packed, crops, strict=True):
        assert one.dtype == bool
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(packed[-1], crops[-1])
    chosen = packed.select(np.array([4, 1]))
    np.testing.assert_array_equal(chosen[1], crops[1])
    assert len(packed[1:3]) == 2


def test_label_blocks_are_the_label_image(monkeypatch, tmp_path):
    """Also where masks overlap: the better object gets the pixel."""
    monkeypatch.setattr(labels, "BLOCK", 32)
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 80, (40, 2))
    boxes = np.concatenate([corners, corners + rng.integers(3, 30, (40, 2))], axis=1).astype(np.int32)
    crops = [np.ones((y2 - y1, x2 - x1), bool) for y1, x1, y2, x2 in boxes]
    scores = np.sort(rng.random(40).astype(np.float32))[::-1]
    masks = MaskCrops((112, 120), boxes, PackedCrops.pack(crops))
    result = Detections(boxes, np.ones(40, np.int32), scores, masks)
    assert labels.is_large(result) and not labels.is_large(result.with_masks(masks.whole()))
    written = tifffile.imread(result.save(tmp_path / "a.tif"))
    assert written.dtype == np.uint32
    np.testing.assert_array_equal(written, labels.label_image(result))


def test_detect_in_tiles_writes_the_formats(image, tmp_path):
    pytest.importorskip("zarr")
    tifffile.imwrite(tmp_path / "a.tif", image, tile=(32, 32), compression="zlib")
    options = {"tile": 64, "overlap": 16, "quiet": True}
    value, text = detect_in_tiles(
        [str(tmp_path / "a.tif")], Model(), tmp_path / "out", min_score=0.7, **options
    )
    expected = regions_of(image)
    assert value["instances"] == value["counts"]["a"]
    assert 0 < value["instances"] < expected.count
    assert f"Found {value['instances']} objects in 1 image." in text
    content = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert len(content["annotations"]) == value["instances"]
    assert [record["name"] for record in content["categories"]] == ["dark", "bright"]
    written = tifffile.imread(tmp_path / "out" / "labels" / "a.tif")
    assert len(np.unique(written)) - 1 == value["instances"]
    assert (tmp_path / "out" / "geojson" / "a.geojson").exists()
    again, _ = detect_in_tiles(
        [str(tmp_path / "a.tif")], Model(), tmp_path / "out", min_score=0, formats=("csv",), **options
    )
    assert again["instances"] == expected.count


def test_folders_and_images_that_cannot_be_read(image, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    np.save(folder / "a.npy", image)
    (folder / "b.tif").write_text("hello")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(IncompleteError, match="1 of 2 images were left out") as error:
        detect_in_tiles([str(folder)], Model(), tmp_path / "out", tile=64, formats=("csv",), quiet=True)
    assert list(error.value.result[0]["counts"]) == ["a"]
    (folder / "a.npy").write_text("hello")
    with pytest.raises(InvalidDataError, match="None of the 2 images could be used"):
        detect_in_tiles([str(folder)], Model(), tmp_path / "none", tile=64, formats=("csv",), quiet=True)
    with pytest.raises(ValueError, match="--format overlay needs the whole image"):
        check_tiles(["overlay"], tile=64)
    with pytest.raises(ValueError, match=r"image files and folders of them. Received: .*notes.txt"):
        files_of([str(folder / "notes.txt")])
    with pytest.raises(ValueError, match="Two images are named a"):
        files_of([str(folder / "a.npy"), str(tmp_path / "a.png")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="There are no images here"):
        files_of([str(tmp_path / "empty")])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"tile": 4}, r"`tile` must be .* Received: tile=4"),
        ({"tile": 64, "overlap": 32}, r"`overlap` must be .* Received: tile=64, overlap=32"),
        ({"tile": 64, "batch": 0}, r"`batch`, .* must be .* Received: batch=0"),
    ],
)
def test_wrong_options_end_the_command_before_anything_is_loaded_or_written(
    options, message, image, tmp_path
):
    np.save(tmp_path / "a", image)
    detect = functools.partial(
        detect_sources, [str(tmp_path)], "none.h5", tmp_path / "out", settings=(), quiet=True
    )
    with pytest.raises(ValueError, match=message):
        detect(min_score=None, overlays=None, tiles=options)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_run_says_how_to_continue(image, tmp_path):
    class Interrupted(Model):
        def detect_large(self, source, tile, overlap, **options):
            raise KeyboardInterrupt

    np.save(tmp_path / "a.npy", image)
    with pytest.raises(KeyboardInterrupt, match="Run the same command again to continue"):
        detect_in_tiles([str(tmp_path / "a.npy")], Interrupted(), tmp_path / "out", tile=64, formats=("csv",))


def test_hidden_files_and_folders_are_no_images(tmp_path):
    for name in ("a.tif", "._a.tif", ".b.npy"):
        (tmp_path / name).write_text("")
    for name in ("c.zarr", ".d.zarr", "e.tif", "f.npy"):
        (tmp_path / name).mkdir()
    assert files_of([str(tmp_path)]) == {"a": tmp_path / "a.tif", "c": tmp_path / "c.zarr"}
    assert files_of([str(tmp_path / ".b.npy")]) == {".b": tmp_path / ".b.npy"}


def test_evaluate_counts_images_that_are_cut_short(image):
    from mrcnn import Dataset
    from mrcnn.errors import CappedWarning
    from mrcnn.evaluation.evaluate import evaluate

    class Disks(Dataset):
        def load_image(self, image_id):
            return image

        def load_mask(self, image_id):
            found = regions_of(image)
            return found["masks"].whole(), found["class_ids"]

    dataset = Disks()
    for number in (1, 2):
        dataset.add_class("disks", number, f"class {number}")
        dataset.add_image("disks", number, "a")
    dataset.prepare()

    def detect(images):
        return [regions_of(one, 20).with_masks(regions_of(one, 20)["masks"].whole()) for one in images]

    options = {"iou_types": ("box",), "verbose": 0}
    with pytest.warns(CappedWarning, match="2 of 2 images have DETECTION_MAX_INSTANCES=20 detections"):
        evaluate(detect, dataset, max_instances=20, **options)
