"""Find coins: train a small Mask R-CNN on one half of a photograph, find the coins of the other half.

The photograph comes with scikit-image, so nothing is downloaded and a laptop is enough:

    python samples/coins/coins.py

It prints how many coins were found and the average precision, and writes coins.png and the weights.
Copy this file to start your own project: a Config, a Dataset, train(), detect().
"""

import argparse
import time
from pathlib import Path

import numpy as np
from scipy import ndimage
from skimage import color, data, filters, io, measure, morphology, segmentation

from mrcnn import utils, visualize
from mrcnn.config import LightConfig
from mrcnn.data.augmentation_policies import camera_policy
from mrcnn.model import MaskRCNN
from mrcnn.training.schedules import warm_up_and_decay

CLASS_NAMES = ["BG", "coin"]
SMALLEST_COIN = 400  # pixels
MIDDLE = 150  # the row between the second and the third row of coins


class CoinsConfig(LightConfig):
    """A laptop-sized network for one class, trained from scratch on crops of 128 x 128 pixels."""

    NAME = "coins"
    NUM_CLASSES = 1 + 1  # background and coin
    IMAGES_PER_GPU = 4
    STEPS_PER_EPOCH = 50
    IMAGE_RESIZE_MODE = "crop"
    IMAGE_MIN_DIM = 128
    IMAGE_MAX_DIM = 128
    RPN_ANCHOR_SCALES = (8, 16, 32, 64, 128)
    MEAN_PIXEL = np.array([97.0, 97.0, 97.0])  # the photograph's grey
    TRAIN_ROIS_PER_IMAGE = 32
    POST_NMS_ROIS_TRAINING = 100
    MAX_GT_INSTANCES = 20
    SEED = 7


class CoinsInferenceConfig(CoinsConfig):
    """Whole pictures of any size, padded, one at a time."""

    IMAGES_PER_GPU = 1
    IMAGE_RESIZE_MODE = "pad64"
    POST_NMS_ROIS_INFERENCE = 200
    DETECTION_MIN_CONFIDENCE = 0.7


class CoinsDataset(utils.Dataset):
    """Pictures kept in memory, each with a label image: 0 is background, k is coin k."""

    def load_coins(self, pictures: list[np.ndarray], labels: list[np.ndarray]) -> None:
        """Add grey pictures [h, w] with their label images [h, w]."""
        self.add_class("coins", 1, "coin")
        for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
            self.add_image("coins", number, path=None, picture=picture, label=label)

    def load_image(self, image_id: int) -> np.ndarray:
        """The picture as RGB, uint8 [h, w, 3]."""
        return color.gray2rgb(self.image_info[image_id]["picture"])

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Masks bool [h, w, N] and class ids int32 [N] of the picture's coins."""
        label = self.image_info[image_id]["label"]
        masks = label[:, :, None] == np.unique(label[label > 0])
        return masks, np.ones(masks.shape[2], np.int32)


def outline_coins(picture: np.ndarray) -> np.ndarray:
    """Label image [h, w] of the coins, by watershed on the edges: the truth to train on.

    Works on this photograph because the background is even; the network needs no such luck.
    """
    markers = np.zeros(picture.shape, int)
    markers[picture < 30], markers[picture > 150] = 1, 2
    inside = segmentation.watershed(filters.sobel(picture), markers) == 2
    inside = ndimage.binary_opening(ndimage.binary_fill_holes(inside), iterations=2)
    inside = morphology.remove_small_objects(inside, max_size=SMALLEST_COIN)
    return measure.label(inside)


def halves() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """(picture, labels) of the upper half of the photograph, and of the lower half: 12 coins each."""
    picture = data.coins()
    labels = outline_coins(picture)
    upper, lower = slice(None, MIDDLE), slice(MIDDLE, None)
    return (picture[upper], measure.label(labels[upper])), (picture[lower], measure.label(labels[lower]))


def train(weights_dir: Path, epochs: int) -> MaskRCNN:
    """Train on the upper half; every step sees other crops of it, in other places and light."""
    (picture, label), _ = halves()
    dataset = CoinsDataset()
    dataset.load_coins([picture], [label])
    dataset.prepare()
    config = CoinsConfig()
    rate = warm_up_and_decay(0.05, epochs * config.STEPS_PER_EPOCH, end=0.02)
    model = MaskRCNN("training", config, weights_dir)
    model.train(dataset, None, rate, epochs, layers="all", augmentation=camera_policy())
    return model


def main() -> None:
    """Train, find the coins of the held-out half, print and draw them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="folder for weights")
    parser.add_argument("--output", type=Path, default=Path("coins.png"), help="picture to write")
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    begin = time.time()

    trained = train(arguments.logs, arguments.epochs)
    model = MaskRCNN("inference", CoinsInferenceConfig(), arguments.logs)
    model.load_weights(trained.find_last())

    _, (picture, label) = halves()
    held_out = CoinsDataset()
    held_out.load_coins([picture], [label])
    held_out.prepare()
    image = held_out.load_image(0)
    masks, class_ids = held_out.load_mask(0)
    found = model.detect([image])[0]
    ap, _, _, overlaps = utils.compute_ap(
        utils.extract_bboxes(masks),
        class_ids,
        masks,
        found["rois"],
        found["class_ids"],
        found["scores"],
        found["masks"],
    )
    hits = int((overlaps.max(axis=0, initial=0) >= 0.5).sum())
    picture = visualize.overlay_instances(
        image, found["rois"], found["masks"], found["class_ids"], CLASS_NAMES, found["scores"], scale=2
    )
    io.imsave(arguments.output, picture, check_contrast=False)
    print(f"Found {len(found['scores'])} coins; {hits} of the {len(class_ids)} that are there (IoU 0.5).")
    print(f"Average precision at IoU 0.5: {ap:.3f}. Picture: {arguments.output}")
    print(f"Total time: {time.time() - begin:.0f} s")


if __name__ == "__main__":
    main()
