"""The correspondence between weights of torchvision and Detectron2 and layers of our network.

Each table is a list of rows: a layer, and its weights in our order as (key of the other library, transform).

| ours                                | torchvision                        | Detectron2                   |
|-------------------------------------|------------------------------------|------------------------------|
| conv1, bn_conv1                     | backbone.body.conv1, bn1           | bottom_up.stem.conv1         |
| res3b_branch2a, bn3b_branch2a       | backbone.body.layer2.1.conv1, bn1  | bottom_up.res3.1.conv1       |
| res3a_branch1, bn3a_branch1         | backbone.body.layer2.0.downsample  | bottom_up.res3.0.shortcut    |
| fpn_c3p3                            | backbone.fpn.inner_blocks.1        | backbone.fpn_lateral3        |
| fpn_p3                              | backbone.fpn.layer_blocks.1        | backbone.fpn_output3         |
| rpn_model: rpn_conv_shared          | rpn.head.conv.0                    | rpn_head.conv                |
| rpn_model: rpn_conv_shared2 (v2)    | rpn.head.conv.1                    |                              |
| rpn_model: rpn_class_raw            | rpn.head.cls_logits                | rpn_head.objectness_logits   |
| rpn_model: rpn_bbox_pred            | rpn.head.bbox_pred                 | rpn_head.anchor_deltas       |
| mrcnn_box_conv1 to 4, bn1 to 4 (v2) | roi.box_head.0 to 3                |                              |
| mrcnn_class_conv1                   | roi.box_head.fc6, v2: 5            | roi.box_head.fc1             |
| mrcnn_class_conv2 (not in v2)       | roi.box_head.fc7                   | roi.box_head.fc2             |
| mrcnn_class_logits, mrcnn_bbox_fc   | roi.box_predictor                  | roi.box_predictor            |
| mrcnn_mask_conv1 to 4, bn1 to 4     | roi.mask_head.0 to 3               | roi.mask_head.mask_fcn1 to 4 |
| mrcnn_mask_deconv                   | roi.mask_predictor.conv5_mask      | roi.mask_head.deconv         |
| mrcnn_mask                          | roi.mask_predictor.mask_fcn_logits | roi.mask_head.predictor      |

Here `roi` is short for `roi_heads`, `bottom_up` for `backbone.bottom_up` and `rpn_head` for
`proposal_generator.rpn_head`. Convolutions before a batch norm have no bias in these libraries.
"""

import functools
import itertools
from collections.abc import Callable, Collection, Mapping

import numpy as np

from mrcnn.checkpoints.foreign import transforms
from mrcnn.checkpoints.foreign.transforms import dense, dense_as_kernel, identity, kernel, transposed_kernel

Transform = Callable[[np.ndarray], np.ndarray]
Part = tuple[str, Transform]
Row = tuple[str, list[Part]]

STAGES = LEVELS = (2, 3, 4, 5)
HEAD_CONVOLUTIONS = (1, 2, 3, 4)
PYRAMID_CHANNELS = 256
NORM_WEIGHTS = ("weight", "bias", "running_mean", "running_var")  # gamma, beta, mean and variance

# Convolution and batch norm of each branch of a bottleneck block.
TORCHVISION_BLOCK = {
    "2a": ("conv1", "bn1"),
    "2b": ("conv2", "bn2"),
    "2c": ("conv3", "bn3"),
    "1": ("downsample.0", "downsample.1"),
}
DETECTRON2_BLOCK = {
    "2a": ("conv1", "conv1.norm"),
    "2b": ("conv2", "conv2.norm"),
    "2c": ("conv3", "conv3.norm"),
    "1": ("shortcut", "shortcut.norm"),
}

# torchvision scales images to 0..1 and divides by these. Detectron2's X101 divides by values of its own, for
# BGR, and its R50 and R101 do not divide.
TORCHVISION_STD = tuple(255 * std for std in (0.229, 0.224, 0.225))
DETECTRON2_STD = (1.0, 1.0, 1.0)
DETECTRON2_RESNEXT_STD = (57.375, 57.120, 58.395)


# --- Tables ---


