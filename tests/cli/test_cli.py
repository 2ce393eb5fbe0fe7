"""The command `mrcnn`: its commands on small data, its errors and exit codes."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import annotation_files as files
import numpy as np
import pytest
import skimage.data
from conftest import running_eagerly
from PIL import Image

from mrcnn.cli import inspecting
from mrcnn.errors import InvalidDataError, MissingFileError
from mrcnn.results.detections import Detections

typer_testing = pytest.importorskip("typer.testing")

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-c", "from mrcnn.cli import main; main()"]


def run(*arguments, code=0):
    """Run the command in a process of its own, and return its output and messages."""
    done = subprocess.run([*PROGRAM, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code, done.stderr[-2000:]
    return done.stdout, done.stderr


def run_here(*arguments, code=0):
    """Run the command in this process, which has loaded its framework, and step by step."""
    from mrcnn.cli.app import app

    with running_eagerly():
        done = typer_testing.CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == code, done.stderr[-2000:]
    return done.stdout, done.stderr


@pytest.fixture
def coco(tmp_path):
    """A COCO file of three images with two objects each."""
    content = {"images": [], "annotations": [], "categories": files.coco_content()["categories"]}
    for index in range(3):
        name = f"{index}.png"
        files.write_picture(tmp_path / name, files.picture(seed=index))
        one = files.coco_content(name)
        content["images"].append(one["images"][0] | {"id": index})
        content["annotations"] += [
            record | {"image_id": index, "id": 10 * index + number}
            for number, record in enumerate(one["annotations"])
        ]
    return files.write_json(tmp_path / "annotations.json", content)


def test_help_lists_the_commands_and_loads_no_framework():
    code = """
import sys
from mrcnn.cli import main
sys.argv = ["mrcnn", "--help"]
try:
    main()
finally:
    print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    for command in ("detect", "export", "describe", "evaluate", "train"):
        assert f" {command} " in done.stdout
    assert not {"keras", "tensorflow", "numpy", "cv2"} & set(done.stdout.split())


def test_version():
    import mrcnn

    assert run("--version")[0].strip() == f"mrcnn {mrcnn.__version__}"


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["detect", "a.png"], 2, "Missing option"),
        (["detect", "no.png", "-m", "nucleus-light"], 1, "no.png: There is no such file or folder."),
        (["describe", "no.json"], 1, "no.json: There is no such file or folder."),
        (["describe", "docs"], 1, "docs: No dataset was recognized here."),
        (["describe", "mkdocs.yml", "--images", "nowhere"], 1, "nowhere: The folder does not exist."),
        (["predict"], 2, "No such command"),
        (["train", "no.json", "--learning-rate", "0"], 2, "Invalid value for '--learning-rate'"),
    ],
)
def test_errors_are_one_sentence(arguments, code, message):
    out, err = run(*arguments, code=code)
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_debug_shows_where():
    assert "Traceback" in run("--debug", "describe", "no.json", code=1)[1]


def test_describe(coco, tmp_path):
    numbers = json.loads(run("describe", coco, "--json", "--figure", tmp_path / "data.png")[0])
    assert numbers["images"] == 3
    assert numbers["classes"] == {"leaf": 3, "nut": 3}
    assert (tmp_path / "data.png").stat().st_size > 1000
    assert "leaf" in run("describe", coco)[0]


def test_photographs_that_a_camera_stored_sideways_are_no_problem(coco):
    files.write_picture(coco.parent / "0.png", files.picture(files.WIDTH, files.HEIGHT), orientation=6)
    numbers = json.loads(run("describe", coco, "--json")[0])
    assert numbers["images"] == 3 and list(numbers["problems"].values()) == [1]


def test_describe_names_what_is_broken(coco):
    content = json.loads(coco.read_text())
    content["annotations"][0]["category_id"] = 99
    coco.write_text(json.dumps(content))
    out, err = run("describe", coco, "--json", code=3)
    assert json.loads(out)["instances"] == 5
    assert "1 image or annotation was left out" in err
    assert err.count("There is no category_id 99") == 1
    assert "1 image or annotation was left out" in run("convert", coco, coco.with_name("b.json"), code=3)[1]


def test_images_without_annotations_are_no_fault(tmp_path):
    files.write_picture(tmp_path / "a.png")
    files.write_picture(tmp_path / "b.png")
    files.write_json(tmp_path / "a.json", files.labelme_content())
    numbers = json.loads(run("describe", tmp_path, "--json")[0])
    assert numbers["images"] == 1 and sum(numbers["problems"].values()) == 1


def test_convert_annotations(coco, tmp_path):
    via = tmp_path / "via.json"
    files.write_json(via, files.via_content([files.via_region("leaf")], "0.png"))
    result = json.loads(run("convert", via, tmp_path / "new.json", "--json")[0])
    assert result["images"] == 1
    assert json.loads(run("describe", tmp_path / "new.json", "--json")[0])["classes"] == {"leaf": 1}
    assert "OUTPUT must end in .json" in run("convert", via, tmp_path / "new.txt", code=1)[1]


def test_convert_to_other_formats(coco, tmp_path):
    """What is written is a dataset with the same objects."""
    out = tmp_path / "out"
    counts = json.loads(run("convert", coco, out, "-f", "geojson", "-f", "csv", "--copy-images", "--json")[0])
    assert counts["counts"] == {"0": 2, "1": 2, "2": 2}
    assert len((out / "measurements.csv").read_text().splitlines()) == 7
    assert json.loads(run("describe", out, "--json")[0])["classes"] == {"leaf": 3, "nut": 3}
    assert "must be some of" in run("convert", coco, out, "-f", "voc", code=1)[1]


