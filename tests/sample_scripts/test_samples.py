"""The command lines of the samples, with tiny networks on generated data; and the names that others import.

The networks are not trained, so detections are random. The tests look at the files.
"""

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import annotation_files as files
import numpy as np
import PIL.Image
import pytest
from keras import layers
from pycocotools.coco import COCO
from tiny_model import TinyConfig, tiny_backbone

from mrcnn.checkpoints.weights import save_weights
from mrcnn.data import augmentation
from mrcnn.dataset import Dataset
from mrcnn.inference.video import VideoReader, VideoWriter
from mrcnn.model import MaskRCNN
from samples.balloon import balloon
from samples.coco import coco
from samples.coins import coins
from samples.nucleus import nucleus
from samples.pennfudan import pennfudan
from samples.shapes import shapes

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("MRCNN_DATA", ROOT.parent / "shared" / "data"))
MODULES = {"balloon": balloon, "coco": coco, "nucleus": nucleus, "pennfudan": pennfudan, "shapes": shapes}
SCRIPTS = {
    "balloon": "train evaluate splash --dataset --weights --logs --image --video --light --backbone",
    "coco": "train evaluate --dataset --year --model --logs --limit --download --light",
    "nucleus": "count train detect evaluate predict --dataset --weights --logs --subset --light",
    "pennfudan": "--dataset --split --weights --logs --classes --light --copy-paste --seed",
    "shapes": "train detect --weights --logs --light",
}
# Packages that take long to import; no script needs them to answer --help or to refuse an argument.
HEAVY = {"tensorflow", "jax", "torch", "keras", "matplotlib", "imgaug", "skimage.io", "scipy.ndimage"}


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run a sample's command line in an empty folder with a tiny network in place of its light one."""

    def command(module, light, *arguments):
        own = getattr(module, light)
        kept = {"NAME": own.NAME, "NUM_CLASSES": own.NUM_CLASSES}
        tiny = type(light, (TinyConfig, own), {**kept, "IMAGE_MIN_DIM": 128, "IMAGE_MAX_DIM": 128})
        monkeypatch.setattr(module, light, tiny)
        logs = "--logs", str(tmp_path / "logs")
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments), "--light", *logs])
        module.main()
        monkeypatch.setattr(module, light, own)

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return command


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A tiny network with random weights for one class. It detects one image at a time."""

    class OneClassConfig(TinyConfig):
        NUM_CLASSES = 1 + 1
        IMAGES_PER_GPU = 1

    return MaskRCNN("inference", OneClassConfig(), tmp_path_factory.mktemp("logs"))


def balloon_folder(root):
    regions = [files.via_region("leaf"), files.via_region("nut")]
    for subset, number in (("train", 0), ("val", 1)):
        files.write_picture(root / subset / f"{number}.jpg", files.picture(seed=number))
        content = files.via_content(dict(enumerate(regions)) if number else regions, f"{number}.jpg")
        files.write_json(root / subset / "via_region_data.json", content)
    return root


def coco_folder(root):
    for subset, image_id in (("train", 42), ("val", 7)):
        files.write_picture(root / f"{subset}2017" / f"{image_id}.jpg", files.picture(seed=image_id))
        content = files.coco_content(f"{image_id}.jpg")
        content["images"][0]["id"] = image_id
        content["categories"] = [{"id": 17, "name": "cat"}, {"id": 3, "name": "car"}]
        for annotation in content["annotations"]:
            annotation["image_id"] = image_id
        content["annotations"][1]["iscrowd"] = int(subset == "train")
        files.write_json(root / "annotations" / f"instances_{subset}2017.json", content)
    return root


def nucleus_folder(root, names=("a", "b", nucleus.VAL_IMAGE_IDS[0])):
    for name in names:
        files.write_picture(root / "stage1_train" / name / "images" / f"{name}.png")
        for number, mask in enumerate(files.masks()):
            path = root / "stage1_train" / name / "masks" / f"{number}.png"
            files.write_picture(path, mask.astype(np.uint8) * 255)
    files.write_picture(root / "stage1_test" / "c" / "images" / "c.png")
    return root


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_lists_all_options(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        MODULES[name].main()
    printed = capsys.readouterr().out
    assert not [word for word in SCRIPTS[name].split() if word not in printed]


@pytest.mark.parametrize("name", [*SCRIPTS, "coins"])
def test_help_loads_nothing_heavy(name):
    """In the folder of the script, as a program of its own."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", f"{name}.py", "--help"],
        cwd=ROOT / "samples" / name,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0 and "--logs" in result.stdout, result.stderr[-2000:]
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "numpy" in imported
    assert not HEAVY & imported


