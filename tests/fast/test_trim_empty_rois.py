"""Slots of the mask head that no image fills are left out, where nothing depends on them."""

import keras
import numpy as np
import pytest
from keras import ops
from tensor_tools import array
from tiny_model import TinyConfig

from mrcnn import backend
from mrcnn.fast import trim_empty_rois
from mrcnn.network import graphs
from mrcnn.network.detection_targets import LeadingSlots


@pytest.mark.parametrize(
    ("class_ids", "count"),
    [
        ([[2, 1, 0, 0, 0], [3, 0, 0, 0, 0]], 2),
        ([[0] * 5, [0] * 5], 1),
        ([[1, 2, 3, 0, 0], [0] * 5], 3),
        ([[1, 2, 3, 1, 2], [0] * 5], 3),
    ],
    ids=str,
)
def test_as_many_slots_as_the_fullest_image_fills(class_ids, count):
    """At least one and at most those of LeadingSlots, here three."""
    rng = np.random.default_rng(0)
    rois = rng.normal(size=(2, 5, 4)).astype("float32")
    masks = rng.normal(size=(2, 5, 3, 3)).astype("float32")
    inputs = [ops.convert_to_tensor(x) for x in (np.array(class_ids, "int32"), rois, masks)]
    trimmed, whole = (
        [array(x) for x in layer(inputs)] for layer in (trim_empty_rois.TrimEmptyRois(3), LeadingSlots(3))
    )
    for found, leading, source in zip(trimmed, whole, (rois, masks), strict=True):
        np.testing.assert_array_equal(leading, source[:, :3])
        np.testing.assert_array_equal(found, source[:, :count])


def names(train_bn=False, norm="batch", **options):
    config = TinyConfig()
    config.TRAIN_BN, config.NORM = train_bn, norm
    graph = graphs.training_graph(config)
    return list(trim_empty_rois.replacements(keras.Model(graph.inputs, graph.outputs), **options))


class TestReplacements:
    def test_only_where_sizes_may_vary(self, monkeypatch):
        monkeypatch.setattr(backend, "sizes_may_vary", lambda choice=None: not choice)
        assert names() == ["mask_slots"]
        assert names(xla=True) == []

    @pytest.mark.parametrize(
        ("train_bn", "norm", "found"),
        [(None, "batch", []), (True, "batch", []), (None, "group", ["mask_slots"])],
    )
    def test_not_where_a_norm_uses_all_slots(self, monkeypatch, train_bn, norm, found):
        monkeypatch.setattr(backend, "sizes_may_vary", lambda choice=None: True)
        assert names(train_bn, norm) == found