def test_warnings_are_sentences(coco, tmp_path):
    _, err = run("convert", coco, tmp_path / "labels", "--format", "labels")
    assert err.startswith("Warning: Label images do not store classes") and "warnings.warn" not in err
    assert "UserWarning" not in err
    _, err = run("--debug", "convert", coco, tmp_path / "more", "--format", "labels")
    assert "UserWarning: Label images" in err


def test_formats_of_detections_are_checked_before_the_model_is_loaded(tmp_path):
    picture = files.write_picture(tmp_path / "a.png")
    message = run("detect", picture, "-m", "none.h5", "-f", "voc", code=1)[1]
    assert "--format must be one of labels, tiff, coco" in message


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "no.json", "-m", "none.h5"],
        ["train", "mkdocs.yml", "--validation", "no.json", "-m", "none.h5"],
        ["benchmark", "none.h5", "--images", "no.json"],
        ["detect", "docs", "-m", "none.h5", "--tile", "64", "--overlap", "32"],
    ],
)
def test_paths_and_tiles_are_checked_before_the_model_is_loaded(arguments):
    message = run(*arguments, code=1)[1]
    assert "no.json" in message or "`overlap` must" in message


@pytest.mark.parametrize("other", ["b.jp2", "notes.txt", "clip.mp4"])
def test_a_source_that_is_no_image_is_named_before_the_model_is_loaded(tmp_path, other):
    picture = files.write_picture(tmp_path / "a.png")
    (tmp_path / other).write_bytes(b"something")
    message = run("detect", picture, tmp_path / other, "-m", "none.h5", code=1)[1]
    assert f"Received: {tmp_path / other}" in message and "one of the suffixes" in message


def test_a_broken_image_is_counted_and_hidden_files_are_not(tmp_path):
    (tmp_path / "in" / "images").mkdir(parents=True)
    files.write_picture(tmp_path / "in" / "images" / "a.png")
    (tmp_path / "in" / "images" / "._a.png").write_bytes(b"from a Mac")
    arguments = ("detect", tmp_path / "in", "-m", "nucleus-light", "-o", tmp_path / "out")
    out, _ = run(*arguments)
    assert f"mrcnn train {tmp_path / 'out' / 'annotations.json'} --images {tmp_path / 'in'}\n" in out
    (tmp_path / "in" / "images" / "b.png").write_bytes(b"broken")
    assert "1 of 2 images were left out" in run_here(*arguments, code=3)[1]


def test_what_is_detected_replaces_neither_corrections_nor_the_source(tmp_path):
    (tmp_path / "images").mkdir()
    files.write_picture(tmp_path / "images" / "a.png")
    arguments = ("detect", tmp_path, "-o", tmp_path, "-m")
    (tmp_path / "labels").mkdir()
    label = tmp_path / "labels" / "a.png"
    label.write_bytes(b"drawn by hand")
    assert "--overwrite on the command line" in run(*arguments, "none.h5", code=1)[1]  # before it is loaded
    assert "--overwrite on the command line" in run(*arguments, "none.h5", "--overlays", code=1)[1]
    assert label.read_bytes() == b"drawn by hand"
    run_here(*arguments, "nucleus-light", "--overwrite")
    assert label.read_bytes() != b"drawn by hand"


def test_images_that_cannot_be_read_are_left_out_of_metrics_and_copies(coco):
    coco.write_text(coco.read_text().replace('"leaf"', '"nucleus"'))
    broken = coco.parent / "1.png"
    broken.write_bytes(broken.read_bytes()[:100])
    out, err = run_here("evaluate", coco, "-m", "nucleus-light", "--json", code=3)
    assert "Warning: 1 of 3 images cannot be read" in err and json.loads(out)["objects"][0] == 4
    out, err = run("convert", coco, coco.parent / "out", "-f", "csv", "--json", code=3)
    assert json.loads(out)["images"] == 2 and "1.png" in err


def test_a_folder_named_like_a_camera_is_a_folder(tmp_path, monkeypatch):
    from mrcnn.cli import detecting

    monkeypatch.chdir(tmp_path)
    assert detecting._is_video(["2024"])
    (tmp_path / "2024").mkdir()
    assert not detecting._is_video(["2024"])


@pytest.mark.parametrize("arguments", [("--channels", "x"), ("--channels", "5")])
def test_channels_that_do_not_exist(arguments, tmp_path):
    import tifffile

    pixels = files.picture()[..., :2]
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images" / "a.tif", pixels, photometric="minisblack", planarconfig="contig")
    files.write_picture(tmp_path / "labels" / "a.png", files.masks()[0].astype("uint8"))
    message = run("convert", tmp_path, tmp_path / "out", "-f", "csv", *arguments, code=1)[1]
    assert "channels" in message and "Received" in message


