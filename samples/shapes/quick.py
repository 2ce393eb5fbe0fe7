"""A Mask R-CNN for shapes that trains in a minute or two on a CPU: what the notebooks look into.

Random weights show nothing, and the published ones are a large download for a large network. So notebooks
that need a trained network call `trained_weights`, which trains this one at the first call and keeps its
file. It is the whole detector with narrow layers; only the backbone is another, of ten convolutions, and
serves as the example of how to bring your own.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from mrcnn.model import BatchNorm, MaskRCNN
from mrcnn.training import schedules
from samples.shapes import shapes

STAGE_CHANNELS = (16, 32, 48, 64, 96)  # of C1 to C5, each half the size of the one before
STEPS_PER_EPOCH = 50


def backbone(input_image: Any, stage5: bool = True, train_bn: bool | None = None) -> list[Any]:
    """C1 to C5 [B, H / 2**n, W / 2**n, channels], each from two 3 x 3 convolutions, the second residual.

    The signature is that of every callable BACKBONE; `stage5` is always True for the feature pyramid.
    """
    x = input_image * (1 / 127.5)
    stages = []
    for stage, channels in enumerate(STAGE_CHANNELS, start=1):
        x = _conv_norm(x, channels, 2, f"small{stage}a", train_bn)
        x = layers.ReLU(name=f"small{stage}a_relu")(x)
        y = _conv_norm(x, channels, 1, f"small{stage}b", train_bn)
        x = layers.ReLU(name=f"small{stage}_out")(layers.Add()([x, y]))
        stages.append(x)
    return stages


def backbone_shapes(image_shape: Sequence[int]) -> np.ndarray:
    """Heights and widths of the five pyramid maps, int [5, 2], for a molded (H, W, ...) shape."""
    return np.array([[-(-side // stride) for side in image_shape[:2]] for stride in (4, 8, 16, 32, 64)])


def _conv_norm(x: Any, channels: int, stride: int, name: str, train_bn: bool | None) -> Any:
    x = layers.Conv2D(channels, 3, strides=stride, padding="same", use_bias=False, name=name)(x)
    return BatchNorm(train_bn=train_bn, name=f"{name}_bn")(x)


class QuickShapesConfig(shapes.LightShapesConfig):
    """Shapes for the small backbone; anchors as large as the shapes are."""

    NAME = "shapes-quick"
    BACKBONE = staticmethod(backbone)
    COMPUTE_BACKBONE_SHAPE = staticmethod(backbone_shapes)
    RPN_ANCHOR_SCALES = (24, 40, 56, 80, 112)
    RPN_TRAIN_ANCHORS_PER_IMAGE = 32  # few of them are positive here, and more negatives would drown these
    STEPS_PER_EPOCH = STEPS_PER_EPOCH
    IMAGES_PER_GPU = 4
    MASK_HEAD_CHANNELS = 32
    OPTIMIZER = "adam"
    LEARNING_RATE = 0.002  # at twice this rate, the RPN may die of it
    SEED = 1


class QuickShapesInferenceConfig(QuickShapesConfig):
    """One image at a time."""

    IMAGES_PER_GPU = 1
    DETECTION_MIN_CONFIDENCE = 0.7


class ManyShapesDataset(shapes.ShapesDataset):
    """Shapes by the dozen: each quarter of an image has its own, on one background."""

    def random_image(self, height: int, width: int) -> tuple[np.ndarray, list]:
        """Background colour and shapes of an image; sides must be at least 160 pixels."""
        everything = []
        for top, left in np.ndindex(2, 2):
            background, own = super().random_image(height // 2, width // 2)
            for name, color, (x, y, size) in own:
                place = (x + left * width // 2, y + top * height // 2, size)
                everything.append((name, color, place))
        return background, everything


def trained_weights(logs: str | Path, steps: int = 600) -> Path:
    """The weight file of this network after so many training steps, trained now if it is not there.

    logs: folder of all runs; the file lies directly in it, and its name tells the steps. The images are the
    same each time. A file appears only when the training is done.
    """
    path = Path(logs) / f"mask_rcnn_shapes_quick_{steps}_steps.h5"
    if path.exists():
        print(f"Weights that are there: {path}")
        return path
    print(f"Training the small network once, {steps} steps; the next notebook finds its weights in {path}")
    state = random.getstate()
    random.seed(QuickShapesConfig.SEED)
    keras.utils.set_random_seed(QuickShapesConfig.SEED)
    config = QuickShapesConfig()
    config.STEPS_PER_EPOCH = min(STEPS_PER_EPOCH, steps)
    epochs = -(-steps // config.STEPS_PER_EPOCH)
    model = MaskRCNN("training", config, logs)
    model.train(
        shapes.dataset_of(500, config),
        None,
        learning_rate=schedules.warm_up_and_decay(config.LEARNING_RATE, steps, end=0.02),
        epochs=epochs,
        layers="all",
    )
    model.keras_model.save_weights(path)
    random.setstate(state)
    return path
