"""Layers and losses against recordings of the Keras 2 library, on the running backend."""

import re

import keras
import numpy as np
import pytest
from golden_files import golden_params, load, text, unpack_bits
from keras import ops

from mrcnn import backend
from mrcnn.legacy import network_names
from mrcnn.network import box_ops, losses, suppression
from mrcnn.network.detection_targets import DetectionTargetLayer
from mrcnn.network.detections import DetectionLayer
from mrcnn.network.normalization import BatchNorm
from mrcnn.network.proposals import ProposalLayer
from mrcnn.network.roi_align import PyramidROIAlign, roi_levels


def numbers(recording: dict, pattern: str) -> list[str]:
    """The case numbers of keys such as nms3_boxes."""
    found = {m.group(1) for m in (re.fullmatch(pattern, key) for key in recording) if m}
    assert found, f"no key like {pattern} in the recording"
    return sorted(found, key=int)


def tensors(*arrays):
    return [ops.convert_to_tensor(x) for x in arrays]


def array(tensor) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(tensor))


def run(layer, inputs):
    """One call of a layer, compiled on JAX, where single operators are slow to start."""
    if keras.backend.backend() != "jax":
        return layer(inputs)
    import jax

    layer.build([x.shape for x in inputs])
    state = (
        [v.value for v in layer.trainable_variables],
        [v.value for v in layer.non_trainable_variables],
    )
    return jax.jit(layer.stateless_call)(*state, inputs)[0]


