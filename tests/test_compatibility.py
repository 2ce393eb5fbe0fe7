"""The names and signatures that programs for the Keras 2 library import and call."""

import importlib
import inspect

import keras
import numpy as np
import pytest

from mrcnn import model as modellib
from mrcnn import utils
from mrcnn.config import Config
from mrcnn.parallel_model import ParallelModel

# Every public name of each module. Methods and properties follow their class.
NAMES = {
    "config": "Config Config.display",
    "utils": """
        COCO_MODEL_URL extract_bboxes compute_iou compute_overlaps compute_overlaps_masks non_max_suppression
        apply_box_deltas box_refinement_graph box_refinement
        Dataset Dataset.add_class Dataset.add_image Dataset.image_reference Dataset.prepare
        Dataset.map_source_class_id Dataset.get_source_class_id Dataset.image_ids Dataset.source_image_link
        Dataset.load_image Dataset.load_mask
        resize_image resize_mask minimize_mask expand_mask mold_mask unmold_mask
        generate_anchors generate_pyramid_anchors trim_zeros compute_matches compute_ap compute_ap_range
        compute_recall batch_slice download_trained_weights norm_boxes denorm_boxes resize""",
    "model": """
        log BatchNorm compute_backbone_shapes identity_block conv_block resnet_graph
        apply_box_deltas_graph clip_boxes_graph ProposalLayer log2_graph PyramidROIAlign overlaps_graph
        detection_targets_graph DetectionTargetLayer refine_detections_graph DetectionLayer rpn_graph
        build_rpn_model fpn_classifier_graph build_fpn_mask_graph smooth_l1_loss rpn_class_loss_graph
        rpn_bbox_loss_graph mrcnn_class_loss_graph mrcnn_bbox_loss_graph mrcnn_mask_loss_graph
        load_image_gt build_detection_targets build_rpn_targets generate_random_rois data_generator
        MaskRCNN MaskRCNN.build MaskRCNN.find_last MaskRCNN.load_weights MaskRCNN.get_imagenet_weights
        MaskRCNN.compile MaskRCNN.set_trainable MaskRCNN.set_log_dir MaskRCNN.train MaskRCNN.mold_inputs
        MaskRCNN.unmold_detections MaskRCNN.detect MaskRCNN.detect_molded MaskRCNN.get_anchors
        MaskRCNN.ancestor MaskRCNN.find_trainable_layer MaskRCNN.get_trainable_layers MaskRCNN.run_graph
        compose_image_meta parse_image_meta parse_image_meta_graph mold_image unmold_image
        trim_zeros_graph batch_pack_graph norm_boxes_graph denorm_boxes_graph""",
    "visualize": """
        display_images random_colors apply_mask display_instances display_differences draw_rois draw_box
        display_top_masks plot_precision_recall plot_overlaps draw_boxes display_table
        display_weight_stats""",
    "parallel_model": "ParallelModel ParallelModel.summary",
}

