"""What training writes for TensorBoard, read back from the event files."""

import threading
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto import graph_pb2
from tensorboard.util.tensor_util import make_ndarray
from tiny_model import TinyConfig
from toy_data import toy_dataset

from mrcnn import inspection
from mrcnn.checkpoints import weights
from mrcnn.config import LOSS_NAMES
from mrcnn.errors import LeftOutWarning, UnreadableFileError
from mrcnn.inspection.tensorboard import callbacks
from mrcnn.inspection.tensorboard.event_files import EventFile
from mrcnn.model import MaskRCNN

pytestmark = pytest.mark.usefixtures("eager_tensorflow")

EPOCHS = 2


def events(folder):
    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model that was trained with every callback, and the callbacks."""
    model = MaskRCNN("training", TinyConfig(), tmp_path_factory.mktemp("logs"))
    dataset = toy_dataset(3)
    callbacks = inspection.tensorboard_callbacks(model, dataset, images=2, gradients=True)
    model.train(toy_dataset(), dataset, 0.01, EPOCHS, "all", custom_callbacks=callbacks)
    return model, callbacks


def test_losses_by_name_for_training_and_validation_and_the_learning_rate(trained):
    names = {f"epoch_{name}" for name in ("loss", *LOSS_NAMES)}
    train = events(Path(trained[0].log_dir) / "train")
    assert names | {"epoch_learning_rate"} <= set(train.Tags()["tensors"])
    assert names <= set(events(Path(trained[0].log_dir) / "validation").Tags()["tensors"])
    written = train.Tensors("epoch_learning_rate")
    assert [event.step for event in written] == [0, 1]
    assert float(make_ndarray(written[0].tensor_proto)) == pytest.approx(0.01)


def test_images_of_ground_truth_and_detections_after_each_epoch(trained):
    model, (images, *_) = trained
    log = events(Path(model.log_dir) / "detections")
    assert set(log.Tags()["images"]) == {f"ground truth and detections/{i}" for i in (0, 2)}
    written = log.Images("ground truth and detections/2")
    assert [event.step for event in written] == [0, 1]
    drawn = cv2.imdecode(np.frombuffer(written[-1].encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(drawn[..., ::-1], images.draw(2))
    # The image is wider than high: ground truth is above the detections, each under its heading.
    image = images.dataset.load_image(2)
    assert drawn.shape[1] % image.shape[1] == 0 and drawn.shape[1] >= callbacks.SMALLEST_SIDE // 2
    above, below = np.split(drawn, 2)
    assert (above[0] == 255).all() and (below[0] == 255).all()
    assert (above != below).any()


def test_the_inference_network_has_the_weights_of_the_last_epoch(trained):
    model, (images, *_) = trained
    last = model.inference_model()
    last.load_weights(model.find_last())
    ours = weights.model_weights(images.detector.keras_model)
    for layer, named in weights.model_weights(last.keras_model).items():
        for name, variable in named.items():
            np.testing.assert_array_equal(np.array(variable), np.array(ours[layer][name]), err_msg=name)


def test_histograms_of_every_weight(trained):
    model = trained[0]
    log = events(Path(model.log_dir) / "weights")
    expected = {name.split(":")[0] for w in weights.model_weights(model.keras_model).values() for name in w}
    assert set(log.Tags()["tensors"]) == expected
    assert {"rpn_conv_shared/kernel", "res1_tiny/bias", "mrcnn_mask_deconv/kernel"} <= expected
    (variable,) = (v for v in model.keras_model.get_layer("res1_tiny").weights if v.name == "kernel")
    last = make_ndarray(log.Tensors("res1_tiny/kernel")[-1].tensor_proto)
    assert last[:, 2].sum() == np.prod(variable.shape)
    assert last[0, 0] == pytest.approx(np.array(variable).min())
    assert last[-1, 1] == pytest.approx(np.array(variable).max())


def test_histograms_of_gradients(trained):
    model = trained[0]
    log = events(Path(model.log_dir) / "gradients")
    tags = set(log.Tags()["tensors"])
    layers = ("res1_tiny", "rpn_class_raw", "mrcnn_class_logits", "mrcnn_bbox_fc")
    assert {f"{layer}/kernel (gradient)" for layer in layers} <= tags
    for layer in layers:
        buckets = make_ndarray(log.Tensors(f"{layer}/kernel (gradient)")[0].tensor_proto)
        assert buckets[-1, 1] > buckets[0, 0]


def test_gradients_are_those_of_the_loss_and_change_nothing(trained):
    """A small step against the gradient lowers the loss by the step times the gradient's square."""
    model, (_, _, gradients, _) = trained
    network = model.keras_model
    before = [np.array(variable) for variable in network.variables]
    slopes = gradients.gradients()
    for variable, value in zip(network.variables, before, strict=True):
        np.testing.assert_array_equal(np.array(variable), value, err_msg=variable.path)

    def loss():
        value = network.test_on_batch(gradients.batch, return_dict=True)["loss"]
        for variable, kept in zip(network.non_trainable_variables, state, strict=True):
            variable.assign(kept)
        return float(value)

    state = [np.array(variable) for variable in network.non_trainable_variables]
    kept = [np.array(variable) for variable in network.trainable_variables]
    head = [i for i, v in enumerate(network.trainable_variables) if "mrcnn_class_logits" in v.path]
    expected, step, first = 0.0, 1e-3, loss()
    for i in head:
        network.trainable_variables[i].assign(kept[i] - step * slopes[i])
        expected += step * float((slopes[i] ** 2).sum())
    lowered = first - loss()
    for i in head:
        network.trainable_variables[i].assign(kept[i])
    assert len(head) == 2 and expected > 0
    assert lowered == pytest.approx(expected, rel=0.1)


