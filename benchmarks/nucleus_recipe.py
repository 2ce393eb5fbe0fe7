"""What does each part of the recipe for nuclei bring, without a GPU?

    python -m benchmarks.nucleus_recipe --dataset nuclei --row pretrained --seed 0
    python -m benchmarks.nucleus_recipe --dataset nuclei --row pretrained --seed 0 --detect flips
    python -m benchmarks.nucleus_recipe --dataset nuclei --row pretrained --seed 0 --final
    python -m benchmarks.nucleus_recipe --dataset nuclei --row pretrained --seed 0 --save nuclei.h5
    python -m benchmarks.nucleus_recipe --table

Each row changes one thing in the row "pretrained" (see ROWS). The row "noise afterwards" continues with the
weights of another row, which must be trained before with the same seed and the same `--work`. The rows of
ResNet-50 need a GPU; "ResNet-50" downloads its ImageNet weights, "scratch, ResNet-50" needs none. The rows of
a normalization and a batch of 2 or 8 see as many crops as the others, whose batch is 4. `train.zip` is
divided: of the images of each modality, sorted by id, every eighth one is held back. The held-back images
measure the rows and choose the score threshold of AP(tau). `--final` measures a trained row on `val.zip`,
with the threshold chosen before: do that once, for the recipe that the table has chosen. `--save` writes the
weights of a trained row with that threshold, kernels in 16 bits, for `mrcnn.load`. Needs `split.json`.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mrcnn
from benchmarks import learning, measure
from benchmarks.detection_variants import VARIANTS
from mrcnn import formats
from mrcnn.evaluation.evaluate import evaluate
from samples.nucleus import nucleus

EXPERIMENT = "nucleus_recipe"
EVERY = 8
EPOCHS, STEPS, BATCH = 10, 100, 4
# The settings of the default network that a light one changes, with ResNet-50: for a GPU.
RESNET50 = {
    "BACKBONE": "resnet50",
    **{
        name: getattr(mrcnn.Config, name)
        for name in (
            *("MEAN_PIXEL", "TOP_DOWN_PYRAMID_SIZE", "RPN_CHANNELS", "FPN_CLASSIF_FC_LAYERS_SIZE"),
            "MASK_HEAD_CHANNELS",
        )
    },
}


@dataclass(frozen=True)
class Row:
    """What a row changes.

    Args:
        recipe: Name in `nucleus.RECIPES`.
        weights: Initial weights, unless it continues another row.
        after: The row whose weights it continues with.
        augmentation: Name in `nucleus.AUGMENTATIONS`.
        settings: Fields of the Config.
        longer: Factor of the steps.
        batch: Images in a batch. The number of crops stays, so the number of steps changes.
        layers: Layers to train; with "3+", the heads train alone first.
        rate: Factor of the learning rate.
    """

    recipe: str = "pretrained"
    weights: str = "imagenet"
    after: str | None = None
    augmentation: str = "microscopes"
    settings: dict[str, Any] = field(default_factory=dict)
    longer: int = 1
    batch: int = BATCH
    layers: str = "all"
    rate: float = 1.0


ROWS = {
    "as shipped": Row(recipe="light", weights="scratch", settings={"FPN_NORM": False}),
    "scratch": Row(weights="scratch"),
    "scratch, MobileNetV2": Row(weights="scratch", settings={"BACKBONE": "mobilenetv2"}),
    "scratch, no norm in the pyramid": Row(weights="scratch", settings={"FPN_NORM": False}),
    "pretrained": Row(),
    "frozen statistics": Row(settings={"TRAIN_BN": "heads"}, layers="3+"),
    "mean weights": Row(settings={"EMA_MOMENTUM": 0.998}),
    "copy-paste": Row(augmentation="pasted"),
    "scale jitter": Row(augmentation="sizes"),
    "stains": Row(augmentation="stains"),
    "larger masks": Row(settings={"MASK_POOL_SIZE": 20, "MASK_SHAPE": (40, 40)}),
    "longer": Row(longer=3),
    "all": Row(augmentation="all", longer=3),
    "whole recipe": Row(augmentation="dim", longer=6),
    "whole recipe, turns only": Row(augmentation="turns", longer=6),
    "noise afterwards": Row(after="whole recipe, turns only", augmentation="noise", longer=2, rate=0.5),
    "ResNet-50": Row(augmentation="turns", longer=6, settings=RESNET50),
    "scratch, ResNet-50": Row(weights="scratch", augmentation="turns", longer=6, settings=RESNET50),
    **{
        f"{name}, batch {batch}": replace(row, batch=batch)
        for name, row in {
            "scratch, batch norm": Row(weights="scratch"),
            "scratch, group norm": Row(weights="scratch", settings={"NORM": "group"}),
            "pretrained, learned statistics": Row(),
            "pretrained, frozen statistics": Row(settings={"TRAIN_BN": "heads"}, layers="3+"),
        }.items()
        for batch in (2, 8)
    },
}
# Changes of detection alone, for the weights of a trained row.
DETECTION: dict[str, dict[str, Any]] = {
    "plain": {},
    "flips": {"TEST_TIME_FLIPS": "all"},
    "mask NMS": {"DETECTION_NMS_THRESHOLD": 0.5, "MASK_NMS_THRESHOLD": 0.3},
    "NMS 0.4": {"DETECTION_NMS_THRESHOLD": 0.4},
    "NMS 0.5": {"DETECTION_NMS_THRESHOLD": 0.5},
    "soft-NMS": {"SOFT_NMS_SIGMA": 0.5},
    "best class": {"DETECTIONS_PER_CLASS": False},
    "larger images": {"IMAGE_MIN_SCALE": 3.0},
    **{name: {} for name in VARIANTS},
}


def divide(
    dataset: nucleus.NucleusDataset, dataset_dir: Path
) -> tuple[nucleus.NucleusDataset, nucleus.NucleusDataset]:
    """Return the images of `train.zip` that train and those that are held back.

    Raises:
        ValueError: If the folder has no split.json.
    """
    if not nucleus.modalities(dataset, dataset_dir):
        raise ValueError(f"--dataset must have a split.json with modalities. Received: {dataset_dir}")
    by_modality: dict[str, list[int]] = {}
    for image_id in sorted(dataset.image_ids, key=lambda number: dataset.image_info[number]["id"]):
        by_modality.setdefault(dataset.image_info[image_id]["modality"], []).append(int(image_id))
    held_back = {image_id for ids in by_modality.values() for image_id in ids[::EVERY]}
    rest = [int(image_id) for image_id in dataset.image_ids if image_id not in held_back]
    return formats.subset(dataset, rest), formats.subset(dataset, sorted(held_back))


def run_of(
    name: str, seed: int, epochs: int, steps: int, settings: Sequence[tuple[str, Any]]
) -> learning.Run:
    """Return the training of a row."""
    row = ROWS[name]
    config = nucleus.RECIPES[row.recipe][0]()
    for key, value in [*row.settings.items(), ("IMAGES_PER_GPU", row.batch), *settings]:
        setattr(config, key, value)
    steps = max(1, steps * BATCH // row.batch)
    config.STEPS_PER_EPOCH = steps
    epochs *= row.longer
    rate = config.LEARNING_RATE * row.rate
    if row.layers == "3+":
        stages = mrcnn.schedules.transfer_stages(rate, epochs, steps)
    else:
        schedule = mrcnn.schedules.warm_up_and_decay(rate, epochs * steps)
        stages = [mrcnn.schedules.Stage(schedule, epochs, row.layers)]
    return learning.Run(name, seed, config, stages, row.weights, nucleus.AUGMENTATIONS[row.augmentation]())


def detection_config(run: learning.Run, settings: dict[str, Any]) -> mrcnn.Config:
    """Return the settings of detection: those of the recipe, with what the row and `settings` change."""
    config = nucleus.RECIPES[ROWS[run.name].recipe][1]()
    for key, value in [*ROWS[run.name].settings.items(), *settings.items()]:
        setattr(config, key, value)
    config.DETECTION_MIN_CONFIDENCE = 0.05
    return config


def measured_rows(
    model: mrcnn.MaskRCNN,
    config: mrcnn.Config,
    dataset: nucleus.NucleusDataset,
    dataset_dir: Path,
    min_score: float | None,
) -> list[dict[str, Any]]:
    """Return a row for all images and one for each modality. None chooses the best score threshold."""
    groups = nucleus.modalities(dataset, dataset_dir)
    if min_score is None:
        table = evaluate(model.inference_model(config).detect, dataset, min_score=0.5, verbose=0)
        min_score = round(float(table.score_curves.best_score()), 2)
    results = learning.evaluate(model, config, dataset, groups, min_score)
    return [{"group": group, "min_score": min_score, **values} for group, values in results.items()]


def main(argv: Sequence[str] | None = None) -> Path:
    """Train and measure one row, or print the table. Returns the path of the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    learning.add_arguments(parser, list(ROWS))
    parser.add_argument("--detect", choices=DETECTION, default="plain", help="change of detection (plain)")
    parser.add_argument("--final", action="store_true", help="measure on val.zip")
    parser.add_argument("--save", type=Path, help="only write the weights of the trained row to this file")
    arguments = parser.parse_args(argv)
    results = learning.Results(arguments.output or measure.RESULTS / f"{EXPERIMENT}.json", EXPERIMENT)
    key = {"row": arguments.row, "detection": arguments.detect, "seed": arguments.seed}
    on = "val.zip" if arguments.final else "held back"
    if arguments.save:
        save_row(arguments, chosen_score(results, key), results.find(**key, on="val.zip") or {})
    elif not arguments.table and results.find(**key, on=on) is None:
        measure_row(arguments, results, key, on)
    print(results.table(("row", "detection", "on", "group")))
    return results.path


