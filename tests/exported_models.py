"""Models to export, images, and the comparison of their files with them."""

import keras
import numpy as np
import pytest
from tiny_model import TinyConfig

from mrcnn.export.checking import TOLERANCES, compare
from mrcnn.model import MaskRCNN

__all__ = ["TinyConfig", "assert_equal", "assert_similar", "build", "needs_tensorflow", "pictures"]

needs_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="needs TensorFlow")


def build(config):
    """A model with random weights, whose scores differ enough that rounding does not change their order."""
    model = MaskRCNN("inference", config, "logs")
    rng = np.random.default_rng(0)
    gains = {"res1_tiny": 0.02, "rpn_class_raw": 1.0, "mrcnn_class_logits": 0.5}
    for weight in model.keras_model.trainable_variables:
        if "kernel" in weight.path:
            gain = next((gain for name, gain in gains.items() if name in weight.path), 1.4)
            weight.assign(rng.normal(0, gain / np.sqrt(np.prod(weight.shape[:-1])), weight.shape))
    return model


def pictures(*shapes, seed=0):
    """uint8 images of colored squares."""
    rng = np.random.default_rng(seed)
    return [
        np.kron(rng.integers(0, 256, (-(-h // 8), -(-w // 8), c)), np.ones((8, 8, 1)))[:h, :w].astype("uint8")
        for h, w, c in shapes
    ]


def assert_equal(model, runner, images):
    """A file finds what the model finds."""
    expected = model.detect(images, masks="cropped")
    found = runner.detect(images, masks="cropped")
    for one, other in zip(expected, found, strict=True):
        difference = compare(one, other)
        assert difference.expected == difference.found
        assert difference.matched == difference.expected
        assert difference.box <= 1  # of whole pixels: a fraction next to a half may round to either side
        assert difference.score < 1e-4
        assert difference.mask_iou > 0.98
    assert any(len(one["rois"]) for one in expected)


def assert_similar(model, runner, images):
    """A file of lower precision finds what the model finds, within the tolerance of its precision."""
    tolerance = TOLERANCES[runner.metadata.precision]
    expected = model.detect(images, masks="cropped")
    found = runner.detect(images, masks="cropped")
    for one, other in zip(expected, found, strict=True):
        assert compare(one, other, tolerance).is_tolerable(tolerance)
    assert any(len(one["rois"]) for one in expected)
