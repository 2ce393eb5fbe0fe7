"""The command `mrcnn detect` with a model that finds nothing: the files and options that it refuses."""

import json
import os
import shlex
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import annotation_files as files
import numpy as np
import pytest
import tifffile

from mrcnn.cli import detecting
from mrcnn.errors import CappedWarning, InvalidDataError
from mrcnn.files.calibration import PixelSize
from mrcnn.geometry.mask_crops import MaskCrops
from mrcnn.inference import video
from mrcnn.results.detections import Detections

typer_testing = pytest.importorskip("typer.testing")

FRAMES = 3


class Blind:
    """A model that finds nothing."""

    config = SimpleNamespace(
        **{"NUM_CLASSES": 2, "DETECTION_MAX_INSTANCES": 100, "IMAGE_CHANNEL_COUNT": 3},
        DETECTION_MIN_CONFIDENCE=0.4,
    )
    class_names = ("BG", "leaf")

    def detect(self, images, masks="full"):
        boxes, numbers = np.zeros((0, 4), np.int32), np.zeros(0, np.int32)
        crops = (MaskCrops(image.shape[:2], boxes, ()) for image in images)
        found = [Detections(boxes, numbers, numbers.astype(np.float32), one) for one in crops]
        return [one.with_masks(one["masks"].whole()) for one in found] if masks == "full" else found


@pytest.fixture
def detect(monkeypatch):
    monkeypatch.setattr(detecting, "load_model", lambda model, settings: Blind())
    options = {"min_score": None, "overlays": None, "settings": (), "quiet": True}
    return partial(detecting.detect_sources, model="model.h5", **options)


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "foot" / "clip.avi"
    with video.VideoWriter(path, 10) as writer:
        for _ in range(FRAMES):
            writer.write(np.zeros((48, 64, 3), np.uint8))
    return path


def command(*arguments):
    """Run the command in this process."""
    from mrcnn.cli.app import app

    return typer_testing.CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_result_of_a_video_replaces_no_other_file(clip, detect):
    mine = clip.with_suffix(".mp4")
    mine.write_bytes(b"the original recording")
    with pytest.raises(
        FileExistsError, match=r"clip\.mp4 exists already\. Choose another --output, or pass --ov"
    ):
        detect([str(clip)], output=clip.parent)
    assert mine.read_bytes() == b"the original recording"
    value, _ = detect([str(clip)], output=clip.parent, overwrite=True)
    assert value == {"output": str(mine), "frames": FRAMES}
    with video.VideoReader(mine) as reader:
        assert len(list(reader)) == FRAMES


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_result_of_a_video_never_replaces_the_video(overwrite, clip, detect):
    source = clip.rename(clip.with_suffix(".mp4"))
    before = source.read_bytes()
    with pytest.raises(
        FileExistsError, match=r"would replace the video .*clip\.mp4\. Choose another --output"
    ):
        detect([str(source)], output=source.parent, overwrite=overwrite)
    assert source.read_bytes() == before


def test_each_recording_of_a_camera_has_a_name_of_its_own(detect, tmp_path, monkeypatch):
    def record(source, path, *arguments, **options):
        Path(path).write_text("recorded")
        return 1

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(video, "detect_video", record)
    names = [Path(detect(["0"], output=tmp_path)[0]["output"]).name for _ in range(3)]
    assert names == ["camera-0.mp4", "camera-0-2.mp4", "camera-0-3.mp4"]
    assert detect(["0"], output=tmp_path, overwrite=True)[0]["output"] == str(tmp_path / "camera-0.mp4")
    assert detect(["1"], output=tmp_path)[0]["output"] == str(tmp_path / "camera-1.mp4")


@pytest.mark.parametrize(
    "option",
    [
        *("--tile 64", "--overlap 8", "--batch 2", "--page 0", "--channels 0", "--copy-images"),
        *("--pixel-size 0.5", "--tolerance 0", "--overlays", "--no-overlays", "--format csv"),
    ],
)
def test_options_for_images_are_refused_for_a_video(option, clip):
    done = command("detect", clip, "-m", "none.h5", "-o", clip.parent / "out", *option.split())
    assert done.exit_code == 1
    assert f"apply to images only: {option.split()[0]}. Leave them out." in done.output


def test_options_for_tiles_are_refused_without_tiles(tmp_path):
    picture = files.write_picture(tmp_path / "a.png")
    done = command("detect", picture, "-m", "none.h5", "--overlap", 8, "--batch", 2)
    assert done.exit_code == 1
    assert "apply to tiles only: --overlap, --batch. Add --tile, or leave them out." in done.output


@pytest.mark.parametrize(
    "options, message",
    [
        ("--tolerance 1", "--tolerance has an effect on the formats labelme, yolo, geojson, imagej only."),
        ("--tolerance 1 --format csv", "or leave out --tolerance."),
        ("--pixel-size 0.5", "--pixel-size has an effect on the formats csv, tiff only."),
        ("--pixel-size 0.5 --tile 64 --format geojson", "the formats csv, tiff, labels only."),
        ("--format overlay --no-overlays", "--format overlay and --no-overlays contradict each other."),
    ],
)
def test_options_that_no_format_uses(options, message, tmp_path):
    picture = files.write_picture(tmp_path / "a.png")
    done = command("detect", picture, "-m", "none.h5", "-o", tmp_path / "out", *options.split())
    assert done.exit_code == 1 and message in done.output
    assert not (tmp_path / "out").exists()