def trained_row(
    arguments: argparse.Namespace,
) -> tuple[learning.Run, mrcnn.MaskRCNN, nucleus.NucleusDataset, Path]:
    """Train a row, unless it is trained. Returns its run, model, held-back images and folder."""
    run = run_of(
        arguments.row, arguments.seed, arguments.epochs or EPOCHS, arguments.steps or STEPS, arguments.set
    )
    before = ROWS[arguments.row].after
    if before is not None:
        run = replace(run, weights=str(weights_of_row(arguments, before)))
    whole = nucleus.load_dataset(arguments.dataset, "train")
    train_set, held_back = divide(whole, arguments.dataset)
    train_set = formats.repeat_rare(train_set, nucleus.modalities(train_set, arguments.dataset))
    folder = learning.run_folder(arguments, EXPERIMENT)
    return run, learning.train(run, train_set, None, folder), held_back, folder


def weights_of_row(arguments: argparse.Namespace, row: str) -> Path:
    """Return the weight file of another row with the same seed, or end the program if it is not trained."""
    other = argparse.Namespace(**{**vars(arguments), "row": row})
    path = learning.run_folder(other, EXPERIMENT) / learning.WEIGHTS
    if not path.is_file():
        raise SystemExit(f'Train the row "{row}" with this seed first: there is no file {path}.')
    return path


