"""The detector: how often it compiles, and that it follows weights and settings."""

import json
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from pycocotools import mask as run_lengths
from tiny_model import TinyConfig, vary_masks

from mrcnn import backend
from mrcnn.geometry import boxes
from mrcnn.inference import detector
from mrcnn.inference.detector import MASK_SLOTS, padded_slot_count, update_layer_settings
from mrcnn.model import MaskRCNN
from mrcnn.network import detections
from mrcnn.network.roi_convolution import Conv2D as RoiConv2D

RUNS_EAGERLY = keras.backend.backend() == "torch"

pytestmark = pytest.mark.usefixtures("eager_tensorflow")


class OpenConfig(TinyConfig):
    """Images of 64 x 128 and 128 x 64 as well."""

    IMAGE_RESIZE_MODE = "pad64"
    IMAGE_MIN_DIM = 64
    IMAGE_MAX_DIM = 128
    GPU_COUNT = IMAGES_PER_GPU = 1


def images(*shapes):
    rng = np.random.default_rng(5)
    return [rng.integers(0, 255, (*shape, 3)).astype(np.uint8) for shape in shapes]


def build(folder, **settings):
    """A model of random weights with masks worth comparing."""
    keras.utils.set_random_seed(8)
    config = OpenConfig()
    for name, value in settings.items():
        setattr(config, name, value)
    return vary_masks(MaskRCNN("inference", config, folder))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build(tmp_path_factory.mktemp("logs"))


@pytest.fixture
def compilations(monkeypatch):
    """Counts how often the graph up to the detections and that of the masks are compiled."""
    counts = {"detections": 0, "masks": 0}
    refine, select_channel = detections.refine_detections, RoiConv2D.select_channel

    def counting_refine(*inputs, **options):
        counts["detections"] += not isinstance(inputs[0], keras.KerasTensor)
        return refine(*inputs, **options)

    def counting_select_channel(self, *inputs):
        counts["masks"] += 1
        return select_channel(self, *inputs)

    monkeypatch.setattr(detections, "refine_detections", counting_refine)
    monkeypatch.setattr(RoiConv2D, "select_channel", counting_select_channel)
    return counts


@pytest.mark.skipif(RUNS_EAGERLY, reason="torch runs without compiling")
@pytest.mark.usefixtures("compiled_test")
def test_one_molded_size_compiles_once(tmp_path, compilations):
    model = build(tmp_path)
    assert len(model.detect(images((64, 64)))[0]["scores"])
    first = dict(compilations)
    assert min(first.values()) > 0
    model.detect(images((50, 50), (21, 21), (63, 63)))
    assert compilations["detections"] == first["detections"]
    if backend.sizes_may_vary():  # otherwise the numbers of masks are steps, which compile
        assert compilations == first
    assert len(model.detect(images((64, 128)))[0]["scores"])
    if backend.sizes_may_vary():  # one compilation serves all sizes and numbers
        assert compilations == first
    else:
        assert compilations["detections"] == 2 * first["detections"]


@pytest.mark.skipif(RUNS_EAGERLY, reason="torch runs without compiling")
@pytest.mark.usefixtures("compiled_test")
def test_few_sizes_compile_if_images_are_padded_to_them(tmp_path, compilations):
    model = build(tmp_path)
    model.config.PAD_TO_FEW_SIZES = True
    model.detect(images((64, 64)))
    first = compilations["detections"]
    for shape in ((64, 128), (128, 64)):
        model.detect(images(shape))
    assert compilations["detections"] == first  # all are padded to one size, or all sizes are one


@pytest.mark.skipif(RUNS_EAGERLY, reason="torch runs without compiling")
@pytest.mark.usefixtures("compiled_test")
def test_only_the_sizes_used_last_stay_compiled(tmp_path, compilations, monkeypatch):
    monkeypatch.setattr(backend, "sizes_may_vary", lambda choice=None: False)
    monkeypatch.setattr(detector, "KEPT_SIZES", 2)
    model = build(tmp_path)
    model.detect(images((64, 64)))
    each = compilations["detections"]
    expected = {(64, 64): 1, (64, 128): 2, (128, 64): 3}
    for shape, count in expected.items():
        model.detect(images(shape))
        assert compilations["detections"] == count * each
    model.detect(images((64, 128), (128, 64)))  # still compiled
    assert compilations["detections"] == 3 * each
    model.detect(images((64, 64)))  # was dropped
    assert compilations["detections"] == 4 * each


