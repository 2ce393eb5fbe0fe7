"""Exported files find what MaskRCNN.detect finds."""

import functools
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from exported_models import TinyConfig, assert_equal, build, needs_tensorflow, pictures

import mrcnn
from mrcnn import export, runtime
from mrcnn.errors import CappedWarning, DataError, InvalidDataError, MissingFileError
from mrcnn.export import exporting
from mrcnn.export.checking import check_file
from mrcnn.export.exporting import format_of
from mrcnn.model import MaskRCNN
from mrcnn.runtime.inputs import original_size, prepare
from mrcnn.runtime.metadata import Metadata

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

ROOT = Path(__file__).resolve().parents[2]


class PaddedConfig(TinyConfig):
    IMAGE_RESIZE_MODE = "pad64"
    IMAGE_MIN_DIM = None


class EnlargedConfig(PaddedConfig):
    IMAGE_MIN_SCALE = 2


class OtherLibraryConfig(TinyConfig):
    """A small network with the parts of the other libraries' networks."""

    RPN_CONVOLUTIONS = 2
    BOX_HEAD_CONVOLUTIONS = 1
    FPN_NORM = True
    HEAD_NORM = "convolutions"
    RPN_BBOX_STD_DEV = np.ones(4)
    PRE_NMS_LIMIT = 30
    IMAGE_RESIZE_MODE = "shortest"
    IMAGE_MIN_DIM, IMAGE_MAX_DIM = 64, 96
    DETECTION_MIN_CONFIDENCE = 0.1


def test_onnx(model, onnx_file):
    images = pictures((64, 64, 3), (50, 30, 3), (200, 100, 3), (40, 90, 4))
    images.append(images[0][:, :, 0])
    assert_equal(model, runtime.load(onnx_file), images)


def test_onnx_of_images_of_any_size(tmp_path):
    model = build(PaddedConfig())
    runner = runtime.load(export.export(model, tmp_path / "any.onnx"))
    assert_equal(model, runner, pictures((64, 64, 3), (100, 130, 3), (64, 200, 3)))


@pytest.mark.parametrize("conventions", ["torchvision", pytest.param("detectron2", marks=pytest.mark.slow)])
def test_onnx_with_the_conventions_of_other_libraries(conventions, tmp_path):
    config = OtherLibraryConfig()
    config.CONVENTIONS = conventions
    model = build(config)
    runner = runtime.load(export.export(model, tmp_path / "other.onnx"))
    assert_equal(model, runner, pictures((64, 64, 3), (100, 130, 3), (200, 60, 3)))


def test_detections_of_one_class_below_a_half(tmp_path):
    class OneClassConfig(TinyConfig):
        NUM_CLASSES = 2
        DETECTIONS_PER_CLASS = True
        DETECTION_MIN_CONFIDENCE = 0.1
        DETECTION_MAX_INSTANCES = 50

    model = build(OneClassConfig())
    runner = runtime.load(export.export(model, tmp_path / "one.onnx"))
    images = pictures((64, 64, 3), (50, 30, 3))
    assert_equal(model, runner, images)
    assert min(result["scores"].min() for result in runner.detect(images)) < 0.5


@needs_tensorflow
@pytest.mark.slow
@pytest.mark.parametrize("name", ["other.xml", "other", "other.tflite"])
@pytest.mark.parametrize("conventions", ["torchvision", "detectron2"])
def test_other_formats_with_the_conventions_of_other_libraries(conventions, name, tmp_path):
    pytest.importorskip("openvino")
    pytest.importorskip("ai_edge_litert")
    config = OtherLibraryConfig()
    config.CONVENTIONS = conventions
    model = build(config)
    runner = runtime.load(export.export(model, tmp_path / name, check=False))
    assert_equal(model, runner, pictures((64, 64, 3), (100, 130, 3), (200, 60, 3)))


def test_a_batch_of_images(onnx_file):
    runner = runtime.load(onnx_file)
    images = np.stack(pictures((64, 64, 3), (64, 64, 3))).astype("float32")
    together = runner.run(images)
    for index in range(2):
        alone = runner.run(images[index : index + 1])
        count = together["count"][index]
        assert count == alone["count"][0] > 0
        for name in ("boxes", "class_ids", "scores", "masks"):
            np.testing.assert_allclose(together[name][index, :count], alone[name][0, :count], atol=1e-3)
            assert not together[name][index, count:].any()


