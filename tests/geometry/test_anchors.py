import re

import numpy as np
import pytest
from golden_files import golden_params, load, text

from mrcnn.config import Config
from mrcnn.geometry import anchors, boxes


def anchors_by_loops(scales, ratios, shape, feature_stride, anchor_stride):
    found = []
    for row in range(0, shape[0], anchor_stride):
        for column in range(0, shape[1], anchor_stride):
            for ratio in ratios:
                for scale in scales:
                    half_height, half_width = scale / ratio**0.5 / 2, scale * ratio**0.5 / 2
                    y, x = row * feature_stride, column * feature_stride
                    found.append([y - half_height, x - half_width, y + half_height, x + half_width])
    return np.array(found).reshape(-1, 4)


def test_worked_by_hand():
    level = anchors.generate_anchors(32, [0.5, 1, 2], (1, 2), 4, 1)
    assert level.dtype == np.float64
    first_cell = [
        [-22.627417, -11.313708, 22.627417, 11.313708],  # ratio 0.5 is tall
        [-16, -16, 16, 16],
        [-11.313708, -22.627417, 11.313708, 22.627417],
    ]
    np.testing.assert_allclose(level[:3], first_cell, atol=1e-6)
    np.testing.assert_allclose(level[3:] - level[:3], np.tile([0, 4, 0, 4], (3, 1)), atol=1e-12)


@pytest.mark.parametrize("anchor_stride", [1, 2, 3])
@pytest.mark.parametrize("scales", [[16], [16, 24, 40]])
def test_equals_plain_loops(anchor_stride, scales):
    arguments = (scales, [0.5, 1, 2.5], (5, 7), 8, anchor_stride)
    np.testing.assert_allclose(anchors.generate_anchors(*arguments), anchors_by_loops(*arguments), rtol=1e-12)


def test_area_does_not_depend_on_the_ratio():
    level = anchors.generate_anchors(50, [0.1, 0.7, 1, 3], (3, 3), 16, 1)
    area = (level[:, 2] - level[:, 0]) * (level[:, 3] - level[:, 1])
    np.testing.assert_allclose(area, 2500, rtol=1e-12)


def test_pyramid_is_level_after_level():
    scales, strides, ratios = (8, 16), (4, 8), [0.5, 2]
    shapes = anchors.feature_shapes((16, 24), strides)
    pyramid = anchors.generate_pyramid_anchors(scales, ratios, shapes, strides, 1)
    fine = anchors.generate_anchors(8, ratios, shapes[0], 4, 1)
    coarse = anchors.generate_anchors(16, ratios, shapes[1], 8, 1)
    np.testing.assert_array_equal(pyramid, np.concatenate([fine, coarse]))


def test_default_count():
    strides = (4, 8, 16, 32, 64)
    shapes = anchors.feature_shapes((1024, 1024, 3), strides)
    pyramid = anchors.generate_pyramid_anchors((32, 64, 128, 256, 512), [0.5, 1, 2], shapes, strides, 1)
    assert pyramid.shape == (261_888, 4)


def test_feature_shapes_round_up():
    shapes = anchors.feature_shapes((65, 129, 3), [4, 64])
    assert shapes.dtype.kind == "i"
    np.testing.assert_array_equal(shapes, [[17, 33], [2, 3]])


def test_no_cells():
    assert anchors.generate_anchors(32, [1], (0, 5), 4, 1).shape == (0, 4)


def test_levels_that_differ_in_number_are_an_error():
    with pytest.raises(ValueError, match="2 scales, 1 feature shapes, 2 strides"):
        anchors.generate_pyramid_anchors((8, 16), [1], [(4, 4)], (4, 8), 1)


def numbers(words):
    found = [float(number) for number in re.findall(r"[\d.]+", words)]
    return [int(number) if number.is_integer() else number for number in found]


