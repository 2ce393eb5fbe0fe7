import math
import random
import re
from types import SimpleNamespace

import numpy as np
import pytest
from golden_files import golden_params, load, text, unpack_bits
from scipy import ndimage
from skimage.transform import resize as skimage_resize

from mrcnn.geometry import image_meta, images, preprocessing

CONFIG = SimpleNamespace(MEAN_PIXEL=np.array([123.7, 116.8, 103.9]))


def resize_by_loops(image, height, width):
    """Bilinear with zeros outside, one pixel and one channel at a time."""
    rows, columns = image.shape[:2]
    out = np.zeros((height, width, *image.shape[2:]))

    def pixel(row, column):
        inside = 0 <= row < rows and 0 <= column < columns
        return image[row, column].astype(float) if inside else np.zeros(image.shape[2:])

    for i in range(height):
        for j in range(width):
            y, x = (i + 0.5) * rows / height - 0.5, (j + 0.5) * columns / width - 0.5
            row, column = math.floor(y), math.floor(x)
            dy, dx = y - row, x - column
            top = (1 - dx) * pixel(row, column) + dx * pixel(row, column + 1)
            bottom = (1 - dx) * pixel(row + 1, column) + dx * pixel(row + 1, column + 1)
            out[i, j] = (1 - dy) * top + dy * bottom
    return np.clip(out, image.min(), image.max())


def noise(shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(dtype)


class TestResize:
    def test_borders_fade_to_zero(self):
        small = np.array([[0.0, 255.0], [255.0, 255.0]])
        large = images.resize(small, (3, 3))
        np.testing.assert_allclose(large[2, 2], 255 * (5 / 6) ** 2)  # 177.08
        np.testing.assert_allclose(large[1, 1], 255 * 0.75)

    def test_a_constant_image_stays_constant(self):
        np.testing.assert_array_equal(images.resize(np.full((5, 7), 3.3), (13, 11)), 3.3)

    def test_flat_regions_are_not_speckled(self):
        image = np.full((50, 60, 3), 200, np.uint8)
        image[0, 0] = 255
        resized, (y1, x1, y2, x2), *_ = images.resize_image(image, 77, 128)
        flat = resized[y1 + 4 : y2 - 2, x1 + 4 : x2 - 2]
        assert np.unique(flat).tolist() == [200]

    def test_no_anti_aliasing_when_shrinking(self):
        stripes = np.tile([0.0, 0.0, 1.0], 4)[None, :]
        np.testing.assert_allclose(images.resize(stripes, (1, 4)), 0)

    def test_same_size_is_the_same_image(self):
        image = np.random.default_rng(0).normal(size=(9, 8, 3))
        np.testing.assert_array_equal(images.resize(image, (9, 8)), image)

    @pytest.mark.parametrize("size", [(1, 1), (3, 20), (20, 3), (6, 9), (17, 23), (40, 5)])
    @pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)])
    def test_equals_plain_loops(self, size, channels):
        image = np.random.default_rng(1).normal(10, 5, (6, 9, *channels))
        np.testing.assert_allclose(
            images.resize(image, size), resize_by_loops(image, *size), rtol=1e-12, atol=1e-12
        )

    @pytest.mark.parametrize("sides", [(31, 45, 64, 50), (90, 60, 33, 71), (50, 80, 20, 19)])
    def test_equals_scikit_image(self, sides):
        image = np.random.default_rng(2).random((*sides[:2], 3))
        expected = skimage_resize(image, sides[2:], order=1, mode="constant", anti_aliasing=False)
        np.testing.assert_allclose(images.resize(image, sides[2:]), expected, rtol=1e-9, atol=1e-12)

    def test_output_shape_may_name_the_channels(self):
        image = np.random.default_rng(3).random((4, 5, 3))
        np.testing.assert_array_equal(images.resize(image, (8, 9, 3)), images.resize(image, (8, 9)))

    @pytest.mark.parametrize(("dtype", "largest"), [(np.uint8, 255), (np.uint16, 65535), (np.bool_, 1)])
    def test_integers_become_fractions(self, dtype, largest):
        image = np.array([[0, largest], [largest, 0]], dtype)
        resized = images.resize(image, (2, 2))
        assert resized.dtype == np.float64
        np.testing.assert_array_equal(resized, [[0, 1], [1, 0]])

    def test_range_may_be_preserved(self):
        image = noise((4, 4))
        resized = images.resize(image, (4, 4), preserve_range=True)
        assert resized.dtype == np.float64
        np.testing.assert_array_equal(resized, image)

    @pytest.mark.parametrize("dtype", [np.float16, np.float32])
    def test_single_precision_is_kept(self, dtype):
        image = np.random.default_rng(4).random((5, 6)).astype(dtype)
        resized = images.resize(image, (11, 13))
        assert resized.dtype == np.float32
        np.testing.assert_allclose(resized, resize_by_loops(image, 11, 13), atol=1e-5)

    @pytest.mark.parametrize(
        "options",
        [
            {"order": 0},
            {"order": 3},
            {"mode": "edge"},
            {"cval": 0.5},
            {"clip": False},
            {"anti_aliasing": True},
            {"anti_aliasing": True, "anti_aliasing_sigma": (2.0, 0.0)},
        ],
    )
    def test_every_other_choice_is_scikit_image(self, options):
        image = np.random.default_rng(5).random((12, 9)) + 2
        arguments = {"order": 1, "mode": "constant", "anti_aliasing": False, **options}
        size = (7, 20)  # one side smaller, one larger
        expected = skimage_resize(image, size, **arguments)
        np.testing.assert_allclose(images.resize(image, size, **options), expected, atol=1e-12)
        assert not np.allclose(expected, images.resize(image, size))

    @pytest.mark.parametrize(
        ("shape", "size"), [((0, 5), (3, 3)), ((5, 5), (0, 3)), ((5,), (3, 3)), ((5, 5), (3, -1))]
    )
    def test_nothing_to_resize_is_an_error(self, shape, size):
        with pytest.raises(ValueError, match=re.escape(f"shape={shape}, output size {size[0]} x {size[1]}")):
            images.resize(np.zeros(shape), size)


