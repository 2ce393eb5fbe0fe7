import numpy as np
import pytest

from mrcnn.drawing.colors import class_colors
from mrcnn.visualize import overlays

NAMES = ["BG", "cat", "dog"]
RED, BLUE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(40, 200, (60, 80, 3), dtype=np.uint8)


@pytest.fixture
def instances():
    """Boxes, masks and ids of a rectangle and of a ring (a mask with a hole)."""
    masks = np.zeros([60, 80, 2], bool)
    masks[10:30, 5:35, 0] = True
    y, x = np.mgrid[:60, :80]
    distance = np.hypot(y - 40, x - 60)
    masks[..., 1] = (distance < 14) & (distance > 6)
    return np.array([[10, 5, 30, 35], [27, 47, 54, 74]]), masks, np.array([1, 2])


class TestToRgb:
    def test_color_bytes_are_copied(self, image):
        out = overlays.to_rgb(image)
        np.testing.assert_array_equal(out, image)
        assert not np.shares_memory(out, image)

    def test_gray_alpha_and_extra_channels(self, image):
        gray = image[..., 0]
        expected = np.stack([gray] * 3, axis=-1)
        for same in (gray, gray[..., None], np.stack([gray, np.full_like(gray, 255)], axis=-1)):
            np.testing.assert_array_equal(overlays.to_rgb(same), expected)
        np.testing.assert_array_equal(overlays.to_rgb(np.dstack([image, 255 - gray])), image)

    def test_floats_of_either_range_look_the_same(self, image):
        np.testing.assert_array_equal(overlays.to_rgb(image / 255.0), image)
        np.testing.assert_array_equal(overlays.to_rgb(image.astype(np.float32)), image)
        np.testing.assert_array_equal(overlays.to_rgb(image.astype(np.int64)), image)

    def test_sixteen_bits_span_up_to_the_maximum(self):
        values = np.array([[0, 1000, 2000, 4000]], np.uint16)
        np.testing.assert_array_equal(overlays.to_rgb(values)[0, :, 0], [0, 64, 128, 255])
        dark = np.array([[0, 100, 255]], np.uint16)
        np.testing.assert_array_equal(overlays.to_rgb(dark)[0, :, 0], [0, 100, 255])

    def test_negative_values_are_stretched_and_overshoot_is_clipped(self):
        without_mean = np.array([[-100.0, 0.0, 100.0]])
        np.testing.assert_array_equal(overlays.to_rgb(without_mean)[0, :, 0], [0, 128, 255])
        resized = np.array([[-0.01, 0.5, 1.02]])
        np.testing.assert_array_equal(overlays.to_rgb(resized)[0, :, 0], [0, 128, 255])

    def test_bool_and_not_a_number(self):
        np.testing.assert_array_equal(overlays.to_rgb(np.eye(2, dtype=bool))[..., 1], np.eye(2) * 255)
        np.testing.assert_array_equal(overlays.to_rgb(np.array([[np.nan, 1.0]]))[0, :, 0], [0, 255])

    @pytest.mark.parametrize("shape", [(4,), (2, 4, 4, 3), (4, 4, 0)])
    def test_refuses_other_shapes(self, shape):
        with pytest.raises(ValueError, match=r"Received: image\.shape="):
            overlays.to_rgb(np.zeros(shape))


class TestApplyMask:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.float32])
    def test_blends_in_place_as_a_plain_loop_does(self, image, instances, dtype):
        mask = instances[1][..., 1]
        color, alpha = (0.2, 0.9, 0.55), 0.3
        expected = image.astype(dtype)
        for y, x in np.argwhere(mask):
            for c in range(3):
                expected[y, x, c] = image[y, x, c] * (1 - alpha) + alpha * color[c] * 255
        blended = image.astype(dtype)
        assert overlays.apply_mask(blended, mask, color, alpha) is blended
        np.testing.assert_allclose(blended, expected, rtol=1e-6)

    @pytest.mark.parametrize("make", [np.uint8, lambda m: m * np.uint8(255), np.float32, np.int64])
    def test_mask_types(self, image, instances, make):
        mask = instances[1][..., 1]
        expected = overlays.apply_mask(image.copy(), mask, RED)
        np.testing.assert_array_equal(overlays.apply_mask(image.copy(), make(mask), RED), expected)

    def test_a_fourth_channel_is_left_alone(self, image):
        rgba = np.dstack([image, image[..., 0]])
        overlays.apply_mask(rgba, np.ones([60, 80], bool), RED)
        np.testing.assert_array_equal(rgba[..., 3], image[..., 0])
        assert (rgba[..., 0] >= 127).all()

    def test_refuses_gray_images_and_other_sizes(self, image):
        with pytest.raises(ValueError, match=r"image\.shape"):
            overlays.apply_mask(image[..., 0].copy(), np.ones([60, 80]), RED)
        with pytest.raises(ValueError, match=r"mask\.shape"):
            overlays.apply_mask(image.copy(), np.ones([56, 56]), RED)


