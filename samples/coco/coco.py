"""COCO: train on COCO, and measure a model on it.

    # Train, starting from the published COCO weights, from ImageNet weights, or going on with the last run
    python coco.py train --dataset=/path/to/coco --model=coco
    python coco.py train --dataset=/path/to/coco --model=imagenet
    python coco.py train --dataset=/path/to/coco --model=last

    # Download the images and annotations first (2017: 19 GB)
    python coco.py train --dataset=/path/to/coco --year=2017 --model=imagenet --download

    # COCO's average precision, on the first 500 images of the validation set
    python coco.py evaluate --dataset=/path/to/coco --year=2017 --model=coco

    # A light network, from scratch, on a CPU
    python coco.py train --dataset=/path/to/coco --year=2017 --model=scratch --light --epochs=1 --steps=10

The data set is a folder with annotations/instances_train2017.json, train2017/, ... as published. To train on
categories of your own, change CATEGORIES, or use mrcnn.formats.CocoDataset.
"""

import argparse
import shutil
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imgaug.augmenters as iaa
import numpy as np
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO

from mrcnn import formats, utils
from mrcnn.checkpoints import downloads
from mrcnn.config import Config, LightConfig
from mrcnn.data.augmentation_policies import camera_policy
from mrcnn.evaluation.coco import detections_of
from mrcnn.formats.coco import to_rle
from mrcnn.model import MaskRCNN
from mrcnn.training import schedules

ROOT_DIR = Path(__file__).resolve().parents[2]
COCO_WEIGHTS = ROOT_DIR / "mask_rcnn_coco.h5"
DEFAULT_DATASET_YEAR = "2014"

IMAGES_URL = "http://images.cocodataset.org/zips/{subset}{year}.zip"
ANNOTATIONS_URL = "http://images.cocodataset.org/annotations/annotations_trainval{year}.zip"
# The validation set of 2014 in two parts: 5,000 images to validate with, 35,000 to train on, too.
PART_URLS = {
    "minival": "https://dl.dropboxusercontent.com/s/o43o90bna78omob/instances_minival2014.json.zip?dl=1",
    "valminusminival": (
        "https://dl.dropboxusercontent.com/s/s3tw5zcg7395368/instances_valminusminival2014.json.zip?dl=1"
    ),
}

# COCO's 80 categories in the order of their ids, which have gaps.
CATEGORY_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
NAMES = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, "
    "stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, "
    "backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball "
    "bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife, "
    "spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, "
    "couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, "
    "microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier, "
    "toothbrush"
)
CATEGORY_IDS = [number for number in range(1, 91) if number not in CATEGORY_GAPS]
CATEGORIES = dict(zip(CATEGORY_IDS, NAMES.split(", "), strict=True))


class CocoConfig(Config):
    """ResNet-101 for COCO's 80 categories; a GPU of 12 GB holds two images."""

    NAME = "coco"
    IMAGES_PER_GPU = 2
    NUM_CLASSES = 1 + len(CATEGORIES)  # and background


class LightCocoConfig(LightConfig, CocoConfig):
    """A light network at half the size, trained from scratch on a CPU."""

    NAME = "coco-light"
    IMAGE_MIN_DIM = 384
    IMAGE_MAX_DIM = 512
    RPN_ANCHOR_SCALES = (16, 32, 64, 128, 256)
    TRAIN_ROIS_PER_IMAGE = 64
    IMAGES_PER_GPU = 4  # batch norm learns its statistics from them
    STEPS_PER_EPOCH = 500
    OPTIMIZER = "adam"  # learns faster from random weights
    LEARNING_RATE = 0.001