@pytest.mark.parametrize("kind", ["labels", "labelme", "yolo", "via"])
def test_formats_are_recognized(kind, tmp_path):
    from mrcnn.cli.datasets import open_dataset

    picture = files.write_picture(tmp_path / "images" / "a.png")
    if kind == "labels":
        files.write_picture(tmp_path / "labels" / "a.png", files.masks()[0].astype(np.uint8))
        path = tmp_path
    elif kind == "labelme":
        files.write_picture(tmp_path / "shapes" / "a.png")
        path = files.write_json(tmp_path / "shapes" / "a.json", files.labelme_content()).parent
    elif kind == "yolo":
        (tmp_path / "labels").mkdir()
        (tmp_path / "labels" / "a.txt").write_text(files.yolo_line(0, "leaf"))
        path = tmp_path / "data.yaml"
        path.write_text("names: [leaf]\n")
    else:
        content = files.via_content([files.via_region("leaf")], picture.name)
        path = files.write_json(tmp_path / "images" / "via.json", content)
    dataset = open_dataset(path)
    assert len(dataset.image_ids) == 1
    assert len(list(dataset.load_instances(0))) >= 1


@pytest.fixture
def several_formats(coco, tmp_path):
    """A folder with one dataset as label images, as COCO JSON and for LabelMe."""
    from mrcnn.cli.datasets import open_dataset
    from mrcnn.formats import write_dataset

    folder = tmp_path / "several"
    write_dataset(open_dataset(coco), folder, ["labels", "coco", "labelme"], copy_images=True)
    return folder


def change(path, folder):
    """Make a file newer than the results of a run."""
    later = (folder / "counts.csv").stat().st_mtime + 10
    os.utime(path, (later, later))


def test_of_several_formats_the_one_with_classes_is_read(several_formats, caplog):
    from mrcnn.cli.datasets import open_dataset

    dataset = open_dataset(several_formats)
    assert dataset.source_class_ids.keys() >= {"coco"} and len(dataset.class_names) > 2
    assert "annotations.json, labelme, labels. Reading annotations.json." in caplog.text


def test_of_several_formats_the_corrected_one_is_read(several_formats, caplog):
    from mrcnn.cli.datasets import open_dataset

    change(several_formats / "annotations.json", several_formats)
    assert len(open_dataset(several_formats).class_names) > 2
    later = next((several_formats / "labels").iterdir())
    change(later, several_formats)
    os.utime(later, (later.stat().st_mtime + 1,) * 2)
    assert open_dataset(several_formats).class_names == ["BG", "object"]
    assert "Reading labels, which changed last. To read others, pass their path." in caplog.text


def test_other_files_do_not_hide_label_images(several_formats, caplog):
    from mrcnn.cli.datasets import open_dataset

    for name in ("annotations.json", "counts.csv"):
        (several_formats / name).unlink()
    shutil.rmtree(several_formats / "labelme")
    for name in ("labelme", "geojson", "rois"):
        (several_formats / name).mkdir()  # empty
    assert len(open_dataset(several_formats).image_ids) == 3
    assert not caplog.records


def test_a_folder_named_labels_may_hold_other_annotations(tmp_path):
    from mrcnn.cli.datasets import open_dataset

    files.write_picture(tmp_path / "labels" / "a.png")
    files.write_json(tmp_path / "labels" / "a.json", files.labelme_content())
    assert "leaf" in open_dataset(tmp_path / "labels").class_names


def test_without_results_of_a_run_the_order_is_fixed(several_formats, caplog):
    from mrcnn.cli.datasets import open_dataset

    (several_formats / "counts.csv").unlink()
    os.utime(several_formats / "annotations.json", (0, 0))
    assert len(open_dataset(several_formats).class_names) > 2
    assert "Reading annotations.json. To read others, pass their path." in caplog.text


def test_each_of_several_formats_can_be_chosen(several_formats, caplog):
    from mrcnn.cli.datasets import open_dataset

    found = {name: open_dataset(several_formats / name) for name in ("annotations.json", "labelme", "labels")}
    assert [len(dataset.class_names) > 2 for dataset in found.values()] == [True, True, False]
    assert all(len(dataset.image_ids) == 3 for dataset in found.values())
    assert not caplog.records


@pytest.fixture
def yolo(tmp_path):
    """The usual layout: images/ and labels/ with a folder for each part."""
    for part, count in (("train", 3), ("val", 2)):
        for index in range(count):
            files.write_picture(tmp_path / "yo" / "images" / part / f"{part}{index}.png")
            label = tmp_path / "yo" / "labels" / part / f"{part}{index}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(files.yolo_line(0, "leaf"))
    return tmp_path / "yo" / "data.yaml"


@pytest.mark.parametrize("path", ["", "path: .\n", "path: ../yo\n", "path: {}\n", "path: elsewhere\n"])
def test_parts_of_a_yolo_file(yolo, path):
    from mrcnn.cli.datasets import open_dataset

    folders = "train: images/train\nval: ../images/val\nnames: [leaf]\n"
    yolo.write_text(path.format(yolo.parent) + folders)
    for part, count in (("train", 3), ("val", 2)):
        dataset = open_dataset(yolo, part=part)
        assert len(dataset.image_ids) == count and dataset.problems.counts == {}
        assert [len(dataset.load_mask(image_id)[1]) for image_id in dataset.image_ids] == [1] * count
    dataset = open_dataset(yolo.parent, yolo.parent / "images" / "val")
    assert len(dataset.image_ids) == 2 and dataset.problems.counts == {}


def test_a_yolo_file_without_its_folders(yolo):
    from mrcnn.cli.datasets import open_dataset

    yolo.write_text("train: [a, b]\nval: gone\nnames: [leaf]\n")
    (yolo.parent / "images").rename(yolo.parent / "pictures")
    for part in ("train", "val"):
        with pytest.raises(MissingFileError, match=f"`{part}` must name the folder"):
            open_dataset(yolo, part=part)