def draw_box_oracle(image, box, color):
    y1, x1, y2, x2 = box
    out = image.copy()
    pixels = [(y + k, x) for y in (y1, y2) for k in (0, 1) for x in range(x1, x2)]
    pixels += [(y, x + k) for x in (x1, x2) for k in (0, 1) for y in range(y1, y2)]
    for y, x in pixels:
        if 0 <= y < out.shape[0] and 0 <= x < out.shape[1]:
            out[y, x] = color
    return out


@pytest.mark.parametrize(
    "box",
    [
        (5, 6, 20, 30),
        (0, 0, 60, 80),
        (59, 79, 60, 80),
        (-5, -1, 10, 12),
        (50, 70, 65, 90),
        (-9, -9, -4, -3),
        (70, 90, 75, 95),
    ],
)
def test_draw_box_paints_two_pixels_and_never_wraps(image, box):
    painted = image.copy()
    assert overlays.draw_box(painted, np.array(box, np.float32), (255, 0, 9)) is painted
    np.testing.assert_array_equal(painted, draw_box_oracle(image, box, (255, 0, 9)))


class TestOverlay:
    def test_pixels_change_inside_the_mask_only_and_the_input_never(self, image, instances):
        boxes, masks, ids = instances
        before = image.copy()
        out = overlays.overlay_instances(
            image, boxes, masks, ids, NAMES, colors=[RED, BLUE], show_bbox=False, show_caption=False
        )
        np.testing.assert_array_equal(image, before)
        assert out.shape == (60, 80, 3) and out.dtype == np.uint8
        outside = ~masks.any(axis=-1)
        np.testing.assert_array_equal(out[outside], image[outside])
        assert (out[~outside] != image[~outside]).any(axis=-1).mean() > 0.95
        # Inside the outline: half image, half red.
        np.testing.assert_array_equal(out[20, 20], (image[20, 20] * 0.5 + (127.5, 0, 0)).astype(int))

    def test_outline_is_the_border_of_the_mask_and_of_its_hole(self, image, instances):
        boxes, masks, ids = instances
        out = overlays.overlay_instances(
            image,
            boxes[1:],
            masks[..., 1:],
            ids[1:],
            NAMES,
            colors=[RED],
            show_mask=False,
            show_bbox=False,
            show_caption=False,
        )
        red = (out == (255, 0, 0)).all(axis=-1)
        ring = np.pad(masks[..., 1], 1)
        inner = ring[:-2, 1:-1] & ring[2:, 1:-1] & ring[1:-1, :-2] & ring[1:-1, 2:]
        has_outside_neighbour = masks[..., 1] & ~inner
        np.testing.assert_array_equal(red, has_outside_neighbour)
        np.testing.assert_array_equal(out[~red], image[~red])

    def test_box_is_dashed_just_inside_its_edges(self, image):
        out = overlays.overlay_instances(
            image, [[10, 20, 40, 60]], None, [1], NAMES, colors=[RED], show_caption=False
        )
        changed = (out != image).any(axis=-1)
        rows, columns = np.nonzero(changed)
        assert (rows.min(), columns.min(), rows.max(), columns.max()) == (10, 20, 39, 59)
        assert not changed[11:39, 21:59].any()
        assert 0.4 < changed[10, 20:60].mean() < 0.6

    @pytest.mark.parametrize("dtype", [np.int32, np.uint16, np.float32])
    def test_array_types_do_not_matter(self, image, instances, dtype):
        boxes, masks, ids = instances
        expected = overlays.overlay_instances(image, boxes, masks, ids, NAMES, [0.5, 0.25])
        out = overlays.overlay_instances(
            image,
            boxes.astype(dtype),
            masks.astype(dtype),
            ids.astype(np.int8),
            tuple(NAMES),
            np.array([0.5, 0.25], np.float32),
        )
        np.testing.assert_array_equal(out, expected)

    def test_caption_contrasts_with_its_patch(self, image):
        boxes = np.array([[30, 10, 55, 60]])
        for color, ink in (((1.0, 1.0, 0.0), 0), ((0.0, 0.0, 0.6), 255)):
            out = overlays.overlay_instances(
                image, boxes, None, [1], NAMES, [0.0], colors=[color], show_bbox=False
            )
            changed = (out != image).any(axis=-1)
            rows, columns = np.nonzero(changed)
            assert rows.max() < 30 and columns.min() == 10
            patch = out[rows.min() : 30, 10 : columns.max() + 1]
            background = np.round(np.array(color) * 255)
            assert (patch == background).all(axis=-1).mean() > 0.3
            assert np.abs(patch.astype(int) - ink).sum(axis=-1).min() < 60

    def test_rows_of_zeros_are_skipped(self, image, instances):
        boxes, masks, ids = instances
        padded = np.concatenate([boxes, np.zeros([1, 4], int)])
        extra = np.concatenate([masks, np.ones([60, 80, 1], bool)], axis=-1)
        out = overlays.overlay_instances(image, padded, extra, [*ids, 0], NAMES)
        expected = overlays.overlay_instances(image, boxes, masks, ids, NAMES)
        np.testing.assert_array_equal(out, expected)

    def test_small_masks_lie_on_large_ones_whatever_their_order(self, image):
        masks = np.zeros([60, 80, 2], bool)
        masks[20:30, 20:30, 0] = True
        masks[5:55, 5:75, 1] = True
        boxes = np.array([[20, 20, 30, 30], [5, 5, 55, 75]])
        options = {"show_bbox": False, "show_caption": False, "alpha": 1.0}
        out = overlays.overlay_instances(image, boxes, masks, [1, 2], NAMES, colors=[RED, BLUE], **options)
        np.testing.assert_array_equal(out[25, 25], (255, 0, 0))
        np.testing.assert_array_equal(out[40, 40], (0, 0, 255))

    def test_scale_magnifies_image_and_masks_alike(self, image, instances):
        boxes, masks, ids = instances
        options = {"show_bbox": False, "show_caption": False, "show_outline": False}
        small = overlays.overlay_instances(image, boxes, masks, ids, NAMES, **options)
        large = overlays.overlay_instances(image, boxes, masks, ids, NAMES, scale=3, **options)
        np.testing.assert_array_equal(large, np.kron(small, np.ones([3, 3, 1], np.uint8)))

    def test_no_instances_give_the_plain_image(self, image):
        for boxes, masks in (
            (np.zeros([0, 4]), np.zeros([60, 80, 0])),
            ([], None),
            (np.zeros([0, 4], np.int32), np.zeros([0, 0, 0])),
        ):
            out = overlays.overlay_instances(image, boxes, masks, [], NAMES)
            np.testing.assert_array_equal(out, image)

    def test_boxes_beyond_the_image_and_empty_masks_are_harmless(self, image):
        boxes = np.array([[-20, -30, 100, 200], [100, 100, 140, 140], [-9, -9, -2, -2]])
        out = overlays.overlay_instances(image, boxes, np.zeros([60, 80, 3]), [1, 1, 2], NAMES)
        np.testing.assert_array_equal(out[30, 40], image[30, 40])

    def test_counts_and_sizes_must_agree(self, image, instances):
        boxes, masks, ids = instances
        with pytest.raises(ValueError, match="boxes=2, masks=1, class_ids=2"):
            overlays.overlay_instances(image, boxes, masks[..., :1], ids, NAMES)
        with pytest.raises(ValueError, match="expand_mask"):
            overlays.overlay_instances(image, boxes, masks[:56, :56], ids, NAMES)
        with pytest.raises(ValueError, match=r"boxes.shape=\(4,\)"):
            overlays.overlay_instances(image, boxes[0], masks[..., 0], ids[:1], NAMES)


