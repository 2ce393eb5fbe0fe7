"""Training with recipe weights against recordings: targets, losses, gradients, ten optimiser steps."""

import json

import keras
import numpy as np
import pytest
from golden_files import golden_params, golden_path, load, recipe_weights, unpack_bits
from test_golden_networks import recorded_config

from mrcnn.checkpoints import weights
from mrcnn.config import LOSS_NAMES
from mrcnn.model import MaskRCNN
from mrcnn.training import layer_groups, optimizers, runs

TENSORFLOW = keras.backend.backend() == "tensorflow"
# Every recording on TensorFlow; one elsewhere.
PATTERN = "train_*.npz" if TENSORFLOW else "train_ext_heads*.npz"
SLOW = ("fullmask", "ext_all", "rpn_all") if TENSORFLOW else ()
# The first number is the loss, L2 included.
LOG_NAMES = ("loss", *LOSS_NAMES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("recipe")


@pytest.fixture(autouse=True)
def unchanged_by_forward_passes(request):
    """Variables as they were before each test: a training pass moves the statistics of batch norm."""
    if "recording" not in request.fixturenames:
        yield
        return
    network = request.getfixturevalue("recording")[1].keras_model
    before = [np.array(variable) for variable in network.variables]
    yield
    for variable, value in zip(network.variables, before, strict=True):
        variable.assign(value)


@pytest.fixture(scope="module", params=golden_params(PATTERN, SLOW))
def recording(request, folder):
    """A recording, and a compiled training model with its weights and without chance."""
    z = load(request.param)
    config = recorded_config(z)
    config.RPN_TARGETS_IN_GRAPH = False  # the labels of the anchors were drawn at random and recorded
    model = MaskRCNN("training", config, folder)
    model.load_weights(recipe_weights(str(z["structure"]), str(z["salt"]), folder))
    model.set_trainable(layer_groups.layer_pattern(str(z["layers"])), verbose=0)
    model.keras_model.get_layer("proposal_targets").shuffle = False
    model.compile(float(z["learning_rate"]), float(z["momentum"]))
    return z, model, inputs_of(z, model.config)


def inputs_of(z: dict, config) -> dict[str, np.ndarray]:
    """The recorded batch as the network takes it."""
    rpn_bbox = np.zeros(z["in_rpn_bbox_shape"], "float32")
    first = z["in_rpn_bbox_first"]
    rpn_bbox[:, : first.shape[1]] = first
    inputs = {
        "input_image": (z["in_images_uint8"] - config.MEAN_PIXEL).astype("float32"),
        "input_image_meta": z["in_image_meta"].astype("float32"),
        "input_rpn_match": z["in_rpn_match"].astype("int32"),
        "input_rpn_bbox": rpn_bbox,
        "input_gt_class_ids": z["in_gt_class_ids"],
        "input_gt_boxes": z["in_gt_boxes"].astype("float32"),
        "input_gt_masks": unpack_bits(z, "in_gt_masks"),
    }
    if "in_input_rois" in z:
        inputs["input_roi"] = z["in_input_rois"]
    return inputs


def variables_by_name(network) -> dict:
    return {
        name: variable
        for layer in weights.model_weights(network).values()
        for name, variable in layer.items()
    }


def test_targets_and_heads(recording):
    """One forward pass: the sampled RoIs, their targets and what the heads say of them."""
    z, model, inputs = recording
    network = model.keras_model
    outputs = network(inputs, training=True)
    outputs = {name: keras.ops.convert_to_numpy(value) for name, value in outputs.items()}
    names = {"output_rois": "target_rois", "target_bbox": "target_bbox"}
    places = outputs["target_mask"].shape[1]
    masks = unpack_bits(z, "target_mask")
    loose = "ext" not in str(z["config"]) and "in_input_rois" not in z
    if loose:  # the network's own proposals may change places: compare what was chosen as sets
        assert (outputs["target_class_ids"] > 0).sum() == (z["target_class_ids"] > 0).sum()
    else:
        np.testing.assert_array_equal(outputs["target_class_ids"], z["target_class_ids"])
        for ours, theirs in names.items():
            np.testing.assert_allclose(outputs[ours], z[theirs], rtol=1e-4, atol=1e-5)
        assert np.mean(outputs["target_mask"] != masks[:, :places]) < 1e-4
        assert not masks[:, places:].any()
        for name in ("mrcnn_class_logits", "mrcnn_class", "mrcnn_bbox"):
            np.testing.assert_allclose(outputs[name], z[f"out_{name}"], rtol=5e-3, atol=5e-3)
    step = -(-outputs["rpn_class"].shape[1] // z["out_rpn_class"].shape[1])
    for name in ("rpn_class", "rpn_bbox"):
        np.testing.assert_allclose(outputs[name][:, ::step], z[f"out_{name}"], rtol=1e-3, atol=2e-3)


@pytest.mark.skipif(not TENSORFLOW, reason="gradients are compared on TensorFlow")
def test_losses_and_gradients(recording):
    """The first step's losses, their sum with L2, and each variable's gradient, before and after clipping."""
    import tensorflow as tf

    z, model, inputs = recording
    network = model.keras_model
    named = variables_by_name(network)
    names = [str(name) for name in z["var_names"]]
    assert {v.path for v in network.trainable_variables} == {named[name].path for name in names}
    inputs = {name: tf.convert_to_tensor(value) for name, value in inputs.items()}
    with tf.GradientTape() as tape:
        outputs = network(inputs, training=True)
        parts = network.compute_losses(inputs, outputs)
        total = network.total_loss(network.weighted_losses(inputs, outputs))
    shown = network.compute_loss(x=inputs, y_pred=outputs)
    rtol = 1e-4 if "in_input_rois" in z and not model.config.TRAIN_BN else 1e-3
    np.testing.assert_allclose(
        [float(parts[str(name)]) for name in z["loss_names"]], z["losses"], rtol=rtol, atol=1e-6
    )
    for loss in (total, shown):
        np.testing.assert_allclose(float(loss), z["total_loss"], rtol=rtol)
    penalty = optimizers.l2_penalty(network.trainable_variables, model.config.WEIGHT_DECAY)
    np.testing.assert_allclose(float(penalty), z["regularization_loss"], rtol=1e-4)

    gradients = tape.gradient(total, [named[name].value for name in names])
    norms = np.array([float(tf.norm(gradient)) for gradient in gradients])
    # With statistics of the batch a change of the input by 1e-6 already moves gradients by 3e-3.
    noisy = "in_input_rois" not in z or model.config.TRAIN_BN is not False
    loosely = 1e-2 if noisy else 2e-3
    np.testing.assert_allclose(norms, z["grad_norm"], rtol=loosely, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(norms), z["grad_global_norm"], rtol=loosely)
    factor = min(1.0, model.config.GRADIENT_CLIP_NORM / np.linalg.norm(norms))
    np.testing.assert_allclose(norms * factor, z["grad_norm_clipped"], rtol=loosely, atol=1e-3)


@pytest.mark.slow
def test_ten_steps(recording):
    """Losses before each update, and the weights after the last. Changes the model: it comes last."""
    z, model, inputs = recording
    network = model.keras_model
    named = variables_by_name(network)
    before = {name: np.array(variable) for name, variable in named.items()}
    tolerance = 2e-2 if "in_input_rois" in z else 5e-2
    columns = [list(map(str, z["metrics_names"])).index(name) for name in LOG_NAMES]
    steps = int(z["steps"]) if TENSORFLOW else 2
    for step in range(steps):
        network.reset_metrics()
        logs = network.train_on_batch(inputs, return_dict=True)
        ours = [float(logs[name]) for name in LOG_NAMES]
        # The first step is an exact forward pass, later ones carry rounding forward.
        np.testing.assert_allclose(
            ours, z["history"][step][columns], rtol=1e-3 if step == 0 else tolerance, atol=1e-4
        )
    if steps < int(z["steps"]):
        return
    rtol, atol = (2e-4, 3e-5) if model.config.TRAIN_BN is False else (2e-3, 1e-3)
    for index, name in enumerate(map(str, z["all_var_names"])):
        after = np.array(named[name])
        stats = [after.mean(), after.std(), np.linalg.norm(after)]
        np.testing.assert_allclose(stats, z["after_stats"][index], rtol=rtol, atol=atol, err_msg=name)
        change = np.linalg.norm(after - before[name])
        expected = z["after_minus_before_norm"][index]
        np.testing.assert_allclose(change, expected, rtol=5e-2, atol=atol, err_msg=name)


def stages() -> dict:
    return json.loads(golden_path("trainable_layers.json").read_text())


@pytest.fixture(scope="module")
def resnet50(folder):
    recorded = stages()
    config = recorded_config({"config": np.array(json.dumps({"NAME": "x", "BACKBONE": "resnet50"}))})
    config.NUM_CLASSES = recorded["model"]["num_classes"]
    config.IMAGE_MIN_DIM = config.IMAGE_MAX_DIM = 128
    return MaskRCNN("training", config, folder)


@pytest.mark.parametrize("stage", ["heads", "3+", "4+", "5+", "all"])
def test_layers_of_each_stage(resnet50, stage):
    recorded = stages()[stage]
    network = resnet50.keras_model
    chosen = layer_groups.set_trainable(network, layer_groups.layer_pattern(stage))
    assert {layer.name for layer in chosen} == set(recorded["layers_reported_trainable"])
    named = variables_by_name(network)
    trainable = {variable.path for variable in network.trainable_variables}
    ours = {name for name, variable in named.items() if variable.path in trainable}
    assert ours == set(recorded["trainable_weights"])
    decayed = {name for name in ours if not name.endswith(("gamma:0", "beta:0"))}
    assert decayed == set(recorded["l2_regularised_weights"])


def test_run_names_of_weight_files(folder):
    recorded = stages()["set_log_dir"]
    for path, expected in recorded.items():
        run = runs.resumed_run(folder, "x", path)
        if expected["log_dir_tail"] == "now":
            assert run is None, path
            continue
        assert run.epoch == expected["epoch"], path
        assert run.log_dir.name == expected["log_dir_tail"]
        assert run.checkpoint_path.endswith(expected["checkpoint_tail"])
