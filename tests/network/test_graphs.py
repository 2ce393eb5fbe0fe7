"""The graphs: every setting reaches its layer; names and shapes of inputs and outputs."""

import keras
import numpy as np
import pytest
from tiny_model import TinyConfig

from mrcnn.config.conventions import DELTA_LIMIT
from mrcnn.network import graphs, parts
from mrcnn.network.backbone import resnet_graph
from mrcnn.network.convolution import MaxPooling2D


class DistinctConfig(TinyConfig):
    """Every setting that a layer reads differs from the default of that layer and of the Config."""

    RPN_ANCHOR_SCALES = (5, 9, 17, 33, 65)
    RPN_ANCHOR_RATIOS = (0.6, 1.7)
    RPN_ANCHOR_STRIDE = 2
    RPN_NMS_THRESHOLD = 0.61
    RPN_POSITIVE_IOU = 0.62
    RPN_NEGATIVE_IOU = 0.23
    RPN_TRAIN_ANCHORS_PER_IMAGE = 34
    RPN_BBOX_STD_DEV = np.array([0.11, 0.12, 0.21, 0.22])
    RPN_CHANNELS = 9
    PRE_NMS_LIMIT = 57
    POST_NMS_ROIS_TRAINING = 41
    POST_NMS_ROIS_INFERENCE = 31
    TRAIN_ROIS_PER_IMAGE = 13
    ROI_POSITIVE_RATIO = 0.4
    ROI_POSITIVE_IOU = 0.55
    ROI_INCLUDE_GT = True
    CROWD_IOU = 0.005
    BBOX_STD_DEV = np.array([0.13, 0.14, 0.23, 0.24])
    POOL_SIZE = 3
    MASK_POOL_SIZE = 5
    MASK_SHAPE = (10, 10)
    USE_MINI_MASK = False
    FPN_CLASSIF_FC_LAYERS_SIZE = 17
    MASK_HEAD_CHANNELS = 11
    TOP_DOWN_PYRAMID_SIZE = 7
    MAX_GT_INSTANCES = 6
    DETECTION_MAX_INSTANCES = 12
    DETECTION_MIN_CONFIDENCE = 0.15
    DETECTION_NMS_THRESHOLD = 0.35
    SOFT_NMS_SIGMA = 0.45
    TRAIN_BN = None
    SEED = 77


SHARED = {
    "roi_align_classifier": {"pool_shape": (3, 3)},
    "roi_align_mask": {"pool_shape": (5, 5)},
    "fpn_p2": {"filters": 7},
    "mrcnn_class_conv1": {"filters": 17, "kernel_size": 3},
    "mrcnn_class_bn1": {"train_bn": None},
    "mrcnn_mask_conv1": {"filters": 11},
    "mrcnn_mask_bn1": {"train_bn": None},
}
PROPOSALS = {"nms_threshold": 0.61, "pre_nms_limit": 57, "bbox_std_dev": (0.11, 0.12, 0.21, 0.22)}
TRAINING = {
    "ROI": {"proposal_count": 41, **PROPOSALS},
    "anchors": {
        "scales": (5, 9, 17, 33, 65),
        "ratios": (0.6, 1.7),
        "strides": (4, 8, 16, 32, 64),
        "anchor_stride": 2,
    },
    "rpn_targets": {
        "scales": (5, 9, 17, 33, 65),
        "ratios": (0.6, 1.7),
        "strides": (4, 8, 16, 32, 64),
        "anchor_stride": 2,
        "positive_iou": 0.62,
        "negative_iou": 0.23,
        "crowd_iou": 0.005,
        "anchors_per_image": 34,
        "bbox_std_dev": (0.11, 0.12, 0.21, 0.22),
        "seed": 77,
    },
    "proposal_targets": {
        "rois_per_image": 13,
        "positive_ratio": 0.4,
        "bbox_std_dev": (0.13, 0.14, 0.23, 0.24),
        "mask_shape": (10, 10),
        "use_mini_mask": False,
        "positive_iou": 0.55,
        "crowd_iou": 0.005,
        "include_gt": True,
        "negatives_without_objects": True,
        "max_instances": 6,
        "seed": 77,
    },
    "mask_slots": {"count": 13},
}
INFERENCE = {
    "ROI": {"proposal_count": 31, **PROPOSALS},
    "mrcnn_detection": {
        "bbox_std_dev": (0.13, 0.14, 0.23, 0.24),
        "min_confidence": 0.15,
        "nms_threshold": 0.35,
        "max_instances": 12,
        "soft_nms_sigma": 0.45,
    },
}