def test_labels_beside_a_yolo_file_come_before_others_beside_the_images(yolo, tmp_path):
    """Corrected results are in their own folder; their images may have the old labels beside them."""
    from mrcnn.cli.datasets import open_dataset

    yolo.write_text("names: [leaf]\n")
    (tmp_path / "found" / "labels").mkdir(parents=True)
    for label in (yolo.parent / "labels" / "train").iterdir():
        two = label.read_text() + "\n" + files.yolo_line(0, "nut")
        (tmp_path / "found" / "labels" / label.name).write_text(two)
    data = tmp_path / "found" / "data.yaml"
    data.write_text("train: images\nval: images\nnames: [leaf]\n")
    dataset = open_dataset(data, yolo.parent / "images" / "train")
    assert len(dataset.load_mask(0)[1]) == 2


@pytest.mark.parametrize("names", [{1: "dog", 2: "cat, wild"}, {1: "dog"}, {2: "cat, wild"}])
def test_validation_has_the_class_numbers_of_training(names, tmp_path):
    from mrcnn.cli.datasets import open_dataset

    def written(name, categories):
        annotations = [
            {"id": key, "image_id": 42, "category_id": key, "segmentation": [files.flat("leaf")]}
            for key in categories
        ]
        listed = [{"id": key, "name": label} for key, label in categories.items()]
        content = files.coco_content() | {"annotations": annotations, "categories": listed}
        return files.write_json(tmp_path / name, content)

    files.write_picture(tmp_path / "a.png")
    train = open_dataset(written("train.json", {1: "cat, wild", 2: "dog"}))
    val = open_dataset(written("val.json", names), like=train)
    assert val.class_names == train.class_names == ["BG", "cat", "dog"]
    found = [val.class_info[number]["name"] for number in val.load_mask(0)[1]]
    assert found == list(names.values())
    ids = [info["id"] for info in val.class_info[1:]]
    assert len(set(ids)) == 2 and val.source_class_ids["coco"] == [0, 1, 2]
    with pytest.raises(InvalidDataError, match=r"bird\.json: .*Received other classes: \['bird'\]"):
        open_dataset(written("bird.json", {1: "cat, wild", 3: "bird"}), like=train)


def test_labelme_gets_the_whole_class_names(tmp_path):
    from mrcnn.cli.datasets import open_dataset

    for folder, labels in (("train", ("cat, wild", "dog")), ("val", ("dog", "cat, wild"))):
        files.write_picture(tmp_path / folder / "a.png")
        shapes = [{"label": label, "points": files.CORNERS["leaf"]} for label in labels]
        files.write_json(tmp_path / folder / "a.json", files.labelme_content(shapes))
    val = open_dataset(tmp_path / "val", like=open_dataset(tmp_path / "train"))
    assert val.problems.counts == {} and val.load_mask(0)[1].tolist() == [2, 1]


@pytest.fixture
def two_cells(tmp_path):
    """A folder of LabelMe files with a round and a flat cell."""
    files.write_picture(tmp_path / "data" / "a.png")
    corners = zip(("cell, round", "cell, flat"), files.CORNERS.values(), strict=True)
    shapes = [{"label": label, "points": points} for label, points in corners]
    return files.write_json(tmp_path / "data" / "a.json", files.labelme_content(shapes)).parent


class Perfect:
    """A model that finds the round and the flat cell. Its own order is flat, round."""

    def __init__(self, names):
        self.config = SimpleNamespace(NUM_CLASSES=3, DETECTION_MAX_INSTANCES=100)
        self.class_names = ["BG", *names]

    def detect(self, images):
        masks = np.stack(files.masks(), axis=-1)
        boxes = np.array([[8, 10, 30, 40], [20, 50, 50, 80]])
        scores, names = np.array([0.9, 0.8], np.float32), self.class_names
        return [Detections(boxes, np.array([2, 1]), scores, masks, class_names=names) for _ in images]


@pytest.mark.parametrize("names", [["cell, flat", "cell, round"], ["cell", "cell"]])
def test_evaluate_tells_class_names_with_a_comma(names, two_cells, monkeypatch):
    """Those of an earlier version are cut at it."""
    from mrcnn.cli import evaluating

    monkeypatch.setattr(evaluating, "load_model", lambda name, settings: Perfect(names))
    options = {"limit": None, "min_score": None, "settings": (), "quiet": True}
    table, _ = evaluating.evaluate_model(two_cells, "model.h5", None, **options)
    assert table["class"] == ["all", "cell, flat", "cell, round"]
    assert table["objects"] == [2, 1, 1] and table["mask_AP50"] == pytest.approx([1, 1, 1])


def test_describe_tells_class_names_with_a_comma(two_cells):
    numbers = json.loads(run("describe", two_cells, "--json")[0])
    assert numbers["classes"] == {"cell, flat": 1, "cell, round": 1}


def test_label_images_hold_no_classes(tmp_path, two_cells):
    from mrcnn.cli.datasets import open_dataset

    files.write_picture(tmp_path / "masks" / "images" / "a.png")
    files.write_picture(tmp_path / "masks" / "labels" / "a.png", files.labels())
    for path in (tmp_path / "masks", tmp_path / "masks" / "labels"):
        with pytest.raises(InvalidDataError, match=r"masks: .*the model has 2: a, b\. Pass a COCO file"):
            open_dataset(path, classes=["a", "b"])
        with pytest.raises(InvalidDataError, match="the training data has 2: cell, flat, cell, round"):
            open_dataset(path, like=open_dataset(two_cells))
        assert open_dataset(path, classes=["a"]).class_names == ["BG", "a"]
        chosen = open_dataset(path, classes=["a", "b"], choice={"class": "b"})
        assert chosen.class_names == ["BG", "b"]


