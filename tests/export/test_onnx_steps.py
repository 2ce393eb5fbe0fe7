"""The steps between the convolutions, as ONNX operators, against plain NumPy."""

import numpy as np
import pytest

from mrcnn.config import Config
from mrcnn.export import onnx_detections as detections
from mrcnn.export import onnx_proposals as proposals
from mrcnn.export.onnx_canvas import anchors, canvas, to_pixels
from mrcnn.export.onnx_graph import GraphBuilder
from mrcnn.export.onnx_roi_align import roi_align
from mrcnn.geometry import anchors as anchor_geometry
from mrcnn.geometry import boxes as box_geometry

runtime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

STD_DEV = [0.1, 0.1, 0.2, 0.2]
CLASSES, ROIS = 4, 50


def run(builder, tensors, inputs):
    """The values of tensors of a graph."""
    names = {name: ("float32", [f"{name}{i}" for i in range(x.ndim)]) for name, x in inputs.items()}
    outputs = {f"output{i}": (tensor, "float32", []) for i, tensor in enumerate(tensors)}
    model = builder.model(names, outputs, {}, "test")
    for output in model.graph.output:
        output.type.Clear()
    inferred = {value.name: value.type for value in onnx.shape_inference.infer_shapes(model).graph.value_info}
    for output, tensor in zip(model.graph.output, tensors, strict=True):
        output.type.tensor_type.elem_type = inferred[tensor].tensor_type.elem_type
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def make_canvas(builder, size=(128, 128), half_open=False, mean=(0, 0, 0)):
    return canvas(
        builder,
        "images",
        size=size,
        multiple=64,
        mean=np.array(mean),
        centered=not half_open,
        half_open=half_open,
    )


def images(height=128, width=128):
    return np.random.default_rng(0).uniform(0, 255, (2, height, width, 3)).astype("float32")


