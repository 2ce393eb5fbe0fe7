import numpy as np
import pytest
from tensor_tools import call
from tiny_model import TinyConfig
from toy_data import toy_dataset

from mrcnn import inspection
from mrcnn.data.generator import DataGenerator
from mrcnn.geometry import boxes
from mrcnn.inspection import mask_loss
from mrcnn.model import MaskRCNN
from mrcnn.network.losses import mrcnn_mask_loss

NAMES = ["BG", "one", "two", "three"]

pytestmark = pytest.mark.usefixtures("close_figures")


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    return MaskRCNN("training", TinyConfig(), tmp_path_factory.mktemp("logs"))


@pytest.fixture(scope="module")
def batch(trainer):
    return DataGenerator(toy_dataset(2), trainer.config, shuffle=False)[0][0]


@pytest.fixture(scope="module")
def losses(trainer, batch):
    return inspection.mask_losses(trainer, batch, index=1)


def test_binary_cross_entropy():
    targets = np.array([[1.0, 0.0], [1.0, 0.0]])
    predictions = np.array([[0.5, 0.5], [0.25, 0.9]])
    expected = [[np.log(2), np.log(2)], [np.log(4), np.log(10)]]
    np.testing.assert_allclose(mask_loss.binary_cross_entropy(targets, predictions), expected, rtol=1e-5)
    # A prediction that is certain and wrong costs much, but not infinitely much.
    worst = mask_loss.binary_cross_entropy(np.array([1.0]), np.array([0.0]))
    assert 15 < worst[0] < 17


def test_targets_between_0_and_1_count_by_their_fraction():
    """As in the network: a target of 0.5 is half of an object and half of its background."""
    targets = np.array([[[0.5, 0.25, 0.49, 0.0], [0.75, 0.51, 1.0, 0.1]]], np.float32)
    predictions = np.array([[[0.25, 0.5, 0.9, 0.1], [0.8, 1e-9, 1.0, 0.3]]], np.float32)
    found = mask_loss.binary_cross_entropy(targets, predictions)
    np.testing.assert_allclose(found[0, 0, :2], [0.5 * np.log(16 / 3), np.log(2)], rtol=1e-6)
    for row in np.ndindex(targets.shape):
        one = (slice(None), *(slice(i, i + 1) for i in row[1:]))
        both = np.stack([np.zeros_like(predictions[one]), predictions[one]], axis=-1)[np.newaxis]
        expected = call(mrcnn_mask_loss, targets[one][np.newaxis], np.array([[1]]), both)
        assert found[row] == pytest.approx(float(expected), rel=1e-6)


def test_rois_are_positive_and_targets_are_the_masks_inside_them(losses, batch):
    gt_boxes = batch["input_gt_boxes"][1]
    is_object = batch["input_gt_class_ids"][1] > 0
    overlaps = boxes.compute_overlaps(losses.rois, gt_boxes[is_object])
    assert 0 < len(losses.rois) == len(losses.class_ids)
    assert (overlaps.max(axis=1) > 0.45).all()
    np.testing.assert_array_equal(
        losses.class_ids, batch["input_gt_class_ids"][1][is_object][overlaps.argmax(axis=1)]
    )
    assert losses.targets.shape == losses.predictions.shape == (len(losses.rois), 28, 28)
    assert set(np.unique(losses.targets)) == {0, 1}
    # The config adds the ground-truth boxes to the RoIs: such an RoI is full of its rectangle.
    exact = overlaps.max(axis=1) > 0.99
    assert exact.any()
    assert losses.targets[exact].mean() > 0.9


def test_mean_is_the_loss_of_the_network(losses):
    predictions = np.zeros((1, len(losses.rois), 28, 28, 4), np.float32)
    for i, class_id in enumerate(losses.class_ids):
        predictions[0, i, :, :, class_id] = losses.predictions[i]
    expected = call(mrcnn_mask_loss, losses.targets[np.newaxis], losses.class_ids[np.newaxis], predictions)
    assert losses.loss == pytest.approx(float(expected), rel=1e-5)
    np.testing.assert_allclose(losses.roi_losses.mean(), losses.loss, rtol=1e-5)
    np.testing.assert_allclose(
        losses.roi_losses, losses.pixel_losses.reshape(len(losses.rois), -1).mean(axis=1), rtol=1e-6
    )


def test_input_is_the_image_of_the_batch(losses, batch, trainer):
    image = batch["input_image"][1] + trainer.config.MEAN_PIXEL
    np.testing.assert_allclose(losses.input.image, image, atol=0.51)
    assert losses.input.window.tolist() == batch["input_image_meta"][1, 7:11].tolist()


def test_an_inference_model_raises_with_advice(detector, batch):
    with pytest.raises(ValueError, match=r"model\.mode='inference'.*MaskRCNN\(\"training\""):
        inspection.mask_losses(detector, batch)


def test_figure_shows_the_largest_losses_first(losses):
    figure = inspection.draw_mask_losses(losses, NAMES, limit=2)
    figure.canvas.draw()
    first, second = np.argsort(-losses.roi_losses, kind="stable")[:2]
    panels = [ax for ax in figure.axes if ax.get_title()]
    assert len(panels) == 8
    roi, target, prediction, loss = panels[:4]
    assert roi.get_title() == f"positive RoI: {NAMES[losses.class_ids[first]]}"
    np.testing.assert_array_equal(target.images[0].get_array(), losses.targets[first])
    np.testing.assert_array_equal(prediction.images[0].get_array(), losses.predictions[first])
    np.testing.assert_array_equal(loss.images[0].get_array(), losses.pixel_losses[first])
    assert f"{losses.roi_losses[first]:.3f}" in loss.get_title()
    assert f"{losses.roi_losses[second]:.3f}" in panels[7].get_title()


def test_names_with_dollar_signs_are_no_formulas(losses):
    inspection.draw_mask_losses(losses, ["BG", *[r"$\x$"] * 3], limit=1).canvas.draw()


def test_without_positives_there_is_no_loss(losses):
    none = np.zeros((0, 28, 28), np.float32)
    empty = mask_loss.MaskLosses(
        losses.input, np.zeros((0, 4), np.int32), np.zeros(0, np.int32), none, none, none
    )
    assert empty.loss == 0.0
    inspection.draw_mask_losses(empty, NAMES).canvas.draw()
