"""Every kind of image gives the same windows, and bad files are named."""

import struct

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from mrcnn import tiles
from mrcnn.errors import InvalidDataError, MissingFileError, UnreadableFileError
from mrcnn.files.images import read_image

WINDOWS = [(0, 0, 5, 7), (60, 70, 90, 110), (0, 0, 150, 130), (149, 129, 150, 130)]


@pytest.fixture(scope="module")
def color():
    return np.random.default_rng(0).integers(0, 256, (150, 130, 3), np.uint8)


def check(source, pixels):
    with source:
        assert source.shape == pixels.shape[:2]
        assert source.channels == (1 if pixels.ndim == 2 else pixels.shape[2])
        assert source.dtype == pixels.dtype
        for y1, x1, y2, x2 in WINDOWS:
            window = source.window(y1, x1, y2, x2)
            np.testing.assert_array_equal(window, pixels[y1:y2, x1:x2])
            assert window.dtype == source.dtype


def test_arrays(color, tmp_path):
    check(tiles.open_source(color), color)
    check(tiles.open_source(color[..., 0]), color[..., 0])
    check(tiles.open_source(color, channels=(2, 0)), color[..., [2, 0]])
    check(tiles.open_source(color, channels=(1,)), color[..., 1])
    np.save(tmp_path / "a.npy", color)
    check(tiles.open_source(tmp_path / "a.npy"), color)
    check(tiles.open_source(color.astype(">u2")), color.astype(np.uint16))
    Image.fromarray(color).save(tmp_path / "a.png")
    check(tiles.open_source(tmp_path / "a.png"), color)
    source = tiles.ArraySource(color)
    assert tiles.open_source(source) is source


def test_zarr(color, tmp_path):
    zarr = pytest.importorskip("zarr")
    options = {"shape": color.shape, "chunks": (64, 64, 3), "dtype": "u1"}
    array = zarr.open(str(tmp_path / "a.zarr"), mode="w", **options)
    array[:] = color
    check(tiles.open_source(array), color)
    check(tiles.open_source(tmp_path / "a.zarr"), color)


@pytest.mark.parametrize(
    "options",
    [
        {"photometric": "rgb"},
        {"photometric": "rgb", "tile": (32, 48)},
        {"photometric": "rgb", "tile": (32, 32), "compression": "zlib"},
        {"photometric": "rgb", "rowsperstrip": 16, "compression": "zlib"},
        {"photometric": "rgb", "tile": (32, 32), "bigtiff": True, "byteorder": ">"},
        {"photometric": "rgb", "byteorder": ">"},
        {"photometric": "rgb", "planarconfig": "separate"},
    ],
)
def test_color_tiff(color, tmp_path, options):
    pytest.importorskip("zarr")
    data = np.moveaxis(color, -1, 0) if "planarconfig" in options else color
    tifffile.imwrite(tmp_path / "a.tif", data, **options)
    check(tiles.open_source(tmp_path / "a.tif"), color)


@pytest.mark.parametrize("tile", [None, (32, 32)])
def test_stacks_and_channels_are_chosen(tmp_path, tile):
    pytest.importorskip("zarr")
    stack = np.random.default_rng(1).integers(0, 60000, (3, 2, 150, 130), np.uint16)
    path = tmp_path / "a.ome.tif"
    metadata = {"axes": "ZCYX", "Channel": {"Name": ["DAPI", "GFP"]}}
    tifffile.imwrite(path, stack, metadata=metadata, tile=tile)
    check(tiles.open_source(path, page=2, channels=(1,)), stack[2, 1])
    check(tiles.open_source(path, page=0, channels=(1, 0)), stack[0, [1, 0]].transpose(1, 2, 0))
    with pytest.raises(InvalidDataError, match=r"DAPI, GFP.*Choose one or more with `channels`"):
        tiles.open_source(path, page=2)
    with pytest.raises(InvalidDataError, match=r"3 slices.*Choose one with `page`"):
        tiles.open_source(path, channels=(0,))
    with pytest.raises(InvalidDataError, match=r"`page` must be from 0 to 2. Received: page=3"):
        tiles.open_source(path, page=3, channels=(0,))
    with pytest.raises(InvalidDataError, match=r"channels=\(2,\)"):
        tiles.open_source(path, page=0, channels=(2,))


