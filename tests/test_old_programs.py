"""Programs written for the Keras 2 library: what runs as it is, and what gets one clear sentence."""

import os
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
from matplotlib import pyplot as plt
from tiny_model import TinyConfig
from toy_data import rectangles, toy_dataset

import mrcnn.model as modellib
from mrcnn import utils, visualize
from mrcnn.checkpoints import weights
from mrcnn.training import runs

BACKEND = keras.backend.backend()


@pytest.fixture(scope="module", autouse=True)
def without_compilation():
    """Where the backend can do without, compiling takes longer than these few steps."""
    if BACKEND != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


class OwnModel(modellib.MaskRCNN):
    """A constructor that does not call the one of MaskRCNN, and a training loop."""

    def __init__(self, mode, config, model_dir):
        assert mode in ["training", "inference"]
        self.mode = mode
        self.config = config
        self.model_dir = model_dir
        self.set_log_dir()
        self.keras_model = self.build(mode=mode, config=config)

    def train(self, train_dataset, val_dataset, learning_rate, epochs, layers):
        config = self.config
        batches = modellib.data_generator(train_dataset, config, shuffle=True, batch_size=config.BATCH_SIZE)
        validation = modellib.data_generator(val_dataset, config, shuffle=True, batch_size=config.BATCH_SIZE)
        callbacks = [
            keras.callbacks.TensorBoard(
                log_dir=self.log_dir, histogram_freq=0, write_graph=False, write_images=False
            ),
            keras.callbacks.ModelCheckpoint(self.checkpoint_path, verbose=0, save_weights_only=True),
        ]
        self.set_trainable(layers)
        self.compile(learning_rate, config.LEARNING_MOMENTUM)
        self.keras_model.fit_generator(
            batches,
            initial_epoch=self.epoch,
            epochs=epochs,
            steps_per_epoch=config.STEPS_PER_EPOCH,
            callbacks=callbacks,
            validation_data=validation,
            validation_steps=1,
            max_queue_size=100,
            workers=2,
            use_multiprocessing=True,
        )
        self.epoch = max(self.epoch, epochs)


class Sequence(keras.utils.Sequence):
    def __init__(self, config):
        super().__init__()
        self.batches = modellib.data_generator(toy_dataset(3), config, batch_size=2)

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return next(self.batches)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    model = OwnModel("training", TinyConfig(), str(tmp_path_factory.mktemp("logs")))
    model.train(toy_dataset(), toy_dataset(3), 0.01, epochs=2, layers="heads|.*")
    return model


@pytest.fixture(scope="module")
def detector(trained):
    model = OwnModel("inference", TinyConfig(), trained.model_dir)
    model.load_weights(model.find_last(), by_name=True)
    return model


def test_a_constructor_and_a_training_loop_of_their_own(trained):
    """The loop leaves the files of a run, and the history of the losses by name."""
    history = trained.keras_model.history.history
    assert {"loss", "val_loss", "rpn_class_loss", "val_mrcnn_mask_loss"} < history.keys()
    assert len(history["loss"]) == 2 and history["loss"][1] < history["loss"][0]
    files = sorted(name for name in os.listdir(trained.log_dir) if name.endswith(".h5"))
    assert files == ["mask_rcnn_toy_0001.h5", "mask_rcnn_toy_0002.h5"]
    report = weights.load_weights(trained.keras_model, trained.find_last())
    assert report.info.settings["NAME"] == "toy"


def test_a_model_with_its_own_constructor_detects(detector):
    assert detector.detect([rectangles(0)[0]], verbose=1)[0]["rois"].shape[1] == 4
    assert detector.inference_model().detect([rectangles(0)[0]])


def test_batches_are_lists_of_seven_arrays(trained):
    inputs, outputs = next(modellib.data_generator(toy_dataset(2), trained.config, batch_size=2))
    assert (len(inputs), outputs) == (7, [])
    network = trained.keras_model
    assert np.isfinite(network.train_on_batch(inputs, outputs)).all()
    assert np.isfinite(network.test_on_batch(inputs, outputs)).all()
    history = network.fit(
        inputs, outputs, batch_size=2, verbose=0, workers=2, max_queue_size=3, use_multiprocessing=True
    )
    assert np.isfinite(history.history["loss"]).all()
    with pytest.raises(ValueError, match=r"the arrays of data_generator.*Received: 3 arrays"):
        network.fit(inputs[:3], outputs, verbose=0)