def test_the_folder_of_images_is_refused_where_no_format_uses_it(tmp_path, coco):
    from mrcnn.cli.datasets import open_dataset

    root = tmp_path / "bowl"
    files.write_picture(root / "a" / "images" / "a.png")
    files.write_picture(root / "a" / "masks" / "1.png", files.labels())
    assert len(open_dataset(root).image_ids) == 1
    with pytest.raises(ValueError, match=r"--images does not apply to .* have their own images/ and masks/"):
        open_dataset(root, images=tmp_path)
    # Of a training, --images may be that of the other images.
    like = open_dataset(coco, images=coco.parent)
    like.class_info = [*like.class_info, {"source": "masks", "id": 1, "name": "object"}]
    assert len(open_dataset(root, images=tmp_path, like=like, choice={"class": "object"}).image_ids) == 1


def test_labelme_images_without_shapes_are_background(two_cells, tmp_path):
    from mrcnn.cli.datasets import open_dataset
    from mrcnn.formats import write_dataset

    files.write_picture(two_cells / "empty.png")
    content = files.labelme_content(image="empty.png") | {"shapes": []}
    files.write_json(two_cells / "empty.json", content)
    dataset = open_dataset(two_cells)
    assert [dataset.is_listed_as_empty(image_id) for image_id in dataset.image_ids] == [False, True]
    write_dataset(dataset, tmp_path / "new", ["labelme"], copy_images=True)
    assert open_dataset(tmp_path / "new").num_images == 2
    assert json.loads(run("describe", two_cells, "--json")[0])["images"] == 2


@pytest.mark.parametrize("kind", ["via", "coco"])
@pytest.mark.parametrize("is_folder", [False, True])
def test_json_files_may_have_a_byte_order_mark(kind, is_folder, tmp_path):
    from mrcnn.cli.datasets import open_dataset

    files.write_picture(tmp_path / "a.png")
    content = files.via_content([files.via_region("leaf")]) if kind == "via" else files.coco_content()
    path = tmp_path / ("annotations.json" if kind == "coco" else "via.json")
    path.write_text(json.dumps(content), encoding="utf-8-sig")
    if is_folder and kind == "coco":
        path = tmp_path
    assert "leaf" in open_dataset(path).class_names


@pytest.mark.parametrize("kind", ["via", "coco"])
@pytest.mark.parametrize("name", ["annotations.json", "export.json"])
def test_annotations_of_many_images_are_parsed_once(kind, name, tmp_path, monkeypatch):
    """Such a file may have a gigabyte."""
    from mrcnn.cli.datasets import open_dataset

    files.write_picture(tmp_path / "a.png")
    content = files.via_content([files.via_region("leaf")]) if kind == "via" else files.coco_content()
    path = files.write_json(tmp_path / name, content)
    parsed = []
    monkeypatch.setattr(json, "loads", lambda text, loads=json.loads: parsed.append(text) or loads(text))
    for data in (path, tmp_path):
        assert "leaf" in open_dataset(data).class_names
        assert len(parsed) == 1
        parsed.clear()


def test_a_coco_file_beside_other_json_files(coco):
    from mrcnn.cli.datasets import open_dataset

    folder = coco.parent
    coco = coco.rename(folder / "result.json")
    files.write_json(folder / "notes.json", {"author": "somebody"})
    files.write_json(folder / "tasks.json", [{"id": 1, "annotations": []}])
    assert len(open_dataset(folder).image_ids) == 3
    shutil.copy(coco, folder / "second.json")
    with pytest.raises(InvalidDataError, match=r"files: result\.json, second\.json\. Pass the path of one"):
        open_dataset(folder)


@pytest.fixture
def many_other_files(tmp_path):
    """A folder with an image and 1200 JSON files of a format of its own."""
    files.write_picture(tmp_path / "data" / "a.png")
    for number in range(1200):
        path = tmp_path / "data" / f"n{number}.json"
        path.write_text(json.dumps({"size": [64, 80], "objects": [{"kind": "leaf"}]}))
    return tmp_path / "data"


def test_many_json_files_of_another_format_are_not_all_parsed(many_other_files, monkeypatch):
    from mrcnn.cli.datasets import open_dataset

    parsed = []
    monkeypatch.setattr(json, "loads", lambda text, loads=json.loads: parsed.append(text) or loads(text))
    with pytest.raises(
        InvalidDataError, match=r"Of the 1200 JSON files, 1000 were looked at: .* pass its path"
    ):
        open_dataset(many_other_files)
    assert len(parsed) == 1000
    parsed.clear()
    with pytest.raises(InvalidDataError, match="No dataset was recognized"):
        open_dataset(many_other_files.parent)
    assert len(parsed) < 50


def test_a_known_format_beside_many_json_files_is_found(many_other_files):
    from mrcnn.cli.datasets import open_dataset

    labelme = files.write_json(many_other_files / "a.json", files.labelme_content())
    assert "leaf" in open_dataset(many_other_files).class_names
    labelme.unlink()
    coco = files.write_json(many_other_files / "z.json", files.coco_content())
    assert "leaf" in open_dataset(many_other_files).class_names
    (many_other_files / "annotations").mkdir()
    coco.rename(many_other_files / "annotations" / "z.json")
    assert "leaf" in open_dataset(many_other_files).class_names