@pytest.mark.parametrize(
    "module, line, message",
    [
        (balloon, "train --weights=scratch", "train needs --dataset."),
        (balloon, "splash --weights=scratch", "splash needs --image or --video, and not both."),
        (
            balloon,
            "splash --weights=scratch --image=https://a --video=0",
            "--image or --video, and not both.",
        ),
        (balloon, "splash --weights=scratch --image=nowhere.png", "no file nowhere.png"),
        (balloon, "evaluate --weights=scratch --dataset=nowhere", "nowhere/val/via_region_data.json"),
        (balloon, "splash --weights=last --video=0", "no folder logs"),
        (balloon, "splash --weights=nowhere.h5 --video=0", "no file nowhere.h5"),
        (coco, "evaluate --dataset=nowhere --model=coco", "instances_minival2014.json"),
        (coco, "evaluate --dataset=nowhere --download --model=nowhere.h5", "no file nowhere.h5"),
        (coco, "evaluate --dataset=nowhere --download --model=LAST", "no folder logs"),
        (coco, "train --dataset=nowhere --download --model=coco --steps=0", "--steps must be at least 1"),
        (pennfudan, "--dataset=nowhere.zip", "a folder or a zip file. Received: nowhere.zip"),
        (pennfudan, "--dataset=. --split=nowhere.json", "no file nowhere.json"),
        (pennfudan, "--dataset=. --weights=nowhere.h5", "no file nowhere.h5"),
        (pennfudan, "--dataset=. --weights=imagenet", "--weights=imagenet needs --light."),
        (pennfudan, "--dataset=. --weights=scratch --epochs=0", "--epochs must be at least 1"),
        (shapes, "detect --weights=last", "no folder logs"),
        (shapes, "train --weights=nowhere.h5", "no file nowhere.h5"),
        (shapes, "detect --output=nowhere/shapes.png", "--output must be in an existing folder"),
        (
            balloon,
            "splash --weights=coco --light --video=0",
            "Use --weights=imagenet, scratch, last or a path.",
        ),
        (
            balloon,
            "splash --weights=imagenet --light --backbone=mobilenetv2 --video=0",
            "--weights=imagenet is an EfficientNet-Lite0, which --backbone=mobilenetv2 does not build.",
        ),
        (
            balloon,
            "splash --weights=scratch --backbone=efficientnetlite0 --video=0",
            "--backbone=efficientnetlite0 needs --light.",
        ),
        (
            balloon,
            "splash --weights=last --new-classes --video=0",
            "--new-classes needs the path of a weight",
        ),
        (coco, "train --dataset=. --download --light --model=coco", "--model=coco is a ResNet-101, which"),
        (
            coco,
            "train --dataset=. --download --light --model=imagenet",
            "Use --model=scratch, last or a path.",
        ),
        (pennfudan, "--dataset=. --light", "Use --weights=imagenet, scratch or a path."),
        (shapes, "train --light --weights=coco", "--weights=coco is a ResNet-101, which --light does not"),
        (shapes, "detect --light --weights=imagenet", "--weights=imagenet is a ResNet-50, which --light"),
        (coins, "--epochs=0", "--epochs must be at least 1"),
        (coins, "--output=nowhere/coins.png", "--output must be in an existing folder"),
    ],
)
def test_wrong_command_lines_end_with_one_sentence(module, line, message, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [module.__name__, *line.split()])
    with pytest.raises(SystemExit, match="2"):
        module.main()
    captured = capsys.readouterr()
    assert message in captured.err and len(captured.err.splitlines()) == 1
    assert captured.out == "" and list(tmp_path.iterdir()) == []


