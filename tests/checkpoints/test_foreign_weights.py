"""Weights of torchvision and Detectron2 under our names: none is left over, every layer computes the same.

The keys and shapes in torchvision_keys.json are those of torchvision 0.28. Detectron2's are written out here.
"""

import functools
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops

from mrcnn import config
from mrcnn.checkpoints import foreign
from mrcnn.checkpoints.foreign import classes, names, transforms
from mrcnn.checkpoints.weights import model_weights
from mrcnn.errors import InvalidDataError
from mrcnn.geometry import anchors, boxes
from mrcnn.network import graphs
from mrcnn.network.backbone import resnet_graph
from mrcnn.network.rpn import build_rpn_model

TORCHVISION_KEYS = json.loads(Path(__file__).with_name("torchvision_keys.json").read_text())


def detectron2_keys(blocks=(3, 4, 6, 3), categories=80, groups=1):
    """Keys and shapes of mask_rcnn_R_50_FPN, R_101 with other `blocks`, or X_101 with 32 groups of 8."""
    shapes = {}

    def layer(key, *shape, bias=True):
        shapes[f"{key}.weight"] = shape
        if bias:
            shapes[f"{key}.bias"] = shape[:1]

    def conv_norm(key, *shape):
        layer(key, *shape, bias=False)
        for name in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{key}.norm.{name}"] = shape[:1]

    bottom_up = "backbone.bottom_up"
    conv_norm(f"{bottom_up}.stem.conv1", 64, 3, 7, 7)
    inputs = 64
    for stage, count in zip((2, 3, 4, 5), blocks, strict=True):
        width, outputs = (16 if groups == 1 else 2 * groups) * 2**stage, 64 * 2**stage
        for index in range(count):
            block = f"{bottom_up}.res{stage}.{index}"
            if index == 0:
                conv_norm(f"{block}.shortcut", outputs, inputs, 1, 1)
            conv_norm(f"{block}.conv1", width, inputs, 1, 1)
            conv_norm(f"{block}.conv2", width, width // groups, 3, 3)
            conv_norm(f"{block}.conv3", outputs, width, 1, 1)
            inputs = outputs
        layer(f"backbone.fpn_lateral{stage}", 256, outputs, 1, 1)
        layer(f"backbone.fpn_output{stage}", 256, 256, 3, 3)
    rpn = "proposal_generator.rpn_head"
    layer(f"{rpn}.conv", 256, 256, 3, 3)
    layer(f"{rpn}.objectness_logits", 3, 256, 1, 1)
    layer(f"{rpn}.anchor_deltas", 12, 256, 1, 1)
    layer("roi_heads.box_head.fc1", 1024, 256 * 7 * 7)
    layer("roi_heads.box_head.fc2", 1024, 1024)
    layer("roi_heads.box_predictor.cls_score", categories + 1, 1024)
    layer("roi_heads.box_predictor.bbox_pred", 4 * categories, 1024)
    for number in (1, 2, 3, 4):
        layer(f"roi_heads.mask_head.mask_fcn{number}", 256, 256, 3, 3)
    layer("roi_heads.mask_head.deconv", 256, 256, 2, 2)
    shapes["roi_heads.mask_head.deconv.bias"] = (256,)
    layer("roi_heads.mask_head.predictor", categories, 256, 1, 1)
    return shapes


def zeros(shapes):
    """Arrays of these shapes that take no memory."""
    return {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}


@functools.cache
def resnet_shapes(architecture):
    """{layer name: shape of its first weight} of our backbone."""
    image = keras.Input((64, 64, 3))
    model = keras.Model(image, resnet_graph(image, architecture, stage5=True))
    return {layer.name: tuple(layer.weights[0].shape) for layer in model.layers if layer.weights}


def check_backbone(weights):
    backbone = resnet_shapes(weights.backbone)
    assert {name for name in weights.layers if name.startswith(("conv", "res", "bn"))} == set(backbone)
    for name, shape in backbone.items():
        values = weights.layers[name]
        assert values[0].shape == shape, name
        assert len(values) == (4 if name.startswith("bn") else 1), name


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("kind", TORCHVISION_KEYS)
def test_all_keys_of_torchvision_belong_to_a_layer(kind):
    weights = foreign.name_weights(zeros(TORCHVISION_KEYS[kind]))
    assert (weights.kind, weights.backbone, weights.num_classes) == (kind, "resnet50", 91)
    assert weights.missing == weights.unused == ()
    assert weights.class_names[:3] == ("BG", "person", "bicycle")
    check_backbone(weights)
    rpn_convolutions = {"torchvision": 1, "torchvision-v2": 2}[kind]
    assert [values.shape for values in weights.layers["rpn_model"]] == [
        *([(3, 3, 256, 256), (256,)] * rpn_convolutions),
        *((1, 1, 256, 6), (6,), (1, 1, 256, 12), (12,)),
    ]


HEADS = {
    "fpn_c5p5": [(1, 1, 2048, 256), (256,)],
    "fpn_c2p2": [(1, 1, 256, 256), (256,)],
    "fpn_p3": [(3, 3, 256, 256), (256,)],
    "rpn_model": [(3, 3, 256, 256), (256,), (1, 1, 256, 6), (6,), (1, 1, 256, 12), (12,)],
    "mrcnn_class_conv1": [(7, 7, 256, 1024), (1024,)],
    "mrcnn_class_conv2": [(1, 1, 1024, 1024), (1024,)],
    "mrcnn_mask_conv4": [(3, 3, 256, 256), (256,)],
    "mrcnn_mask_deconv": [(2, 2, 256, 256), (256,)],
}


def class_shapes(count):
    return {
        "mrcnn_class_logits": [(1024, count), (count,)],
        "mrcnn_bbox_fc": [(1024, 4 * count), (4 * count,)],
        "mrcnn_mask": [(1, 1, 256, count), (count,)],
    }


def shapes_of(weights):
    return {name: [array.shape for array in values] for name, values in weights.layers.items()}


def test_shapes_of_the_heads():
    weights = foreign.name_weights(zeros(TORCHVISION_KEYS["torchvision"]))
    assert (HEADS | class_shapes(91)).items() <= shapes_of(weights).items()
    weights = foreign.name_weights(zeros(detectron2_keys()))
    assert (HEADS | class_shapes(81)).items() <= shapes_of(weights).items()
    weights = foreign.name_weights(zeros(TORCHVISION_KEYS["torchvision-v2"]))
    without_bias = {
        "fpn_c5p5": [(1, 1, 2048, 256)],
        "fpn_p3": [(3, 3, 256, 256)],
        "mrcnn_box_conv1": [(3, 3, 256, 256)],
        "mrcnn_mask_conv4": [(3, 3, 256, 256)],
        **dict.fromkeys(("fpn_c5p5_bn", "fpn_p3_bn", "mrcnn_box_bn4", "mrcnn_mask_bn1"), [(256,)] * 4),
        "mrcnn_class_conv1": [(7, 7, 256, 1024), (1024,)],
    }
    assert (without_bias | class_shapes(91)).items() <= shapes_of(weights).items()
    assert "mrcnn_class_conv2" not in weights.layers


@pytest.mark.parametrize(
    ("blocks", "backbone"), [((3, 4, 6, 3), "resnet50"), ((3, 4, 23, 3), "resnet101"), ((3, 8, 36, 3), None)]
)
def test_all_keys_of_detectron2_belong_to_a_layer(blocks, backbone):
    extra = {"proposal_generator.anchor_generator.cell_anchors.0": (3, 4), "pixel_mean": (3, 1, 1)}
    weights = foreign.name_weights(zeros(detectron2_keys(blocks) | extra))
    assert (weights.kind, weights.backbone, weights.num_classes) == ("detectron2", backbone, 81)
    assert weights.class_names == classes.COCO_CLASS_NAMES
    assert weights.missing == weights.unused == ()
    if backbone is not None:
        check_backbone(weights)


def old_names(shapes):
    """The keys of torchvision's first release."""
    renamed = {}
    for key, shape in shapes.items():
        key = key.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        for index in range(4):
            key = key.replace(f"_blocks.{index}.0.", f"_blocks.{index}.")
            key = key.replace(f"mask_head.{index}.0.", f"mask_head.mask_fcn{index + 1}.")
        renamed[key] = shape
    return renamed


def test_old_names_of_torchvision():
    renamed = old_names(TORCHVISION_KEYS["torchvision"])
    assert "roi_heads.mask_head.mask_fcn4.bias" in renamed
    weights = foreign.name_weights(zeros(renamed))
    assert weights.missing == weights.unused == ()
    assert shapes_of(weights) == shapes_of(foreign.name_weights(zeros(TORCHVISION_KEYS["torchvision"])))


def test_what_is_missing_or_left_over_is_named():
    shapes = dict(TORCHVISION_KEYS["torchvision"])
    del shapes["backbone.fpn.inner_blocks.3.0.bias"]
    shapes["roi_heads.keypoint_head.0.weight"] = (3,)
    weights = foreign.name_weights(zeros(shapes))
    assert weights.missing == ("fpn_c5p5",)
    assert weights.unused == ("backbone.fpn.inner_blocks.3.0.weight", "roi_heads.keypoint_head.0.weight")


def test_user_checkpoints_have_no_class_names():
    weights = foreign.name_weights(zeros(detectron2_keys(categories=2)))
    assert (weights.num_classes, weights.class_names) == (3, None)
    assert class_shapes(3).items() <= shapes_of(weights).items()


def test_another_network_is_refused():
    state = zeros({"conv1.weight": (64, 3, 7, 7), "fc.weight": (1000, 2048)})
    with pytest.raises(
        InvalidDataError, match=r"r50\.pth: The file holds.*_v2.*Detectron2.*2 keys, starting with \['"
    ):
        foreign.name_weights(state, "r50.pth")


def test_a_shape_that_does_not_suit_its_key():
    state = zeros(TORCHVISION_KEYS["torchvision"] | {"backbone.body.layer1.0.conv1.weight": (64, 64)})
    with pytest.raises(
        InvalidDataError, match=r"w\.pth: backbone\.body\.layer1\.0\.conv1\.weight: .*\(64, 64"
    ):
        foreign.name_weights(state, "w.pth")


# ---------------------------------------------------------------- classes


def test_names_of_classes():
    assert len(classes.TORCHVISION_CLASS_NAMES) == 91
    assert len(classes.COCO_CLASS_NAMES) == len(classes.COCO_IDS) == 81
    assert classes.TORCHVISION_CLASS_NAMES[44] == classes.COCO_CLASS_NAMES[40] == "bottle"
    assert classes.GAP not in classes.COCO_CLASS_NAMES
    assert classes.COCO_CLASS_NAMES[-1] == "toothbrush"
    assert classes.COCO_IDS[-1] == 90


def test_gaps_are_dropped_for_a_network_without_them():
    weights = foreign.name_weights(zeros(TORCHVISION_KEYS["torchvision"]))
    assert foreign.without_gaps(weights, 91) is weights
    assert foreign.without_gaps(weights, 81).class_names == classes.COCO_CLASS_NAMES
    assert foreign.without_gaps(weights, 3) is weights


def test_select_classes():
    state = zeros(TORCHVISION_KEYS["torchvision"])
    ids = np.arange(91, dtype="f4")
    state["roi_heads.box_predictor.cls_score.bias"] = ids
    state["roi_heads.box_predictor.bbox_pred.bias"] = np.repeat(ids, 4) + np.tile([0.2, 0.1, 0.4, 0.3], 91)
    state["roi_heads.mask_predictor.mask_fcn_logits.bias"] = ids
    weights = foreign.select_classes(foreign.name_weights(state), classes.COCO_IDS)
    assert weights.num_classes == 81
    assert weights.class_names == classes.COCO_CLASS_NAMES
    assert class_shapes(81).items() <= shapes_of(weights).items()
    np.testing.assert_array_equal(weights.layers["mrcnn_class_logits"][1], classes.COCO_IDS)
    np.testing.assert_array_equal(weights.layers["mrcnn_mask"][1], classes.COCO_IDS)
    deltas = weights.layers["mrcnn_bbox_fc"][1].reshape(81, 4)
    np.testing.assert_allclose(
        deltas - np.array(classes.COCO_IDS)[:, None], [[0.1, 0.2, 0.3, 0.4]] * 81, rtol=1e-4
    )


# ---------------------------------------------------------------- numbers


@pytest.fixture
def torch():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    return torch


def to_torch(torch, array):
    """A batch [B, h, w, C] as PyTorch has it, [B, C, h, w]."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1)))


def from_torch(tensor):
    return np.moveaxis(tensor.detach().numpy(), 1, -1)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("f4")


def run(layer, inputs, *weights):
    """Outputs of a Keras layer with these weights."""
    layer.build(inputs.shape)
    layer.set_weights(list(weights))
    return ops.convert_to_numpy(layer(inputs))


def close(got, want, atol=2e-5):
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=atol)


def test_convolution(torch):
    inputs, conv = numbers(2, 6, 7, 5), torch.nn.Conv2d(5, 4, (3, 3))
    weight, bias = (parameter.detach().numpy() for parameter in conv.parameters())
    got = run(layers.Conv2D(4, 3), inputs, transforms.kernel(weight), bias)
    close(got, from_torch(conv(to_torch(torch, inputs))))


def test_transposed_convolution(torch):
    inputs, conv = numbers(2, 6, 7, 5), torch.nn.ConvTranspose2d(5, 4, 2, stride=2)
    weight, bias = (parameter.detach().numpy() for parameter in conv.parameters())
    got = run(layers.Conv2DTranspose(4, 2, strides=2), inputs, transforms.transposed_kernel(weight), bias)
    close(got, from_torch(conv(to_torch(torch, inputs))))


def test_dense_layer_on_a_flattened_map(torch):
    inputs, dense = numbers(3, 7, 7, 5), torch.nn.Linear(5 * 7 * 7, 4)
    weight, bias = (parameter.detach().numpy() for parameter in dense.parameters())
    got = run(layers.Conv2D(4, 7), inputs, transforms.dense_of_map(weight, channels=5), bias)
    close(got[:, 0, 0], dense(to_torch(torch, inputs).flatten(1)).detach().numpy())


def test_dense_layers(torch):
    inputs, dense = numbers(3, 5), torch.nn.Linear(5, 4)
    weight, bias = (parameter.detach().numpy() for parameter in dense.parameters())
    want = dense(torch.from_numpy(inputs)).detach().numpy()
    close(run(layers.Dense(4), inputs, transforms.dense(weight), bias), want)
    got = run(layers.Conv2D(4, 1), inputs[:, None, None], transforms.dense_as_kernel(weight), bias)
    close(got[:, 0, 0], want)


def test_batch_norm(torch):
    norm = torch.nn.BatchNorm2d(5).eval()
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor.uniform_(0.5, 2)
    prefix = "backbone.body.bn1"
    state = {f"{prefix}.{name}": tensor.numpy() for name, tensor in norm.state_dict().items()}
    inputs = numbers(2, 6, 7, 5)
    weights = [transform(state[key]) for key, transform in dict(names.torchvision_rows([]))["bn_conv1"]]
    got = run(layers.BatchNormalization(epsilon=norm.eps), inputs, *weights)
    close(got, from_torch(norm(to_torch(torch, inputs))))


@pytest.mark.parametrize("library", ["torchvision", "detectron2"])
def test_first_convolution_takes_rgb_images_minus_their_mean(torch, library):
    image = np.random.default_rng(0).integers(0, 256, (1, 20, 24, 3)).astype("f4")
    conv = torch.nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False)
    weight = conv.weight.detach().numpy()
    if library == "torchvision":
        mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
        want = conv(to_torch(torch, (image / 255 - mean) / std))
        mean_pixel, kernel = 255 * mean, transforms.stem_kernel(weight, names.TORCHVISION_STD)
    else:
        bgr = np.float32([103.53, 116.28, 123.675])
        want = conv(to_torch(torch, image[..., ::-1] - bgr))
        mean_pixel, kernel = bgr[::-1], transforms.stem_kernel(weight, names.DETECTRON2_STD, True)
    padded = np.pad(image - mean_pixel, ((0, 0), (3, 3), (3, 3), (0, 0)))
    got = run(layers.Conv2D(8, 7, strides=2, use_bias=False), padded.astype("f4"), kernel)
    close(got, from_torch(want), atol=1e-4 * float(want.detach().abs().max()))


def their_anchors(rows, columns, stride, size, ratios=(0.5, 1.0, 2.0)):
    """Anchors (x1, y1, x2, y2) by location and ratio of height to width, as both libraries define them."""
    heights = size * np.sqrt(ratios)
    widths = size / np.sqrt(ratios)
    cell = np.stack([-widths, -heights, widths, heights], axis=1) / 2
    y, x = np.meshgrid(np.arange(rows) * stride, np.arange(columns) * stride, indexing="ij")
    shifts = np.stack([x, y, x, y], axis=-1).reshape(-1, 1, 4)
    return (shifts + cell).reshape(-1, 4)


def decoded(deltas, reference, weights=(1, 1, 1, 1)):
    """Boxes (x1, y1, x2, y2) of deltas (dx, dy, dw, dh), as both libraries define them."""
    dx, dy, dw, dh = (deltas[..., i] / weights[i] for i in range(4))
    widths, heights = reference[..., 2] - reference[..., 0], reference[..., 3] - reference[..., 1]
    x = reference[..., 0] + widths / 2 + dx * widths
    y = reference[..., 1] + heights / 2 + dy * heights
    widths, heights = widths * np.exp(dw), heights * np.exp(dh)
    return np.stack([x - widths / 2, y - heights / 2, x + widths / 2, y + heights / 2], axis=-1)


def flattened(tensor, entries):
    """Outputs [B, A * entries, h, w] of an RPN as [B, h * w * A, entries]: by location, then by anchor."""
    batch, _, height, width = tensor.shape
    by_anchor = tensor.reshape(batch, -1, entries, height, width)
    return by_anchor.permute(0, 3, 4, 1, 2).reshape(batch, -1, entries).detach().numpy()


@pytest.mark.parametrize("prefix", ["rpn.head", "proposal_generator.rpn_head"])
def test_rpn_scores_and_boxes_of_every_anchor(torch, prefix):
    conv, logits = torch.nn.Conv2d(6, 5, 3, padding=1), torch.nn.Conv2d(5, 3, 1)
    deltas = torch.nn.Conv2d(5, 12, 1)
    keys = {
        "rpn.head": ("conv.0.0", "cls_logits", "bbox_pred"),
        "proposal_generator.rpn_head": ("conv", "objectness_logits", "anchor_deltas"),
    }[prefix]
    modules = dict(zip((f"{prefix}.{key}" for key in keys), (conv, logits, deltas), strict=True))
    state = {
        f"{key}.{name}": tensor.numpy()
        for key, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
    rows = {"rpn.head": names.torchvision_rows, "proposal_generator.rpn_head": names.detectron2_rows}
    parts = dict(rows[prefix]([]))["rpn_model"]
    features = numbers(1, 4, 3, 6)

    rpn = build_rpn_model(1, 3, depth=6, channels=5)
    rpn.set_weights([transform(state[key]) for key, transform in parts])
    _, scores, our_deltas = (ops.convert_to_numpy(output)[0] for output in rpn(features))
    ours = anchors.generate_anchors(32, [0.5, 1, 2], (4, 3), 16, 1)
    our_boxes = boxes.apply_box_deltas(ours, our_deltas)

    shared = torch.relu(conv(to_torch(torch, features)))
    theirs = their_anchors(4, 3, 16, 32)
    their_scores = 1 / (1 + np.exp(-flattened(logits(shared), 1)[0, :, 0]))
    their_boxes = decoded(flattened(deltas(shared), 4)[0], theirs)

    same = np.abs(ours[:, None] - theirs[None, :, [1, 0, 3, 2]]).max(axis=-1) < 1e-6
    assert (same.sum(axis=1) == 1).all()
    match = same.argmax(axis=1)
    close(scores[:, 1], their_scores[match])
    close(our_boxes, their_boxes[match][:, [1, 0, 3, 2]], atol=1e-4)


@pytest.mark.parametrize("library", ["torchvision", "detectron2"])
def test_scores_boxes_and_masks_of_every_class(torch, library):
    """Detectron2 has the background last and neither boxes nor masks for it."""
    count = 5
    foreground = count if library == "torchvision" else count - 1
    score, box = torch.nn.Linear(8, count), torch.nn.Linear(8, 4 * foreground)
    mask = torch.nn.Conv2d(8, foreground, 1)
    if library == "torchvision":
        keys = "box_predictor.cls_score", "box_predictor.bbox_pred", "mask_predictor.mask_fcn_logits"
        table = dict(names.torchvision_rows([]))
    else:
        keys = "box_predictor.cls_score", "box_predictor.bbox_pred", "mask_head.predictor"
        table = dict(names.detectron2_rows([]))
    state = {
        f"roi_heads.{key}.{name}": tensor.numpy()
        for key, module in zip(keys, (score, box, mask), strict=True)
        for name, tensor in module.state_dict().items()
    }
    features, maps = numbers(3, 8), numbers(3, 4, 4, 8, seed=1)
    rois = np.float32([[10, 20, 50, 40], [0, 0, 9, 30], [5, 6, 7, 8]])  # y1, x1, y2, x2

    def ours(layer, keras_layer, inputs):
        return run(keras_layer, inputs, *(transform(state[key]) for key, transform in table[layer]))

    scores = ops.convert_to_numpy(
        ops.softmax(ours("mrcnn_class_logits", layers.Dense(count), features), axis=-1)
    )
    deltas = ours("mrcnn_bbox_fc", layers.Dense(4 * count), features).reshape(3, count, 4)
    masks = ours("mrcnn_mask", layers.Conv2D(count, 1), maps)

    inputs = torch.from_numpy(features)
    their_scores = torch.softmax(score(inputs), dim=-1).detach().numpy()
    their_deltas = box(inputs).reshape(3, foreground, 4).detach().numpy()
    their_masks = from_torch(mask(to_torch(torch, maps)))
    for category in range(1, count):
        theirs = category if library == "torchvision" else category - 1
        close(scores[:, category], their_scores[:, theirs])
        close(masks[..., category], their_masks[..., theirs])
        got = boxes.apply_box_deltas(rois, deltas[:, category] * np.float32([0.1, 0.1, 0.2, 0.2]))
        want = decoded(their_deltas[:, theirs], rois[:, [1, 0, 3, 2]], weights=(10, 10, 5, 5))
        close(got, want[:, [1, 0, 3, 2]], atol=1e-4)
    close(scores[:, 0], their_scores[:, 0 if library == "torchvision" else -1])


def test_background_outputs_of_detectron2_are_zero():
    values = transforms.with_background(np.ones((3, 8), "f4"), entries=4)
    assert values.shape == (3, 12)
    assert not values[:, :4].any() and values[:, 4:].all()


# --- Presets ---

STATES = {
    "torchvision": lambda: zeros(TORCHVISION_KEYS["torchvision"]),
    "torchvision-v2": lambda: zeros(TORCHVISION_KEYS["torchvision-v2"]),
    "detectron2 R50": lambda: zeros(detectron2_keys()),
    "detectron2 R101": lambda: zeros(detectron2_keys(blocks=(3, 4, 23, 3))),
    "detectron2 X101": lambda: zeros(detectron2_keys(blocks=(3, 4, 23, 3), groups=32)),
    "detectron2 with 3 categories": lambda: zeros(detectron2_keys(categories=3)),
}


def config_for(state):
    preset = foreign.preset_for(state)
    settings = getattr(config, preset.name)()
    for name, value in preset.settings.items():
        setattr(settings, name, value)
    settings.validate()
    return settings


@pytest.mark.parametrize("name", STATES)
def test_every_layer_fits(name):
    state = STATES[name]()
    weights = foreign.name_weights(state)
    assert (weights.missing, weights.unused) == ((), ())
    graph = graphs.inference_graph(config_for(state))
    layers = model_weights(keras.Model(graph.inputs, graph.outputs))
    shapes = {layer: [tuple(v.shape) for v in named.values()] for layer, named in layers.items()}
    assert shapes == {layer: [array.shape for array in values] for layer, values in weights.layers.items()}


def test_settings_that_the_keys_tell():
    assert config_for(STATES["detectron2 R101"]()).BACKBONE == "resnet101"
    resnext = config_for(STATES["detectron2 X101"]())
    assert (resnext.BACKBONE, resnext.RESNET_STYLE) == ("resnext101_32x8d", "pytorch")
    assert config_for(STATES["detectron2 with 3 categories"]()).NUM_CLASSES == 4


def test_images_of_resnext_are_divided_by_a_deviation():
    state = STATES["detectron2 X101"]()
    state["backbone.bottom_up.stem.conv1.weight"] = np.ones((64, 3, 7, 7), "float32")
    kernel = foreign.name_weights(state).layers["conv1"][0]
    np.testing.assert_allclose(kernel[0, 0, :, 0], 1 / np.array([58.395, 57.12, 57.375]), rtol=1e-6)


def test_trainable_batch_norms_have_the_epsilon_of_pytorch():
    """They count batches. The frozen ones of the published file do not."""
    state = STATES["torchvision"]()
    assert config_for(state).BATCH_NORM_EPSILON == 1e-5
    frozen = {key: values for key, values in state.items() if "num_batches_tracked" not in key}
    assert len(frozen) < len(state)
    assert config_for(frozen).BATCH_NORM_EPSILON == 0.0


def test_another_depth_is_named():
    with pytest.raises(InvalidDataError, match=r"50 or 101 layers.* 8 blocks in stage 4"):
        foreign.preset_for(zeros(detectron2_keys(blocks=(3, 4, 8, 3))))