class CocoDataset(formats.CocoDataset):
    """COCO as published, with all its categories; `formats.CocoDataset` reads any file of the kind."""

    def load_coco(
        self,
        dataset_dir: str | Path,
        subset: str,
        year: str = DEFAULT_DATASET_YEAR,
        class_ids: Sequence[int] | None = None,
        class_map: Any = None,
        return_coco: bool = False,
        auto_download: bool = False,
    ) -> COCO | None:
        """Add the images of a subset that have an object.

        subset: train, val, and of 2014 minival and valminusminival. class_ids: COCO's category ids to take,
        in their order; all 80 if None, so that class ids fit the published weights even where a file lists
        fewer. class_map: not used. return_coco: give back pycocotools' object of the annotations.
        auto_download: download what is missing.

        Raises FileNotFoundError if the annotations are not there, ValueError if none of the images is.
        """
        if auto_download:
            self.auto_download(dataset_dir, subset, year)
        root = Path(dataset_dir)
        annotations = root / "annotations" / f"instances_{subset}{year}.json"
        images = root / f"{'val' if subset in PART_URLS else subset}{year}"
        for category_id, name in CATEGORIES.items() if class_ids is None else ():
            self.add_class("coco", category_id, name)
        self.load(annotations, images, classes=class_ids, keep_empty=False, source="coco")
        return COCO(str(annotations)) if return_coco else None

    def auto_download(self, dataDir: str | Path, dataType: str, dataYear: str) -> None:
        """Download and unpack the images and annotations of a subset, unless they are there already.

        Raises ConnectionError or OSError naming address and file, see `mrcnn.checkpoints.downloads.fetch`.
        """
        root = Path(dataDir)
        subset = "val" if dataType in PART_URLS else dataType
        folder = f"{subset}{dataYear}"
        download_and_unpack(IMAGES_URL.format(subset=subset, year=dataYear), root, folder)
        annotations = f"annotations/instances_{dataType}{dataYear}.json"
        if dataType in PART_URLS:
            download_and_unpack(PART_URLS[dataType], root / "annotations", Path(annotations).name)
        else:
            download_and_unpack(ANNOTATIONS_URL.format(year=dataYear), root, annotations)

    def image_reference(self, image_id: int) -> str:
        """The image's page in COCO's explorer."""
        info = self.image_info[image_id]
        if info["source"] == "coco":
            return f"http://cocodataset.org/#explore?id={info['id']}"
        return super().image_reference(image_id)

    def annToRLE(self, ann: dict, height: int, width: int) -> dict:  # noqa: N802 (pycocotools' name)
        """An annotation's segmentation as compressed run lengths."""
        return to_rle(ann["segmentation"], height, width)

    def annToMask(self, ann: dict, height: int, width: int) -> np.ndarray:  # noqa: N802
        """An annotation's segmentation as uint8 [height, width], 1 inside."""
        return run_lengths.decode(self.annToRLE(ann, height, width))


def download_and_unpack(url: str, root: Path, wanted: str) -> None:
    """Download a zip file with a progress bar and unpack it below `root`, unless `wanted` is there."""
    if (root / wanted).exists():
        return
    archive = downloads.fetch(url, root / Path(url.partition("?")[0]).name)
    unpacked = root / f".{archive.stem}.part"
    shutil.rmtree(unpacked, ignore_errors=True)  # of an interrupted call
    print(f"Unpacking {archive} ...")
    with zipfile.ZipFile(archive) as files:
        files.extractall(unpacked)
    for path in sorted(unpacked.iterdir()):
        if path.is_dir() and (root / path.name).is_dir():  # annotations/ may hold files already
            for file in path.iterdir():
                file.replace(root / path.name / file.name)
        else:
            path.replace(root / path.name)
    shutil.rmtree(unpacked)
    archive.unlink()


def build_coco_results(
    dataset: CocoDataset,
    image_ids: Sequence[Any],
    rois: np.ndarray | None,
    class_ids: np.ndarray,
    scores: np.ndarray,
    masks: np.ndarray,
) -> list[dict]:
    """Detections of one image in COCO's result format, one dict each.

    image_ids: the image's id in COCO, in a list. rois: [N, (y1, x1, y2, x2)] pixels, or None for nothing
    found. class_ids, scores: [N]. masks: [h, w, N].
    """
    if rois is None:
        return []
    found = {"rois": np.around(rois, 1), "class_ids": class_ids, "scores": scores, "masks": masks}
    return [
        {
            "image_id": image_id,
            **record,
            "category_id": dataset.get_source_class_id(record["category_id"], "coco"),
        }
        for image_id in image_ids
        for record in detections_of(found)
    ]


def evaluate_coco(
    model: MaskRCNN,
    dataset: CocoDataset,
    coco: COCO | None = None,
    eval_type: str = "bbox",
    limit: int = 0,
    image_ids: Sequence[int] | None = None,
) -> dict[str, list]:
    """COCO's average precision and recall on the first images of a dataset, see `MaskRCNN.evaluate`.

    coco: not used, the dataset has the annotations. eval_type: "bbox" or "segm". limit: images to use, 0 for
    all. image_ids: the dataset's ids to choose from. Prints a table and the time; returns the table.
    """
    image_ids = dataset.image_ids if image_ids is None else image_ids
    image_ids = image_ids[: limit or None]
    begin = time.time()
    results = model.evaluate(dataset, image_ids, iou_types=("mask" if eval_type == "segm" else "box",))
    seconds = time.time() - begin
    print(
        f"Total time: {seconds:.1f} s for {len(image_ids)} images, {seconds / len(image_ids):.2f} s an image"
    )
    return results


