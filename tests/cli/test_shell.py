"""Commands as text, and what interrupted ones say."""

import os
from pathlib import Path

import pytest

pytest.importorskip("typer")

import typer
from typer.main import get_command

from mrcnn.cli.messages import finish
from mrcnn.cli.shell import command_line
from mrcnn.cli.training import TrainOptions, after_interruption, next_steps


@pytest.mark.parametrize(
    "system, expected", [("posix", "mrcnn train 'my out/a.json'"), ("nt", 'mrcnn train "my out/a.json"')]
)
def test_paths_with_spaces_are_quoted(system, expected, monkeypatch):
    monkeypatch.setattr(os, "name", system)
    text = command_line(["mrcnn", "train", "my out/a.json"])
    monkeypatch.undo()  # pathlib looks at it, too
    assert text == expected


def test_detection_after_training_reads_the_same_part_of_files():
    text = next_steps("my logs/a.h5", "mrcnn train x", {"page": 2, "channels": [0, 1], "class": "cell"})
    assert "mrcnn detect IMAGES --model 'my logs/a.h5' --page 2 --channels 0,1\n" in text
    assert "mrcnn detect IMAGES --model a.h5\n" in next_steps("a.h5", "mrcnn train x", {})


def test_the_words_of_a_training_give_its_options():
    """A training prints the command that goes on."""
    from mrcnn.cli.app import app

    given = {
        "images": Path("my images"),
        "resume": Path("logs/a.h5"),
        "epochs": 4,
        "learning_rate": 0.0025,
        "any_orientation": True,
        "settings": ["NAME=a", "BACKBONE=resnet50"],
    }
    choice = {"page": 2, "channels": [0, 1], "class-attribute": "kind", "crowds-as-objects": True}
    words = TrainOptions(**given, choice=choice).words()
    values = get_command(app).commands["train"].make_context("train", ["data.json", *words]).params
    read = {name: value for name, value in values.items() if value not in (None, False)}
    chosen = {"page": 2, "channels": "0,1", "class_attribute": "kind", "crowds_as_objects": True}
    assert read == {"data": Path("data.json"), **given, **chosen}


def test_an_interruption_says_how_to_continue(capsys):
    options = TrainOptions(epochs=10, recipe="scratch")
    nothing = after_interruption(None, Path("ab"), options)
    assert nothing == "No epoch was finished, so nothing was saved."
    text = after_interruption(Path("logs/my_0002.h5"), Path("ab"), options)
    assert text.splitlines()[0] == "The weights of the last finished epoch are saved."
    assert "mrcnn train ab --resume logs/my_0002.h5 --epochs 10 --recipe scratch" in text

    @finish
    def command(advice):
        raise KeyboardInterrupt(*advice)

    for advice, shown in (((), "Interrupted.\n"), (("Run it again.",), "Interrupted. Run it again.\n")):
        with pytest.raises(typer.Exit) as ended:
            command(advice)
        assert ended.value.exit_code == 130 and capsys.readouterr().err == shown