def test_weights_and_results_go_to_the_current_folder(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["shapes", "train"])
    assert shapes.parse_arguments().logs == Path("logs")
    for path in (nucleus.RESULTS_DIR, nucleus.COCO_WEIGHTS, balloon.COCO_WEIGHTS, coco.COCO_WEIGHTS):
        assert not path.is_absolute()


def test_balloon_splashes_image_and_video(detector, tmp_path, monkeypatch, capsys):
    picture = files.write_picture(tmp_path / "photo.png", orientation=6)
    with VideoWriter(tmp_path / "clip.mp4", 12) as writer:
        for number in range(3):
            writer.write(files.picture(64, 96, seed=number))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    image = balloon.detect_and_color_splash(detector, image_path=str(picture))
    video = balloon.detect_and_color_splash(detector, video_path=str(tmp_path / "clip.mp4"))
    assert sorted(Path().iterdir()) == sorted([image, video])
    assert np.asarray(PIL.Image.open(image)).shape == (files.WIDTH, files.HEIGHT, 3)  # turned
    with VideoReader(video) as reader:
        assert reader.rate == pytest.approx(12, rel=0.01)
        assert [frame.shape for frame in reader] == [(64, 96, 3)] * 3
    assert f"Saved to {video}" in capsys.readouterr().out


@pytest.mark.slow
def test_balloon_trains_measures_and_splashes(run, tmp_path, capsys):
    data = balloon_folder(tmp_path / "data")
    run(balloon, "LightBalloonConfig", "train", "--dataset", data, "--weights=scratch", "--epochs=1")
    trained = capsys.readouterr().out
    run(balloon, "LightBalloonConfig", "evaluate", "--dataset", data, "--weights=last")
    for printed in (trained, capsys.readouterr().out):
        assert "mask_AP" in printed and "balloon" in printed
    picture = files.write_picture(tmp_path / "photo.png")
    run(balloon, "LightBalloonConfig", "splash", "--weights=last", "--image", picture)
    assert [path.suffix for path in Path().iterdir()] == [".png"]


def test_color_splash_keeps_colors_inside_masks():
    image = files.picture()
    leaf, nut = files.masks()
    splash = balloon.color_splash(image, np.stack([leaf, nut], axis=-1))
    assert splash.dtype == np.uint8
    assert np.array_equal(splash[leaf | nut], image[leaf | nut])
    outside = splash[~(leaf | nut)]
    assert (outside == outside[:, :1]).all()
    gray = balloon.color_splash(image, np.zeros((*image.shape[:2], 0), bool))
    assert (gray == gray[..., :1]).all()
    luminance = image @ [0.2125, 0.7154, 0.0721]
    assert abs(gray[..., 0] - luminance).max() <= 1


def test_balloon_refuses_unknown_subsets_and_no_source(tmp_path):
    with pytest.raises(ValueError, match="`subset` must be one of"):
        balloon.BalloonDataset().load_balloon(tmp_path, "test")
    with pytest.raises(ValueError, match="`image_path` or `video_path`"):
        balloon.detect_and_color_splash(None)
    with pytest.raises(ValueError, match="Received: both"):
        balloon.detect_and_color_splash(None, "a.png", "a.mp4")


def test_coco_evaluates(run, tmp_path, capsys):
    data = coco_folder(tmp_path / "coco")
    run(coco, "LightCocoConfig", "evaluate", "--dataset", data, "--year=2017", "--model=SCRATCH", "--limit=0")
    printed = capsys.readouterr().out
    assert "box_AP" in printed and "s for 1 images" in printed
    assert "NUM_CLASSES" not in printed  # only with --verbose