def test_sequences_and_validation_data(trained):
    data = next(modellib.data_generator(toy_dataset(2), trained.config, batch_size=2))
    history = trained.keras_model.fit(Sequence(trained.config), validation_data=data, verbose=0)
    assert np.isfinite(history.history["loss"] + history.history["val_loss"]).all()


@pytest.mark.slow
def test_the_network_takes_the_targets_of_the_batches(tmp_path):
    config = TinyConfig()
    config.RPN_TARGETS_IN_GRAPH = False
    model = OwnModel("training", config, str(tmp_path))
    model.train(toy_dataset(3), toy_dataset(3), 0.01, epochs=1, layers="heads|.*")
    assert model.find_last().endswith("_0001.h5")


@pytest.mark.parametrize("name", ["plain", "a {brace} and {epoch}", "ends.weights"])
def test_the_path_for_model_checkpoint(tmp_path, name):
    path = runs.new_run(tmp_path, name).checkpoint_path
    checkpoint = keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
    assert checkpoint.filepath.format(epoch=7, loss=0.5).endswith(f"mask_rcnn_{name}_0007.h5")
    assert path.endswith("_{epoch:04d}.h5") and not path.endswith((".keras", ".txt"))


class ChoosesFolder(modellib.MaskRCNN):
    """Chooses the folder of a run itself, without the method of MaskRCNN."""

    def set_log_dir(self, model_path=None):
        self.epoch = 0
        self.log_dir = os.path.join(self.model_dir, "mine")
        self.checkpoint_path = os.path.join(self.log_dir, "mine_{epoch:04d}.h5")


def test_a_subclass_that_chooses_its_folder(tmp_path):
    model = ChoosesFolder("training", TinyConfig(), str(tmp_path))
    model.train(toy_dataset(3), None, 0.01, epochs=1, layers="heads")
    assert (tmp_path / "mine" / "mine_0001.h5").is_file()


def test_an_epoch_and_a_path_that_the_program_sets(tmp_path):
    model = modellib.MaskRCNN("training", TinyConfig(), str(tmp_path))
    model.epoch = 2
    model.checkpoint_path = str(tmp_path / "kept" / "mine_{epoch:04d}.h5")
    model.train(toy_dataset(3), None, 0.01, epochs=3, layers="heads")
    assert model.epoch == 3
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["mine_0003.h5"]
    assert os.path.isfile(os.path.join(model.log_dir, "config.json"))


def test_a_folder_that_the_program_creates_before_training(tmp_path):
    model = modellib.MaskRCNN("training", TinyConfig(), str(tmp_path))
    folder = model.log_dir
    os.makedirs(folder)
    with open(os.path.join(folder, "notes.txt"), "w") as notes:
        notes.write("learning rate 0.01")
    model.train(toy_dataset(3), None, 0.01, epochs=1, layers="heads")
    assert model.log_dir == folder
    assert {"notes.txt", "mask_rcnn_toy_0001.h5"} < set(os.listdir(folder))


class DescribesItself(TinyConfig):
    """A script's own `to_dict`, of values that JSON cannot store."""

    def to_dict(self):
        return {name: getattr(self, name) for name in dir(self) if name.isupper()}


def test_a_config_with_its_own_to_dict(tmp_path):
    model = modellib.MaskRCNN("training", DescribesItself(), str(tmp_path))
    model.train(toy_dataset(3), None, 0.01, epochs=1, layers="heads")
    assert weights.load_weights(model.keras_model, model.find_last()).info.settings["NAME"] == "toy"


@pytest.mark.skipif(BACKEND != "tensorflow", reason="graphs of TensorFlow 1")
def test_a_graph_of_tensorflow_1_is_named(detector):
    import tensorflow as tf

    with tf.Graph().as_default(), pytest.raises(RuntimeError, match=r"Remove.*tf\.Graph\(\)\.as_default"):
        detector.detect([rectangles(0)[0]])