# The signatures that scripts call: parameters in this order, with these defaults; more may follow.
SIGNATURES = {
    "config": ["Config()", "Config.display(self)"],
    "utils": [
        "extract_bboxes(mask)",
        "compute_iou(box, boxes, box_area, boxes_area)",
        "compute_overlaps(boxes1, boxes2)",
        "compute_overlaps_masks(masks1, masks2)",
        "non_max_suppression(boxes, scores, threshold)",
        "apply_box_deltas(boxes, deltas)",
        "box_refinement_graph(box, gt_box)",
        "box_refinement(box, gt_box)",
        "Dataset(class_map=None)",
        "Dataset.add_class(self, source, class_id, class_name)",
        "Dataset.add_image(self, source, image_id, path, **kwargs)",
        "Dataset.image_reference(self, image_id)",
        "Dataset.prepare(self, class_map=None)",
        "Dataset.map_source_class_id(self, source_class_id)",
        "Dataset.get_source_class_id(self, class_id, source)",
        "Dataset.source_image_link(self, image_id)",
        "Dataset.load_image(self, image_id)",
        "Dataset.load_mask(self, image_id)",
        "resize_image(image, min_dim=None, max_dim=None, min_scale=None, mode='square')",
        "resize_mask(mask, scale, padding, crop=None)",
        "minimize_mask(bbox, mask, mini_shape)",
        "expand_mask(bbox, mini_mask, image_shape)",
        "mold_mask(mask, config)",
        "unmold_mask(mask, bbox, image_shape)",
        "generate_anchors(scales, ratios, shape, feature_stride, anchor_stride)",
        "generate_pyramid_anchors(scales, ratios, feature_shapes, feature_strides, anchor_stride)",
        "trim_zeros(x)",
        "compute_matches(gt_boxes, gt_class_ids, gt_masks, pred_boxes, pred_class_ids, pred_scores, "
        "pred_masks, iou_threshold=0.5, score_threshold=0.0)",
        "compute_ap(gt_boxes, gt_class_ids, gt_masks, pred_boxes, pred_class_ids, pred_scores, "
        "pred_masks, iou_threshold=0.5)",
        "compute_ap_range(gt_box, gt_class_id, gt_mask, pred_box, pred_class_id, pred_score, pred_mask, "
        "iou_thresholds=None, verbose=1)",
        "compute_recall(pred_boxes, gt_boxes, iou)",
        "batch_slice(inputs, graph_fn, batch_size, names=None)",
        "download_trained_weights(coco_model_path, verbose=1)",
        "norm_boxes(boxes, shape)",
        "denorm_boxes(boxes, shape)",
        "resize(image, output_shape, order=1, mode='constant', cval=0, clip=True, preserve_range=False, "
        "anti_aliasing=False, anti_aliasing_sigma=None)",
    ],
    "model": [
        "log(text, array=None)",
        "compute_backbone_shapes(config, image_shape)",
        "identity_block(input_tensor, kernel_size, filters, stage, block, use_bias=True, train_bn=True)",
        "conv_block(input_tensor, kernel_size, filters, stage, block, strides=(2, 2), use_bias=True, "
        "train_bn=True)",
        "resnet_graph(input_image, architecture, stage5=False, train_bn=True)",
        "ProposalLayer(proposal_count, nms_threshold, config=None, **kwargs)",
        "PyramidROIAlign(pool_shape, **kwargs)",
        "DetectionTargetLayer(config, **kwargs)",
        "DetectionLayer(config=None, **kwargs)",
        "detection_targets_graph(proposals, gt_class_ids, gt_boxes, gt_masks, config)",
        "refine_detections_graph(rois, probs, deltas, window, config)",
        "rpn_graph(feature_map, anchors_per_location, anchor_stride)",
        "build_rpn_model(anchor_stride, anchors_per_location, depth)",
        "fpn_classifier_graph(rois, feature_maps, image_meta, pool_size, num_classes, train_bn=True, "
        "fc_layers_size=1024)",
        "build_fpn_mask_graph(rois, feature_maps, image_meta, pool_size, num_classes, train_bn=True)",
        "smooth_l1_loss(y_true, y_pred)",
        "rpn_class_loss_graph(rpn_match, rpn_class_logits)",
        "rpn_bbox_loss_graph(config, target_bbox, rpn_match, rpn_bbox)",
        "mrcnn_class_loss_graph(target_class_ids, pred_class_logits, active_class_ids)",
        "mrcnn_bbox_loss_graph(target_bbox, target_class_ids, pred_bbox)",
        "mrcnn_mask_loss_graph(target_masks, target_class_ids, pred_masks)",
        "load_image_gt(dataset, config, image_id, augment=False, augmentation=None, use_mini_mask=False)",
        "build_detection_targets(rpn_rois, gt_class_ids, gt_boxes, gt_masks, config)",
        "build_rpn_targets(image_shape, anchors, gt_class_ids, gt_boxes, config)",
        "generate_random_rois(image_shape, count, gt_class_ids, gt_boxes)",
        "data_generator(dataset, config, shuffle=True, augment=False, augmentation=None, random_rois=0, "
        "batch_size=1, detection_targets=False, no_augmentation_sources=None)",
        "MaskRCNN(mode, config, model_dir)",
        "MaskRCNN.build(self, mode, config)",
        "MaskRCNN.find_last(self)",
        "MaskRCNN.load_weights(self, filepath, by_name=False, exclude=None)",
        "MaskRCNN.get_imagenet_weights(self)",
        "MaskRCNN.compile(self, learning_rate, momentum)",
        "MaskRCNN.set_trainable(self, layer_regex, keras_model=None, indent=0, verbose=1)",
        "MaskRCNN.set_log_dir(self, model_path=None)",
        "MaskRCNN.train(self, train_dataset, val_dataset, learning_rate, epochs, layers, "
        "augmentation=None, custom_callbacks=None, no_augmentation_sources=None)",
        "MaskRCNN.mold_inputs(self, images)",
        "MaskRCNN.unmold_detections(self, detections, mrcnn_mask, original_image_shape, image_shape, window)",
        "MaskRCNN.detect(self, images, verbose=0)",
        "MaskRCNN.detect_molded(self, molded_images, image_metas, verbose=0)",
        "MaskRCNN.get_anchors(self, image_shape)",
        "MaskRCNN.ancestor(self, tensor, name, checked=None)",
        "MaskRCNN.find_trainable_layer(self, layer)",
        "MaskRCNN.get_trainable_layers(self)",
        "MaskRCNN.run_graph(self, images, outputs, image_metas=None)",
        "compose_image_meta(image_id, original_image_shape, image_shape, window, scale, active_class_ids)",
        "parse_image_meta(meta)",
        "parse_image_meta_graph(meta)",
        "mold_image(images, config)",
        "unmold_image(normalized_images, config)",
        "trim_zeros_graph(boxes, name='trim_zeros')",
        "batch_pack_graph(x, counts, num_rows)",
        "norm_boxes_graph(boxes, shape)",
        "denorm_boxes_graph(boxes, shape)",
    ],
    "visualize": [
        "display_images(images, titles=None, cols=4, cmap=None, norm=None, interpolation=None)",
        "random_colors(N, bright=True)",
        "apply_mask(image, mask, color, alpha=0.5)",
        "display_instances(image, boxes, masks, class_ids, class_names, scores=None, title='', "
        "figsize=(16, 16), ax=None, show_mask=True, show_bbox=True, colors=None, captions=None)",
        "display_differences(image, gt_box, gt_class_id, gt_mask, pred_box, pred_class_id, pred_score, "
        "pred_mask, class_names, title='', ax=None, show_mask=True, show_box=True, iou_threshold=0.5, "
        "score_threshold=0.5)",
        "draw_rois(image, rois, refined_rois, mask, class_ids, class_names, limit=10)",
        "draw_box(image, box, color)",
        "display_top_masks(image, mask, class_ids, class_names, limit=4)",
        "plot_precision_recall(AP, precisions, recalls)",
        "plot_overlaps(gt_class_ids, pred_class_ids, pred_scores, overlaps, class_names, threshold=0.5)",
        "draw_boxes(image, boxes=None, refined_boxes=None, masks=None, captions=None, visibilities=None, "
        "title='', ax=None)",
        "display_table(table)",
        "display_weight_stats(model)",
    ],
    "parallel_model": ["ParallelModel(keras_model, gpu_count)"],
}


