"""MaskRCNN with a tiny network: train, save, resume, detect, look inside, and refuse what cannot work."""

import errno
import json
import os
import warnings

import keras
import numpy as np
import PIL.Image
import pytest
from tiny_model import TinyConfig
from toy_data import ArrayDataset, rectangles, toy_dataset

from mrcnn import formats
from mrcnn.checkpoints import weights
from mrcnn.config import LOSS_NAMES
from mrcnn.model import MaskRCNN, log, mold_image
from mrcnn.training import arguments, runs

pytestmark = pytest.mark.smoke


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model after two epochs, and its history."""
    model = MaskRCNN("training", TinyConfig(), tmp_path_factory.mktemp("logs"))
    history = model.train(toy_dataset(), toy_dataset(3), 0.01, epochs=2, layers="all")
    return model, history


@pytest.fixture(scope="module")
def detector(trained):
    model = MaskRCNN("inference", TinyConfig(), trained[0].model_dir)
    model.load_weights(trained[0].find_last())
    return model


def test_losses_by_name_for_training_and_validation(trained):
    history = trained[1].history
    for name in ("loss", *LOSS_NAMES):
        assert np.isfinite(history[name]).all()
        assert np.isfinite(history[f"val_{name}"]).all()
    assert history["loss"][1] < history["loss"][0]
    assert history["rpn_class_loss"][0] > 0


def test_weights_and_settings_of_each_epoch_are_in_the_run_folder(trained):
    model, _ = trained
    files = set(os.listdir(model.log_dir))
    assert {"mask_rcnn_toy_0001.h5", "mask_rcnn_toy_0002.h5", "config.json"} <= files
    assert not [name for name in files if "part" in name or "tmp" in name]
    assert model.epoch == 2
    assert model.find_last().endswith("mask_rcnn_toy_0002.h5")


@pytest.mark.usefixtures("eager_test")
def test_resume_at_the_right_epoch(trained):
    first, _ = trained
    model = MaskRCNN("training", TinyConfig(), first.model_dir)
    model.load_weights(first.find_last())
    assert model.epoch == 2
    assert model.log_dir == first.log_dir
    with pytest.warns(UserWarning, match="Nothing to train"):
        assert model.train(toy_dataset(), None, 0.01, epochs=2, layers="heads") is None
    model.train(toy_dataset(), None, 0.01, epochs=3, layers="heads")
    assert model.find_last().endswith("mask_rcnn_toy_0003.h5")
    os.remove(model.find_last())
    model.load_weights(first.find_last(), resume=False)
    assert model.epoch == 0


@pytest.mark.usefixtures("eager_test")
def test_epochs_that_ran_are_counted(tmp_path, capsys):
    """After early stopping and Ctrl-C; the next training goes on there. It prints little unless asked."""
    model = MaskRCNN("training", TinyConfig(), tmp_path)
    stop = keras.callbacks.EarlyStopping("loss", patience=0, min_delta=1e9)
    history = model.train(toy_dataset(), None, 1e-4, epochs=10, layers="heads", custom_callbacks=[stop])
    assert history.epoch == [0, 1] and model.epoch == 2
    lines = capsys.readouterr().out.splitlines()
    own = [line for line in lines if line and not line.startswith(("Epoch", "\x1b", "1/2", "2/2"))]
    assert len(own) <= 4, lines
    assert "'heads'" in own[0] and "1 to 10" in own[0] and str(model.log_dir) in own[1]

    files = [model.checkpoint_path.format(epoch=epoch) for epoch in (1, 2, 3, 4)]
    written = [os.path.getmtime(path) for path in files[:2]]
    started = []

    def interrupt(epoch, logs):
        started.append(epoch)
        if epoch == 3:
            raise KeyboardInterrupt

    callback = keras.callbacks.LambdaCallback(on_epoch_begin=interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.train(
            toy_dataset(), None, 1e-4, epochs=10, layers="heads", custom_callbacks=[callback], verbose=1
        )
    assert started == [2, 3] and model.epoch == 3
    assert [os.path.getmtime(path) for path in files[:2]] == written
    assert [os.path.exists(path) for path in files[2:]] == [True, False]
    text = capsys.readouterr().out
    assert "RPN_ANCHOR_SCALES" in text and "mrcnn_mask_conv1" in text


@pytest.mark.parametrize(
    "layers, hint",
    [
        ("head", "Did you mean 'heads'"),
        ("mrcnn_mask_con", r"'mrcnn_mask_conv\d'"),
        ("*", "regular expression"),
    ],
)
def test_layers_that_match_nothing_are_an_error(tmp_path, layers, hint):
    model = MaskRCNN("training", TinyConfig(), tmp_path)
    before = [variable.path for variable in model.keras_model.trainable_variables]
    with pytest.raises(ValueError, match=f"`layers` must be.*{hint}") as error:
        model.train(toy_dataset(), None, 1e-4, epochs=1, layers=layers)
    assert f"layers={layers!r}" in str(error.value)
    assert not os.path.exists(model.log_dir)
    assert [variable.path for variable in model.keras_model.trainable_variables] == before


def test_set_trainable_prints_names_unless_verbose_is_0(tmp_path, capsys):
    model = MaskRCNN("training", TinyConfig(), tmp_path)
    capsys.readouterr()
    model.set_trainable(r"mrcnn_mask.*", verbose=0)
    assert capsys.readouterr().out == ""
    model.set_trainable(r"mrcnn_mask.*", indent=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("  mrcnn_mask_conv1 ") and len(lines) == 10


@pytest.mark.usefixtures("eager_test")
def test_heads_leave_the_backbone_alone(tmp_path):
    model = MaskRCNN("training", TinyConfig(), tmp_path)
    before = {v.path: np.array(v) for v in model.keras_model.weights}
    model.train(toy_dataset(), None, 0.05, epochs=1, layers="heads")
    changed = {v.path for v in model.keras_model.weights if not np.array_equal(np.array(v), before[v.path])}
    assert not [path for path in changed if path.startswith("res")]
    assert [path for path in changed if path.startswith("fpn_p2")]
    assert [path for path in changed if "rpn_conv_shared" in path]


@pytest.mark.usefixtures("eager_test")
def test_a_dataset_with_other_class_ids_than_the_weights(trained, tmp_path):
    model = MaskRCNN("training", TinyConfig(), tmp_path)
    model.load_weights(trained[0].find_last(), resume=False)
    dataset = toy_dataset(3)
    for info in dataset.class_info[1:]:
        info["name"] = {"class 1": "class 3", "class 3": "class 1"}.get(info["name"], info["name"])
    dataset.prepare()
    with pytest.warns(UserWarning, match=r"'class 3' 3 -> 1, 'class 1' 1 -> 3\. To keep the ids"):
        model.train(dataset, None, 0.01, epochs=1, layers="heads")
    assert model.class_names == dataset.class_names


def test_the_advice_about_other_class_ids_keeps_the_objects(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    PIL.Image.fromarray(rectangles(0)[0]).save(tmp_path / "images" / "a.png")
    (tmp_path / "labels" / "a.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5")  # a cat
    dataset = formats.YoloDataset()
    dataset.load(tmp_path / "images", classes=["cat", "dog"])
    names = [info["name"] for info in dataset.class_info]
    with pytest.warns(UserWarning, match=r"'cat' 2 -> 1, 'dog' 1 -> 2.*renumber_classes\(\['dog', 'cat'\]\)"):
        arguments.warn_of_renumbered(["BG", "dog", "cat "], names)
    dataset.renumber_classes(["dog", "cat "])
    dataset.prepare()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        arguments.warn_of_renumbered(["BG", "dog", "cat "], dataset.class_names)
    assert dataset.class_names[dataset.load_mask(0)[1][0]] == "cat"


def test_training_graph_and_inference_graph_share_weights_by_name(trained, detector):
    ours = weights.model_weights(detector.keras_model)
    for layer, named in weights.model_weights(trained[0].keras_model).items():
        for name, variable in named.items():
            np.testing.assert_array_equal(np.array(variable), np.array(ours[layer][name]))


def test_detect_any_number_of_images_of_any_kind(detector):
    rng = np.random.default_rng(0)
    images = [
        rng.integers(0, 255, (50, 70, 3)).astype(np.uint8),
        rng.integers(0, 255, (90, 40)).astype(np.uint8),
        rng.integers(0, 65535, (64, 64, 3)).astype(np.uint16),
        rng.random((30, 30, 4)).astype(np.float32),
        np.zeros((64, 64, 3), np.uint8),
    ]
    results = detector.detect(images)
    assert len(results) == 5
    for image, result in zip(images, results, strict=True):
        count = len(result["scores"])
        assert result["masks"].shape == (*image.shape[:2], count)
        assert result["masks"].dtype == bool
        assert result["rois"].shape == (count, 4)
        assert result["rois"].dtype == np.int32
        assert (result["rois"][:, 2:] <= image.shape[:2]).all()
        assert (np.diff(result["scores"]) <= 0).all()


class EveryAnchorConfig(TinyConfig):
    """Nothing is suppressed or cut off before the best scores are taken.

    Otherwise rounding, which depends on the size of a batch, decides between boxes of nearly equal scores.
    """

    RPN_NMS_THRESHOLD = DETECTION_NMS_THRESHOLD = 1.0
    POST_NMS_ROIS_INFERENCE = 3 * (16**2 + 8**2 + 4**2 + 2**2 + 1)


@pytest.mark.usefixtures("eager_test")
def test_other_images_of_a_batch_change_nothing(trained, tmp_path):
    model = MaskRCNN("inference", EveryAnchorConfig(), tmp_path)
    model.load_weights(trained[0].find_last())
    image, other = rectangles(1)[0], rectangles(2)[0]
    alone = model.detect([image])[0]["scores"]
    with_another, of_other = (found["scores"] for found in model.detect([image, other]))
    np.testing.assert_allclose(with_another, alone, atol=1e-4)
    assert np.abs(of_other - alone).max() > 1e-3


def test_detect_takes_a_single_image(detector):
    """One array is one image, and not a batch of its rows."""
    image, other = rectangles(1)[0], rectangles(2)[0]
    for array, listed in (
        (image, [image]),
        (image[None], [image]),
        (np.stack([image, other]), [image, other]),
    ):
        results, expected = detector.detect(array), detector.detect(listed)
        assert len(results) == len(expected)
        for found, same in zip(results, expected, strict=True):
            np.testing.assert_array_equal(found["rois"], same["rois"])
    assert len(detector.detect(image[..., 0])) == 1
    with pytest.raises(ValueError, match=r"IMAGE_CHANNEL_COUNT=3.*\(4, 64, 64\)"):
        detector.detect(np.zeros((4, 64, 64), np.uint8))  # gray images belong in a list
    molded, _, _ = detector.mold_inputs(image)
    assert molded.shape == (1, 64, 64, 3)


def test_scales_of_other_dtypes_reach_the_network_alike(detector):
    image = rectangles(1)[0]
    eight, _, _ = detector.mold_inputs([image])
    assert np.ptp(eight) > 100
    for other in (image.astype(np.uint16) * 257, image.astype(np.float32) / 255):
        molded, _, _ = detector.mold_inputs([other])
        np.testing.assert_allclose(molded, eight, atol=1)  # resized uint8 images are truncated
        assert len(detector.detect([other])[0]["scores"])


def test_evaluate(detector, trained, tmp_path):
    """A row over all classes and one for each, the detections of each image in the file."""
    results = detector.evaluate(toy_dataset(3), results_path=tmp_path / "found.json", verbose=0)
    assert results["class"] == ["all", "class 1", "class 2", "class 3"]
    assert results["objects"][0] == 9 and 0 <= results["mask_AP50"][0] <= 1
    rows = json.loads((tmp_path / "found.json").read_text())
    found = detector.detect([toy_dataset(2).load_image(image_id) for image_id in (0, 1)])[1]  # its batch
    np.testing.assert_allclose(
        [row["score"] for row in rows if row["image_id"] == 1], found["scores"], rtol=1e-5
    )
    assert {row["segmentation"]["size"][1] for row in rows} == {120}
    with pytest.raises(ValueError, match="inference"):
        trained[0].evaluate(toy_dataset(1))


def test_detect_molded_equals_detect_on_an_image_that_needs_no_molding(detector):
    image = np.random.default_rng(5).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    _, metas, _ = detector.mold_inputs([image])
    molded = detector.detect_molded(mold_image(image, detector.config)[None], metas)[0]
    plain = detector.detect([image])[0]
    np.testing.assert_array_equal(molded["rois"], plain["rois"])
    np.testing.assert_array_equal(molded["masks"], plain["masks"])


def test_steps_of_the_proposal_layer_by_name(detector):
    roi = detector.keras_model.get_layer("ROI").output
    names = ("pre_nms_anchors", "refined_anchors", "refined_anchors_clipped", "rpn_non_max_suppression")
    outputs = [(name, detector.ancestor(roi, f"ROI/{name}:0")) for name in names]
    outputs += [("proposals", roi), ("rpn_class", detector.ancestor(roi, "rpn_class"))]
    values = detector.run_graph([np.zeros((64, 64, 3), np.uint8)], outputs)
    clipped = np.clip(values["refined_anchors"], 0, 1)
    np.testing.assert_array_equal(values["refined_anchors_clipped"], clipped)
    kept = clipped[0][values["rpn_non_max_suppression"]]  # one axis and no padding, as the notebooks want it
    assert len(kept) > 0
    np.testing.assert_array_equal(kept, values["proposals"][0][: len(kept)])
    assert not values["proposals"][0][len(kept) :].any()
    two = detector.run_graph([np.zeros((64, 64, 3), np.uint8)] * 2, outputs[3:4])
    assert two["rpn_non_max_suppression"].shape == (2, len(values["proposals"][0]))
    best = np.sort(values["rpn_class"][0, :, 1])[::-1][:10]
    assert best[0] >= best[-1]
    assert detector.ancestor(roi, "no such layer") is None


def test_log_prints_one_line(capsys):
    log("image", np.arange(6.0).reshape(2, 3))
    log("nothing", np.zeros((0, 4)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("image ")
    assert "(2, 3)" in lines[0]
    assert "5.00000" in lines[0]
    assert len(lines) == 2


class TestBadInput:
    def test_mode(self, tmp_path):
        with pytest.raises(ValueError, match="training"):
            MaskRCNN("test", TinyConfig(), tmp_path)

    def test_image_size(self, tmp_path):
        config = TinyConfig()
        config.IMAGE_MIN_DIM = config.IMAGE_MAX_DIM = 100
        with pytest.raises(ValueError, match="64"):
            MaskRCNN("inference", config, tmp_path)

    def test_detect_while_training(self, trained):
        with pytest.raises(ValueError, match="inference"):
            trained[0].detect([np.zeros((64, 64, 3), np.uint8)])

    def test_image_with_five_channels(self, detector):
        with pytest.raises(ValueError, match="IMAGE_CHANNEL_COUNT"):
            detector.detect([np.zeros((64, 64, 5), np.uint8)])

    def test_image_with_nan(self, detector):
        with pytest.raises(ValueError, match="must be finite"):
            detector.detect([np.full((64, 64, 3), np.nan, np.float32)])

    def test_odd_size_without_resizing(self, trained, tmp_path):
        config = TinyConfig()
        config.IMAGE_RESIZE_MODE = "none"
        model = MaskRCNN("inference", config, tmp_path)
        with pytest.raises(ValueError, match="100 x 90"):
            model.detect([np.zeros((100, 90, 3), np.uint8)])

    def test_weights_of_another_class_count(self, trained, tmp_path):
        config = TinyConfig()
        config.NUM_CLASSES = 2
        model = MaskRCNN("inference", config, tmp_path)
        with pytest.raises(ValueError, match=r"(?s)mrcnn_class_logits.*mrcnn_mask|NUM_CLASSES") as error:
            model.load_weights(trained[0].find_last())
        assert "exclude" in str(error.value)
        model.load_weights(
            trained[0].find_last(),
            exclude=["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"],
        )

    def test_classes_of_the_dataset(self, trained):
        config = TinyConfig()
        config.NUM_CLASSES = 6
        model = MaskRCNN("training", config, trained[0].model_dir)
        with pytest.raises(ValueError, match="NUM_CLASSES"):
            model.train(toy_dataset(), None, 0.01, epochs=1, layers="heads")

    def test_run_graph_of_a_missing_tensor(self, detector):
        with pytest.raises(ValueError, match="nothing"):
            detector.run_graph([np.zeros((64, 64, 3), np.uint8)], [("nothing", None)])

    def test_no_run_to_find(self, tmp_path):
        model = MaskRCNN("inference", TinyConfig(), tmp_path / "empty")
        with pytest.raises(FileNotFoundError, match="empty"):
            model.find_last()


class BrokenDataset(ArrayDataset):
    """Every second image cannot be read."""

    def load_image(self, image_id):
        if image_id % 2:
            raise OSError(errno.EIO, "image is broken", f"image_{image_id}.png")
        return super().load_image(image_id)


@pytest.mark.usefixtures("eager_test")
def test_unreadable_images_are_counted_and_skipped(tmp_path, caplog):
    model = MaskRCNN("training", TinyConfig(), tmp_path)
    model.train(BrokenDataset(map(rectangles, range(6))), None, 0.01, epochs=2, layers="heads")
    assert "image_1.png" in caplog.text
    assert "images could not be used" in caplog.text


@pytest.mark.usefixtures("eager_test")
def test_too_many_unreadable_images_end_the_training(tmp_path):
    config = TinyConfig()
    config.MAX_IMAGE_ERRORS = 1
    model = MaskRCNN("training", config, tmp_path)
    dataset = BrokenDataset(map(rectangles, range(12)))
    message = r"^2 images could not be loaded or augmented, more than MAX_IMAGE_ERRORS=1 allows.*image_"
    with pytest.raises(RuntimeError, match=f"(?s){message}") as error:
        model.train(dataset, None, 0.01, epochs=6, layers="heads")
    assert type(error.value) is RuntimeError and "Traceback" not in str(error.value)


@pytest.mark.usefixtures("eager_test")
def test_a_loss_that_is_not_finite_stops_with_the_last_good_weights(tmp_path):
    model = MaskRCNN("training", TinyConfig(), tmp_path)
    # The first step of an epoch overflows the weights, and the second step finds a loss that is not finite.
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([3], [0.01, 1e30])
    with pytest.raises(FloatingPointError, match=r"epoch \d+, step \d+: .*image ids \[\d, \d\]"):
        model.train(toy_dataset(4), None, rate, epochs=60, layers="all")
    assert all(np.isfinite(np.array(weight)).all() for weight in model.keras_model.weights)
    last = weights.read_weight_file(model.find_last())
    assert all(np.isfinite(array).all() for layer in last.values() for array in layer)


def test_paths_that_cannot_be_written_are_named(trained, tmp_path):
    model, _ = trained
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(OSError, match="file"):
        model.keras_model.save_weights(blocked / "weights.h5")
    with pytest.raises(OSError, match="file"):
        runs.open_run_folder(blocked / "run", TinyConfig(), 0)
    assert blocked.read_text() == "in the way"


def test_keras_model_saves_and_loads_by_layer_name(trained, tmp_path):
    path = tmp_path / "mine.h5"
    network = trained[0].keras_model
    network.save_weights(path)
    before = [np.array(weight) for weight in network.weights]
    for weight in network.weights:
        weight.assign(keras.ops.zeros_like(weight))
    network.load_weights(path)
    for weight, old in zip(network.weights, before, strict=True):
        np.testing.assert_array_equal(np.array(weight), old)


def test_adam_is_the_optimizer_that_was_asked_for(tmp_path):
    config = TinyConfig()
    config.OPTIMIZER, config.LEARNING_MOMENTUM = "adam", 0.8
    model = MaskRCNN("training", config, tmp_path)
    model.compile(0.002, config.LEARNING_MOMENTUM)
    optimizer = model.keras_model.optimizer
    assert isinstance(optimizer, keras.optimizers.Adam) and optimizer.beta_1 == 0.8
    assert optimizer.global_clipnorm == config.GRADIENT_CLIP_NORM
