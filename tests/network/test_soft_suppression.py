"""Soft-NMS of tensors against that of arrays."""

import numpy as np
import pytest
from tensor_tools import BACKEND, call

from mrcnn.geometry import boxes as geometry
from mrcnn.network.soft_suppression import soft_non_max_suppression


def scene(count, images=3, classes=3):
    """Boxes in clusters, of which many overlap; scores in random order; classes."""
    rng = np.random.default_rng(count)
    centers = rng.uniform(0.2, 0.8, (images, 6, 2))
    center = centers[np.arange(images)[:, None], rng.integers(0, 6, (images, count))]
    center = center + rng.normal(0, 0.03, center.shape)
    half = rng.uniform(0.05, 0.15, (images, count, 2))
    boxes = np.concatenate([center - half, center + half], axis=2).astype("float32")
    scores = rng.uniform(0.0, 1.0, (images, count)).astype("float32")
    return boxes, scores, rng.integers(1, classes + 1, (images, count)).astype("int32")


def soften(boxes, scores, groups, max_output, sigma=0.5, min_score=0.0):
    def function(*tensors):
        return soft_non_max_suppression(*tensors, max_output=max_output, sigma=sigma, min_score=min_score)

    index, picked = call(function, boxes, scores, groups)
    assert (index.dtype, picked.dtype) == (np.int32, np.float32)
    assert index.shape == picked.shape == (len(boxes), max_output)
    return index, picked


def check(boxes, scores, groups, max_output, sigma=0.5, min_score=0.0):
    """The picked boxes of each image are those of NumPy; the other slots are zero. Returns their numbers."""
    index, picked = soften(boxes, scores, groups, max_output, sigma, min_score)
    counts = []
    for image in range(len(boxes)):
        kept, lowered = geometry.soft_non_max_suppression(
            boxes[image], scores[image], groups[image], sigma, min_score
        )
        kept = kept[:max_output]
        counts.append(len(kept))
        np.testing.assert_array_equal(index[image, : len(kept)], kept)
        np.testing.assert_allclose(picked[image, : len(kept)], lowered[kept], rtol=1e-4)
        assert not index[image, len(kept) :].any() and not picked[image, len(kept) :].any()
    return counts


@pytest.mark.parametrize(
    "sigma, min_score, most", [(0.5, 0.0, 20), (0.5, 0.05, 120), (0.1, 0.3, 60), (5.0, 0.0, 120)]
)
def test_equals_numpy(sigma, min_score, most):
    boxes, scores, groups = scene(120)
    assert min(check(boxes, scores, groups, most, sigma, min_score)) > 10


@pytest.mark.skipif(BACKEND != "tensorflow", reason="JAX compiles in every test, PyTorch never")
@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_by_tensorflow(jit_compile):
    import tensorflow as tf

    def function(*tensors):
        return soft_non_max_suppression(*tensors, max_output=9, sigma=0.5, min_score=0.1)

    boxes, scores, groups = scene(40)
    signature = [tf.TensorSpec((None, *x.shape[1:]), x.dtype) for x in (boxes, scores, groups)]
    compiled = tf.function(function, signature, jit_compile=jit_compile)
    for found, expected in zip(compiled(boxes, scores, groups), function(boxes, scores, groups), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_one_box():
    boxes, scores, groups = scene(1)
    assert check(boxes, scores, groups, 4) == [1, 1, 1]


def test_more_slots_than_boxes():
    boxes, scores, groups = scene(5)
    assert check(boxes, scores, groups, 9) == [5, 5, 5]


def test_an_image_without_boxes_beside_others():
    boxes, scores, groups = scene(30)
    scores[1] = 0.0
    assert check(boxes, scores, groups, 12)[1] == 0
    index, picked = soften(boxes, np.zeros_like(scores), groups, 12)
    assert not index.any() and not picked.any()


def test_ties_are_picked_in_their_order():
    """The scores of 2 ** -n are the same on every backend, because boxes either coincide or lie apart."""
    boxes = np.zeros((1, 8, 4), "float32")
    boxes[..., 2:] = 0.5
    boxes[0, 4:] += 0.5
    scores, groups = np.full((1, 8), 0.5, "float32"), np.ones((1, 8), "int32")
    index, picked = soften(boxes, scores, groups, 8, sigma=1 / np.log(2))
    assert index[0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    np.testing.assert_allclose(picked[0], 2.0 ** -np.array([1, 1, 2, 2, 3, 3, 4, 4]), rtol=1e-5)


def test_groups_do_not_lower_each_other():
    boxes = np.tile(np.array([0, 0, 1, 1], "float32"), (1, 3, 1))
    scores = np.array([[0.9, 0.8, 0.7]], "float32")
    index, picked = soften(boxes, scores, np.array([[1, 2, 1]], "int32"), 3)
    assert index[0].tolist() == [0, 1, 2]
    np.testing.assert_allclose(picked[0], [0.9, 0.8, 0.7 * np.exp(-2)], rtol=1e-5)


def test_boxes_without_area_and_broken_numbers_lower_nothing():
    boxes = np.zeros((1, 5, 4), "float32")
    boxes[0, 2:] = (0, 0, 1, 1)
    boxes[0, 3, 2] = np.nan
    scores = np.array([[0.9, 0.8, 0.7, 0.6, np.nan]], "float32")
    index, picked = soften(boxes, scores, np.ones((1, 5), "int32"), 5)
    assert index[0].tolist() == [0, 1, 2, 3, 0]
    np.testing.assert_allclose(picked[0], [0.9, 0.8, 0.7, 0.6, 0], rtol=1e-6)