@pytest.fixture(scope="module")
def rois():
    """RoIs of two images, with class scores and deltas."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 1, (ROIS, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0.05, 0.3, (ROIS, 2))], axis=1).clip(0, 1)
    scores = rng.uniform(0, 1, (ROIS, CLASSES))
    values = {
        "boxes": boxes,
        "scores": scores / scores.sum(axis=1, keepdims=True),
        "deltas": rng.normal(0, 0.2, (ROIS, CLASSES, 4)),
        "image_ids": np.arange(ROIS) // (ROIS // 2),
    }
    return {name: value.astype("float32") for name, value in values.items()}


@pytest.mark.parametrize("half_open", [False, True])
@pytest.mark.parametrize("size", [(128, 128), None])
def test_canvas_and_anchors(half_open, size):
    builder, pixels, mean = GraphBuilder(), images(100, 70), np.array([1.0, 2.0, 3.0])
    on = make_canvas(builder, size, half_open, mean)
    config = Config()
    boxes = anchors(
        builder,
        on,
        config.RPN_ANCHOR_SCALES,
        config.RPN_ANCHOR_RATIOS,
        config.BACKBONE_STRIDES,
        1,
        rounded=False,
        fill_image=False,
    )
    molded, window, boxes = run(builder, [on.pixels, on.window, boxes], {"images": pixels})
    assert molded.shape == (2, 128, 128, 3)
    top, left = (0, 0) if half_open else (14, 29)
    np.testing.assert_allclose(molded[:, top : top + 100, left : left + 70], pixels - mean, atol=1e-4)
    np.testing.assert_allclose(molded[:, -1, -1], [[0, 0, 0]] * 2 if half_open else [-mean] * 2)
    shown = np.array([top, left, top + 100, left + 70])
    np.testing.assert_allclose(window, box_geometry.norm_boxes(shown, (128, 128), half_open), atol=1e-6)
    expected = anchor_geometry.pixel_anchors(config, (128, 128))
    np.testing.assert_allclose(boxes, box_geometry.norm_boxes(expected, (128, 128), half_open), atol=1e-6)


@pytest.mark.parametrize("half_open", [False, True])
def test_boxes_go_back_to_the_pixels_of_the_image(half_open):
    builder = GraphBuilder()
    on = make_canvas(builder, half_open=half_open)
    (boxes,) = run(builder, [to_pixels(builder, on.window, on)], {"images": images(100, 70)})
    np.testing.assert_allclose(boxes, [0, 0, 100, 70], atol=1e-4)


def test_detections_of_the_best_class(rois):
    builder = GraphBuilder()
    on = make_canvas(builder)
    found = detections.best_class(
        builder,
        "boxes",
        builder.cast("image_ids", "int64"),
        "scores",
        "deltas",
        on,
        bbox_std_dev=STD_DEV,
        min_confidence=0.3,
    )
    kept = detections.suppress(
        builder, found, builder.size("images", 0), num_classes=CLASSES, nms_threshold=0.3, max_instances=7
    )
    tensors = [kept.boxes, kept.class_ids, kept.scores, kept.counts]
    boxes, class_ids, scores, counts = run(builder, tensors, {"images": images(), **rois})
    best, top = rois["scores"].argmax(axis=1), rois["scores"].max(axis=1)
    deltas = rois["deltas"][np.arange(ROIS), best] * np.array(STD_DEV)
    moved = box_geometry.clip_boxes(box_geometry.apply_box_deltas(rois["boxes"], deltas), (0, 0, 1, 1))
    for image in range(2):
        expected = []
        for class_id in range(1, CLASSES):
            own = (rois["image_ids"] == image) & (best == class_id) & (top >= 0.3)
            rows = np.flatnonzero(own)
            if len(rows):
                expected += list(rows[box_geometry.non_max_suppression(moved[rows], top[rows], 0.3)])
        expected = sorted(expected, key=lambda row: -top[row])[:7]
        count = counts[image]
        assert count == len(expected) > 3
        np.testing.assert_allclose(boxes[image, :count], moved[expected], atol=1e-5)
        assert class_ids[image, :count].tolist() == best[expected].tolist()
        np.testing.assert_allclose(scores[image, :count], top[expected])
        assert not scores[image, count:].any()


@pytest.mark.parametrize("min_confidence", [0.2, 1.0])
def test_detections_of_every_class(rois, min_confidence):
    builder = GraphBuilder()
    on = make_canvas(builder, half_open=True)
    found = detections.every_class(
        builder,
        "boxes",
        builder.cast("image_ids", "int64"),
        "scores",
        "deltas",
        on,
        bbox_std_dev=STD_DEV,
        min_confidence=min_confidence,
        delta_limit=4.0,
        min_side=0.01,
    )
    kept = detections.suppress(
        builder, found, builder.size("images", 0), num_classes=CLASSES, nms_threshold=1.0, max_instances=200
    )
    tensors = [kept.boxes, kept.scores, kept.counts]
    boxes, scores, counts = run(builder, tensors, {"images": images(), **rois})
    enough = (rois["scores"][:, 1:] >= min_confidence).reshape(2, -1)
    assert counts.tolist() == enough.sum(axis=1).tolist()
    assert scores.shape == (2, max(1, counts.max()))  # one slot is left if nothing is found
    if min_confidence == 1.0:
        assert not boxes.any()


@pytest.mark.parametrize("per_level", [False, True])
def test_proposals(per_level):
    rng = np.random.default_rng(0)
    maps = {f"p{level}": np.zeros((2, 1, 128 >> level, 128 >> level), "float32") for level in range(2, 7)}
    count = 3 * sum(x.shape[2] * x.shape[3] for x in maps.values())
    values = {
        "logits": rng.normal(size=(2, count, 2)).astype("float32"),
        "deltas": rng.normal(0, 0.3, (2, count, 4)).astype("float32"),
        "anchors": rng.uniform([0, 0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9], (count, 4)).astype("float32"),
    }
    builder = GraphBuilder()
    on = make_canvas(builder, half_open=per_level)
    settings = {"bbox_std_dev": STD_DEV, "pre_nms_limit": 100, "count": 20, "nms_threshold": 0.7}
    inputs = {"images": images(), **values}
    if per_level:
        settings |= {"anchor_stride": 1, "ratios": 3, "delta_limit": 4.0, "min_side": 0.001}
        arguments = ("logits", "deltas", "anchors", list(maps), on)
        boxes, image_ids = run(
            builder, proposals.level_proposals(builder, *arguments, **settings), inputs | maps
        )
    else:
        boxes, image_ids = run(
            builder, proposals.proposals(builder, "logits", "deltas", "anchors", **settings), inputs
        )
    assert np.bincount(image_ids).tolist() == [20, 20]
    scores = values["logits"][..., 1] - (values["logits"][..., 0] if per_level else 0.0)
    for image in range(2):
        first = scores[image].argmax()
        deltas = values["deltas"][image, first] * np.array(STD_DEV)
        expected = box_geometry.apply_box_deltas(values["anchors"][first][None], deltas[None])
        own = boxes[image_ids == image]
        np.testing.assert_allclose(own[0], expected[0].clip(0, 1), atol=1e-5)
        overlaps = box_geometry.compute_overlaps(own, own) - np.eye(20)
        assert per_level or overlaps.max() <= 0.7 + 1e-6


def bilinear(features, y, x):
    """Interpolated values [C, rows, columns] of a map [C, h, w], whose outermost cells go on for one cell."""
    height, width = features.shape[1:]
    inside = ((y >= -1) & (y <= height))[:, None] & ((x >= -1) & (x <= width))[None]
    y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    wy, wx = (y - top)[:, None], (x - left)[None]
    upper = features[:, top][:, :, left] * (1 - wx) + features[:, top][:, :, right] * wx
    lower = features[:, bottom][:, :, left] * (1 - wx) + features[:, bottom][:, :, right] * wx
    return np.where(inside, upper * (1 - wy) + lower * wy, 0.0)


@pytest.mark.parametrize("method", ["crop_and_resize", "average", "average_aligned"])
def test_roi_align(rois, method):
    builder, rng = GraphBuilder(), np.random.default_rng(0)
    half_open = method != "crop_and_resize"
    on = make_canvas(builder, half_open=half_open)
    maps = {f"p{level}": rng.normal(size=(2, 3, 128 >> level, 128 >> level)) for level in range(2, 6)}
    maps = {name: value.astype("float32") for name, value in maps.items()}
    image_ids = builder.cast("image_ids", "int64")
    features = roi_align(builder, "boxes", image_ids, list(maps), on, bins=(7, 7), method=method)
    inputs = {"images": images(), "boxes": rois["boxes"], "image_ids": rois["image_ids"], **maps}
    (found,) = run(builder, [features], inputs)
    for index, (y1, x1, y2, x2) in enumerate(rois["boxes"].astype(float)):
        level = 4 + np.log2(np.sqrt((y2 - y1) * (x2 - x1)) / (224 / 128))
        level = int(np.clip(np.floor(level + 1e-6) if half_open else np.round(level), 2, 5))
        features = maps[f"p{level}"][int(rois["image_ids"][index])]
        cells = features.shape[1]
        if not half_open:
            steps = np.arange(7) / 6
            y, x = (low + (high - low) * steps for low, high in ((y1, y2), (x1, x2)))
            expected = bilinear(features, y * (cells - 1), x * (cells - 1))
        else:
            parts = (np.arange(14) + 0.5) / 14
            shift, least = (0.5, 0.0) if method == "average_aligned" else (0.0, 1.0)
            y, x = (
                low * cells - shift + max((high - low) * cells, least) * parts
                for low, high in ((y1, y2), (x1, x2))
            )
            expected = bilinear(features, y, x).reshape(3, 7, 2, 7, 2).mean(axis=(2, 4))
        np.testing.assert_allclose(found[index], expected, atol=1e-4)