def test_levels_of_a_pyramid(color, tmp_path):
    pytest.importorskip("zarr")
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path) as file:
        options = {"photometric": "rgb", "tile": (32, 32)}
        file.write(color, subifds=1, **options)
        file.write(color[::2, ::2], subfiletype=1, **options)
    check(tiles.open_source(path), color)
    with tiles.open_source(path, level=1) as source:
        np.testing.assert_array_equal(source.window(0, 0, 75, 65), color[::2, ::2])
    with pytest.raises(InvalidDataError, match=r"`level` must be from 0 to 1. Received: level=2"):
        tiles.open_source(path, level=2)


def test_slides(color, tmp_path):
    """A tiled TIFF file counts as a slide of the kind "generic-tiff"."""
    pytest.importorskip("tiffslide")
    path = tmp_path / "a.svs"
    tifffile.imwrite(path, color, photometric="rgb", tile=(32, 32))
    check(tiles.open_source(path), color)
    (tmp_path / "b.svs").write_bytes(b"no slide")
    with pytest.raises(UnreadableFileError, match=r"b.svs: The slide cannot be opened"):
        tiles.open_source(tmp_path / "b.svs")


def test_rasters_of_maps(color, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "height": 150, "width": 130, "dtype": "uint8", "crs": "EPSG:32633"}
    transform = rasterio.transform.from_origin(500000, 5800000, 0.5, 0.5)
    with rasterio.open(path, "w", count=3, photometric="RGB", transform=transform, **profile) as file:
        file.write(np.moveaxis(color, -1, 0))
    source = tiles.open_source(path)
    assert isinstance(source, tiles.RasterSource)
    assert source.calibration.georeference.transform == (0.5, 0, 500000, 0, -0.5, 5800000)
    assert source.calibration.georeference.crs == "EPSG:32633"
    check(source, color)
    check(tiles.open_source(path, channels=(2,)), color[..., 2])
    check(tiles.TiffSource(path), color)
    with rasterio.open(path, "w", count=2, transform=transform, **profile) as file:
        file.write(np.moveaxis(color[..., :2], -1, 0))
    with pytest.raises(InvalidDataError, match=r"2 bands .*Choose one or more with `channels`"):
        tiles.open_source(path)
    with rasterio.open(path, "w", count=2, alpha="YES", transform=transform, **profile) as file:
        file.write(np.moveaxis(color[..., :2], -1, 0))
    check(tiles.open_source(path), color[..., 0])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_gray_tiff_files_with_alpha_look_as_in_detect(color, tmp_path, dtype, photometric):
    path = tmp_path / "a.tif"
    data = color[..., :2].astype(dtype) * dtype(np.iinfo(dtype).max // 255)
    options = {"photometric": photometric, "planarconfig": "contig"}
    tifffile.imwrite(path, data, extrasamples=["unassalpha"], **options)
    check(tiles.TiffSource(path), read_image(path))
    check(tiles.open_source(path, channels=(1,)), data[..., 1])
    tifffile.imwrite(path, data, extrasamples=["unspecified"], **options)
    with pytest.raises(InvalidDataError, match="Choose one or more with `channels`"):
        tiles.open_source(path)


MAP_TAGS = [
    (33550, "d", 3, (0.5, 0.5, 0), True),
    (33922, "d", 6, (0, 0, 0, 500000, 5800000, 0), True),
    (34735, "H", 12, (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32633), True),
]
COLORS = np.random.default_rng(2).integers(0, 65536, (3, 256)).astype(np.uint16)


@pytest.mark.parametrize(
    "dtype, options",
    [
        (np.uint8, {"photometric": "miniswhite"}),
        (np.uint16, {"photometric": "miniswhite"}),
        (np.uint16, {"photometric": "miniswhite", "byteorder": ">"}),
        (np.uint16, {"byteorder": ">"}),
        (np.uint16, {"byteorder": ">", "tile": (32, 48)}),
        (np.float32, {"photometric": "miniswhite"}),
        (np.uint8, {"photometric": "miniswhite", "tile": (32, 48), "compression": "zlib"}),
        (np.uint8, {"photometric": "palette", "colormap": COLORS}),
        (np.uint8, {"photometric": "palette", "colormap": COLORS, "tile": (32, 48)}),
        *((np.uint8, {"extratags": [(274, "H", 1, orientation, True)]}) for orientation in range(1, 9)),
    ],
)
def test_tiff_files_look_as_in_detect(color, tmp_path, dtype, options):
    pytest.importorskip("zarr")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, color[..., 0].astype(dtype), **options)
    shown = read_image(path)
    with tiles.open_source(path) as source:
        height, width = source.shape
        assert (height, width, source.dtype) == (*shown.shape[:2], shown.dtype)
        assert source.channels == (1 if shown.ndim == 2 else shown.shape[2])
        for y1, x1, y2, x2 in [(0, 0, height, width), (3, 9, 40, 60), (height - 1, 0, height, 5)]:
            window = source.window(y1, x1, y2, x2)
            np.testing.assert_array_equal(window, shown[y1:y2, x1:x2])
            assert window.dtype == source.dtype
    with tiles.open_source(path, channels=(0,)) as source:
        np.testing.assert_array_equal(
            source.window(0, 0, *source.shape), read_image(path, channels=(0,)).astype(dtype)
        )


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_deflate"}, {"tiffinfo": {262: 0}}])
def test_one_bit_tiff_files_become_0_and_255(color, tmp_path, options):
    pytest.importorskip("zarr")
    Image.fromarray(color[..., 0] > 100).save(tmp_path / "a.tif", **options)
    check(tiles.open_source(tmp_path / "a.tif"), read_image(tmp_path / "a.tif"))


