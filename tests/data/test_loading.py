"""load_image_gt: equal to the recordings, complete, and clear about data that do not fit."""

import random
import re

import numpy as np
import pytest
from golden_files import golden_params, load, text, unpack_bits
from toy_data import ArrayDataset, ToyConfig, recorded_config, recorded_dataset, rectangles

from mrcnn.data.loading import load_image_gt
from mrcnn.dataset import Dataset
from mrcnn.geometry.preprocessing import as_network_image


@pytest.mark.parametrize("path", golden_params("utils_data*.npz"))
def test_equal_to_the_recordings(path):
    recording = load(path)
    dataset = recorded_dataset(recording)
    first_seed = int(re.search(r"seed\((\d+)\+", text(recording["cfg"])["crop"]).group(1))
    cases = {re.fullmatch(r"gt_(sq|pad|crop)_(full|mini)(\d+)_meta", key) for key in recording}
    for case in filter(None, cases):
        mode, kind, index = case.groups()
        random.seed(first_seed + int(index))
        image, meta, class_ids, bbox, masks = load_image_gt(
            dataset, recorded_config(recording, mode), int(index), use_mini_mask=kind == "mini"
        )
        wanted = f"gt_{mode}_{kind}{index}_"
        np.testing.assert_allclose(meta, recording[f"{wanted}meta"], rtol=1e-9)
        np.testing.assert_array_equal(class_ids, recording[f"{wanted}class_ids"])
        np.testing.assert_array_equal(bbox, recording[f"{wanted}bbox"])
        assert bbox.dtype == class_ids.dtype == np.int32
        assert masks.dtype == bool
        recorded = unpack_bits(recording, f"{wanted}mask")
        if kind == "full":
            np.testing.assert_array_equal(masks, recorded)
            # Interpolated values that are whole numbers may be cut off one lower.
            difference = np.abs(image.astype(int) - recording[f"{wanted}image"])
            assert image.dtype == recording[f"{wanted}image"].dtype
            assert difference.max() <= 1
            assert (difference > 0).mean() < 0.005
        else:
            # Interpolated values of one half may fall to either side.
            assert masks.shape == recorded.shape
            assert (masks != recorded).mean() < 0.001


def item(**changes):
    image, masks, class_ids = rectangles(0)
    values = {"image": image, "masks": masks, "class_ids": class_ids} | changes
    return ArrayDataset([(values["image"], values["masks"], values["class_ids"])])


def test_boxes_fit_the_masks_and_empty_objects_are_dropped():
    image, masks, class_ids = rectangles(1, count=4)
    masks[:, :, 2] = False
    dataset = item(image=image, masks=masks, class_ids=class_ids)
    config = ToyConfig()
    config.IMAGE_RESIZE_MODE = "none"
    loaded, meta, ids, bbox, kept = load_image_gt(dataset, config, 0)
    np.testing.assert_array_equal(loaded, image)
    assert ids.tolist() == class_ids[[0, 1, 3]].tolist()
    np.testing.assert_array_equal(kept, masks[:, :, [0, 1, 3]])
    for index, (y1, x1, y2, x2) in enumerate(bbox):
        assert kept[y1:y2, x1:x2, index].sum() == kept[:, :, index].sum()
    assert meta.tolist() == [0, 100, 120, 3, 100, 120, 3, 0, 0, 100, 120, 1, 1, 1, 1, 1]


def test_lists_of_ids_crowds_and_masks_of_numbers_are_taken():
    _, masks, _ = rectangles(0)
    dataset = item(masks=masks.astype(np.uint8) * 255, class_ids=[1, -2, 3.0])
    _, _, ids, bbox, kept = load_image_gt(dataset, ToyConfig(), 0, use_mini_mask=True)
    assert (ids.dtype, ids.tolist()) == (np.int32, [1, -2, 3])
    assert bbox.shape == (3, 4)
    assert (kept.dtype, kept.shape) == (bool, (56, 56, 3))


@pytest.mark.parametrize("shape", [(0, 0, 0), (100, 120, 0)])
@pytest.mark.parametrize("mini", [False, True])
def test_an_image_without_objects(shape, mini):
    dataset = item(masks=np.empty(shape), class_ids=[])
    config = ToyConfig()
    config.MINI_MASK_SHAPE = [28, 28]
    image, _, ids, bbox, masks = load_image_gt(dataset, config, 0, use_mini_mask=mini)
    assert image.shape == (128, 128, 3)
    assert (ids.shape, ids.dtype) == ((0,), np.int32)
    assert (bbox.shape, bbox.dtype) == ((0, 4), np.int32)
    assert (masks.shape, masks.dtype) == ((28, 28, 0) if mini else (128, 128, 0), bool)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"masks": np.ones((100, 120), bool)}, r"\(height, width, instances\).*masks\.shape=\(100, 120\)"),
        (
            {"masks": np.ones((120, 100, 3), bool)},
            r"masks\.shape=\(120, 100, 3\) and image\.shape=\(100, 120, 3\)",
        ),
        ({"class_ids": np.array([1, 2])}, "3 masks and 2 class ids"),
        ({"class_ids": [1, 2, 4]}, r"1 to 3.*\[4\]"),
        ({"class_ids": [0, 2, -4]}, r"0 is the background.*\[-4, 0\]"),
        ({"class_ids": [1.5, 2, 3]}, "list of integers"),
        ({"class_ids": ["a", "b", "c"]}, "list of integers"),
        ({"image": np.zeros((100, 120), np.uint8)}, r"\(height, width, 3\).*image\.shape=\(100, 120\)"),
        ({"image": np.zeros((100, 120, 4), np.uint8)}, r"IMAGE_CHANNEL_COUNT.*\(100, 120, 4\)"),
    ],
)
def test_data_that_do_not_fit_are_named(changes, message):
    with pytest.raises(ValueError, match=rf"{message}.*image id 0 \(source 'fix', picture_0\.png"):
        load_image_gt(item(**changes), ToyConfig(), 0)


