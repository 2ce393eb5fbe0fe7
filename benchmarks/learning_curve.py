"""How many images of nuclei are enough, from random weights and from ImageNet weights?

    python -m benchmarks.learning_curve --dataset nuclei --row "scratch, 20 images" --seed 0
    python -m benchmarks.learning_curve --table
    python -m benchmarks.learning_curve --figure curve.png

A run trains at a constant rate and keeps a running mean of its weights. It ends when the mean's AP on the
held-back images has not risen for PATIENCE evaluations, one after every STEPS steps, and after MOST_EPOCHS
evaluations at the latest. Thus each number of images gets the steps that it needs. The held-back images are
those of `benchmarks.nucleus_recipe`; `val.zip` measures the best weights of the run. The images of a smaller
number are among those of a larger one.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mrcnn
from benchmarks import learning, measure, nucleus_recipe
from mrcnn import formats
from samples.nucleus import nucleus

EXPERIMENT = "learning_curve"
COUNTS = (10, 20, 50, 100, 200, None)
ROWS = {
    f"{weights}, {count or 'all'} images": (weights, count)
    for weights in ("scratch", "imagenet")
    for count in COUNTS
}
PATIENCE, STEPS, MOST_EPOCHS = 2, 300, 14


def choose(dataset: nucleus.NucleusDataset, count: int | None) -> nucleus.NucleusDataset:
    """Return a number of images of a dataset, or all with None. The order of the draw is fixed."""
    if count is None:
        return dataset
    order = np.random.default_rng(0).permutation(len(dataset.image_info))
    return formats.subset(dataset, sorted(int(number) for number in order[:count]))


def run_of(
    name: str, seed: int, epochs: int, steps: int, settings: Sequence[tuple[str, Any]]
) -> learning.Run:
    """Return the training of a row."""
    weights, _ = ROWS[name]
    config = nucleus.PretrainedNucleusConfig()
    config.EMA_MOMENTUM = 0.998
    config.STEPS_PER_EPOCH = steps
    for key, value in settings:
        setattr(config, key, value)
    # After the warm-up, the rate is constant: its end is its peak.
    schedule = mrcnn.schedules.warm_up_and_decay(config.LEARNING_RATE, 10 * steps, end=1.0)
    stages = [mrcnn.schedules.Stage(schedule, epochs, "all")]
    augmentation = nucleus.AUGMENTATIONS["microscopes"]()
    return learning.Run(name, seed, config, stages, weights, augmentation, patience=PATIENCE)


def draw(results: learning.Results, path: Path) -> None:
    """Draw the mask AP on val.zip against the number of images, one line for each kind of initial weights."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    every_count: set[int] = set()
    for weights, label in (("scratch", "random weights"), ("imagenet", "ImageNet weights")):
        points: dict[int, list[float]] = {}
        for row in results.content["rows"]:
            if row["row"].startswith(weights) and row["group"] == "all":
                points.setdefault(row["images"], []).append(row["mask_AP"])
        counts = sorted(points)
        axes.plot(counts, [np.mean(points[count]) for count in counts], marker="o", label=label)
        every_count |= set(counts)
        for count in counts:
            axes.plot([count] * 2, [min(points[count]), max(points[count])], color="gray")
    axes.set(xscale="log", xlabel="training images", ylabel="mask AP on val.zip")
    axes.set_xticks(sorted(every_count), [str(count) for count in sorted(every_count)])
    axes.minorticks_off()
    axes.legend()
    figure.savefig(path, bbox_inches="tight")
    pyplot.close(figure)


def main(argv: Sequence[str] | None = None) -> Path:
    """Train and measure one row, print the table or draw the figure. Returns the path of the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    learning.add_arguments(parser, list(ROWS))
    parser.add_argument("--figure", type=Path, help="only draw the figure of the finished rows to this file")
    arguments = parser.parse_args(argv)
    results = learning.Results(arguments.output or measure.RESULTS / f"{EXPERIMENT}.json", EXPERIMENT)
    key = {"row": arguments.row, "seed": arguments.seed}
    if arguments.figure:
        draw(results, arguments.figure)
    elif not arguments.table and results.find(**key) is None:
        measure_row(arguments, results, key)
    print(results.table())
    return results.path


def measure_row(arguments: argparse.Namespace, results: learning.Results, key: dict[str, Any]) -> None:
    """Train a row and add its measures to the results."""
    steps, epochs = arguments.steps or STEPS, arguments.epochs or MOST_EPOCHS
    run = run_of(arguments.row, arguments.seed, epochs, steps, arguments.set)
    whole = nucleus.load_dataset(arguments.dataset, "train")
    train_set, held_back = nucleus_recipe.divide(whole, arguments.dataset)
    train_set = choose(train_set, ROWS[arguments.row][1])
    count = len(train_set.image_info)
    train_set = formats.repeat_rare(train_set, nucleus.modalities(train_set, arguments.dataset))
    folder = learning.run_folder(arguments, EXPERIMENT)
    model = learning.train(run, train_set, held_back, folder)
    config = nucleus.PretrainedNucleusInferenceConfig()
    val_set = nucleus.load_dataset(arguments.dataset, "val")
    facts = {**learning.summary_of(run, folder), "images": count, "on": "val.zip"}
    for values in nucleus_recipe.measured_rows(model, config, val_set, arguments.dataset, 0.5):
        results.add({**key, **facts, **values})


if __name__ == "__main__":
    main()
