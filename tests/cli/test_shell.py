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
