"""COCO: train on COCO, and evaluate a model on it.

    # Train, starting from the published COCO weights or from ImageNet weights, or continue the last run
    python coco.py train --dataset=/path/to/coco --model=coco
    python coco.py train --dataset=/path/to/coco --model=imagenet
    python coco.py train --dataset=/path/to/coco --model=last

    # Download the images and annotations first (2017: 19 GB)
    python coco.py train --dataset=/path/to/coco --year=2017 --model=imagenet --download

    # COCO's average precision on the first 500 images of the validation set
    python coco.py evaluate --dataset=/path/to/coco --year=2017 --model=coco

    # A light network, from scratch, on a CPU
    python coco.py train --dataset=/path/to/coco --year=2017 --model=scratch --light --epochs=1 --steps=10

The dataset is a folder with annotations/instances_train2017.json, train2017/, ... as published. To train on
your own categories, change CATEGORIES, or use mrcnn.formats.CocoDataset. Weights are written to logs/ in the
current folder, or to --logs.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import mrcnn
from mrcnn import formats
from mrcnn.training import runs

if TYPE_CHECKING:
    from pycocotools.coco import COCO

COCO_WEIGHTS = Path("mask_rcnn_coco.h5")  # downloaded to the current folder if it is missing
DEFAULT_DATASET_YEAR = "2014"

IMAGES_URL = "https://s3.amazonaws.com/images.cocodataset.org/zips/{subset}{year}.zip"
ANNOTATIONS_URL = "https://s3.amazonaws.com/images.cocodataset.org/annotations/annotations_trainval{year}.zip"
# The validation set of 2014 in two parts: 5,000 images to validate with and 35,000 more to train on.
PART_URLS = {
    "minival": "https://dl.dropboxusercontent.com/s/o43o90bna78omob/instances_minival2014.json.zip?dl=1",
    "valminusminival": (
        "https://dl.dropboxusercontent.com/s/s3tw5zcg7395368/instances_valminusminival2014.json.zip?dl=1"
    ),
}

# COCO publishes no hashes; these are the ones that many programs check. There is none for the two parts.
SHA256 = {
    "train2014.zip": "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
    "val2014.zip": "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
    "train2017.zip": "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
    "val2017.zip": "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
    "annotations_trainval2014.zip": "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
    "annotations_trainval2017.zip": "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
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


class CocoConfig(mrcnn.Config):
    """ResNet-101 for COCO's 80 categories. A GPU with 12 GB of memory holds two images."""

    NAME = "coco"
    IMAGES_PER_GPU = 2
    NUM_CLASSES = 1 + len(CATEGORIES)  # and background


class LightCocoConfig(mrcnn.LightConfig, CocoConfig):
    """A light network for images of half the size, trained from scratch on a CPU."""

    NAME = "coco-light"
    IMAGE_MIN_DIM = 384
    IMAGE_MAX_DIM = 512
    RPN_ANCHOR_SCALES = (16, 32, 64, 128, 256)
    TRAIN_ROIS_PER_IMAGE = 64
    IMAGES_PER_GPU = 4  # batch norm learns its statistics from them
    STEPS_PER_EPOCH = 500
    OPTIMIZER = "adam"  # learns faster from random weights
    LEARNING_RATE = 0.001


# --- Data ---