class TestResizeImage:
    def test_none_returns_the_image_itself(self):
        image = noise((5, 7, 3))
        same, window, scale, padding, crop = images.resize_image(image, 8, 16, mode="none")
        assert same is image
        assert (window, scale, crop) == ((0, 0, 5, 7), 1, None)
        assert padding == [(0, 0), (0, 0), (0, 0)]

    @pytest.mark.parametrize(
        ("arguments", "shape", "window", "scale"),
        [
            ((8, 16, None, "square"), (16, 16, 3), (4, 2, 12, 13), 1.6),
            ((8, 8, None, "square"), (8, 8, 3), (1, 0, 7, 8), 8 / 7),
            ((64, None, None, "pad64"), (64, 128, 3), (0, 19, 64, 109), 12.8),
            ((None, 16, None, "square"), (16, 16, 3), (5, 4, 10, 11), 1),
            ((None, None, None, "pad64"), (64, 64, 3), (29, 28, 34, 35), 1),
            ((None, None, 2, "pad64"), (64, 64, 3), (27, 25, 37, 39), 2),
            ((3, 14, 2, "square"), (14, 14, 3), (2, 0, 12, 14), 2),
        ],
    )
    def test_worked_by_hand(self, arguments, shape, window, scale):
        image = noise((5, 7, 3)) // 2 + 1
        resized, found, found_scale, padding, crop = images.resize_image(image, *arguments)
        assert resized.dtype == np.uint8
        assert resized.shape == shape
        assert found == window
        assert found_scale == pytest.approx(scale, abs=1e-12)
        assert crop is None
        (top, bottom), (left, right), _ = padding
        y1, x1, y2, x2 = window
        assert (top, left, bottom, right) == (y1, x1, shape[0] - y2, shape[1] - x2)
        inside = np.zeros(shape[:2], bool)
        inside[y1:y2, x1:x2] = True
        np.testing.assert_array_equal(resized[~inside], 0)
        assert resized[inside].min() > 0

    def test_integers_are_truncated(self):
        image = noise((7, 9, 3))
        resized, (y1, x1, y2, x2), *_ = images.resize_image(image, 16, 32)
        expected = resize_by_loops(image, y2 - y1, x2 - x1)
        clear = np.abs(expected - np.round(expected)) > 1e-9
        truncated = np.floor(expected)[clear]
        np.testing.assert_array_equal(resized[y1:y2, x1:x2][clear], truncated)
        assert (np.round(expected)[clear] != truncated).any()

    def test_pixels_that_are_hit_exactly_stay(self):
        image = noise((30, 42, 3))
        resized = images.resize_image(image, None, 14)[0]  # every third pixel, from the second on
        np.testing.assert_array_equal(resized[2:12], image[1::3, 1::3])

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float16, np.float32, np.float64])
    @pytest.mark.parametrize("channels", [1, 3, 4])
    @pytest.mark.parametrize("shape", [(20, 30), (70, 50)])
    def test_types_and_channels(self, dtype, channels, shape):
        image = (noise((*shape, channels)) * 100.0 / 7).astype(dtype)
        resized, window, *_ = images.resize_image(image, 32, 48)
        assert resized.dtype == dtype
        assert resized.shape == (48, 48, channels)
        y1, x1, y2, x2 = window
        expected = resize_by_loops(image, y2 - y1, x2 - x1)
        tolerance = {"f": max(expected.max(), 1) * 2e-3 if dtype == np.float16 else 0.05}
        difference = np.abs(resized[y1:y2, x1:x2] - expected)
        assert difference.max() <= tolerance.get(np.dtype(dtype).kind, 1 + 1e-9)

    def test_random_requests_keep_their_promises(self):
        rng = np.random.default_rng(6)
        for _ in range(100):
            height, width = rng.integers(1, 90, 2)
            image = np.full((height, width, 1), 9, np.uint8)
            min_dim, max_dim = int(rng.integers(1, 80)), int(rng.integers(1, 100))
            resized, window, scale, padding, _ = images.resize_image(image, min_dim, max_dim)
            assert resized.shape == (max_dim, max_dim, 1)
            y1, x1, y2, x2 = window
            assert max(y2 - y1, x2 - x1) <= max_dim
            assert (resized[y1:y2, x1:x2] == 9).all()
            assert resized.sum() == 9 * (y2 - y1) * (x2 - x1)
            assert abs(padding[0][0] - padding[0][1]) <= 1
            mask = images.resize_mask(np.ones((height, width, 2), bool), scale, padding)
            np.testing.assert_array_equal(mask[..., 1], resized[..., 0] > 0)

    def test_crop_cuts_the_scaled_image(self):
        image = noise((40, 60, 3))
        scaled = images.resize_image(image, 80, 120)[0]
        random.seed(3)
        piece, window, scale, padding, crop = images.resize_image(image, 64, 0, 2, "crop")
        y, x, height, width = crop
        assert (window, scale, height, width) == ((0, 0, 64, 64), 2, 64, 64)
        assert padding == [(0, 0), (0, 0), (0, 0)]
        np.testing.assert_array_equal(piece, scaled[20 + y : 84 + y, x : x + 64])

    def test_crop_reaches_every_place(self):
        image = noise((6, 7, 1))
        random.seed(0)
        places = {images.resize_image(image, 4, mode="crop")[4][:2] for _ in range(300)}
        assert places == {(y, x) for y in range(3) for x in range(4)}

    def test_crop_of_the_whole_image(self):
        image = noise((4, 4, 3))
        piece, *_, crop = images.resize_image(image, 4, mode="crop")
        assert crop == (0, 0, 4, 4)
        np.testing.assert_array_equal(piece, image)
        assert not np.shares_memory(piece, image)

    def test_thin_image_keeps_at_least_one_pixel(self):
        resized, window, scale, padding, _ = images.resize_image(noise((1, 900, 3)), None, 64)
        assert window == (31, 0, 32, 64)
        mask = images.resize_mask(np.ones((1, 900, 1), bool), scale, padding)
        assert mask.shape == (*resized.shape[:2], 1)
        assert mask.sum() == 64

    @pytest.mark.parametrize(
        ("shape", "arguments", "message"),
        [
            ((5, 7, 3), {"mode": "oval"}, "Received: mode='oval'"),
            ((5, 7), {"max_dim": 8}, r"Received: image\.shape=\(5, 7\)"),
            ((0, 7, 3), {"max_dim": 8}, r"Received: image\.shape=\(0, 7, 3\)"),
            ((5, 7, 3), {"min_dim": 8}, "Received: max_dim=None"),
            ((5, 7, 3), {"mode": "crop"}, "Received: min_dim=None"),
            ((5, 7, 3), {"mode": "pad64", "min_dim": 100}, "Received: min_dim=100.* 64 and 128"),
        ],
    )
    def test_bad_requests(self, shape, arguments, message):
        with pytest.raises(ValueError, match=message):
            images.resize_image(np.zeros(shape, np.uint8), **arguments)


