"""The compiled detector: how often it compiles, and that it follows the weights."""

import keras
import numpy as np
import pytest
from tiny_model import TinyConfig

from mrcnn import execution, inference
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


@pytest.fixture
def detector(tmp_path):
    keras.utils.set_random_seed(8)
    return MaskRCNN("inference", OpenConfig(), tmp_path)


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
    config = OpenConfig()
    config.IMAGE_RESIZE_MODE = "square"
    detector = MaskRCNN("inference", config, tmp_path)
    assert len(detector.detect(pictures((64, 64)))[0]["scores"])
    first = dict(compilations)
    assert min(first.values()) > 0
    detector.detect(pictures((50, 70), (200, 190), (30, 31)))
    assert compilations == first


@pytest.mark.skipif(not execution.uses_native_kernels(), reason="compiled for each size")
def test_masks_compile_once_for_all_sizes_and_numbers(detector, compilations):
    detector.detect(pictures((64, 64)))
    first = dict(compilations)
    assert len(detector.detect(pictures((64, 128)))[0]["scores"])
    assert compilations["masks"] == first["masks"]
    assert compilations["detections"] == first["detections"] + 1


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


def test_statistics_of_the_batch_are_not_folded(tmp_path):
    config = OpenConfig()
    config.TRAIN_BN = True
    model = MaskRCNN("inference", config, tmp_path)
    model.detect(pictures((64, 64)))
    assert [network.pairs for network in model._detector._networks] == [{}, {}]