class CocoDataset(formats.CocoDataset):
    """COCO as published, with all its categories. `formats.CocoDataset` reads other files in this format."""

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
        """Add the images of a subset that have objects.

        Args:
            dataset_dir: Folder of the dataset.
            subset: "train" or "val"; of 2014 also "minival" or "valminusminival".
            year: "2014" or "2017".
            class_ids: COCO's category ids to load, in this order. None loads all 80, so that class ids fit
                the published weights even if the file has fewer categories.
            class_map: Ignored.
            return_coco: Whether to return the annotations as an object of pycocotools.
            auto_download: Whether to download missing files.

        Returns:
            The `COCO` object if `return_coco` is true.

        Raises:
            FileNotFoundError: If the annotation file is missing.
            ValueError: If none of the images exists.
        """
        if auto_download:
            self.auto_download(dataset_dir, subset, year)
        root = Path(dataset_dir)
        annotations = annotation_path(root, subset, year)
        images = root / f"{'val' if subset in PART_URLS else subset}{year}"
        for category_id, name in CATEGORIES.items() if class_ids is None else ():
            self.add_class("coco", category_id, name)
        self.load(annotations, images, classes=class_ids, keep_empty=False, source="coco")
        if not return_coco:
            return None
        from pycocotools.coco import COCO

        return COCO(str(annotations))

    def auto_download(self, dataDir: str | Path, dataType: str, dataYear: str) -> None:
        """Download and unpack the images and annotations of a subset, unless they exist.

        Args:
            dataDir: Folder of the dataset.
            dataType: Subset, as in `load_coco`.
            dataYear: "2014" or "2017".

        Raises:
            ConnectionError: If a download fails; see `mrcnn.checkpoints.downloads.fetch`.
            OSError: If a file is damaged or cannot be written.
        """
        root = Path(dataDir)
        subset = "val" if dataType in PART_URLS else dataType
        folder = f"{subset}{dataYear}"
        download_and_unpack(IMAGES_URL.format(subset=subset, year=dataYear), root, folder)
        annotations = annotation_path(root, dataType, dataYear)
        if dataType in PART_URLS:
            download_and_unpack(PART_URLS[dataType], root / "annotations", annotations.name)
        else:
            url = ANNOTATIONS_URL.format(year=dataYear)
            download_and_unpack(url, root, f"annotations/{annotations.name}")

    def image_reference(self, image_id: int) -> str:
        """Return the address of the image in COCO's explorer."""
        info = self.image_info[image_id]
        if info["source"] == "coco":
            return f"http://cocodataset.org/#explore?id={info['id']}"
        return super().image_reference(image_id)

    def annToRLE(self, ann: dict, height: int, width: int) -> dict:  # noqa: N802 (pycocotools' name)
        """Return the segmentation of an annotation as compressed RLE, for an image of this size."""
        from mrcnn.formats.coco import to_rle

        return to_rle(ann["segmentation"], height, width)

    def annToMask(self, ann: dict, height: int, width: int) -> np.ndarray:  # noqa: N802
        """Return the segmentation of an annotation as a mask, uint8 `[height, width]`, 1 inside."""
        from pycocotools import mask

        return mask.decode(self.annToRLE(ann, height, width))


def annotation_path(dataset_dir: Path, subset: str, year: str) -> Path:
    """Return the path of the annotation file of a subset."""
    return dataset_dir / "annotations" / f"instances_{subset}{year}.json"


def download_and_unpack(url: str, root: Path, target: str) -> None:
    """Download a zip file with a progress bar and unpack it in the folder `root`, unless it has `target`."""
    from mrcnn.checkpoints import downloads
    from mrcnn.files import archives

    if (root / target).exists():
        return
    name = Path(url.partition("?")[0]).name
    known_hash = f"sha256:{SHA256[name]}" if name in SHA256 else None
    archive = downloads.fetch(url, root / name, known_hash)
    unpacked = root / f".{archive.stem}.part"
    shutil.rmtree(unpacked, ignore_errors=True)  # of an interrupted call
    print(f"Unpacking {archive} ...")
    archives.extract(archive, unpacked / "content")
    for path in sorted((unpacked / "content").iterdir()):
        if path.is_dir() and (root / path.name).is_dir():  # annotations/ may hold other files
            for file in path.iterdir():
                file.replace(root / path.name / file.name)
        else:
            path.replace(root / path.name)
    shutil.rmtree(unpacked)
    archive.unlink()


def load_dataset(arguments: argparse.Namespace, *subsets: str) -> CocoDataset:
    """Load one or more subsets into a dataset, and prepare it for training."""
    dataset = CocoDataset()
    for subset in subsets:
        dataset.load_coco(arguments.dataset, subset, arguments.year, auto_download=arguments.download)
    dataset.prepare()
    return dataset


def subsets_of_year(year: str) -> tuple[tuple[str, ...], str]:
    """Return the subsets to train on and the subset to validate with."""
    return (("train", "valminusminival"), "minival") if "2014" in year else (("train",), "val")


# --- Evaluate ---


