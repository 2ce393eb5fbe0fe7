"""The nucleus sample: its recipes, its choice of images, its commands from the first step to label images."""

import json

import numpy as np
import pytest
from PIL import Image

from samples import stand_ins
from samples.nucleus import nucleus

# Of the picture that `count` takes by default, where 253 were found by the weights that are here.
LEAST_NUCLEI, MOST_NUCLEI = 200, 320


@pytest.fixture(scope="module")
def bowl(tmp_path_factory):
    """Four tiles of a tissue section in the layout of the competition."""
    return stand_ins.write_tissue_as_bowl(tmp_path_factory.mktemp("bowl"))


@pytest.fixture
def arguments(monkeypatch):
    """Takes a command line, gives what is understood."""

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
        return [info["id"] for info in nucleus.dataset_of(bowl, "train", images).image_info]

    assert len(names(None)) == 3
    assert set(names(1)) < set(names(2)) < set(names(None))
    assert names(2) == sorted(names(2), key=names(None).index)


def test_modalities_of_the_split(bowl, tmp_path):
    dataset = nucleus.dataset_of(bowl, "train")
    assert nucleus.modalities(dataset, tmp_path) == {}
    entries = [{"id": info["id"], "modality": "histology"} for info in dataset.image_info]
    entries[1]["modality"] = "fluorescence"
    (tmp_path / "split.json").write_text(json.dumps({"train": entries, "val": []}))
    assert nucleus.modalities(dataset, tmp_path) == {"fluorescence": [1], "other": [0, 2]}


def test_what_a_command_needs(arguments, capsys):
    assert arguments("train --dataset=d --weights=scratch --light").recipe == "light"
    assert arguments("evaluate --dataset=d --weights=last").recipe == "original"
    for line in ("count", "predict --input=a --output=b", "train --dataset=d --weights=nucleus-light"):
        assert (arguments(line).weights, arguments(line).recipe) == ("nucleus-light", "light")
    assert arguments("count --weights=last").recipe == "original"
    for line, scale, stain in (
        ("count", 3, "haematoxylin"),  # small nuclei among brown ones
        ("count --scale=4 --stain=as-it-is", 4, "as-it-is"),
        ("count --input=a", 2, "as-it-is"),
        ("predict --input=a --output=b --stain=haematoxylin", 2, "haematoxylin"),
    ):
        chosen = arguments(line)
        found = (nucleus.config_for(chosen, "inference").IMAGE_MIN_SCALE, chosen.stain)
        assert found == (scale, stain), line
    for line, missing in (
        ("train --dataset=d", "--weights"),
        ("count --recipe=scratch", "--recipe=light"),
        ("predict --weights=last --input=a", "--output"),
        ("evaluate --weights=last", "--dataset"),
        ("detect --weights=last --dataset=d", "--subset"),
    ):
        with pytest.raises(SystemExit):
            arguments(line)
        assert missing in capsys.readouterr().err


def test_missing_shipped_weights_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(nucleus, "SHIPPED_WEIGHTS", tmp_path / "nucleus-light.h5")
    with pytest.raises(FileNotFoundError, match=r"nucleus-light\.h5.* clone of the repository"):
        nucleus.load_weights(None, "nucleus-light")


def test_count_with_the_weights_that_are_here(tmp_path, monkeypatch, capsys):
    """All layers load; the default picture has a few hundred nuclei."""
    arguments = ["nucleus.py", "count", f"--output={tmp_path}", f"--logs={tmp_path}"]
    monkeypatch.setattr("sys.argv", arguments)
    nucleus.main()
    rows = (tmp_path / "counts.csv").read_text().split()
    assert rows[0] == "image,instances" and rows[1].startswith("immunohistochemistry,")
    count = int(rows[1].partition(",")[2])
    assert LEAST_NUCLEI <= count <= MOST_NUCLEI
    assert f"immunohistochemistry: {count} nuclei" in capsys.readouterr().out
    assert Image.open(tmp_path / "overlays" / "immunohistochemistry.png").size == (1024, 1024)
    labels = np.asarray(Image.open(tmp_path / "labels" / "immunohistochemistry.png"))
    assert labels.shape == (512, 512) and labels.max() == count


@pytest.mark.slow
def test_train_evaluate_predict_and_go_on(bowl, tmp_path, monkeypatch):
    """Two steps of the light recipe, then every command that takes its weights."""

    def run(line, logs=tmp_path):
        monkeypatch.setattr("sys.argv", ["nucleus.py", *line.split(), "--light", f"--logs={logs}"])
        nucleus.main()

    run(f"train --dataset={bowl} --weights=scratch --epochs=1 --steps=2")
    (best,) = tmp_path.glob("*/best.h5")
    run(f"evaluate --dataset={bowl} --weights={best} --images=1 --output={tmp_path / 'evaluated'}")
    assert isinstance(json.loads((tmp_path / "evaluated" / "detections.json").read_text()), list)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(np.zeros((70, 90), np.uint8)).save(pictures / "grey.png")
    run(f"predict --input={pictures} --output={tmp_path / 'found'} --weights=last --min-score=0.9")
    assert Image.open(tmp_path / "found" / "labels" / "grey.png").size == (90, 70)
    monkeypatch.setattr(nucleus, "SHIPPED_WEIGHTS", best)
    run(f"train --dataset={bowl} --weights=nucleus-light --epochs=1 --steps=2", tmp_path / "tuned")
    assert len(list(tmp_path.glob("tuned/*/mask_rcnn_nucleus-light_0001.h5"))) == 1
