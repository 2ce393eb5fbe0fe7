"""Generators: equal to the recordings, repeatable whatever the workers, tolerant of a few bad images."""

import logging
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import PIL.Image
import pytest
from golden_files import golden_params, load, text, unpack_bits
from toy_data import (
    ArrayDataset,
    ToyConfig,
    recorded_config,
    recorded_dataset,
    rectangles,
    toy_dataset,
)

from mrcnn.data.augmentation import AugmentationError
from mrcnn.data.batches import INPUT_DTYPES
from mrcnn.data.generator import DataGenerator, data_generator, validation_batches
from mrcnn.dataset import Dataset

INPUTS = ("images", "image_meta", "rpn_match", "rpn_bbox", "gt_class_ids", "gt_boxes", "gt_masks")


def config(**changes):
    values = ToyConfig()
    for name, value in changes.items():
        setattr(values, name, value)
    return values


def ids(inputs):
    return inputs["input_image_meta"][:, 0].astype(int).tolist()


def assert_same_batches(first, second):
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


# --- data_generator ---


@pytest.mark.parametrize("kind", ["mini", "full"])
@pytest.mark.parametrize("path", golden_params("utils_data*.npz"))
def test_batches_equal_the_recording(path, kind):
    recording = load(path)
    values = recorded_config(recording)
    values.USE_MINI_MASK = kind == "mini"
    batches = data_generator(recorded_dataset(recording), values, shuffle=False, batch_size=2)
    inputs, outputs = next(batches)
    assert outputs == []
    for name, array in zip(INPUTS, inputs, strict=True):
        prefix = f"gen_{kind}_{name}"
        assert str(array.dtype) == text(recording[f"{prefix}_dtype"])
        assert list(array.shape) == recording[f"{prefix}_shape"].tolist()
        if name == "rpn_bbox":
            filled = recording[f"{prefix}_first"]
            np.testing.assert_allclose(array[:, : filled.shape[1]], filled, rtol=1e-9, atol=1e-12)
        elif name == "gt_masks":
            difference = array != unpack_bits(recording, prefix)
            assert difference.mean() < (0.001 if kind == "mini" else 1e-12)
        elif recording[prefix].size:
            np.testing.assert_allclose(array, recording[prefix], rtol=1e-9)
    for following in ("second", "third"):
        wanted = recording[f"gen_{kind}_{following}_batch_image_ids"]
        np.testing.assert_array_equal(next(batches)[0][1][:, 0], wanted)


def test_random_rois_and_their_targets():
    values = config(TRAIN_ROIS_PER_IMAGE=12, USE_MINI_MASK=False)
    batches = data_generator(toy_dataset(2), values, random_rois=60, batch_size=2, detection_targets=True)
    inputs, outputs = next(batches)
    assert [array.shape for array in inputs[7:]] == [(2, 60, 4), (2, 12, 4)]
    assert [array.dtype for array in inputs[7:]] == [np.int32, np.int32]
    assert [a.shape for a in outputs] == [(2, 12, 1), (2, 12, 4, 4), (2, 12, 28, 28, 4)]
    class_ids, bboxes, masks = outputs
    for image, roi in zip(*np.nonzero(class_ids[..., 0]), strict=True):
        class_id = class_ids[image, roi, 0]
        assert np.flatnonzero(masks[image, roi].any(axis=(0, 1))).tolist() == [class_id]
        assert not np.delete(bboxes[image, roi], class_id, axis=0).any()
    only_rois, nothing = next(data_generator(toy_dataset(2), values, random_rois=60))
    assert (len(only_rois), nothing) == (8, [])


def test_every_pass_is_shuffled_and_complete():
    np.random.seed(0)
    batches = data_generator(toy_dataset(6), config(), batch_size=3)
    passes = [[int(i) for _ in range(2) for i in next(batches)[0][1][:, 0]] for _ in range(3)]
    assert all(sorted(order) == list(range(6)) for order in passes)
    assert len({tuple(order) for order in passes}) > 1