def swapped_profile(space):
    """An ICC profile that changes the colors of a space: it exchanges red and green, or changes the gamma."""
    content = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, other in ((b"rXYZ", b"tXYZ"), (b"gXYZ", b"rXYZ"), (b"tXYZ", b"gXYZ")):
        start = content.index(name, 128)
        content = content[:start] + other + content[start + 4 :]
    if space == "RGB":
        return content.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
    tags = {b"wtpt": b"XYZ " + bytes(4) + struct.pack(">3I", 63190, 65536, 54061)}
    tags[b"kTRC"] = b"curv" + bytes(4) + struct.pack(">IH", 1, 256)
    tags[b"desc"] = b"desc" + bytes(4) + struct.pack(">I", 5) + b"gray\0" + bytes(78)
    table, data, start = b"", b"", 132 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">2I", start + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    body = content[4:16] + b"GRAYXYZ " + content[24:128] + struct.pack(">I", len(tags)) + table + data
    return struct.pack(">I", len(body) + 4) + body


def saved(path, pixels, mode, **options):
    """Save a TIFF file with the colors of a mode of Pillow."""
    image = Image.fromarray(pixels)
    if mode == "LAB":
        profiles = (ImageCms.createProfile(name) for name in ("sRGB", "LAB"))
        image = ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    else:
        image = image.convert(mode)
    image.save(path, **options)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "jpeg"])
@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"])
@pytest.mark.parametrize("space", [None, "RGB", "GRAY"])
def test_colors_and_profiles_are_those_of_detect(color, tmp_path, mode, compression, space):
    """Or an error says what to do."""
    pytest.importorskip("zarr")
    if mode == "P" and compression == "jpeg":
        pytest.skip("JPEG compression has no palettes")
    path = tmp_path / "a.tif"
    options = {} if space is None else {"icc_profile": swapped_profile(space)}
    saved(path, color, mode, compression=compression, **options)
    if (mode, compression == "jpeg") in {("YCbCr", False), ("LAB", True)}:
        with pytest.raises(InvalidDataError, match=r"Received: (YCBCR|CIELAB), .*with RGB colors"):
            tiles.open_source(path)
    else:
        check(tiles.open_source(path), read_image(path))
    if compression is None:
        values = read_image(path, channels=(0,))
        check(tiles.open_source(path, channels=(0,)), values)
    if space == ("GRAY" if mode in ("L", "LA") else "RGB") and mode in ("L", "LA", "P", "RGB", "RGBA"):
        saved(path, color, mode, compression=compression)
        plain = read_image(path).astype(int)
        saved(path, color, mode, compression=compression, **options)
        assert np.abs(read_image(path) - plain).max() > 50  # the profile does change the colors


