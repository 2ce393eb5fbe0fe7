"""The command `mrcnn convert`: which files it replaces."""

import json
import re
from pathlib import Path

import annotation_files as files
import pytest

from mrcnn.cli import converting


@pytest.fixture
def via(tmp_path):
    files.write_picture(tmp_path / "a.png")
    return files.write_json(tmp_path / "via.json", files.via_content([files.via_region("leaf")]))


def convert(source, output, images=None, settings=(), **options):
    return converting.convert(str(source), output, images, settings=settings, **options)


def test_annotations_do_not_replace_another_file(via, tmp_path):
    mine = tmp_path / "annotations.json"
    mine.write_text("made by hand")
    with pytest.raises(FileExistsError, match=r"annotations\.json exists already\. .*pass --overwrite"):
        convert(via, mine)
    assert mine.read_text() == "made by hand"
    convert(via, mine, overwrite=True)
    assert len(json.loads(mine.read_text())["annotations"]) == 1


@pytest.mark.parametrize("overwrite", [False, True])
def test_annotations_never_replace_their_source(via, overwrite):
    before = via.read_text()
    with pytest.raises(
        FileExistsError, match=r"would replace its source .*via\.json\. Choose another OUTPUT"
    ):
        convert(via, via.parent / "." / "via.json", overwrite=overwrite)
    assert via.read_text() == before


def test_weights_do_not_replace_another_file(tmp_path, monkeypatch):
    class Model:
        def save(self, path):
            path.write_text("converted")

    monkeypatch.setattr(converting, "load_keras_model", lambda source, settings: Model())
    trained = tmp_path / "trained.h5"
    trained.write_text("hours of training")
    with pytest.raises(FileExistsError, match=r"trained\.h5 exists already"):
        convert("nucleus-light", trained)
    with pytest.raises(FileExistsError, match="would replace its source"):
        convert(trained, trained, overwrite=True)
    assert trained.read_text() == "hours of training"
    convert("nucleus-light", trained, overwrite=True)
    assert trained.read_text() == "converted"


@pytest.mark.parametrize(
    "output, options, message",
    [
        ("a.json", {"settings": ["NAME=a"]}, "--set can only be used with weights. Leave it out."),
        ("a", {"settings": ["NAME=a"], "formats": ["yolo"]}, "--set can only be used with weights."),
        ("a.json", {"copy_images": True}, "--copy-images can only be used with --format, which"),
        ("a.h5", {"copy_images": True}, "--copy-images can only be used with annotations. Leave out --copy"),
        (
            "a.h5",
            {"images": Path("b"), "choice": {"page": 0}},
            "--images and --page can only be used with ann",
        ),
        (
            "a.h5",
            {"choice": {"class": "leaf", "crowds-as-objects": True, "channels": [0]}},
            "Leave out --class, --crowds-as-objects and --channels.",
        ),
    ],
)
def test_options_without_an_effect(output, options, message, via, tmp_path):
    with pytest.raises(ValueError, match=re.escape(message)):
        convert(via, tmp_path / output, **options)
    assert not (tmp_path / output).exists()


def test_other_outputs_are_refused_whether_they_exist_or_not(via, tmp_path):
    for output in (tmp_path, tmp_path / "new.txt"):
        with pytest.raises(ValueError, match=r"OUTPUT must end in \.json"):
            convert(via, output)