def test_some_sources_are_not_augmented():
    dataset = toy_dataset(2)
    dataset.image_info[1]["source"] = "plain"
    dataset.add_class("plain", 1, "other")
    dataset.prepare()
    values = config(NUM_CLASSES=5)

    def blacken(image, masks):
        return np.zeros_like(image), masks

    inputs, _ = next(
        data_generator(
            dataset,
            values,
            shuffle=False,
            batch_size=2,
            augmentation=blacken,
            no_augmentation_sources=["plain"],
        )
    )
    black = [np.ptp(image) < 30 for image in inputs[0]]  # the means of the channels differ by 20
    assert black == [True, False]
    batch = DataGenerator(
        dataset, values, shuffle=False, augmentation=blacken, no_augmentation_sources=["plain"]
    )[0][0]
    np.testing.assert_array_equal(batch["input_image"], inputs[0])
    for make in (data_generator, DataGenerator):
        with pytest.raises(
            ValueError, match=r"must be a list of sources\. Received: 'plain'\. Pass \['plain'\]"
        ):
            next(iter(make(dataset, values, augmentation=blacken, no_augmentation_sources="plain")))


def test_rpn_targets_of_images_that_are_padded_together_have_one_size():
    frames = [rectangles(0, shape=(60, 120)), rectangles(1, shape=(120, 60))]
    values = config(IMAGE_RESIZE_MODE="shortest", IMAGE_MIN_DIM=64, IMAGE_MAX_DIM=128)
    with pytest.raises(ValueError, match=r"RPN targets of a batch.*RPN_TARGETS_IN_GRAPH = True"):
        next(data_generator(ArrayDataset(frames), values, shuffle=False, batch_size=2))
    inputs, _ = next(data_generator(ArrayDataset(frames), values, shuffle=False, batch_size=1))
    assert inputs[0].shape[0] == 1


# --- DataGenerator: content ---


def test_a_batch_has_the_networks_inputs():
    values = config(RPN_TARGETS_IN_GRAPH=False)
    (batch,) = DataGenerator(toy_dataset(), values, seed=0)[1]
    shapes = {
        "input_image": (2, 128, 128, 3),
        "input_image_meta": (2, 16),
        "input_rpn_match": (2, 4092, 1),
        "input_rpn_bbox": (2, 256, 4),
        "input_gt_class_ids": (2, 10),
        "input_gt_boxes": (2, 10, 4),
        "input_gt_masks": (2, 56, 56, 10),
    }
    assert {name: array.shape for name, array in batch.items()} == shapes
    assert {name: str(array.dtype) for name, array in batch.items()} == INPUT_DTYPES
    assert (batch["input_gt_class_ids"] > 0).sum(axis=1).tolist() == [3, 3]
    assert not batch["input_gt_boxes"][:, 3:].any()
    assert not batch["input_gt_masks"][..., 3:].any()
    np.testing.assert_allclose(batch["input_image"][0, 0, 0], -np.asarray(values.MEAN_PIXEL), rtol=1e-6)
    values.RPN_TARGETS_IN_GRAPH = True
    (light,) = DataGenerator(toy_dataset(), values, seed=0)[1]
    assert batch.keys() - light.keys() == {"input_rpn_match", "input_rpn_bbox"}
    assert_same_batches([light], [{name: batch[name] for name in light}])


def test_unscaled_first_images_do_not_truncate_the_scale():
    dataset = ArrayDataset([rectangles(0, shape=(128, 128)), rectangles(1, shape=(100, 120))])
    (batch,) = DataGenerator(dataset, config(), shuffle=False)[0]
    np.testing.assert_allclose(batch["input_image_meta"][:, 11], [1, 128 / 120], rtol=1e-6)