@pytest.mark.parametrize("repeats", [1, 3])
def test_one_channel_or_a_gray_image_repeated(repeats):
    dataset = item(image=rectangles(0)[0][..., :1].repeat(repeats, axis=2))
    config = ToyConfig()
    config.IMAGE_CHANNEL_COUNT, config.MEAN_PIXEL = 1, [100.0]
    image, meta, *_ = load_image_gt(dataset, config, 0)
    assert image.shape == (128, 128, 1)
    assert meta[1:7].tolist() == [100, 120, 1, 128, 128, 1]


def test_colors_do_not_fit_one_channel():
    config = ToyConfig()
    config.IMAGE_CHANNEL_COUNT, config.MEAN_PIXEL = 1, [100.0]
    with pytest.raises(ValueError, match=r"\(height, width, 1\).*image\.shape=\(100, 120, 3\)"):
        load_image_gt(item(), config, 0)


def test_an_unprepared_dataset_says_so():
    dataset = Dataset()
    dataset.add_class("fix", 1, "thing")
    dataset.add_image("fix", 0, "picture.png")
    with pytest.raises(RuntimeError, match=r"call prepare\(\)"):
        load_image_gt(dataset, ToyConfig(), 0)


def test_active_classes_are_those_of_the_source():
    dataset = item()
    dataset.add_class("other", 1, "thing")
    dataset.add_image("lost", 1, "lost.png")
    dataset.items.append(dataset.items[0])
    dataset.prepare()
    assert load_image_gt(dataset, ToyConfig(), 0)[1][12:].tolist() == [1, 1, 1, 1, 0]
    with pytest.raises(ValueError, match=r"source 'lost'.*add_class\('lost'"):
        load_image_gt(dataset, ToyConfig(), 1)


def test_mirroring_by_flag_is_deprecated_and_happens_half_of_the_time():
    dataset = item()
    config = ToyConfig()
    plain = load_image_gt(dataset, config, 0)
    mirrored = 0
    random.seed(0)
    for _ in range(20):
        with pytest.warns(DeprecationWarning, match="Fliplr"):
            image, _, _, bbox, masks = load_image_gt(dataset, config, 0, augment=True)
        if np.array_equal(image, plain[0]):
            np.testing.assert_array_equal(masks, plain[4])
            continue
        mirrored += 1
        np.testing.assert_array_equal(image, plain[0][:, ::-1])
        np.testing.assert_array_equal(masks, plain[4][:, ::-1])
        np.testing.assert_array_equal(bbox[:, 1], 128 - plain[3][:, 3])
    assert 4 <= mirrored <= 16


def test_augmentation_changes_masks_and_boxes_with_the_image():
    def shift(image, masks):
        return np.roll(image, 10, axis=0), np.roll(masks, 10, axis=0)

    dataset = item()
    config = ToyConfig()
    plain = load_image_gt(dataset, config, 0)
    moved = load_image_gt(dataset, config, 0, augmentation=shift)
    np.testing.assert_array_equal(moved[0], np.roll(plain[0], 10, axis=0))
    np.testing.assert_array_equal(moved[3], plain[3] + [10, 0, 10, 0])
    np.testing.assert_array_equal(moved[1], plain[1])


def test_random_crops_repeat_with_a_generator_and_leave_python_random_alone():
    dataset = item()
    config = ToyConfig()
    config.IMAGE_RESIZE_MODE, config.IMAGE_MIN_DIM, config.IMAGE_MIN_SCALE = "crop", 64, 2
    random.seed(1)
    before = random.getstate()
    crops = [load_image_gt(dataset, config, 0, rng=np.random.default_rng(seed))[0] for seed in (1, 2, 3, 1)]
    assert random.getstate() == before
    np.testing.assert_array_equal(crops[0], crops[3])
    assert not np.array_equal(crops[0], crops[1])


def test_contrast_of_the_whole_picture_is_stretched_before_the_crop():
    """The crop sees the same values as detection does, whatever it contains."""
    image, masks, class_ids = rectangles(2, shape=(128, 128))
    config = ToyConfig()
    config.CONTRAST_PERCENTILES = (1, 99.8)
    config.IMAGE_RESIZE_MODE, config.IMAGE_MIN_DIM = "crop", 64
    loaded = load_image_gt(item(image=image, masks=masks, class_ids=class_ids), config, 0)[0]
    whole = as_network_image(image, config)
    assert loaded.dtype == np.uint8
    windows = np.lib.stride_tricks.sliding_window_view(whole, loaded.shape)
    assert (windows == loaded).all(axis=(-3, -2, -1)).any()
    dark = load_image_gt(item(image=image // 2, masks=masks, class_ids=class_ids), config, 0)[0]
    assert dark.max() == 255
