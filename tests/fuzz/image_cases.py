"""Damage images and zip archives, and read them.

Run as a program, so that a case that ends the process cannot end the test run:

    python tests/fuzz/image_cases.py KIND FIRST LAST

Each case has a seed of its own: KIND and its number. A case is "ok" if the file is read, and "clear" if it is
refused by an error of `mrcnn.errors` that names the file. A line is printed for every other case, and one
with the counts at the end.
"""

import io
import json
import logging
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import traceback
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import tifffile

from mrcnn.config import Config
from mrcnn.errors import DataError
from mrcnn.files import archives, images
from mrcnn.geometry.images import resize_image
from mrcnn.geometry.preprocessing import as_network_image

SECONDS = 20
MEMORY = 700 << 20  # bytes that a case may take, besides what the process has
LARGEST = 1 << 16  # bytes of a damaged file
MAX_PIXELS = 1 << 20  # images may have twice as many
EXTREMES = (
    0,
    1,
    2,
    3,
    7,
    8,
    9,
    127,
    128,
    255,
    256,
    4096,
    2**15,
    2**16 - 1,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
)
IMAGE_KINDS = ("png", "jpeg", "tiff", "bmp", "gif", "webp")
KINDS = (*IMAGE_KINDS, "zip")


class HangError(BaseException):
    """A case takes too long."""


# --- Whole files ---

HEIGHT, WIDTH = 24, 32
RGB = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
RGB[4:18, 6:20] = (200, 60, 30)
GRAY = RGB[..., 0]


def saved(image, kind, **options):
    image = image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def in_mode(mode):
    return PIL.Image.fromarray(RGB).convert(mode)


def turned():
    exif = PIL.Image.Exif()
    exif[274] = 6
    return exif


def tiff(pixels, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def png_files():
    for mode in ("RGB", "RGBA", "L", "LA", "1", "P"):
        yield saved(in_mode(mode), "PNG")
    yield saved(GRAY.astype(np.uint16) * 257, "PNG")
    yield saved(RGB, "PNG", exif=turned(), icc_profile=b"x" * 200)
    yield saved(in_mode("P"), "PNG", transparency=3)
    yield saved(RGB, "PNG", save_all=True, append_images=[PIL.Image.fromarray(RGB[::-1])])


def jpeg_files():
    for mode in ("RGB", "L", "CMYK"):
        yield saved(in_mode(mode), "JPEG")
    yield saved(RGB, "JPEG", progressive=True, exif=turned())
    yield saved(RGB, "JPEG", icc_profile=b"x" * 200)


def tiff_files():
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        yield saved(RGB, "TIFF", compression=compression)
    for mode in ("1", "L", "P", "CMYK", "RGBA"):
        yield saved(in_mode(mode), "TIFF")
    for dtype in (np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64):
        yield tiff(GRAY.astype(dtype))
        yield tiff(GRAY.astype(dtype), compression="zlib", predictor=dtype in (np.uint16, np.int32))
    yield tiff(RGB.astype(np.uint16), photometric="rgb")
    yield tiff(RGB.astype(np.uint16), photometric="rgb", compression="zlib", tile=(16, 16))
    yield tiff(np.moveaxis(RGB, 2, 0), photometric="rgb", planarconfig="separate")
    yield tiff(np.stack([GRAY] * 3), photometric="minisblack")
    yield tiff(np.stack([GRAY] * 3), imagej=True)
    yield tiff(np.dstack([GRAY] * 5), photometric="minisblack", planarconfig="contig")
    yield tiff(GRAY, bigtiff=True)
    yield saved(RGB, "TIFF", exif=turned())


def bmp_files():
    for mode in ("RGB", "L", "1", "P", "RGBA"):
        yield saved(in_mode(mode), "BMP")


def gif_files():
    frame = in_mode("P")
    yield saved(frame, "GIF")
    yield saved(in_mode("L"), "GIF", transparency=2)
    yield saved(frame, "GIF", save_all=True, append_images=[frame.rotate(90)] * 2)


def webp_files():
    for lossless in (True, False):
        yield saved(RGB, "WEBP", lossless=lossless)
        yield saved(in_mode("RGBA"), "WEBP", lossless=lossless, exif=turned())
    yield saved(RGB, "WEBP", save_all=True, append_images=[in_mode("RGB").rotate(90)])


def zip_files():
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", method) as archive:
            archive.writestr("images/a.png", saved(RGB, "PNG"))
            archive.writestr("images/b.txt", b"text " * 200)
            archive.writestr("labels/a.png", saved(GRAY, "PNG"))
        yield file.getvalue()


FILES = {kind: list(globals()[f"{kind}_files"]()) for kind in KINDS}  # `weight_cases` adds its own


# --- Damage ---


def damage_bytes(content, rng):
    """Change bytes anywhere: bits, numbers, cut, removed, doubled, inserted or foreign parts."""
    size = len(content)
    if size < 8:
        return content + bytes(rng.randrange(256) for _ in range(8))
    # Headers are small, and damage there goes deeper.
    start = rng.randrange(min(size, 160)) if rng.random() < 0.6 else rng.randrange(size)
    length = rng.choice((1, 2, 4, 16, 200))
    part = content[start : start + length]
    choice = rng.randrange(8)
    if choice == 0:
        return content[:start] + bytes([content[start] ^ 1 << rng.randrange(8)]) + content[start + 1 :]
    if choice == 1:
        return content[:start] + number(rng) + content[start + 4 :]
    if choice == 2:
        return content[: rng.randrange(size)]
    if choice == 3:
        return content[:start] + content[start + length :]
    if choice == 4:
        return content[: start + length] + part * rng.choice((1, 2, 50)) + content[start + length :]
    if choice == 5:
        return content[:start] + bytes(rng.randrange(256) for _ in range(length)) + content[start:]
    if choice == 6:
        return content[:start] + bytes(length) + content[start + length :]
    other = rng.choice(FILES[rng.choice(list(FILES))])
    return content[:start] + other[rng.randrange(len(other)) :]


def number(rng):
    form = rng.choice(("<I", ">I", "<H", ">H"))
    value = rng.choice(EXTREMES)
    return struct.pack(form, value % (2 ** (8 * struct.calcsize(form))))


def damage_png(content, rng):
    """Change a chunk and keep its checksum right, so that decoders go on."""
    chunks, position = [], 8
    while position + 8 <= len(content):
        (length,) = struct.unpack(">I", content[position : position + 4])
        chunks.append([content[position + 4 : position + 8], content[position + 8 : position + 8 + length]])
        position += 12 + length
    if not chunks:
        return damage_bytes(content, rng)
    chunk = rng.choice(chunks[:1] if rng.random() < 0.4 else chunks)
    choice = rng.randrange(4)
    if choice == 0:
        chunk[1] = damage_bytes(chunk[1], rng)
    elif choice == 1 and len(chunk[1]) > 4:
        start = rng.randrange(len(chunk[1]) - 3)
        chunk[1] = chunk[1][:start] + struct.pack(">I", rng.choice(EXTREMES)) + chunk[1][start + 4 :]
    elif choice == 2:
        chunks.insert(rng.randrange(len(chunks) + 1), chunk)
    else:
        data = b"".join(content for name, content in chunks if name == b"IDAT")
        try:
            plain = damage_bytes(zlib.decompress(data), rng)
        except zlib.error:
            plain = bytes(1000)
        chunks = [one for one in chunks if one[0] != b"IDAT"]
        chunks.insert(-1, [b"IDAT", zlib.compress(plain[:LARGEST] * rng.choice((1, 1, 1000)))])
    return content[:8] + b"".join(
        struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part))
        for name, part in chunks
    )


