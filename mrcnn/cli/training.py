"""The command `mrcnn train`."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrcnn.cli import recipes
from mrcnn.cli.datasets import check_paths, open_dataset
from mrcnn.cli.models import parse_settings
from mrcnn.cli.shell import command_line
from mrcnn.errors import DataError

if TYPE_CHECKING:
    from mrcnn.config import Config
    from mrcnn.formats.base import FormatDataset
    from mrcnn.model import MaskRCNN

# Settings of the size of the inputs. If one of them is given, the others keep their defaults.
SIZE_SETTINGS = {"IMAGE_MIN_DIM", "IMAGE_MAX_DIM", "IMAGE_MIN_SCALE", "IMAGE_RESIZE_MODE"}
# The settings that an option determines.
SETTINGS_OF_OPTIONS = {
    "name": ("NAME",),
    "steps": ("STEPS_PER_EPOCH",),
    "batch": ("IMAGES_PER_GPU",),
    "size": ("IMAGE_MIN_DIM", "IMAGE_MAX_DIM"),
    "learning_rate": ("LEARNING_RATE",),
}
# Small images are enlarged so many times, to a multiple of this side.
ENLARGED, SIDE_STEP = 2, 64
# Number of images whose size is looked up.
MEASURED_IMAGES = 1000


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The options of `mrcnn train`, which its help describes.

    `settings` are those of --set, as NAME=VALUE. `choice` has the options for reading images and annotations
    by the names that the command line gives them. None means the default.
    """

    images: Path | None = None
    validation: Path | None = None
    model: str | None = None
    resume: Path | None = None
    name: str | None = None
    logs: Path | None = None
    epochs: int
    recipe: str | None = None
    steps: int | None = None
    batch: int | None = None
    size: int | None = None
    layers: str | None = None
    learning_rate: float | None = None
    any_orientation: bool = False
    copy_paste: bool = False
    settings: Sequence[str] = ()
    choice: Mapping[str, Any] = field(default_factory=dict)

    def words(self) -> list[str]:
        """Return the options as the words of a command line."""
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        choice, settings = values.pop("choice"), values.pop("settings")
        return _words({**values, **choice, "set": settings})


def train_model(data: Path, options: TrainOptions) -> tuple[dict[str, Any], str]:
    """Train a model; see the command."""
    check_options(options)
    check_paths(data, options.images)
    if options.validation is not None:
        check_paths(options.validation)
    from mrcnn.training.runs import model_dir_of
    from mrcnn.training.schedules import remaining

    resume = options.resume
    dataset, val_dataset = _datasets(data, options)
    recipe = recipes.chosen_recipe(options.recipe, options.model, is_resumed=resume is not None)
    values = settings_of(dataset, recipe, options)
    logs = options.logs or (resume and model_dir_of(resume)) or Path("logs")
    network = _network(recipe, options, logs, values)
    recipe = recipe or recipes.recipe_of(network.config)
    steps = options.steps or values.get("STEPS_PER_EPOCH")
    _settle(network.config, dataset, recipe, steps, is_new=resume is None)
    stages = recipes.stages_of(recipe, network.config, options.epochs, options.layers, options.learning_rate)
    left = remaining(stages, network.epoch, int(network.config.STEPS_PER_EPOCH or 1))
    augmentation = recipes.augmentation_of(recipe, options.any_orientation, options.copy_paste)
    same = replace(options, model=None, name=str(network.config.NAME), logs=logs, recipe=recipe, steps=steps)
    try:
        for stage in left or stages[-1:]:
            network.train(dataset, val_dataset, *stage, augmentation=augmentation)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(after_interruption(_last_weights(network), data, same)) from None
    weights = str(_last_weights(network) or network.find_last())
    go_on = _command(data, replace(same, resume=Path(weights), epochs=2 * options.epochs))
    text = next_steps(weights, go_on, options.choice)
    return {"weights": weights, "epoch": network.epoch, "go_on": go_on}, text


def check_options(options: TrainOptions) -> None:
    """Raise ValueError if two options contradict each other."""
    if options.resume is not None and options.model is not None:
        raise ValueError(
            "--resume and --model cannot be used together, because each names the weights to start from. "
            "Pass only one of them."
        )
    if options.recipe == recipes.CONSTANT and options.any_orientation:
        raise ValueError(
            "--recipe constant and --any-orientation cannot be used together, because this recipe does not "
            "augment the images. Pass only one of them."
        )
    settings = parse_settings(options.settings)
    for option, names in SETTINGS_OF_OPTIONS.items():
        value = getattr(options, option)
        for name in names if value is not None else ():
            if str(settings.get(name, value)) != str(value):
                raise ValueError(
                    f"--{option.replace('_', '-')} {value} and --set {name}={settings[name]} contradict "
                    "each other. Pass only one of them."
                )


def _datasets(data: Path, options: TrainOptions) -> "tuple[FormatDataset, FormatDataset | None]":
    """Return the datasets of training and validation, with the same class numbers."""
    dataset = open_dataset(data, options.images, choice=options.choice)
    val_data = options.validation
    if val_data is None:
        return dataset, None
    # A data.yaml may name the images of both.
    val_images = None if val_data.resolve() == data.resolve() else options.images
    return dataset, open_dataset(val_data, val_images, choice=options.choice, part="val", like=dataset)


