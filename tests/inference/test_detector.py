"""The compiled detector: how often it compiles, and that it follows the weights."""

import json

import keras
import numpy as np
import pytest
from pycocotools import mask as run_lengths
from tiny_model import TinyConfig

from mrcnn.backend import calls as execution
from mrcnn.geometry import masks
from mrcnn.geometry.mask_crops import MaskCrops
from mrcnn.inference import detector as inference
from mrcnn.model import MaskRCNN
from mrcnn.network import detections, heads

RUNS_EAGERLY = keras.backend.backend() == "torch"


class OpenConfig(TinyConfig):
    """Images of 64 x 128 and 128 x 64 as well."""

    IMAGE_RESIZE_MODE = "pad64"
    IMAGE_MIN_DIM = 64
    IMAGE_MAX_DIM = 128
    GPU_COUNT = IMAGES_PER_GPU = 1


def pictures(*shapes):
    rng = np.random.default_rng(5)
    return [rng.integers(0, 255, (*shape, 3)).astype(np.uint8) for shape in shapes]


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    keras.utils.set_random_seed(8)
    model = MaskRCNN("inference", OpenConfig(), tmp_path_factory.mktemp("logs"))
    outline = model.keras_model.get_layer("mrcnn_mask")
    kernel, bias = outline.get_weights()
    outline.set_weights([100.0 * kernel, bias])  # random masks that are neither full nor empty
    return model


@pytest.fixture
def compilations(monkeypatch):
    """Counts how often the graph up to the detections and that of the masks are compiled."""
    counts = {"detections": 0, "masks": 0}
    refine, own_channel = detections.refine_detections, heads.RoiConv2D.own_channel

    def counting_refine(*inputs, **options):
        counts["detections"] += not isinstance(inputs[0], keras.KerasTensor)
        return refine(*inputs, **options)

    def counting_own_channel(self, *inputs):
        counts["masks"] += 1
        return own_channel(self, *inputs)

    monkeypatch.setattr(detections, "refine_detections", counting_refine)
    monkeypatch.setattr(heads.RoiConv2D, "own_channel", counting_own_channel)
    return counts


@pytest.mark.skipif(RUNS_EAGERLY, reason="torch runs without compiling")
def test_one_molded_size_compiles_once(tmp_path, compilations):
    detector = MaskRCNN("inference", OpenConfig(), tmp_path)
    assert len(detector.detect(pictures((64, 64)))[0]["scores"])
    first = dict(compilations)
    assert min(first.values()) > 0
    detector.detect(pictures((50, 50), (21, 21), (63, 63)))
    assert compilations == first
    assert len(detector.detect(pictures((64, 128)))[0]["scores"])
    assert compilations["detections"] == 2 * first["detections"]
    if execution.uses_native_kernels():  # their masks compile once for all sizes and numbers
        assert compilations["masks"] == first["masks"]


@pytest.mark.skipif(RUNS_EAGERLY or execution.uses_native_kernels(), reason="padded for XLA alone")
def test_masks_are_padded_to_few_sizes(detector):
    detector.detect(pictures((64, 64)))
    places = {detector._detector._mask_places(count) for count in range(1, 101)}
    assert places == {*inference.MASK_BATCHES, 64, 96, 128}


def test_detections_follow_the_weights(detector, tmp_path):
    picture = pictures((64, 64))
    before = detector.detect(picture)[0]
    rng = np.random.default_rng(1)
    values = [w * rng.uniform(0.8, 1.2, w.shape) for w in detector.keras_model.get_weights()]
    detector.keras_model.set_weights(values)
    after = detector.detect(picture)[0]
    path = tmp_path / "weights.h5"
    detector.keras_model.save_weights(path)
    fresh = MaskRCNN("inference", OpenConfig(), tmp_path)
    unchanged = fresh.detect(picture)[0]
    fresh.load_weights(path)
    expected = fresh.detect(picture)[0]
    assert not np.array_equal(before["scores"], after["scores"])
    assert not np.array_equal(unchanged["scores"], expected["scores"])
    np.testing.assert_allclose(after["scores"], expected["scores"], atol=1e-6)
    np.testing.assert_array_equal(after["rois"], expected["rois"])
    for value, weight in zip(values, detector.keras_model.get_weights(), strict=True):
        np.testing.assert_allclose(weight, value.astype(np.float32))


def test_forms_of_masks_agree(detector):
    shapes = (64, 64), (50, 64)
    full = detector.detect(pictures(*shapes))
    cropped = detector.detect(pictures(*shapes), masks="cropped")
    encoded = detector.detect(pictures(*shapes), 0, "rle")
    assert any(whole["masks"].any() and not whole["masks"].all() for whole in full)
    for shape, whole, crops, codes in zip(shapes, full, cropped, encoded, strict=True):
        assert whole["masks"].shape == (*shape, len(whole["rois"]))
        np.testing.assert_array_equal(crops["masks"].boxes, whole["rois"])
        np.testing.assert_array_equal(crops["masks"].whole(), whole["masks"])
        decoded = run_lengths.decode(json.loads(json.dumps(codes["masks"])))
        np.testing.assert_array_equal(decoded, whole["masks"])
    with pytest.raises(ValueError, match="boxes"):
        detector.detect(pictures((64, 64)), masks="boxes")


def test_many_masks_on_a_large_picture():
    """A thousand masks on 4,000 x 4,000 pixels, 16 GB as whole masks, in each form."""
    rng = np.random.default_rng(3)
    corner, side = rng.uniform(0, 0.9, (1000, 2)), rng.uniform(0.005, 0.03, (1000, 2))
    detections = np.concatenate([corner, corner + side, np.ones((1000, 2))], axis=1)
    own_masks = rng.random((1000, 28, 28)).astype(np.float32)
    shape, window = (4000, 4000, 3), (0, 0, 1024, 1024)
    rois, _, _, crops = inference.place_in_image(detections, own_masks, shape, (1024, 1024, 3), window)
    whole, encoded = (inference.masks_in_form(crops, form) for form in ("full", "rle"))
    assert whole.shape == (4000, 4000, 1000)
    assert not inference.masks_in_form(MaskCrops((9, 9), np.zeros((0, 4), np.int32), ()), "rle")
    for index in range(0, 1000, 200):
        expected = masks.unmold_mask(own_masks[index], rois[index], shape)
        np.testing.assert_array_equal(whole[:, :, index], expected)
        assert run_lengths.encode(np.asfortranarray(expected))["counts"].decode() == encoded[index]["counts"]


def test_statistics_of_the_batch_are_not_folded(tmp_path):
    config = OpenConfig()
    config.TRAIN_BN = True
    model = MaskRCNN("inference", config, tmp_path)
    detector = inference.Detector(model._graph, model.keras_model, config)
    assert [network.pairs for network in detector._networks] == [{}, {}]
