"""Zip archives of strangers: what they hold is read, and what is wrong with them is named."""

import errno
import os
import struct
import tracemalloc
import zipfile

import pytest

from mrcnn.errors import DataError, InvalidDataError, MissingFileError, UnreadableFileError
from mrcnn.files import archives

CONTENT = bytes(range(256)) * 40
METHODS = {
    "stored": zipfile.ZIP_STORED,
    "deflated": zipfile.ZIP_DEFLATED,
    "bzip2": zipfile.ZIP_BZIP2,
    "lzma": zipfile.ZIP_LZMA,
}


def archive(path, method=zipfile.ZIP_DEFLATED, **members):
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in (members or {"a": CONTENT}).items():
            file.writestr(name.replace("__", "/"), content)
    return path


def patch(path, offset, value):
    """Change both headers of a member; the one in the directory has two more bytes."""
    content = bytearray(path.read_bytes())
    for start, shift in ((content.index(b"PK\x03\x04"), 0), (content.index(b"PK\x01\x02"), 2)):
        content[start + offset + shift : start + offset + shift + len(value)] = value
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("method", METHODS)
def test_members_are_read(method, tmp_path):
    path = archive(tmp_path / "a.zip", METHODS[method], images__a=CONTENT, b=b"")
    assert archives.is_archive(path)
    assert archives.member_names(path) == ["images/a", "b"]
    assert archives.open_member(path, "images/a").read() == CONTENT
    assert archives.open_member(path, "b").read() == b""
    with pytest.raises(MissingFileError, match=r"a\.zip/c: The zip archive has no such file"):
        archives.open_member(path, "c")


def test_a_replaced_archive_is_opened_anew(tmp_path):
    path = archive(tmp_path / "a.zip")
    assert archives.member_names(path) == ["a"]
    archive(path, b=CONTENT, c=CONTENT)
    assert archives.member_names(path) == ["b", "c"]


@pytest.mark.parametrize("method", METHODS)
def test_damaged_members_are_named(method, tmp_path):
    path = archive(tmp_path / "a.zip", METHODS[method], a=os.urandom(4000))
    content = bytearray(path.read_bytes())
    content[900:1000] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(
        UnreadableFileError, match=r"a\.zip/a: The file in the zip archive cannot be read: \w"
    ):
        archives.open_member(path, "a")


def test_encrypted_and_unknown(tmp_path):
    path = patch(archive(tmp_path / "a.zip"), 6, b"\x01\x00")
    with pytest.raises(UnreadableFileError, match=r"a\.zip/a: The file is encrypted"):
        archives.open_member(path, "a")
    path = patch(archive(tmp_path / "b.zip"), 8, b"\x63\x00")
    with pytest.raises(UnreadableFileError, match=r"b\.zip/a: .*compression"):
        archives.open_member(path, "a")


@pytest.mark.parametrize("method", METHODS)
def test_sizes_are_limited_and_compared(method, tmp_path):
    path = archive(tmp_path / "a.zip", METHODS[method])
    with pytest.raises(InvalidDataError, match=r"a\.zip/a: The file declares 10240 bytes, but at most 10000"):
        archives.open_member(path, "a", max_size=10_000)
    for size in (10_239, 10_241, 0, 2**30):
        patch(path, 22, struct.pack("<I", size))
        with pytest.raises(DataError, match=r"a\.zip/a: The file in the zip archive"):
            archives.open_member(path, "a")


@pytest.mark.parametrize("cut", [0, 10, 400])
def test_what_is_no_archive(cut, tmp_path):
    path = archive(tmp_path / "a.zip")
    path.write_bytes(path.read_bytes()[:cut])
    assert not archives.is_archive(path)
    with pytest.raises(UnreadableFileError, match=r"a\.zip: The zip archive cannot be opened"):
        archives.member_names(path)
    with pytest.raises(MissingFileError, match=r"absent\.zip: There is no such file"):
        archives.member_names(tmp_path / "absent.zip")
    assert not archives.is_archive(tmp_path)
    with pytest.raises(UnreadableFileError, match="it is a folder"):
        archives.open_member(tmp_path, "a")


OUTSIDE = ["/etc/x", "../x", "a/../../x", "..\\x", "C:\\x", "C:x", "\\x", "a/..", ".."]
INSIDE = ["a/b", "..a", "a..b/c..", "a.b:c", "...", "a\\b"]


def test_names_that_lead_outside_are_not_used(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name in [*OUTSIDE, *INSIDE]:
            info = zipfile.ZipInfo("x")
            info.filename = name
            file.writestr(info, b"x")
    assert archives.outside_names(path) == OUTSIDE
    assert archives.member_names(path) == INSIDE
    with pytest.raises(InvalidDataError, match=r"a\.zip: /etc/x: the name points outside"):
        archives.extract(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unpacking(tmp_path):
    path = archive(tmp_path / "a.zip", images__a=CONTENT, b=b"b")
    with zipfile.ZipFile(path, "a") as file:
        file.mkdir("empty") if hasattr(file, "mkdir") else None
    assert archives.extract(path, tmp_path / "out") == [tmp_path / "out/images/a", tmp_path / "out/b"]
    assert (tmp_path / "out/images/a").read_bytes() == CONTENT
    with pytest.raises(InvalidDataError, match=r"declares 10241 bytes, but at most 10000"):
        archives.extract(path, tmp_path / "other", max_size=10_000)


def test_a_folder_appears_when_it_is_complete(tmp_path):
    path = patch(archive(tmp_path / "a.zip", a=CONTENT), 22, struct.pack("<I", 10_241))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("b", b"b")
    with pytest.raises(InvalidDataError, match=r"a\.zip/a: .* declares 10241 bytes but holds 10240"):
        archives.extract(path, tmp_path / "out")
    assert [one.name for one in tmp_path.iterdir()] == ["a.zip"]


def test_unpacking_replaces_nothing(tmp_path):
    path, out = archive(tmp_path / "a.zip", a=CONTENT), tmp_path / "out"
    out.mkdir()
    assert archives.extract(path, out) == [out / "a"]
    (out / "a").write_bytes(b"corrected")
    (out / "b").write_bytes(b"b")
    for target in (out, out / "b"):
        with pytest.raises(FileExistsError, match=r"must be new or empty\. Choose another one") as caught:
            archives.extract(path, target)
        assert (caught.value.errno, caught.value.filename) == (errno.EEXIST, str(target))
    assert {one.name: one.read_bytes() for one in out.iterdir()} == {"a": b"corrected", "b": b"b"}
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.zip", "out"]


@pytest.mark.parametrize("method", [METHODS["deflated"], METHODS["lzma"]])
@pytest.mark.usefixtures("usual_collector")
def test_a_bomb_takes_little_memory(method, tmp_path):
    """40 MB of zeros that state ten bytes are not unpacked as a whole."""
    path = patch(archive(tmp_path / f"{method}.zip", method, a=bytes(40 << 20)), 22, struct.pack("<I", 10))
    tracemalloc.start()
    try:
        with pytest.raises(DataError):
            archives.open_member(path, "a")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
