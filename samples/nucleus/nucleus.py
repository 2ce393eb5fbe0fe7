"""Nuclei: segment cell nuclei of the 2018 Data Science Bowl.

    # Count nuclei with the weights that are here, on a CPU: in a picture of scikit-image, or in yours
    python nucleus.py count
    python nucleus.py count --input=<picture, folder or zip>
    python nucleus.py count --input=<stained section> --stain=haematoxylin --scale=3

    # Train as in 2018, starting from the published COCO weights (ResNet-50: "imagenet")
    python nucleus.py train --dataset=/path/to/nuclei --subset=train --weights=coco

    # Train from scratch: ResNet-50 on a GPU, or a light network on a laptop; then measure it
    python nucleus.py train --dataset=/path/to/nuclei --weights=scratch --recipe=scratch
    python nucleus.py train --dataset=/path/to/nuclei --weights=scratch --light
    python nucleus.py evaluate --dataset=/path/to/nuclei --subset=val --weights=last --light
    python nucleus.py robustness --dataset=/path/to/nuclei --subset=val --weights=last --light

    # Train the weights that are here on images of your own kind
    python nucleus.py train --dataset=/path/to/yours --weights=nucleus-light

    # Any picture, folder or zip: label images, COCO JSON and counts
    python nucleus.py predict --input=pictures.zip --output=found --weights=last --light

    # Predict, and write a submission file and pictures
    python nucleus.py detect --dataset=/path/to/nuclei --subset=stage1_test --weights=last

The data set is a folder with stage1_train/, stage1_test/ ... as published (one folder an image: images/ and
masks/), or with train.zip and val.zip, which hold images/<id>.png and label images labels/<id>.png. Where a
split.json names the modality of each image, evaluate also measures fluorescence images and the rest apart.
"""

import argparse
import datetime
from collections.abc import Iterator
from pathlib import Path

import imgaug.augmenters as iaa
import matplotlib
import numpy as np
from skimage import data, io
from tqdm import tqdm

from mrcnn import formats, utils, visualize
from mrcnn.config import Config, LightConfig
from mrcnn.data.augmentation_policies import camera_policy
from mrcnn.data.stains import haematoxylin
from mrcnn.evaluation import coco, robustness
from mrcnn.evaluation.evaluate import evaluate_groups
from mrcnn.formats import predictions
from mrcnn.formats.base import Instance
from mrcnn.geometry.rle import mask_to_rle, rle_decode, rle_encode  # noqa: F401 (old names)
from mrcnn.model import MaskRCNN
from mrcnn.training import callbacks
from mrcnn.training.schedules import warm_up_and_decay

ROOT_DIR = Path(__file__).resolve().parents[2]
COCO_WEIGHTS = ROOT_DIR / "mask_rcnn_coco.h5"
SHIPPED = "nucleus-light"
SHIPPED_WEIGHTS = ROOT_DIR / "samples" / "nucleus" / "weights" / f"{SHIPPED}.h5"  # see MODEL_CARD.md
RESULTS_DIR = ROOT_DIR / "results" / "nucleus"
# Layers whose shapes depend on the number of classes.
CLASS_LAYERS = ["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"]
STAGES = ("stage1_train", "stage1_test", "stage2_test")

# The images of stage1_train that are held back for validation.
VAL_IMAGE_IDS = Path(__file__).with_name("val_image_ids.txt").read_text().split()


class NucleusConfig(Config):
    """Crops of 512 x 512 from images enlarged twofold, many small objects each."""

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
    """What learns from random weights here; docs/recipes.md says why and what each brought."""

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
    """Detection in whole images, padded, one at a time."""

    GPU_COUNT = 1
    IMAGES_PER_GPU = 1
    IMAGE_RESIZE_MODE = "pad64"
    RPN_NMS_THRESHOLD = 0.7
    PRE_NMS_LIMIT = 8000
    POST_NMS_ROIS_INFERENCE = 2000


class ScratchNucleusConfig(FromScratch, NucleusConfig):
    """ResNet-50 trained from scratch, on a GPU."""

    NAME = "nucleus-scratch"
    IMAGES_PER_GPU = 8
    STEPS_PER_EPOCH = 100


class ScratchNucleusInferenceConfig(WholeImages, ScratchNucleusConfig):
    """Its detection."""


class LightNucleusConfig(FromScratch, LightConfig, NucleusConfig):
    """A light network, trained from scratch on a CPU: smaller crops, fewer regions."""

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
    """Its detection."""


# Settings for training and for detection.
RECIPES = {
    "original": (NucleusConfig, NucleusInferenceConfig),
    "scratch": (ScratchNucleusConfig, ScratchNucleusInferenceConfig),
    "light": (LightNucleusConfig, LightNucleusInferenceConfig),
}