@pytest.mark.slow
def test_coco_trains_in_stages_and_continues(run, tmp_path, capsys):
    data = coco_folder(tmp_path / "coco")
    run(coco, "LightCocoConfig", "train", "--dataset", data, "--year=2017", "--model=scratch", "--epochs=1")
    run(coco, "LightCocoConfig", "train", "--dataset", data, "--year=2017", "--model=last", "--epochs=2")
    printed = capsys.readouterr().out
    assert "Training layers 'all', epochs 1 to 1" in printed
    assert "Training layers 'all', epochs 2 to 2" in printed
    written = sorted(path.name for path in (tmp_path / "logs").rglob("*.h5"))
    assert written == [f"mask_rcnn_coco-light_000{epoch}.h5" for epoch in (1, 2)]


class Recorder:
    """Stands for a model in training whose run has completed some epochs. It records what `train` gets."""

    def __init__(self, config, epoch):
        self.config, self.epoch, self.calls = config, epoch, []

    def train(self, train_set, val_set, learning_rate, epochs, layers, augmentation=None):
        self.calls.append((learning_rate, epochs, layers, augmentation))


def recorded(module, monkeypatch, line, epoch):
    """What `train` of a sample does for a command line, if the loaded run has completed some epochs."""
    monkeypatch.setattr(module, "load_dataset", lambda *arguments: None)
    monkeypatch.setattr(module, "load_weights", lambda *arguments: None)
    monkeypatch.setattr(module.runs, "find_last", lambda *arguments: None)
    arguments = parsed(module, monkeypatch, line)
    model = Recorder(module.config_for(arguments), epoch)
    if module is coco:
        coco.train(model, arguments)
    else:
        monkeypatch.setattr(module.mrcnn, "MaskRCNN", lambda *arguments: model)
        module.train(model.config, arguments)
    return model.calls


@pytest.mark.parametrize(
    "module, line",
    [
        (coco, "train --dataset=. --download --light --epochs=4 --steps=5 --model"),
        (shapes, "train --light --epochs=4 --steps=5 --weights"),
    ],
    ids=["coco", "shapes"],
)
def test_light_runs_continue_where_they_stopped(module, line, monkeypatch):
    ((begin, *whole, policy),) = recorded(module, monkeypatch, f"{line}=scratch", 0)
    assert whole == [4, "all"] and policy is not None
    ((rate, *rest, same_policy),) = recorded(module, monkeypatch, f"{line}=last", 3)
    assert rest == whole and type(same_policy) is type(policy)
    assert [float(rate(step)) for step in range(5)] == [float(begin(step)) for step in range(15, 20)]
    ((_, *done, _),) = recorded(module, monkeypatch, f"{line}=last", 4)
    assert done == whole  # `MaskRCNN.train` warns that all epochs have run


@pytest.mark.slow
def test_coco_trains_loaded_weights_with_mirrored_images(tmp_path, monkeypatch):
    """Without --light. The network is tiny."""

    class TinyCocoConfig(TinyConfig, coco.CocoConfig):
        NAME, NUM_CLASSES = coco.CocoConfig.NAME, coco.CocoConfig.NUM_CLASSES
        IMAGE_MIN_DIM = IMAGE_MAX_DIM = 128
        STEPS_PER_EPOCH = 1

    data, weights = coco_folder(tmp_path / "coco"), tmp_path / "old.h5"
    model = MaskRCNN("training", TinyCocoConfig(), tmp_path / "logs")
    save_weights(model.keras_model, weights)
    line = f"train --dataset={data} --year=2017 --epochs=1 --model={weights}"
    arguments = parsed(coco, monkeypatch, line)
    coco.load_weights(model, arguments.model)
    coco.train(model, arguments)
    assert model.epoch == 4  # after three stages
    written = sorted(path.name for path in (tmp_path / "logs").rglob("*.h5"))
    assert written == [f"mask_rcnn_coco_000{epoch}.h5" for epoch in (1, 2, 3, 4)]


def test_coco_trains_loaded_weights_in_three_stages(monkeypatch):
    line = "train --dataset=. --download --epochs=2 --model=last"
    calls = recorded(coco, monkeypatch, line, 1)
    assert [call[:3] for call in calls] == [
        (0.001, 2, "heads"),
        (0.001, 6, "4+"),
        (pytest.approx(0.0001), 8, "all"),
    ]
    for *_, mirror in calls:
        augmentation.check(mirror, Dataset())  # as `MaskRCNN.train` does


