"""The nucleus sample: its recipes, its subsets, its command line, and training to label images."""

import json

import numpy as np
import pytest
from PIL import Image
from skimage import data

from mrcnn.data import augmentation
from mrcnn.data.copy_paste import CopyPaste
from mrcnn.data.generator import DataGenerator
from mrcnn.data.loading import load_image_gt
from mrcnn.errors import CappedWarning
from samples import stand_ins
from samples.nucleus import nucleus

# In the default image of `count`. The shipped weights find 302.
LEAST_NUCLEI, MOST_NUCLEI = 200, 320


@pytest.fixture(scope="module")
def bowl(tmp_path_factory):
    """Four tiles of a tissue section in the layout of the competition."""
    return stand_ins.write_tissue_as_bowl(tmp_path_factory.mktemp("bowl"))


@pytest.fixture
def arguments(monkeypatch):
    """Return a function that parses a command line."""

    def parse(line):
        monkeypatch.setattr("sys.argv", ["nucleus.py", *line.split()])
        return nucleus.parse_arguments()

    return parse


@pytest.mark.parametrize("recipe", nucleus.RECIPES)
def test_detection_has_the_network_of_training(recipe):
    train, detect = (config() for config in nucleus.RECIPES[recipe])
    train.validate()
    detect.validate()
    assert detect.IMAGE_RESIZE_MODE == "pad64" and detect.BATCH_SIZE == 1
    for name in ("NAME", "BACKBONE", "RPN_ANCHOR_SCALES", "CONTRAST_PERCENTILES", "MASK_HEAD_CHANNELS"):
        assert getattr(detect, name) == getattr(train, name)


def test_the_settings_of_2018_are_kept():
    config = nucleus.NucleusConfig()
    assert (config.OPTIMIZER, config.CONTRAST_PERCENTILES) == ("sgd", None)
    assert tuple(config.RPN_ANCHOR_SCALES) == (8, 16, 32, 64, 128)


def test_fewer_images_are_among_more(bowl):
    def names(images):
        return [info["id"] for info in nucleus.load_dataset(bowl, "train", images).image_info]

    assert len(names(None)) == 3
    assert set(names(1)) < set(names(2)) < set(names(None))
    assert names(2) == sorted(names(2), key=names(None).index)


def test_modalities_of_the_split(bowl, tmp_path):
    dataset = nucleus.load_dataset(bowl, "train")
    assert nucleus.modalities(dataset, tmp_path) == {}
    entries = [{"id": info["id"], "modality": "histology"} for info in dataset.image_info]
    entries[1]["modality"] = "fluorescence"
    (tmp_path / "split.json").write_text(json.dumps({"train": entries, "val": []}))
    assert nucleus.modalities(dataset, tmp_path) == {"fluorescence": [1], "other": [0, 2]}


def test_defaults_of_the_command_line(arguments, bowl, tmp_path):
    weights = tmp_path / "own.h5"
    weights.touch()
    assert arguments(f"train --dataset={bowl} --weights=scratch --light").recipe == "light"
    assert arguments(f"evaluate --dataset={bowl} --weights={weights}").recipe == "original"
    for line in (
        "count",
        f"predict --input={bowl} --output=b",
        f"train --dataset={bowl} --weights=nucleus-light",
    ):
        parsed = arguments(line)
        assert (parsed.weights, parsed.recipe) == ("nucleus-light", "pretrained")
    assert arguments(f"count --weights={weights}").recipe == "original"
    for line, scale, stain in (
        ("count", 3, "hematoxylin"),  # small nuclei among brown ones
        ("count --scale=4 --stain=none", 4, "none"),
        (f"count --input={bowl}", 2, "none"),
        (f"predict --input={bowl} --output=b --stain=hematoxylin", 2, "hematoxylin"),
    ):
        parsed = arguments(line)
        assert (nucleus.config_for(parsed, "inference").IMAGE_MIN_SCALE, parsed.stain) == (scale, stain), line


@pytest.mark.parametrize(
    "options, lowest",
    [
        ("detect --recipe=original", 0),  # as in 2018
        ("detect --recipe=original --min-score=0.7", 0.7),
        ("detect --recipe=light", 0.4),
        ("detect --recipe=light --min-score=0", 0),
        ("count --recipe=light", nucleus.MIN_SCORE),
        ("count --recipe=light --min-score=0.01", 0.01),
        ("evaluate --recipe=light --min-score=0.9", 0.05),  # average precision needs all
    ],
)
def test_the_lowest_score_of_detections(arguments, bowl, options, lowest):
    subset = "" if options.startswith("count") else "--subset=stage1_train"
    parsed = arguments(f"{options} --dataset={bowl} --weights=scratch {subset}")
    assert lowest == nucleus.config_for(parsed, "inference").DETECTION_MIN_CONFIDENCE


