"""Images on their way into the network."""

import numpy as np
import pytest
from tiny_model import TinyConfig

from mrcnn.errors import InvalidDataError
from mrcnn.geometry.image_meta import parse_image_meta
from mrcnn.inference import inputs


@pytest.mark.parametrize(
    "images, shapes",
    [
        (np.zeros((5, 6, 3)), [(5, 6, 3)]),
        (np.zeros((5, 6)), [(5, 6)]),
        ([np.zeros((5, 6, 3)), np.zeros((4, 4))], [(5, 6, 3), (4, 4)]),
        (np.zeros((2, 5, 6, 3)), [(5, 6, 3)] * 2),
        (iter([np.zeros((5, 6, 3))]), [(5, 6, 3)]),
        ([], []),
    ],
    ids=["one", "one gray", "list", "batch", "iterator", "none"],
)
def test_image_list(images, shapes):
    assert [image.shape for image in inputs.image_list(images)] == shapes


def test_lists_of_different_lengths():
    with pytest.raises(InvalidDataError, match="An image must be an array of numbers"):
        inputs.image_list([[[1, 2], [3]]])


def test_pillow_images():
    pillow = pytest.importorskip("PIL.Image").new("RGB", (6, 5))
    assert [image.shape for image in inputs.image_list(pillow)] == [(5, 6, 3)]
    assert [image.shape for image in inputs.image_list([pillow] * 2)] == [(5, 6, 3)] * 2


def test_a_molded_image_describes_itself():
    config = TinyConfig()
    (molded,) = inputs.mold_inputs([np.full((32, 64), 200, np.uint8)], config)
    assert molded.pixels.shape == (64, 64, 3)
    assert molded.window == (16, 0, 48, 64)
    assert molded.original_shape[:2] == (32, 64)
    np.testing.assert_allclose(molded.pixels[32, 32], 200 - config.MEAN_PIXEL, rtol=1e-6)
    np.testing.assert_allclose(molded.pixels[0, 0], -config.MEAN_PIXEL, rtol=1e-6)
    meta = parse_image_meta(molded.meta[None])
    assert meta["window"].tolist() == [[16, 0, 48, 64]]
    assert meta["image_shape"].tolist() == [[64, 64, 3]]
    assert not meta["active_class_ids"].any()


def nucleus_like(**settings):
    config = TinyConfig()
    config.IMAGE_RESIZE_MODE, config.IMAGE_MIN_DIM, config.IMAGE_MIN_SCALE = "pad64", 256, 2.0
    for name, value in settings.items():
        setattr(config, name, value)
    return config


def test_a_thin_image_that_would_become_huge_is_an_error():
    image = np.zeros((2, 512, 3), np.uint8)
    with pytest.raises(
        InvalidDataError, match=r"2 x 512 pixels is too thin: with .* IMAGE_MIN_DIM=256.*256 x 65536 pixels"
    ):
        inputs.mold_inputs([image], nucleus_like())
    with pytest.raises(InvalidDataError, match="65536 x 256"):
        inputs.mold_inputs([image.swapaxes(0, 1)], nucleus_like())


@pytest.mark.parametrize(
    "shape, settings, expected",
    [
        ((20, 512), {}, (256, 6592)),  # a strip
        ((100, 2000), {}, (256, 5120)),  # a panorama
        ((2, 512), {"IMAGE_MIN_DIM": None}, (64, 1024)),
        ((1, 20000), {"IMAGE_RESIZE_MODE": "square", "IMAGE_MAX_DIM": 256}, (256, 256)),
    ],
)
def test_other_thin_images_are_molded(shape, settings, expected):
    (molded,) = inputs.mold_inputs([np.zeros(shape, np.uint8)], nucleus_like(**settings))
    assert molded.pixels.shape[:2] == expected


def test_whole_images_instead_of_crops():
    config = TinyConfig()
    config.IMAGE_RESIZE_MODE, config.IMAGES_PER_GPU = "crop", 4
    whole = inputs.whole_image_config(config)
    assert (whole.IMAGE_RESIZE_MODE, whole.BATCH_SIZE) == ("pad64", 1)
    assert (config.IMAGE_RESIZE_MODE, config.IMAGES_PER_GPU) == ("crop", 4)


SIDES = [(64, None, 256), (256, None, 256), (320, None, 384), (448, None, 512), (1088, None, 1536)]
LIMITED_SIDES = [(1088, 1344, 1344), (64, 128, 128), (1600, 1344, 1600)]


@pytest.mark.parametrize("side, largest, expected", [*SIDES, *LIMITED_SIDES])
def test_ladder_side(side, largest, expected):
    assert inputs.ladder_side(side, largest) == expected


def test_few_sizes_hold_all_others():
    assert len({inputs.ladder_side(side, 1024) for side in range(64, 1025, 64)}) == 5


def test_a_molded_image_on_the_ladder():
    config = TinyConfig()
    config.IMAGE_RESIZE_MODE, config.IMAGE_MIN_DIM, config.IMAGE_MAX_DIM = "pad64", None, 320
    (molded,) = inputs.mold_inputs([np.full((70, 250, 3), 200, np.uint8)], config)
    padded = inputs.on_ladder(molded, config)
    assert (molded.pixels.shape, padded.pixels.shape) == ((128, 256, 3), (256, 256, 3))
    np.testing.assert_array_equal(padded.pixels[:128], molded.pixels)
    assert not padded.pixels[128:].any()
    assert padded.window == molded.window
    before, after = (parse_image_meta(image.meta[None]) for image in (molded, padded))
    np.testing.assert_array_equal(after.pop("image_shape"), [padded.pixels.shape])
    before.pop("image_shape")
    for name, value in after.items():
        np.testing.assert_array_equal(value, before[name])