def dataset_of(arguments: argparse.Namespace, *subsets: str) -> CocoDataset:
    """A prepared data set of one or several subsets."""
    dataset = CocoDataset()
    for subset in subsets:
        dataset.load_coco(arguments.dataset, subset, arguments.year, auto_download=arguments.download)
    dataset.prepare()
    return dataset


def train(model: MaskRCNN, arguments: argparse.Namespace) -> None:
    """Heads, then the upper half of the backbone, then everything; from scratch all layers at once."""
    if "2014" in arguments.year:
        train_set = dataset_of(arguments, "train", "valminusminival")
        val_set = dataset_of(arguments, "minival")
    else:
        train_set, val_set = dataset_of(arguments, "train"), dataset_of(arguments, "val")
    rate, unit = model.config.LEARNING_RATE, arguments.epochs or 40
    stages = [(unit, "heads", rate), (3 * unit, "4+", rate), (4 * unit, "all", rate / 10)]
    augmentation = iaa.Fliplr(0.5)
    if arguments.model == "scratch":
        steps = unit * (model.config.STEPS_PER_EPOCH or len(train_set.image_ids) // model.config.BATCH_SIZE)
        stages = [(unit, "all", schedules.warm_up_and_decay(rate, steps))]
        augmentation = camera_policy(any_orientation=False)
    for epochs, layers, learning_rate in stages:
        model.train(train_set, val_set, learning_rate, epochs, layers, augmentation=augmentation)


def load_weights(model: MaskRCNN, choice: str) -> None:
    """Load "coco", "imagenet", "last", a path, or nothing for "scratch"."""
    if choice == "coco" and not COCO_WEIGHTS.exists():
        utils.download_trained_weights(COCO_WEIGHTS)
    if choice == "imagenet":
        model.load_weights(model.get_imagenet_weights(), by_name=True)
    elif choice != "scratch":
        paths = {"coco": COCO_WEIGHTS}
        model.load_weights(model.find_last() if choice == "last" else paths.get(choice, choice), by_name=True)


def config_for(arguments: argparse.Namespace) -> Config:
    """The settings of a command."""
    config = LightCocoConfig() if arguments.light else CocoConfig()
    config.STEPS_PER_EPOCH = arguments.steps or config.STEPS_PER_EPOCH
    if arguments.command == "evaluate":
        config.GPU_COUNT = 1
        config.IMAGES_PER_GPU = 1
        config.DETECTION_MIN_CONFIDENCE = 0
    return config


def is_yes(text: str) -> bool:
    """Whether an option's value means yes: anything but an empty text, 0, no and false."""
    return text.lower() not in ("", "0", "no", "false")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=["train", "evaluate"])
    parser.add_argument("--dataset", type=Path, required=True, help="folder of COCO")
    parser.add_argument("--year", default=DEFAULT_DATASET_YEAR, help="2014 or 2017")
    parser.add_argument("--model", required=True, help="coco, imagenet, last, scratch, or a path of weights")
    parser.add_argument("--logs", type=Path, default=ROOT_DIR / "logs")
    parser.add_argument("--limit", type=int, default=500, help="images to evaluate, 0 for all")
    parser.add_argument("--download", type=is_yes, nargs="?", const=True, default=False)
    parser.add_argument("--light", action="store_true", help="MobileNetV2, for a machine without a GPU")
    parser.add_argument("--epochs", type=int, default=None, help="of the first stage (40); the others follow")
    parser.add_argument("--steps", type=int, default=None, help="steps per epoch")
    arguments = parser.parse_args()
    if arguments.model.lower() in ("coco", "imagenet", "last", "scratch"):
        arguments.model = arguments.model.lower()
    for name, value in vars(arguments).items():
        print(f"{name}: {value}")

    config = config_for(arguments)
    config.display()
    model = MaskRCNN("training" if arguments.command == "train" else "inference", config, arguments.logs)
    load_weights(model, arguments.model)
    if arguments.command == "train":
        train(model, arguments)
    else:
        subset = "minival" if "2014" in arguments.year else "val"
        evaluate_coco(model, dataset_of(arguments, subset), limit=arguments.limit)


if __name__ == "__main__":
    main()