def torchvision_rows(keys: Collection[str]) -> list[Row]:
    """Return the table of torchvision's `maskrcnn_resnet50_fpn`, with the number of blocks from `keys`."""
    rpn, box = "rpn.head", "roi_heads.box_head"
    rows = _torchvision_backbone(keys)
    for level in LEVELS:
        rows += [
            (f"fpn_c{level}p{level}", _layer(f"backbone.fpn.inner_blocks.{level - 2}.0", kernel)),
            (f"fpn_p{level}", _layer(f"backbone.fpn.layer_blocks.{level - 2}.0", kernel)),
        ]
    rows += [
        ("rpn_model", _rpn([f"{rpn}.conv.0.0"], f"{rpn}.cls_logits", f"{rpn}.bbox_pred")),
        ("mrcnn_class_conv1", _layer(f"{box}.fc6", _dense_of_map)),
        ("mrcnn_class_conv2", _layer(f"{box}.fc7", dense_as_kernel)),
    ]
    for number in HEAD_CONVOLUTIONS:
        rows.append((f"mrcnn_mask_conv{number}", _layer(f"roi_heads.mask_head.{number - 1}.0", kernel)))
    return rows + _torchvision_predictors()


def torchvision_v2_rows(keys: Collection[str]) -> list[Row]:
    """Return the table of torchvision's `maskrcnn_resnet50_fpn_v2`, with the number of blocks from `keys`."""
    rpn, box = "rpn.head", "roi_heads.box_head"
    rows = _torchvision_backbone(keys)
    for level in LEVELS:
        for name, key in ((f"fpn_c{level}p{level}", "inner_blocks"), (f"fpn_p{level}", "layer_blocks")):
            rows += _conv_and_norm((name, f"{name}_bn"), f"backbone.fpn.{key}.{level - 2}", ("0", "1"))
    convolutions = [f"{rpn}.conv.{index}.0" for index in (0, 1)]
    rows.append(("rpn_model", _rpn(convolutions, f"{rpn}.cls_logits", f"{rpn}.bbox_pred")))
    for head, name in (("box", "mrcnn_box"), ("mask", "mrcnn_mask")):
        for number in HEAD_CONVOLUTIONS:
            names = f"{name}_conv{number}", f"{name}_bn{number}"
            rows += _conv_and_norm(names, f"roi_heads.{head}_head.{number - 1}", ("0", "1"))
    rows.append(("mrcnn_class_conv1", _layer(f"{box}.5", _dense_of_map)))
    return rows + _torchvision_predictors()


def detectron2_rows(keys: Mapping[str, np.ndarray]) -> list[Row]:
    """Return the table of Detectron2's Mask R-CNN with ResNet or ResNeXt, and FPN, for its state dict."""
    stem, rpn = "backbone.bottom_up.stem.conv1", "proposal_generator.rpn_head"
    box, mask = "roi_heads.box_head", "roi_heads.mask_head"
    predictor = "roi_heads.box_predictor"
    is_resnext = group_count(keys, "backbone.bottom_up.res4") > 1
    std = DETECTRON2_RESNEXT_STD if is_resnext else DETECTRON2_STD
    stem_kernel = functools.partial(transforms.stem_kernel, std=std, reverse_channels=True)
    rows = [("conv1", _layer(stem, stem_kernel, has_bias=False)), ("bn_conv1", _norm(f"{stem}.norm"))]
    rows += _blocks(keys, lambda stage: f"backbone.bottom_up.res{stage}", DETECTRON2_BLOCK)
    for level in LEVELS:
        rows += [
            (f"fpn_c{level}p{level}", _layer(f"backbone.fpn_lateral{level}", kernel)),
            (f"fpn_p{level}", _layer(f"backbone.fpn_output{level}", kernel)),
        ]
    boxes = _then(transforms.box_deltas, functools.partial(transforms.with_background, entries=4))
    masks = functools.partial(transforms.with_background, entries=1)
    rows += [
        ("rpn_model", _rpn([f"{rpn}.conv"], f"{rpn}.objectness_logits", f"{rpn}.anchor_deltas")),
        ("mrcnn_class_conv1", _layer(f"{box}.fc1", _dense_of_map)),
        ("mrcnn_class_conv2", _layer(f"{box}.fc2", dense_as_kernel)),
        ("mrcnn_class_logits", _layer(f"{predictor}.cls_score", dense, transforms.background_first)),
        ("mrcnn_bbox_fc", _layer(f"{predictor}.bbox_pred", dense, boxes)),
        *((f"mrcnn_mask_conv{n}", _layer(f"{mask}.mask_fcn{n}", kernel)) for n in HEAD_CONVOLUTIONS),
        ("mrcnn_mask_deconv", _layer(f"{mask}.deconv", transposed_kernel)),
        ("mrcnn_mask", _layer(f"{mask}.predictor", kernel, masks)),
    ]
    return rows


