"""Run-length encodings: by hand, against pycocotools, and what does not fill its mask."""

import numpy as np
import pytest
from pycocotools import mask as reference

from mrcnn.errors import InvalidDataError
from mrcnn.geometry import rle


def random_mask(seed, size=(37, 23)):
    """Noise of a random density; every fifth mask has long runs, which take several characters each."""
    rng = np.random.default_rng(seed)
    if seed % 5 == 0:
        size = (700, 900)
        mask = np.zeros(size, bool)
        mask.T.reshape(-1)[np.sort(rng.choice(mask.size, 2))[0] :] = True
        mask[:, :400] ^= rng.random((1, 400)) > 0.5
        return mask
    return rng.random(size) > rng.random()


def encoded(mask):
    return reference.encode(np.asfortranarray(mask.astype(np.uint8)))


def test_counts_by_hand():
    """Columns of [[0, 1], [1, 1], [0, 0]]: 1 outside, 1 inside, 1 outside, 2 inside, 1 outside."""
    mask = np.array([[0, 1], [1, 1], [0, 0]], bool)
    assert rle.crop_counts(mask.shape, (0, 0), mask).tolist() == [1, 1, 1, 2, 1]
    for counts in ([1, 1, 1, 2, 1], [1, 1, 1, 2, 0, 0, 1], [1.0, 1.0, 1.0, 2.0, 1.0], "11110"):
        code = {"size": [3, 2], "counts": counts}
        assert np.array_equal(rle.decode(code, (3, 2)), mask), counts


@pytest.mark.parametrize("seed", range(30))
def test_the_same_as_pycocotools(seed):
    mask = random_mask(seed)
    code = encoded(mask)
    text = {"size": list(mask.shape), "counts": code["counts"].decode()}
    assert rle.encode_masks(mask[..., np.newaxis]) == [text]
    assert rle.encode_crops(mask.shape, np.array([[0, 0, *mask.shape]]), [mask]) == [text]
    assert np.array_equal(rle.decode(code, mask.shape), mask)  # bytes
    assert np.array_equal(rle.decode(text, mask.shape), mask)
    assert rle.compress([rle.counts_of(text, mask.shape)], mask.shape) == [text]
    assert rle.from_segmentation(text, mask.shape) == text


@pytest.mark.parametrize(
    "counts", [[], [0], [7], [0, 7], [0] * 9, [2**31, 0, 2**31, 5], [1, 2**32 - 9, 0, 8]]
)
def test_counts_are_compressed_as_by_pycocotools(counts):
    size = (2**16, 2**16)
    (expected,) = reference.frPyObjects([{"size": size, "counts": counts}], *size)
    code = {"size": list(size), "counts": expected["counts"].decode()}
    assert rle.compress([np.array(counts, np.int64)], size) == [code]


def test_counts_beyond_32_bits():
    """Whole slides have more than 2**32 pixels. pycocotools would cut the numbers to 32 bits."""
    size = (2**17, 2**16)
    counts = [2**33 - 2**30 - 20, 20, 2**29, 2**29]
    (code,) = rle.compress([np.array(counts, np.int64)], size)
    assert rle.counts_of(code, size).tolist() == counts


@pytest.mark.parametrize("inside", [[], [0], [-1], [0, -1], [100, 400]])
def test_only_columns_with_pixels_are_decoded(inside):
    mask = np.zeros((30, 20), bool)
    mask.T.reshape(-1)[inside] = True
    crop, x1 = rle.decode_columns(rle.crop_counts(mask.shape, (0, 0), mask), mask.shape)
    columns = np.flatnonzero(mask.any(axis=0))
    assert crop.shape == (30, np.ptp(columns) + 1 if len(columns) else 0)
    if len(columns):
        assert x1 == columns[0]
        assert np.array_equal(crop, mask[:, columns[0] : columns[-1] + 1])


def test_labels_and_polygons():
    labels = np.zeros((12, 9), np.int32)
    labels[2:5, 3:7], labels[8:, 1] = 1, 40
    codes = rle.encode_labels(labels, 40)
    assert len(codes) == 40
    assert [int(reference.area(code)) for code in codes] == [12, *[0] * 38, 4]
    polygon = rle.from_segmentation([[3, 2, 7, 2, 7, 5, 3, 5]], (12, 9, 3))
    assert polygon == codes[0]


