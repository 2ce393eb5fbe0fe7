"""Whole networks with recipe weights against recordings of the Keras 2 library."""

from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import running_eagerly
from golden_files import golden_params, load, recipe_weights, text, unpack_bits

from mrcnn.config import Config
from mrcnn.geometry import boxes
from mrcnn.geometry.anchors import AnchorCache
from mrcnn.inference.detector import Detector
from mrcnn.inference.inputs import MoldedImage
from mrcnn.inference.outputs import with_mask_form
from mrcnn.model import MaskRCNN

# Every recording on TensorFlow; one small one elsewhere.
PATTERN = "net_*.npz" if keras.backend.backend() == "tensorflow" else "net_r50_shapes*.npz"

SLOW = ("square", "photo1", "photo2", "4ch", "trainbn_none", "defaultconf")

# TensorFlow compiles the network of this recording, and runs the others step by step, which is faster.
COMPILED = "net_r50_shapes"

MATCHED_SHARE = 0.95

# Of the photographs' hundred detections, those that rounding may replace by a near duplicate: two proposals
# of nearly equal score can change places, and NMS then keeps the other. Noise of 1e-6 in the input did so to
# the original itself; which ones, and whether any, depends on the processor's instructions.
REPLACED_SHARE = 0.03


def recorded_config(z: dict) -> Config:
    """The Config of a recording: the library's defaults, changed by what the recording says."""
    config = Config()
    for name, value in text(z["config"]).items():
        setattr(config, name, np.array(value) if name in ("MEAN_PIXEL",) else value)
    config.MINI_MASK_SHAPE = tuple(config.MINI_MASK_SHAPE)
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("recipe")


@pytest.fixture(scope="module", params=golden_params(PATTERN, SLOW))
def recording(request, folder):
    """A recording, the model with its weights, its pictures, and the values of all its parts."""
    z = load(request.param)
    with running_eagerly(COMPILED not in request.param.name):
        yield values_of(z, folder)


def values_of(z: dict, folder: Path) -> tuple:
    """Build the model of a recording, and compute the values of all its parts; see `recording`."""
    model = MaskRCNN("inference", recorded_config(z), folder)
    report = model.load_weights(recipe_weights(str(z["structure"]), str(z["salt"]), folder))
    assert not report.missing_in_file
    pictures = [z[f"image{i}"] for i in range(int(z["n_images"]))]
    graph = model._graph.outputs
    wanted = {"C2": model.keras_model.get_layer("res2c_out").output}
    wanted |= {"C5": model.keras_model.get_layer("res5c_out").output, **graph}
    molded = recorded_input(z, model, pictures)
    values = model.run_graph(molded, list(wanted.items()), z["image_metas"])
    values["from_pictures"] = model.detect(pictures)
    inputs = [
        MoldedImage(pixels, meta, tuple(window), picture.shape)
        for pixels, meta, window, picture in zip(
            molded, z["image_metas"], z["windows"], pictures, strict=True
        )
    ]
    detector = Detector(model._graph, model.keras_model, model.config, AnchorCache(model.config))
    found = detector.detect_molded(inputs)
    values["from_input"] = [with_mask_form(detections, "full") for detections in found]
    return z, model, pictures, values


def recorded_input(z: dict, model: MaskRCNN, pictures: list) -> np.ndarray:
    """The network's input as it was recorded; molded anew where only a part was.

    Resized values that lie exactly between two integers fall to a side that depends on the rounding of
    the recording machine, so that molding anew changes a few pixels by 1.
    """
    if "resized_uint8" in z:
        return z["resized_uint8"] - model.config.MEAN_PIXEL
    return model.mold_inputs(pictures)[0]


def assert_close(actual, expected, z, atol, rtol=0.0):
    """Within the tolerance: everywhere if the input is the recorded one, else nearly everywhere."""
    if "resized_uint8" in z:
        np.testing.assert_allclose(actual, expected, atol=atol, rtol=rtol)
    else:
        assert np.mean(np.isclose(actual, expected, atol=atol, rtol=rtol)) > 0.99
        np.testing.assert_allclose(actual, expected, atol=20 * atol, rtol=20 * rtol)


def every(array: np.ndarray, z: dict, name: str) -> np.ndarray:
    """The part of a feature map that is recorded."""
    rows, columns, channels = z[f"{name}_stride"]
    return array[:, ::rows, ::columns, ::channels]