def build_coco_results(
    dataset: CocoDataset,
    image_ids: Sequence[Any],
    rois: np.ndarray | None,
    class_ids: np.ndarray,
    scores: np.ndarray,
    masks: np.ndarray,
) -> list[dict]:
    """Return the detections of an image in COCO's result format, one dict each.

    Args:
        dataset: The dataset of the image.
        image_ids: The image's id in COCO, in a list.
        rois: Boxes `[N, (y1, x1, y2, x2)]` in pixels; None if there are no detections.
        class_ids: `[N]`.
        scores: `[N]`.
        masks: `[height, width, N]`.
    """
    from mrcnn.evaluation.coco import detections_of

    if rois is None:
        return []
    result = {"rois": np.around(rois, 1), "class_ids": class_ids, "scores": scores, "masks": masks}
    return [
        {
            "image_id": image_id,
            **record,
            "category_id": dataset.get_source_class_id(record["category_id"], "coco"),
        }
        for image_id in image_ids
        for record in detections_of(result)
    ]


def evaluate_coco(
    model: mrcnn.MaskRCNN,
    dataset: CocoDataset,
    coco: COCO | None = None,
    eval_type: str = "bbox",
    limit: int = 0,
    image_ids: Sequence[int] | None = None,
) -> dict[str, list]:
    """Evaluate a model on the first images of a dataset, and print the result and the time.

    Args:
        model: A model in inference mode.
        dataset: The dataset.
        coco: Ignored, because the dataset holds the annotations.
        eval_type: "bbox" or "segm".
        limit: Number of images, or 0 for all.
        image_ids: Image ids to choose from, or None for all images of the dataset.

    Returns:
        The table of `MaskRCNN.evaluate`.
    """
    image_ids = dataset.image_ids if image_ids is None else image_ids
    image_ids = image_ids[: limit or None]
    begin = time.time()
    results = model.evaluate(dataset, image_ids, iou_types=("mask" if eval_type == "segm" else "box",))
    seconds = time.time() - begin
    print(
        f"Total time: {seconds:.1f} s for {len(image_ids)} images, {seconds / len(image_ids):.2f} s per image"
    )
    return results


# --- Train ---


