"""Recipes of `mrcnn train`: the weights that a network starts with, and how it learns from there."""

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mrcnn.errors import DataError
from mrcnn.typing import Image

if TYPE_CHECKING:
    from mrcnn.config import Config
    from mrcnn.dataset import Dataset
    from mrcnn.training.schedules import Stage

SCRATCH, IMAGENET, FINE_TUNE, CONSTANT = "scratch", "imagenet", "fine-tune", "constant"
RECIPES = (SCRATCH, IMAGENET, FINE_TUNE, CONSTANT)
# Images of a batch by default.
BATCHES = {IMAGENET: 4}
# Steps of an epoch, if one pass over the data is shorter.
FEWEST_STEPS = 100
# CONTRAST_PERCENTILES for images of more than 8 bits.
MICROSCOPE = (1, 99.8)
# Images that are read to tell their type and channels.
EXAMINED_IMAGES = 8
# The mean of each channel of images whose channels are not colors.
MIDDLE_GRAY = 127.0

logger = logging.getLogger(__name__)


def chosen_recipe(recipe: str | None, model: str | None, is_resumed: bool) -> str | None:
    """Return the recipe of the options; None if the run to resume decides.

    Raises:
        ValueError: If the recipe does not exist, or does not fit the weights.
    """
    if recipe is not None and recipe not in RECIPES:
        raise ValueError(f"--recipe must be one of {', '.join(RECIPES)}. Received: {recipe}")
    if is_resumed:
        return recipe
    if model is None:
        if recipe == FINE_TUNE:
            raise ValueError(
                "--recipe fine-tune needs trained weights. Pass a weight file or a name with --model."
            )
        return recipe or SCRATCH
    if recipe in (SCRATCH, IMAGENET):
        start = "random weights" if recipe == SCRATCH else "ImageNet weights"
        raise ValueError(
            f"--recipe {recipe} starts from {start}, and --model {model} from others. Leave out --model, or "
            "pass --recipe fine-tune."
        )
    return recipe or FINE_TUNE


def recipe_of(config: "Config") -> str:
    """Return the recipe of a run whose settings these are. The settings do not tell CONSTANT."""
    return IMAGENET if config.TRAIN_BN == "heads" else SCRATCH


def config_of(recipe: str) -> "Config":
    """Return the settings of a network that does not start from a whole trained network."""
    from mrcnn.config import LightConfig, PretrainedLightConfig

    if recipe == IMAGENET:
        return PretrainedLightConfig()
    config = LightConfig()
    # An optimizer that needs far fewer steps from random weights, and more anchors that count as objects.
    config.OPTIMIZER = "adam"
    config.RPN_POSITIVE_IOU = 0.5
    return config


def stages_of(
    recipe: str, config: "Config", epochs: int, layers: str | None, learning_rate: float | None
) -> "list[Stage]":
    """Return the stages of the whole training.

    Args:
        recipe: One of RECIPES.
        config: Settings with STEPS_PER_EPOCH.
        epochs: Total number of epochs.
        layers: Layers to train, or None for those of the recipe.
        learning_rate: The highest learning rate; None for LEARNING_RATE.
    """
    from mrcnn.training.schedules import Stage, transfer_stages, warm_up_and_decay

    steps = int(config.STEPS_PER_EPOCH or 1)
    rate = config.LEARNING_RATE if learning_rate is None else learning_rate
    if recipe == CONSTANT:
        return [Stage(rate, epochs, layers or "all")]
    if recipe == IMAGENET and layers is None:
        return transfer_stages(rate, epochs, steps)
    return [Stage(warm_up_and_decay(rate, epochs * steps), epochs, layers or "all")]


def settle_contrast(config: "Config", dataset: "Dataset", recipe: str) -> None:
    """Set CONTRAST_PERCENTILES for images of more than 8 bits, unless the settings say how to read them.

    Such images come from microscopes and use a part of their range, which differs from image to image.

    Args:
        config: The settings of a new training.
        dataset: The training images, prepared.
        recipe: One of RECIPES.
    """
    if recipe == CONSTANT or config.CONTRAST_PERCENTILES is not None or config.IMAGE_VALUE_RANGE is not None:
        return
    dtypes = (image.dtype.name for image in _first_images(dataset))
    deep = next((name for name in dtypes if name not in ("uint8", "bool")), None)
    if deep is not None:
        config.CONTRAST_PERCENTILES = MICROSCOPE
        logger.warning(
            "Images are %s. Training and detection stretch the contrast of each image to 8 bits "
            "(CONTRAST_PERCENTILES=%s). To keep differences in brightness, pass the values of black and "
            'white, such as --set "IMAGE_VALUE_RANGE=(0,4095)".',
            deep,
            MICROSCOPE,
        )


def channel_settings(dataset: "Dataset", recipe: str) -> dict[str, Any]:
    """Return settings for a new network whose training images have other channels than three colors.

    Raises:
        ValueError: If the recipe needs colors.
    """
    image = next(_first_images(dataset), None)
    channels = 3 if image is None else image.shape[2]
    if channels == 3:
        return {}
    if recipe == IMAGENET:
        raise ValueError(
            "--recipe imagenet needs images of 3 channels, because its weights know colors. Received: "
            f"{channels} channels. Choose three with --channels, or pass --recipe scratch."
        )
    return {"IMAGE_CHANNEL_COUNT": channels, "MEAN_PIXEL": (MIDDLE_GRAY,) * channels}


def check_channels(config: "Config", dataset: "Dataset") -> None:
    """Check that a network takes the channels of the training images.

    Raises:
        ValueError: If it takes another number.
    """
    image, takes = next(_first_images(dataset), None), config.IMAGE_CHANNEL_COUNT
    if image is not None and image.shape[2] != takes and (takes, image.shape[2]) != (1, 3):
        raise ValueError(
            f"The model takes images of {takes} channels (IMAGE_CHANNEL_COUNT). Received: training images of "
            f"{image.shape[2]} channels. Choose {takes} with --channels, or start with another model."
        )


def _first_images(dataset: "Dataset") -> Iterator[Image]:
    """Yield those of the first images that can be read."""
    for image_id in dataset.image_ids[:EXAMINED_IMAGES]:
        with contextlib.suppress(DataError):  # training leaves it out
            yield dataset.load_image(int(image_id))


def augmentation_of(recipe: str, any_orientation: bool, copy_paste: bool) -> list[Any]:
    """Return the augmentations of the training images, in order.

    Args:
        recipe: One of RECIPES. All but CONSTANT vary cameras and light.
        any_orientation: See `camera_policy`.
        copy_paste: Whether to vary the sizes of images, and to paste objects of other images.
    """
    from mrcnn.data.augmentation_policies import camera_policy, scale_jitter
    from mrcnn.data.copy_paste import CopyPaste

    steps: list[Any] = [scale_jitter(0.5, 1.5), CopyPaste()] if copy_paste else []
    return steps if recipe == CONSTANT else [*steps, camera_policy(any_orientation=any_orientation)]