def member(module, name):
    value = importlib.import_module(f"mrcnn.{module}")
    for part in name.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize(
    "module, name", [(module, name) for module, names in NAMES.items() for name in names.split()]
)
def test_name_exists(module, name):
    value = member(module, name)
    assert callable(value) or isinstance(value, (str, property))


def parameters(text):
    """(name, default) of each parameter of a written signature, without self and **kwargs."""
    expected = inspect.signature(eval(f"lambda {text[text.index('(') + 1 : -1]}: None")).parameters.values()
    return [(p.name, p.default) for p in expected if p.name != "self" and p.kind is not p.VAR_KEYWORD]


@pytest.mark.parametrize(
    "module, text", [(module, text) for module, texts in SIGNATURES.items() for text in texts]
)
def test_signature(module, text):
    actual = list(inspect.signature(member(module, text[: text.index("(")])).parameters.values())
    actual = [p for p in actual if p.name != "self"]
    expected = parameters(text)
    # A layer is loaded from its numbers, without a Config.
    may_have_default = {"config"} if text.startswith("DetectionTargetLayer") else set()
    assert [p.name for p in actual[: len(expected)]] == [name for name, _ in expected]
    for p, (name, default) in zip(actual, expected, strict=False):
        assert p.default == default or name in may_have_default, name
    for p in actual[len(expected) :]:
        assert p.default is not p.empty or p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL), p.name