def damage_jpeg(content, rng):
    """Change, remove or double a segment, or the size that is stated."""
    markers = [i for i in range(len(content) - 9) if content[i] == 0xFF and content[i + 1] not in (0, 0xFF)]
    if not markers:
        return damage_bytes(content, rng)
    start = rng.choice(markers)
    length = 2 + struct.unpack(">H", content[start + 2 : start + 4])[0]
    segment = content[start : start + length]
    choice = rng.randrange(4)
    if choice == 0:
        return content[:start] + content[start + length :]
    if choice == 1:
        return content[:start] + segment + content[start:]
    if choice == 2:
        return (
            content[: start + 1]
            + bytes([rng.choice((0xC0, 0xC2, 0xC4, 0xDA, 0xDB, 0xE1, 0xE2, 0xEE, 0xD9))])
            + (content[start + 2 :])
        )
    sizes = [i for i in markers if content[i + 1] in (0xC0, 0xC1, 0xC2)] or [start]
    place = rng.choice(sizes) + rng.choice((4, 5, 7, 9))
    return content[:place] + struct.pack(">H", rng.choice(EXTREMES) % 65536) + content[place + 2 :]


def damage_tiff(content, rng):
    """Change an entry of the first directory: tag, type, count or value."""
    try:
        order = {b"II": "<", b"MM": ">"}[content[:2]]
        (directory,) = struct.unpack(f"{order}I", content[4:8])
        (count,) = struct.unpack(f"{order}H", content[directory : directory + 2])
        place = directory + 2 + 12 * rng.randrange(count)
        field, form = rng.choice(((0, "H"), (2, "H"), (4, "I"), (8, "I"), (8, "H"), (8, "I")))
        value = rng.choice((*EXTREMES, place, directory, len(content))) % (2 ** (8 * struct.calcsize(form)))
        changed = bytearray(content)
        struct.pack_into(f"{order}{form}", changed, place + field, value)
        return bytes(changed)
    except (KeyError, struct.error, ValueError):
        return damage_bytes(content, rng)


