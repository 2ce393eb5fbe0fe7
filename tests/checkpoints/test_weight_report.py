import json

import golden_files
import pytest

from mrcnn.checkpoints import weight_report

STRUCTURES = {
    path.stem.removeprefix("structure_"): {
        layer["layer"]: [tuple(weight["shape"]) for weight in layer["weights"]]
        for layer in json.loads(path.read_text())["layers"]
        if layer["weights"]
    }
    for path in golden_files.golden_paths("structure_*.json")
}


def shapes_of(name):
    if name not in STRUCTURES:
        pytest.skip(f"no recording structure_{name}.json in {golden_files.GOLDEN}")
    return STRUCTURES[name]


def explain(file_shapes, model_shapes, exclude=()):
    report = weight_report.compare("w.h5", file_shapes, model_shapes, exclude)
    return report, weight_report.describe(report, file_shapes, model_shapes)


@pytest.mark.parametrize("name", sorted(STRUCTURES) or ["resnet101_81"])
def test_a_network_fits_itself(name):
    shapes = shapes_of(name)
    report, text = explain(shapes, shapes)
    assert report.loaded == tuple(shapes)
    assert (report.missing_in_file, report.unused_in_file, text) == ((), (), "")
    assert not report.is_backbone_only


def test_coco_weights_in_a_small_resnet_101():
    coco = shapes_of("resnet101_81")
    model = dict(coco)
    model["mrcnn_class_logits"] = [(1024, 2), (2,)]
    model["mrcnn_bbox_fc"] = [(1024, 8), (8,)]
    model["mrcnn_mask"] = [(1, 1, 256, 2), (2,)]
    report, text = explain(coco, model)
    assert weight_report.mismatched_layers(report, coco, model) == [
        name for name in coco if name in ("mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_mask")
    ]
    assert "mrcnn_bbox_fc: file (1024,324) (324,), model (1024,8) (8,)" in text
    assert text.endswith(
        "the file has 81 classes, but the model has NUM_CLASSES=2; set NUM_CLASSES or pass exclude="
        "['mrcnn_class_logits', 'mrcnn_bbox_fc', 'mrcnn_bbox', 'mrcnn_mask']"
    )
    excluded, text = explain(coco, model, weight_report.CLASS_LAYERS)
    assert text == ""
    assert set(excluded.loaded) == set(coco) - set(weight_report.CLASS_LAYERS)


@pytest.mark.parametrize(
    ("theirs", "ours", "blocks"),
    [("resnet101", "resnet50", "unused_in_file"), ("resnet50", "resnet101", "missing_in_file")],
)
def test_another_depth(theirs, ours, blocks):
    networks = {"resnet101": shapes_of("resnet101_81"), "resnet50": shapes_of("resnet50_shapes4")}
    report, text = explain(networks[theirs], networks[ours])
    names = [f"{kind}4{x}_branch2{y}" for x in "ghijklmnopqrstuvw" for kind in ("res", "bn")
             for y in "abc"]  # fmt: skip
    assert set(getattr(report, blocks)) == set(names)
    assert all(name in text for name in names)
    assert f"the file has {theirs}, but the model has {ours}; set BACKBONE = '{theirs}'" in text
    assert "NUM_CLASSES" in text


def test_a_file_of_the_backbone_alone():
    shapes = shapes_of("resnet50_shapes4")
    imagenet = {n: s for n, s in shapes.items() if not n.startswith(("fpn_", "rpn_", "mrcnn_"))}
    report, text = explain(imagenet, shapes)
    assert report.is_backbone_only
    assert report.loaded == tuple(imagenet)
    assert set(report.missing_in_file) == set(shapes) - set(imagenet)
    assert report.unexpected_missing == ()
    assert text == ""

    deeper = shapes_of("resnet101_81")
    report, text = explain(imagenet, deeper)
    assert all(name.startswith(("res4", "bn4")) for name in report.unexpected_missing)
    assert "res4g_branch2a" in text
    assert "bn4w_branch2c" in text
    assert "mrcnn_mask" not in text