def close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(array(actual), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("path", golden_params("layers_small*.npz"))
class TestSmall:
    def test_deltas_and_clipping(self, path):
        z = load(path)
        refined = box_ops.apply_box_deltas(*tensors(z["abd_boxes"], z["abd_deltas"]))
        close(refined, z["abd_out"])
        clipped = box_ops.clip_boxes(*tensors(z["abd_boxes"], z["clip_window"]))
        close(clipped, z["clip_out"])
        close(box_ops.box_refinement(*tensors(z["brg_box"], z["brg_gt"])), z["brg_out"])

    def test_overlaps(self, path):
        z = load(path)
        close(box_ops.compute_overlaps(*tensors(z["ovg_b1"], z["ovg_b2"])), z["ovg_out"])
        zeros = np.zeros((2, 4), "float32")
        others = np.concatenate([z["ovg_b2"][:2], np.zeros((1, 4), "float32")])
        close(box_ops.compute_overlaps(*tensors(zeros, others)), z["ovg_zero_out"])

    def test_normalization(self, path):
        z = load(path)
        close(box_ops.norm_boxes(*tensors(z["nbg_in"], z["nbg_shape"])), z["nbg_out"])
        for name, shape, out in (
            ("nbg_out", (300, 400), "dbg_out"),
            ("dbg2_in", (111, 77), "dbg2_out"),
        ):
            pixels = box_ops.denorm_boxes(*tensors(z[name]), shape)
            np.testing.assert_array_equal(array(pixels), z[out])

    def test_trim_log_and_smooth_l1(self, path):
        z = load(path)
        rows, kept = network_names.trim_zeros_graph(ops.convert_to_tensor(z["trimg_in"]))
        close(rows, z["trimg_out"])
        np.testing.assert_array_equal(array(kept), z["trimg_mask"])
        close(box_ops.log2(*tensors(z["log2_in"])), z["log2_out"])
        close(losses.smooth_l1_loss(*tensors(z["sl1_true"], z["sl1_pred"])), z["sl1_out"])


@pytest.mark.parametrize("path", golden_params("layers_nms*.npz"))
def test_non_max_suppression(path):
    z = load(path)
    for n in numbers(z, r"nms(\d+)_boxes"):
        scores = z[f"nms{n}_scores"][None]
        order = backend.top_k(ops.convert_to_tensor(scores), scores.shape[1])
        boxes = box_ops.gather(ops.convert_to_tensor(z[f"nms{n}_boxes"][None]), order)
        index, filled = suppression.non_max_suppression(
            boxes,
            ops.ones((1, boxes.shape[1]), "bool"),
            int(z[f"nms{n}_max"]),
            float(z[f"nms{n}_iou"]),
        )
        kept = array(ops.take_along_axis(order, index, axis=1))[array(filled)]
        np.testing.assert_array_equal(kept, z[f"nms{n}_out"], err_msg=f"case {n}")


@pytest.mark.parametrize("path", golden_params("layers_roialign*.npz"))
def test_roi_align(path):
    z = load(path)
    for n in numbers(z, r"ra(\d+)_rois"):
        meta = z[f"ra{n}_meta"]
        levels = roi_levels(ops.convert_to_tensor(z[f"ra{n}_rois"]), meta[0, 4] * meta[0, 5])
        np.testing.assert_array_equal(array(levels), z[f"ra{n}_levels"], err_msg=f"case {n}")
        if f"ra{n}_P2" not in z:  # maps too large to record: only the levels are compared
            continue
        maps = [z[f"ra{n}_P{level}"] for level in range(2, 6)]
        layer = PyramidROIAlign(tuple(int(side) for side in z[f"ra{n}_pool"]))
        close(
            run(layer, [z[f"ra{n}_rois"], meta, *maps]),
            z[f"ra{n}_out"],
            rtol=0,
            atol=1e-5,
        )


@pytest.mark.parametrize("path", golden_params("layers_proposal*.npz"))
def test_proposals(path):
    z = load(path)
    for n in numbers(z, r"pl(\d+)_fg_prob"):
        foreground = z[f"pl{n}_fg_prob"]
        anchors = z["anchors"][: int(z[f"pl{n}_anchors_first"])]
        layer = ProposalLayer(
            int(z[f"pl{n}_proposal_count"]),
            float(z[f"pl{n}_nms"]),
            pre_nms_limit=int(z[f"pl{n}_pre_nms_limit"]),
        )
        probs = np.stack([1 - foreground, foreground], axis=2)
        anchors = np.repeat(anchors[None], len(foreground), axis=0)
        proposals = run(layer, [probs, z[f"pl{n}_deltas"], anchors])
        close(proposals, z[f"pl{n}_out"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("path", golden_params("layers_detection*.npz"))
def test_detections(path):
    z = load(path)
    for n in numbers(z, r"dl(\d+)_rois"):
        config = text(z[f"dl{n}_cfg"])
        layer = DetectionLayer(
            min_confidence=config["DETECTION_MIN_CONFIDENCE"],
            nms_threshold=config["DETECTION_NMS_THRESHOLD"],
            max_instances=config["DETECTION_MAX_INSTANCES"],
        )
        inputs = [z[f"dl{n}_{name}"] for name in ("rois", "probs", "deltas", "meta")]
        close(run(layer, inputs), z[f"dl{n}_out"], rtol=0, atol=1e-5)


def as_rows(rois, class_ids, bbox, mask) -> list[np.ndarray]:
    """One flat row per RoI of an image, in an order that does not depend on the sampling."""
    rows = np.concatenate([rois, class_ids[:, None], bbox], axis=1)
    order = np.lexsort(np.round(rows, 4).T[::-1])
    return [rows[order], mask[order]]


@pytest.mark.parametrize("path", golden_params("layers_targets*.npz"))
def test_detection_targets(path):
    z = load(path)
    for n in numbers(z, r"dt(\d+)_proposals"):
        config = text(z[f"dt{n}_cfg"])
        layer = DetectionTargetLayer(
            rois_per_image=config["TRAIN_ROIS_PER_IMAGE"],
            positive_ratio=config["ROI_POSITIVE_RATIO"],
            mask_shape=config["MASK_SHAPE"],
            use_mini_mask=config["USE_MINI_MASK"],
            shuffle=not config["identity_shuffle"],
        )
        inputs = [z[f"dt{n}_{name}"] for name in ("proposals", "gt_class_ids", "gt_boxes")]
        inputs.append(unpack_bits(z, f"dt{n}_gt_masks"))
        outputs = [array(x) for x in run(layer, inputs)]
        expected = [z[f"dt{n}_{name}"] for name in ("rois", "class_ids", "bbox")]
        expected.append(unpack_bits(z, f"dt{n}_mask"))
        for actual_image, expected_image in zip(
            zip(*outputs, strict=True), zip(*expected, strict=True), strict=True
        ):
            if not config["identity_shuffle"]:
                actual_image, expected_image = as_rows(*actual_image), as_rows(*expected_image)
            *actual_rows, actual_masks = actual_image
            *expected_rows, expected_masks = expected_image
            for a, e in zip(actual_rows, expected_rows, strict=True):
                np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-5, err_msg=f"case {n}")
            # A pixel whose interpolated value is 0.5 may fall to either side.
            assert np.mean(actual_masks != expected_masks) < 1e-4, f"case {n}"


@pytest.mark.parametrize("path", golden_params("layers_losses*.npz"))
class TestLosses:
    def test_rpn(self, path):
        z = load(path)
        for n in numbers(z, r"rpn(\d+)_match"):
            match = z[f"rpn{n}_match"]
            close(losses.rpn_class_loss(*tensors(match, z[f"rpn{n}_logits"])), z[f"rpn{n}_class_loss"])
            loss = losses.rpn_bbox_loss(*tensors(z[f"rpn{n}_target_bbox"], match, z[f"rpn{n}_bbox"]))
            close(loss, z[f"rpn{n}_bbox_loss"])

    def test_heads(self, path):
        z = load(path)
        for n in numbers(z, r"head(\d+)_logits"):
            ids = z[f"head{n}_target_class_ids"]
            loss = losses.mrcnn_class_loss(*tensors(ids, z[f"head{n}_logits"], z[f"head{n}_active"]))
            # The Keras 2 library divides 0 by 0 if no RoI counts; 0 lets training go on.
            close(loss, np.nan_to_num(z[f"head{n}_class_loss"]))
            loss = losses.mrcnn_bbox_loss(*tensors(z[f"head{n}_target_bbox"], ids, z[f"head{n}_bbox"]))
            close(loss, z[f"head{n}_bbox_loss"])
            masks = unpack_bits(z, f"head{n}_target_mask").astype("float32")
            predicted = z[f"head{n}_mask_f16"].astype("float32")
            loss = losses.mrcnn_mask_loss(*tensors(masks, ids, predicted))
            close(loss, z[f"head{n}_mask_loss"])


@pytest.mark.parametrize("path", golden_params("layers_batchnorm*.npz"))
@pytest.mark.parametrize("train_bn", [False, None, True])
def test_batch_norm(path, train_bn):
    z = load(path)
    label = f"train_bn_{str(train_bn).lower()}"
    layer = BatchNorm(train_bn=train_bn, epsilon=float(z["epsilon"]), momentum=float(z["momentum"]))
    layer.build(z["x"][0].shape)
    layer.set_weights([z[name] for name in ("gamma", "beta", "moving_mean", "moving_variance")])
    close(layer(z["x"][0], training=False), z[f"{label}_predict"], atol=1e-5)
    layer.set_weights([z[name] for name in ("gamma", "beta", "moving_mean", "moving_variance")])
    for batch, expected in zip(z["x"], z[f"{label}_stats_after_each_step"], strict=True):
        layer(batch, training=True)
        stats = np.stack([array(layer.moving_mean.value), array(layer.moving_variance.value)])
        close(stats, expected, rtol=1e-5, atol=1e-5)
    close(layer(z["x"][0], training=False), z[f"{label}_predict_after"], atol=1e-5)
