"""Augmentation: geometry moves masks with their image, pixel changes leave them; rules and errors."""

import random

import numpy as np
import pytest

import mrcnn
from mrcnn.data import augmentation, image_changes
from mrcnn.data.augmentation import AugmentationError
from mrcnn.data.augmentation_policies import albumentations_policy
from mrcnn.dataset import Dataset

H, W = 96, 128


def shapes():
    """A black image, one bright shape a channel, and masks of the shapes; two of them overlap."""
    y, x = np.mgrid[:H, :W]
    masks = np.stack(
        [
            (y - 40) ** 2 + (x - 45) ** 2 < 22**2,
            (abs(y - 55) < 20) & (abs(x - 85) < 18),
            (abs(y - 50) + abs(x - 60)) < 24,
        ],
        axis=-1,
    )
    return masks.astype(np.uint8) * 255, masks


def overlap(image, masks):
    """IoU of each channel's bright part with its mask."""
    bright = image > 127
    both = (bright & masks).sum(axis=(0, 1))
    return both / (bright | masks).sum(axis=(0, 1))


GEOMETRIC = {
    "Fliplr": lambda iaa: iaa.Fliplr(1.0),
    "Flipud": lambda iaa: iaa.Flipud(1.0),
    "Affine": lambda iaa: iaa.Affine(rotate=25, scale=0.9, translate_px={"x": 9, "y": -4}),
    "PiecewiseAffine": lambda iaa: iaa.PiecewiseAffine(scale=0.06),
    "CropAndPad": lambda iaa: iaa.CropAndPad(percent=(-0.1, 0.1)),
    "Crop": lambda iaa: iaa.Crop(px=(3, 9)),
    "Pad": lambda iaa: iaa.Pad(px=(3, 9)),
    "Rot90": lambda iaa: iaa.Rot90(2),
    "Rot90 keeping the size": lambda iaa: iaa.Rot90(1, keep_size=True),
    "PerspectiveTransform": lambda iaa: iaa.PerspectiveTransform(scale=0.08, keep_size=True),
    "ElasticTransformation": lambda iaa: iaa.ElasticTransformation(alpha=30, sigma=6),
    "ShearX": lambda iaa: iaa.ShearX(15),
    "Jigsaw": lambda iaa: iaa.Jigsaw(nb_rows=3, nb_cols=4, max_steps=3),
    "Sequential": lambda iaa: iaa.Sequential(
        [iaa.Sometimes(0.9, iaa.Rot90(2)), iaa.SomeOf(1, [iaa.Affine(rotate=20)])]
    ),
    "OneOf": lambda iaa: iaa.OneOf([iaa.Crop(px=8), iaa.ScaleX(1.2)]),
}


@pytest.mark.filterwarnings("ignore:.*estimate.*:FutureWarning")
@pytest.mark.parametrize("name", GEOMETRIC)
def test_geometry_moves_masks_with_the_image(name):
    augmenter = GEOMETRIC[name](pytest.importorskip("imgaug.augmenters"))
    image, masks = shapes()
    moved, moved_masks = augmentation.apply(augmenter, image, masks, np.random.default_rng(0))
    assert moved_masks.dtype == bool
    assert not np.array_equal(moved_masks, masks)
    assert overlap(moved, moved_masks).min() > 0.9
    assert overlap(image, moved_masks).min() < 0.9


def test_flips_are_exact():
    iaa = pytest.importorskip("imgaug.augmenters")
    image, masks = shapes()
    moved, moved_masks = augmentation.apply(iaa.Fliplr(1.0), image, masks)
    np.testing.assert_array_equal(moved, image[:, ::-1])
    np.testing.assert_array_equal(moved_masks, masks[:, ::-1])


@pytest.mark.parametrize(
    "name", ["Multiply", "GaussianBlur", "AdditiveGaussianNoise", "CoarseDropout", "Add"]
)
def test_pixel_changes_leave_masks_alone(name):
    iaa = pytest.importorskip("imgaug.augmenters")
    arguments = {
        "Multiply": {"mul": 0.5},
        "GaussianBlur": {"sigma": 2.0},
        "AdditiveGaussianNoise": {"scale": 20},
        "CoarseDropout": {"p": 0.3, "size_percent": 0.1},
        "Add": {"value": 40},
    }
    image, masks = shapes()
    changed, same = augmentation.apply(getattr(iaa, name)(**arguments[name]), image, masks)
    assert not np.array_equal(changed, image)
    assert changed.dtype == image.dtype
    np.testing.assert_array_equal(same, masks)