def test_coco_dataset_has_all_categories_and_records(tmp_path):
    dataset = coco.CocoDataset()
    truth = dataset.load_coco(coco_folder(tmp_path), "train", "2017", return_coco=True)
    dataset.prepare()
    assert isinstance(truth, COCO)
    assert dataset.num_classes == 81 and dataset.class_names[-1] == "toothbrush"
    assert dataset.class_names[16] == "cat" and dataset.get_source_class_id(80, "coco") == 90
    assert dataset.load_mask(0)[1].tolist() == [3, -16]  # category 17 is class 16
    info = dataset.image_info[0]
    assert (info["id"], info["width"], info["height"]) == (42, files.WIDTH, files.HEIGHT)
    assert dataset.image_reference(0) == "http://cocodataset.org/#explore?id=42"
    mask = dataset.annToMask(info["annotations"][0], files.HEIGHT, files.WIDTH)
    assert np.array_equal(mask, truth.annToMask(info["annotations"][0]))
    chosen = coco.CocoDataset()
    chosen.load_coco(tmp_path, "train", "2017", class_ids=[17])
    chosen.prepare()
    assert chosen.class_names == ["BG", "cat"] and chosen.load_mask(0)[1].tolist() == [-1]


def test_coco_results_have_cocos_ids_and_boxes(tmp_path):
    dataset = coco.CocoDataset()
    truth = dataset.load_coco(coco_folder(tmp_path), "val", "2017", return_coco=True)
    dataset.prepare()
    masks, class_ids = dataset.load_mask(0)
    rois = np.array([[8.04, 10, 30, 40], [20, 50, 50, 80]])
    results = coco.build_coco_results(dataset, [7], rois, class_ids, np.array([0.9, 0.8]), masks)
    assert [result["category_id"] for result in results] == [3, 17]
    assert results[0]["bbox"] == pytest.approx([10, 8, 30, 22])
    assert results[0]["image_id"] == 7
    truth.loadRes(json.loads(json.dumps(results)))  # COCO's own reader takes them
    assert coco.build_coco_results(dataset, [7], None, class_ids, class_ids, masks) == []


def test_coco_downloads_what_is_missing(tmp_path, monkeypatch):
    data = coco_folder(tmp_path / "there")
    served = tmp_path / "served"
    served.mkdir()
    for name in ("train2017", "val2017", "annotations"):
        archive = {"annotations": "annotations_trainval2017"}.get(name, name)
        shutil.make_archive(str(served / archive), "zip", data, name)
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in served.iterdir()}
    assert hashes.keys() <= coco.SHA256.keys()
    monkeypatch.setattr(coco, "SHA256", hashes)
    handler = partial(SimpleHTTPRequestHandler, directory=str(served))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *arguments: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(coco, "IMAGES_URL", address + "/{subset}{year}.zip")
        monkeypatch.setattr(coco, "ANNOTATIONS_URL", address + "/annotations_trainval{year}.zip")
        root = tmp_path / "new"
        for subset in ("train", "val", "val"):
            dataset = coco.CocoDataset()
            dataset.load_coco(root, subset, "2017", auto_download=True)
            assert len(dataset.image_info) == 1
        hashes["val2017.zip"] = "0" * 64
        with pytest.raises(OSError, match=r"val2017\.zip: the server sent a different file than expected"):
            coco.CocoDataset().load_coco(tmp_path / "other", "val", "2017", auto_download=True)
        server.shutdown()
    assert sorted(path.name for path in root.iterdir()) == ["annotations", "train2017", "val2017"]
    assert list((tmp_path / "other").iterdir()) == []


@pytest.mark.parametrize(
    "text, expected", [("True", True), ("anything", True), ("0", False), ("false", False)]
)
def test_download_option_takes_a_value_or_none(text, expected):
    assert coco.is_yes(text) is expected