def too_short(seed):
    return {"size": [37, 23], "counts": encoded(random_mask(seed)[:-1])["counts"].decode()}


WRONG = {
    "shorter than the mask": {"size": [6, 8], "counts": [10]},
    "longer than the mask": {"size": [6, 8], "counts": [40, 9]},
    "shorter, as text": too_short(1),
    "negative": {"size": [6, 8], "counts": [50, -2]},
    "negative, with a high sum": {"size": [6, 8], "counts": [2**39, -(2**39), 48]},
    "beyond 64 bits": {"size": [6, 8], "counts": [2**64, 48]},
    "a sum that wraps around": {"size": [6, 8], "counts": [2**62] * 4 + [48]},
    "fractions": {"size": [6, 8], "counts": [24.5, 23.5]},
    "not finite": {"size": [6, 8], "counts": [float("nan"), 48]},
    "texts": {"size": [6, 8], "counts": ["48"]},
    "lists": {"size": [6, 8], "counts": [[48], [48]]},
    "booleans": {"size": [6, 8], "counts": [True] * 48},
    "no counts": {"size": [6, 8]},
    "a number": {"size": [6, 8], "counts": 48},
    "empty": {"size": [6, 8], "counts": []},
    "empty text": {"size": [6, 8], "counts": ""},
    "another alphabet": {"size": [6, 8], "counts": "{{{"},
    "not ASCII": {"size": [6, 8], "counts": "é0"},
    "text without an end": {"size": [6, 8], "counts": "`"},
    "text with an endless number": {"size": [6, 8], "counts": "o" * 500 + "0"},
    "another size": {"size": [8, 6], "counts": [48]},
    "half a size": {"size": [6], "counts": [48]},
    "size of texts": {"size": ["6", "8"], "counts": [48]},
    "size None": {"size": [6, None], "counts": [48]},
    "size a number": {"size": 5, "counts": [48]},
    "no size": {"counts": [48]},
}


@pytest.mark.parametrize("code", WRONG.values(), ids=WRONG)
def test_what_does_not_fill_its_mask_is_refused(code):
    """pycocotools would return freed memory, or end the process."""
    size = (37, 23) if code.get("size") == [37, 23] else (6, 8)
    with pytest.raises(ValueError, match=r"`counts`|`size`"):
        rle.decode(code, size)
    with pytest.raises(ValueError, match=r"`counts`|`size`"):
        rle.from_segmentation(code, size)


@pytest.mark.parametrize("text", ["5", "5 x", "5 -2", "0 3", "11 3", "1 99999999999999999999"])
def test_texts_that_are_no_runs_are_refused(text):
    with pytest.raises(ValueError, match=r"pairs of integers|leaves an image"):
        rle.rle_decode(text, (3, 4))


def test_text_of_the_data_science_bowl():
    """Pixels count from 1, column by column."""
    mask = np.zeros((3, 4), bool)
    mask[1:, 1] = mask[0, 2] = mask[2, 3] = True
    assert rle.rle_encode(mask) == "5 3 12 1"
    assert np.array_equal(rle.rle_decode("5 3 12 1", (3, 4)), mask)
    assert rle.rle_encode(np.ones((3, 4))) == "1 12"
    for wrong in (np.zeros(4), np.zeros((3, 4, 1))):
        with pytest.raises(ValueError, match=r"shape \(height, width\)"):
            rle.rle_encode(wrong)
    with pytest.raises(ValueError, match=r"shape \(height, width, instances\)"):
        rle.mask_to_rle("x", mask, np.ones(1))


def test_sizes_of_whole_numbers_with_a_point():
    assert rle.stated_size({"size": [480.0, 640]}) == (480, 640)
    for size in ([480.5, 640], [float("nan"), 640], ["480", 640], [float("inf"), 640]):
        with pytest.raises(InvalidDataError, match="`size` must be"):
            rle.stated_size({"size": size})
