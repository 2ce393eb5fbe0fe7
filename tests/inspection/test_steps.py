"""Each step's values against numpy and against `detect`, and the content of its figures."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from tiny_model import TinyConfig
from toy_data import toy_dataset

from mrcnn import backend, inspection
from mrcnn.checkpoints import weights
from mrcnn.geometry import boxes
from mrcnn.geometry import images as image_geometry
from mrcnn.inspection import feature_maps, tensors
from mrcnn.model import load_image_gt

NAMES = ["BG", "one", "two", "three"]
SHAPE = (64, 64)

pytestmark = pytest.mark.usefixtures("close_figures", "eager_tensorflow")


@pytest.fixture(scope="module")
def anchors(detector, image):
    return inspection.sort_anchors(detector, image)


@pytest.fixture(scope="module")
def refined(detector, image):
    return inspection.refine_boxes(detector, image)


@pytest.fixture(scope="module")
def masks(detector, image):
    return inspection.generate_masks(detector, image)


def titles(figure):
    figure.canvas.draw()
    return [ax.get_title() for ax in figure.axes if ax.get_title()]


def segments(ax):
    """Number of lines of each collection on the axes."""
    return [len(c.get_segments()) for c in ax.collections if isinstance(c, LineCollection)]


def sorted_rows(rows):
    return np.array(sorted(map(tuple, rows)))


class TestNetworkInput:
    def test_is_the_molded_image_with_its_mean(self, anchors, detector, image):
        molded, metas, windows = detector.mold_inputs([image])
        resized = molded[0] + np.asarray(detector.config.MEAN_PIXEL)
        np.testing.assert_allclose(anchors.input.image, resized, atol=0.51)
        np.testing.assert_array_equal(anchors.input.window, windows[0])
        np.testing.assert_array_equal(anchors.input.meta, metas[0])

    def test_an_image_of_load_image_gt_is_not_resized_again(self, detector):
        image, meta, *_ = load_image_gt(toy_dataset(1), detector.config, 0)
        with_meta = inspection.sort_anchors(detector, image, meta)
        np.testing.assert_array_equal(with_meta.input.image, image)
        # The image is square, so resizing it would not change it either.
        np.testing.assert_allclose(
            with_meta.scores, inspection.sort_anchors(detector, image).scores, atol=1e-5
        )

    def test_missing_tensors_raise(self, detector, image):
        with pytest.raises(ValueError, match=r"`outputs`.*nothing"):
            tensors.fetch(detector, image, {"nothing": None})


class TestAnchors:
    def test_sorted_refined_and_clipped_as_in_numpy(self, anchors):
        order = np.argsort(-anchors.scores, kind="stable")
        normalized = boxes.norm_boxes(anchors.anchors, SHAPE)[order]
        refined = boxes.apply_box_deltas(normalized, anchors.deltas[order])
        np.testing.assert_allclose(anchors.best_scores, anchors.scores[order])
        np.testing.assert_allclose(anchors.best, anchors.anchors[order], atol=0.51)
        np.testing.assert_allclose(anchors.refined, boxes.denorm_boxes(refined, SHAPE), atol=1)
        clipped = np.clip(refined, 0, 1)
        np.testing.assert_allclose(anchors.clipped, boxes.denorm_boxes(clipped, SHAPE), atol=1)
        assert (anchors.refined < 0).any() and (anchors.clipped >= 0).all()

    def test_suppressed_as_in_numpy(self, anchors, detector):
        order = np.argsort(-anchors.scores, kind="stable")
        normalized = boxes.norm_boxes(anchors.anchors, SHAPE)[order]
        clipped = np.clip(boxes.apply_box_deltas(normalized, anchors.deltas[order]), 0, 1)
        descending = np.arange(len(clipped), 0, -1)
        kept = boxes.non_max_suppression(clipped, descending, detector.config.RPN_NMS_THRESHOLD)
        limit = detector.config.POST_NMS_ROIS_INFERENCE
        assert len(anchors.kept) == len(anchors.proposals) == limit < len(kept)
        np.testing.assert_array_equal(anchors.kept, kept[:limit])
        np.testing.assert_array_equal(anchors.proposals, anchors.clipped[anchors.kept])

    def test_recall_compares_pixels_with_pixels(self, anchors):
        assert inspection.proposal_recall(anchors, anchors.anchors[[5, 700]])["anchors"] == 1
        assert inspection.proposal_recall(anchors, anchors.proposals[:3])["proposals"] == 1
        refined = boxes.apply_box_deltas(anchors.anchors, anchors.deltas)
        farthest = boxes.compute_overlaps(refined, anchors.anchors).max(axis=1).argmin()
        recall = inspection.proposal_recall(anchors, refined[[farthest]])
        assert recall["refined anchors"] == 1 and recall["anchors"] == 0
        assert inspection.proposal_recall(anchors, [[-900, -900, -800, -800]])["proposals"] == 0

    def test_figures(self, anchors):
        figure = inspection.draw_top_anchors(anchors, limit=7)
        assert segments(figure.axes[0])[0] == 7
        assert titles(figure) == [f"7 best of {len(anchors.anchors)} anchors"]
        assert figure.axes[1].get_ylabel() == "foreground score"
        before, after = inspection.draw_refined_anchors(anchors, limit=9).axes
        assert segments(before) == [9, 9, 9] and segments(after) == [9]
        assert titles(inspection.draw_proposals(anchors, limit=20)) == [
            f"20 best of {len(anchors.best)} boxes before NMS",
            "20 best of 40 boxes after NMS: proposals",
        ]
        figure = inspection.draw_anchor_deltas(anchors)
        assert titles(figure) == ["dy", "dx", "log dh", "log dw"]
        assert [sum(bar.get_height() for bar in ax.patches) for ax in figure.axes] == [
            len(anchors.deltas)
        ] * 4
        first, _ = inspection.draw_proposal_corners(anchors).axes
        np.testing.assert_array_equal(first.collections[0].get_offsets(), anchors.proposals[:, [1, 0]])


class TestAnchorLabels:
    @pytest.fixture
    def labels(self):
        config = TinyConfig()
        image, _, class_ids, gt_boxes, _ = load_image_gt(toy_dataset(1), config, 0)
        return inspection.label_anchors(image, class_ids, gt_boxes, config), gt_boxes, config

    def test_positive_overlap_and_reach_their_objects(self, labels):
        labels, gt_boxes, config = labels
        assert 0 < len(labels.positive) == len(labels.refined)
        best = boxes.compute_overlaps(labels.positive, gt_boxes)
        assert (best.max(axis=1) > 0).all()
        np.testing.assert_allclose(labels.refined, gt_boxes[best.argmax(axis=1)], atol=1e-2)
        assert (boxes.compute_overlaps(labels.negative, gt_boxes).max(axis=1) < config.RPN_NEGATIVE_IOU).all()
        parts = (labels.positive, labels.negative, labels.neutral)
        assert sum(map(len, parts)) == len(labels.anchors)
        assert len(parts[0]) + len(parts[1]) <= config.RPN_TRAIN_ANCHORS_PER_IMAGE

    def test_figure(self, labels):
        figure = inspection.draw_anchor_labels(labels[0], limit=30)
        positive, negative, neutral = figure.axes
        count = len(labels[0].positive)
        assert segments(positive) == [count] * 3
        assert segments(negative) == segments(neutral) == [30]
        assert f"30 of {len(labels[0].neutral)} neutral anchors" in titles(figure)


class TestBoxRefinement:
    def test_filters_in_numpy_end_at_the_networks_detections(self, refined):
        counts = refined.counts
        assert counts["proposals"] > counts["not background"] > counts["confident"] > counts["after NMS"] > 1
        assert not (refined.is_confident & ~refined.is_object).any()
        assert not (refined.is_kept & ~refined.is_confident).any()
        order = np.flatnonzero(refined.is_kept)
        order = order[np.argsort(-refined.scores[order], kind="stable")]
        np.testing.assert_array_equal(refined.class_ids[order], refined.detection_class_ids)
        np.testing.assert_allclose(refined.scores[order], refined.detection_scores, atol=1e-6)
        np.testing.assert_allclose(refined.refined[order], refined.detection_boxes, atol=1)

    def test_soft_nms_in_numpy_ends_at_the_networks_detections(self, refined, detector, image, monkeypatch):
        monkeypatch.setattr(detector.config, "SOFT_NMS_SIGMA", 0.5)
        monkeypatch.setattr(detector.config, "DETECTION_MIN_CONFIDENCE", 0.05)
        softened = inspection.refine_boxes(detector, image)
        order = np.flatnonzero(softened.is_kept)
        order = order[np.argsort(-softened.final_scores[order], kind="stable")]
        np.testing.assert_array_equal(softened.class_ids[order], softened.detection_class_ids)
        np.testing.assert_allclose(softened.final_scores[order], softened.detection_scores, atol=1e-5)
        np.testing.assert_allclose(softened.refined[order], softened.detection_boxes, atol=1)
        assert (softened.final_scores[order] < softened.scores[order]).any()
        np.testing.assert_array_equal(refined.final_scores, refined.scores)
        texts = [text.get_text() for text in inspection.draw_detections(softened, NAMES).axes[0].texts]
        assert len(texts) == len(order) > refined.counts["after NMS"]
        assert all(f"{score:.3f}" in "".join(texts) for score in softened.detection_scores)

    def test_detections_per_class_in_numpy_end_at_those_of_the_network(self, detector, image, monkeypatch):
        monkeypatch.setattr(detector.config, "DETECTION_MIN_CONFIDENCE", 0.2)
        few = inspection.refine_boxes(detector, image)
        monkeypatch.setattr(detector.config, "DETECTIONS_PER_CLASS", True)
        many = inspection.refine_boxes(detector, image)
        assert many.counts["not background"] > few.counts["not background"]
        assert (many.scores[many.is_object] >= 0.2).all()
        # The figures show the best class of each RoI. The network keeps others, too, which may displace some.
        best = np.flatnonzero(many.is_kept)[many.scores[many.is_kept].argmax()]
        assert many.class_ids[best] == many.detection_class_ids[0]
        np.testing.assert_allclose(many.scores[best], many.detection_scores[0], atol=1e-6)
        np.testing.assert_allclose(many.refined[best], many.detection_boxes[0], atol=1)

    def test_boxes_stay_in_the_window(self, refined):
        y1, x1, y2, x2 = refined.input.window
        assert (refined.refined >= [y1, x1, y1, x1]).all()
        assert (refined.refined <= [y2, x2, y2 + 1, x2 + 1]).all()

    def test_figures(self, refined):
        counts = refined.counts
        figure = inspection.draw_box_filters(refined, NAMES)
        assert titles(figure) == [f"{count} {name}" for name, count in counts.items()]
        assert [segments(ax)[0] for ax in figure.axes] == list(counts.values())
        (ax,) = inspection.draw_detections(refined, NAMES).axes
        assert segments(ax) == [counts["after NMS"]] * 3
        dotted, solid, _ = ax.collections
        assert all(pattern is not None for _, pattern in dotted.get_linestyle())
        assert all(pattern is None for _, pattern in solid.get_linestyle())
        assert len(ax.texts) == counts["after NMS"]
        (ax,) = inspection.draw_refined_rois(refined, NAMES, limit=3).axes
        assert segments(ax) == [3, 3, 3]
        figure = inspection.draw_classified_rois(refined, NAMES, limit=200)
        assert titles(figure) == [
            f"40 proposals before refinement, {counts['not background']} of them objects"
        ]


class TestMasks:
    def test_raw_masks_are_of_their_own_class_and_thresholded_at_half(self, masks, detector, image):
        output = detector.keras_model.get_layer("mrcnn_mask").output
        every = detector.run_graph([image], [("masks", output)])["masks"][0]
        assert len(masks.boxes) > 1
        assert masks.raw.shape[1:] == (28, 28)
        for i, (box, class_id) in enumerate(zip(masks.boxes, masks.class_ids, strict=True)):
            y1, x1, y2, x2 = box
            assert any(np.array_equal(masks.raw[i], one[..., class_id]) for one in every)
            assert masks.scaled[i].shape == (y2 - y1, x2 - x1)
            np.testing.assert_array_equal(masks.masks[y1:y2, x1:x2, i], masks.scaled[i] >= 0.5)
            assert masks.masks[..., i].sum() == (masks.scaled[i] >= 0.5).sum()
        np.testing.assert_array_equal(
            masks.scaled[0], image_geometry.resize(masks.raw[0], masks.scaled[0].shape)
        )

    def test_figure(self, masks):
        figure = inspection.draw_masks(masks, NAMES, limit=2)
        assert len(figure.axes) == 6
        shown = figure.axes[0].images[0].get_array()
        np.testing.assert_array_equal(shown, masks.raw[0])
        assert "28 x 28" in titles(figure)[0]
        assert "on the image" in titles(figure)


class TestActivations:
    def test_values_are_the_layers_outputs(self, detector, image):
        activations = inspection.layer_activations(detector, image, names=["res3_tiny", "rpn_bbox", "ROI"])
        layer = detector.keras_model.get_layer("res3_tiny")
        molded, _, _ = detector.mold_inputs([image])
        expected = keras.Model(detector.keras_model.inputs[0], layer.output)(molded)
        expected = keras.ops.convert_to_numpy(expected)[0]
        np.testing.assert_allclose(activations.maps["res3_tiny"], expected, rtol=1e-4, atol=1e-3)
        assert activations.maps["ROI"].shape == (40, 4)

    def test_stages_and_pyramid_by_default(self, detector, image):
        assert feature_maps.stage_names(detector) == [f"res{stage}_tiny" for stage in (2, 3, 4, 5)]
        activations = inspection.layer_activations(detector, image)
        sides = [values.shape[0] for values in activations.maps.values()]
        assert sides == [16, 8, 4, 2, 16, 8, 4, 2]

    def test_unknown_names_raise_with_similar_ones(self, detector, image):
        with pytest.raises(ValueError, match=r"'res3_tinny'.*'res3_tiny'"):
            inspection.layer_activations(detector, image, names=["res3_tinny"])

    def test_figure_shows_the_most_varied_channels_or_those_of_the_caller(self, detector, image):
        activations = inspection.layer_activations(detector, image, names=["fpn_p2", "fpn_p3", "ROI"])
        figure = inspection.draw_activations(activations, channels=3)
        assert len(figure.axes) == 8
        spread = activations.maps["fpn_p2"].std(axis=(0, 1))
        most_varied = np.argsort(-spread)[:3]
        assert titles(figure)[0] == "fpn_p2\n16 x 16 x 8"
        assert titles(figure)[1:4] == [f"channel {channel}" for channel in most_varied]
        np.testing.assert_array_equal(
            figure.axes[1].images[0].get_array(), activations.maps["fpn_p2"][..., most_varied[0]]
        )
        figure = inspection.draw_activations(activations, channels=[5, 1], names=["fpn_p3"])
        assert titles(figure)[1:] == ["channel 5", "channel 1"]


class TestWeights:
    def test_every_tensor_is_listed_and_the_layers_of_the_rpn_one_by_one(self, detector):
        tensors_by_name = {tensor.name: tensor for tensor in inspection.weight_statistics(detector)}
        named = weights.model_weights(detector.keras_model).values()
        expected = {name.split(":")[0]: variable for layer in named for name, variable in layer.items()}
        assert tensors_by_name.keys() == expected.keys()
        for name, variable in expected.items():
            np.testing.assert_array_equal(tensors_by_name[name].values, np.array(variable), err_msg=name)
        kernel = tensors_by_name["rpn_conv_shared/kernel"]
        assert (kernel.low, kernel.high) == (kernel.values.min(), kernel.values.max())
        assert not kernel.is_constant and not kernel.is_exploding

    def test_dead_constant_and_exploding(self, detector):
        layer = detector.keras_model.get_layer("fpn_p5")
        before = layer.get_weights()
        flags = []
        for value in (0.0, 2.0, 1500.0, np.nan):
            layer.set_weights([np.full_like(before[0], value), before[1]])
            (kernel,) = (t for t in inspection.weight_statistics(detector) if t.name == "fpn_p5/kernel")
            flags.append((kernel.is_dead, kernel.is_constant, kernel.is_exploding))
        figure = inspection.draw_weight_histograms(detector, "fpn_p5")
        layer.set_weights(before)
        assert flags == [
            (True, True, False),
            (False, True, False),
            (False, True, True),
            (False, False, True),
        ]
        assert figure.axes[0].title.get_color() == "red"

    def test_figure_counts_every_value(self, detector):
        figure = inspection.draw_weight_histograms(detector, "rpn_.*|mrcnn_mask_deconv")
        sizes = {t.name: t.values.size for t in inspection.weight_statistics(detector)}
        drawn = {ax.get_title(): sum(bar.get_height() for bar in ax.patches) for ax in figure.axes}
        drawn = {name: count for name, count in drawn.items() if name}
        assert len(drawn) == 8 and "mrcnn_mask_deconv/kernel" in drawn
        assert drawn == {name: sizes[name] for name in drawn}
        with pytest.raises(ValueError, match="layer_regex='nothing'"):
            inspection.draw_weight_histograms(detector, "nothing")


def test_the_steps_together_are_the_result_of_detect(detector, image):
    result = inspection.compose_result(detector, image)
    expected = detector.detect([image])[0]
    assert len(expected["scores"]) > 1
    np.testing.assert_array_equal(result.rois, expected["rois"])
    np.testing.assert_array_equal(result.class_ids, expected["class_ids"])
    np.testing.assert_allclose(result.scores, expected["scores"], atol=1e-6)
    assert (result.masks != expected["masks"]).mean() < 1e-3  # a pixel at 0.5 may round either way
    figure = inspection.draw_result(result, NAMES)
    assert len(titles(figure)) == 4
    assert len(figure.axes[3].texts) == len(result.scores)


def test_names_with_dollar_signs_are_no_formulas(refined, masks, detector, image):
    names = ["BG", *[r"$\x$"] * 3]
    result = inspection.compose_result(detector, image)
    for figure in (
        inspection.draw_masks(masks, names),
        inspection.draw_box_filters(refined, names),
        inspection.draw_detections(refined, names),
        inspection.draw_refined_rois(refined, names),
        inspection.draw_classified_rois(refined, names),
        inspection.draw_result(result, names),
    ):
        figure.canvas.draw()


def test_names_of_layers_are_no_formulas(detector, image):
    activations = inspection.layer_activations(detector, image, names=["fpn_p2"])
    maps = {r"$\x$": activations.maps["fpn_p2"]}
    inspection.draw_activations(feature_maps.Activations(activations.input, maps), 1).canvas.draw()
    layer = keras.layers.Dense(2, name=r"$\x$")
    layer.build((None, 2))
    figure = inspection.draw_weight_histograms(SimpleNamespace(get_trainable_layers=lambda: [layer]))
    assert titles(figure) == [r"$\x$/kernel", r"$\x$/bias"]


def test_a_set_of_outputs_is_compiled_once(detector, image, monkeypatch):
    inspection.sort_anchors(detector, image)
    monkeypatch.setattr(backend, "compiled", lambda *_: pytest.fail("compiled again"))
    inspection.sort_anchors(detector, image)
    with pytest.raises(pytest.fail.Exception, match="compiled again"):
        inspection.layer_activations(detector, image, names=["res1_tiny"])