def damage_zip(content, rng):
    """Change a field of the headers of a member, in one of them or in both; or its name."""
    changed = bytearray(content)
    field, form = rng.choice(
        ((6, "<H"), (8, "<H"), (14, "<I"), (18, "<I"), (22, "<I"), (26, "<H"), (28, "<H"))
    )
    value = rng.choice((*EXTREMES, 12, 14, 93, 99)) % (2 ** (8 * struct.calcsize(form)))
    member = rng.randrange(3)
    for start, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        place = -1
        for _ in range(member + 1):
            place = content.find(start, place + 1)
        if place < 0 or place + 46 > len(content) or rng.random() < 0.2:
            continue
        if rng.random() < 0.2:
            name = rng.choice(
                (b"/etc/abcdefg", b"../../../abc", b"C:\\abc.png\0\0", b"\xff\xfe\0abcdefgh", b"a/../../b.c")
            )
            changed[place + (30 if shift == 0 else 46) : place + (30 if shift == 0 else 46) + len(name)] = (
                name
            )
        else:
            struct.pack_into(form, changed, place + field + shift, value)
    return bytes(changed)


AWARE = {"png": damage_png, "jpeg": damage_jpeg, "tiff": damage_tiff, "zip": damage_zip}


def damaged(kind, number_of_case):
    """The content of a case; some stay whole."""
    rng = random.Random(f"{kind} {number_of_case}")
    content = rng.choice(FILES[kind])
    for _ in range(rng.choice((0, 1, 1, 1, 1, 2, 2, 3, 4))):
        change = AWARE.get(kind, damage_bytes) if rng.random() < 0.5 else damage_bytes
        content = change(content, rng)[:LARGEST]
    return content


# --- Reading ---

CONFIG = Config()
CONFIG.IMAGE_MIN_DIM = CONFIG.IMAGE_MAX_DIM = 64


def check_image(path):
    """Read an image in every way. Returns the number of ways that worked."""
    read = 0
    for reader in (
        images.read_header,
        images.read_image,
        images.read_values,
        images.read_labels,
        images.read_mask,
    ):
        try:
            found = reader(path)
        except DataError as error:
            check_error(error, path)
            continue
        read += 1
        if reader is images.read_image:
            assert found.ndim == 2 or (found.ndim == 3 and found.shape[2] == 3), found.shape
            assert found.size <= 6 * MAX_PIXELS
            feed(found)
        elif reader is images.read_labels:
            assert found.ndim == 2 and found.dtype.kind in "iu"
        elif reader is images.read_mask:
            assert found.ndim == 2 and found.dtype == bool
    return read


def feed(image):
    """Bring an image to the network's size, as detection does."""
    try:
        molded = resize_image(as_network_image(image, CONFIG), min_dim=64, max_dim=64)[0]
    except DataError:  # values that are no image; there is no file to name
        return
    except ValueError as error:  # images of extreme shapes
        assert "pixel" in str(error) or "size" in str(error), error
        return
    assert molded.shape == (64, 64, 3)


def check_archive(path):
    """Read and unpack an archive. Returns the number of members that were read."""
    read = 0
    folder = path.parent / "unpacked"
    try:
        names = archives.member_names(path)
        archives.outside_names(path)
    except DataError as error:
        check_error(error, path)
        return read
    for name in names:
        try:
            member = archives.open_member(path, name, max_size=1 << 22)
            read += 1
        except DataError as error:
            check_error(error, path)
            continue
        try:
            images.read_image(member, name)
        except DataError as error:
            check_error(error, name)
    try:
        for target in archives.extract(path, folder, max_size=1 << 24):
            assert folder in target.parents and ".." not in target.parts
    except DataError as error:
        check_error(error, path)
    except OSError as error:  # such as a name that is too long
        assert error.filename, repr(error)
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # it must be new for the next case
    return read


def check_error(error, path):
    assert error.file and str(error).startswith(error.file), repr(error)
    assert error.file.startswith(str(path)), repr(error)
    cause = error
    while cause is not None:
        assert not isinstance(cause, MemoryError), "the case takes too much memory"
        cause = cause.__cause__


CHECKS = {**dict.fromkeys(IMAGE_KINDS, check_image), "zip": check_archive}


def run_case(kind, number_of_case, folder):
    """Read one damaged file; "ok", "clear", or what is wrong."""
    path = folder / f"case{number_of_case}.{kind}"
    path.write_bytes(damaged(kind, number_of_case))
    signal.alarm(SECONDS)
    try:
        return "ok" if CHECKS[kind](path) else "clear"
    except (Exception, HangError) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
    finally:
        signal.alarm(0)
        path.unlink()


def hang(*_):
    raise HangError(f"no end in {SECONDS} s")


def main():
    kind, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    warnings.simplefilter("ignore")
    logging.disable()
    PIL.Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    signal.signal(signal.SIGALRM, hang)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    counts = {"kind": kind, "cases": 0, "ok": 0, "clear": 0, "else": 0}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for number_of_case in range(first, last):
            print(f"# {number_of_case}", flush=True)  # the last one names a case that ends the process
            result = run_case(kind, number_of_case, Path(folder))
            counts["cases"] += 1
            counts[result if result in counts else "else"] += 1
            if result not in ("ok", "clear"):
                print(f"{kind} {number_of_case}: {result}", flush=True)
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
