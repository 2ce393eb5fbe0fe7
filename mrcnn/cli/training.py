"""The command `mrcnn train`."""

import contextlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrcnn.cli.datasets import open_dataset
from mrcnn.cli.models import parse_settings
from mrcnn.errors import DataError

if TYPE_CHECKING:
    from mrcnn.config import Config
    from mrcnn.formats.base import FormatDataset
    from mrcnn.model import MaskRCNN

# Layers whose shapes depend on the number of classes.
HEAD_LAYERS = ("mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask")

# Settings of the size of the inputs. If one of them is given, the others keep their defaults.
SIZE_SETTINGS = {"IMAGE_MIN_DIM", "IMAGE_MAX_DIM", "IMAGE_MIN_SCALE", "IMAGE_RESIZE_MODE"}
# Small images are enlarged so many times, to a multiple of this side.
ENLARGED, SIDE_STEP = 2, 64
# Number of images whose size is looked up.
MEASURED_IMAGES = 1000


def train_model(
    data: Path,
    images: Path | None,
    *,
    validation: Path | None,
    model: str | None,
    resume: Path | None,
    name: str,
    logs: Path,
    epochs: int,
    steps: int | None,
    batch: int,
    layers: str,
    learning_rate: float | None,
    settings: Sequence[str],
    quiet: bool,
    choice: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], str]:
    """Train a model; see the command."""
    dataset = open_dataset(data, images, choice=choice)
    val_dataset = None
    if validation is not None:
        val_dataset = open_dataset(validation, images, dataset.class_names[1:], choice)
    values = {
        "NAME": name,
        "NUM_CLASSES": len(dataset.class_names),
        "IMAGES_PER_GPU": batch,
        "STEPS_PER_EPOCH": steps,
    } | parse_settings(settings)
    if model is None and resume is None and not values.keys() & SIZE_SETTINGS:
        values |= size_of_inputs(dataset)
    network = _network(model, resume, logs, values)
    rate = learning_rate or network.config.LEARNING_RATE
    network.train(dataset, val_dataset, rate, epochs, layers)
    weights = Path(network.find_last())
    command = ["mrcnn", "train", str(data), "--resume", str(weights), "--epochs", str(2 * epochs)]
    for option, path in (("--images", images), ("--validation", validation), ("--logs", logs)):
        command += [] if path is None else [option, str(path)]
    command += ["--name", name, "--batch", str(batch), "--layers", layers]
    command += [] if steps is None else ["--steps", str(steps)]
    for option, chosen in (choice or {}).items():
        command += [f"--{option}", ",".join(map(str, chosen)) if isinstance(chosen, list) else str(chosen)]
    command += [part for text in settings for part in ("--set", text)]
    value = {"weights": str(weights), "epoch": network.epoch, "go_on": shlex.join(command)}
    text = (
        f"Saved the weights to {weights}.\nDetect:   mrcnn detect IMAGES --model "
        f"{shlex.quote(str(weights))}\nExport:   mrcnn export {shlex.quote(str(weights))} model.onnx\nGo "
        f"on:    {shlex.join(command)}"
    )
    return value, text


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


def _network(model: str | None, resume: Path | None, logs: Path, values: dict[str, Any]) -> "MaskRCNN":
    """Return the model in training mode: from a run, from weights, or with random weights."""
    from mrcnn.config import LightConfig
    from mrcnn.loading import load
    from mrcnn.model import MaskRCNN

    if resume is not None:
        network = load(resume, "training", model_dir=logs, **values)
        network.load_weights(resume)
        return network
    if model is not None:
        return load(model, "training", model_dir=logs, exclude=HEAD_LAYERS, **values)
    config: Config = LightConfig()
    # From random weights: an optimizer that needs far fewer steps, and objects from the first step on.
    for setting, value in ({"OPTIMIZER": "adam", "IMAGES_PER_GPU": 2} | values).items():
        setattr(config, setting, value)
    return MaskRCNN("training", config, logs)