def test_nothing_found(model, tmp_path):
    strict = build(TinyConfig())
    strict.config.DETECTION_MIN_CONFIDENCE = 1.0
    runner = runtime.load(export.export(strict, tmp_path / "strict.onnx"))
    (image,) = pictures((64, 64, 3))
    result = runner.detect(image)[0]
    assert result["rois"].shape == (0, 4)
    assert result["masks"].shape == (64, 64, 0)
    assert runner.run(image[np.newaxis].astype("float32"))["count"].tolist() == [0]


def test_as_many_objects_as_the_file_can_hold_are_named_as_by_detect(model, onnx_file):
    runner = runtime.load(onnx_file)
    (image,) = pictures((64, 64, 3))
    messages = []
    for detector in (model, runner):
        with pytest.warns(CappedWarning, match="DETECTION_MAX_INSTANCES=10") as warned:
            assert len(detector.detect(image)[0]["rois"]) == 10
        messages.append([str(one.message) for one in warned if one.category is CappedWarning])
    assert messages[0] == messages[1]


def test_masks_have_the_forms_of_detect(model, onnx_file):
    runner = runtime.load(onnx_file)
    (image,) = pictures((64, 64, 3))
    for form in ("full", "rle"):
        expected, found = model.detect(image, masks=form)[0], runner.detect(image, masks=form)[0]
        assert type(expected["masks"]) is type(found["masks"])
        assert expected["rois"].dtype == found["rois"].dtype == np.int32
        assert expected["scores"].dtype == found["scores"].dtype == np.float32
    with pytest.raises(ValueError, match="`masks` must be one of"):
        runner.detect(image, masks="polygons")


def test_8_bit_images_of_one_size(model, tmp_path):
    path = export.export(model, tmp_path / "fixed.onnx", size=(64, 64), dtype="uint8")
    runner = runtime.load(path)
    assert runner.metadata.size == (64, 64)
    assert_equal(model, runner, pictures((64, 64, 3), (100, 100, 3)))
    with pytest.raises(ValueError, match="This file takes uint8 images"):
        runner.detect(np.full((64, 64, 3), 0.5))


def test_one_size_of_images_that_are_enlarged(tmp_path):
    model = build(EnlargedConfig())
    path = export.export(model, tmp_path / "fixed.onnx", size=(128, 192))  # checks the file
    assert_equal(model, runtime.load(path), pictures((64, 96, 3)))
    model.config.IMAGE_MIN_DIM = 128
    with pytest.raises(ValueError, match=r"size=\(64, 192\)\. .* 32 x 96 pixels becomes 128 x 384\. Choose"):
        export.export(model, tmp_path / "small.onnx", size=(64, 192))
    assert [file.name for file in tmp_path.iterdir()] == ["fixed.onnx"]


def test_nothing_is_found_in_the_padding_of_one_size(model, tmp_path):
    runner = runtime.load(export.export(model, tmp_path / "fixed.onnx", size=(64, 64), check=False))
    for image in pictures((40, 90, 3), (90, 40, 3)):
        (found,) = runner.detect([image], masks="cropped")
        assert len(found["rois"]) and found["rois"].min() >= 0
        assert (found["rois"][:, 2:] <= image.shape[:2]).all()
        assert found["masks"].whole().shape[:2] == image.shape[:2]


@pytest.mark.parametrize(
    "mode, min_dim, max_dim, min_scale, size, expected",
    [
        ("none", None, None, 2, (64, 128), (64, 128)),
        ("square", 64, 128, 2, (128, 128), (128, 128)),
        ("pad64", None, None, 0, (64, 128), (64, 128)),
        ("pad64", 256, 256, 2, (512, 1024), (256, 512)),
        ("pad64", 256, None, 3, (256, 512), (85, 170)),
        ("shortest", 800, 1333, 0, (800, 1344), (800, 1344)),
        ("shortest", 800, 1333, 0, (1344, 1344), (1344, 1344)),  # for upright and wide images
        ("pad64", 256, None, 2, (128, 512), None),
        ("shortest", 800, 1333, 0, (512, 512), None),
    ],
)
def test_original_size_of_images_of_one_size(mode, min_dim, max_dim, min_scale, size, expected):
    config = TinyConfig()
    config.IMAGE_RESIZE_MODE, config.IMAGE_MIN_SCALE = mode, min_scale
    config.IMAGE_MIN_DIM, config.IMAGE_MAX_DIM = min_dim, max_dim
    if expected is None:
        with pytest.raises(ValueError, match="`size` must be a size to which images are resized"):
            original_size(size, config)
    else:
        assert original_size(size, config) == expected