class TestColorBy:
    def test_class_colors_and_a_legend_of_the_classes(self):
        image = np.full([200, 300, 3], 50, np.uint8)
        boxes = np.array([[100, 5, 120, 15], [100, 20, 120, 30], [100, 60, 120, 70]])
        masks = np.zeros([200, 300, 3], bool)
        for i, (y1, x1, y2, x2) in enumerate(boxes):
            masks[y1:y2, x1:x2, i] = True
        options = {"show_bbox": False, "show_outline": False, "show_caption": False, "alpha": 1.0}
        out = overlays.overlay_instances(image, boxes, masks, [2, 1, 2], NAMES, color_by="class", **options)
        of_class = np.rint(255 * class_colors([1, 2])).astype(int)
        for x, number in ((10, 2), (25, 1), (65, 2)):
            np.testing.assert_allclose(out[110, x], of_class[number - 1], atol=1)
        legend = out[:60, :24].reshape(-1, 3).tolist()
        assert of_class[0].tolist() in legend and of_class[1].tolist() in legend
        assert (out[:60, :80] != image[:60, :80]).all(axis=-1).mean() > 0.3
        np.testing.assert_array_equal(out[:, 200:], image[:, 200:])

    def test_colors_of_the_caller_win(self, image, instances):
        colors = overlays.choose_colors([RED, BLUE], np.array([1, 1]), "class")
        np.testing.assert_array_equal(colors, [RED, BLUE])

    def test_other_words_raise(self, image, instances):
        with pytest.raises(ValueError, match="color_by='score'"):
            overlays.overlay_instances(image, *instances, NAMES, color_by="score")
