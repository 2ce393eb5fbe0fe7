import subprocess
import sys
import warnings

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import LineCollection

from mrcnn import visualize
from mrcnn.drawing.colors import distinct_colors
from mrcnn.geometry.mask_crops import MaskCrops

NAMES = ["BG", "cat", "dog"]


@pytest.fixture(autouse=True)
def close_figures():
    """Warnings are errors: showing a figure without a display would warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    plt.close("all")


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(40, 200, (60, 80, 3), dtype=np.uint8)


@pytest.fixture
def instances():
    masks = np.zeros([60, 80, 2], bool)
    masks[10:30, 5:35, 0] = True
    masks[25:55, 40:70, 1] = True
    return np.array([[10, 5, 30, 35], [25, 40, 55, 70]]), masks, np.array([1, 2])


def rendered(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def caption_box(ax, caption):
    """The patch behind a caption as (y1, x1, y2, x2) in pixels of the image."""
    rendered(ax.figure)
    (text,) = (text for text in ax.texts if text.get_text() == caption)
    extent = text.get_bbox_patch().get_window_extent()
    (x1, y2), (x2, y1) = ax.transData.inverted().transform(extent.get_points()) + 0.5
    return y1, x1, y2, x2


def shown_pixels(ax, shape):
    """The image on the axes at its own resolution, without the magnification."""
    (artist,) = ax.images
    pixels = np.asarray(artist.get_array())
    step = pixels.shape[0] // shape[0]
    return pixels[step // 2 :: step, step // 2 :: step]


class TestDisplayInstances:
    def test_title_captions_and_pixels(self, image, instances):
        boxes, masks, ids = instances
        before = image.copy()
        figure = visualize.display_instances(
            image, boxes, masks, ids, NAMES, np.array([0.0, 0.9876]), title="Two animals"
        )
        (ax,) = figure.axes
        assert ax.get_title() == "Two animals"
        assert texts(ax) == ["cat 0.000", "dog 0.988"]
        np.testing.assert_array_equal(image, before)
        pixels = shown_pixels(ax, image.shape)
        away = np.ones([60, 80], bool)
        away[8:32, 3:37] = away[23:57, 38:72] = False
        np.testing.assert_array_equal(pixels[away], image[away])
        inside = np.zeros([60, 80], bool)
        inside[12:28, 7:33] = True
        color = np.array(distinct_colors(2)[0])
        np.testing.assert_allclose(pixels[inside], image[inside] * 0.5 + 127.5 * color, atol=1.0, rtol=0)
        assert (rendered(figure) != 255).any(axis=-1).mean() > 0.3

    def test_view_has_a_margin_of_ten_pixels_and_rows_downwards(self, image, instances):
        (ax,) = visualize.display_instances(image, *instances, NAMES).axes
        assert ax.get_xlim() == (-10, 90)
        assert ax.get_ylim() == (70, -10)
        assert not ax.axison

    def test_arrays_for_colors_and_captions(self, image, instances):
        colors = np.array([[255, 0, 0], [0, 0, 255]])
        figure = visualize.display_instances(
            image, *instances, NAMES, colors=colors, captions=np.array(["first", "costs $5$"])
        )
        (ax,) = figure.axes
        assert texts(ax) == ["first", "costs $5$"]
        pixels = shown_pixels(ax, image.shape).astype(int)
        np.testing.assert_allclose(pixels[20, 20], image[20, 20] * 0.5 + (127.5, 0, 0), atol=1)
        np.testing.assert_allclose(pixels[40, 55], image[40, 55] * 0.5 + (0, 0, 127.5), atol=1)
        rendered(figure)

    def test_mask_box_and_outline_can_be_switched_off(self, image, instances):
        def changed(**options):
            figure = visualize.display_instances(image, *instances, NAMES, **options)
            canvas = np.asarray(figure.axes[0].images[0].get_array())
            step = len(canvas) // len(image)
            differs = (canvas != image.repeat(step, axis=0).repeat(step, axis=1)).any(axis=-1)
            return differs.reshape(60, step, 80, step).any(axis=(1, 3))

        nothing = {"show_mask": False, "show_bbox": False, "show_outline": False}
        assert not changed(**nothing).any()
        masks_only = changed(show_bbox=False, show_outline=False)
        assert masks_only[10:30, 5:35].mean() > 0.95
        outlines_only = changed(show_bbox=False, show_mask=False)
        assert outlines_only[10, 5:35].all() and outlines_only[25:55, 69].all()
        assert not outlines_only[12:28, 7:33].any()

    def test_axes_of_the_caller_are_used_also_as_an_array_of_one(self, image, instances):
        figure, ax = plt.subplots(1)
        assert visualize.display_instances(image, *instances, NAMES, ax=ax) is figure
        _, axes = plt.subplots(1, 1, squeeze=False)
        visualize.display_instances(image, *instances, NAMES, ax=axes)
        assert len(axes[0, 0].images) == 1
        assert len(plt.get_fignums()) == 2
        with pytest.raises(ValueError, match="Received: 2 axes"):
            visualize.display_instances(image, *instances, NAMES, ax=plt.subplots(1, 2)[1])

    def test_captions_of_neighbours_do_not_cover_each_other(self, image):
        boxes = np.array([[20, 10 + 3 * i, 40, 30 + 3 * i] for i in range(3)])
        (ax,) = visualize.display_instances(
            image, boxes, None, [1, 1, 2], NAMES, captions=["first", "second", "third"], figsize=(5, 4)
        ).axes
        positions = [caption_box(ax, text) for text in ("first", "second", "third")]
        for i, (y1, x1, y2, x2) in enumerate(positions):
            for other in positions[:i]:
                assert y2 <= other[0] or other[2] <= y1 or x2 <= other[1] or other[3] <= x1

    def test_class_legend(self, image, instances):
        boxes, masks, _ = instances
        (ax,) = visualize.display_instances(image, boxes, masks, [2, 2], NAMES, color_by="class").axes
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["dog (2)"]
        (patch,) = ax.get_legend().get_patches()
        np.testing.assert_allclose(patch.get_facecolor()[:3], distinct_colors(2)[1])
        rendered(ax.figure)

    def test_no_instances_show_the_image_and_say_so(self, image, capsys):
        figure = visualize.display_instances(
            image, np.zeros([0, 4]), np.zeros([60, 80, 0]), np.zeros(0, int), NAMES, np.zeros(0)
        )
        assert "No instances" in capsys.readouterr().out
        np.testing.assert_array_equal(shown_pixels(figure.axes[0], image.shape), image)

    def test_many_instances_are_one_image(self, image):
        n = 120
        boxes = np.array([[i % 10 * 6, i // 10 * 6, i % 10 * 6 + 5, i // 10 * 6 + 5] for i in range(n)])
        masks = np.zeros([60, 80, n], np.uint8)
        for i, (y1, x1, y2, x2) in enumerate(boxes):
            masks[y1:y2, x1:x2, i] = 1
        (ax,) = visualize.display_instances(image, boxes, masks, np.ones(n, int), NAMES).axes
        assert len(ax.images) == 1
        assert len(ax.texts) == len(ax.patches) == len(ax.lines) == 0
        pixels = shown_pixels(ax, image.shape)
        assert (pixels != image).any(axis=-1)[masks.any(axis=-1)].mean() > 0.95

    @pytest.mark.parametrize(
        "convert",
        [
            lambda image: image[..., 0],
            lambda image: np.dstack([image, image[..., 0]]),
            lambda image: image.astype(np.uint16) * 256,
            lambda image: image / 255.0,
        ],
    )
    def test_other_images(self, image, instances, convert):
        figure = visualize.display_instances(convert(image), *instances, NAMES)
        pixels = shown_pixels(figure.axes[0], image.shape)[:8].astype(int)
        reference = visualize.to_rgb(convert(image))[:8]
        np.testing.assert_array_equal(pixels, reference)
        assert pixels.max() > 150

    def test_different_counts_are_refused(self, image, instances):
        boxes, masks, ids = instances
        with pytest.raises(ValueError, match="boxes=2, masks=1, class_ids=2"):
            visualize.display_instances(image, boxes, masks[..., 1:], ids, NAMES)
        with pytest.raises(ValueError, match="captions"):
            visualize.display_instances(image, boxes, masks, ids, NAMES, captions=["one"])
        assert not plt.get_fignums()


class TestDisplayDifferences:
    @pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
    def test_captions_hold_score_and_iou_in_any_order(self, image, instances, order):
        boxes, masks, ids = instances
        shifted = np.zeros([60, 80, 3], bool)
        shifted[10:30, 5:35, 0] = True  # the cat itself: IoU 1
        shifted[25:55, 50:70, 1] = True  # two thirds of the dog, as a cat: no match, IoU 2/3
        shifted[0:5, 0:5, 2] = True  # nothing
        pred_boxes = np.array([[10, 5, 30, 35], [25, 50, 55, 70], [0, 0, 5, 5]])
        scores = np.array([0.6, 0.9, 0.6])
        figure = visualize.display_differences(
            image,
            np.concatenate([boxes, np.zeros([1, 4], int)]),
            np.append(ids, 0),
            np.concatenate([masks, np.zeros([60, 80, 1], bool)], axis=-1),
            pred_boxes[order],
            np.array([1, 1, 2])[order],
            scores[order],
            shifted[..., order],
            NAMES,
        )
        (ax,) = figure.axes
        assert set(texts(ax)) == {"0.90 / 0.67", "0.60 / 1.00", "0.60 / 0.00"}
        assert texts(ax)[0] == "0.90 / 0.67"
        assert "green" in ax.get_title()
        np.testing.assert_allclose(caption_box(ax, "0.60 / 1.00")[1:3], (5, 10), atol=0.6)
        # Ground truth alone, left of the second prediction, is green; the wrong cat is redder.
        red, green, _ = shown_pixels(ax, image.shape)[40, 43].astype(int) - image[40, 43]
        assert green > red

    def test_without_ground_truth_or_predictions(self, image, instances):
        boxes, masks, ids = instances
        none = (np.zeros([0, 4], int), np.zeros(0, int))
        empty = np.zeros([60, 80, 0], bool)
        figure = visualize.display_differences(
            image, *none, empty, boxes, ids, [0.5, 0.25], masks, NAMES, title="only predictions"
        )
        assert texts(figure.axes[0]) == ["0.50 / 0.00", "0.25 / 0.00"]
        assert figure.axes[0].get_title() == "only predictions"
        figure = visualize.display_differences(image, boxes, ids, masks, *none, np.zeros(0), empty, NAMES)
        assert texts(figure.axes[0]) == []
        with pytest.raises(ValueError, match=r"len\(pred_box\)=2, len\(pred_score\)=1"):
            visualize.display_differences(image, boxes, ids, masks, boxes, ids, [0.5], masks, NAMES)


class TestDisplayImages:
    def test_grid_titles_and_no_empty_row(self, image):
        figure = visualize.display_images([image] * 4, ["a", "b"], cols=2)
        assert [ax.get_title() for ax in figure.axes] == ["a", "b", "", ""]
        grid = figure.axes[0].get_subplotspec().get_gridspec()
        assert (grid.nrows, grid.ncols) == (2, 2)
        assert len(visualize.display_images(np.zeros([5, 8, 8])).axes) == 5

    def test_masks_of_every_type_are_visible(self, instances):
        mask = instances[1][..., 0]
        masks = [
            mask,
            mask.astype(np.uint8),
            mask * np.uint8(255),
            mask.astype(float),
            mask[..., None],
        ]
        for ax in visualize.display_images(masks, cmap="Blues", interpolation="none").axes:
            colors = ax.images[0].to_rgba(ax.images[0].get_array())
            blues = matplotlib.colormaps["Blues"]
            np.testing.assert_allclose(colors[15, 10], blues(1.0))
            np.testing.assert_allclose(colors[0, 0], blues(0.0))

    def test_full_and_empty_masks_differ(self):
        full, empty = visualize.display_images([np.ones([4, 4]), np.zeros([4, 4])]).axes
        assert full.images[0].to_rgba(full.images[0].get_array())[0, 0, 0] == 1.0
        assert empty.images[0].to_rgba(empty.images[0].get_array())[0, 0, 0] == 0.0

    def test_unit_floats_are_not_black_and_norm_is_obeyed(self, image):
        figure = visualize.display_images([image / 255.0])
        np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), image)
        norm = matplotlib.colors.Normalize(-10, 10)
        figure = visualize.display_images([image[..., 0] * 0.0], norm=norm, cmap="gray")
        artist = figure.axes[0].images[0]
        np.testing.assert_allclose(artist.to_rgba(artist.get_array())[0, 0, 0], 0.5, atol=0.01)


def test_top_masks_come_by_area_and_number_their_instances(image):
    masks = np.zeros([60, 80, 4], np.uint8)
    masks[0:10, 0:10, 0] = 1
    masks[20:50, 20:60, 1] = 1
    masks[50:60, 0:10, 2] = 1
    figure = visualize.display_top_masks(image, masks, np.array([1, 2, 1, 0]), NAMES, limit=3)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["H x W=60x80", "dog", "cat", "-"]
    cats = np.asarray(figure.axes[2].images[0].get_array())
    assert (cats[5, 5], cats[55, 5], cats[30, 30]) == (1, 2, 0)
    assert not np.asarray(figure.axes[3].images[0].get_array()).any()
    with pytest.raises(ValueError, match=r"len\(class_ids\)=1"):
        visualize.display_top_masks(image, masks, [1], NAMES)


class TestDrawBoxes:
    def lines(self, ax):
        return [c for c in ax.collections if isinstance(c, LineCollection)]

    def test_box_lines_run_along_pixel_edges(self, image):
        figure = visualize.draw_boxes(image, np.array([[10.0, 20, 30, 50], [0, 0, 0, 0]]), title="t")
        (ax,) = figure.axes
        (lines,) = self.lines(ax)
        (corners,) = lines.get_segments()
        assert corners.min(axis=0).tolist() == [19.5, 9.5]
        assert corners.max(axis=0).tolist() == [49.5, 29.5]
        assert ax.get_title() == "t"
        assert ax.get_xlim() == (-6, 86)

    def test_refined_boxes_visibilities_and_captions(self, image, instances):
        boxes, masks, _ = instances
        boxes = np.concatenate([boxes, boxes[:1] + 5])
        masks = np.concatenate([masks, masks[..., :1]], axis=-1)
        figure = visualize.draw_boxes(
            image,
            boxes=boxes,
            refined_boxes=boxes + np.array([-2, 3, 4, 5]),
            masks=masks,
            captions=np.array(["hidden", "one", "two"]),
            visibilities=np.array([0, 1, 2]),
        )
        (ax,) = figure.axes
        plain, refined, joints = self.lines(ax)
        assert [len(group.get_segments()) for group in (plain, refined, joints)] == [3, 2, 2]
        np.testing.assert_allclose(plain.get_colors()[0], (0.5, 0.5, 0.5, 0.5))
        is_dotted = [pattern is not None for _, pattern in plain.get_linestyle()]
        assert is_dotted == [True, True, False]
        np.testing.assert_allclose(joints.get_segments()[0], [[39.5, 24.5], [42.5, 22.5]])
        assert texts(ax) == ["hidden", "one", "two"]
        # At the box, having no refined one.
        np.testing.assert_allclose(caption_box(ax, "hidden")[1:3], (5, 10), atol=0.6)
        np.testing.assert_allclose(caption_box(ax, "one")[1:3], (43, 23), atol=0.6)
        rendered(figure)

    def test_refined_boxes_alone_on_axes_of_the_caller(self, image):
        figure, ax = plt.subplots(1)
        assert visualize.draw_boxes(image, refined_boxes=[[1, 2, 30, 40]], ax=ax) is figure
        (lines,) = self.lines(ax)
        assert len(lines.get_segments()) == 1

    def test_no_boxes_show_the_image(self, image):
        figure = visualize.draw_boxes(image, boxes=np.zeros([0, 4]), masks=np.zeros([60, 80, 0]), captions=[])
        np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), image)

    def test_refuses_nothing_at_all_and_different_counts(self, image, instances):
        with pytest.raises(ValueError, match="refined_boxes"):
            visualize.draw_boxes(image)
        with pytest.raises(ValueError, match="'captions': 1"):
            visualize.draw_boxes(image, instances[0], captions=["one"])


class TestDrawRois:
    def test_counts_are_printed_and_positive_rois_have_masks(self, image, capsys):
        rois = np.array([[10, 10, 40, 40], [5, 50, 25, 70], [0, 0, 0, 0]])
        small = np.zeros([3, 28, 28], np.float32)
        small[0, :14] = 1
        small[1] = 1  # of a negative RoI: not drawn
        figure = visualize.draw_rois(image, rois, rois + 2, small, np.array([2, 0, 0]), NAMES)
        printed = capsys.readouterr().out
        assert "Positive ROIs: 1" in printed and "Negative ROIs: 2" in printed
        assert "ratio: 0.33" in printed
        (ax,) = figure.axes
        assert texts(ax) == ["dog"]
        pixels = shown_pixels(ax, image.shape)
        changed = (pixels != image).any(axis=-1)
        assert changed[11:24, 11:39].mean() > 0.95
        assert not changed[28:].any() and not changed[:, 45:].any()

    def test_at_most_limit_rois_and_rois_beyond_the_image(self, image):
        n = 30
        rois = np.tile([-10, -10, 20, 95], (n, 1))
        figure = visualize.draw_rois(
            image, rois, rois, np.ones([n, 28, 28]), np.ones([n, 1], int), NAMES, limit=4
        )
        (ax,) = figure.axes
        assert len(ax.texts) == 4
        changed = (shown_pixels(ax, image.shape) != image).any(axis=-1)
        assert changed[:19].mean() > 0.95 and not changed[22:].any()


class TestPlots:
    def test_precision_recall(self):
        figure = visualize.plot_precision_recall(0.5, [1.0, 1.0, 0.0], [0.0, 0.5, 1.0])
        (ax,) = figure.axes
        assert "AP@50 = 0.500" in ax.get_title()
        np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0, 1], [0.5, 1], [1, 0]])
        assert ax.get_xlim() == (0, 1.1) and ax.get_ylim() == (0, 1.1)

    def test_overlaps_say_match_and_wrong(self):
        overlaps = np.array([[0.9, 0.0], [0.2, 0.6]])
        padded = np.zeros([3, 2])
        padded[:2] = overlaps
        for values in (overlaps, padded):
            figure = visualize.plot_overlaps([1, 2], [1, 1, 0], [0.95, 0.5, 0], values, NAMES)
            ax = figure.axes[0]
            assert texts(ax) == ["0.900\nmatch", "0.000", "0.200", "0.600\nwrong"]
            assert [text.get_color() for text in ax.texts] == ["white", "gray", "black", "white"]
            assert [t.get_text() for t in ax.get_yticklabels()] == ["cat (0.95)", "cat (0.50)"]
            assert [t.get_text() for t in ax.get_xticklabels()] == ["cat", "dog"]
        with pytest.raises(ValueError, match=r"overlaps.shape=\(1, 2\)"):
            visualize.plot_overlaps([1, 2], [1, 1], [0.95, 0.5], overlaps[:1], NAMES)
        with pytest.raises(ValueError, match=r"each of the 2 predictions\. Received: 1"):
            visualize.plot_overlaps([1, 2], [1, 1], [0.95], overlaps, NAMES)

    def test_large_overlaps_leave_zeros_blank(self):
        overlaps = np.eye(40)
        ids = np.ones(40, int)
        figure = visualize.plot_overlaps(ids, ids, np.full(40, 0.5), overlaps, NAMES)
        assert texts(figure.axes[0]) == ["1.000\nmatch"] * 40

    def test_overlaps_without_predictions(self):
        figure = visualize.plot_overlaps([1, 2], [], [], np.zeros([0, 2]), NAMES)
        assert texts(figure.axes[0]) == []
        rendered(figure)


class TestNamesWithDollarSigns:
    r"""A name such as "$\x$" is no formula. matplotlib could not even draw it."""

    NAMES = ("BG", r"$\x$", "$5 cat$")

    def test_class_legend_and_title(self, image, instances):
        boxes, masks, ids = instances
        figure = visualize.display_instances(
            image, boxes, masks, ids, self.NAMES, title=r"$\x$.png", color_by="class"
        )
        rendered(figure)
        (ax,) = figure.axes
        assert [text.get_text() for text in ax.get_legend().get_texts()] == [r"$\x$ (1)", "$5 cat$ (1)"]
        assert texts(ax) == [r"$\x$", "$5 cat$"]

    def test_title_of_boxes(self, image, instances):
        figure = visualize.draw_boxes(image, instances[0], captions=self.NAMES[1:], title=r"RoI: $\x$")
        rendered(figure)
        assert not figure.axes[0].title.get_parse_math()

    def test_titles_of_a_grid(self, image):
        figure = visualize.display_images([image] * 2, [r"$\x$.png", "$a$"])
        rendered(figure)
        assert not any(ax.title.get_parse_math() for ax in figure.axes)

    def test_top_masks(self, image, instances):
        _, masks, ids = instances
        figure = visualize.display_top_masks(image, masks, ids, self.NAMES, limit=2)
        rendered(figure)
        assert {ax.get_title() for ax in figure.axes[1:]} == set(self.NAMES[1:])

    def test_overlaps(self):
        figure = visualize.plot_overlaps([1, 2], [1, 2], [0.9, 0.5], np.eye(2), self.NAMES)
        rendered(figure)
        (ax,) = figure.axes
        assert [label.get_text() for label in ax.get_xticklabels()] == list(self.NAMES[1:])
        assert not any(label.get_parse_math() for label in (*ax.get_xticklabels(), *ax.get_yticklabels()))


@pytest.mark.parametrize("form", ["cropped", "rle"])
class TestFormsOfMasks:
    """`detect` returns masks in three forms; all of them are drawn alike."""

    @pytest.fixture
    def forms(self, instances, form):
        boxes, masks, class_ids = instances
        crops = MaskCrops.cut(masks)
        return boxes, masks, crops if form == "cropped" else crops.run_lengths(), class_ids

    def test_instances(self, image, forms):
        boxes, masks, other, ids = forms
        expected, drawn = (
            rendered(visualize.display_instances(image, boxes, one, ids, NAMES)) for one in (masks, other)
        )
        np.testing.assert_array_equal(drawn, expected)
        expected, drawn = (
            visualize.overlay_instances(image, boxes, one, ids, NAMES) for one in (masks, other)
        )
        np.testing.assert_array_equal(drawn, expected)
        expected, drawn = (rendered(visualize.draw_boxes(image, boxes, masks=one)) for one in (masks, other))
        np.testing.assert_array_equal(drawn, expected)

    def test_top_masks(self, image, forms):
        _, masks, other, ids = forms
        expected, drawn = (
            rendered(visualize.display_top_masks(image, one, ids, NAMES)) for one in (masks, other)
        )
        np.testing.assert_array_equal(drawn, expected)

    def test_differences(self, image, forms):
        boxes, masks, other, ids = forms
        objects, scores = (boxes, ids), np.array([0.9, 0.8])
        expected, drawn = (
            rendered(visualize.display_differences(image, *objects, one, *objects, scores, one, NAMES))
            for one in (masks, other)
        )
        np.testing.assert_array_equal(drawn, expected)

    def test_no_instances(self, image, forms):
        _, _, other, ids = forms
        none = other.select(np.arange(0)) if isinstance(other, MaskCrops) else []
        visualize.display_instances(image, np.zeros((0, 4)), none, ids[:0], NAMES)
        visualize.display_top_masks(image, none, ids[:0], NAMES)

    def test_another_size(self, image, forms):
        boxes, _, other, ids = forms
        with pytest.raises(ValueError, match=r"size of the image|height and width of the image"):
            visualize.display_instances(image[:-1], boxes, other, ids, NAMES)


def test_import_needs_neither_display_nor_framework():
    code = (
        "import sys; path = list(sys.path); import mrcnn.visualize; assert path == sys.path; "
        "heavy = {'matplotlib', 'IPython', 'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
