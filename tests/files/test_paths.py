"""Paths relative to a folder, also across the drives of Windows."""

import ntpath
import os
from types import SimpleNamespace

import pytest

from mrcnn.files import paths


@pytest.fixture
def windows(monkeypatch):
    """The functions of Windows for paths."""
    monkeypatch.setattr(paths, "os", SimpleNamespace(path=ntpath, fspath=os.fspath))


def test_paths_of_one_drive(tmp_path):
    assert paths.relative_path(tmp_path / "a" / "b.png", tmp_path / "c") == "../a/b.png"
    assert paths.is_inside(tmp_path / "a", tmp_path)
    assert paths.is_inside(tmp_path, tmp_path)
    assert not paths.is_inside(tmp_path, tmp_path / "a")
    assert not paths.is_inside(f"{tmp_path}2", tmp_path)


@pytest.mark.usefixtures("windows")
def test_paths_of_two_drives():
    assert paths.relative_path("D:/images/a.png", "C:/results") == "D:/images/a.png"
    assert not paths.is_inside("D:\\images", "C:\\")
    assert paths.is_inside("C:\\images", "C:\\")
