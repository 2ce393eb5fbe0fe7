"""The size of a pixel, and channels and pages of TIFF files."""

import numpy as np
import pytest
import tifffile

from mrcnn.errors import InvalidDataError
from mrcnn.files.calibration import Calibration, GeoReference, PixelSize, read_calibration, unit_name
from mrcnn.files.images import read_image

GRAY = np.arange(60, dtype=np.uint16).reshape(6, 10)
# 2 channels of 3 slices: each image has a value of its own.
STACK = np.stack([[GRAY + 100 * (2 * z + c) for c in range(2)] for z in range(3)])


def saved(path, pixels, **options):
    tifffile.imwrite(path, pixels, **options)
    return path


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"imagej": True, "resolution": (4, 2), "metadata": {"unit": "um"}}, PixelSize(0.5, 0.25)),
        ({"imagej": True, "resolution": (4, 2), "metadata": {"unit": "\\u00B5m"}}, PixelSize(0.5, 0.25)),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "mm"}}, PixelSize(0.25, 0.25, "mm")),
        ({"imagej": True}, None),
        (
            {
                "ome": True,
                "metadata": {"PhysicalSizeX": 0.2, "PhysicalSizeY": 0.3, "PhysicalSizeXUnit": "µm"},
            },
            PixelSize(0.3, 0.2),
        ),
        ({"resolution": (20000, 10000), "resolutionunit": "CENTIMETER"}, PixelSize(1.0, 0.5)),
        ({"resolution": (300, 300), "resolutionunit": "INCH"}, None),
        ({"description": "Aperio Image Library |AppMag = 20|MPP = 0.4990"}, PixelSize(0.499, 0.499)),
        ({}, None),
    ],
)
def test_pixel_size(options, expected, tmp_path):
    found = read_calibration(saved(tmp_path / "a.tif", GRAY, **options)).pixel_size
    assert (found is None) == (expected is None)
    if expected is not None:
        assert (found.height, found.width, found.unit) == (
            pytest.approx(expected.height, rel=1e-6),
            pytest.approx(expected.width, rel=1e-6),
            expected.unit,
        )