def settings_of(dataset: "FormatDataset", recipe: str | None, options: TrainOptions) -> dict[str, Any]:
    """Return the settings that the options and the dataset determine. A resumed run keeps its others."""
    values: dict[str, Any] = {"NUM_CLASSES": len(dataset.class_names)}
    if options.model is None and options.resume is None:
        values |= recipes.channel_settings(dataset, recipe or recipes.SCRATCH)
    values |= parse_settings(options.settings)
    if options.name is not None or options.resume is None:
        values["NAME"] = options.name or values.get("NAME", "objects")
    if options.size is not None:
        values |= {"IMAGE_MIN_DIM": options.size, "IMAGE_MAX_DIM": options.size}
    elif options.model is None and options.resume is None and not values.keys() & SIZE_SETTINGS:
        values |= size_of_inputs(dataset)
    if options.batch is not None:
        values["IMAGES_PER_GPU"] = options.batch
    elif options.resume is None:
        values.setdefault("IMAGES_PER_GPU", recipes.BATCHES.get(recipe or "", 2))
    return values


def _settle(
    config: "Config", dataset: "FormatDataset", recipe: str, steps: int | None, *, is_new: bool
) -> None:
    """Set the steps of an epoch and, for a new training, the contrast from the training images.

    Raises:
        ValueError: If the model does not take the channels of the images.
    """
    recipes.check_channels(config, dataset)
    if is_new:
        recipes.settle_contrast(config, dataset, recipe)
    if steps is not None or is_new:
        one_pass = -(-len(dataset.image_ids) // config.BATCH_SIZE)
        config.STEPS_PER_EPOCH = steps or max(recipes.FEWEST_STEPS, one_pass)


def _last_weights(network: "MaskRCNN") -> Path | None:
    """Return the path of the weights of the last finished epoch; None if there are none."""
    from mrcnn.training.runs import weights_path

    written = weights_path(network.checkpoint_path, network.epoch)
    return written if written.is_file() else None


def next_steps(weights: str, go_on: str, choice: Mapping[str, Any]) -> str:
    """Return the commands to print after a training: to detect, to export and to train on."""
    same = _words({name: choice.get(name) for name in ("page", "channels")})
    detect = command_line(["mrcnn", "detect", "IMAGES", "--model", weights, *same])
    return (
        f"Saved the weights to {weights}.\nDetect:   {detect}\n"
        f"Export:   mrcnn export {command_line([weights])} model.onnx\nGo on:    {go_on}"
    )


def after_interruption(weights: Path | None, data: Path, options: TrainOptions) -> str:
    """Return what an interrupted training has saved, and the command that continues it.

    Args:
        weights: The weights of the last finished epoch; None without one.
        data: The training images.
        options: The options of the training.
    """
    if weights is None:
        return "No epoch was finished, so nothing was saved."
    go_on = _command(data, replace(options, resume=weights))
    return f"The weights of the last finished epoch are saved.\nGo on:    {go_on}"


def _command(data: Path, options: TrainOptions) -> str:
    """Return the command line of a training."""
    return command_line(["mrcnn", "train", str(data), *options.words()])


def _words(options: Mapping[str, Any]) -> list[str]:
    """Return the words of a command line for these options, without those that are None or False."""
    words: list[str] = []
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif name == "set":
            words += [word for setting in value for word in (option, setting)]
        elif value is not None and value is not False:
            words += [option, ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    return words


def size_of_inputs(dataset: "FormatDataset") -> dict[str, int]:
    """Return settings for images that are smaller than those the default is made for.

    They are enlarged, so that the network sees small objects, but at most ENLARGED times: the time of a step
    grows with the size.
    """
    from mrcnn.config import LightConfig

    longest = 0
    for image_id in dataset.image_ids[:MEASURED_IMAGES]:
        with contextlib.suppress(DataError):  # training leaves broken images out
            longest = max(longest, *dataset.image_size(image_id))
    side = -(-ENLARGED * longest // SIDE_STEP) * SIDE_STEP
    usual = LightConfig().IMAGE_MIN_DIM or 0
    return {"IMAGE_MIN_DIM": side, "IMAGE_MAX_DIM": side} if 0 < side < usual else {}


def _network(recipe: str | None, options: TrainOptions, logs: Path, values: dict[str, Any]) -> "MaskRCNN":
    """Return the model in training mode: from a run, from weights, or as the recipe starts."""
    from mrcnn.checkpoints.weight_report import CLASS_LAYERS
    from mrcnn.loading import load
    from mrcnn.model import MaskRCNN

    if options.resume is not None:
        network = load(options.resume, "training", model_dir=logs, **values)
        network.load_weights(options.resume)
        return network
    if options.model is not None:
        return load(options.model, "training", model_dir=logs, exclude=CLASS_LAYERS, **values)
    config = recipes.config_of(recipe or recipes.SCRATCH)
    for setting, value in values.items():
        setattr(config, setting, value)
    network = MaskRCNN("training", config, logs)
    if recipe == recipes.IMAGENET:
        network.load_weights("imagenet")
    return network