def test_the_anchors_of_the_last_image(tmp_path):
    training = OwnModel("training", TinyConfig(), str(tmp_path))
    config = training.config
    wanted = utils.generate_pyramid_anchors(
        config.RPN_ANCHOR_SCALES,
        config.RPN_ANCHOR_RATIOS,
        modellib.compute_backbone_shapes(config, config.IMAGE_SHAPE),
        config.BACKBONE_STRIDES,
        config.RPN_ANCHOR_STRIDE,
    )
    np.testing.assert_array_equal(training.anchors, wanted)
    config = TinyConfig()
    config.IMAGE_RESIZE_MODE = "pad64"
    model = OwnModel("inference", config, str(tmp_path))
    model.detect([np.zeros((64, 128, 3), np.uint8)])
    assert model.anchors.shape == model.get_anchors((64, 128, 3)).shape
    assert len(model.anchors) == len(training.anchors) * 128 // 64
    model.anchors = wanted
    assert model.anchors is wanted


def test_servers_that_prepare_the_predict_function(detector):
    assert detector.keras_model._make_predict_function() is None


# --- Cells of the notebooks ---


def axes(rows=1, cols=1):
    return plt.subplots(rows, cols, figsize=(2 * cols, 2 * rows))[1]


@pytest.fixture(scope="module")
def looked_at(detector):
    """An image of load_image_gt, as the notebooks take it."""
    image, meta, *_ = modellib.load_image_gt(toy_dataset(2), detector.config, 1, use_mini_mask=False)
    return image, meta


@pytest.mark.parametrize("takes_meta", [False, True])
def test_the_steps_of_the_rpn(detector, looked_at, takes_meta):
    """NMS gives the rows of one image with one axis, so that they index the boxes of that image."""
    image, meta = looked_at
    roi = detector.keras_model.get_layer("ROI").output
    nms = None
    for name in ("", "/NonMaxSuppressionV2", "/NonMaxSuppressionV3"):  # by the version of TensorFlow
        if nms is None:
            nms = detector.ancestor(roi, f"ROI/rpn_non_max_suppression{name}:0")
    fetched = [
        ("rpn_class", detector.keras_model.get_layer("rpn_class").output),
        ("pre_nms_anchors", detector.ancestor(roi, "ROI/pre_nms_anchors:0")),
        ("refined_anchors", detector.ancestor(roi, "ROI/refined_anchors:0")),
        ("refined_anchors_clipped", detector.ancestor(roi, "ROI/refined_anchors_clipped:0")),
        ("post_nms_anchor_ix", nms),
        ("proposals", roi),
    ]
    images = np.expand_dims(image, 0) if takes_meta else [image]
    rpn = detector.run_graph(images, fetched, image_metas=np.expand_dims(meta, 0) if takes_meta else None)

    best = np.argsort(rpn["rpn_class"][:, :, 1].flatten())[::-1]
    visualize.draw_boxes(image, boxes=detector.anchors[best[:100]], ax=axes())

    clipped = utils.denorm_boxes(rpn["refined_anchors_clipped"][0], image.shape[:2])
    ixs = rpn["post_nms_anchor_ix"][:50]
    assert ixs.ndim == 1 and 0 < len(ixs) == len(np.unique(ixs))
    visualize.draw_boxes(image, refined_boxes=clipped[ixs], ax=axes())

    h, w = detector.config.IMAGE_SHAPE[:2]
    proposals = rpn["proposals"][0, :50] * np.array([h, w, h, w])
    visualize.draw_boxes(image, refined_boxes=proposals, ax=axes())
    np.testing.assert_array_equal(rpn["refined_anchors_clipped"][0, ixs], rpn["proposals"][0, : len(ixs)])
    plt.close("all")