def test_weights_that_fit_the_recipe_are_accepted(arguments, bowl):
    for options in (
        "--weights=coco --augmentation=camera",
        "--weights=imagenet --augmentation=camera",
        "--weights=coco --recipe=scratch",
        "--weights=imagenet --recipe=pretrained",
    ):
        assert arguments(f"train --dataset={bowl} {options}").min_score == nucleus.MIN_SCORE


@pytest.mark.parametrize(
    "line, message",
    [
        ("train --dataset=BOWL", "train needs --weights."),
        ("count --recipe=scratch", "needs --recipe=pretrained"),
        ("predict --weights=scratch --input=BOWL", "predict needs --output."),
        ("evaluate --weights=scratch", "evaluate needs --dataset."),
        ("detect --weights=scratch --dataset=BOWL", "detect needs --subset."),
        ("count --input=nowhere.png", "no file or folder nowhere.png"),
        ("evaluate --dataset=nowhere --weights=scratch", "nowhere/stage1_train"),
        ("evaluate --dataset=BOWL --weights=nowhere.h5", "no file nowhere.h5"),
        ("evaluate --dataset=BOWL --weights=last --logs=nowhere", "no folder nowhere"),
        ("evaluate --dataset=BOWL --weights=scratch --subset=stage3", "subset='stage3'"),
        ("train --dataset=BOWL --weights=scratch --light --epochs=0", "--epochs must be at least 1"),
        ("count --scale=-1", "--scale must be greater than 0"),
        ("count --images=2", "count does not take --images."),
        ("predict --input=BOWL --output=b --images=2", "predict does not take --images."),
        ("count --subset=val", "count does not take --subset. It reads all images of --input."),
        (
            "evaluate --dataset=BOWL --weights=scratch --stain=hematoxylin",
            "evaluate does not take --stain. Only count and predict separate a dye.",
        ),
        ("robustness --dataset=BOWL --weights=scratch --augmentation=dim", "does not take --augmentation."),
        ("train --dataset=BOWL --weights=scratch --light --output=b", "train does not take --output."),
        (
            "count --light --weights=coco",
            "--weights=coco is a ResNet-101, which --recipe=light does not build.",
        ),
        ("count --light --weights=imagenet", "Use --weights=scratch, last or a path."),
        (
            "evaluate --dataset=BOWL --weights=coco --recipe=pretrained",
            "Use --weights=nucleus-light, imagenet, scratch, last or a path.",
        ),
        ("count --min-score=50", "--min-score must be a number from 0 to 1"),
    ],
)
def test_wrong_command_lines_end_with_one_sentence(arguments, bowl, capsys, line, message):
    with pytest.raises(SystemExit, match="2"):
        arguments(line.replace("BOWL", str(bowl)))
    captured = capsys.readouterr()
    assert message in captured.err and len(captured.err.splitlines()) == 1
    assert captured.out == ""