HEAD = {
    "conv1": [(7, 7, 3, 64), (64,)],
    "fpn_c5p5": [(1, 1, 2048, 256), (256,)],
    "rpn_model": [(3, 3, 256, 512), (512,), (1, 1, 512, 6), (6,), (1, 1, 512, 12), (12,)],
    "mrcnn_class_conv1": [(7, 7, 256, 1024), (1024,)],
    "mrcnn_mask_conv1": [(3, 3, 256, 256), (256,)],
}


@pytest.mark.parametrize(
    ("layer", "shapes", "remedy"),
    [
        (
            "conv1",
            [(7, 7, 1, 64), (64,)],
            "the file has 3 image channels, but the model has IMAGE_CHANNEL_COUNT=1; "
            "set IMAGE_CHANNEL_COUNT or pass exclude=['conv1']",
        ),
        (
            "fpn_c5p5",
            [(1, 1, 2048, 128), (128,)],
            "the file has 256 pyramid channels, but the model has TOP_DOWN_PYRAMID_SIZE=128; set "
            "TOP_DOWN_PYRAMID_SIZE = 256",
        ),
        (
            "rpn_model",
            [(3, 3, 256, 512), (512,), (1, 1, 512, 10), (10,), (1, 1, 512, 20), (20,)],
            "the file has 3 anchor ratios, but the model has len(RPN_ANCHOR_RATIOS)=5; "
            "set len(RPN_ANCHOR_RATIOS) or pass exclude=['rpn_model']",
        ),
        (
            "mrcnn_class_conv1",
            [(7, 7, 256, 512), (512,)],
            "the file has 1024 units in the box head, but the model has FPN_CLASSIF_FC_LAYERS_SIZE=512; set "
            "FPN_CLASSIF_FC_LAYERS_SIZE = 1024",
        ),
        (
            "mrcnn_class_conv1",
            [(14, 14, 256, 1024), (1024,)],
            "the file has 7 rows per pooled RoI, but the model has POOL_SIZE=14; set POOL_SIZE or pass "
            "exclude=['mrcnn_class_conv1']",
        ),
        (
            "mrcnn_mask_conv1",
            [(3, 3, 256, 128), (128,)],
            "pass exclude=['mrcnn_mask_conv1'] to keep the model's weights there",
        ),
        (
            "conv1",
            [(7, 7, 3, 64)],
            "pass exclude=['conv1'] to keep the model's weights there",
        ),
        (
            "conv1",
            [(64,)],
            "pass exclude=['conv1'] to keep the model's weights there",
        ),
    ],
)
def test_likely_remedy(layer, shapes, remedy):
    model = {**HEAD, layer: shapes}
    report = weight_report.compare("w.h5", HEAD, model, ())
    assert weight_report.likely_remedies(report, HEAD, model) == [remedy]
    assert weight_report.describe(report, HEAD, model).count(f"{layer}: file ") == 1


def test_weights_that_are_not_finite_are_named():
    report = weight_report.compare("w.h5", HEAD, HEAD, ())
    text = weight_report.describe(report, HEAD, HEAD, not_finite=["fpn_c5p5/bias:0 (1 of 256 values)"])
    assert "NaN or infinite values in the file:\n    fpn_c5p5/bias:0 (1 of 256 values)\n" in text


def test_report_as_a_table():
    file_shapes = {"conv1": HEAD["conv1"], "old_layer": [(1,)], "mrcnn_mask": [(2,)]}
    report = weight_report.compare("logs/w.h5", file_shapes, HEAD, ["mrcnn_mask"])
    assert str(report).splitlines() == [
        "Weights of logs/w.h5",
        "  loaded             1 layers",
        "  excluded           1 layers",
        "    mrcnn_mask",
        "  missing in file    4 layers",
        "    fpn_c5p5, rpn_model, mrcnn_class_conv1, mrcnn_mask_conv1",
        "  unused in file     1 layers",
        "    old_layer",
    ]