def test_the_steps_of_the_heads(detector, looked_at):
    image, _ = looked_at
    layers = {"proposals": "ROI", "probs": "mrcnn_class", "deltas": "mrcnn_bbox"}
    layers |= {"masks": "mrcnn_mask", "detections": "mrcnn_detection"}
    outputs = [(label, detector.keras_model.get_layer(name).output) for label, name in layers.items()]
    found = detector.run_graph([image], outputs)
    class_ids = found["detections"][0, :, 4].astype(np.int32)
    count = np.where(class_ids == 0)[0][0] if (class_ids == 0).any() else len(class_ids)
    boxes = utils.denorm_boxes(found["detections"][0, :count, :4], image.shape[:2])
    specific = np.array([found["masks"][0, i, :, :, c] for i, c in enumerate(class_ids[:count])])
    whole = [utils.unmold_mask(m, boxes[i], image.shape) for i, m in enumerate(specific)]
    assert all(mask.shape == image.shape[:2] for mask in whole)
    visualize.display_images([mask * 255 for mask in specific[:4]], cmap="Blues", interpolation="none")

    # Class-specific deltas, then the filters and the NMS of each class, in NumPy.
    rows = np.arange(len(found["probs"][0]))
    ids = np.argmax(found["probs"][0], axis=1)
    deltas = found["deltas"][0, rows, ids] * detector.config.BBOX_STD_DEV
    proposals = utils.denorm_boxes(found["proposals"][0], image.shape[:2])
    refined = utils.apply_box_deltas(proposals, deltas).astype(np.int32)
    keep = np.where(ids > 0)[0]
    for class_id in np.unique(ids[keep]):
        of_class = keep[ids[keep] == class_id]
        kept = utils.non_max_suppression(
            refined[of_class].astype(np.float32), found["probs"][0, of_class, class_id], 0.3
        )
        assert 0 < len(kept) <= len(of_class)
    plt.close("all")


def test_activations_and_weights(detector, looked_at):
    image, _ = looked_at
    activations = detector.run_graph(
        [image],
        [
            ("input_image", detector.keras_model.get_layer("input_image").output),
            ("rpn_bbox", detector.keras_model.get_layer("rpn_bbox").output),
            ("roi", detector.keras_model.get_layer("ROI").output),
        ],
    )
    shown = modellib.unmold_image(activations["input_image"][0], detector.config)
    assert shown.dtype == np.uint8 and shown.shape == image.shape
    convolutions = [
        layer
        for layer in detector.get_trainable_layers()
        if layer.__class__.__name__ in ["Conv2D", "Dense", "Conv2DTranspose"]
    ]
    assert all(len(layer.get_weights()) == 2 for layer in convolutions)
    assert {layer.name for layer in convolutions} > {
        *("fpn_c5p5", "fpn_p2", "mrcnn_class_conv1", "mrcnn_class_conv2", "mrcnn_class_logits"),
        *("mrcnn_bbox_fc", "mrcnn_mask_conv1", "mrcnn_mask_conv4", "mrcnn_mask_deconv", "mrcnn_mask"),
    }


# --- Star imports, and TensorFlow 1 ---


def test_star_imports():
    names = {}
    exec("from mrcnn.model import *", names)
    modules = (
        "utils, random, re, math, datetime, multiprocessing, K, KL, KM, tf, np, os, logging, OrderedDict"
    )
    for name in modules.split(", "):
        assert name in names, name
    assert names["utils"] is utils and names["KL"] is keras.layers and names["KM"] is keras.models
    assert isinstance(names["tf"], types.ModuleType)
    exec("from mrcnn.visualize import *", names)
    assert names["plt"] is plt and names["np"] is np
    if BACKEND == "tensorflow":
        assert names["tf"].constant(3).numpy() == 3


def test_star_imports_load_no_framework():
    """With JAX as backend, `tf` does not load TensorFlow before a program uses it."""
    if BACKEND == "tensorflow":
        code = "import sys, mrcnn.visualize; assert 'matplotlib.pyplot' not in sys.modules"
    else:
        code = (
            "import sys; from mrcnn.legacy import star_imports; loaded = 'tensorflow' in sys.modules;"
            "assert star_imports.tf.__name__ == 'tensorflow';"
            "assert ('tensorflow' in sys.modules) == loaded"
        )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="about TensorFlow 1")
def test_a_model_needs_eager_execution():
    import tensorflow as tf

    with (
        tf.Graph().as_default(),
        pytest.raises(RuntimeError, match="Keras 3 needs TensorFlow's eager execution"),
    ):
        modellib.MaskRCNN("inference", TinyConfig(), "logs")


def test_a_network_of_their_own_does_not_detect():
    class OwnNetwork(OwnModel):
        def build(self, mode, config):
            x = keras.Input((2,))
            return keras.Model(x, keras.layers.Dense(1)(x))

    with pytest.raises(RuntimeError, match=r"OwnNetwork\.build returns its own network"):
        OwnNetwork("inference", TinyConfig(), "logs").detect([rectangles(0)[0]])