def test_missing_shipped_weights_are_named(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(nucleus, "SHIPPED_WEIGHTS", tmp_path / "nucleus-light.h5")
    with pytest.raises(SystemExit, match="2"):
        arguments("count")
    error = capsys.readouterr().err
    assert "nucleus-light.h5" in error and "clone of the repository" in error


def test_the_recipe_of_2018_names_the_missing_imgaug(arguments, bowl, monkeypatch, capsys):
    monkeypatch.setattr(nucleus.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        arguments(f"train --dataset={bowl} --weights=coco")
    assert 'pip install "keras-mrcnn[augment]"' in capsys.readouterr().err
    assert arguments(f"train --dataset={bowl} --weights=coco --augmentation=camera").epochs is None


@pytest.mark.parametrize("name", nucleus.AUGMENTATIONS)
def test_augmentations_change_images(name):
    if name == "original":
        pytest.importorskip("imgaug")
    augmenter = nucleus.AUGMENTATIONS[name]()
    if augmenter is None:
        return
    image = data.immunohistochemistry()[:64, :64]
    masks = np.zeros((64, 64, 1), bool)
    for step in augmentation.as_list(augmenter):
        if not isinstance(step, CopyPaste):
            draws = [
                augmentation.apply(step, image, masks, np.random.default_rng(seed))[0] for seed in range(20)
            ]
            assert sum(not np.array_equal(draw, image) for draw in draws) >= 3


def test_nuclei_are_pasted_into_images_of_their_modality(bowl, tmp_path):
    dataset = nucleus.load_dataset(bowl, "train")
    nucleus.modalities(dataset, tmp_path)
    assert [info["modality"] for info in dataset.image_info] == ["unknown"] * 3
    names = ("histology", "fluorescence", "fluorescence")
    entries = [
        {"id": info["id"], "modality": name} for info, name in zip(dataset.image_info, names, strict=True)
    ]
    (tmp_path / "split.json").write_text(json.dumps({"train": entries, "val": []}))
    nucleus.modalities(dataset, tmp_path)
    config = nucleus.PretrainedNucleusConfig()
    pasting = [CopyPaste(1.0, same="modality")]
    counts = []
    for image_id in (0, 1):
        alone = load_image_gt(dataset, config, image_id, rng=np.random.default_rng(0))
        both = load_image_gt(dataset, config, image_id, augmentation=pasting, rng=np.random.default_rng(0))
        counts.append((len(alone.class_ids), len(both.class_ids)))
    assert counts[0][0] == counts[0][1] and counts[1][0] < counts[1][1]


@pytest.mark.parametrize("recipe", ["original", "light"])
@pytest.mark.parametrize("name", ["pasted", "all", "dim", "turns", "noise"])
def test_every_recipe_can_paste(arguments, bowl, tmp_path, recipe, name):
    """Each image that trains knows its modality, whatever the recipe."""

    class Model:
        config, epoch, log_dir = nucleus.RECIPES[recipe][0](), 0, tmp_path

        def train(self, train_set, val_set, augmentation, **_):
            DataGenerator(train_set, self.config, augmentation=augmentation, steps=1)
            pasted.append([info["modality"] for info in train_set.image_info])

    pasted = []
    line = f"train --dataset={bowl} --weights=scratch --recipe={recipe} --augmentation={name} --epochs=1"
    nucleus.train(Model(), arguments(line))
    assert pasted == [["unknown"] * 3]


def test_microscopes_include_negatives_and_gray_images():
    image = np.full((8, 8, 3), (200, 40, 40), np.uint8)
    none = np.zeros((8, 8, 0), bool)
    draws = [nucleus.microscopes(image, none, np.random.default_rng(seed))[0] for seed in range(600)]
    means = np.array([draw.mean(axis=(0, 1)) for draw in draws])
    is_negative = means[:, 0] < means[:, 1] - 20
    is_gray = np.ptp(means, axis=1) < 2
    assert 20 <= is_negative.sum() <= 200 and 10 <= is_gray.sum() <= 200


def test_large_images_are_counted_in_tiles(monkeypatch):
    """The limit of detections is one of a tile, not of the image."""
    import mrcnn
    from mrcnn.data.stains import hematoxylin

    model = mrcnn.load("nucleus-light", DETECTION_MAX_INSTANCES=20)
    image = hematoxylin(data.immunohistochemistry()[:192, :192])
    with pytest.warns(CappedWarning, match="DETECTION_MAX_INSTANCES=20"):
        assert len(nucleus.detect_in_any_size(model, image)["scores"]) == 20
    monkeypatch.setattr(nucleus, "LARGEST_IMAGE", 128 * 128)
    monkeypatch.setattr(nucleus, "TILE", 96)
    monkeypatch.setattr(nucleus, "OVERLAP", 24)
    assert len(nucleus.detect_in_any_size(model, image)["scores"]) > 30


def test_count_with_the_shipped_weights(tmp_path, monkeypatch, capsys, recwarn):
    """All layers load; the default image has a few hundred nuclei, fewer than the limit."""
    arguments = ["nucleus.py", "count", f"--output={tmp_path}", f"--logs={tmp_path}"]
    monkeypatch.setattr("sys.argv", arguments)
    nucleus.main()
    rows = (tmp_path / "counts.csv").read_text().split()
    assert rows[0] == "image,instances" and rows[1].startswith("immunohistochemistry,")
    count = int(rows[1].partition(",")[2])
    assert LEAST_NUCLEI <= count <= MOST_NUCLEI
    assert f"immunohistochemistry: {count} nuclei" in capsys.readouterr().out
    assert not [one for one in recwarn if one.category is CappedWarning]
    assert Image.open(tmp_path / "overlays" / "immunohistochemistry.png").size == (1024, 1024)
    labels = np.asarray(Image.open(tmp_path / "labels" / "immunohistochemistry.png"))
    assert labels.shape == (512, 512) and len(np.unique(labels[labels > 0])) == count


@pytest.mark.slow
def test_train_evaluate_predict_and_go_on(bowl, tmp_path, monkeypatch):
    """Two steps of the light recipe, then every command that takes its weights."""

    def run(line, logs=tmp_path, recipe="light"):
        monkeypatch.setattr("sys.argv", ["nucleus.py", *line.split(), f"--recipe={recipe}", f"--logs={logs}"])
        nucleus.main()

    run(f"train --dataset={bowl} --weights=scratch --epochs=1 --steps=2")
    (best,) = tmp_path.glob("*/best.h5")
    run(f"evaluate --dataset={bowl} --weights={best} --images=1 --output={tmp_path / 'evaluated'}")
    assert isinstance(json.loads((tmp_path / "evaluated" / "detections.json").read_text()), list)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(np.zeros((70, 90), np.uint8)).save(pictures / "gray.png")
    run(f"predict --input={pictures} --output={tmp_path / 'found'} --weights=last --min-score=0.9")
    assert Image.open(tmp_path / "found" / "labels" / "gray.png").size == (90, 70)
    line = f"train --dataset={bowl} --weights=nucleus-light --epochs=1 --steps=2"
    run(line, tmp_path / "tuned", nucleus.SHIPPED_RECIPE)
    assert len(list(tmp_path.glob("tuned/*/mask_rcnn_nucleus-pretrained_0001.h5"))) == 1