class TestResizeMask:
    def test_corners_are_aligned(self):
        mask = np.arange(4)[:, None, None] * 10 + np.arange(3)[None, :, None]
        resized = images.resize_mask(mask, 2, [(0, 0)] * 3)[..., 0]
        rows = [0, 0, 1, 1, 2, 2, 3, 3]  # i * 3 / 7: 0, .4, .9, 1.3, 1.7, 2.1, 2.6, 3
        columns = [0, 0, 1, 1, 2, 2]  # j * 2 / 5: 0, .4, .8, 1.2, 1.6, 2
        np.testing.assert_array_equal(resized, np.add.outer(np.array(rows) * 10, columns))

    def test_equals_scipy_inside(self):
        # scipy loses the last row or column to rounding now and then, so it is left out here.
        rng = np.random.default_rng(7)
        for _ in range(40):
            mask = rng.random((*rng.integers(2, 60, 2), 2)) > 0.5
            scale = rng.uniform(0.3, 4)
            resized = images.resize_mask(mask, scale, [(0, 0)] * 3)
            expected = ndimage.zoom(mask, [scale, scale, 1], order=0)
            assert resized.shape == expected.shape
            np.testing.assert_array_equal(resized[:-1, :-1], expected[:-1, :-1])

    @pytest.mark.parametrize("side", [79, 86, 95, 115, 116])
    def test_the_last_row_is_not_lost(self, side):
        resized = images.resize_mask(np.ones((480, 480, 1), bool), side / 480, [(0, 0)] * 3)
        assert resized.shape == (side, side, 1)
        assert resized.all()

    @pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.float32])
    def test_padding_is_zero_and_the_type_stays(self, dtype):
        resized = images.resize_mask(np.ones((3, 4, 2), dtype), 1, [(1, 2), (3, 4), (0, 0)])
        assert resized.dtype == dtype
        expected = np.pad(np.ones((3, 4, 2)), [(1, 2), (3, 4), (0, 0)])
        np.testing.assert_array_equal(resized, expected)

    def test_crop_excludes_padding(self):
        mask = np.random.default_rng(8).random((20, 30, 2)) > 0.5
        whole = images.resize_mask(mask, 1.5, [(0, 0)] * 3)
        piece = images.resize_mask(mask, 1.5, [(5, 5), (5, 5), (0, 0)], (3, 4, 16, 17))
        np.testing.assert_array_equal(piece, whole[3:19, 4:21])

    @pytest.mark.parametrize("shape", [(0, 0, 0), (5, 6, 0), (0, 4, 2)])
    def test_empty_masks(self, shape):
        resized = images.resize_mask(np.zeros(shape, bool), 2, [(1, 1), (0, 0), (0, 0)])
        assert resized.shape == (2 * shape[0] + 2, 2 * shape[1], shape[2])
        assert not resized.any()

    def test_wants_the_axis_of_instances(self):
        with pytest.raises(ValueError, match=r"Received: mask\.shape=\(5, 5\)"):
            images.resize_mask(np.zeros((5, 5)), 1, [(0, 0)] * 3)