def test_many_overlapping_masks_keep_their_places():
    iaa = pytest.importorskip("imgaug.augmenters")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:H, :W]
    centers = rng.integers(20, 80, (40, 2))
    masks = np.stack([(y - a) ** 2 + (x - b) ** 2 < 12**2 for a, b in centers], axis=-1)
    masks[:, :, 7] = False
    image = rng.integers(0, 255, (H, W, 3)).astype(np.uint8)
    frozen = iaa.Affine(rotate=30, translate_px=5)
    _, together = augmentation.apply(frozen, image, masks)
    for index in range(masks.shape[2]):
        _, alone = augmentation.apply(frozen, image, masks[:, :, [index]])
        np.testing.assert_array_equal(together[:, :, index], alone[:, :, 0])
    assert not together[:, :, 7].any()


def test_no_masks():
    iaa = pytest.importorskip("imgaug.augmenters")
    image, masks = shapes()
    for change in (iaa.Fliplr(1.0), lambda image, masks: (image[:, ::-1], masks[:, ::-1])):
        moved, none = augmentation.apply(change, image, masks[:, :, :0])
        np.testing.assert_array_equal(moved, image[:, ::-1])
        assert (none.shape, none.dtype) == ((H, W, 0), bool)


def test_a_generator_decides_the_draw_alone():
    iaa = pytest.importorskip("imgaug.augmenters")
    image, masks = shapes()
    augmenter = iaa.Sequential([iaa.Affine(rotate=(-40, 40)), iaa.Multiply((0.5, 1.0))])
    draws = []
    for seed in (3, 4, 3):
        augmentation.apply(augmenter, image, masks)  # moves the augmenter's own state
        draws.append(augmentation.apply(augmenter, image, masks, np.random.default_rng(seed)))
    np.testing.assert_array_equal(draws[0][0], draws[2][0])
    np.testing.assert_array_equal(draws[0][1], draws[2][1])
    assert not np.array_equal(draws[0][1], draws[1][1])
    free = [augmentation.apply(augmenter, image, masks)[1] for _ in range(2)]
    assert not np.array_equal(free[0], free[1])


def test_a_changed_size_names_the_augmenter_and_both_sizes():
    iaa = pytest.importorskip("imgaug.augmenters")
    image, masks = shapes()
    augmenter = iaa.Sequential([iaa.Fliplr(0.5), iaa.Rot90(1, keep_size=False)])
    message = r"Sequential of Fliplr, Rot90 .*image\.shape=\(128, 96, 3\), expected \(96, 128, 3\)"
    with pytest.raises(AugmentationError, match=message):
        augmentation.apply(augmenter, image, masks)

    def lose_a_mask(image, masks):
        return image, masks[:, :, 1:]

    with pytest.raises(
        ValueError, match=r"lose_a_mask .*masks\.shape=\(96, 128, 2\), expected \(96, 128, 3\)"
    ):
        augmentation.apply(lose_a_mask, image, masks)


def test_callables():
    image, masks = shapes()

    def shift(image, masks, rng):
        by = int(rng.integers(1, 30))
        return np.roll(image, by, axis=1), np.roll(masks, by, axis=1).astype(float)

    moved, moved_masks = augmentation.apply(shift, image, masks, np.random.default_rng(0))
    again, _ = augmentation.apply(shift, image, masks, np.random.default_rng(0))
    np.testing.assert_array_equal(moved, again)
    assert moved_masks.dtype == bool
    assert overlap(moved, moved_masks).tolist() == [1, 1, 1]
    assert augmentation.apply(shift, image, masks)[0].shape == image.shape
    with pytest.raises(AugmentationError, match=r"<lambda> must return \(image, masks\).*type ndarray"):
        augmentation.apply(lambda image, masks: image, image, masks)
    with pytest.raises(TypeError, match=r"imgaug augmenter.*'flip'"):
        augmentation.apply("flip", image, masks)


