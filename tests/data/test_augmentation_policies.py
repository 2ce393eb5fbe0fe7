"""The policy in both versions: images change, masks move with them, draws can be repeated."""

import sys

import numpy as np
import pytest
from skimage import data

from mrcnn.data import augmentation, augmentation_policies
from mrcnn.geometry.value_range import ValueRange

PICTURE = np.ascontiguousarray(data.immunohistochemistry()[:128, :128])


each_policy = pytest.mark.parametrize(
    "policy",
    [augmentation_policies.camera_policy, augmentation_policies.albumentations_policy],
    ids=["camera", "albumentations"],
)


def built(policy, **options):
    if policy is augmentation_policies.albumentations_policy:
        pytest.importorskip("albumentations")
    return policy(**options)


def marked():
    """A black picture with two coloured squares, and their masks."""
    masks = np.zeros((128, 128, 2), bool)
    masks[20:50, 20:50, 0] = masks[80:100, 60:110, 1] = True
    picture = np.zeros((128, 128, 3), np.uint8)
    picture[masks[..., 0]] = (230, 60, 60)
    picture[masks[..., 1]] = (60, 60, 230)
    return picture, masks


@each_policy
def test_masks_move_with_the_picture(policy):
    """The brighter pixels of the picture are those under the masks, in every draw; outlines are left out."""
    picture, masks = marked()
    whole = np.ones((128, 128, 1), bool)  # moves along, to tell the picture from what comes in beside it
    augmenter = built(policy, strength=1)
    moved = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        changed, moved_masks = augmentation.apply(augmenter, picture, np.dstack([masks, whole]), rng)
        assert changed.shape == picture.shape and changed.dtype == np.uint8
        new_masks, picture_there = moved_masks[..., :2], moved_masks[..., 2]
        inside = new_masks.any(axis=2)
        moved += (inside != masks.any(axis=2)).any()
        if inside.all() or not inside.any():
            continue
        brightness = changed.astype(int).sum(axis=2)
        edge = ~picture_there | inside ^ np.roll(inside, 1, 0) | inside ^ np.roll(inside, 1, 1)
        clear = ~(
            edge | np.roll(edge, 1, 0) | np.roll(edge, -1, 0) | np.roll(edge, 1, 1) | np.roll(edge, -1, 1)
        )
        half = (np.median(brightness[inside]) + np.median(brightness[picture_there & ~inside])) / 2
        assert ((brightness > half) == inside)[clear].mean() > 0.97
    assert moved >= 15


@each_policy
def test_light_changes_and_repeats(policy):
    augmenter = built(policy)
    none = np.zeros((128, 128, 0), bool)
    draws = [
        augmentation.apply(augmenter, PICTURE, none, np.random.default_rng(seed))[0] for seed in range(20)
    ]
    means = np.array([draw.mean(axis=(0, 1)) for draw in draws])
    assert means.std(axis=0).min() > 5  # brightness and tint vary
    assert (means - means.mean(axis=1, keepdims=True)).std(axis=0).max() > 2
    again = augmentation.apply(augmenter, PICTURE, none, np.random.default_rng(3))[0]
    np.testing.assert_array_equal(again, draws[3])


@each_policy
def test_upright_objects_stay_upright(policy):
    """Light above, dark below, in every draw."""
    picture = np.repeat(np.linspace(230, 20, 128).astype(np.uint8)[:, None], 128, axis=1)
    picture = np.repeat(picture[..., None], 3, axis=2)
    augmenter = built(policy, any_orientation=False)
    none = np.zeros((128, 128, 0), bool)
    for seed in range(20):
        changed, _ = augmentation.apply(augmenter, picture, none, np.random.default_rng(seed))
        assert changed[:40].mean() > changed[-40:].mean() + 20


@pytest.mark.parametrize("strength", [0, 1.5, 2])
def test_every_strength_is_valid_for_albumentations(strength):
    pytest.importorskip("albumentations")
    assert augmentation_policies.albumentations_policy(strength) is not None


@each_policy
def test_bad_strength(policy):
    if policy is augmentation_policies.albumentations_policy:
        pytest.importorskip("albumentations")
    with pytest.raises(ValueError, match="strength=-1"):
        policy(strength=-1)


@pytest.mark.parametrize("dtype, white", [("uint8", 255), ("uint16", 4095), ("float32", 1), ("int16", 300)])
@pytest.mark.parametrize("channels", [1, 3, 4, 6])
def test_any_dtype_and_number_of_channels(dtype, white, channels):
    """Masks move with the image, its light varies within its own range, and draws can be repeated."""
    picture, masks = marked()
    levels = np.repeat(picture.max(axis=2, keepdims=True), channels, axis=2)
    image = (levels / 255 * white).astype(dtype)
    policy = augmentation_policies.camera_policy()
    means = []
    for seed in range(20):
        draws = [
            augmentation.apply(policy, image, masks, np.random.default_rng(seed), ValueRange(0, white))
            for _ in range(2)
        ]
        np.testing.assert_array_equal(draws[0][0], draws[1][0])
        changed, moved = draws[0]
        assert changed.shape == image.shape and changed.dtype == image.dtype
        bright = changed[moved.any(axis=2)].astype(float)
        if len(bright):
            assert 0.2 * white < np.median(bright) < 2 * white
            means.append(bright.mean())
    assert np.std(means) > 0.05 * white


def test_images_of_unknown_range_are_refused():
    policy = augmentation_policies.camera_policy()
    for image, message in (
        (np.zeros((8, 8, 3), np.uint16), r"black and white of uint16 images\. Set IMAGE_VALUE_RANGE"),
        (np.zeros((8, 8), np.uint8), r"\(height, width, channels\)\. Received: image\.shape=\(8, 8\)"),
    ):
        with pytest.raises(augmentation.AugmentationError, match=message):
            policy(image, np.zeros((8, 8, 0), bool), np.random.default_rng(0))


def test_the_library_augments_without_imgaug(monkeypatch):
    monkeypatch.setitem(sys.modules, "imgaug", None)
    augmenter = augmentation_policies.camera_policy()
    changed, _ = augmentation.apply(augmenter, *marked(), np.random.default_rng(1))
    assert (changed != marked()[0]).any()