@pytest.mark.parametrize("path", golden_params("utils_basic*.npz"))
class TestGolden:
    def test_one_level(self, path):
        recording = load(path)
        names = [key for key in recording if re.fullmatch(r"anc\d+", key)]
        assert names
        for name in names:
            # "scales 32; ratios .5,1,2; shape 5,7; stride 4; anchor_stride 1"
            words = [numbers(part) for part in text(recording[f"{name}_args"]).split(";")]
            scales, ratios, shape, (stride,), (anchor_stride,) = words
            level = anchors.generate_anchors(scales, ratios, shape, stride, anchor_stride)
            np.testing.assert_allclose(level, recording[name], rtol=1e-9, err_msg=name)

    def test_pyramid(self, path):
        recording = load(path)
        names = [m[1] for m in (re.fullmatch(r"(pyr\d+)_args", key) for key in recording) if m]
        assert names
        for name in names:
            arguments = text(recording[f"{name}_args"])
            shape, strides = arguments["image_shape"], arguments["strides"]
            shapes = anchors.feature_shapes(shape, strides)
            np.testing.assert_array_equal(shapes, recording[f"{name}_shapes"])
            pyramid = anchors.generate_pyramid_anchors(
                arguments["scales"], arguments["ratios"], shapes, strides,
                arguments["anchor_stride"],
            )  # fmt: skip
            assert pyramid.shape == tuple(recording[f"{name}_n"])
            assert str(pyramid.dtype) == text(recording[f"{name}_dtype"])
            if f"{name}_out" in recording:
                np.testing.assert_allclose(pyramid, recording[f"{name}_out"], rtol=1e-9)
            if f"{name}_sum" in recording:
                np.testing.assert_allclose(pyramid.sum(axis=0), recording[f"{name}_sum"])
            for key in recording:
                if match := re.fullmatch(rf"{name}_sub(\d+)", key):
                    part = pyramid[:: int(match[1])]
                    np.testing.assert_allclose(part, recording[key], rtol=1e-9)
            part = boxes.norm_boxes(pyramid, shape)[:: int(recording[f"{name}_norm_step"])]
            np.testing.assert_allclose(
                part, recording[f"{name}_norm_sub"], rtol=1e-6, atol=1e-9, err_msg=name
            )

    def test_feature_shapes(self, path):
        recording = load(path)
        for key in recording:
            if match := re.fullmatch(r"(bbs\d+)_in", key):
                shapes = anchors.feature_shapes(recording[key], (4, 8, 16, 32, 64))
                np.testing.assert_array_equal(shapes, recording[f"{match[1]}_out"])


def test_the_cache_keeps_given_anchors_and_the_sizes_used_last(monkeypatch):
    made = []

    def pixel_anchors(config, shape):
        made.append(tuple(shape[:2]))
        return np.zeros((1, 4)) + shape[0]

    monkeypatch.setattr(anchors, "pixel_anchors", pixel_anchors)
    monkeypatch.setattr(anchors, "KEPT_SIZES", 2)
    config = Config()
    given = np.ones((1, 4))
    cache = anchors.AnchorCache(config, given)
    first = cache.of((64, 64, 3))
    cache.of((128, 64, 3))
    assert cache.of((64, 64)) is first
    cache.of((192, 64, 3))  # drops 128 x 64
    assert cache.of((64, 64)) is first
    cache.of((128, 64, 3))
    assert made == [(64, 64), (128, 64), (192, 64), (128, 64)]
    assert cache.of(config.IMAGE_SHAPE) is given


def test_the_cache_normalizes_the_anchors_of_a_size_once():
    config = Config()
    cache = anchors.AnchorCache(config)
    for shape in ((64, 64), (128, 64), (64, 64)):
        expected = boxes.norm_boxes(cache.of(shape), shape)
        np.testing.assert_array_equal(cache.normalized(shape), expected)
        assert cache.normalized(shape) is cache.normalized(shape)
    config.CONVENTIONS = "torchvision"
    expected = boxes.norm_boxes(cache.of((64, 64)), (64, 64), config.conventions().half_open_boxes)
    np.testing.assert_array_equal(cache.normalized((64, 64)), expected)