@pytest.mark.parametrize(
    "channels, options",
    [
        (4, {"photometric": "rgb", "extrasamples": ["assocalpha"]}),
        (4, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        (4, {"photometric": "rgb", "extrasamples": ["unspecified"]}),
        (2, {"photometric": "minisblack", "extrasamples": ["assocalpha"]}),
        (4, {"photometric": "separated"}),
        (5, {"photometric": "separated", "extrasamples": ["unspecified"]}),
        (1, {"photometric": "miniswhite"}),
    ],
)
@pytest.mark.parametrize("space", [None, "RGB", "GRAY"])
def test_alpha_and_inks_are_those_of_detect(tmp_path, channels, options, space):
    pixels = np.random.default_rng(3).integers(0, 256, (150, 130, channels), np.uint8)
    if channels == 1:
        pixels = pixels[..., 0]
    if space is not None:
        options = options | {"iccprofile": swapped_profile(space)}
    tifffile.imwrite(tmp_path / "a.tif", pixels, planarconfig=None if channels == 1 else "contig", **options)
    check(tiles.open_source(tmp_path / "a.tif"), read_image(tmp_path / "a.tif"))


def test_inks_of_16_bits_are_an_error(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8, 4), np.uint16), photometric="separated")
    with pytest.raises(InvalidDataError, match=r"a.tif: .*Received: SEPARATED, uint16.*Save the image with"):
        tiles.open_source(tmp_path / "a.tif")


@pytest.mark.parametrize("options", [{}, {"metadata": None}])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_pages_are_counted_as_in_detect(color, tmp_path, options, compression):
    """Also pages of different sizes and colors."""
    pytest.importorskip("zarr")
    path = tmp_path / "a.tif"
    images = [color[..., 0], color[:20, :24, 1], color[..., 2], color, 255 - color[..., 0]]
    kinds = ["minisblack", "minisblack", "miniswhite", "rgb", "minisblack"]
    with tifffile.TiffWriter(path) as file:
        for pixels, kind in zip(images, kinds, strict=True):
            file.write(pixels, photometric=kind, compression=compression, **options)
    with pytest.raises(InvalidDataError, match=r"Received: 5 pages. Choose one with `page`"):
        tiles.open_source(path)
    for page in range(5):
        shown = read_image(path, page=page)
        with tiles.open_source(path, page=page) as source:
            assert (source.shape, source.dtype) == (shown.shape[:2], shown.dtype)
            np.testing.assert_array_equal(source.window(0, 0, *source.shape), shown)
            np.testing.assert_array_equal(source.window(3, 5, 18, 22), shown[3:18, 5:22])
    check(tiles.open_source(path, page=3, channels=(2,)), color[..., 2])
    with pytest.raises(InvalidDataError, match=r"`page` must be from 0 to 4. Received: page=5"):
        tiles.open_source(path, page=5)


def test_other_files_of_a_series_do_not_count(tmp_path):
    """An OME-TIFF file can name images in other files."""
    stack = np.random.default_rng(1).integers(0, 60000, (2, 150, 130), np.uint16)
    names = [tmp_path / "a.ome.tif", tmp_path / "b.ome.tif"]
    places = "".join(
        f'<TiffData FirstZ="{z}" IFD="0"><UUID FileName="{path.name}">urn:uuid:{z}</UUID></TiffData>'
        for z, path in enumerate(names)
    )
    for z, path in enumerate(names):
        description = (
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:{z}"><Image ID="Image:0"><Pixels ID="Pixels:0" '
            'DimensionOrder="XYZCT" Type="uint16" SizeX="130" SizeY="150" SizeZ="2" SizeC="1" SizeT="1">'
            f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{places}</Pixels></Image></OME>'
        )
        tifffile.imwrite(path, stack[z], description=description, metadata=None)
    for z, path in enumerate(names):
        np.testing.assert_array_equal(read_image(path), stack[z])
        check(tiles.open_source(path), stack[z])


def test_each_image_of_a_file_has_its_levels(color, tmp_path):
    pytest.importorskip("zarr")
    path, images = tmp_path / "a.ome.tif", [color, 255 - color[:140]]
    with tifffile.TiffWriter(path) as file:
        options = {"photometric": "rgb", "tile": (32, 32)}
        for pixels in images:
            file.write(pixels, subifds=1, **options)
            file.write(pixels[::2, ::2], subfiletype=1, **options)
    with pytest.raises(InvalidDataError, match=r"Received: 2 pages.* Choose one with `page`"):
        tiles.open_source(path)
    for page, pixels in enumerate(images):
        with tiles.open_source(path, page=page) as source:
            shown = read_image(path, page=page)
            np.testing.assert_array_equal(shown, pixels)
            np.testing.assert_array_equal(source.window(0, 0, *source.shape), shown)
        with tiles.open_source(path, page=page, level=1) as source:
            np.testing.assert_array_equal(source.window(0, 0, *source.shape), pixels[::2, ::2])