@pytest.mark.parametrize("argument", ["calibration", "check"])
def test_a_single_array_is_one_image(model, tmp_path, monkeypatch, argument):
    (image,) = pictures((64, 64, 3))
    compared = []
    monkeypatch.setattr(exporting, "check_file", lambda model, path, images: compared.append(images))
    precision = "int8" if argument == "calibration" else "float32"
    export.export(model, tmp_path / "one.onnx", precision=precision, **{argument: image})
    ((found,),) = compared
    np.testing.assert_array_equal(found, image)


@pytest.mark.slow
def test_training_models_are_exported_too(tmp_path):
    model = MaskRCNN("training", TinyConfig(), "logs")
    model.copy_weights(build(TinyConfig()))
    runner = runtime.load(export.export(model, tmp_path / "trained.onnx"))
    assert_equal(model.inference_model(), runner, pictures((64, 64, 3)))


def test_openvino(model, exported):
    pytest.importorskip("openvino")
    path = exported("tiny.xml")
    assert sorted(file.name for file in path.parent.iterdir()) == ["tiny.bin", "tiny.xml"]
    runner = runtime.load(path)
    assert runner.class_names[1] == "class 1"
    assert_equal(model, runner, pictures((64, 64, 3), (50, 30, 3)))


@pytest.mark.parametrize(
    "name, package, files",
    [
        ("UPPER.ONNX", "onnxruntime", ["UPPER.ONNX"]),
        ("UPPER.XML", "openvino", ["UPPER.XML", "UPPER.bin"]),
        pytest.param(
            "UPPER.TFLITE", "ai_edge_litert", ["UPPER.TFLITE"], marks=[pytest.mark.slow, needs_tensorflow]
        ),
    ],
)
def test_the_file_has_the_name_that_the_user_gives(name, package, files, exported):
    pytest.importorskip(package)
    path = exported(name)
    assert path.name == name
    assert sorted(file.name for file in path.parent.iterdir()) == files
    assert runtime.load(path).class_names[1] == "class 1"


@pytest.mark.slow
@needs_tensorflow
def test_saved_model(model, exported):
    path = exported("tiny")
    runner = runtime.load(path)
    assert runner.class_names[1] == "class 1"
    assert_equal(model, runner, pictures((64, 64, 3), (50, 30, 3)))


@pytest.mark.slow
@needs_tensorflow
def test_litert(model, exported):
    pytest.importorskip("ai_edge_litert")
    path = exported("tiny.tflite")
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["mrcnn.json"]
    runner = runtime.load(path)
    assert runner.class_names[1] == "class 1"
    assert_equal(model, runner, pictures((64, 64, 3), (50, 30, 3)))


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="needs another backend")
@pytest.mark.parametrize("name", ["folder", "file.tflite"])
def test_formats_of_tensorflow_on_other_backends(model, tmp_path, name):
    with pytest.raises(ValueError, match="needs Keras on TensorFlow"):
        export.export(model, tmp_path / name)


class SoftConfig(TinyConfig):
    SOFT_NMS_SIGMA = 0.5
    DETECTION_MIN_CONFIDENCE = 0.05
    DETECTION_MAX_INSTANCES = 40


@pytest.mark.slow
@needs_tensorflow
@pytest.mark.parametrize("name", ["soft", "soft.tflite"])
def test_soft_nms(name, tmp_path):
    if name.endswith(".tflite"):
        pytest.importorskip("ai_edge_litert")
    model = build(SoftConfig())
    runner = runtime.load(export.export(model, tmp_path / name, check=False))
    assert runner.config.SOFT_NMS_SIGMA == 0.5
    assert_equal(model, runner, pictures((64, 64, 3), (50, 30, 3)))