@pytest.mark.parametrize(
    "content, message",
    [
        (files.labelme_content(), "a LabelMe file, which describes one image. Pass the folder that it is in"),
        ([{"id": 1, "annotations": [], "data": {"image": "a.png"}}], r"Received: \[\{'annotations'.*Export"),
        ({"size": {"height": 6}, "objects": []}, r"must be a COCO file.*the fields \['size', 'objects'\]"),
        ({"metadata": {"vid": "3"}, "file": {}}, "VIA 3 project"),
    ],
)
def test_json_files_of_other_formats_are_named(content, message, tmp_path):
    from mrcnn.cli.datasets import open_dataset

    with pytest.raises(InvalidDataError, match=message):
        open_dataset(files.write_json(tmp_path / "a.json", content))


def test_the_class_attribute_of_via_files(tmp_path):
    files.write_picture(tmp_path / "a.png")
    region = files.via_region("leaf")
    region["region_attributes"]["age"] = "3"
    path = files.write_json(tmp_path / "via.json", files.via_content([region]))
    assert "--class-attribute" in run("describe", path, code=1)[1]
    described = json.loads(run("describe", path, "--class-attribute", "kind", "--json")[0])
    assert "leaf" in described["classes"]
    coco = tmp_path / "coco.json"
    run("convert", path, coco, "--class-attribute", "kind")
    assert "VIA" in run("describe", coco, "--class-attribute", "kind", code=1)[1]


def test_crowds_of_coco_files_as_objects(coco, tmp_path):
    content = json.loads(coco.read_text())
    for record in content["annotations"]:
        record |= {"iscrowd": 1, "attributes": {"occluded": False}}
    files.write_json(coco, content)
    assert "--crowds-as-objects" in run("describe", coco, code=3)[0]
    described = json.loads(run("describe", coco, "--crowds-as-objects", "--json")[0])
    assert described["instances"] == 6 and described["crowds"] == 0
    via = files.write_json(tmp_path / "via.json", files.via_content([files.via_region("leaf")], "0.png"))
    assert "COCO" in run("describe", via, "--crowds-as-objects", code=1)[1]


def test_settings_are_literals():
    from mrcnn.cli.models import parse_settings

    texts = ["LEARNING_RATE=0.5", "MASK_SHAPE=(1, 2)", "SEED=None", "IMAGE_RESIZE_MODE=pad64", "NAME=x=y"]
    assert parse_settings(texts) == {
        **{"LEARNING_RATE": 0.5, "MASK_SHAPE": (1, 2), "SEED": None},
        **{"IMAGE_RESIZE_MODE": "pad64", "NAME": "x=y"},
    }
    with pytest.raises(ValueError, match="--set must be NAME=VALUE"):
        parse_settings(["A"])
    with pytest.raises(ValueError, match=r"Received: WEIGHT_DEACY\. Did you mean WEIGHT_DECAY\?"):
        parse_settings(["WEIGHT_DEACY=5"])


def test_small_images_make_a_small_network(coco, monkeypatch):
    from mrcnn.cli.datasets import open_dataset
    from mrcnn.cli.training import size_of_inputs

    dataset = open_dataset(coco)
    assert size_of_inputs(dataset) == {"IMAGE_MIN_DIM": 192, "IMAGE_MAX_DIM": 192}  # 90 pixels, twice
    monkeypatch.setattr(dataset, "image_size", lambda image_id: (300, 500))
    assert size_of_inputs(dataset) == {}


def test_recipes_follow_the_weights(coco, monkeypatch, capsys):
    from mrcnn.cli import main, recipes

    assert recipes.chosen_recipe(None, None, False) == "scratch"
    assert recipes.chosen_recipe("imagenet", None, False) == "imagenet"
    assert recipes.chosen_recipe(None, "nucleus-light", False) == "fine-tune"
    assert recipes.chosen_recipe("constant", "nucleus-light", False) == "constant"
    assert recipes.chosen_recipe(None, None, True) is None
    for recipe in ("scratch", "imagenet"):
        assert recipes.recipe_of(recipes.config_of(recipe)) == recipe
    for options, message in (
        (("--recipe", "better"), "--recipe must be one of scratch, imagenet, fine-tune, constant"),
        (("--recipe", "fine-tune"), "needs trained weights. Pass a weight file or a name with --model"),
        (
            ("--recipe", "imagenet", "--model", "nucleus-light"),
            "starts from ImageNet weights, and --model nucleus-light from others. Leave out --model",
        ),
    ):
        monkeypatch.setattr(sys, "argv", ["mrcnn", "train", str(coco), *options])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 1
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        ("--resume a.h5 --model b.h5", "--resume and --model cannot be used together"),
        (
            "--recipe constant --any-orientation",
            "--recipe constant and --any-orientation cannot be used together",
        ),
        ("--batch 4 --set IMAGES_PER_GPU=2", "--batch 4 and --set IMAGES_PER_GPU=2 contradict each other."),
        ("--size 512 --set IMAGE_MAX_DIM=256", "--size 512 and --set IMAGE_MAX_DIM=256 contradict each"),
        ("--steps 9 --set STEPS_PER_EPOCH=8", "--steps 9 and --set STEPS_PER_EPOCH=8 contradict each other."),
        ("--name a --set NAME=b", "--name a and --set NAME=b contradict each other. Pass only one of them."),
        ("--learning-rate 0.1 --set LEARNING_RATE=0.2", "--learning-rate 0.1 and --set LEARNING_RATE=0.2"),
    ],
)
def test_options_of_a_training_that_contradict_each_other(options, message, coco):
    from typer.testing import CliRunner

    from mrcnn.cli.app import app

    done = CliRunner().invoke(app, ["train", str(coco), *options.split()])
    assert done.exit_code == 1 and message in done.output