def test_an_error_inside_an_augmentation_names_it():
    image, masks = shapes()

    def broken(image, masks):
        return image[no_such_name], masks  # noqa: F821

    with pytest.raises(RuntimeError, match=r"augmentation broken failed: NameError: .*no_such_name"):
        augmentation.apply(broken, image, masks)


def test_a_transform_derived_from_albumentations():
    library = pytest.importorskip("albumentations", exc_type=ImportError)

    class Invert(library.ImageOnlyTransform):
        def apply(self, img, **params):
            return 255 - img

    image, masks = shapes()
    changed, same = augmentation.apply(Invert(p=1.0), image, masks, np.random.default_rng(0))
    np.testing.assert_array_equal(changed, 255 - image)
    np.testing.assert_array_equal(same, masks)


def test_albumentations():
    library = pytest.importorskip("albumentations", exc_type=ImportError)
    image, masks = shapes()
    transform = library.Compose([library.HorizontalFlip(p=1.0), library.Rotate(limit=(20, 20), p=1)])
    moved, moved_masks = augmentation.apply(transform, image, masks, np.random.default_rng(0))
    assert moved_masks.dtype == bool
    assert overlap(moved, moved_masks).min() > 0.9
    assert overlap(image, moved_masks).min() < 0.9
    again, _ = augmentation.apply(transform, image, masks, np.random.default_rng(0))
    np.testing.assert_array_equal(moved, again)
    assert augmentation.apply(transform, image, masks[:, :, :0])[1].shape == (H, W, 0)


@pytest.mark.parametrize("rng", [None, np.random.default_rng(0)])
def test_mirroring_happens_half_of_the_time(rng):
    random.seed(0)
    image, masks = shapes()
    mirrored = 0
    for _ in range(30):
        moved, moved_masks = augmentation.mirror_half(image, masks, rng)
        mirrored += not np.array_equal(moved, image)
        assert overlap(moved, moved_masks).tolist() == [1, 1, 1]
    assert 6 <= mirrored <= 24


def test_choices_inside_imgaug_differ_between_images():
    iaa = pytest.importorskip("imgaug.augmenters")
    parts = [iaa.Add(level) for level in (10, 20, 30, 40)]
    black = np.zeros((8, 8, 3), np.uint8)
    for augmenter in (
        iaa.Sometimes(1.0, iaa.OneOf(parts)),
        iaa.Sequential([iaa.Sometimes(1.0, iaa.SomeOf(1, parts))]),
        iaa.Sequential([iaa.Sometimes(1.0, None, iaa.OneOf(parts)), iaa.OneOf(parts)]),
    ):
        draws = [
            int(augmentation.apply(augmenter, black, black[..., :0], np.random.default_rng(seed))[0][0, 0, 0])
            for seed in range(60)
        ]
        assert set(draws) == {10, 20, 30, 40}


def test_functions_that_take_image_and_masks_are_augmentations():
    def plain(image, masks):
        return image, masks

    def wrapped(*arguments, **options):
        return plain(*arguments)

    for function in (augmentation.mirror_half, plain, wrapped, lambda image, masks, rng: (image, masks)):
        augmentation.check([function], Dataset())


@pytest.mark.parametrize(
    "function, message",
    [
        *(
            (factory, rf"must be what {factory.__name__} returns. Call it: {factory.__name__}\(\)")
            for factory in (
                mrcnn.camera_policy,
                albumentations_policy,
                mrcnn.scale_jitter,
                mrcnn.stain_jitter,
                mrcnn.dim_exposure,
                mrcnn.CopyPaste,
            )
        ),
        (image_changes.quarter_turns, r"quarter_turns\(image, masks, count\), missing .*'count'"),
        (lambda image: image, r"f\(image, masks\) or .*<lambda>\(image\), too many positional arguments"),
    ],
)
def test_other_functions_are_refused_before_training(function, message):
    with pytest.raises(AugmentationError, match=message):
        augmentation.check(function, Dataset())