# --- Refusals ---


@pytest.mark.parametrize("name", ["soft.onnx", "soft.xml"])
def test_formats_without_soft_nms(name, tmp_path):
    model = build(SoftConfig())
    with pytest.raises(ValueError, match=r"Received: SOFT_NMS_SIGMA=0\.5\. Set it to None"):
        export.export(model, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_other_weights_is_refused(onnx_file):
    other = build(TinyConfig())
    for weight in other.keras_model.trainable_variables:
        weight.assign(weight + 0.3)
    with pytest.raises(RuntimeError, match=r"differ from those of MaskRCNN\.detect"):
        check_file(other, onnx_file)


def test_a_refused_file_does_not_replace_an_older_one(model, tmp_path):
    path = tmp_path / "kept.onnx"
    path.write_text("older")
    with pytest.raises(ValueError, match="`class_names` must have one name for each"):
        export.export(model, path, class_names=["a"] * 99)
    assert path.read_text() == "older"


@pytest.mark.parametrize(
    "name, other, error, message",
    [
        ("m", "m/photo.jpg", ValueError, "must not be a folder with other files in it"),
        ("m", "m", ValueError, r"`path` must be a folder\. Received: path=.*/m, a file"),
        ("m.onnx", "m.onnx/a", ValueError, r"`path` must be a file\. Received: path=.*/m\.onnx, a folder"),
        ("m.xml", "m.bin/a", ValueError, r"`path` must be a file\. Received: path=.*/m\.bin, a folder"),
        (
            "notes/deep/m.onnx",
            "notes",
            NotADirectoryError,
            r"Cannot write the file: .*/notes is not a folder.*m\.onnx",
        ),
        (
            "new/m.onnx",
            "locked",
            PermissionError,
            r"Cannot write the file: no permission for the folder.*m\.onnx",
        ),
        ("new/deep/m.onnx", "notes", None, None),
        ("m", "m/saved_model.pb", None, None),
    ],
)
def test_the_target_is_checked_before_the_export(name, other, error, message, tmp_path, monkeypatch):
    def begin(model):
        raise RuntimeError("begun")

    monkeypatch.setattr(exporting, "_ready", begin)
    (tmp_path / other).parent.mkdir(exist_ok=True)
    (tmp_path / other).write_text("older")
    if error is PermissionError:
        monkeypatch.setattr(exporting.os, "access", lambda path, mode: False)
    with pytest.raises(error or RuntimeError, match=message or "begun") as caught:
        export.export(None, tmp_path / name)
    if isinstance(caught.value, OSError):
        assert caught.value.errno and caught.value.filename == str(tmp_path / name)
    assert (tmp_path / other).read_text() == "older"


@pytest.fixture
def folders(tmp_path):
    """A written SavedModel, and an older one in its place."""
    for folder, file in (
        (tmp_path / "temporary" / "model", "new.pb"),
        (tmp_path / "out" / "leaves", "old.pb"),
    ):
        (folder / "variables").mkdir(parents=True)
        for name in ("saved_model.pb", f"variables/{file}"):
            (folder / name).write_text(file)
    return tmp_path / "temporary" / "model", tmp_path / "out" / "leaves"


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_folder_replaces_an_older_one(folders):
    written, path = folders
    exporting._move(written, path)
    assert files_in(path.parent) == ["leaves/saved_model.pb", "leaves/variables/new.pb"]
    exporting._move(written, path.parent / "new" / "deep")
    assert files_in(path.parent / "new") == ["deep/saved_model.pb", "deep/variables/new.pb"]
    long_name = path.parent / ("x" * 255)
    exporting._move(written, long_name)
    assert files_in(long_name) == ["saved_model.pb", "variables/new.pb"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["copy", "rename"])
def test_an_older_folder_stays_until_the_new_one_is_complete(step, error, folders, monkeypatch):
    written, path = folders
    rename = Path.rename

    def renaming(self, target):
        if self.name == "new":
            raise error
        return rename(self, target)

    def copying(source, target):
        Path(target).mkdir()
        Path(target, "saved_model.pb").write_text("half")
        raise error

    if step == "rename":
        monkeypatch.setattr(Path, "rename", renaming)
    else:
        monkeypatch.setattr(exporting.shutil, "copytree", copying)
    with pytest.raises((OSError, KeyboardInterrupt)):
        exporting._move(written, path)
    assert files_in(path.parent) == ["leaves/saved_model.pb", "leaves/variables/old.pb"]


@pytest.mark.parametrize("failing", ["model.bin", "model.xml"])
def test_two_files_are_replaced_together(failing, tmp_path, monkeypatch):
    copyfile = exporting.shutil.copyfile

    def copying(source, target):
        if Path(source).name == failing:
            raise OSError(28, "No space left on device")
        return copyfile(source, target)

    (tmp_path / "temporary").mkdir()
    for suffix in (".xml", ".bin"):
        (tmp_path / "temporary" / f"model{suffix}").write_text("new")
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / f"leaves{suffix}").write_text("old")
    move = functools.partial(
        exporting._move, tmp_path / "temporary" / "model.xml", tmp_path / "out" / "leaves.xml"
    )
    with monkeypatch.context() as patch:
        patch.setattr(exporting.shutil, "copyfile", copying)
        with pytest.raises(OSError, match="No space left"):
            move()
    assert files_in(tmp_path / "out") == ["leaves.bin", "leaves.xml"]
    assert {path.read_text() for path in (tmp_path / "out").iterdir()} == {"old"}
    move()
    assert {path.read_text() for path in (tmp_path / "out").iterdir()} == {"new"}