class TestMold:
    def test_mean_is_subtracted_per_channel(self):
        molded = preprocessing.mold_image(np.full((2, 2, 3), 100, np.uint8), CONFIG)
        assert molded.dtype == np.float64
        np.testing.assert_allclose(molded[0, 0], [-23.7, -16.8, -3.9])

    def test_type_follows_the_mean(self):
        config = SimpleNamespace(MEAN_PIXEL=np.zeros(1, np.float32))
        assert preprocessing.mold_image(noise((2, 3, 3, 1)), config).dtype == np.float32

    def test_round_trip(self):
        image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
        config = SimpleNamespace(MEAN_PIXEL=np.array([123.5, 116.75, 0.0]))
        molded = preprocessing.mold_image(image, config)
        np.testing.assert_array_equal(preprocessing.unmold_image(molded, config), image)

    def test_values_outside_wrap_and_fractions_go(self):
        config = SimpleNamespace(MEAN_PIXEL=np.array([1.0]))
        values = np.array([[255.0], [-2.0], [254.9], [-1.5]])
        unmolded = preprocessing.unmold_image(values, config)
        assert unmolded.dtype == np.uint8
        np.testing.assert_array_equal(unmolded.ravel(), [0, 255, 255, 0])


class TestMeta:
    ARGUMENTS = (7, (480, 640, 3), (512, 512, 3), (64, 0, 448, 512), 0.8, [1, 0, 1])

    def test_layout(self):
        meta = image_meta.compose_image_meta(*self.ARGUMENTS)
        expected = [7, 480, 640, 3, 512, 512, 3, 64, 0, 448, 512, 0.8, 1, 0, 1]
        np.testing.assert_array_equal(meta, expected)

    def test_is_floating_at_scale_one_too(self):
        arguments = (*self.ARGUMENTS[:4], 1, np.array([0, 1], np.int32))
        assert image_meta.compose_image_meta(*arguments).dtype == np.float64

    def test_round_trip(self):
        meta = image_meta.compose_image_meta(*self.ARGUMENTS)
        parsed = image_meta.parse_image_meta(np.stack([meta, meta]))
        names = (
            "image_id", "original_image_shape", "image_shape", "window", "scale",
            "active_class_ids",
        )  # fmt: skip
        assert tuple(parsed) == names
        for name, value in zip(names, self.ARGUMENTS, strict=True):
            assert parsed[name].dtype == (np.float32 if name == "scale" else np.int32)
            np.testing.assert_allclose(parsed[name], [value, value], rtol=1e-7)

    def test_no_images(self):
        parsed = image_meta.parse_image_meta(np.zeros((0, 15)))
        assert parsed["image_id"].shape == (0,)
        assert parsed["active_class_ids"].shape == (0, 3)


