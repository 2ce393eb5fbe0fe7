"""Images whose shortest side is scaled: sizes as torchvision computes them, edges, masks, padding."""

import numpy as np
import pytest

from mrcnn.config import TorchvisionConfig
from mrcnn.geometry import images
from mrcnn.geometry.mask_crops import MaskCrops
from mrcnn.inference.inputs import mold_inputs


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1066)),  # 640 * 800 / 480 is 1066.7, rounded down
        ((427, 640), (800, 1199)),
        ((300, 900), (444, 1333)),  # the long side limits the scale
        ((800, 800), (800, 800)),
        ((3000, 4000), (800, 1066)),
    ],
)
def test_size(size, expected):
    resized, window, scale, padding, crop = images.resize_image(
        np.zeros((*size, 3), "uint8"), min_dim=800, max_dim=1333, mode="shortest"
    )
    assert resized.shape == (*expected, 3)
    assert resized.dtype == np.uint8
    assert window == (0, 0, *expected)
    assert crop == (0, 0, *expected)
    assert padding == [(0, 0)] * 3
    assert scale == min(800 / min(size), 1333 / max(size))


def test_edges_are_repeated():
    """Twice as wide: columns lie at -0.25, 0.25, 0.75, 1.25 of the image."""
    image = np.array([[[0.0], [8.0]]], "float32")
    resized, *_ = images.resize_image(image, min_dim=2, max_dim=9, mode="shortest")
    np.testing.assert_allclose(resized[:, :, 0], [[0, 2, 6, 8]] * 2, atol=1e-5)


def test_integers_are_rounded():
    image = np.array([[[0], [9]]], "uint8")
    resized, *_ = images.resize_image(image, min_dim=2, max_dim=9, mode="shortest")
    assert resized[0, :, 0].tolist() == [0, 2, 7, 9]


@pytest.mark.parametrize("size", [(427, 640), (333, 500), (301, 305)])
def test_masks_have_the_size_of_the_image(size):
    image, mask = np.zeros((*size, 3), "uint8"), np.ones((*size, 1), bool)
    resized, _, scale, padding, crop = images.resize_image(image, 160, 224, mode="shortest")
    assert images.resize_mask(mask, scale, padding, crop).shape == (*resized.shape[:2], 1)
    crops, is_left = MaskCrops.cut(mask).resize(scale, padding, crop)
    assert is_left.all()
    assert crops.boxes.tolist() == [[0, 0, *resized.shape[:2]]]


@pytest.mark.parametrize("size", [(480, 640), (427, 640), (640, 333)])
def test_masks_follow_the_grid_of_torchvision(size):
    """Out pixel i is the pixel floor(i * in / out), as of torch.nn.functional.interpolate, mode "nearest"."""
    mask = np.random.default_rng(0).random((*size, 1)) < 0.5
    resized, _, scale, padding, crop = images.resize_image(
        np.zeros((*size, 3), "uint8"), min_dim=800, max_dim=1333, mode="shortest"
    )
    rows, columns = (
        [i * side // out for i in range(out)] for side, out in zip(size, resized.shape[:2], strict=True)
    )
    expected = mask[rows][:, columns]
    np.testing.assert_array_equal(images.resize_mask(mask, scale, padding, crop), expected)
    crops, _ = MaskCrops.cut(mask).resize(scale, padding, crop)
    np.testing.assert_array_equal(crops.whole(), expected)


@pytest.mark.parametrize("x", [0, 10, 300, 624])
def test_masks_do_not_drift_from_their_objects(x):
    """480 x 640 becomes 800 x 1066."""
    mask = np.zeros((480, 640, 1), bool)
    mask[:, x : x + 16] = True
    _, _, scale, padding, crop = images.resize_image(
        np.zeros((480, 640, 3), "uint8"), min_dim=800, max_dim=1333, mode="shortest"
    )
    columns = np.flatnonzero(images.resize_mask(mask, scale, padding, crop)[0, :, 0])
    edges = np.array([x, x + 16]) * 1066 / 640
    assert columns[0] == np.ceil(edges[0]) and columns[-1] + 1 == np.ceil(edges[1])


def test_padding_has_the_mean_color():
    config = TorchvisionConfig()
    config.IMAGE_MIN_DIM, config.IMAGE_MAX_DIM = 40, 70
    (molded,) = mold_inputs([np.full((40, 50, 3), 255, "uint8")], config)
    assert molded.pixels.shape == (64, 64, 3)
    assert molded.window == (0, 0, 40, 50)
    assert not molded.pixels[40:].any()
    assert not molded.pixels[:, 50:].any()
    np.testing.assert_allclose(molded.pixels[39, 49], 255 - config.MEAN_PIXEL, rtol=1e-5)


@pytest.mark.parametrize("missing", ["min_dim", "max_dim"])
def test_both_sides_are_needed(missing):
    sides = {"min_dim": 40, "max_dim": 60} | {missing: None}
    with pytest.raises(ValueError, match=f'Mode "shortest" needs `{missing}`'):
        images.resize_image(np.zeros((9, 9, 3)), mode="shortest", **sides)


def test_the_network_takes_multiples_of_32():
    images.check_molded_size((96, 160), "shortest")
    with pytest.raises(ValueError, match="multiples of 32"):
        images.check_molded_size((96, 100), "shortest")
    with pytest.raises(ValueError, match="multiples of 64"):
        images.check_molded_size((96, 160))