def test_nucleus_subsets(tmp_path):
    nucleus_folder(tmp_path / "fixed")
    nucleus_folder(tmp_path / "excerpt", [f"n{number}" for number in range(7)])
    names = {}
    for root in ("fixed", "excerpt"):
        for subset in ("train", "val", "stage1_train"):
            dataset = nucleus.load_dataset(tmp_path / root, subset)
            names[root, subset] = [dataset.image_reference(image_id) for image_id in dataset.image_ids]
    assert names["fixed", "val"] == [nucleus.VAL_IMAGE_IDS[0]] and names["fixed", "train"] == ["a", "b"]
    assert names["excerpt", "val"] == ["n0", "n5"] and len(names["excerpt", "train"]) == 5
    assert len(names["fixed", "stage1_train"]) == 3
    masks, class_ids = nucleus.load_dataset(tmp_path / "fixed", "train").load_mask(0)
    assert np.array_equal(masks, np.stack(files.masks(), axis=-1)) and class_ids.tolist() == [1, 1]
    test = nucleus.load_dataset(tmp_path / "fixed", "stage1_test")
    assert test.load_mask(0)[0].shape == (files.HEIGHT, files.WIDTH, 0)
    with pytest.raises(ValueError, match="`subset` must be"):
        nucleus.load_dataset(tmp_path, "stage3")
    with pytest.raises(FileNotFoundError, match=r"train\.zip"):
        nucleus.load_dataset(tmp_path, "train")


def test_nucleus_reads_zip_files_of_label_images(tmp_path):
    with zipfile.ZipFile(tmp_path / "val.zip", "w") as archive:
        archive.write(files.write_picture(tmp_path / "a.png"), "images/a.png")
        archive.write(files.write_picture(tmp_path / "b.png", files.labels(np.uint16)), "labels/a.png")
    dataset = nucleus.load_dataset(tmp_path, "val")
    masks, class_ids = dataset.load_mask(0)
    assert np.array_equal(masks, np.stack(files.masks(), axis=-1)) and class_ids.tolist() == [1, 1]
    assert np.array_equal(dataset.load_image(0), files.picture())


def test_nucleus_run_lengths():
    mask = np.zeros((3, 4), bool)
    mask[1, 1] = mask[2, 1] = mask[0, 2] = True
    assert nucleus.rle_encode(mask) == "5 3"
    assert np.array_equal(nucleus.rle_decode("5 3", mask.shape), mask)
    assert nucleus.rle_encode(np.zeros((3, 4), bool)) == ""
    with pytest.raises(ValueError, match="leaves an image"):
        nucleus.rle_decode("12 2", (3, 4))
    both = np.stack([np.ones((3, 4), bool), mask], axis=-1)
    lines = nucleus.mask_to_rle("x", both, np.array([0.5, 0.9])).splitlines()
    assert lines == ["x, 5 3", "x, 1 4 8 5"]  # the better mask keeps its pixels
    assert nucleus.mask_to_rle("x", np.zeros((3, 4, 0)), np.zeros(0)) == "x,"


def test_nucleus_writes_a_submission_and_pictures(detector, tmp_path, monkeypatch):
    monkeypatch.setattr(nucleus, "RESULTS_DIR", tmp_path / "results")
    folder = nucleus.detect(detector, nucleus_folder(tmp_path / "data"), "stage1_test")
    assert folder.parent == tmp_path / "results"
    assert sorted(path.name for path in folder.iterdir()) == ["c.png", "submit.csv"]
    with open(folder / "submit.csv") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["ImageId", "EncodedPixels"] and {row[0] for row in rows[1:]} == {"c"}


