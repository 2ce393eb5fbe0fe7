"""The door for image files: modes are read as viewers show them, and broken files raise named errors."""

import io
import os
import struct
import subprocess
import sys
import threading
import zlib

import cv2
import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.ImageOps
import pytest
import tifffile

from mrcnn.errors import DataError, InvalidDataError, MissingFileError, UnreadableFileError
from mrcnn.files import images

HEIGHT, WIDTH = 11, 14
RGB = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
GRAY = RGB[..., 0]
DEEP = GRAY.astype(np.uint16) * 257
DEEP_RGB = RGB.astype(np.uint16) * 250 + 3


def encoded(image, kind="PNG", **options):
    image = image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tiff(pixels, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def by_opencv(suffix, pixels, *options):
    order = pixels[..., [2, 1, 0, *range(3, pixels.shape[-1])]] if pixels.ndim == 3 else pixels
    return cv2.imencode(suffix, order, options)[1].tobytes()


def pillow(mode):
    return PIL.Image.fromarray(RGB).convert(mode)


def palette(transparency=None):
    image = PIL.Image.fromarray(GRAY % 3, "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    return encoded(image, **({} if transparency is None else {"transparency": transparency}))


COLORS = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]], np.uint8)[GRAY % 3]
ALPHA = np.dstack([RGB, GRAY // 2])
FLOATS = GRAY.astype(np.float32) / 300
LARGE = GRAY.astype(np.uint32) + 2**31

EXACT = {
    "png rgb": (encoded(RGB), RGB),
    "png gray": (encoded(GRAY), GRAY),
    "png alpha": (encoded(ALPHA), RGB),
    "png gray alpha": (encoded(PIL.Image.fromarray(np.dstack([GRAY, GRAY // 2]), "LA")), GRAY),
    "png 16 bits": (encoded(DEEP), DEEP),
    "png rgb 16 bits": (by_opencv(".png", DEEP_RGB), DEEP_RGB),
    "png alpha 16 bits": (by_opencv(".png", np.dstack([DEEP_RGB, DEEP])), DEEP_RGB),
    "png 1 bit": (encoded(GRAY > 99), np.where(GRAY > 99, 255, 0).astype(np.uint8)),
    "png palette": (palette(), COLORS),
    "png palette, one color transparent": (palette(transparency=1), COLORS),
    "png palette, alpha for each color": (palette(transparency=b"\x00\x80\xff"), COLORS),
    "bmp": (encoded(RGB, "BMP"), RGB),
    "gif": (encoded(pillow("L"), "GIF"), np.stack([np.asarray(pillow("L"))] * 3, -1)),
    "webp lossless": (encoded(RGB, "WEBP", lossless=True), RGB),
    "tiff rgb": (encoded(RGB, "TIFF"), RGB),
    "tiff planes": (tiff(np.moveaxis(RGB, 2, 0), photometric="rgb", planarconfig="separate"), RGB),
    "tiff gray alpha planes": (
        tiff(np.stack([GRAY, GRAY // 2]), planarconfig="separate", extrasamples=["unassalpha"]),
        GRAY,
    ),
    "tiff alpha planes": (
        tiff(np.moveaxis(ALPHA, 2, 0), photometric="rgb", planarconfig="separate"),
        RGB,
    ),
    "tiff 16 bits": (tiff(DEEP), DEEP),
    "tiff 16 bits, other byte order": (tiff(DEEP, byteorder=">"), DEEP),
    "tiff 16 bits, compressed": (encoded(DEEP, "TIFF", compression="tiff_lzw"), DEEP),
    "tiff 16 bits, 0 is white": (tiff(DEEP, photometric="miniswhite"), 65535 - DEEP),
    "tiff rgb 16 bits": (tiff(DEEP_RGB, photometric="rgb"), DEEP_RGB),
    "tiff rgb 16 bits, deflate": (
        tiff(DEEP_RGB, photometric="rgb", compression="zlib", predictor=True),
        DEEP_RGB,
    ),
    "tiff rgb 16 bits, lzw": (by_opencv(".tif", DEEP_RGB, cv2.IMWRITE_TIFF_COMPRESSION, 5), DEEP_RGB),
    "tiff 32 bits": (tiff(LARGE), LARGE),
    "tiff signed": (tiff(GRAY.astype(np.int32) - 99), GRAY.astype(np.int32) - 99),
    "tiff float": (tiff(FLOATS), FLOATS),
    "tiff double": (tiff(FLOATS.astype(np.float64)), FLOATS.astype(np.float64)),
    "tiff float rgb": (tiff(np.dstack([FLOATS] * 3), photometric="rgb"), np.dstack([FLOATS] * 3)),
    "big tiff": (tiff(GRAY, bigtiff=True), GRAY),
    "tiff cmyk": (encoded(pillow("CMYK"), "TIFF"), RGB),
}


@pytest.mark.parametrize("name", EXACT)
def test_modes_are_read_exactly(name):
    content, expected = EXACT[name]
    image = images.read_image(content, name)
    assert (image.dtype, image.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(image, expected)
    assert image.flags.c_contiguous


def flat(color, mode="RGB"):
    return PIL.Image.new("RGB", (32, 32), color).convert(mode)


@pytest.mark.parametrize(
    "mode, kind", [("CMYK", "JPEG"), ("YCbCr", "JPEG"), ("LAB", "TIFF"), ("RGB", "JPEG")]
)
def test_color_spaces_give_the_colors_that_viewers_show(mode, kind):
    if mode == "LAB":
        transform = PIL.ImageCms.buildTransform(
            PIL.ImageCms.createProfile("sRGB"), PIL.ImageCms.createProfile("LAB"), "RGB", "LAB"
        )
        image = PIL.ImageCms.applyTransform(flat((220, 40, 30)), transform)
    else:
        image = flat((220, 40, 30), mode)
    read = images.read_image(encoded(image, kind))
    np.testing.assert_allclose(read[16, 16], (220, 40, 30), atol=4)


def test_cmyk_without_the_marker_of_adobe_is_not_inverted():
    content = encoded(flat((220, 40, 30), "CMYK"), "JPEG", quality=100)
    start = content.index(b"\xff\xee")
    length = 2 + struct.unpack(">H", content[start + 2 : start + 4])[0]
    plain = content[:start] + content[start + length :]
    # The values are stored inverted, so the color is the one of 255 - ink.
    inks = 255 - np.asarray(flat((220, 40, 30), "CMYK"))[16, 16].astype(int)
    expected = (255 - inks[:3]) * (255 - inks[3]) / 255
    np.testing.assert_allclose(images.read_image(plain)[16, 16], expected, atol=4)


def test_color_profiles_are_followed():
    """A profile that exchanges red and green shows that it is used; a broken one is ignored."""
    swapped = bytearray(PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes())
    swapped[swapped.index(b"rXYZ", 128) : swapped.index(b"rXYZ", 128) + 4] = b"tXYZ"
    swapped[swapped.index(b"gXYZ", 128) : swapped.index(b"gXYZ", 128) + 4] = b"rXYZ"
    swapped[swapped.index(b"tXYZ", 128) : swapped.index(b"tXYZ", 128) + 4] = b"gXYZ"
    swapped = bytes(swapped).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
    for kind in ("PNG", "JPEG", "TIFF"):
        content = encoded(flat((200, 60, 20)), kind, icc_profile=swapped)
        np.testing.assert_allclose(images.read_image(content)[16, 16], (60, 200, 20), atol=4)
    broken = encoded(flat((200, 60, 20)), icc_profile=b"no profile")
    np.testing.assert_array_equal(images.read_image(broken)[16, 16], (200, 60, 20))


def with_orientation(pixels, kind, orientation):
    """The content of an image file with an EXIF orientation."""
    image = PIL.Image.fromarray(pixels)
    exif = image.getexif()
    exif[274] = orientation
    return encoded(image, kind, exif=exif)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation, kind):
    content = with_orientation(RGB, kind, orientation)
    shown = np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(content))).convert("RGB"))
    np.testing.assert_array_equal(images.read_image(content), shown)
    stored = images.read_image(content, orientation=1)
    assert stored.shape == RGB.shape
    np.testing.assert_array_equal(images.turned(stored, orientation), shown)
    header = images.read_header(content)
    assert header.orientation == orientation
    assert (header.stored_size, header.shown_size) == (RGB.shape[:2], shown.shape[:2])


def deep_png(orientation):
    """A PNG file of 16-bit color with an EXIF chunk, which neither OpenCV nor Pillow writes."""
    content = by_opencv(".png", DEEP_RGB)
    exif = PIL.Image.Exif()
    exif[274] = orientation
    data = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    end = 8 + 25  # the signature and the first chunk, which has the size
    return content[:end] + chunk + content[end:]


def deep_tiff(orientation, compression, pixels=DEEP_RGB):
    tags = [(274, 3, 1, orientation, True)]
    return tiff(pixels, photometric="rgb", compression=compression, extratags=tags)


DEEP_FILES = {
    "png": deep_png,
    "tiff": lambda orientation: deep_tiff(orientation, None),
    "tiff deflate": lambda orientation: deep_tiff(orientation, "zlib"),
    "tiff lzw": lambda orientation: deep_tiff(orientation, "lzw"),
    "tiff lzw alpha": lambda orientation: deep_tiff(orientation, "lzw", np.dstack([DEEP_RGB, DEEP])),
}


@pytest.mark.parametrize("kind", DEEP_FILES)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_16_bit_color(orientation, kind):
    content = DEEP_FILES[kind](orientation)
    shown = images.turned(DEEP_RGB, orientation)
    np.testing.assert_array_equal(images.read_image(content), shown)
    np.testing.assert_array_equal(images.read_image(content, orientation=1), DEEP_RGB)
    header = images.read_header(content)
    assert header.orientation == orientation
    assert (header.stored_size, header.shown_size) == (DEEP_RGB.shape[:2], shown.shape[:2])
    if "lzw" in kind:  # OpenCV drops alpha, so the numbers as stored come from tifffile alone
        with pytest.raises(UnreadableFileError, match="TIFF compression 5 is not supported"):
            images.read_values(content)
    else:
        np.testing.assert_array_equal(images.read_values(content), DEEP_RGB)


@pytest.mark.parametrize("pixels", [DEEP_RGB, np.dstack([DEEP_RGB, DEEP])], ids=["rgb", "alpha"])
@pytest.mark.parametrize("compression", ["lzw", "zstd"])
def test_compressed_planes_of_16_bit_color_are_refused(pixels, compression, tmp_path):
    path = tmp_path / "planes.tif"
    options = {"photometric": "rgb", "planarconfig": "separate", "compression": compression}
    path.write_bytes(tiff(np.ascontiguousarray(np.moveaxis(pixels, 2, 0)), **options))
    for read in (images.read_image, images.read_values):
        with pytest.raises(UnreadableFileError, match=r"planes\.tif: TIFF compression .*without compression"):
            read(path)


STACK = np.stack([GRAY, GRAY // 2, GRAY // 3])
SEVERAL = {
    "tiff pages": tiff(STACK, photometric="minisblack"),
    "ImageJ stack": tiff(STACK, imagej=True),
    "compressed pages": tiff(STACK, photometric="minisblack", compression="zlib"),
    "pages by Pillow": encoded(
        PIL.Image.fromarray(STACK[0]),
        "TIFF",
        save_all=True,
        append_images=map(PIL.Image.fromarray, STACK[1:]),
    ),
    "16 bits": tiff(STACK.astype(np.uint16) * 256, photometric="minisblack"),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_of_several_images_one_is_chosen(name):
    assert images.read_header(SEVERAL[name]).frames == 3
    with pytest.raises(
        InvalidDataError, match=r"many: The file must hold one image. Received: 3 (pages|channels) of.*`page`"
    ):
        images.read_image(SEVERAL[name], "many")
    for page in range(3):
        for read in (images.read_image, images.read_values):
            image = read(SEVERAL[name], page=page)
            np.testing.assert_array_equal(image // (256 if image.dtype == np.uint16 else 1), STACK[page])
    with pytest.raises(InvalidDataError, match="`page` must be from 0 to 2"):
        images.read_image(SEVERAL[name], page=3)


def test_stack_behind_a_single_page(tmp_path):
    """ImageJ describes a stack above 4 GB by one page. So does this file."""
    path = tmp_path / "stack.tif"
    with tifffile.TiffWriter(path, imagej=True) as writer:
        writer.write(STACK, contiguous=True)
    with tifffile.TiffFile(path) as file:
        assert len(file.pages) == 1 or len(file.series[0].pages) == 3
    assert images.read_header(path).frames == 3
    np.testing.assert_array_equal(images.read_image(path, page=2), STACK[2])


def test_animations_are_several_images():
    frames = [PIL.Image.fromarray(frame) for frame in (GRAY, GRAY // 2)]
    for kind in ("GIF", "WEBP", "PNG"):
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        with pytest.raises(InvalidDataError, match="2 frames of"):
            images.read_image(content)
        assert images.read_image(content, page=1).shape[:2] == GRAY.shape


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_channels_are_not_taken_for_colors(channels):
    pixels = np.dstack([GRAY] * channels)
    content = tiff(pixels, photometric="minisblack", planarconfig="contig")
    with pytest.raises(InvalidDataError, match=f"{channels} channels that are not colors.*`channels`"):
        images.read_image(content)
    np.testing.assert_array_equal(images.read_values(content), pixels)
    planes = tiff(np.stack([GRAY] * 3), photometric="minisblack", planarconfig="separate")
    with pytest.raises(InvalidDataError, match="3 channels that are not colors"):
        images.read_image(planes)


# --- Label images and masks ---


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint32, np.int64])
def test_labels_are_exact(dtype):
    labels = (GRAY.astype(np.int64) * (np.iinfo(dtype).max // 255)).astype(dtype)
    read = images.read_labels(tiff(labels))
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, labels)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_labels_of_few_bits_are_not_spread(bits):
    labels = GRAY % (1 << bits)
    single = np.unpackbits(labels[..., np.newaxis], axis=2)[..., 8 - bits :].reshape(HEIGHT, -1)
    packed = np.packbits(single, axis=1)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)

    def chunk(name, content):
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, 0, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(images.read_labels(content), labels)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.uint32])
def test_labels_are_exact_where_0_is_white(dtype):
    labels = GRAY > 99 if dtype is bool else (GRAY % 3).astype(dtype)
    content = tiff(labels, photometric="miniswhite")
    for read in (images.read_labels, images.read_values):
        np.testing.assert_array_equal(read(content), labels)


def tiff_of_few_bits(labels, bits, photometric, order):
    """A TIFF file of 8 columns. The lowest bit of a byte comes first in the order 2."""
    single = np.unpackbits(labels[..., np.newaxis], axis=2)[..., 8 - bits :].reshape(len(labels), -1)
    pixels = np.packbits(single, axis=1, bitorder="big" if order == 1 else "little").tobytes()
    numbers = {256: 8, 257: len(labels), 258: bits, 259: 1, 262: photometric, 266: order, 273: 8, 277: 1}
    numbers |= {278: len(labels), 279: len(pixels)}
    tags = b"".join(struct.pack("<HHIHH", code, 3, 1, number, 0) for code, number in numbers.items())
    head = b"II*\0" + struct.pack("<I", 8 + len(pixels))
    return head + pixels + struct.pack("<H", len(numbers)) + tags + bytes(4)


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("photometric", [0, 1])  # of the value 0: white or black
@pytest.mark.parametrize("order", [1, 2])
def test_labels_of_a_tiff_of_few_bits(bits, photometric, order):
    labels = RGB[:8, :8, 0] & ((1 << bits) - 1)
    content = tiff_of_few_bits(labels, bits, photometric, order)
    np.testing.assert_array_equal(images.read_labels(content), labels)
    white = (1 << bits) - 1
    shown = (labels if photometric else white - labels) * (255 // white)
    np.testing.assert_array_equal(images.read_image(content), shown)


@pytest.mark.parametrize("compression", [None, "zlib", "tiff_lzw"])
def test_signed_values_of_8_bits(compression):
    labels = GRAY.view(np.int8)
    if compression == "tiff_lzw":
        content = encoded(GRAY, "TIFF", compression=compression, tiffinfo={339: 2})
    else:
        content = tiff(labels, compression=compression)
    for read in (images.read_labels(content), images.read_image(content)):
        assert read.dtype == np.int8
        np.testing.assert_array_equal(read, labels)


def test_labels_by_palette_are_indices():
    np.testing.assert_array_equal(images.read_labels(palette()), GRAY % 3)


@pytest.mark.parametrize(
    "content, message",
    [
        (encoded(GRAY, "JPEG"), "labels: A label image must be stored in a lossless format.*JPEG.*PNG"),
        (encoded(RGB, "WEBP"), "stored in a lossless format"),
        (encoded(GRAY, "TIFF", compression="jpeg"), "stored in a lossless format"),
        (encoded(RGB), r"one channel of integers.*\(11, 14, 3\)"),
        (tiff(FLOATS), "one channel of integers.*float32"),
    ],
)
def test_labels_that_are_not_exact_are_refused(content, message):
    with pytest.raises(InvalidDataError, match=message):
        images.read_labels(content, "labels")


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_labels_and_masks_are_turned_by_their_orientation(orientation, kind):
    content = with_orientation(GRAY, kind, orientation)
    shown = images.turned(GRAY, orientation)
    np.testing.assert_array_equal(images.read_labels(content), shown)
    np.testing.assert_array_equal(images.read_mask(content), shown > 0)
    np.testing.assert_array_equal(images.read_values(content), GRAY)


def test_masks(caplog):
    mask = np.zeros((64, 64), bool)
    mask[20:44, 13:50] = True
    white = mask.astype(np.uint8) * 255
    for content in (
        encoded(mask),
        encoded(white),
        encoded(np.dstack([white] * 3)),
        tiff(mask.astype(np.uint16)),
        tiff(white.view(np.int8)),
        tiff(mask.astype(np.float32)),
    ):
        np.testing.assert_array_equal(images.read_mask(content), mask)
    assert not caplog.records
    lossy = encoded(white, "JPEG", quality=60)
    assert (images.read_image(lossy) > 0).sum() > mask.sum()
    for _ in range(2):
        np.testing.assert_array_equal(images.read_mask(lossy, "m1.jpg"), mask)
    assert [record.getMessage()[:48] for record in caplog.records] == [
        "m1.jpg: The mask is stored in a lossy format. Pi"
    ]


# --- Files that cannot be read ---


def refused(file, kind, message):
    for read in (
        images.read_header,
        images.read_image,
        images.read_values,
        images.read_labels,
        images.read_mask,
    ):
        with pytest.raises(kind, match=message) as raised:
            read(file)
        assert raised.value.file == (str(file) if isinstance(file, os.PathLike) else None)


def test_what_is_not_a_file(tmp_path):
    refused(tmp_path / "absent.png", MissingFileError, r"absent\.png: There is no such file")
    refused(tmp_path, UnreadableFileError, "it is a folder")
    (tmp_path / "empty.png").write_bytes(b"")
    refused(tmp_path / "empty.png", UnreadableFileError, r"empty\.png: The file is empty")
    (tmp_path / "page.png").write_bytes(b"<html>404</html>")
    refused(tmp_path / "page.png", UnreadableFileError, r"page\.png: The file is not an image")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_a_fifo_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    thread = threading.Thread(
        target=refused, args=(tmp_path / "pipe.png", UnreadableFileError, "FIFO"), daemon=True
    )
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    refused(tmp_path / "pipe.png", UnreadableFileError, "FIFO or a device")


def test_programs_are_not_started_for_images():
    with pytest.raises(UnreadableFileError, match="not an image"):
        images.read_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")


def huge_png(side):
    content = bytearray(encoded(GRAY))
    content[16:24] = struct.pack(">II", side, side)
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    return bytes(content)


def with_tags(content, **tags):
    """Change the numbers of tags of the first page: _256=90_000 states another width."""
    changed = bytearray(content)
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        for code, value in tags.items():
            tag = file.pages[0].tags[int(code[1:])]
            form = {3: "<H", 4: "<I"}[int(tag.dtype)]
            struct.pack_into(form, changed, tag.valueoffset, value)
    return bytes(changed)


def huge_tiff(side, pixels=GRAY):
    return with_tags(tiff(pixels), _256=side, _257=side)


@pytest.mark.parametrize(
    "content", [huge_png(40_000), huge_png(2**31 - 1), huge_tiff(90_000), huge_tiff(90_000, LARGE)]
)
def test_stated_sizes_are_limited_before_decoding(content):
    refused(io.BytesIO(content), InvalidDataError, "PIL.Image.MAX_IMAGE_PIXELS")


@pytest.mark.parametrize("pixels", [GRAY, LARGE, FLOATS.astype(np.float64)])
def test_a_tiff_cannot_state_more_than_it_holds(pixels):
    with pytest.raises(DataError):
        images.read_image(huge_tiff(8_000, pixels))


def test_compressed_tiff_that_unpacks_to_more_than_it_states():
    content = tiff(np.zeros((4096, 4096), np.uint32), compression="zlib", rowsperstrip=4096)
    content = with_tags(content, _257=5, _278=5)
    with pytest.raises(InvalidDataError, match="unpacks to more bytes than the header declares"):
        images.read_image(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP"])
def test_cut_files(kind, tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    content = encoded(noise, kind)
    for share in (0.02, 0.3, 0.8):
        path = tmp_path / f"cut.{kind}"
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(DataError, match=rf"cut\.{kind}: \w"):
            images.read_image(path)


def test_the_entry_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"gone\.png: image id 7: There is no such file\.$") as raised:
        images.read_image(tmp_path / "gone.png", entry="image id 7")
    assert (raised.value.file, raised.value.entry) == (str(tmp_path / "gone.png"), "image id 7")
    with pytest.raises(InvalidDataError, match=r"^many: image id 7: The file must hold one"):
        images.read_image(SEVERAL["tiff pages"], "many", entry="image id 7")


def test_remarks_of_pillow_are_not_printed(tmp_path):
    """They name no file. Programs that set a filter or a handler of their own get them."""
    (tmp_path / "cut.tif").write_bytes(tiff(GRAY)[:8])
    code = "import contextlib, sys; from mrcnn.files import images\nwith contextlib.suppress(OSError):"
    code += " images.read_image(sys.argv[1])"
    for options, is_printed in (([], False), (["-W", "always"], True)):
        command = [sys.executable, *options, "-c", code, str(tmp_path / "cut.tif")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert ("UserWarning" in done.stderr) == is_printed, done.stderr
        assert is_printed or not done.stderr