def test_a_training_that_goes_on_may_repeat_its_settings():
    from mrcnn.cli.training import TrainOptions, check_options

    settings = ["NAME=a", "STEPS_PER_EPOCH=5", "LEARNING_RATE=1e-3"]
    check_options(TrainOptions(epochs=1, name="a", steps=5, learning_rate=0.001, settings=settings))


def test_images_of_16_bits_are_stretched(coco, caplog):
    """The augmentation of the recipes takes 8 bits. Broken images do not tell their type."""
    from mrcnn.cli import recipes
    from mrcnn.cli.datasets import open_dataset
    from mrcnn.data.augmentation_policies import camera_policy
    from mrcnn.data.loading import load_image_gt

    dataset = open_dataset(coco)
    config = recipes.config_of("scratch")
    recipes.settle_contrast(config, dataset, "scratch")
    assert config.CONTRAST_PERCENTILES is None and not caplog.messages
    for index in (0, 2):  # the other image has 8 bits
        pixels = files.picture(seed=index)[..., 0].astype(np.uint16) * 16
        Image.fromarray(pixels).save(coco.parent / f"{index}.png")
    (coco.parent / "0.png").write_bytes(b"broken")
    recipes.settle_contrast(config, dataset, "constant")
    assert config.CONTRAST_PERCENTILES is None
    recipes.settle_contrast(config, dataset, "scratch")
    assert config.CONTRAST_PERCENTILES == (1, 99.8)
    assert "stretch the contrast of each image to 8 bits" in caplog.text
    rng = np.random.default_rng(0)
    image, *_ = load_image_gt(dataset, config, 2, augmentation=camera_policy(), rng=rng)
    assert image.dtype == np.uint8 and image.max() > 200
    config = recipes.config_of("scratch")
    config.IMAGE_VALUE_RANGE = (0, 4095)
    recipes.settle_contrast(config, dataset, "scratch")
    assert config.CONTRAST_PERCENTILES is None


def test_recipes_train_on_images_of_any_range_and_channels(tmp_path):
    """Every recipe varies the images in their own range; those that cannot train say so at the start."""
    from mrcnn.cli import recipes
    from mrcnn.cli.datasets import open_dataset
    from mrcnn.cli.training import TrainOptions, settings_of
    from mrcnn.data.loading import load_image_gt

    tifffile = pytest.importorskip("tifffile")
    (tmp_path / "images").mkdir()
    bands = np.stack([files.picture(seed=seed)[..., 0] for seed in range(4)]).astype(np.uint16) * 16
    tifffile.imwrite(tmp_path / "images" / "a.tif", bands, photometric="minisblack", planarconfig="separate")
    files.write_picture(tmp_path / "labels" / "a.png", files.labels())
    dataset = open_dataset(tmp_path, choice={"channels": [0, 1, 2, 3]})
    options = TrainOptions(epochs=1, settings=["IMAGE_VALUE_RANGE=(0, 4095)"])
    values = settings_of(dataset, "scratch", options)
    assert values["IMAGE_CHANNEL_COUNT"] == len(values["MEAN_PIXEL"]) == 4
    config = recipes.config_of("scratch")
    with pytest.raises(ValueError, match=r"takes images of 3 channels .* training images of 4 channels"):
        recipes.check_channels(config, dataset)
    for setting, value in values.items():
        setattr(config, setting, value)
    recipes.check_channels(config, dataset)
    recipes.settle_contrast(config, dataset, "scratch")
    rng = np.random.default_rng(0)
    steps = recipes.augmentation_of("scratch", any_orientation=True, copy_paste=True)
    image, *_ = load_image_gt(dataset, config, 0, augmentation=steps, rng=rng)
    assert image.dtype == np.uint16 and image.shape[2] == 4 and 1000 < image.mean() < 5000
    with pytest.raises(ValueError, match=r"--recipe imagenet needs images of 3 channels.*--recipe scratch"):
        settings_of(dataset, "imagenet", options)


def test_stages_of_recipes():
    from mrcnn.cli import recipes

    def stages(recipe, layers=None):
        config = recipes.config_of(recipe)
        config.STEPS_PER_EPOCH = 50
        return recipes.stages_of(recipe, config, 10, layers, 0.001)

    assert [stage.layers for stage in stages("imagenet")] == ["heads", "3+"]
    assert [stage.layers for stage in stages("imagenet", "all")] == ["all"]
    assert [stage.layers for stage in stages("scratch")] == ["all"]
    assert stages("constant", "heads") == [(0.001, 10, "heads")]
    assert float(stages("fine-tune")[0].learning_rate(50)) == pytest.approx(0.001, rel=1e-3)


def test_augmentations_of_a_recipe():
    from mrcnn.cli import recipes

    def names(*arguments):
        return [type(step).__name__ for step in recipes.augmentation_of(*arguments)]

    assert names("imagenet", False, False) == ["CameraPolicy"]
    assert names("imagenet", False, True) == ["ScaleJitter", "CopyPaste", "CameraPolicy"]
    assert names("constant", True, True) == ["ScaleJitter", "CopyPaste"]
    assert names("constant", True, False) == []
    assert recipes.augmentation_of("scratch", True, False)[0].any_orientation