def test_graph_in_the_parts_of_the_paper(trained):
    model = trained[0]
    log = events(Path(model.log_dir) / "graph")
    graph = graph_pb2.GraphDef.FromString(log.Graph().SerializeToString())
    nodes = {node.name: list(node.input) for node in graph.node}
    assert nodes["backbone/res1_tiny"] == ["inputs/input_image"]
    assert nodes["pyramid/fpn_c5p5"] == ["backbone/res5_tiny"]
    assert len(nodes["rpn/rpn_model"]) == 5
    from_inputs = {
        name.split("/")[0] for name, parents in nodes.items() if "inputs/input_gt_boxes" in parents
    }
    assert from_inputs == {"targets"}
    assert {name.split("/")[0] for name in nodes} == {
        *("inputs", "backbone", "pyramid", "rpn", "proposals", "targets", "box_head", "mask_head")
    }
    assert {parent for parents in nodes.values() for parent in parents} <= set(nodes)


def test_every_third_epoch_and_images_by_choice(trained, tmp_path):
    model = trained[0]
    histograms = inspection.WeightHistograms(model, every=3)
    model.log_dir, before = str(tmp_path), model.log_dir
    histograms.on_train_begin()
    for epoch in range(7):
        histograms.on_epoch_end(epoch)
    histograms.on_train_end()
    model.log_dir = before
    written = events(tmp_path / "weights").Tensors("res1_tiny/kernel")
    assert [event.step for event in written] == [2, 5]  # steps count from 0
    assert inspection.DetectionImages(model, toy_dataset(), image_ids=[4]).image_ids == [4]
    with pytest.raises(ValueError, match="every=0"):
        inspection.WeightHistograms(model, every=0)


def test_an_image_that_cannot_be_read_is_left_out(trained, monkeypatch):
    dataset, written = toy_dataset(3), []
    images = inspection.DetectionImages(trained[0], dataset, image_ids=[0, 1, 2])
    images.detector = trained[0].inference_model()
    load = dataset.load_image

    def load_image(image_id):
        if image_id == 1:
            raise UnreadableFileError("The image cannot be read.", file="b.png")
        return load(image_id)

    monkeypatch.setattr(dataset, "load_image", load_image)
    events = SimpleNamespace(add_image=lambda tag, image, step: written.append((tag.split("/")[1], step)))
    with pytest.warns(
        LeftOutWarning, match=r"1 of 3 images cannot be drawn.* b\.png: The image cannot"
    ) as found:
        images.write(events, 0)
        images.write(events, 1)
    assert [one.category for one in found].count(LeftOutWarning) == 1
    assert written == [("0", 0), ("2", 0), ("0", 1), ("2", 1)]


def test_a_training_after_an_error_leaves_no_file_open(tmp_path):
    """Keras does not call `on_train_end` after an error. A thread writes to each open file."""
    devices = SimpleNamespace(is_first_process=True)
    callback = callbacks.EventCallback(SimpleNamespace(devices=devices, log_dir=tmp_path))
    before = set(threading.enumerate())
    callback.on_train_begin()
    callback.on_train_begin()
    assert len(set(threading.enumerate()) - before) == 1
    callback.on_train_end()
    assert not set(threading.enumerate()) - before


def test_values_that_are_not_finite_are_left_out_of_a_histogram(tmp_path):
    file = EventFile(tmp_path)
    file.add_histogram("broken", np.array([1.0, np.nan, 2.0, np.inf]), 0)
    file.close()
    (event,) = events(tmp_path).Tensors("broken")
    assert make_ndarray(event.tensor_proto)[:, 2].sum() == 2