@pytest.mark.skipif(RUNS_EAGERLY, reason="torch runs without compiling")
@pytest.mark.usefixtures("compiled_test")
def test_first_calls_from_several_threads_compile_once(tmp_path, compilations, monkeypatch):
    refine = detections.refine_detections

    def slow_refine(*inputs, **options):
        time.sleep(0.2)  # long enough for every thread to arrive while the first one compiles
        return refine(*inputs, **options)

    monkeypatch.setattr(detections, "refine_detections", slow_refine)
    model = build(tmp_path)
    compilations.update(detections=0)
    results = [None] * 4
    barrier = threading.Barrier(len(results))

    def detect(index):
        barrier.wait()
        results[index] = model.detect(images((64, 64)))[0]

    threads = [threading.Thread(target=detect, args=(index,)) for index in range(len(results))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert compilations["detections"] == 1
    for result in results:
        np.testing.assert_allclose(result["scores"], results[0]["scores"], atol=1e-6)


def test_masks_are_padded_to_few_sizes():
    counts = [padded_slot_count(count) for count in range(1, 101)]
    assert set(counts) == {*MASK_SLOTS, 64, 96, 128}
    assert all(slots >= count for count, slots in enumerate(counts, start=1))


def test_detections_follow_the_weights(model, tmp_path):
    image = images((64, 64))
    before = model.detect(image)[0]
    original = model.keras_model.get_weights()
    rng = np.random.default_rng(1)
    values = [w * rng.uniform(0.8, 1.2, w.shape) for w in original]
    model.keras_model.set_weights(values)
    after = model.detect(image)[0]
    path = tmp_path / "weights.h5"
    model.keras_model.save_weights(path)
    fresh = MaskRCNN("inference", OpenConfig(), tmp_path)
    unchanged = fresh.detect(image)[0]
    fresh.load_weights(path)
    expected = fresh.detect(image)[0]
    assert not np.array_equal(before["scores"], after["scores"])
    assert not np.array_equal(unchanged["scores"], expected["scores"])
    np.testing.assert_allclose(after["scores"], expected["scores"], atol=1e-6)
    np.testing.assert_array_equal(after["rois"], expected["rois"])
    for value, weight in zip(values, model.keras_model.get_weights(), strict=True):
        np.testing.assert_allclose(weight, value.astype(np.float32))
    model.keras_model.set_weights(original)
    np.testing.assert_array_equal(model.detect(image)[0]["rois"], before["rois"])


CHANGED = {
    "DETECTION_MIN_CONFIDENCE": 0.6,
    "DETECTION_NMS_THRESHOLD": 0.05,
    "DETECTION_MAX_INSTANCES": 13,
    "RPN_NMS_THRESHOLD": 0.5,
    "PRE_NMS_LIMIT": 200,
    "POST_NMS_ROIS_INFERENCE": 50,
}


def test_settings_changed_after_building_take_effect(model, tmp_path):
    """The results are those of a model that is built with the changed settings. Larger limits work, too."""
    image = images((64, 64))
    before = model.detect(image)[0]
    for name, value in CHANGED.items():
        setattr(model.config, name, value)
    after = model.detect(image)[0]
    layer = model.keras_model.get_layer("mrcnn_detection")
    slots = model.run_graph(image, [("detections", layer.output)])["detections"][0]
    model.config = OpenConfig()
    again = model.detect(image)[0]

    rebuilt = build(tmp_path, **CHANGED)
    rebuilt.copy_weights(model)
    expected = rebuilt.detect(image)[0]
    assert 0 < len(before["scores"]) <= OpenConfig.DETECTION_MAX_INSTANCES < len(after["scores"])
    np.testing.assert_array_equal(after["rois"], expected["rois"])
    np.testing.assert_allclose(after["scores"], expected["scores"], atol=1e-6)
    assert np.count_nonzero(slots[:, 4]) == len(after["scores"])
    np.testing.assert_array_equal(again["rois"], before["rois"])


def test_soft_nms_after_the_first_detection_and_back(model):
    """The detections are those that NumPy softens, of a network that suppresses nothing."""
    image = images((64, 64))
    everything = {"DETECTION_NMS_THRESHOLD": 1.0, "DETECTION_MAX_INSTANCES": 40}
    before = model.detect(image)[0]
    for name, value in everything.items():
        setattr(model.config, name, value)
    layer = model.keras_model.get_layer("mrcnn_detection")
    output = [("detections", layer.output)]
    rows = model.run_graph(image, output)["detections"][0]
    rows = rows[rows[:, 4] > 0]
    model.config.SOFT_NMS_SIGMA = 0.5
    after = model.detect(image)[0]
    kept, lowered = boxes.soft_non_max_suppression(rows[:, :4], rows[:, 5], rows[:, 4], 0.5)
    np.testing.assert_allclose(after["scores"], lowered[kept], atol=1e-5)
    np.testing.assert_array_equal(after["class_ids"], rows[kept, 4])
    assert after["masks"].shape == (64, 64, len(kept)) and after["masks"].any()
    model.config = OpenConfig()
    again = model.detect(image)[0]
    assert len(before["scores"]) < len(after["scores"])
    np.testing.assert_array_equal(again["rois"], before["rois"])


REACHING_LAYERS = {**CHANGED, "SOFT_NMS_SIGMA": 0.4, "DETECTIONS_PER_CLASS": True}


@pytest.mark.parametrize("name", REACHING_LAYERS)
def test_a_changed_setting_reaches_its_layer(model, name):
    config = OpenConfig()
    assert not update_layer_settings(model.keras_model, config)
    setattr(config, name, REACHING_LAYERS[name])
    before = {layer: layer.get_config() for layer in model.keras_model.layers}
    assert update_layer_settings(model.keras_model, config)
    changed = [
        new[key]
        for layer, old in before.items()
        for new in [layer.get_config()]
        for key in new
        if new[key] != old[key]
    ]
    assert changed == [REACHING_LAYERS[name]]
    assert update_layer_settings(model.keras_model, OpenConfig())


def test_a_changed_setting_is_checked(model):
    before = model.detect(images((64, 64)))[0]
    model.config.DETECTION_NMS_THRESHOLD = 3
    with pytest.raises(ValueError, match="DETECTION_NMS_THRESHOLD"):
        model.detect(images((64, 64)))
    model.config.DETECTION_NMS_THRESHOLD = OpenConfig.DETECTION_NMS_THRESHOLD
    np.testing.assert_array_equal(model.detect(images((64, 64)))[0]["rois"], before["rois"])


def test_another_image_size_after_building_is_an_error(tmp_path):
    config = TinyConfig()
    model = MaskRCNN("inference", config, tmp_path)
    config.IMAGE_MAX_DIM = config.IMAGE_MIN_DIM = 128
    with pytest.raises(ValueError, match=r"\(64, 64, 3\).*\(128, 128, 3\).*new MaskRCNN"):
        model.detect(images((64, 64)))


@pytest.mark.parametrize("train_bn", [False, True])
@pytest.mark.usefixtures("compiled_test")
def test_plain_and_fast_detectors_agree(tmp_path, train_bn):
    fast = build(tmp_path, TRAIN_BN=train_bn)
    plain = build(tmp_path, TRAIN_BN=train_bn, FAST_PATHS=False)
    plain.copy_weights(fast)
    for ours, expected in zip(*(m.detect(images((64, 64), (60, 100))) for m in (fast, plain)), strict=True):
        assert len(expected["scores"])
        np.testing.assert_allclose(ours["scores"], expected["scores"], atol=1e-5)
        np.testing.assert_allclose(ours["rois"], expected["rois"], atol=1)
        assert np.mean(ours["masks"] == expected["masks"]) > 0.999


def test_forms_of_masks_agree(model):
    shapes = (64, 64), (50, 64)
    full = model.detect(images(*shapes))
    cropped = model.detect(images(*shapes), masks="cropped")
    encoded = model.detect(images(*shapes), 0, "rle")
    assert any(whole["masks"].any() and not whole["masks"].all() for whole in full)
    for shape, whole, crops, codes in zip(shapes, full, cropped, encoded, strict=True):
        assert whole["masks"].shape == (*shape, len(whole["rois"]))
        np.testing.assert_array_equal(crops["masks"].boxes, whole["rois"])
        np.testing.assert_array_equal(crops["masks"].whole(), whole["masks"])
        decoded = run_lengths.decode(json.loads(json.dumps(codes["masks"])))
        np.testing.assert_array_equal(decoded, whole["masks"])
    with pytest.raises(ValueError, match=r"`masks` must be one of.*'boxes'"):
        model.detect(images((64, 64)), masks="boxes")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300, 1e17, -1e12])