def test_imports_as_scripts_write_them():
    names = {}
    exec(
        "from mrcnn import utils, visualize\n"
        "from mrcnn import model as modellib\n"
        "import mrcnn.model as same_modellib\n"
        "from mrcnn.config import Config\n"
        "from mrcnn.model import log, MaskRCNN\n"
        "from mrcnn.visualize import display_images\n"
        "from mrcnn.parallel_model import ParallelModel\n",
        names,
    )
    assert names["modellib"] is names["same_modellib"]
    assert names["log"] is names["modellib"].log


def test_a_config_is_written_as_a_class():
    class BalloonConfig(Config):
        NAME = "balloon"
        IMAGES_PER_GPU = 3
        NUM_CLASSES = 1 + 1
        STEPS_PER_EPOCH = 100
        DETECTION_MIN_CONFIDENCE = 0.9

    config = BalloonConfig()
    assert (config.BATCH_SIZE, config.IMAGE_META_SIZE, config.NAME) == (3, 14, "balloon")


def test_log_prints_one_line(capsys):
    modellib.log("image", np.array([[0, 255]], np.uint8))
    line = capsys.readouterr().out
    assert (
        line
        == "image                    shape: (1, 2)                min:    0.00000  max:  255.00000  uint8\n"
    )
    modellib.log("Starting")
    assert capsys.readouterr().out == "Starting\n"


class TestTensorHelpers:
    def test_batch_slice(self):
        x, y = np.arange(6.0).reshape(3, 2), np.ones((3, 2))
        total, product = utils.batch_slice([x, y], lambda a, b: (a + b, a * b), 2)
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(total), (x + y)[:2])
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(product), x[:2])
        alone = utils.batch_slice(x, lambda a: a * 2, 3, names=["doubled"])
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(alone), 2 * x)
        listed = utils.batch_slice([x], lambda a: [a * 2], 3)  # one output is one tensor, also in a list
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(listed), 2 * x)

    def test_box_refinement_graph(self):
        box, target = np.array([[0, 0, 10, 20]]), np.array([[5, 0, 15, 20]])
        deltas = keras.ops.convert_to_numpy(utils.box_refinement_graph(box, target))
        np.testing.assert_allclose(deltas, utils.box_refinement(box, target), atol=1e-6)

    def test_parse_image_meta_graph(self):
        meta = modellib.compose_image_meta(7, (30, 40, 3), (64, 64, 3), (8, 0, 56, 64), 1.6, [1, 0, 1])[None]
        fields = modellib.parse_image_meta_graph(keras.ops.convert_to_tensor(meta))
        expected = modellib.parse_image_meta(meta)
        assert fields.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(keras.ops.convert_to_numpy(fields[name]), value, rtol=1e-6)