# --- Parts of the tables ---


def _torchvision_backbone(keys: Collection[str]) -> list[Row]:
    stem_kernel = functools.partial(transforms.stem_kernel, std=TORCHVISION_STD)
    return [
        ("conv1", _layer("backbone.body.conv1", stem_kernel, has_bias=False)),
        ("bn_conv1", _norm("backbone.body.bn1")),
        *_blocks(keys, lambda stage: f"backbone.body.layer{stage - 1}", TORCHVISION_BLOCK),
    ]


def _torchvision_predictors() -> list[Row]:
    box, mask = "roi_heads.box_predictor", "roi_heads.mask_predictor"
    return [
        ("mrcnn_class_logits", _layer(f"{box}.cls_score", dense)),
        ("mrcnn_bbox_fc", _layer(f"{box}.bbox_pred", dense, transforms.box_deltas)),
        ("mrcnn_mask_deconv", _layer(f"{mask}.conv5_mask", transposed_kernel)),
        ("mrcnn_mask", _layer(f"{mask}.mask_fcn_logits", kernel)),
    ]


def _blocks(
    keys: Collection[str], stage_key: Callable[[int], str], branches: Mapping[str, tuple[str, str]]
) -> list[Row]:
    """Return the rows of the bottleneck blocks of the four stages."""
    rows = []
    for stage in STAGES:
        for index in range(max(1, block_count(keys, stage_key(stage)))):
            block = f"{stage}{chr(ord('a') + index)}"
            for branch, suffixes in branches.items():
                if branch == "1" and index > 0:
                    continue  # only the first block of a stage changes the shape of its shortcut
                names = f"res{block}_branch{branch}", f"bn{block}_branch{branch}"
                rows += _conv_and_norm(names, f"{stage_key(stage)}.{index}", suffixes)
    return rows


def block_count(keys: Collection[str], stage_key: str) -> int:
    """Return the number of blocks that a stage has."""
    return next(index for index in itertools.count() if f"{stage_key}.{index}.conv1.weight" not in keys)


def group_count(state: Mapping[str, np.ndarray], stage_key: str) -> int:
    """Return the number of groups of channels in the 3x3 convolutions of a stage: 1 in a plain ResNet."""
    key = f"{stage_key}.0.conv2.weight"
    shape: tuple[int, ...] = state[key].shape if key in state else ()
    return shape[0] // shape[1] if len(shape) == 4 and shape[1] else 1


def _conv_and_norm(names: tuple[str, str], key: str, suffixes: tuple[str, str]) -> list[Row]:
    """Return the rows of a convolution without bias and its batch norm."""
    conv, norm = (f"{key}.{suffix}" for suffix in suffixes)
    return [(names[0], _layer(conv, kernel, has_bias=False)), (names[1], _norm(norm))]


def _rpn(convolutions: list[str], logits: str, deltas: str) -> list[Part]:
    parts = [part for key in convolutions for part in _layer(key, kernel)]
    parts += _layer(logits, kernel, transforms.objectness)
    return parts + _layer(deltas, kernel, transforms.anchor_deltas)


def _layer(key: str, layout: Transform, outputs: Transform = identity, has_bias: bool = True) -> list[Part]:
    """Return the row of a layer with a kernel and a bias.

    Args:
        key: Key without ".weight".
        layout: Function from the axes of PyTorch's weight to those of a kernel.
        outputs: Function to apply to the last axis of kernel and bias.
        has_bias: Whether the layer has a bias.
    """
    parts = [(f"{key}.weight", _then(layout, outputs))]
    return [*parts, (f"{key}.bias", outputs)] if has_bias else parts


def _norm(key: str) -> list[Part]:
    return [(f"{key}.{name}", identity) for name in NORM_WEIGHTS]


def _then(first: Transform, second: Transform) -> Transform:
    return lambda values: second(first(values))


def _dense_of_map(values: np.ndarray) -> np.ndarray:
    return transforms.dense_of_map(values, PYRAMID_CHANNELS)
