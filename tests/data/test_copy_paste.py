"""Copy-paste and large-scale jitter: pixels, masks, occlusion, and what a training batch holds."""

import numpy as np
import pytest

from mrcnn.config import Config
from mrcnn.data.augmentation import AugmentationError
from mrcnn.data.augmentation_policies import scale_jitter
from mrcnn.data.copy_paste import CopyPaste, paste
from mrcnn.data.generator import DataGenerator
from mrcnn.data.image_changes import scale_and_move
from mrcnn.data.loading import load_image_gt
from mrcnn.dataset import Dataset


def rectangle(shape, y1, x1, y2, x2):
    mask = np.zeros(shape, dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


def shown(color, *boxes, class_ids=None, shape=(20, 20)):
    masks = np.stack([rectangle(shape, *box) for box in boxes], axis=-1)
    ids = np.array(class_ids or [1] * len(boxes), dtype=np.int32)
    return np.full((*shape, 3), color, dtype=np.uint8), masks, ids


class AllOf:
    """Draws that choose every object."""

    def random(self, size):
        return np.zeros(size)


class TestPaste:
    def test_pixels_and_masks_of_a_pasted_object(self):
        target = shown(10, (0, 0, 10, 10))
        source = shown(200, (5, 5, 15, 15), class_ids=[2])
        image, masks, class_ids = paste(target, source, AllOf())
        pasted = rectangle((20, 20), 5, 5, 15, 15)
        assert (image[pasted] == 200).all()
        assert (image[~pasted] == 10).all()
        np.testing.assert_array_equal(masks[..., 0], rectangle((20, 20), 0, 0, 10, 10) & ~pasted)
        np.testing.assert_array_equal(masks[..., 1], pasted)
        assert class_ids.tolist() == [1, 2]

    def test_no_pixel_belongs_to_two_objects(self):
        rng = np.random.default_rng(0)
        target = shown(10, *((y, x, y + 4, x + 4) for y in range(0, 20, 5) for x in range(0, 20, 5)))
        source = shown(200, *((y, x, y + 3, x + 3) for y in range(1, 16, 4) for x in range(1, 16, 4)))
        _, masks, class_ids = paste(target, source, rng)
        assert masks.shape[2] == len(class_ids)
        assert masks.sum(axis=2).max() == 1

    def test_a_covered_object_is_dropped(self):
        target = shown(10, (0, 0, 10, 10), (12, 12, 18, 18))
        _, masks, class_ids = paste(target, shown(200, (0, 0, 10, 9), class_ids=[2]), AllOf())
        assert class_ids.tolist() == [1, 1, 2]  # one tenth is visible
        _, masks, class_ids = paste(target, shown(200, (0, 0, 10, 10), class_ids=[2]), AllOf())
        assert class_ids.tolist() == [1, 2]
        np.testing.assert_array_equal(masks[..., 0], target[1][..., 1])

    def test_the_originals_are_not_changed(self):
        target, source = shown(10, (0, 0, 10, 10)), shown(200, (5, 5, 15, 15))
        before = [array.copy() for array in (*target, *source)]
        paste(target, source, AllOf())
        for was, array in zip(before, (*target, *source), strict=True):
            np.testing.assert_array_equal(was, array)

    def test_crowds_are_not_pasted(self):
        target = shown(10, (0, 0, 10, 10))
        assert paste(target, shown(200, (5, 5, 15, 15), class_ids=[-1]), AllOf()) is target

    def test_half_of_the_objects_are_chosen(self):
        rng = np.random.default_rng(1)
        source = shown(200, *((0, x, 1, x + 1) for x in range(20)))
        counts = [paste(shown(10, (5, 5, 9, 9)), source, rng)[1].shape[2] - 1 for _ in range(100)]
        assert 9 < np.mean(counts) < 11
        assert min(counts) < 8 < 12 < max(counts)


class TestScaleAndMove:
    def image(self):
        image, masks, _ = shown(10, (8, 8, 12, 12))
        image[8:12, 8:12] = 200
        return image, masks

    @pytest.mark.parametrize(
        ("factor", "position", "box"),
        [
            (1, (0.3, 0.8), (8, 8, 12, 12)),
            (2, (0.5, 0.5), (6, 6, 14, 14)),
            (2, (0, 0), (16, 16, 20, 20)),
            (0.5, (0, 0), (4, 4, 6, 6)),
            (0.5, (1, 1), (14, 14, 16, 16)),
            (0.5, (0, 1), (4, 14, 6, 16)),
        ],
    )
    def test_image_and_masks_move_together(self, factor, position, box):
        image, masks = scale_and_move(*self.image(), factor, position)
        expected = rectangle((20, 20), *box)
        np.testing.assert_array_equal(masks[..., 0], expected)
        assert image.shape == (20, 20, 3)
        # The border of the object is blurred by bilinear sampling.
        y1, x1, y2, x2 = box
        inner = image[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1] if factor >= 1 else image[y1:y2, x1:x2]
        assert (inner > 150).all()

    def test_the_outside_has_the_mean_color(self):
        image, masks = self.image()
        mean = int(image.mean())
        small, _ = scale_and_move(image, masks, 0.5, (0, 0))
        assert (small[10:] == mean).all()
        assert (small[:, 10:] == mean).all()

    def test_floats_and_many_channels(self):
        rng = np.random.default_rng(0)
        image = rng.random((11, 17, 6)).astype(np.float32)
        out, masks = scale_and_move(image, np.ones((11, 17, 2), bool), 0.3, (0.5, 0.5))
        assert out.shape == image.shape
        assert out.dtype == np.float32
        assert masks.any(axis=(0, 1)).all()

    def test_draws_cover_the_range(self):
        rng = np.random.default_rng(0)
        jitter = scale_jitter(0.25, 4)
        areas = [jitter(*self.image(), rng)[1].sum() for _ in range(200)]
        assert min(areas) <= 4  # smaller than a quarter of its 16 pixels
        assert max(areas) > 100

    @pytest.mark.parametrize("bounds", [(2, 1), (0, 1), (0.1, 1000), (float("nan"), 1)])
    def test_bad_ranges(self, bounds):
        with pytest.raises(ValueError, match="must be a range within"):
            scale_jitter(*bounds)


class Squares(Dataset):
    """Image i has the color 20 * i and one object of the class i + 1 and color 20 * i + 100."""

    def __init__(self, sources=("squares",) * 3, shapes=((32, 32),) * 3):
        super().__init__()
        for source in set(sources):
            for number in range(1, 4):
                self.add_class(source, number, f"class {number}")
        for index, (source, shape) in enumerate(zip(sources, shapes, strict=True)):
            self.add_image(source, index, path=None, shape=shape)
        self.prepare()

    def load_image(self, image_id):
        shape = self.image_info[image_id]["shape"]
        image = np.full((*shape, 3), 20 * image_id, dtype=np.uint8)
        image[self.box(image_id)] += 100
        return image

    def box(self, image_id):
        return slice(10 * image_id, 10 * image_id + 8), slice(10 * image_id, 10 * image_id + 8)

    def load_mask(self, image_id):
        mask = np.zeros((*self.image_info[image_id]["shape"], 1), dtype=bool)
        mask[self.box(image_id)] = True
        name = f"{self.image_info[image_id]['source']}.{image_id + 1}"
        return mask, np.array([self.map_source_class_id(name)])


class SquaresConfig(Config):
    NAME = "squares"
    NUM_CLASSES = 4
    IMAGE_MIN_DIM = IMAGE_MAX_DIM = 64
    IMAGE_RESIZE_MODE = "none"
    BACKBONE = "mobilenetv2"


class LoaderConfig(SquaresConfig):
    IMAGE_RESIZE_MODE = "square"
    IMAGES_PER_GPU = 2


def loaded(dataset, augmentation, image_id=0, seeds=range(20)):
    config = SquaresConfig()
    return [
        load_image_gt(dataset, config, image_id, augmentation=augmentation, rng=np.random.default_rng(seed))
        for seed in seeds
    ]


class TestLoading:
    def test_objects_of_other_images_come_with_their_class(self):
        seen = set()
        for image, _, class_ids, boxes, masks in loaded(Squares(), CopyPaste(1.0)):
            assert class_ids[0] == 1
            for class_id, box, mask in zip(class_ids, boxes, np.moveaxis(masks, 2, 0), strict=True):
                seen.add(int(class_id))
                assert (image[mask] == 20 * (class_id - 1) + 100).all()
                y1, x1, y2, x2 = box
                assert mask[y1:y2, x1:x2].all()
        assert seen == {1, 2, 3}

    def test_probability(self):
        counts = [len(truth.class_ids) for truth in loaded(Squares(), CopyPaste(0.0))]
        assert counts == [1] * 20
        dataset = Squares()
        counts = [len(truth.class_ids) for truth in loaded(dataset, CopyPaste(0.5), seeds=range(200))]
        assert 30 < sum(count == 2 for count in counts) < 70  # a half of the images, a half of the objects

    def test_draws_repeat(self):
        for first, second in zip(*(loaded(Squares(), CopyPaste(1.0)) for _ in range(2)), strict=True):
            np.testing.assert_array_equal(first.image, second.image)

    def test_the_other_image_goes_through_the_augmentations_before(self):
        def invert(image, masks):
            return 255 - image, masks

        truths = loaded(Squares(), [invert, CopyPaste(1.0)])
        assert any(len(truth.class_ids) == 2 for truth in truths)
        for image, _, class_ids, _, masks in truths:
            for class_id, mask in zip(class_ids, np.moveaxis(masks, 2, 0), strict=True):
                assert (image[mask] == 255 - (20 * (class_id - 1) + 100)).all()

    def test_only_images_of_the_same_source(self):
        dataset = Squares(sources=("a", "b", "b"))
        assert all(len(truth.class_ids) == 1 for truth in loaded(dataset, CopyPaste(1.0)))

    def test_only_images_with_the_same_entry(self):
        dataset = Squares()
        for info, stain in zip(dataset.image_info, ("blue", "pink", "blue"), strict=True):
            info["stain"] = stain
        seen = {int(n) for truth in loaded(dataset, CopyPaste(1.0, same="stain")) for n in truth.class_ids}
        assert seen == {1, 3}

    def test_images_without_the_entry_get_no_objects(self):
        dataset = Squares()
        dataset.image_info[1]["stain"] = dataset.image_info[2]["stain"] = "blue"
        pasting = CopyPaste(1.0, same="stain")
        assert {len(truth.class_ids) for truth in loaded(dataset, pasting, image_id=0)} == {1}
        assert {len(truth.class_ids) for truth in loaded(dataset, pasting, image_id=1)} == {1, 2}

    def test_an_entry_that_no_image_has(self):
        dataset = Squares()
        for info in dataset.image_info:
            info["stain"], info["light"] = "blue", None
        for name in ("stian", "light"):
            message = rf"No image .*CopyPaste\(same='{name}'\).*'source', 'stain'\]. Correct the name, or set"
            with pytest.raises(AugmentationError, match=message):
                loaded(dataset, CopyPaste(1.0, same=name))
            with pytest.raises(AugmentationError, match=message):
                DataGenerator(dataset, LoaderConfig(), augmentation=[scale_jitter(), CopyPaste(0.1, name)])
        DataGenerator(dataset, LoaderConfig(), augmentation=CopyPaste(same="stain"))

    def test_images_of_other_shapes_are_not_pasted(self):
        dataset = Squares(shapes=((32, 32), (40, 40), (40, 40)))
        assert all(len(truth.class_ids) == 1 for truth in loaded(dataset, CopyPaste(1.0)))

    def test_an_image_that_cannot_be_loaded_is_not_pasted(self):
        class Broken(Squares):
            def load_mask(self, image_id):
                if image_id:
                    raise OSError("damaged")
                return super().load_mask(image_id)

        assert all(len(truth.class_ids) == 1 for truth in loaded(Broken(), CopyPaste(1.0)))

    def test_a_batch_for_training(self):
        dataset = Squares()
        augmentation = [scale_jitter(0.5, 2), CopyPaste(1.0)]
        with DataGenerator(
            dataset, LoaderConfig(), augmentation=augmentation, steps=20, seed=0, workers=0
        ) as batches:
            counts = [(batches[index][0]["input_gt_class_ids"] > 0).sum() for index in range(20)]
        assert 2 <= max(counts) <= 4
        assert len(set(counts)) > 1

    def test_bad_probability(self):
        with pytest.raises(ValueError, match=r"`probability` must be a number from 0 to 1\. Received"):
            CopyPaste(1.5)

    def test_same_is_a_name(self):
        with pytest.raises(
            ValueError, match=r"`same` must be the name of an entry.*Received: same=\['stain'\]"
        ):
            CopyPaste(same=["stain"])