@pytest.mark.parametrize("mode", ["none", "square", "pad64", "shortest"])
def test_8_bit_images_need_a_resize_mode_that_keeps_them(mode):
    config = TinyConfig()
    config.IMAGE_RESIZE_MODE = mode
    model = SimpleNamespace(config=config, class_names=None)
    if mode == "shortest":  # resized images have fractions, as in torchvision
        with pytest.raises(
            ValueError, match=r'"shortest", `dtype` must be "float32".*--uint8 on the command'
        ):
            exporting.describe(model, dtype="uint8")
        assert exporting.describe(model).dtype == "float32"
    else:
        metadata = exporting.describe(model, dtype="uint8")
        (image,) = pictures((64, 64, 3))
        assert prepare(image, metadata, config)[1].dtype == np.uint8


@pytest.mark.parametrize(
    "path, format, message",
    [
        ("model.pb", None, "`path` must end in .onnx, .xml"),
        ("model.onnx", "tflite", "`format` must be one of"),
        ("model.onnx", "openvino", "must end in .xml"),
        ("model.onnx", "torch", "must end in .pt2"),
    ],
)
def test_formats(path, format, message):
    with pytest.raises(ValueError, match=message):
        format_of(Path(path), format)


def test_images_that_do_not_fit_are_refused_before_the_export(tmp_path):
    model = build(PaddedConfig())
    for images, message in (
        (pictures((64, 64, 5)), r"must have shape \(height, width, 3\).*Received: image.shape=\(64, 64, 5\)"),
        (
            pictures((64, 64, 3), (100, 64, 3)),
            r"images of 64 x 64 pixels. Received: an image of 128 x 64.*size=\(128, 64\) \(--size 128 64\)",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            export.export(model, tmp_path / "m.onnx", size=(64, 64), check=images)
    assert list(tmp_path.iterdir()) == []


def test_sizes(model):
    with pytest.raises(ValueError, match=r"`size` must be \(height, width\).*size=\(0, 64\)"):
        export.export(model, "model.onnx", size=(0, 64))
    with pytest.raises(ValueError, match="multiples of 64"):
        export.export(model, "model.onnx", size=(60, 64))
    with pytest.raises(ValueError, match=r"`size` must be the input size of the network, \(64, 64\)"):
        export.export(model, "model.onnx", size=(128, 64))
    with pytest.raises(ValueError, match="`dtype` must be one of"):
        export.export(model, "model.onnx", dtype="int8")


def test_files_that_cannot_be_loaded(onnx_file, tmp_path):
    import onnx

    with pytest.raises(MissingFileError, match="no such file"):
        runtime.load(tmp_path / "missing.onnx")
    for name in ("model.h5", "model"):
        (tmp_path / name).write_text("")
        with pytest.raises(InvalidDataError, match=r"ends in \.onnx, \.xml, \.tflite, \.pt2"):
            runtime.load(tmp_path / name)
    (tmp_path / "cut.onnx").write_bytes(onnx_file.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"cut\.onnx: ONNX Runtime cannot load the file"):
        runtime.load(tmp_path / "cut.onnx")
    model = onnx.load(onnx_file)
    (entry,) = model.metadata_props
    entry.value = json.dumps(json.loads(entry.value) | {"format_version": 99})
    onnx.save(model, tmp_path / "newer.onnx")
    with pytest.raises(InvalidDataError, match="Update keras-mrcnn"):
        runtime.load(tmp_path / "newer.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(InvalidDataError, match=r"does not come from MaskRCNN\.export"):
        runtime.load(tmp_path / "foreign.onnx")


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "cannot be read: Expecting property name"),
        ("[1]", "cannot be read: "),
        ("{}", "there is no field 'format_version'"),
        ('{"format_version": 1, "version": "3.0.0", "class_names": ["BG"]}', "there is no field 'dtype'"),
        ('{"format_version": "new"}', "cannot be read: invalid literal"),
    ],
)
def test_metadata_that_cannot_be_read(text, message):
    with pytest.raises(InvalidDataError, match=rf"^a\.onnx: The metadata 'mrcnn' .*{message}.*Export the"):
        Metadata.from_json(text, "a.onnx")


