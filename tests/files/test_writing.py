import os

import pytest

from mrcnn import files


def test_a_file_appears_whole_with_ordinary_permissions(tmp_path):
    path = tmp_path / "new" / "table.json"
    files.write_json(path, {"a": 1})
    assert path.read_text() == '{"a": 1}\n'
    (tmp_path / "ordinary").write_text("")
    assert path.stat().st_mode == (tmp_path / "ordinary").stat().st_mode
    assert os.listdir(path.parent) == ["table.json"]


def test_the_umask_of_the_process_stays(tmp_path, monkeypatch):
    """It belongs to all threads: a file that another creates meanwhile would be writable for everybody."""

    def fail(mask):
        raise AssertionError(f"os.umask({mask:o})")

    monkeypatch.setattr(os, "umask", fail)
    files.write_json(tmp_path / "table.json", {})
    assert os.listdir(tmp_path) == ["table.json"]


def test_an_error_leaves_the_previous_file_and_nothing_else(tmp_path):
    path = tmp_path / "weights.h5"
    path.write_text("good")
    with pytest.raises(KeyError), files.atomic_write(path) as temporary:
        temporary.write_text("half")
        assert temporary.suffix == ".h5"
        raise KeyError
    assert path.read_text() == "good"
    assert os.listdir(tmp_path) == ["weights.h5"]


@pytest.mark.parametrize(
    "name",
    [
        "x" * 250 + ".h5",
        "細胞の画像" * 16 + ".png",
        "é" * 125 + ".jpeg",
        "Dr. " + "b " * 120 + "end",
        "a" * 255,
        "short.json",
    ],
)
def test_long_names_are_written_and_their_leftovers_recognized(name, tmp_path):
    with files.atomic_write(tmp_path / name) as temporary:
        temporary.write_text("whole")
        assert files.LEFTOVER.fullmatch(temporary.name)
        assert len(os.fsencode(temporary.name)) <= max(143, len(os.fsencode(name)))
        assert temporary.suffix in ("", ".part", (tmp_path / name).suffix)
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "whole"


def test_a_folder_in_place_of_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="Cannot write \\.: "), files.atomic_write("."):
        pass
    assert os.listdir(tmp_path) == []


def test_an_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "table.json"
    with pytest.raises(OSError, match=r"table\.json"), files.atomic_write(path):
        pass
