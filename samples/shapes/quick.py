"""A Mask R-CNN for shapes that trains in a minute or two on a CPU, for the notebooks.

A network with random weights shows nothing, and the published weights are a large download for a large
network. Therefore, notebooks that need a trained network call `trained_weights`, which trains this network
once and keeps the file. It is the complete detector with narrow layers. Its backbone of ten convolutions is
not part of the library, and shows how to use your own backbone.
"""

import random
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from keras import layers

from mrcnn.model import BatchNorm, MaskRCNN
from mrcnn.training import schedules
from mrcnn.typing import Tensor
from samples.shapes import shapes

STAGE_CHANNELS = (16, 32, 48, 64, 96)  # of C1 to C5; each is half the size of the one before
STEPS_PER_EPOCH = 50


def backbone(input_image: Tensor, stage5: bool = True, train_bn: bool | None = None) -> list[Tensor]:
    """Build the stages C1 to C5, each of two 3 x 3 convolutions, the second one residual.

    Every callable BACKBONE has this signature.

    Args:
        input_image: Molded images `[batch, height, width, 3]`.
        stage5: Whether to build C5. The feature pyramid always asks for it.
        train_bn: TRAIN_BN of the config.

    Returns:
        The five stages; stage n has the shape `[batch, height / 2**n, width / 2**n, channels]`.
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
    """Return the height and width of the five pyramid levels, int `[5, 2]`, for a molded image shape."""
    return np.array([[-(-side // stride) for side in image_shape[:2]] for stride in (4, 8, 16, 32, 64)])


def _conv_norm(x: Tensor, channels: int, stride: int, name: str, train_bn: bool | None) -> Tensor:
    x = layers.Conv2D(channels, 3, strides=stride, padding="same", use_bias=False, name=name)(x)
    return BatchNorm(train_bn=train_bn, name=f"{name}_bn")(x)


class QuickShapesConfig(shapes.LightShapesConfig):
    """Shapes for the small backbone, with anchors of the sizes of the shapes."""

    NAME = "shapes-quick"
    BACKBONE = staticmethod(backbone)
    COMPUTE_BACKBONE_SHAPE = staticmethod(backbone_shapes)
    RPN_ANCHOR_SCALES = (24, 40, 56, 80, 112)
    RPN_TRAIN_ANCHORS_PER_IMAGE = 32  # few anchors are positive here; more negatives would outweigh them
    STEPS_PER_EPOCH = STEPS_PER_EPOCH
    IMAGES_PER_GPU = 4
    MASK_HEAD_CHANNELS = 32
    OPTIMIZER = "adam"
    LEARNING_RATE = 0.002  # the RPN may diverge at twice this rate
    SEED = 1


class QuickShapesInferenceConfig(QuickShapesConfig):
    """One image at a time."""

    IMAGES_PER_GPU = 1
    DETECTION_MIN_CONFIDENCE = 0.7


class ManyShapesDataset(shapes.ShapesDataset):
    """Images of up to 16 shapes: each quarter of an image has its own, on one background."""

    def random_image(self, height: int, width: int) -> tuple[np.ndarray, list[shapes.Shape]]:
        """Return a background color and shapes. Sides must be at least 160 pixels."""
        all_shapes = []
        for row, column in np.ndindex(2, 2):
            background, quarter = super().random_image(height // 2, width // 2)
            for name, color, (x, y, size) in quarter:
                center = x + column * width // 2, y + row * height // 2
                all_shapes.append((name, color, (*center, size)))
        return background, all_shapes


def trained_weights(logs: str | Path, steps: int = 600) -> Path:
    """Return the weight file of this network after some training steps, training first if it is missing.

    Args:
        logs: Folder of all runs. The file is written there when the training is done; its name has the number
            of steps.
        steps: Number of training steps. The images are the same each time.

    Returns:
        The path of the file.
    """
    path = Path(logs) / f"mask_rcnn_shapes_quick_{steps}_steps.h5"
    if path.exists():
        print(f"Found the weights {path}")
        return path
    print(f"Training the small network once, for {steps} steps. Its weights will be saved to {path}")
    state = random.getstate()
    random.seed(QuickShapesConfig.SEED)
    keras.utils.set_random_seed(QuickShapesConfig.SEED)
    config = QuickShapesConfig()
    config.STEPS_PER_EPOCH = min(STEPS_PER_EPOCH, steps)
    epochs = -(-steps // config.STEPS_PER_EPOCH)
    model = MaskRCNN("training", config, logs)
    model.train(
        shapes.load_dataset(500, config),
        val_dataset=None,
        learning_rate=schedules.warm_up_and_decay(config.LEARNING_RATE, steps, end=0.02),
        epochs=epochs,
        layers="all",
    )
    model.keras_model.save_weights(path)
    random.setstate(state)
    return path