@needs_tensorflow
def test_a_damaged_saved_model(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"garbage")
    with pytest.raises(
        InvalidDataError, match=r"TensorFlow cannot load the file\. Check that it is complete"
    ):
        runtime.load(tmp_path)


def test_metadata(onnx_file):
    import onnx

    (entry,) = onnx.load(onnx_file).metadata_props
    values = json.loads(entry.value)
    assert entry.key == "mrcnn"
    assert values["class_names"][:2] == ["BG", "class 1"]
    assert values["config"]["IMAGE_MAX_DIM"] == 64
    runner = runtime.load(onnx_file)
    assert runner.config.IMAGE_MAX_DIM == 64
    assert runner.class_names == tuple(values["class_names"])


# --- Without frameworks ---

BLOCKED = """
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    names = {
        *("keras", "tensorflow", "jax", "torch", "onnx", "h5py", "skimage", "scipy", "matplotlib", "cv2"),
        *("pycocotools", "PIL", "tifffile", "imagecodecs", "shapely", "tqdm", "yaml", "pandas"),
    }
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import numpy as np
from mrcnn import runtime
image = np.load(sys.argv[2])
runner = runtime.load(sys.argv[1])
result = runner.detect(image)[0]
codes = [code["counts"] for code in runner.detect(image, masks="rle")[0]["masks"]]
np.savez(sys.argv[3], rois=result["rois"], masks=result["masks"], codes=codes)
"""


def detected_without_packages(path, image, folder):
    """What a file finds in a process that has NumPy and the runtime alone."""
    np.save(folder / "image.npy", image)
    arguments = [str(path), str(folder / "image.npy"), str(folder / "result.npz")]
    command = [sys.executable, "-c", BLOCKED, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return np.load(folder / "result.npz")


def test_the_runner_needs_no_framework(model, onnx_file, tmp_path):
    (image,) = pictures((50, 64, 3))
    found = detected_without_packages(onnx_file, image, tmp_path)
    expected = model.detect(image)[0]
    assert found["rois"].shape == expected["rois"].shape
    assert found["masks"].shape == expected["masks"].shape


def test_the_shipped_model_needs_no_framework(tmp_path):
    """Its settings stretch the contrast of images."""
    from skimage import data

    image = data.immunohistochemistry()[:128, :128]
    path = export.export(mrcnn.load("nucleus-light"), tmp_path / "nucleus.onnx", check=False)
    runner = runtime.load(path)
    assert runner.config.CONTRAST_PERCENTILES is not None and image.dtype == np.uint8
    found = detected_without_packages(path, image, tmp_path)
    (expected,) = runner.detect(image, masks="rle")
    np.testing.assert_array_equal(found["rois"], expected["rois"])
    assert found["codes"].tolist() == [code["counts"] for code in expected["masks"]]
    assert len(found["codes"])


def test_a_missing_runtime_is_named(onnx_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="pip install onnxruntime"):
        runtime.load(onnx_file)