def model_of(graph):
    return keras.Model(graph.inputs, graph.outputs)


@pytest.mark.parametrize(
    ("build", "expected"),
    [(graphs.training_graph, TRAINING), (graphs.inference_graph, INFERENCE)],
    ids=["training", "inference"],
)
def test_settings_reach_their_layers(build, expected):
    model = model_of(build(DistinctConfig()))
    for name, attributes in {**SHARED, **expected}.items():
        layer = model.get_layer(name)
        found = {attribute: getattr(layer, attribute) for attribute in attributes}
        assert found == attributes, name
    rpn = model.get_layer("rpn_model")
    shared = rpn.get_layer("rpn_conv_shared")
    assert (shared.filters, shared.strides) == (9, (2, 2))
    assert rpn.get_layer("rpn_class_raw").filters == 2 * 2


def test_the_heads_do_not_learn_objects_without_masks_as_background():
    """Two objects, each with a perfect proposal. The network learns from one of them."""
    config = DistinctConfig()
    config.MAX_GT_INSTANCES, config.ROI_INCLUDE_GT = 1, False
    inputs = {**parts.image_inputs(config), **parts.ground_truth_inputs(config)}
    proposals = keras.Input((3, 4))
    model = keras.Model([proposals, *inputs.values()], parts.roi_targets(inputs, proposals, config))
    side = config.IMAGE_MAX_DIM
    boxes = np.array([[[0, 0, side // 4, side // 4], [side // 2, side // 2, side, side]]], "float32")
    normalized = (boxes - [0, 0, 1, 1]) / (side - 1)
    background = [[[0, 0.8, 0.1, 0.9]]]
    arrays = {
        "input_image": np.zeros((1, side, side, 3)),
        "input_image_meta": np.zeros((1, config.IMAGE_META_SIZE)),
        "input_gt_class_ids": np.array([[1, 1]]),
        "input_gt_boxes": boxes,
        "input_gt_masks": np.ones((1, side, side, 1), bool),
    }
    arrays = [np.concatenate([normalized, background], axis=1), *(arrays[name] for name in inputs)]
    rois, class_ids, _, _ = model(arrays)
    np.testing.assert_allclose(
        np.asarray(rois)[0, :3], [normalized[0, 0], *background[0], [0] * 4], atol=1e-6
    )
    assert np.asarray(class_ids)[0].tolist() == [1] + [0] * 12


def test_the_settings_of_this_test_differ_from_the_defaults():
    default, config = TinyConfig(), DistinctConfig()
    names = [name for name in vars(DistinctConfig) if name.isupper()]
    same = [name for name in names if np.array_equal(getattr(default, name), getattr(config, name))]
    assert same == ["ROI_INCLUDE_GT"]  # the default of the layer is False


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"TRAIN_BN": False}, 3),  # the slots of positives: int(12 * 0.33)
        ({"TRAIN_BN": None}, 12),
        ({"TRAIN_BN": True, "NORM": "group"}, 3),
        ({"TRAIN_BN": True, "MASK_POSITIVES_ONLY": True}, 3),
        ({"TRAIN_BN": False, "MASK_POSITIVES_ONLY": False}, 12),
    ],
    ids=str,
)
def test_mask_slots(settings, count):
    config = TinyConfig()
    for name, value in settings.items():
        setattr(config, name, value)
    graph = graphs.training_graph(config)
    assert graph.outputs["mrcnn_mask"].shape == (None, count, 28, 28, 4)
    assert graph.outputs["target_mask"].shape == (None, count, 28, 28)