def facts_of(run: learning.Run, folder: Path) -> dict[str, Any]:
    """Return how a row trained, with the name of the row that it continues instead of a path."""
    row = ROWS[run.name]
    return {**learning.summary_of(run, folder), "weights": row.after or row.weights}


def chosen_score(results: learning.Results, key: dict[str, Any]) -> float:
    """Return the score threshold that the held-back images chose, or end the program if they have not yet."""
    chosen = results.find(**key, on="held back")
    if chosen is None:
        raise SystemExit("Measure this row on the held-back images first: leave out --final and --save.")
    return float(chosen["min_score"])


def save_row(arguments: argparse.Namespace, min_score: float, measured: dict[str, Any]) -> None:
    """Write the weights of a trained row, a score threshold and its measures on val.zip to one file."""
    run, model, _, folder = trained_row(arguments)
    config = detection_config(run, DETECTION[arguments.detect])
    config.DETECTION_MIN_CONFIDENCE = min_score
    detector = mrcnn.MaskRCNN("inference", config, folder / "logs")
    detector.copy_weights(model)
    detector.class_names = ["BG", "nucleus"]
    names = ("mask_AP", "mask_AP50", "mask_AP75")
    detector.metrics = {f"val_{name}": round(measured[name], 3) for name in names if name in measured}
    detector.save(arguments.save, kernel_dtype="float16")


def measure_row(
    arguments: argparse.Namespace, results: learning.Results, key: dict[str, Any], on: str
) -> None:
    """Add the measures of a trained row to the results."""
    run, model, held_back, folder = trained_row(arguments)
    config = detection_config(run, DETECTION[arguments.detect])
    if arguments.detect in VARIANTS:
        variant = VARIANTS[arguments.detect]("inference", detection_config(run, {}), folder / "logs")
        variant.copy_weights(model)
        model = variant
    min_score = None
    if arguments.final:
        min_score = chosen_score(results, key)
        held_back = nucleus.load_dataset(arguments.dataset, "val")
    for values in measured_rows(model, config, held_back, arguments.dataset, min_score):
        results.add({**key, "on": on, **facts_of(run, folder), **values})


if __name__ == "__main__":
    main()
