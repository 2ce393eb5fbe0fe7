"""Commands as text."""

import os

import pytest

from mrcnn.cli.shell import command_line


@pytest.mark.parametrize(
    "system, expected", [("posix", "mrcnn train 'my out/a.json'"), ("nt", 'mrcnn train "my out/a.json"')]
)
def test_paths_with_spaces_are_quoted(system, expected, monkeypatch):
    monkeypatch.setattr(os, "name", system)
    text = command_line(["mrcnn", "train", "my out/a.json"])
    monkeypatch.undo()  # pathlib looks at it, too
    assert text == expected


def test_detection_after_training_reads_the_same_part_of_files():
    from mrcnn.cli.training import _next_steps

    text = _next_steps("my logs/a.h5", "mrcnn train x", {"page": 2, "channels": [0, 1], "class": "cell"})
    assert "mrcnn detect IMAGES --model 'my logs/a.h5' --page 2 --channels 0,1\n" in text
    assert "mrcnn detect IMAGES --model a.h5\n" in _next_steps("a.h5", "mrcnn train x", {})