def test_molding(recording):
    z, model, pictures, _ = recording
    molded, metas, windows = model.mold_inputs(pictures)
    np.testing.assert_array_equal(windows, z["windows"])
    np.testing.assert_allclose(metas, z["image_metas"], rtol=1e-6)
    assert molded.shape == tuple(z["molded_shape"])
    every = 4 if "resized_uint8" not in z else 1
    recorded = z["resized_uint8" if every == 1 else "resized_uint8_sub4"].astype(int)
    ours = np.rint(molded + model.config.MEAN_PIXEL).astype(int)[:, ::every, ::every]
    assert np.abs(ours - recorded).max() <= 1
    assert np.mean(ours != recorded) < 0.01


def test_anchors(recording):
    z, model, _, _ = recording
    anchors = model.get_anchors(z["molded_shape"][1:])
    assert len(anchors) == z["anchors_n"][-2] or len(anchors) in z["anchors_n"]
    np.testing.assert_allclose(anchors[:: int(z["anchors_step"])], z["anchors_sub"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["C2", "C5", "P2", "P3", "P4", "P5", "P6"])
def test_features(recording, name):
    z, _, _, values = recording
    assert values[name].shape == tuple(z[f"{name}_shape"])
    assert_close(every(values[name], z, name), z[f"{name}_sub"], z, atol=2e-3, rtol=1e-3)
    assert_close(values[name].mean(axis=(1, 2)), z[f"{name}_channel_mean"], z, atol=2e-3, rtol=1e-3)


def test_rpn(recording):
    z, _, _, values = recording
    step = int(z["rpn_step"])
    assert_close(values["rpn_class"][:, ::step], z["rpn_class_sub"], z, atol=1e-3)
    for name in ("rpn_class_logits", "rpn_bbox"):
        assert_close(values[name][:, ::step], z[f"{name}_sub"], z, atol=2e-3, rtol=1e-3)


def test_proposals(recording):
    z, _, _, values = recording
    for ours, theirs in zip(values["ROI"], z["rpn_rois"], strict=True):
        distance = np.abs(ours[:, None] - theirs[None]).max(axis=2)
        share = 0.99 if "resized_uint8" in z else 0.95
        assert np.mean(distance.min(axis=0) < 1e-3) >= share
        assert np.mean(distance.min(axis=1) < 1e-3) >= share


def test_heads(recording):
    """Class probabilities and deltas of the proposals that both have, wherever they stand.

    A few may differ: those whose size is at the border of two pyramid levels.
    """
    z, model, _, values = recording
    checked = []
    for image, theirs in enumerate(z["rpn_rois"]):
        distance = np.abs(values["ROI"][image][:, None] - theirs[None]).max(axis=2)
        row, place = distance.argmin(axis=0), np.arange(len(theirs))
        # Statistics of the batch amplify rounding.
        noise = 20 if model.config.TRAIN_BN is True else 1
        known = {"mrcnn_class": 1e-3 * noise, "mrcnn_bbox": 1e-2 * noise}
        for name, tolerance in known.items():
            if name not in z:  # not recorded with statistics of the batch
                continue
            kept = place[: z[name].shape[1]]
            kept = kept[distance[row[kept], kept] < 1e-5]
            difference = np.abs(values[name][image][row[kept]] - z[name][image][kept])
            share = 0.997 if "resized_uint8" in z else 0.97
            share = 0.9 if model.config.TRAIN_BN is True else share
            assert np.mean(difference.reshape(len(kept), -1).max(axis=1) < tolerance) >= share, name
            checked.append(len(kept))
    assert checked or "mrcnn_class" not in z


def matches(ours: dict, theirs: dict) -> list[tuple[int, int]]:
    """Pairs of detections of one class whose boxes overlap by more than 0.9, nearest in score, each once."""
    overlaps = boxes.compute_overlaps(ours["rois"], theirs["rois"])
    overlaps[ours["class_ids"][:, None] != theirs["class_ids"][None]] = 0
    pairs: list[tuple[int, int]] = []
    for b, score in enumerate(theirs["scores"]):
        free = set(np.flatnonzero(overlaps[:, b] > 0.9)) - {a for a, _ in pairs}
        if free:
            pairs.append((int(min(free, key=lambda a: abs(ours["scores"][a] - score))), b))
    return pairs


def share_of_agreeing_masks(ours: dict, theirs: dict, pairs: list, least_iou: float) -> float:
    """Share of the pairs with equal boxes whose masks overlap enough; two pixels near one half may differ."""
    agree = []
    for a, b in pairs:
        if np.array_equal(ours["rois"][a], theirs["rois"][b]):
            both = np.logical_and(ours["masks"][:, :, a], theirs["masks"][:, :, b]).sum()
            either = np.logical_or(ours["masks"][:, :, a], theirs["masks"][:, :, b]).sum()
            agree.append(either - both <= 2 or both / either > least_iou)
    return float(np.mean(agree)) if agree else 1.0


def compare(ours: dict, theirs: dict, mask_share: float) -> None:
    """Two results of one picture within the tolerances of the recordings."""
    pairs = matches(ours, theirs)
    assert len(pairs) >= MATCHED_SHARE * max(len(ours["rois"]), len(theirs["rois"]))
    # A near duplicate can be paired with its twin: as many may differ as may be missing.
    scores = [abs(ours["scores"][a] - theirs["scores"][b]) < 5e-3 for a, b in pairs]
    rois = [np.abs(ours["rois"][a] - theirs["rois"][b]).max() <= 1 for a, b in pairs]
    assert np.mean(scores) >= MATCHED_SHARE
    assert np.mean(rois) >= MATCHED_SHARE
    assert share_of_agreeing_masks(ours, theirs, pairs, 0.98) >= mask_share


def recorded_results(z: dict) -> list[dict]:
    results = []
    for i in range(int(z["n_images"])):
        result = {name: z[f"result{i}_{name}"] for name in ("rois", "class_ids", "scores")}
        result["masks"] = unpack_bits(z, f"result{i}_masks")
        results.append(result)
    return results


def test_detect(recording):
    z, model, _, values = recording
    # Statistics of the batch amplify rounding: the recording says so of itself (noise_detections_matched).
    mask_share = 0.6 if model.config.TRAIN_BN is True else 0.95
    for ours, theirs in zip(values["from_pictures"], recorded_results(z), strict=True):
        assert ours["rois"].dtype == np.int32
        assert ours["class_ids"].dtype == np.int32
        assert ours["scores"].dtype == np.float32
        assert ours["masks"].dtype == bool
        assert ours["masks"].shape[:2] == theirs["masks"].shape[:2]
        compare(ours, theirs, mask_share)


def test_same_order_from_the_recorded_input(recording):
    """The same classes in the same order, boxes, scores and masks closer than `compare` asks."""
    z, model, _, values = recording
    if "resized_uint8" not in z or model.config.TRAIN_BN is True:
        pytest.skip("the whole input is not recorded, or statistics of the batch make it noisy")
    if np.min(z["noise_detections_matched"]) < 1:
        pytest.skip("rounding noise alone changed the original's own detections")
    for ours, theirs in zip(values["from_input"], recorded_results(z), strict=True):
        assert_same_order(ours, theirs)


def test_photographs_in_the_same_order(recording):
    """detect() from the photographs themselves, molding included."""
    z, _, pictures, values = recording
    if min(pictures[0].shape[:2]) < 430:
        pytest.skip("a generated picture")
    for ours, theirs in zip(values["from_pictures"], recorded_results(z), strict=True):
        assert_same_order(ours, theirs)


def assert_same_order(ours: dict, theirs: dict) -> None:
    """Classes, boxes, scores and masks agree one by one, in the same order.

    Detections whose scores differ by less than 1e-4 may change places; REPLACED_SHARE may have no partner.
    """
    pairs = matches(ours, theirs)
    count = len(theirs["scores"])
    assert len(ours["scores"]) == count
    assert len(pairs) >= (1 - REPLACED_SHARE) * count
    assert share_of_agreeing_masks(ours, theirs, pairs, 0.99) >= 0.98
    for a, b in pairs:
        assert abs(ours["scores"][a] - theirs["scores"][b]) < 1e-3
        assert np.abs(ours["rois"][a] - theirs["rois"][b]).max() <= 1
    order = np.array([theirs["scores"][b] for _, b in sorted(pairs)])  # by our place
    assert np.all(np.diff(order) < 1e-4)


def test_whole_graph_gives_the_same_detections(recording):
    """unmold_detections of the seven-output network agrees with the detector.

    The latter computes fewer masks and has its batch norms folded, which rounds otherwise.
    """
    z, model, pictures, values = recording
    if model.config.TRAIN_BN is True:
        pytest.skip("statistics of the batch depend on how many masks are computed")
    for i, result in enumerate(values["from_input"]):
        unmolded = model.unmold_detections(
            values["mrcnn_detection"][i],
            values["mrcnn_mask"][i],
            pictures[i].shape,
            tuple(z["molded_shape"][1:]),
            z["windows"][i],
        )
        whole = dict(zip(("rois", "class_ids", "scores", "masks"), unmolded, strict=True))
        assert_same_order(whole, result)