def test_too_many_objects_are_thinned_for_the_second_stage_alone():
    dataset = ArrayDataset([rectangles(0, count=9)])
    few = config(MAX_GT_INSTANCES=4, IMAGES_PER_GPU=1, RPN_TRAIN_ANCHORS_PER_IMAGE=20_000)
    many = config(MAX_GT_INSTANCES=20, IMAGES_PER_GPU=1, RPN_TRAIN_ANCHORS_PER_IMAGE=20_000)
    (thin,) = DataGenerator(dataset, few, seed=1)[0]
    (full,) = DataGenerator(dataset, many, seed=1)[0]
    assert thin["input_gt_class_ids"].shape == (1, 16)  # doubled until all fit
    assert thin["input_gt_masks"].shape[-1] == 4
    everything = full["input_gt_boxes"][0, :9].tolist()
    assert sorted(thin["input_gt_boxes"][0, :9].tolist()) == sorted(everything)
    assert thin["input_gt_boxes"][0, :4].tolist() != everything[:4]
    for place in range(9):
        same = everything.index(thin["input_gt_boxes"][0, place].tolist())
        assert thin["input_gt_class_ids"][0, place] == full["input_gt_class_ids"][0, same]
        if place < 4:
            np.testing.assert_array_equal(
                thin["input_gt_masks"][..., place], full["input_gt_masks"][..., same]
            )
    few.RPN_TARGETS_IN_GRAPH = many.RPN_TARGETS_IN_GRAPH = False
    (thin,) = DataGenerator(dataset, few, seed=1)[0]
    (full,) = DataGenerator(dataset, many, seed=1)[0]
    assert thin["input_gt_class_ids"].shape == (1, 4)
    np.testing.assert_array_equal(thin["input_rpn_match"], full["input_rpn_match"])