def test_absurd_values_are_refused(model, value):
    """Also those that are finite and overflow later; the model goes on working."""
    image = images((64, 64))[0].astype(np.float64)
    image[3, 4, 1] = value
    with pytest.raises(ValueError, match="values of an image must be finite"), np.errstate(over="ignore"):
        model.detect([image])
    molded, metas, _ = model.mold_inputs(images((64, 64)))
    molded[0, 3, 4, 1] = value
    with pytest.raises(ValueError, match="at most 1,000,000,000"):
        model.detect_molded(molded, metas)
    assert len(model.detect(images((64, 64)))[0]["scores"])


class TestManyImages:
    """Detection overlaps the images, and returns what one call per image returns."""

    SHAPES = ((50, 50), (64, 128), (21, 21), (64, 64), (128, 64), (64, 128))

    def same(self, found, expected):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert one["rois"].tolist() == other["rois"].tolist()
            assert one["scores"].tolist() == other["scores"].tolist()
            assert np.array_equal(one["masks"], other["masks"])

    def test_all_at_once(self, model):
        pictures = images(*self.SHAPES)
        expected = [model.detect([image])[0] for image in pictures]
        assert any(found["masks"].any() for found in expected)
        self.same(model.detect(pictures), expected)
        self.same(list(model.stream(iter(pictures))), expected)
        self.same(list(model.stream(lambda image=image: image for image in pictures)), expected)

    @pytest.mark.parametrize("axes", [2, 3])
    def test_one_array_is_one_image(self, model, axes):
        (picture,) = images((50, 64))
        picture = picture if axes == 3 else picture[..., 0]
        self.same(list(model.stream(picture)), model.detect(picture))

    @pytest.mark.parametrize("one", ["a.png", Path("a.png"), b"content", 3])
    def test_one_path_is_no_list(self, model, one):
        with pytest.raises(TypeError, match=r"`images` must be a list.*Pass a list, such as model.stream"):
            model.stream(one)

    def test_batches(self, model, monkeypatch):
        """Images of one size share a batch, also if others come between them."""
        monkeypatch.setattr(model.config, "IMAGES_PER_GPU", 2)
        pictures = images(*self.SHAPES)
        sizes = []
        run_batch = detector.Detector._run_batch

        def counting(self, networks, pixels, metas, anchors):
            sizes.append(pixels.shape[:3])
            return run_batch(self, networks, pixels, metas, anchors)

        monkeypatch.setattr(detector.Detector, "_run_batch", counting)
        expected = model.detect(pictures)
        assert sorted(sizes) == [(1, 128, 64), (2, 64, 64), (2, 64, 64), (2, 64, 128)]
        self.same(list(model.stream(pictures)), expected)

    def test_a_rare_size_does_not_hold_the_others_up(self, model, monkeypatch):
        monkeypatch.setattr(model.config, "IMAGES_PER_GPU", 2)
        pictures = images((64, 128), *[(64, 64)] * 40)
        taken = []

        def take():
            for number, image in enumerate(pictures):
                taken.append(number)
                yield image

        results = model.stream(take())
        next(results)
        assert len(taken) < len(pictures)
        assert len(list(results)) == len(pictures) - 1

    def test_errors(self, model):
        good = images((64, 64))[0]
        pictures = [good, good[..., :2], good, np.full((64, 64, 3), np.nan, np.float32)]

        def missing():
            raise FileNotFoundError("gone")

        found = list(model.stream([*pictures, missing, good], with_errors=True))
        kinds = [type(value).__name__ for value in found]
        assert kinds == [
            *("Detections", "InvalidDataError", "Detections", "InvalidDataError"),
            *("FileNotFoundError", "Detections"),
        ]
        with pytest.raises(ValueError, match="IMAGE_CHANNEL_COUNT"):
            model.detect(pictures)
        results = model.stream([good, missing])
        assert len(next(results)["scores"]) == len(found[0]["scores"])
        with pytest.raises(FileNotFoundError):
            next(results)

    def test_options_of_detection(self, model, monkeypatch):
        monkeypatch.setattr(model.config, "TEST_TIME_FLIPS", "horizontal")
        pictures = images((64, 64), (50, 60))
        self.same(list(model.stream(pictures)), model.detect(pictures))
