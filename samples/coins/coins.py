"""Find coins: train a small Mask R-CNN on one half of a photograph and find the coins in the other half.

The photograph comes with scikit-image, so nothing is downloaded, and a laptop is enough:

    python samples/coins/coins.py

The script prints how many coins it found and the average precision. It writes coins.png and the weights to
the current folder. Copy this file to start your own project: a Config, a Dataset, train(), detect().
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import numpy as np
import scipy
import skimage

import mrcnn

CLASS_NAMES = ["BG", "coin"]
SMALLEST_COIN = 400  # pixels
MIDDLE = 150  # the row between the second and the third row of coins


class CoinsConfig(mrcnn.LightConfig):
    """A laptop-sized network for one class, trained from scratch on crops of 128 x 128 pixels."""

    NAME = "coins"
    NUM_CLASSES = 1 + 1  # background and coin
    IMAGES_PER_GPU = 4
    STEPS_PER_EPOCH = 50
    IMAGE_RESIZE_MODE = "crop"
    IMAGE_MIN_DIM = 128
    IMAGE_MAX_DIM = 128
    RPN_ANCHOR_SCALES = (8, 16, 32, 64, 128)
    MEAN_PIXEL = np.array([97.0, 97.0, 97.0])  # the mean gray of the photograph
    TRAIN_ROIS_PER_IMAGE = 32
    POST_NMS_ROIS_TRAINING = 100
    MAX_GT_INSTANCES = 20
    SEED = 7


class CoinsInferenceConfig(CoinsConfig):
    """Whole images of any size, padded, one at a time."""

    IMAGES_PER_GPU = 1
    IMAGE_RESIZE_MODE = "pad64"
    POST_NMS_ROIS_INFERENCE = 200
    DETECTION_MIN_CONFIDENCE = 0.7


class CoinsDataset(mrcnn.Dataset):
    """Images in memory, each with a label image: 0 is background, k is coin k."""

    def load_coins(self, images: list[np.ndarray], labels: list[np.ndarray]) -> None:
        """Add gray images `[height, width]` with their label images `[height, width]`."""
        self.add_class("coins", 1, "coin")
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            self.add_image("coins", number, path=None, image=image, label=label)

    def load_image(self, image_id: int) -> np.ndarray:
        """Return the image as RGB, uint8 `[height, width, 3]`."""
        return skimage.color.gray2rgb(self.image_info[image_id]["image"])

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the masks, bool `[height, width, coins]`, and the class ids, int32 `[coins]`."""
        label = self.image_info[image_id]["label"]
        masks = label[:, :, None] == np.unique(label[label > 0])
        return masks, np.ones(masks.shape[2], np.int32)


def outline_coins(image: np.ndarray) -> np.ndarray:
    """Return the label image `[height, width]` of the coins, the ground truth to train on.

    A watershed on the edges is enough for this photograph, because its background is even.
    """
    markers = np.zeros(image.shape, int)
    markers[image < 30] = 1
    markers[image > 150] = 2
    inside = skimage.segmentation.watershed(skimage.filters.sobel(image), markers) == 2
    inside = scipy.ndimage.binary_opening(scipy.ndimage.binary_fill_holes(inside), iterations=2)
    labels = skimage.measure.label(inside)
    is_coin = np.bincount(labels.ravel()) > SMALLEST_COIN
    is_coin[0] = False  # the background
    return skimage.measure.label(is_coin[labels])


def halves() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return (image, labels) of the upper and the lower half of the photograph, with 12 coins each."""
    image = skimage.data.coins()
    labels = outline_coins(image)
    upper, lower = slice(None, MIDDLE), slice(MIDDLE, None)
    label = skimage.measure.label
    return (image[upper], label(labels[upper])), (image[lower], label(labels[lower]))


def train(logs: Path, epochs: int) -> mrcnn.MaskRCNN:
    """Train on the upper half. Each step sees new crops of it, changed by the camera policy."""
    (image, labels), _ = halves()
    dataset = CoinsDataset()
    dataset.load_coins([image], [labels])
    dataset.prepare()
    config = CoinsConfig()
    random.seed(config.SEED)  # the initial weights are drawn with it
    rate = mrcnn.schedules.warm_up_and_decay(0.05, epochs * config.STEPS_PER_EPOCH, end=0.02)
    model = mrcnn.MaskRCNN("training", config, logs)
    model.train(
        dataset,
        val_dataset=None,
        learning_rate=rate,
        epochs=epochs,
        layers="all",
        augmentation=mrcnn.camera_policy(),
    )
    return model


def detect(model: mrcnn.MaskRCNN, output: Path) -> None:
    """Find the coins in the lower half, compare them with the ground truth, and draw them."""
    _, (image, labels) = halves()
    dataset = CoinsDataset()
    dataset.load_coins([image], [labels])
    dataset.prepare()
    image = dataset.load_image(0)
    masks, class_ids = dataset.load_mask(0)

    result = model.detect([image])[0]
    rois, scores = result["rois"], result["scores"]
    ap, _, _, overlaps = mrcnn.utils.compute_ap(
        gt_boxes=mrcnn.utils.extract_bboxes(masks),
        gt_class_ids=class_ids,
        gt_masks=masks,
        pred_boxes=rois,
        pred_class_ids=result["class_ids"],
        pred_scores=scores,
        pred_masks=result["masks"],
    )
    hits = int((overlaps.max(axis=0, initial=0) >= 0.5).sum())
    drawing = mrcnn.visualize.overlay_instances(
        image, rois, result["masks"], result["class_ids"], CLASS_NAMES, scores, scale=2
    )
    skimage.io.imsave(output, drawing, check_contrast=False)
    print(f"Found {len(scores)} coins. {hits} of the {len(class_ids)} real coins are among them (IoU 0.5).")
    print(f"Average precision at IoU 0.5: {ap:.3f}. Picture: {output}")


def parse_arguments() -> argparse.Namespace:
    """Read the command line. An invalid value ends the program with one sentence."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="folder for weights (logs)")
    parser.add_argument("--output", type=Path, default=Path("coins.png"), help="image to write (coins.png)")
    parser.add_argument("--epochs", type=int, default=8, help="epochs of 50 steps to train (8)")
    arguments = parser.parse_args()
    if arguments.epochs < 1:
        parser.exit(2, f"--epochs must be at least 1. Received: {arguments.epochs}\n")
    if not arguments.output.absolute().parent.is_dir():
        parser.exit(2, f"--output must be in an existing folder. Received: {arguments.output}\n")
    return arguments


def main() -> None:
    """Train, and detect with the trained weights."""
    arguments = parse_arguments()
    begin = time.time()
    trained = train(arguments.logs, arguments.epochs)
    model = mrcnn.MaskRCNN("inference", CoinsInferenceConfig(), arguments.logs)
    model.load_weights(trained.find_last())
    detect(model, arguments.output)
    print(f"Total time: {time.time() - begin:.0f} s")


if __name__ == "__main__":
    main()