@pytest.mark.parametrize(
    "unit, name",
    [
        ("µm", "um"),
        ("\u03bcm", "um"),
        ("\\u00B5m", "um"),  # as ImageJ writes it
        ("Å", "angstrom"),
        ("\u212b", "angstrom"),  # the sign
        ("A\u030a", "angstrom"),  # two characters
        ("\\u00C5", "angstrom"),
        ("ångström", "angstrom"),
        ("nm", "nm"),
        ("毫米", ""),
    ],
)
def test_names_of_units_are_ascii(unit, name, tmp_path):
    assert unit_name(unit) == name
    options = {"PhysicalSizeX": 0.2, "PhysicalSizeY": 0.3}
    options |= {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    found = read_calibration(saved(tmp_path / "a.ome.tif", GRAY, ome=True, metadata=options)).pixel_size
    assert found == (PixelSize(0.3, 0.2, name) if name else None)


def test_lengths_in_centimeters():
    assert PixelSize(2, 3, "Å").in_centimeters() == pytest.approx((2e-8, 3e-8))
    assert PixelSize(2, 3, "µm").in_centimeters() == pytest.approx((2e-4, 3e-4))
    assert PixelSize(2, 3, "毫米").in_centimeters() is None


@pytest.mark.parametrize("name", ["a.btf", "a.tf8", "a.TIFF"])
def test_every_suffix_of_tiff_files_is_read(name, tmp_path):
    options = {"resolution": (20000, 10000), "resolutionunit": "CENTIMETER"}
    assert read_calibration(saved(tmp_path / name, GRAY, **options)).pixel_size is not None


def test_files_without_metadata(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0damaged")
    for name in ("a.tif", "none.tif", "a.png"):
        assert read_calibration(tmp_path / name) == Calibration()
    with pytest.raises(ValueError, match="must be positive numbers"):
        PixelSize(0.0, 1.0)


def test_map_coordinates():
    place = GeoReference((0.5, 0.1, 1000.0, -0.2, -0.5, 2000.0))
    points = np.array([[0.0, 0.0], [3.0, 7.5]])
    np.testing.assert_allclose(place.to_map(points)[1], (1000 + 1.5 + 0.75, 2000 - 0.6 - 3.75))
    np.testing.assert_allclose(place.to_pixels(place.to_map(points)), points, atol=1e-9)


@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_channels_of_a_stack_are_chosen(kind, tmp_path):
    names = {"Channel": {"Name": ["DAPI", "GFP"]}} if kind == "ome" else {"Labels": ["DAPI", "GFP"] * 3}
    path = saved(tmp_path / "a.tif", STACK, **{kind: True}, metadata={"axes": "ZCYX", **names})
    with pytest.raises(
        InvalidDataError, match=r"one image. Received: 3 slices x 2 channels.*`channels`.*`page`"
    ):
        read_image(path)
    with pytest.raises(InvalidDataError, match=r"Received: 3 slices x 2 channels.*Choose one with `page`"):
        read_image(path, channels=[0])
    if kind == "ome":
        with pytest.raises(InvalidDataError, match=r"numbers from 0 to 1.*channels: DAPI, GFP"):
            read_image(path, page=0, channels=[2])
    np.testing.assert_array_equal(read_image(path, page=2, channels=[1]), STACK[2, 1])
    both = read_image(path, page=1, channels=[1, 0])
    np.testing.assert_array_equal(both, np.stack([STACK[1, 1], STACK[1, 0]], axis=-1))
    # Pages are the images in the order of the file.
    np.testing.assert_array_equal(read_image(path, page=3), STACK[1, 1])


def test_channels_of_one_image_are_chosen(tmp_path):
    pixels = np.stack([GRAY + 100 * n for n in range(5)], axis=-1)
    path = saved(tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="contig")
    with pytest.raises(InvalidDataError, match=r"5 channels that are not colors.*`channels`"):
        read_image(path)
    np.testing.assert_array_equal(read_image(path, channels=(4,)), pixels[..., 4])
    np.testing.assert_array_equal(read_image(path, channels=(3, 0, 1)), pixels[..., [3, 0, 1]])
    for wrong in ([5], [-1], []):
        with pytest.raises(InvalidDataError, match="`channels` must be numbers from 0 to 4"):
            read_image(path, channels=wrong)


@pytest.mark.parametrize("wrong", [0, 3, "0", [0.0], [None]])
def test_channels_are_a_list(wrong, tmp_path):
    from mrcnn.formats import LabelImageDataset

    path = saved(tmp_path / "a.tif", np.stack([GRAY] * 3, axis=-1))
    example = wrong if isinstance(wrong, int) else 0
    message = rf"`channels` must be a list of integers, such as channels=\[{example}\]. Received: channels="
    with pytest.raises(InvalidDataError, match=rf"a\.tif: {message}"):
        read_image(path, channels=wrong)
    with pytest.raises(InvalidDataError, match=message):
        LabelImageDataset(channels=wrong)


def test_channels_may_be_an_array(tmp_path):
    path = saved(tmp_path / "a.tif", np.stack([GRAY, GRAY + 1, GRAY + 2], axis=-1))
    np.testing.assert_array_equal(read_image(path, channels=np.array([2])), GRAY + 2)


def test_datasets_take_the_choice(tmp_path):
    from mrcnn.formats import LabelImageDataset

    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    saved(tmp_path / "images" / "a.tif", STACK, imagej=True, metadata={"axes": "ZCYX"})
    saved(tmp_path / "labels" / "a.tif", (GRAY > 30).astype(np.uint8))
    with pytest.raises(
        InvalidDataError, match=r"Received: 3 slices x 2 channels.*LabelImageDataset\(page=0\)"
    ):
        LabelImageDataset().load(tmp_path)
    dataset = LabelImageDataset(page=2, channels=[1])
    dataset.load(tmp_path)
    dataset.prepare()
    np.testing.assert_array_equal(dataset.load_image(0), np.repeat(STACK[2, 1][..., None], 3, axis=-1))
    assert dataset.load_mask(0)[0][..., 0].sum() == (GRAY > 30).sum()
