import numpy as np
import pytest

from mrcnn.visualize import captions

NAMES = ["BG", "cat", "dog"]
RED = (1.0, 0.0, 0.0)


def test_name_and_score_also_zero():
    texts = captions.instance_captions(np.array([1, 2, 1]), NAMES, np.array([0.98765, 0.0, 1]))
    assert texts == ["cat 0.988", "dog 0.000", "cat 1.000"]
    assert captions.instance_captions([2], NAMES, [None]) == ["dog"]
    assert captions.instance_captions([-2], NAMES) == ["dog (crowd)"]


def test_captions_replace_names_also_as_arrays():
    texts = np.array(["a", "b"])
    assert captions.instance_captions([1, 2], NAMES, [0.1, 0.2], texts) == ["a", "b"]
    assert captions.instance_captions([1, 2], None, captions=[None, 7]) == ["", "7"]


def test_refuses_too_few_and_unknown_classes():
    with pytest.raises(ValueError, match="`captions`"):
        captions.instance_captions([1, 2], NAMES, captions=["a"])
    with pytest.raises(ValueError, match="`scores`"):
        captions.instance_captions([1, 2], NAMES, scores=[0.5])
    with pytest.raises(ValueError, match="class_id=3, class_names=3 names"):
        captions.instance_captions([3], NAMES)


def test_captions_avoid_each_other_and_stay_on_the_canvas():
    canvas = np.zeros([120, 200, 3], np.uint8)
    boxes = np.array([[0, 0, 40, 60], [0, 0, 40, 60], [0, 150, 100, 200]])
    colors = np.array([RED, (0.0, 1.0, 0.0), (1.0, 1.0, 0.0)])
    captions.draw_captions(canvas, boxes, ["first", "second", "a long name"], colors)
    patches = [(canvas == np.array(c) * 255).all(axis=-1) for c in colors]
    assert all(patch.sum() > 100 for patch in patches)
    second = np.argwhere(patches[1])
    assert second[:, 0].min() > np.argwhere(patches[0])[:, 0].max()
    assert patches[2][0, 199]


def test_many_captions_keep_only_those_that_fit():
    n = 60
    boxes = np.array([[5 * i, 0, 5 * i + 5, 10] for i in range(n)] + [[0, 100, 300, 290]])
    canvas = np.zeros([300, 300, 3], np.uint8)
    captions.draw_captions(canvas, boxes, ["cell"] * (n + 1), np.array([RED] * (n + 1)))
    assert not canvas[:, :100].any()
    assert canvas[:, 100:].any()
    captions.draw_captions(canvas, boxes[:50], ["cell"] * 50, np.array([RED] * 50))
    assert canvas[:250, :20].any(axis=-1).mean() > 0.9


def test_letters_beyond_ascii_become_something_readable():
    def label(text):
        canvas = np.zeros([40, 100, 3], np.uint8)
        captions.draw_captions(canvas, np.array([[20, 5, 40, 90]]), [text], np.array([RED]))
        return canvas

    np.testing.assert_array_equal(label("Müll\neimer"), label("Mull eimer"))
    np.testing.assert_array_equal(label("猫"), label("?"))


def test_positions_are_above_inside_and_below_and_above_again_when_all_are_taken():
    box = np.array([[40.0, 10, 60, 50]] * 5)
    positions = captions.caption_positions(box, np.array([[10, 30]] * 5), (100, 100))
    assert [position[0] for position in positions] == [30, 40, 60, 50, 30]
    assert [position[1] for position in positions] == [10] * 5
    assert [position[2] - position[0] for position in positions] == [10] * 5


def test_the_right_side_is_free_where_the_left_is_taken():
    boxes = np.array([[40.0, 10, 50, 50], [40, 10, 50, 50], [40, 10, 50, 50], [40, 10, 50, 80]])
    positions = captions.caption_positions(boxes, np.array([[10, 35]] * 4), (100, 100))
    np.testing.assert_array_equal(positions[3], [30, 45, 40, 80])


def test_captions_without_size_have_no_position():
    box = np.array([[40.0, 10, 60, 50]] * 2)
    positions = captions.caption_positions(box, np.array([[0, 0], [10, 30]]), (100, 100))
    assert positions[0] is None
    np.testing.assert_array_equal(positions[1], [30, 10, 40, 40])


def test_legend_counts_classes_most_frequent_first():
    colors = np.array([RED, (0, 1, 0), (0, 0, 1), (0, 1, 0)])
    texts, shown = captions.class_legend(np.array([1, 2, -1, 2]), NAMES, colors)
    assert texts == ["dog (2)", "cat (crowd) (1)", "cat (1)"]
    np.testing.assert_array_equal(shown, [(0, 1, 0), (0, 0, 1), RED])


def test_legend_has_a_line_a_class_and_leaves_out_what_does_not_fit():
    canvas = np.full([70, 200, 3], 90, np.uint8)
    colors = np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1)])
    captions.draw_legend(canvas, ["a", "b", "c", "d", "e"], colors)
    has_patch = [(canvas == np.array(color) * 255).all(axis=-1).sum() > 20 for color in colors]
    assert has_patch == [True, True, True, False, False]
    assert (canvas[:, 100:] == 90).all()
    tiny = np.full([6, 6, 3], 90, np.uint8)
    captions.draw_legend(tiny, ["a"], colors)
    assert (tiny == 90).all()


def test_heading_stands_above_the_image():
    image = np.full([50, 120, 3], 90, np.uint8)
    headed = captions.with_heading(image, "truth")
    np.testing.assert_array_equal(headed[-50:], image)
    strip = headed[:-50]
    assert len(strip) > 10 and (strip == 255).mean() > 0.5 and strip.min() < 60