def test_anchors_follow_the_real_size():
    dataset = ArrayDataset([rectangles(0, shape=(100, 180)), rectangles(1, shape=(64, 64))])
    values = config(IMAGE_RESIZE_MODE="pad64", IMAGE_MIN_DIM=64, IMAGES_PER_GPU=1, RPN_TARGETS_IN_GRAPH=False)
    generator = DataGenerator(dataset, values, shuffle=False)
    sizes = [generator[index][0]["input_rpn_match"].shape[1] for index in range(2)]
    cells = [(128 // s) * (192 // s) for s in (4, 8, 16, 32, 64)]
    assert sizes == [3 * sum(cells), 3 * sum((64 // s) ** 2 for s in (4, 8, 16, 32, 64))]
    with pytest.raises(ValueError, match=r"same size.*0: \(128, 192, 3\), 1: \(64, 64, 3\).*square"):
        DataGenerator(dataset, values, shuffle=False, batch_size=2)[0]


def test_given_anchors_are_used_for_the_nominal_size():
    anchors = np.array([[0.0, 0, 64, 64], [500, 500, 510, 510]])
    (batch,) = DataGenerator(toy_dataset(), config(RPN_TARGETS_IN_GRAPH=False), anchors=anchors)[0]
    assert batch["input_rpn_match"].shape == (2, 2, 1)


def test_a_callable_backbone_gives_its_own_levels():
    values = config(
        BACKBONE=lambda image, **kw: image,
        COMPUTE_BACKBONE_SHAPE=lambda shape: [[1, 1]] * 5,
        RPN_TARGETS_IN_GRAPH=False,
    )
    (batch,) = DataGenerator(toy_dataset(), values)[0]
    assert batch["input_rpn_match"].shape == (2, 15, 1)


# --- DataGenerator: order and repeatability ---


def test_number_of_steps():
    dataset, values = toy_dataset(7), config(STEPS_PER_EPOCH=11)
    assert len(DataGenerator(dataset, values)) == 11
    assert len(DataGenerator(dataset, values, steps=2)) == 2
    assert len(DataGenerator(dataset, values, steps="all")) == 4
    assert len(DataGenerator(dataset, values, steps=None, batch_size=7)) == 1
    assert len(DataGenerator(dataset, config(STEPS_PER_EPOCH=None))) == 4
    for wrong in (0, 1.5, "some"):
        with pytest.raises(ValueError, match=r"`steps` must be .*Received: steps="):
            DataGenerator(dataset, values, steps=wrong)


def test_shuffled_passes_go_on_across_epochs():
    generator = DataGenerator(toy_dataset(7), config(), seed=0, steps=3)
    seen = []
    for epoch in range(7):
        generator.epoch = epoch
        seen += [image for index in range(3) for image in ids(generator[index][0])]
    passes = [tuple(seen[start : start + 7]) for start in range(0, 42, 7)]
    assert all(sorted(order) == list(range(7)) for order in passes)
    assert len(set(passes)) == 6


def test_without_shuffling_every_epoch_is_the_same_full_pass():
    generator = DataGenerator(toy_dataset(5), config(), shuffle=False, steps="all")
    first = [generator[index][0] for index in range(3)]
    assert [ids(batch) for batch in first] == [[0, 1], [2, 3], [4, 0]]
    generator.epoch = 5
    assert_same_batches(first, [generator[index][0] for index in range(3)])


def augmenter():
    iaa = pytest.importorskip("imgaug.augmenters")
    return iaa.Sequential([iaa.Fliplr(0.5), iaa.Affine(rotate=(-30, 30)), iaa.Multiply((0.7, 1))])


@pytest.mark.parametrize("mode", ["square", "crop"])
def test_batches_depend_on_seed_epoch_and_index_alone(mode):
    values = config(IMAGE_RESIZE_MODE=mode, IMAGE_MIN_DIM=64, IMAGE_MAX_DIM=64)

    def make(seed=3):
        return DataGenerator(toy_dataset(), values, augmentation=augmenter(), seed=seed)

    def read(generator, workers, epoch):
        generator.epoch = epoch
        with ThreadPoolExecutor(workers) as pool:
            return [batch for (batch,) in pool.map(generator.__getitem__, range(4))]

    in_turn = [read(make(), 1, epoch) for epoch in (0, 1)]
    at_once = make()
    for epoch in (1, 0, 1):
        assert_same_batches(in_turn[epoch], read(at_once, 3, epoch))
    images = [batch["input_image"] for batch in in_turn[0]]
    assert not np.array_equal(images[0], in_turn[1][0]["input_image"])
    assert not np.array_equal(images[0], read(make(seed=4), 1, 0)[0]["input_image"])


def test_the_seed_comes_from_the_configuration_or_the_global_state():
    dataset = toy_dataset()
    assert DataGenerator(dataset, config(SEED=5)).seed == 5
    assert DataGenerator(dataset, config(SEED=5), seed=0).seed == 0
    seeds = []
    for start in (1, 1, 2):
        np.random.seed(start)
        seeds.append(DataGenerator(dataset, config()).seed)
    assert seeds[0] == seeds[1] != seeds[2]


@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_are_counted_when_they_were_complete(workers):
    generator = DataGenerator(toy_dataset(), config(), workers=workers)
    generator.on_epoch_end()  # as Keras does before training
    generator.on_epoch_begin()
    generator[0]
    generator.on_epoch_end()  # after a first look at the data
    assert generator.epoch == 0
    for _ in range(2):
        generator.on_epoch_begin()
        list(generator)
        generator.on_epoch_end()
    assert generator.epoch == 2


def test_a_generator_can_be_sent_to_another_process():
    generator = DataGenerator(toy_dataset(), config(), seed=1)
    copy = pickle.loads(pickle.dumps(generator))
    assert_same_batches(generator[2], copy[2])


class Recorder(keras.Model):
    """Sums one number per image, to see through fit what arrived."""

    def __init__(self):
        super().__init__()
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, inputs):
        return self.scale * keras.ops.mean(inputs["input_image"], axis=(1, 2, 3))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(y_pred)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_keras_gets_the_same_batches_whatever_the_workers(workers):
    values = config(STEPS_PER_EPOCH=4)
    train = DataGenerator(toy_dataset(), values, seed=0, workers=workers)
    check = DataGenerator(toy_dataset(), values, shuffle=False, steps="all", workers=workers)
    model = Recorder()
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    history = model.fit(train, validation_data=check, epochs=3, shuffle=False, verbose=0).history
    assert train.epoch == 3
    for epoch in range(3):
        train.epoch = epoch
        wanted = np.mean([train[index][0]["input_image"].mean() for index in range(4)])
        np.testing.assert_allclose(history["loss"][epoch], wanted, rtol=1e-5)
    assert len(set(history["val_loss"])) == 1


# --- DataGenerator: images that cannot be used ---


class FileDataset(Dataset):
    """Images on disk; every image has one object."""

    def load_mask(self, image_id):
        mask = np.zeros((64, 64, 1), dtype=bool)
        mask[10:40, 12:50] = True
        return mask, np.array([1])


def files(folder, count=6, broken=()):
    dataset = FileDataset()
    dataset.add_class("disk", 1, "thing")
    for index in range(count):
        path = folder / f"photo_{index}.png"
        noise = np.random.default_rng(index).integers(0, 255, (64, 64, 3)).astype(np.uint8)
        PIL.Image.fromarray(noise).save(path)
        if index in broken:
            path.write_bytes(path.read_bytes()[:2000])
        dataset.add_image("disk", index, str(path))
    dataset.prepare()
    return dataset


def test_a_broken_file_is_left_out_and_named_once(tmp_path, caplog):
    generator = DataGenerator(files(tmp_path, broken=[2]), config(NUM_CLASSES=2), shuffle=False, steps="all")
    assert generator.skipped == {}
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            seen = [ids(generator[index][0]) for index in range(3)]
    assert seen == [[0, 1], [3, 3], [4, 5]]
    assert list(generator.skipped) == [2]
    assert "photo_2.png" in generator.skipped[2]
    messages = [record.getMessage() for record in caplog.records if "Skipped" in record.message]
    assert len(messages) == 1
    assert "image id 2 (source 'disk'" in messages[0]
    assert "truncated" in messages[0]


def test_replacements_do_not_depend_on_workers(tmp_path):
    dataset = files(tmp_path, count=8, broken=[1, 5])

    def read(workers):
        generator = DataGenerator(dataset, config(NUM_CLASSES=2), seed=2, steps=8)
        with ThreadPoolExecutor(workers) as pool:
            return [batch for (batch,) in pool.map(generator.__getitem__, range(8))]

    in_turn = read(1)
    assert_same_batches(in_turn, read(3))
    seen = {image for batch in in_turn for image in ids(batch)}
    assert seen <= {0, 2, 3, 4, 6, 7}


@pytest.mark.parametrize("workers", [1, 3])
def test_too_many_broken_files_end_the_training(tmp_path, workers):
    dataset = files(tmp_path, broken=[1, 3, 5])
    generator = DataGenerator(dataset, config(NUM_CLASSES=2, MAX_IMAGE_ERRORS=2), shuffle=False, steps="all")
    with (
        pytest.raises(RuntimeError, match=r"3 images.*MAX_IMAGE_ERRORS=2") as caught,
        ThreadPoolExecutor(workers) as pool,
    ):
        list(pool.map(generator.__getitem__, range(3)))
    for index in (1, 3, 5):
        assert f"photo_{index}.png" in str(caught.value)
    batches = data_generator(dataset, generator.config, shuffle=False, batch_size=1)
    with pytest.raises(RuntimeError, match=r"3 images(.|\n)*photo_1(.|\n)*photo_3(.|\n)*photo_5"):
        for _ in range(6):
            next(batches)


def test_bad_annotations_count_as_bad_images():
    dataset = toy_dataset(4)
    image, masks, class_ids = dataset.items[1]
    dataset.items[1] = (image, masks[:50], class_ids)
    generator = DataGenerator(dataset, config(), shuffle=False, steps="all")
    assert ids(generator[0][0]) == [0, 2]
    assert "height and width" in generator.skipped[1]
    batches = data_generator(dataset, config(), shuffle=False, batch_size=3)
    assert next(batches)[0][1][:, 0].tolist() == [0, 2, 3]


def test_images_without_objects_are_replaced():
    dataset = toy_dataset(5)
    for index, crowd in ((1, False), (2, True)):
        image, masks, class_ids = dataset.items[index]
        dataset.items[index] = (
            (image, masks, -class_ids) if crowd else (image, masks[:, :, :0], class_ids[:0])
        )
    generator = DataGenerator(dataset, config(), shuffle=False, steps="all")
    assert [ids(generator[index][0]) for index in range(2)] == [[0, 3], [3, 3]]
    assert generator.skipped == {}
    batches = data_generator(dataset, config(), shuffle=False, batch_size=3)
    assert next(batches)[0][1][:, 0].tolist() == [0, 3, 4]
    shuffled = DataGenerator(dataset, config(), seed=0, steps=20)
    counts = np.bincount([i for index in range(20) for i in ids(shuffled[index][0])], minlength=5)
    assert counts[[1, 2]].tolist() == [0, 0]
    assert counts[[0, 3, 4]].min() >= 8


def without_objects(dataset, *image_ids, listed=False):
    """Take the objects of these images away; `listed` marks them as the annotation readers do."""
    for image_id in image_ids:
        image, masks, class_ids = dataset.items[image_id]
        dataset.items[image_id] = (image, masks[:, :, :0], class_ids[:0])
        dataset.image_info[image_id]["is_empty"] = listed
    return dataset


@pytest.mark.parametrize(
    ("setting", "listed", "trained"),
    [
        (None, False, [0, 3, 3, 3]),
        (None, True, [0, 1, 2, 3]),
        (True, False, [0, 1, 2, 3]),
        (False, True, [0, 3, 3, 3]),
    ],
)
@pytest.mark.parametrize("mini", [True, False])
def test_images_without_objects_train_where_they_are_wanted(setting, listed, trained, mini):
    dataset = without_objects(toy_dataset(4), 1, 2, listed=listed)
    values = config(TRAIN_ON_EMPTY_IMAGES=setting, RPN_TARGETS_IN_GRAPH=False, USE_MINI_MASK=mini)
    generator = DataGenerator(dataset, values, shuffle=False, steps="all")
    batches = [generator[index][0] for index in range(2)]
    assert [image_id for batch in batches for image_id in ids(batch)] == trained
    for batch in batches:
        for row, image_id in enumerate(ids(batch)):
            has_objects = image_id in (0, 3)
            assert (batch["input_gt_class_ids"][row] > 0).sum() == (3 if has_objects else 0)
            assert batch["input_gt_masks"][row].any() == has_objects
            assert batch["input_rpn_bbox"][row].any() == has_objects
            labels = batch["input_rpn_match"][row]
            assert (labels == 1).any() == has_objects
            assert (labels != 0).sum() == values.RPN_TRAIN_ANCHORS_PER_IMAGE
    np.random.seed(0)
    options = {"random_rois": 1000, "batch_size": 3, "detection_targets": True}
    inputs, outputs = next(data_generator(dataset, values, shuffle=False, **options))
    image_ids = inputs[1][:, 0].tolist()
    assert image_ids == ([0, 1, 2] if 1 in trained else [0, 3, 0])
    assert (outputs[0] > 0).any(axis=(1, 2)).tolist() == [image_id in (0, 3) for image_id in image_ids]


@pytest.mark.parametrize("setting", [None, True])
def test_crops_that_miss_every_object_train_only_on_request(setting):
    image, masks = np.zeros((256, 256, 3), dtype=np.uint8), np.zeros((256, 256, 1), dtype=bool)
    masks[:20, :20] = True
    dataset = ArrayDataset([(image, masks, [1])])
    values = config(IMAGE_RESIZE_MODE="crop", IMAGE_MIN_DIM=192, TRAIN_ON_EMPTY_IMAGES=setting)
    generator = DataGenerator(dataset, values, seed=0)
    counts = [(generator[index][0]["input_gt_class_ids"] > 0).sum(axis=1).tolist() for index in range(3)]
    assert min(map(min, counts)) == (0 if setting else 1)


def test_a_dataset_whose_images_are_all_listed_as_empty_is_refused_unless_it_is_asked_for():
    dataset = without_objects(toy_dataset(3), 0, 1, 2, listed=True)
    for make in (
        lambda values: DataGenerator(dataset, values)[0],
        lambda values: next(data_generator(dataset, values)),
    ):
        with pytest.raises(
            ValueError, match=r"all 3 images .* without objects.*TRAIN_ON_EMPTY_IMAGES = True"
        ):
            make(config())
        make(config(TRAIN_ON_EMPTY_IMAGES=True))


@pytest.mark.parametrize("mode", ["square", "crop"])
def test_a_dataset_without_objects_ends_with_an_error(mode):
    image, masks, _ = rectangles(0)
    dataset = ArrayDataset([(image, masks[:, :, :0], [])] * 3)
    values = config(IMAGE_RESIZE_MODE=mode, IMAGE_MIN_DIM=64)
    with pytest.raises(ValueError, match="None of the dataset's 3 images has an object"):
        DataGenerator(dataset, values)[0]
    with pytest.raises(ValueError, match="None of the dataset's 3 images has an object"):
        next(data_generator(dataset, values))


def test_only_broken_images_end_with_their_names(tmp_path):
    dataset = files(tmp_path, count=2, broken=[0, 1])
    with pytest.raises(ValueError, match=r"None of(.|\n)*photo_0(.|\n)*photo_1"):
        DataGenerator(dataset, config(NUM_CLASSES=2), shuffle=False)[0]


def test_a_crop_may_miss_the_only_object_for_a_while():
    image = np.zeros((256, 256, 3), dtype=np.uint8)
    masks = np.zeros((256, 256, 1), dtype=bool)
    masks[:20, :20] = True
    dataset = ArrayDataset([(image, masks, [1])])
    values = config(IMAGE_RESIZE_MODE="crop", IMAGE_MIN_DIM=192)
    batches = [DataGenerator(dataset, values, seed=0)[index][0] for index in range(3)]
    assert all((batch["input_gt_class_ids"][:, 0] == 1).all() for batch in batches)


def test_images_that_do_not_fit_the_pyramid_are_named():
    dataset = ArrayDataset([rectangles(0, shape=(128, 128)), rectangles(1, shape=(100, 128))])
    values = config(IMAGE_RESIZE_MODE="none")
    generator = DataGenerator(dataset, values, shuffle=False)
    assert ids(generator[0][0]) == [0, 0]
    assert "multiples of 64. Received: 100 x 128" in generator.skipped[1]


def test_a_wrong_augmentation_is_not_blamed_on_the_images():
    def shrink(image, masks):
        return image[:-2], masks[:-2]

    generator = DataGenerator(toy_dataset(), config(), augmentation=shrink)
    with pytest.raises(AugmentationError, match="shrink must not change the shape"):
        generator[0]
    assert generator.skipped == {}


def test_wrong_datasets_are_refused_at_once():
    with pytest.raises(ValueError, match=r"NUM_CLASSES must be 4.*NUM_CLASSES=9.*class 3"):
        DataGenerator(toy_dataset(), config(NUM_CLASSES=9))
    unprepared = Dataset()
    unprepared.add_image("fix", 0, None)
    with pytest.raises(RuntimeError, match=r"call prepare\(\)"):
        DataGenerator(unprepared, config())
    with pytest.raises(ValueError, match="no images"):
        DataGenerator(ArrayDataset([]), config())
    with pytest.raises(ValueError, match=r"prepare\(\)"):
        next(data_generator(unprepared, config()))


def test_failures_are_counted_once_by_many_threads(tmp_path):
    dataset = files(tmp_path, count=2, broken=[1])
    generator = DataGenerator(dataset, config(NUM_CLASSES=2, MAX_IMAGE_ERRORS=1), shuffle=False)
    barrier = threading.Barrier(4)

    def read(index):
        barrier.wait()
        return generator[index]

    with ThreadPoolExecutor(4) as pool:
        batches = list(pool.map(read, range(4)))
    assert all(ids(batch) == [0, 0] for (batch,) in batches)
    assert list(generator.skipped) == [1]


class TestValidation:
    """What is wrong with the validation dataset, not with that for training."""

    def batches(self, dataset, **settings):
        return validation_batches(dataset, toy_dataset(), config(**settings), seed=0)

    def test_the_batches_are_the_same_in_every_epoch(self):
        batches = self.batches(toy_dataset(3), IMAGES_PER_GPU=1, VALIDATION_STEPS=2)
        first = [batches[index][0]["input_image"] for index in range(len(batches))]
        batches.on_epoch_end()
        assert len(first) == 2
        for index, images in enumerate(first):
            np.testing.assert_array_equal(batches[index][0]["input_image"], images)

    def test_another_number_of_classes(self):
        with pytest.raises(ValueError, match=r"The validation dataset does not fit\. NUM_CLASSES must be 4"):
            self.batches(toy_dataset(), NUM_CLASSES=9)

    def test_no_images(self):
        with pytest.raises(ValueError, match=r"validation dataset does not fit\. The dataset has no images"):
            self.batches(ArrayDataset([]))

    def test_other_names_for_the_same_ids(self):
        other = toy_dataset()
        names = [info["name"] for info in other.class_info]
        for info, name in zip(other.class_info[1:], reversed(names[1:]), strict=True):
            info["name"] = name
        other.prepare()
        with pytest.warns(UserWarning, match="differ from those of the training dataset.*class 3.*class 1"):
            self.batches(other)

    def test_names_that_differ_after_a_comma(self):
        other = toy_dataset()
        train = toy_dataset()
        train.class_info[1]["name"], other.class_info[1]["name"] = "stone, round", "stone, flat"
        for dataset in (other, train):
            dataset.prepare()
        with pytest.warns(UserWarning, match="'stone, flat'.*'stone, round'"):
            validation_batches(other, train, config(), seed=0)