def test_batch_norms_of_the_heads_alone():
    config = TinyConfig()
    config.BACKBONE, config.TRAIN_BN, config.FPN_NORM = "efficientnetlite0", "heads", True
    config.COMPUTE_BACKBONE_SHAPE = None
    network = graphs.training_graph(config)
    model = keras.Model(network.inputs, network.outputs)
    norms = {layer.name: layer.train_bn for layer in model.layers if hasattr(layer, "train_bn")}
    of_heads = {name for name in norms if name.startswith(("fpn_", "mrcnn_"))}
    assert {"fpn_p2_bn", "fpn_c5p5_bn", "mrcnn_class_bn1", "mrcnn_mask_bn1"} <= of_heads
    assert {"stem_bn", "block7a_project_bn"} <= norms.keys() - of_heads
    assert {norms[name] for name in of_heads} == {None}
    assert {norms[name] for name in norms.keys() - of_heads} == {False}


def test_inputs_and_outputs_of_training():
    graph = graphs.training_graph(TinyConfig())
    assert list(graph.inputs) == [
        "input_image",
        "input_image_meta",
        "input_gt_class_ids",
        "input_gt_boxes",
        "input_gt_masks",
    ]
    shapes = {name: tuple(x.shape[1:]) for name, x in graph.outputs.items()}
    anchors = 3 * (16**2 + 8**2 + 4**2 + 2**2 + 1)
    assert shapes == {
        "rpn_class_logits": (anchors, 2),
        "rpn_class": (anchors, 2),
        "rpn_bbox": (anchors, 4),
        "mrcnn_class_logits": (12, 4),
        "mrcnn_class": (12, 4),
        "mrcnn_bbox": (12, 4, 4),
        "mrcnn_mask": (3, 28, 28, 4),
        "ROI": (40, 4),
        "output_rois": (12, 4),
        "target_class_ids": (12,),
        "target_bbox": (12, 4),
        "target_mask": (3, 28, 28),
        "target_rpn_match": (anchors, 1),
        "target_rpn_bbox": (256, 4),
    }


def test_targets_and_rois_may_be_inputs():
    config = TinyConfig()
    config.RPN_TARGETS_IN_GRAPH, config.USE_RPN_ROIS = False, False
    graph = graphs.training_graph(config)
    assert list(graph.inputs)[-3:] == ["input_rpn_match", "input_rpn_bbox", "input_roi"]
    names = {layer.name for layer in model_of(graph).layers}
    assert "rpn_targets" not in names


def test_inputs_and_outputs_of_inference():
    graph = graphs.inference_graph(TinyConfig())
    assert list(graph.inputs) == ["input_image", "input_image_meta", "input_anchors"]
    shapes = {name: tuple(x.shape[1:]) for name, x in graph.outputs.items()}
    assert shapes["mrcnn_detection"] == (10, 6)
    assert shapes["mrcnn_mask"] == (10, 28, 28, 4)
    assert shapes["ROI"] == (40, 4)
    assert [shapes[f"P{level}"] for level in range(2, 7)] == [(side, side, 8) for side in (16, 8, 4, 2, 1)]
    assert list(graph.outputs)[:7] == [
        "mrcnn_detection",
        "mrcnn_class",
        "mrcnn_bbox",
        "mrcnn_mask",
        "ROI",
        "rpn_class",
        "rpn_bbox",
    ]


class ConventionsConfig(DistinctConfig):
    """The settings of other libraries that reach layers."""

    CONVENTIONS = "torchvision"
    PRE_NMS_LIMIT_TRAINING = 77
    BATCH_NORM_EPSILON = 0.002
    FROZEN_BN = True
    FPN_NORM = True
    HEAD_NORM = "convolutions"
    RPN_CONVOLUTIONS = 2
    BOX_HEAD_CONVOLUTIONS = 2