def test_options_that_a_format_uses(tmp_path, detect):
    picture = str(files.write_picture(tmp_path / "a.png"))
    for name, options in (("labelme", {"tolerance": 1.0}), ("tiff", {"pixel_size": PixelSize(0.5, 0.5)})):
        value, _ = detect([picture], output=tmp_path / name, formats=[name], **options)
        assert value["images"] == 1


def test_a_score_below_that_of_the_model(tmp_path, detect, monkeypatch, recwarn):
    picture = str(files.write_picture(tmp_path / "a.png"))
    for min_score in (None, 0.4, 0.9):
        detect([picture], output=tmp_path / "out", min_score=min_score)
    assert not recwarn.list
    advice = r"--min-score 0\.2 has the same effect as 0\.4, .*\. {} --set DETECTION_MIN_CONFIDENCE=0\.2"
    with pytest.warns(UserWarning, match=advice.format("Add")):
        detect([picture], output=tmp_path / "out", min_score=0.2)
    monkeypatch.setattr(Blind, "metadata", None, raising=False)
    with pytest.warns(UserWarning, match=advice.format("Export the model again with")):
        detect([picture], output=tmp_path / "out", min_score=0.2)


def test_the_next_step_is_a_command_for_the_shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my photos", "images").mkdir(parents=True)
    step = partial(detecting._next_step, ["my photos"], Path("out; rm"))

    def arguments(*formats, **options):
        return shlex.split(step(formats, **options).removeprefix(" After corrections, train on them: "))

    start = ["mrcnn", "train"]
    coco = [*start, "out; rm/annotations.json"]
    assert arguments() == [*coco, "--images", "my photos"]
    assert arguments("labelme") == [*start, "out; rm", "--images", "my photos/images"]
    choice = ["--page", "0", "--channels", "2,0"]
    assert arguments(page=0, channels=[2, 0]) == [*coco, "--images", "my photos", *choice]
    assert arguments(page=0, channels=[2, 0], copy_images=True) == [*coco, *choice]
    assert step(["csv"], page=0) == ""


def test_several_images_need_no_links(tmp_path, detect, monkeypatch):
    """Windows lets administrators alone make symbolic links."""

    def refuse(*arguments, **options):
        raise OSError("A required privilege is not held by the client.")

    for name in ("symlink", "link"):
        monkeypatch.setattr(os, name, refuse)
    paths = [files.write_picture(tmp_path / folder / f"{folder}.png") for folder in "ba"]
    value, _ = detect([str(path) for path in paths], output=tmp_path / "out", formats=["labelme"])
    assert value["counts"] == {"a": 0, "b": 0}
    content = json.loads((tmp_path / "out" / "labelme" / "b.json").read_text())
    assert content["imagePath"] == "../../b/b.png"


def test_several_images_of_one_name_are_refused(tmp_path, detect):
    paths = [str(files.write_picture(tmp_path / folder / "x.png")) for folder in "ab"]
    with pytest.raises(ValueError, match=r"Two images are named x\.png"):
        detect(paths, output=tmp_path / "out")


def test_images_whose_detections_are_cut_short_are_named(tmp_path, detect, monkeypatch):
    from mrcnn.inference.outputs import completed

    class Full(Blind):
        config = SimpleNamespace(NUM_CLASSES=2, DETECTION_MAX_INSTANCES=0)

        def detect(self, images, masks="full"):
            return completed(super().detect(images, masks), self.class_names, self.config)

    monkeypatch.setattr(detecting, "load_model", lambda model, settings: Full())
    paths = [str(files.write_picture(tmp_path / f"{name}.png")) for name in "ab"]
    with pytest.warns(CappedWarning, match=r"^2 of 2 images have .* missing: a\.png, b\.png\. Raise"):
        detect(paths, output=tmp_path / "out")


def test_channels_that_the_model_does_not_take(tmp_path, detect, caplog):
    """Four channels would count as colors and an alpha channel, which is dropped."""
    bands = np.stack([files.picture()[..., 0]] * 4)
    tifffile.imwrite(tmp_path / "a.tif", bands, photometric="minisblack", planarconfig="separate")
    with pytest.raises(InvalidDataError, match=r"\(0, 1, 2, 3\)\. Choose 3, or one for a gray image"):
        detect([str(tmp_path / "a.tif")], output=tmp_path / "out", channels=[0, 1, 2, 3])
    (tmp_path / "two").mkdir()
    for name in ("a.tif", "b.tif"):
        shutil.copy(tmp_path / "a.tif", tmp_path / "two" / name)
    with pytest.raises(InvalidDataError, match="takes images of 3 channels"):
        detect([str(tmp_path / "two")], output=tmp_path / "tiles", channels=[0, 1], tiles={"tile": 64})
    assert not (tmp_path / "tiles").exists()
    files.write_picture(tmp_path / "gray.tif", files.picture()[..., 0])
    with pytest.raises(InvalidDataError, match="The image could not be used"):
        detect([str(tmp_path / "gray.tif")], output=tmp_path / "out", channels=[2, 1, 0])
    assert "numbers from 0 to 0: the file has 1 channel. Received" in caplog.text
    for channels in ([3], [2, 1, 0]):
        value, _ = detect([str(tmp_path / "a.tif")], output=tmp_path / "out", channels=channels)
        assert value["images"] == 1


def test_nothing_is_saved_if_no_image_can_be_read(tmp_path, detect, caplog):
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "a.tif", np.zeros((3, 8, 8), np.uint8), photometric="minisblack")
    with pytest.raises(InvalidDataError, match="The image could not be used; see above"):
        detect([str(tmp_path / "in")], output=tmp_path / "out")
    assert "--page on the command line" in caplog.text
    assert list((tmp_path / "out").iterdir()) == []