def test_levels_without_a_mark_are_one_image(color, tmp_path):
    """As in files of scanners, in which only the sizes show that the pages are levels."""
    pytest.importorskip("zarr")
    path = tmp_path / "a.tif"
    options = {"photometric": "rgb", "tile": (32, 32), "metadata": None}
    with tifffile.TiffWriter(path) as file:
        file.write(color, description="Aperio Image Library", **options)
        file.write(color[::5, ::5], photometric="rgb", metadata=None)  # a thumbnail
        file.write(color[::2, ::2], description="Aperio", **options)
    check(tiles.open_source(path), color)
    check(tiles.open_source(path, page=0), color)
    for choice in ({"level": 1}, {"page": 0, "level": 1}, {"page": 2}):
        with tiles.open_source(path, **choice) as source:
            np.testing.assert_array_equal(source.window(0, 0, 75, 65), color[::2, ::2])


def test_the_pixel_size_is_turned(color, tmp_path):
    options = {"resolution": (100, 200), "resolutionunit": "CENTIMETER"}  # along x and y
    tifffile.imwrite(tmp_path / "a.tif", color[..., 0], extratags=[(274, "H", 1, 6, True)], **options)
    with tiles.open_source(tmp_path / "a.tif") as source:
        size = source.calibration.pixel_size
    assert (size.height, size.width) == (100, 50)


@pytest.mark.parametrize("photometric", ["palette", "miniswhite"])
def test_maps_look_as_in_detect(color, tmp_path, photometric):
    rasterio = pytest.importorskip("rasterio")
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "height": 150, "width": 130, "count": 1, "dtype": "uint8"}
    profile["crs"] = "EPSG:32633"
    transform = rasterio.transform.from_origin(500000, 5800000, 0.5, 0.5)
    with rasterio.open(path, "w", photometric=photometric, transform=transform, **profile) as file:
        file.write(color[..., 0], 1)
        if photometric == "palette":
            file.write_colormap(1, {value: (value, 255 - value, 7, 255) for value in range(256)})
    source = tiles.open_source(path)
    assert isinstance(source, tiles.RasterSource)
    check(source, read_image(path))
    check(tiles.TiffSource(path), read_image(path))
    check(tiles.open_source(path, channels=(0,)), color[..., 0])


@pytest.mark.parametrize("alpha", [None, "unassalpha", "assocalpha"])
def test_profiles_and_alpha_of_maps_are_those_of_detect(color, tmp_path, alpha):
    pytest.importorskip("rasterio")
    path = tmp_path / "a.tif"
    bands = color if alpha is None else np.dstack([color, color[..., 1]])
    options = {"photometric": "rgb", "extrasamples": alpha, "extratags": MAP_TAGS}
    tifffile.imwrite(path, bands, iccprofile=swapped_profile("RGB"), **options)
    source = tiles.open_source(path)
    assert isinstance(source, tiles.RasterSource)
    check(source, read_image(path))


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif"])
def test_channels_with_a_gray_profile_are_no_colors(color, tmp_path, name):
    options = {
        "photometric": "minisblack",
        "metadata": {"axes": "CYX"},
        "iccprofile": swapped_profile("GRAY"),
    }
    tifffile.imwrite(tmp_path / name, np.moveaxis(color, 2, 0), **options)
    with pytest.raises(InvalidDataError, match="are not colors"):
        tiles.open_source(tmp_path / name)
    check(tiles.open_source(tmp_path / name, channels=(1,)), color[..., 1])


def test_maps_of_several_pages_are_chosen_from(color, tmp_path):
    pytest.importorskip("rasterio")
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for band in (0, 1):
            file.write(color[..., band], extratags=MAP_TAGS, metadata=None)
    with pytest.raises(InvalidDataError, match=r"a.tif: .*Received: 2 pages. Choose one with `page`"):
        tiles.open_source(tmp_path / "a.tif")
    check(tiles.open_source(tmp_path / "a.tif", page=1), color[..., 1])


def test_a_turned_map_is_an_error(color, tmp_path):
    tags = [(274, "H", 1, 6, True), *MAP_TAGS]
    tifffile.imwrite(tmp_path / "a.tif", color[..., 0], extratags=tags)
    with pytest.raises(InvalidDataError, match=r"a.tif: A file with a place on a map must be stored upright"):
        tiles.open_source(tmp_path / "a.tif")
    with pytest.raises(InvalidDataError, match="the orientation tag 6"):
        tiles.TiffSource(tmp_path / "a.tif")