CONVENTIONS_SHARED = {
    "roi_align_classifier": {"method": "average"},
    "roi_align_mask": {"method": "average"},
    "fpn_p2": {"use_bias": False},
    "fpn_p2_bn": {"epsilon": 0.002, "frozen": True, "train_bn": None},
    "fpn_c5p5_bn": {"epsilon": 0.002},
    "mrcnn_box_conv2": {"filters": 7, "kernel_size": 3, "use_bias": False},
    "mrcnn_box_bn2": {"epsilon": 0.002, "frozen": True},
    "mrcnn_class_conv1": {"use_bias": True},
    "mrcnn_mask_conv1": {"use_bias": False},
}
LEVEL_PROPOSALS = {"delta_limit": DELTA_LIMIT, "min_side": 1e-3, "anchor_stride": 2, "nms_threshold": 0.61}


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (
            graphs.training_graph,
            {
                "ROI": {**LEVEL_PROPOSALS, "pre_nms_limit": 77, "proposal_count": 41},
                "anchors": {"rounded": True, "fill_image": True, "half_open": True},
                "rpn_targets": {"rounded": True, "fill_image": True},
                "norm_gt_boxes": {"half_open": True},
                "proposal_targets": {"negatives_fill": True, "mask_method": "average", "soft_masks": True},
            },
        ),
        (
            graphs.inference_graph,
            {
                "ROI": {**LEVEL_PROPOSALS, "pre_nms_limit": 57, "proposal_count": 31},
                "mrcnn_detection": {
                    "per_class": True,
                    "half_open_boxes": True,
                    "delta_limit": DELTA_LIMIT,
                    "min_side": 1e-2,
                },
            },
        ),
    ],
    ids=["training", "inference"],
)
def test_conventions_reach_their_layers(build, expected):
    model = model_of(build(ConventionsConfig()))
    for name, attributes in {**CONVENTIONS_SHARED, **expected}.items():
        layer = model.get_layer(name)
        assert {attribute: getattr(layer, attribute) for attribute in attributes} == attributes, name
    names = {layer.name for layer in model.layers}
    assert not {"mrcnn_class_bn1", "mrcnn_class_conv2", "mrcnn_box_conv3"} & names
    rpn = model.get_layer("rpn_model")
    assert {"rpn_conv_shared", "rpn_conv_shared2", "rpn_objectness"} <= {layer.name for layer in rpn.layers}


def test_heads_without_normalization():
    config = TinyConfig()
    config.HEAD_NORM = "none"
    model = model_of(graphs.inference_graph(config))
    assert [layer.name for layer in model.layers if "_bn" in layer.name and "mrcnn" in layer.name] == []
    assert model.get_layer("mrcnn_mask_conv1").use_bias


@pytest.mark.parametrize(
    ("style", "stride_1x1", "stride_3x3", "symmetric"),
    [("keras", (2, 2), (1, 1), False), ("caffe", (2, 2), (1, 1), True), ("pytorch", (1, 1), (2, 2), True)],
)
def test_resnet_styles(style, stride_1x1, stride_3x3, symmetric):
    image = keras.Input((64, 64, 3))
    stages = resnet_graph(image, "resnet50", stage5=False, style=style)
    model = keras.Model(image, stages[3])
    assert model.get_layer("res3a_branch2a").strides == stride_1x1
    assert model.get_layer("res3a_branch2b").strides == stride_3x3
    assert model.get_layer("res3a_branch2b").symmetric == symmetric
    assert model.get_layer("res3a_branch1").strides == (2, 2)
    assert model.get_layer("conv1").use_bias == (style == "keras")
    pools = [layer for layer in model.layers if isinstance(layer, MaxPooling2D)]
    assert [layer.symmetric for layer in pools] == [symmetric]