class NucleusDataset(formats.LabelImageDataset, formats.MaskFileDataset):
    """Images with one mask file per nucleus, or zipped images with label images."""

    def load_nucleus(self, dataset_dir: str | Path, subset: str) -> None:
        """Add the images of a subset.

        subset: a stage's folder; "train" or "val": the zip of that name if there is one, else stage1_train
        without, or only, the images held back. Raises ValueError for another subset, FileNotFoundError for a
        missing folder.
        """
        if subset not in ("train", "val", *STAGES):
            raise ValueError(f"subset must be train, val or one of {STAGES}. Received: subset={subset!r}")
        archive = Path(dataset_dir) / f"{subset}.zip"
        if archive.exists():
            formats.LabelImageDataset.load(self, archive, classes=["nucleus"], source="nucleus")
            return
        stage = Path(dataset_dir) / ("stage1_train" if subset in ("train", "val") else subset)
        if not stage.is_dir():
            raise FileNotFoundError(f"There is neither {archive} nor the folder {stage}. Check --dataset.")
        image_ids = {path.name for path in stage.iterdir() if path.is_dir()}
        if subset == "val":
            image_ids = held_back(image_ids)
        elif subset == "train":
            image_ids -= held_back(image_ids)
        formats.MaskFileDataset.load(self, stage, "nucleus", only=image_ids, source="nucleus")

    def load_instances(self, image_id: int) -> Iterator[Instance]:
        """The nuclei one by one, from whichever files the image has."""
        has_files = "masks" in self.image_info[image_id]
        reader = formats.MaskFileDataset if has_files else formats.LabelImageDataset
        return reader.load_instances(self, image_id)

    def image_reference(self, image_id: int) -> str:
        """The image's id in the competition."""
        return self.image_info[image_id]["id"]


def held_back(image_ids: set[str]) -> set[str]:
    """The images to validate with: VAL_IMAGE_IDS; every fifth of an excerpt that has none of them."""
    return image_ids & set(VAL_IMAGE_IDS) or set(sorted(image_ids)[::5])


def augmentation() -> iaa.Augmenter:
    """That of 2018: up to two of a flip, a quarter turn, another brightness, blur."""
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


def microscopes() -> iaa.Augmenter:
    """The camera policy; at times a negative, or no colour: stains differ more than cameras do."""
    turns = [iaa.Sometimes(0.15, iaa.Invert(1.0)), iaa.Sometimes(0.15, iaa.Grayscale(1.0))]
    return iaa.Sequential([*turns, camera_policy()])


# What the network sees of a picture.
STAINS = {"as-it-is": np.asarray, "haematoxylin": haematoxylin}

AUGMENTATIONS = {
    "microscopes": microscopes,
    "camera": camera_policy,
    "original": augmentation,
    "none": lambda: None,
}


def dataset_of(dataset_dir: Path, subset: str, images: int | None = None) -> NucleusDataset:
    """A prepared data set; `images` of it in a fixed order of chance, so that fewer are among more."""
    dataset = NucleusDataset()
    dataset.load_nucleus(dataset_dir, subset)
    if images is not None:
        chosen = np.random.default_rng(0).permutation(len(dataset.image_info))[:images]
        dataset.image_info = [dataset.image_info[index] for index in sorted(chosen)]
    dataset.prepare()
    return dataset