def test_nucleus_detects_some_images_and_writes_to_a_folder(detector, tmp_path, monkeypatch):
    """The folder may exist."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nucleus.mrcnn, "MaskRCNN", lambda *arguments: detector)
    data, output = nucleus_folder(tmp_path / "data"), tmp_path / "found"
    line = f"detect --dataset={data} --subset=stage1_train --weights=scratch --output={output} --images=2"
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["nucleus.py", *line.split()])
        nucleus.main()
    names = sorted(path.name for path in output.iterdir())
    assert len(names) == 3 and "submit.csv" in names  # and two drawings
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "found"]


def test_nucleus_takes_coco_weights_of_a_deeper_network(detector, tmp_path, monkeypatch):
    """ResNet-101 has more layers than the ResNet-50 of 2018."""

    def deeper(image, stage5=True, train_bn=None):
        stages = tiny_backbone(image)
        return [*stages[:4], layers.Conv2D(8, 3, padding="same", name="res5b_tiny")(stages[4])]

    config = type(
        "DeeperConfig", (TinyConfig,), {"BACKBONE": staticmethod(deeper), "NUM_CLASSES": 81, "SEED": 4}
    )()
    published = MaskRCNN("inference", config, tmp_path).keras_model
    published.save_weights(tmp_path / "coco.h5")
    detector.keras_model.save_weights(tmp_path / "begin.h5")
    monkeypatch.setattr(nucleus, "COCO_WEIGHTS", tmp_path / "coco.h5")
    with pytest.warns(UserWarning, match="res5b_tiny"):
        nucleus.load_weights(detector, "coco")
    first = [model.get_layer("res1_tiny").get_weights()[0] for model in (detector.keras_model, published)]
    assert np.array_equal(*first)
    detector.load_weights(tmp_path / "begin.h5", resume=False)


def test_pennfudan_takes_a_split_by_hand(tmp_path):
    for name in "abc":
        files.write_picture(tmp_path / "data" / "images" / f"{name}.jpg")
        files.write_picture(tmp_path / "data" / "labels" / f"{name}.png", files.labels())
    split = {"train": [{"id": "a"}, {"id": "c"}], "val": [{"id": "b"}]}
    path = files.write_json(tmp_path / "split.json", split)
    parts = pennfudan.load_datasets(tmp_path / "data", "leaf", path)
    assert [[info["id"] for info in part.image_info] for part in parts] == [["a", "c"], ["b"]]
    assert parts[1].class_names == ["BG", "leaf"]
    sizes = [part.num_images for part in pennfudan.load_datasets(tmp_path / "data", "leaf", None)]
    assert sizes == [2, 1]
    files.write_json(path, {"train": [{"name": "a"}], "val": []})
    with pytest.raises(ValueError, match=r"split\.json, train: `id` must be"):
        pennfudan.load_datasets(tmp_path / "data", "leaf", path)


@pytest.mark.parametrize(
    "load",
    [pennfudan.load_weights, partial(balloon.load_weights, new_classes=True)],
    ids=["pennfudan", "balloon"],
)
def test_weights_of_other_objects_come_without_their_classes(load, detector, tmp_path):
    path = tmp_path / "own20260101T0000" / "mask_rcnn_own_0007.h5"
    path.parent.mkdir()
    detector.keras_model.save_weights(path)
    kept = {name: detector.keras_model.get_layer(name) for name in ("res1_tiny", "mrcnn_class_logits")}
    begin = {name: layer.get_weights()[0] for name, layer in kept.items()}
    for layer in kept.values():
        layer.set_weights([values + 1 for values in layer.get_weights()])
    load(detector, str(path))
    assert np.array_equal(kept["res1_tiny"].get_weights()[0], begin["res1_tiny"])
    assert np.array_equal(kept["mrcnn_class_logits"].get_weights()[0], begin["mrcnn_class_logits"] + 1)
    assert detector.epoch == 0
    detector.load_weights(path, resume=False)


@pytest.mark.slow
def test_pennfudan_describes_trains_and_measures(run, tmp_path, capsys):
    for number in range(5):
        files.write_picture(tmp_path / "data" / "images" / f"{number}.jpg", files.picture(seed=number))
        files.write_picture(tmp_path / "data" / "labels" / f"{number}.png", files.labels())
    own = ("--dataset", tmp_path / "data", "--classes=leaf", "--weights=scratch", "--epochs=1", "--steps=2")
    run(pennfudan, "LightOwnConfig", *own)
    printed = capsys.readouterr().out
    assert "4 images; 8 objects" in printed and "leaf" in printed and "mask_AP" in printed
    assert Path("dataset.png").exists()


def parsed(module, monkeypatch, line):
    monkeypatch.setattr(sys, "argv", [module.__name__, *line.split()])
    return module.parse_arguments()


def test_the_light_networks_of_the_initial_weights(tmp_path, monkeypatch):
    own = partial(parsed, pennfudan, monkeypatch)
    light = f"--dataset={tmp_path} --light"
    assert pennfudan.config_for(own(f"{light} --weights=scratch")).BACKBONE == "mobilenetv2"
    config = pennfudan.config_for(own(f"{light} --weights=imagenet --seed=3"))
    assert (config.BACKBONE, config.TRAIN_BN, config.SEED) == ("efficientnetlite0", "heads", 3)
    config.validate()
    assert [stage.layers for stage in pennfudan.stages(config, "imagenet", 12)] == ["heads", "3+"]
    assert [stage.layers for stage in pennfudan.stages(config, "scratch", 12)] == ["all"]

    data = balloon_folder(tmp_path)
    for command, options, backbone in (
        ("train", "--weights=scratch", "mobilenetv2"),
        ("train", "--weights=imagenet", "efficientnetlite0"),
        ("evaluate", "--weights=scratch --backbone=efficientnetlite0", "efficientnetlite0"),
    ):
        line = f"{command} --dataset={data} --light {options}"
        config = balloon.config_for(parsed(balloon, monkeypatch, line), command)
        config.validate()
        assert backbone == config.BACKBONE, line


@pytest.mark.slow
def test_pennfudan_trains_in_stages_with_copy_paste(run, tmp_path, monkeypatch, capsys):
    """The tiny network has no ImageNet weights; this tests the stages and copy-paste."""
    for number in range(5):
        files.write_picture(tmp_path / "data" / "images" / f"{number}.jpg", files.picture(seed=number))
        files.write_picture(tmp_path / "data" / "labels" / f"{number}.png", files.labels())
    own = ("--dataset", tmp_path / "data", "--classes=leaf", "--weights=imagenet", "--copy-paste")
    monkeypatch.setattr(pennfudan, "load_weights", lambda model, choice: None)
    run(pennfudan, "PretrainedOwnConfig", *own, "--epochs=2", "--steps=1", "--seed=1")
    printed = capsys.readouterr().out
    assert "Training layers 'heads', epochs 1 to 1" in printed and "mask_AP" in printed
    assert "Training layers '3+', epochs 2 to 2" in printed


@pytest.mark.slow
def test_shapes_trains_and_draws(run, capsys):
    run(shapes, "LightShapesConfig", "train", "--steps=2")
    run(shapes, "LightShapesConfig", "detect", "--weights=last")
    assert Path("shapes.png").exists() and "Found" in capsys.readouterr().out


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no {DATA} (set MRCNN_DATA)")
def test_real_data_is_read_without_a_broken_entry(tmp_path):
    with zipfile.ZipFile(DATA / "balloon" / "balloon.zip") as archive:
        archive.extractall(tmp_path)
    found = {}
    for subset in ("train", "val"):
        dataset = balloon.load_dataset(tmp_path / "balloon", subset)
        outlines = sum(len(info["outlines"]) for info in dataset.image_info)
        found["balloon", subset] = dataset.num_images, outlines, dataset.problems.counts
        nuclei = nucleus.load_dataset(DATA / "nuclei", subset)
        found["nuclei", subset] = nuclei.num_images, nuclei.problems.counts
        people = coco.CocoDataset()
        people.load_coco(DATA / "coco-mini", subset, "2017")
        annotations = sum(len(info["annotations"]) for info in people.image_info)
        found["coco", subset] = len(people.image_info), annotations, people.problems.counts
    assert found == {
        ("balloon", "train"): (61, 255, {}),
        ("balloon", "val"): (13, 50, {}),
        ("nuclei", "train"): (534, {}),
        ("nuclei", "val"): (67, {}),
        ("coco", "train"): (18, 78, {}),
        ("coco", "val"): (7, 25, {}),
    }
