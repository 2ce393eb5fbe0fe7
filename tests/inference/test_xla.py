"""Detection and training of a tiny network compiled with XLA, against TensorFlow's plain graph.

JAX compiles everything with XLA, and its tests are all the others.
"""

import sys

import keras
import numpy as np
import pytest
from tiny_model import TinyConfig
from toy_data import toy_dataset

from mrcnn import backend
from mrcnn.data.generator import DataGenerator
from mrcnn.inference import compiling
from mrcnn.model import MaskRCNN

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="JAX always compiles, PyTorch never"
)

NETWORKS = pytest.mark.parametrize(
    "network", [{}, {"BACKBONE": "resnet50", "COMPUTE_BACKBONE_SHAPE": None}], ids=["tiny", "resnet50"]
)


def build(mode, folder, start=None, **settings):
    keras.utils.set_random_seed(4)
    config = TinyConfig()
    for name, value in settings.items():
        setattr(config, name, value)
    model = MaskRCNN(mode, config, folder)
    if start is not None:
        model.copy_weights(start)
    return model


@on_tensorflow
@pytest.mark.slow
@NETWORKS
def test_detections(network, tmp_path):
    """One setting compiles detection, for one size at a time."""
    plain = build("inference", tmp_path, IMAGES_PER_GPU=1, **network)
    compiled = build("inference", tmp_path, plain, IMAGES_PER_GPU=1, JIT_COMPILE=True, **network)
    pictures = [toy_dataset(1).load_image(0), np.full((60, 120, 3), 90, np.uint8)]
    for one, other in zip(plain.detect(pictures), compiled.detect(pictures), strict=True):
        assert len(one["scores"]) > 0
        np.testing.assert_allclose(other["scores"], one["scores"], atol=1e-5)
        assert np.abs(other["rois"] - one["rois"]).max() <= 1
        assert (other["masks"] != one["masks"]).mean() < 1e-3
    assert list(compiled._detector._networks) == [(64, 64, 3)] and list(plain._detector._networks) == [None]


@on_tensorflow
@pytest.mark.slow
@NETWORKS
def test_a_training_step(network, tmp_path):
    """Losses and the weights after a step, that is gradients, are those of the plain graph."""
    batch = DataGenerator(toy_dataset(), TinyConfig(), seed=0, workers=0)[0][0]
    start = build("training", tmp_path, **network)
    logs, weights = {}, {}
    for choice in (False, True):
        model = build("training", tmp_path, start, JIT_COMPILE=choice, **network)
        for name in ("proposal_targets", "rpn_targets"):
            model.keras_model.get_layer(name).shuffle = False
        model.set_trainable(".*", verbose=0)
        model.compile(0.01, 0.9)
        assert model.keras_model.jit_compile == choice
        logs[choice] = model.keras_model.train_on_batch(batch, return_dict=True)
        weights[choice] = model.keras_model.get_weights()
    for name, loss in logs[False].items():
        np.testing.assert_allclose(float(logs[True][name]), float(loss), rtol=1e-4, err_msg=name)
    changes = [
        np.abs(a - b).max() for a, b in zip(weights[False], start.keras_model.get_weights(), strict=True)
    ]
    assert max(changes) > 1e-4
    for plain, compiled in zip(weights[False], weights[True], strict=True):
        np.testing.assert_allclose(compiled, plain, rtol=1e-3, atol=1e-6)


class TestMessage:
    """A line for a user who watches a bar, if compiling takes long."""

    @pytest.fixture(autouse=True)
    def at_once(self, monkeypatch):
        monkeypatch.setattr(compiling, "PATIENCE", 0.0)

    @pytest.mark.parametrize("is_terminal", [True, False])
    def test_on_a_terminal(self, capsys, monkeypatch, is_terminal):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
        with compiling.announced((512, 640, 3)) as timer:
            if timer is not None:
                timer.join(30)
        expected = "Compiling for images of 512 x 640 pixels, once ...\n" if is_terminal else ""
        assert capsys.readouterr().err == expected

    def test_nothing_if_it_is_quick(self, capsys, monkeypatch):
        monkeypatch.setattr(compiling, "PATIENCE", 60.0)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        with compiling.announced((512, 640, 3)) as timer:
            assert timer.is_alive()
        timer.join(30)
        assert not timer.is_alive() and capsys.readouterr().err == ""


def test_only_what_is_compiled_is_announced(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(compiling, "PATIENCE", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    model = build("inference", tmp_path, IMAGES_PER_GPU=1)
    picture = toy_dataset(1).load_image(0)
    model.detect([picture])
    first = capsys.readouterr().err
    assert first.count("Compiling for images of 64 x 64") == (not backend.RUNS_EAGERLY)
    model.detect([picture])
    assert capsys.readouterr().err == ""