def train(model: MaskRCNN, arguments: argparse.Namespace) -> None:
    """Heads first, then all layers; with the recipes from scratch all layers at once, with a warm-up.

    The weights that are here go on at a quarter of the rate. Detections on the validation images are measured
    five times; the weights of the best mask AP are kept as best.h5 beside those of each epoch.
    """
    dataset = dataset_of(arguments.dataset, arguments.subset or "train", arguments.images)
    validation = dataset_of(arguments.dataset, "val")
    if arguments.recipe != "original":
        dataset = formats.repeat_rare(dataset, modalities(dataset, arguments.dataset))
    rate = model.config.LEARNING_RATE
    if arguments.weights == "scratch" or arguments.recipe != "original":
        epochs = arguments.epochs or 10
        steps = max(1, epochs - model.epoch) * model.config.STEPS_PER_EPOCH
        rate /= 4 if arguments.weights == SHIPPED else 1
        stages = [(epochs, "all", warm_up_and_decay(rate, steps))]
    else:
        epochs = arguments.epochs or 20
        stages = [(epochs, "heads", rate), (2 * epochs, "all", rate)]
    measure = callbacks.Evaluate(
        model,
        validation,
        config_for(arguments, "inference"),
        every=max(1, stages[-1][0] // 5),
        min_score=arguments.min_score,
    )
    keep = callbacks.SaveBest(Path(model.log_dir) / "best.h5")
    default = "original" if arguments.recipe == "original" else "microscopes"
    for epochs, layers, learning_rate in stages:
        model.train(
            dataset,
            validation,
            learning_rate=learning_rate,
            epochs=epochs,
            layers=layers,
            augmentation=AUGMENTATIONS[arguments.augmentation or default](),
            custom_callbacks=[measure, keep],
        )


def modalities(dataset: NucleusDataset, dataset_dir: Path) -> dict[str, list[int]]:
    """Image ids of fluorescence images and of the rest, if split.json tells; else nothing."""
    path = dataset_dir / "split.json"
    if not path.exists():
        return {}
    split = formats.files.read_json(path)
    known = {entry["id"]: entry["modality"] for subset in ("train", "val") for entry in split[subset]}
    groups: dict[str, list[int]] = {"fluorescence": [], "other": []}
    for image_id in dataset.image_ids:
        modality = known.get(dataset.image_info[image_id]["id"])
        groups["fluorescence" if modality == "fluorescence" else "other"].append(int(image_id))
    return {name: ids for name, ids in groups.items() if ids}


def evaluate(model: MaskRCNN, arguments: argparse.Namespace) -> dict[str, dict[str, list]]:
    """COCO's AP and AP(tau), over all images and by modality; detections go to a file if --output says so."""
    dataset = dataset_of(arguments.dataset, arguments.subset or "val", arguments.images)
    return evaluate_groups(
        model.detect,
        dataset,
        {"all": dataset.image_ids, **modalities(dataset, arguments.dataset)},
        max_detections=(1, 10, model.config.DETECTION_MAX_INSTANCES),
        results_path=arguments.output and arguments.output / "detections.json",
        min_score=arguments.min_score,
    )


def measure_robustness(model: MaskRCNN, arguments: argparse.Namespace) -> dict[str, list]:
    """The same under other light and cameras; the table goes to a file if --output says so."""
    dataset = dataset_of(arguments.dataset, arguments.subset or "val", arguments.images)
    table = robustness.evaluate_under_shifts(
        model.detect,
        dataset,
        max_detections=(1, 10, model.config.DETECTION_MAX_INSTANCES),
        min_score=arguments.min_score,
    )
    if arguments.output:
        coco.write_json(arguments.output / "robustness.json", table)
    return table


def predict(model: MaskRCNN, arguments: argparse.Namespace) -> dict[str, int]:
    """Label images, COCO JSON and counts of pictures; "count" also draws the nuclei and prints each count.

    Without --input it counts those of scikit-image's picture of a stained tissue section, see
    `skimage.data.immunohistochemistry`; without --output the results go to a new folder of RESULTS_DIR.
    """

    def found(images: list[np.ndarray]) -> list[dict]:
        return model.detect([STAINS[arguments.stain](image) for image in images])

    is_count = arguments.command == "count"
    output = arguments.output or RESULTS_DIR / f"count_{datetime.datetime.now():%Y%m%dT%H%M%S}"
    source = arguments.input
    if source is None:
        source = output / "immunohistochemistry.png"
        output.mkdir(parents=True, exist_ok=True)
        io.imsave(source, data.immunohistochemistry())
    counts = predictions.write_predictions(
        found, source, output, {1: "nucleus"}, arguments.min_score, overlays=is_count
    )
    if is_count:
        for name, count in counts.items():
            print(f"{name}: {count} nuclei, drawn in {output / 'overlays' / name}.png")
    return counts


def detect(model: MaskRCNN, dataset_dir: str | Path, subset: str) -> Path:
    """Predict every image of a subset; write submit.csv and a picture of each, and return the folder."""
    folder = RESULTS_DIR / f"submit_{datetime.datetime.now():%Y%m%dT%H%M%S}"
    folder.mkdir(parents=True)
    dataset = dataset_of(Path(dataset_dir), subset)
    lines = ["ImageId,EncodedPixels"]
    for image_id in tqdm(dataset.image_ids):
        image = dataset.load_image(image_id)
        found = model.detect([image])[0]
        source_id = dataset.image_info[image_id]["id"]
        lines.append(mask_to_rle(source_id, found["masks"], found["scores"]))
        figure = visualize.display_instances(
            image,
            found["rois"],
            found["masks"],
            found["class_ids"],
            dataset.class_names,
            found["scores"],
            show_bbox=False,
            show_mask=False,
            title="Predictions",
        )
        figure.savefig(folder / f"{source_id}.png")
        matplotlib.pyplot.close(figure)
    temporary = folder / "submit.csv.part"
    temporary.write_text("\n".join(lines) + "\n")
    temporary.rename(folder / "submit.csv")
    print("Saved to", folder)
    return folder


def load_weights(model: MaskRCNN, choice: str) -> None:
    """Load SHIPPED, "coco", "imagenet", "last", a path, or nothing for "scratch"."""
    if choice == "scratch":
        return
    if choice == "coco":
        if not COCO_WEIGHTS.exists():
            utils.download_trained_weights(COCO_WEIGHTS)
        model.load_weights(COCO_WEIGHTS, by_name=True, exclude=CLASS_LAYERS)
    elif choice == SHIPPED:
        if not SHIPPED_WEIGHTS.exists():
            raise FileNotFoundError(
                f"There is no {SHIPPED_WEIGHTS}. A clone of the repository has it; or give --weights a path."
            )
        model.load_weights(SHIPPED_WEIGHTS, resume=False)
    elif choice == "imagenet":
        model.load_weights(model.get_imagenet_weights(), by_name=True)
    else:
        model.load_weights(model.find_last() if choice == "last" else choice, by_name=True)


def config_for(arguments: argparse.Namespace, mode: str) -> Config:
    """The recipe's settings for the mode "training" or "inference"."""
    config = RECIPES[arguments.recipe][mode == "inference"]()
    config.STEPS_PER_EPOCH = arguments.steps or config.STEPS_PER_EPOCH
    config.IMAGE_MIN_SCALE = arguments.scale or config.IMAGE_MIN_SCALE
    return config


def parse_arguments() -> argparse.Namespace:
    """The command line; errors name what is missing."""
    parser = argparse.ArgumentParser(description="Segment cell nuclei")
    commands = ["count", "train", "evaluate", "robustness", "predict", "detect"]
    parser.add_argument("command", choices=commands)
    parser.add_argument("--dataset", type=Path, help="folder of the data set; for all but count, predict")
    parser.add_argument(
        "--weights", help=f"{SHIPPED} (default of count, predict), scratch, coco, imagenet, last, or a path"
    )
    parser.add_argument("--logs", type=Path, default=ROOT_DIR / "logs")
    parser.add_argument("--subset", help=f"train, val, or one of {', '.join(STAGES)}")
    parser.add_argument("--images", type=int, help="use this many of its images only")
    parser.add_argument("--recipe", choices=list(RECIPES), help="network and settings; default: original")
    parser.add_argument("--light", dest="recipe", action="store_const", const="light", help="--recipe=light")
    parser.add_argument("--augmentation", choices=list(AUGMENTATIONS), help="default: that of the recipe")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--steps", type=int, help="steps per epoch")
    parser.add_argument("--input", type=Path, help="count, predict: a picture, or a folder or zip of some")
    parser.add_argument(
        "--scale", type=float, help="enlarge pictures so many times (2); more for smaller nuclei"
    )
    parser.add_argument("--stain", choices=list(STAINS), help="look at one dye of a stained section alone")
    parser.add_argument("--output", type=Path, help="folder of results")
    parser.add_argument("--min-score", type=float, default=0.5, help="of nuclei in label images, counts")
    arguments = parser.parse_args()
    if arguments.command in ("count", "predict"):
        arguments.weights = arguments.weights or SHIPPED
    if arguments.command == "count" and not arguments.input:  # small nuclei in a brown and blue section
        arguments.scale = arguments.scale or 3
        arguments.stain = arguments.stain or "haematoxylin"
    arguments.stain = arguments.stain or "as-it-is"
    if arguments.weights == SHIPPED:
        arguments.recipe = arguments.recipe or "light"
        if arguments.recipe != "light":
            parser.error(f"--weights={SHIPPED} are of --recipe=light. Received: --recipe={arguments.recipe}")
    arguments.recipe = arguments.recipe or "original"
    needed = {"count": [], "predict": ["input", "output"], "detect": ["dataset", "weights", "subset"]}
    wanted = needed.get(arguments.command, ["dataset", "weights"])
    missing = [f"--{name}" for name in wanted if getattr(arguments, name) is None]
    if missing:
        parser.error(f"{arguments.command} needs {' and '.join(missing)}")
    return arguments


def main() -> None:
    """Command line."""
    matplotlib.use("Agg")  # pictures go to files
    arguments = parse_arguments()
    mode = "training" if arguments.command == "train" else "inference"
    config = config_for(arguments, mode)
    if arguments.command != "count":
        config.display()
    model = MaskRCNN(mode, config, arguments.logs)
    load_weights(model, arguments.weights)
    if arguments.command == "detect":
        detect(model, arguments.dataset, arguments.subset)
    else:
        commands = {"train": train, "evaluate": evaluate, "robustness": measure_robustness}
        commands.get(arguments.command, predict)(model, arguments)


if __name__ == "__main__":
    main()