@pytest.mark.slow
def test_from_annotations_to_an_exported_model(coco, tmp_path):
    small = [
        *(
            "--set",
            "IMAGE_MIN_DIM=64",
            "--set",
            "IMAGE_MAX_DIM=64",
            "--set",
            "RPN_ANCHOR_SCALES=(4,8,16,32,64)",
        ),
        *("--set", "DETECTION_MIN_CONFIDENCE=0.0", "--steps", "1", "--logs", tmp_path / "logs"),
    ]
    trained = json.loads(
        run("train", coco, "--validation", coco, "--epochs", "1", "--copy-paste", *small, "--json")[0]
    )
    weights = trained["weights"]
    assert trained["epoch"] == 1
    assert f"--resume {weights}" in trained["go_on"] and "--copy-paste" in trained["go_on"]
    go_on = trained["go_on"].split(" ", 1)[1].replace("--epochs 2", "--epochs 2 --json")
    again = json.loads(run(*shlex.split(go_on))[0])
    assert again["epoch"] == 2
    # --resume alone finds the folder and the name of the run, and names the weights that it wrote.
    later = json.loads(run("train", coco, "--resume", weights, "--epochs", "2", "--steps", "1", "--json")[0])
    assert Path(later["weights"]) == Path(weights).with_name(Path(weights).name.replace("0001", "0002"))

    exported = json.loads(run("export", weights, tmp_path / "model.onnx", "--json")[0])
    assert Path(exported["path"]).is_file()
    for model in (weights, exported["path"]):
        table = json.loads(run("evaluate", coco, "--model", model, "--limit", "2", "--json")[0])
        assert len(table["box_AP"]) == 3
        (tmp_path / "0.jpg").write_bytes(b"broken")
        out, err = run(
            *("detect", tmp_path / "0.png", tmp_path / "1.png", tmp_path / "0.jpg", "--model", model),
            *("--output", tmp_path / "found", "--min-score", "0", "--json"),
            code=3,
        )
        found = json.loads(out)
        assert found["images"] == 2
        assert "1 of 3 images were left out" in err
        assert (tmp_path / "found" / "annotations.json").is_file()


# --- mrcnn inspect ---


@pytest.fixture(scope="module")
def inspected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspected")
    Image.fromarray(skimage.data.immunohistochemistry()[:128, :160]).save(folder / "cells.png")
    output, _ = run_here(
        *("inspect", folder / "cells.png", "--model", "nucleus-light", "--output", folder / "out"),
        *("--set", "IMAGE_MIN_SCALE=1", "--set", "DETECTION_MIN_CONFIDENCE=0", "--json"),
    )
    return folder / "out", json.loads(output)


def test_every_step_has_a_picture(inspected):
    _, result = inspected
    assert len(result["pictures"]) == 7
    for path in result["pictures"]:
        with Image.open(path) as picture:
            assert min(picture.size) > 100
            assert len(picture.convert("L").getcolors(256)) > 10  # not a blank sheet


def test_the_page_needs_no_other_file(inspected):
    folder, result = inspected
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert result["page"] == str(folder / "index.html")
    assert re.findall(r"<h2>(.*?)</h2>", page) == [title for _, title, _ in inspecting.STEPS]
    sources = re.findall(r'src="(.*?)"', page)
    assert len(sources) == 7
    assert all(source.startswith("data:image/png;base64,") for source in sources)


def test_inspect_reads_the_chosen_channels(tmp_path, monkeypatch):
    tifffile = pytest.importorskip("tifffile")
    bands = np.stack([files.picture(seed=seed)[..., 0] for seed in range(4)])
    tifffile.imwrite(tmp_path / "a.tif", bands, photometric="minisblack", planarconfig="separate")
    model = SimpleNamespace(config=SimpleNamespace(IMAGE_CHANNEL_COUNT=3))
    monkeypatch.setattr(inspecting, "load_keras_model", lambda name, settings: model)
    drawn = []
    monkeypatch.setattr(inspecting, "_drawings", lambda model, image: drawn.append(image) or iter(()))
    inspect = partial(inspecting.inspect_image, "m.h5", tmp_path / "a.tif", tmp_path, settings=())
    for channels in ([2], [2, 1, 0]):
        with pytest.raises(ValueError, match="zip"):  # there are no drawings
            inspect(choice={"channels": channels})
        assert np.array_equal(np.atleast_3d(drawn[-1])[..., 0], bands[2])
    with pytest.raises(InvalidDataError, match="takes images of 3 channels"):
        inspect(choice={"channels": [0, 1]})


def test_a_missing_image_is_named(tmp_path):
    _, messages = run("inspect", tmp_path / "none.jpg", "--model", "nucleus-light", code=1)
    assert "none.jpg" in messages
    assert "Traceback" not in messages
    assert not (tmp_path / "inspected").exists()


def test_inspect_names_an_exported_file(tmp_path):
    files.write_picture(tmp_path / "a.png")
    (tmp_path / "leaves.onnx").write_bytes(b"")
    message = run("inspect", tmp_path / "a.png", "--model", tmp_path / "leaves.onnx", code=1)[1]
    assert "leaves.onnx: This command does not accept exported files. Pass the weight file." in message