def test_a_missing_package_is_named(color, tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", color, photometric="rgb", tile=(32, 32))
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    with pytest.raises(ImportError, match=r'pip install "keras-mrcnn\[large\]"'):
        tiles.open_source(tmp_path / "a.tif")


def test_files_that_cannot_be_read(color, tmp_path):
    pytest.importorskip("zarr")
    with pytest.raises(MissingFileError, match=r"no.tif: There is no such file"):
        tiles.open_source(tmp_path / "no.tif")
    (tmp_path / "text.tif").write_text("hello")
    with pytest.raises(UnreadableFileError, match=r"text.tif: The TIFF file cannot be opened"):
        tiles.open_source(tmp_path / "text.tif")
    (tmp_path / "text.npy").write_text("hello")
    with pytest.raises(UnreadableFileError, match=r"text.npy: The array cannot be opened"):
        tiles.open_source(tmp_path / "text.npy")
    path = tmp_path / "damaged.tif"
    tifffile.imwrite(path, color, photometric="rgb", tile=(32, 32), compression="zlib")
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[offset : offset + 20] = bytes(20)
    path.write_bytes(content)
    with tiles.open_source(path) as source:
        assert source.window(64, 64, 70, 70).shape == (6, 6, 3)  # other blocks are sound
        with pytest.raises(
            UnreadableFileError, match=r"damaged.tif: Rows 0 to 8 and columns 0 to 8 cannot be"
        ):
            source.window(0, 0, 8, 8)


def test_bad_arguments(color):
    with pytest.raises(ValueError, match=r"A window must lie in the image of 150 x 130 pixels"):
        tiles.open_source(color).window(0, 0, 151, 5)
    with pytest.raises(InvalidDataError, match=r"Take one slice of a stack"):
        tiles.open_source(np.zeros((2, 3, 4, 5)))
    with pytest.raises(InvalidDataError, match=r"an array or a path. Received: int"):
        tiles.open_source(3)
    with pytest.raises(InvalidDataError, match=r"at least one pixel"):
        tiles.open_source(np.zeros((0, 5)))


@pytest.mark.parametrize(
    "name, choice",
    [
        ("array", {"page": 0}),
        ("array", {"level": 1}),
        ("source", {"channels": (0,)}),
        ("a.npy", {"page": 1}),
        ("a.npy", {"level": 1}),
        ("a.png", {"level": 2}),
        ("a.vrt", {"page": 0}),
        ("a.jp2", {"level": 1}),
        ("a.svs", {"page": 0}),
        ("a.svs", {"channels": (0,)}),
        ("a.zarr", {"page": 0}),
    ],
)
def test_choices_that_an_image_does_not_offer(color, tmp_path, name, choice):
    source = tmp_path / name
    source.write_bytes(b"never opened")
    source = {"array": color, "source": tiles.ArraySource(color)}.get(name, source)
    (argument,) = choice
    with pytest.raises(InvalidDataError, match=f"`{argument}` cannot be chosen in .* {argument}="):
        tiles.open_source(source, **choice)


def test_levels_of_zarr(color, tmp_path):
    zarr = pytest.importorskip("zarr")
    array = zarr.open(str(tmp_path / "a.zarr"), mode="w", shape=color.shape, chunks=(64, 64, 3), dtype="u1")
    array[:] = color
    with pytest.raises(InvalidDataError, match=r"`level` must be from 0 to 0. Received: level=1"):
        tiles.open_source(tmp_path / "a.zarr", level=1)
    group = zarr.open_group(str(tmp_path / "b.zarr"), mode="w")
    for level in (0, 1):
        part = color[:: level + 1, :: level + 1]
        group.create_array(str(level), shape=part.shape, dtype="u1")[:] = part
    with tiles.open_source(tmp_path / "b.zarr", level=1) as source:
        np.testing.assert_array_equal(source.window(0, 0, 75, 65), color[::2, ::2])
    with pytest.raises(InvalidDataError, match=r"one of the arrays \['0', '1'\]. Received: level=2"):
        tiles.open_source(tmp_path / "b.zarr", level=2)


def test_a_source_of_ones_own(color):
    class Doubled(tiles.ImageSource):
        def read(self, y1, x1, y2, x2):
            return color[y1:y2, x1:x2] // 2

    check(Doubled(color.shape, 3, color.dtype), color // 2)
    wrong = Doubled((200, 130), 3, color.dtype)
    with pytest.raises(UnreadableFileError, match=r"returned an array of shape"):
        wrong.window(140, 0, 190, 10)
