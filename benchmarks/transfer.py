"""How much do ImageNet weights help with a few dozen photographs?

    python -m benchmarks.transfer --data pennfudan --dataset pennfudan.zip --split split.json --row imagenet
    python -m benchmarks.transfer --data balloon --dataset balloon --row scratch --seed 1
    python -m benchmarks.transfer --table

The rows are the recipes of the samples `pennfudan.py` and `balloon.py`. "scratch" has the image size, the
batches and the steps of "imagenet"; "longer" has twice the steps. A run trains on the whole training part,
and the test part measures it. With `--choose`, four fifths of the training part train the network and the
last fifth measures it: choose settings that way.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mrcnn
from benchmarks import learning, measure
from mrcnn import formats
from mrcnn.dataset import Dataset
from samples.balloon import balloon
from samples.pennfudan import pennfudan

EXPERIMENT = "transfer"
ROWS = ("scratch", "imagenet", "imagenet, copy-paste", "imagenet, copy-paste, longer")
SAMPLES: dict[str, Any] = {
    "pennfudan": (pennfudan.LightOwnConfig, pennfudan.PretrainedOwnConfig),
    "balloon": (balloon.LightBalloonConfig, balloon.PretrainedBalloonConfig),
}
EPOCHS, STEPS = 20, 100


def load_parts(arguments: argparse.Namespace) -> tuple[Dataset, Dataset]:
    """Return the images to train on and the images that measure the result."""
    if arguments.data == "balloon":
        train_set, test_set = (balloon.load_dataset(arguments.dataset, part) for part in balloon.SUBSETS)
    else:
        train_set, test_set = pennfudan.load_datasets(arguments.dataset, "person", arguments.split)
    return formats.split(train_set) if arguments.choose else (train_set, test_set)


def run_of(arguments: argparse.Namespace) -> learning.Run:
    """Return the training of a row."""
    scratch, pretrained = SAMPLES[arguments.data]
    weights = arguments.row.split(", ")[0]
    config = pretrained() if weights == "imagenet" else scratch()
    for name in ("IMAGE_MIN_DIM", "IMAGE_MAX_DIM", "IMAGES_PER_GPU"):
        setattr(config, name, getattr(pretrained, name))
    for name, value in arguments.set:
        setattr(config, name, value)
    config.STEPS_PER_EPOCH = arguments.steps or STEPS
    augmentation: list[Any] = [mrcnn.camera_policy(any_orientation=False)]
    if "copy-paste" in arguments.row:
        augmentation = [mrcnn.scale_jitter(0.5, 1.5), mrcnn.CopyPaste(), *augmentation]
    epochs = (arguments.epochs or EPOCHS) * (2 if arguments.row.endswith("longer") else 1)
    stages = pennfudan.stages(config, weights, epochs)
    return learning.Run(arguments.row, arguments.seed, config, stages, weights, augmentation)


def main(argv: Sequence[str] | None = None) -> Path:
    """Train and measure one row, or print the table. Returns the path of the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    learning.add_arguments(parser, ROWS)
    parser.add_argument("--data", choices=SAMPLES, default="pennfudan", help="the photographs (%(default)s)")
    parser.add_argument("--split", type=Path, help="pennfudan: JSON file of the parts")
    parser.add_argument("--choose", action="store_true", help="measure on a fifth of the training part")
    arguments = parser.parse_args(argv)
    results = learning.Results(arguments.output or measure.RESULTS / f"{EXPERIMENT}.json", EXPERIMENT)
    part = "a fifth of the training part" if arguments.choose else "the test part"
    key = {"row": arguments.row, "group": arguments.data, "on": part, "seed": arguments.seed}
    if not arguments.table and results.find(**key) is None:
        run = run_of(arguments)
        train_set, test_set = load_parts(arguments)
        folder = learning.run_folder(arguments, arguments.data, "choose" if arguments.choose else "test")
        model = learning.train(run, train_set, None, folder)
        measured = learning.evaluate(model, learning.detection_config(run.config), test_set)["all"]
        results.add({**key, **learning.summary_of(run, folder), **measured})
    print(results.table())
    return results.path


if __name__ == "__main__":
    main()