def train(model: mrcnn.MaskRCNN, arguments: argparse.Namespace) -> None:
    """Train in the stages that `stages` returns. With --light or from scratch, images vary more."""
    from mrcnn.data.augmentation import mirror_half

    train_subsets, val_subset = subsets_of_year(arguments.year)
    train_set, val_set = load_dataset(arguments, *train_subsets), load_dataset(arguments, val_subset)
    steps = model.config.STEPS_PER_EPOCH or -(-len(train_set.image_ids) // model.config.BATCH_SIZE)
    augmentation = mirror_half
    if is_from_scratch(arguments):
        augmentation = mrcnn.camera_policy(any_orientation=False)
    for stage in stages(model, arguments, steps):
        model.train(train_set, val_set, **stage._asdict(), augmentation=augmentation)


def is_from_scratch(arguments: argparse.Namespace) -> bool:
    """Return whether the network trains as from random weights. Light networks always do."""
    return arguments.light or arguments.model == "scratch"


def stages(model: mrcnn.MaskRCNN, arguments: argparse.Namespace, steps: int) -> list[mrcnn.schedules.Stage]:
    """Return the stages of the training that are left.

    The heads train first, then stage 4 and up, then all layers. With --light or from scratch, all layers
    train at once, and a run continues where it stopped, if --epochs and --steps are the same. Without
    --light, "last" does not tell how its run began: it trains in the three stages, even after "scratch".

    Args:
        model: The model. Its run may have completed some epochs.
        arguments: The arguments of the command line.
        steps: Number of steps of each epoch.
    """
    rate, unit = model.config.LEARNING_RATE, arguments.epochs or 40
    if not is_from_scratch(arguments):
        parts = [(rate, unit, "heads"), (rate, 3 * unit, "4+"), (rate / 10, 4 * unit, "all")]
        return [mrcnn.schedules.Stage(*part) for part in parts]
    rate = mrcnn.schedules.warm_up_and_decay(rate, unit * steps)
    whole = [mrcnn.schedules.Stage(rate, unit, "all")]
    # If nothing is left, `model.train` warns.
    return mrcnn.schedules.remaining(whole, model.epoch, steps) or whole


def load_weights(model: mrcnn.MaskRCNN, choice: str) -> None:
    """Load "coco", "imagenet", "last" or a path into a model. "scratch" keeps random weights."""
    if choice == "coco" and not COCO_WEIGHTS.exists():
        mrcnn.utils.download_trained_weights(COCO_WEIGHTS)
    if choice == "imagenet":
        model.load_weights(model.get_imagenet_weights(), by_name=True)
    elif choice != "scratch":
        paths = {"coco": COCO_WEIGHTS}
        model.load_weights(model.find_last() if choice == "last" else paths.get(choice, choice), by_name=True)


# --- Command line ---


def config_for(arguments: argparse.Namespace) -> mrcnn.Config:
    """Return the settings of a command."""
    config = LightCocoConfig() if arguments.light else CocoConfig()
    config.STEPS_PER_EPOCH = arguments.steps or config.STEPS_PER_EPOCH
    if arguments.command == "evaluate":
        config.GPU_COUNT = 1
        config.IMAGES_PER_GPU = 1
        config.DETECTION_MIN_CONFIDENCE = 0
    return config


def is_yes(text: str) -> bool:
    """Return whether the value of an option means yes: anything but an empty text, 0, no and false."""
    return text.lower() not in ("", "0", "no", "false")


def parse_arguments() -> argparse.Namespace:
    """Read the command line. An invalid value ends the program with one sentence."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        usage="%(prog)s {train,evaluate} --dataset=DIR --model=M [options]",
    )
    parser.add_argument("command", choices=["train", "evaluate"])
    parser.add_argument("--dataset", type=Path, required=True, help="folder of COCO")
    parser.add_argument("--year", default=DEFAULT_DATASET_YEAR, help="2014 or 2017 (2014)")
    parser.add_argument(
        "--model",
        required=True,
        help="weights: coco or imagenet (both without --light), last, scratch, or a path; "
        "without --light, last trains in three stages, even after scratch",
    )
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="folder of training runs (logs)")
    parser.add_argument("--limit", type=int, default=500, help="evaluate: number of images, 0 for all (500)")
    parser.add_argument(
        "--download", type=is_yes, nargs="?", const=True, default=False, help="download missing files first"
    )
    parser.add_argument("--light", action="store_true", help="use MobileNetV2, for a machine without a GPU")
    parser.add_argument(
        "--epochs",
        type=int,
        help="train: epochs of the first of three stages, or with --light or from scratch of all (40)",
    )
    parser.add_argument("--steps", type=int, help="train: steps per epoch")
    parser.add_argument("--verbose", action="store_true", help="print all settings")
    arguments = parser.parse_args()
    if arguments.model.lower() in ("coco", "imagenet", "last", "scratch"):
        arguments.model = arguments.model.lower()
    error = argument_error(arguments)
    if error:
        parser.exit(2, f"{error}\n")
    return arguments


def argument_error(arguments: argparse.Namespace) -> str | None:
    """Return a sentence about what is wrong with the arguments, if anything, without heavy imports."""
    if not arguments.download:
        train_subsets, val_subset = subsets_of_year(arguments.year)
        subsets = (*train_subsets, val_subset) if arguments.command == "train" else (val_subset,)
        for subset in subsets:
            path = annotation_path(arguments.dataset, subset, arguments.year)
            if not path.is_file():
                return f"--dataset: there is no file {path}. Add --download to download it."
    for name, least in (("limit", 0), ("epochs", 1), ("steps", 1)):
        count = getattr(arguments, name)
        if count is not None and count < least:
            return f"--{name} must be at least {least}. Received: {count}"
    if arguments.light and arguments.model in ("coco", "imagenet"):
        network = {"coco": "ResNet-101", "imagenet": "ResNet-50"}[arguments.model]
        return (
            f"--model={arguments.model} is a {network}, which --light does not build. "
            "Use --model=scratch, last or a path."
        )
    if arguments.model == "last":
        try:
            runs.find_last(arguments.logs, config_for(arguments).NAME)
        except FileNotFoundError as error:
            return f"--model=last: {error}"
    elif arguments.model not in ("coco", "imagenet", "scratch") and not Path(arguments.model).is_file():
        return f"--model: there is no file {arguments.model}."
    return None


def main() -> None:
    """Build the model, load the weights, run the command."""
    arguments = parse_arguments()
    config = config_for(arguments)
    if arguments.verbose:
        config.display()
    mode = "training" if arguments.command == "train" else "inference"
    model = mrcnn.MaskRCNN(mode, config, arguments.logs)
    load_weights(model, arguments.model)
    if arguments.command == "train":
        train(model, arguments)
    else:
        _, val_subset = subsets_of_year(arguments.year)
        evaluate_coco(model, load_dataset(arguments, val_subset), limit=arguments.limit)


if __name__ == "__main__":
    main()