def assert_pixels_match(resized, expected, name):
    """Integers: off by at most 1 in less than 0.5 % of the values; floating values: close."""
    assert resized.dtype == expected.dtype, name
    assert resized.shape == expected.shape, name
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(resized, expected, rtol=1e-6, atol=1e-9, err_msg=name)
        return
    difference = np.abs(resized.astype(np.int64) - expected)
    assert difference.max() <= 1, name
    assert (difference > 0).mean() < 0.005, name


@pytest.mark.parametrize("path", golden_params("utils_resize*.npz"))
class TestGoldenResize:
    def test_images_and_masks(self, path):
        recording = load(path)
        names = [m[1] for m in (re.fullmatch(r"(case\d+)_args", key) for key in recording) if m]
        assert names
        for name in names:
            arguments = text(recording[f"{name}_args"])
            source = arguments.pop("src")
            random.seed(arguments.pop("random_seed"))
            resized, window, scale, padding, crop = images.resize_image(
                recording[f"src_{source}"], **arguments
            )
            assert_pixels_match(resized, recording[f"{name}_image"], name)
            assert list(window) == recording[f"{name}_window"].tolist(), name
            assert scale == recording[f"{name}_scale"], name
            np.testing.assert_array_equal(padding, recording[f"{name}_padding"])
            assert list(crop or (-1,) * 4) == recording[f"{name}_crop"].tolist(), name
            mask = images.resize_mask(recording[f"mask_{source}"], scale, padding, crop)
            assert str(mask.dtype) == text(recording[f"{name}_mask_dtype"])
            np.testing.assert_array_equal(mask, unpack_bits(recording, f"{name}_mask"))

    def test_resize(self, path):
        recording = load(path)
        names = [m[1] for m in (re.fullmatch(r"(rsb?\d+)_out", key) for key in recording) if m]
        assert names
        for name in names:
            source = recording["rsb_in" if name.startswith("rsb") else "rs_in"]
            expected = recording[f"{name}_out"]
            resized = images.resize(source, tuple(recording[f"{name}_shape"]))
            assert resized.dtype == expected.dtype, name
            rtol = 1e-6 if expected.dtype == np.float32 else 1e-9
            np.testing.assert_allclose(resized, expected, rtol=rtol, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("path", golden_params("utils_basic*.npz"))
class TestGoldenBasic:
    def test_mold(self, path):
        recording = load(path)
        molded = preprocessing.mold_image(recording["mold_in"], CONFIG)
        assert str(molded.dtype) == text(recording["mold_dtype"])
        np.testing.assert_allclose(molded, recording["mold_out"], rtol=1e-9)
        unmolded = preprocessing.unmold_image(recording["mold_out"], CONFIG)
        np.testing.assert_array_equal(unmolded, recording["unmold_out"])
        unmolded = preprocessing.unmold_image(recording["mold_out"].astype(np.float32), CONFIG)
        np.testing.assert_array_equal(unmolded, recording["unmold_f32_out"])
        unmolded = preprocessing.unmold_image(recording["unmold_edge_in"], CONFIG)
        np.testing.assert_array_equal(unmolded, recording["unmold_edge_out"])

    def test_meta(self, path):
        recording = load(path)
        meta = recording["meta_out"]
        parsed = image_meta.parse_image_meta(np.stack([meta, 2 * meta]))
        for name, values in parsed.items():
            assert values.dtype == recording[f"meta_parse_{name}"].dtype
            np.testing.assert_allclose(values, recording[f"meta_parse_{name}"], rtol=1e-6)
        facts = {name: values[0] for name, values in parsed.items()}
        np.testing.assert_allclose(image_meta.compose_image_meta(**facts), meta, rtol=1e-6)


MODES = {
    "none": {},
    "square": {"max_dim": 128},
    "pad64": {"min_dim": 64, "min_scale": 2.0},
    "crop": {"min_dim": 64},
}


def settings_of(mode, min_dim=None, max_dim=None, min_scale=0.0):
    return SimpleNamespace(
        IMAGE_RESIZE_MODE=mode, IMAGE_MIN_DIM=min_dim, IMAGE_MAX_DIM=max_dim, IMAGE_MIN_SCALE=min_scale
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(65, 70), (31, 200), (1, 9)])
def test_the_molded_size_is_that_of_the_resized_image(mode, size):
    resized = images.resize_image(noise((*size, 3)), mode=mode, **MODES[mode])[0]
    assert images.molded_size(size, settings_of(mode, **MODES[mode])) == resized.shape[:2]


@pytest.mark.parametrize("size", [(20_000, 20_000), (100, 200_000), (40, 4_000)])
def test_large_images_are_not_too_thin(size):
    """No pixel is allocated here."""
    images.check_enlargement(size, settings_of("pad64", 256, min_scale=2.0))
    images.check_enlargement(size, settings_of("none"))
    images.check_enlargement(size, settings_of("square", 800, 1024))