class TestLayersWithAConfig:
    @pytest.fixture
    def config(self):
        class SmallConfig(Config):
            PRE_NMS_LIMIT = 77
            RPN_BBOX_STD_DEV = np.array([0.5, 0.5, 1.0, 1.0])
            BBOX_STD_DEV = np.array([0.25, 0.25, 0.5, 0.5])
            DETECTION_MIN_CONFIDENCE = 0.4
            DETECTION_NMS_THRESHOLD = 0.2
            DETECTION_MAX_INSTANCES = 11
            SOFT_NMS_SIGMA = 0.4
            DETECTIONS_PER_CLASS = True
            TRAIN_ROIS_PER_IMAGE = 20
            ROI_POSITIVE_RATIO = 0.5
            MASK_SHAPE = (14, 14)
            USE_MINI_MASK = False
            ROI_POSITIVE_IOU = 0.6
            CROWD_IOU = 0.01
            ROI_INCLUDE_GT = True

        return SmallConfig()

    def layers(self, config):
        proposals = modellib.ProposalLayer(100, 0.7, config, name="ROI")
        return proposals, modellib.DetectionLayer(config), modellib.DetectionTargetLayer(config)

    def test_the_config_gives_the_numbers(self, config):
        proposals, detections, targets = (layer.get_config() for layer in self.layers(config))
        assert (proposals["proposal_count"], proposals["nms_threshold"]) == (100, 0.7)
        assert (proposals["name"], proposals["pre_nms_limit"]) == ("ROI", 77)
        assert tuple(proposals["bbox_std_dev"]) == (0.5, 0.5, 1.0, 1.0)
        names = ("min_confidence", "nms_threshold", "max_instances", "soft_nms_sigma", "per_class")
        assert [detections[name] for name in names] == [0.4, 0.2, 11, 0.4, True]
        names = (
            "rois_per_image",
            "positive_ratio",
            "use_mini_mask",
            "positive_iou",
            "crowd_iou",
            "include_gt",
        )
        assert [targets[name] for name in names] == [20, 0.5, False, 0.6, 0.01, True]
        assert tuple(targets["mask_shape"]) == (14, 14)
        for layer in (detections, targets):
            assert tuple(layer["bbox_std_dev"]) == (0.25, 0.25, 0.5, 0.5)

    def test_keywords_win(self, config):
        assert modellib.DetectionLayer(config, max_instances=5).max_instances == 5

    def test_saved_layers_are_loaded_without_a_config(self, config):
        for layer in self.layers(config):
            loaded = keras.layers.deserialize(keras.layers.serialize(layer))
            assert type(loaded) is type(layer)
            assert loaded.get_config() == layer.get_config()

    def test_saved_names_are_not_those_of_the_network(self, config):
        saved = [keras.saving.get_registered_name(type(layer)) for layer in self.layers(config)]
        saved += [keras.saving.get_registered_name(type(layer).__base__) for layer in self.layers(config)]
        assert len(set(saved)) == 6


class TestParallelModel:
    def small(self):
        x = keras.Input((3,), name="input_image")
        return keras.Model(x, keras.layers.Dense(2, name="mrcnn_mask")(x), name="mask_rcnn")

    def wrapped(self):
        inner = self.small()
        with pytest.warns(DeprecationWarning, match="GPU_COUNT"):
            return inner, ParallelModel(inner, 2)

    def test_computes_as_the_inner_model(self):
        inner, model = self.wrapped()
        x = np.random.default_rng(1).normal(size=(4, 3)).astype("float32")
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(model(x)), keras.ops.convert_to_numpy(inner(x)), rtol=1e-6
        )
        assert (model.inner_model, model.gpu_count) == (inner, 2)

    def test_weight_files_are_those_of_the_inner_model(self, tmp_path):
        inner, model = self.wrapped()
        path = str(tmp_path / "a.weights.h5")
        model.save_weights(path)
        single = self.small()
        single.load_weights(path)
        for actual, expected in zip(single.get_weights(), inner.get_weights(), strict=True):
            np.testing.assert_array_equal(actual, expected)

        single.set_weights([np.full_like(w, 5) for w in single.get_weights()])
        single.save_weights(path, overwrite=True)
        model.load_weights(path)
        assert all((w == 5).all() for w in inner.get_weights())

    def test_summary_shows_both(self, capsys):
        _, model = self.wrapped()
        model.summary()
        assert capsys.readouterr().out.count("mrcnn_mask") >= 2

    @pytest.mark.parametrize("count", [1, 0, -2])
    def test_at_least_two_devices(self, count):
        with pytest.raises(ValueError, match=f"gpu_count={count}"):
            ParallelModel(self.small(), count)
