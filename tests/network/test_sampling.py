"""Random samples of fixed size."""

import keras
import numpy as np
from keras import ops
from tensor_tools import call

from mrcnn.network import sampling

ELIGIBLE = np.array([[0, 1, 1, 0, 1, 1], [0, 0, 0, 1, 0, 0], [0] * 6], bool)


def sample(priority, k):
    return call(lambda *x: sampling.sample_top_k(*x, k), ELIGIBLE, priority)


def test_samples_are_the_eligible_of_highest_priority():
    priority = np.array([[0.9, 0.2, 0.8, 1, 0.4, 0.6]] * 3, "float32")
    index, count = sample(priority, 3)
    assert count.tolist() == [3, 1, 0]
    assert index[0].tolist() == [2, 5, 4]
    assert index[1, 0] == 3
    assert (index < 6 + 3).all()


def test_falling_priorities_take_the_first():
    priority = call(lambda x: sampling.priorities(x, False, None), ELIGIBLE)
    assert (priority >= 0).all() and (priority <= 1).all()
    index, _ = sample(priority, 3)
    assert index[0].tolist() == [1, 2, 4]


def test_random_priorities_follow_their_seed():
    def priorities(seed):
        generator = keras.random.SeedGenerator(seed)
        candidates = ops.convert_to_tensor(ELIGIBLE)
        return ops.convert_to_numpy(sampling.priorities(candidates, True, generator))

    first, again, other = priorities(1), priorities(1), priorities(2)
    assert first.shape == ELIGIBLE.shape
    assert (first >= 0).all() and (first <= 1).all()
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(np.concatenate([first, other]))) > ELIGIBLE.size


def test_sampled_mask_marks_the_samples_only():
    priority = np.array([[0.9, 0.2, 0.8, 1, 0.4, 0.6]] * 3, "float32")
    index, count = sample(priority, 3)
    found = call(sampling.sampled_mask, index, count, priority)
    expected = np.zeros((3, 6), bool)
    expected[0, [2, 4, 5]] = expected[1, 3] = True
    np.testing.assert_array_equal(found, expected)


def test_is_filled():
    found = call(sampling.is_filled, np.zeros((3, 4), "int32"), np.array([0, 3, 4], "int32"))
    np.testing.assert_array_equal(found, [[False] * 4, [True] * 3 + [False], [True] * 4])
