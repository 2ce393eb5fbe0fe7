"""Do other cameras, light and compression harm a network for nuclei, and does the camera policy help?

    python -m benchmarks.robustness --dataset nuclei --row camera --seed 0
    python -m benchmarks.robustness --dataset nuclei --row shipped
    python -m benchmarks.robustness --table

The rows train the recipe "pretrained" of `nucleus.py` with the same steps: without augmentation, with flips
and turns only, with the camera policy, and with a stronger one. "shipped" measures the weights of the
repository. Each shift of `mrcnn.evaluation.robustness` then changes the images of `val.zip`. "AP50 kept" is
the share of AP50 that is left.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mrcnn
from benchmarks import learning, measure, nucleus_recipe
from mrcnn import formats
from mrcnn.evaluation.robustness import evaluate_under_shifts
from samples.nucleus import nucleus

EXPERIMENT = "robustness"
SHIPPED = "shipped"
ROWS: dict[str, Any] = {
    SHIPPED: None,
    "none": None,
    "turns": mrcnn.camera_policy(0.0),
    "camera": mrcnn.camera_policy(),
    "strong camera": mrcnn.camera_policy(2.0),
}
EPOCHS, STEPS = 45, 100


def run_of(
    name: str, seed: int, epochs: int, steps: int, settings: Sequence[tuple[str, Any]]
) -> learning.Run:
    """Return the training of a row."""
    run = nucleus_recipe.run_of("pretrained", seed, epochs, steps, settings)
    return learning.Run(name, seed, run.config, run.stages, run.weights, ROWS[name])


def shift_rows(
    model: mrcnn.MaskRCNN, config: mrcnn.Config, dataset: nucleus.NucleusDataset
) -> list[dict[str, Any]]:
    """Return a row for each shift, with the share of AP50 that is left."""
    table = evaluate_under_shifts(
        model.inference_model(config).detect, dataset, measures=("mask_AP", "mask_AP50"), verbose=0
    )
    rows = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    return [
        {"group": row["shift"], "mask_AP": row["mask_AP"], "mask_AP50": row["mask_AP50"], "kept": kept}
        for row in rows
        for kept in [row["mask_AP50"] / rows[0]["mask_AP50"] if rows[0]["mask_AP50"] else None]
    ]


def main(argv: Sequence[str] | None = None) -> Path:
    """Train and measure one row, or print the table. Returns the path of the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    learning.add_arguments(parser, list(ROWS))
    arguments = parser.parse_args(argv)
    results = learning.Results(arguments.output or measure.RESULTS / f"{EXPERIMENT}.json", EXPERIMENT)
    key = {"row": arguments.row, "seed": arguments.seed, "on": "val.zip"}
    if not arguments.table and results.find(**key) is None:
        measure_row(arguments, results, key)
    print(results.table())
    return results.path


def measure_row(arguments: argparse.Namespace, results: learning.Results, key: dict[str, Any]) -> None:
    """Train a row, or load the shipped weights, and add its measures to the results."""
    facts: dict[str, Any] = {}
    if arguments.row == SHIPPED:
        config: mrcnn.Config = nucleus.LightNucleusInferenceConfig()
        model = mrcnn.MaskRCNN("inference", config, arguments.work)
        model.load_weights(nucleus.SHIPPED_WEIGHTS, resume=False)
    else:
        steps, epochs = arguments.steps or STEPS, arguments.epochs or EPOCHS
        run = run_of(arguments.row, arguments.seed, epochs, steps, arguments.set)
        whole = nucleus.load_dataset(arguments.dataset, "train")
        train_set, _ = nucleus_recipe.divide(whole, arguments.dataset)
        train_set = formats.repeat_rare(train_set, nucleus.modalities(train_set, arguments.dataset))
        folder = learning.run_folder(arguments, EXPERIMENT)
        model = learning.train(run, train_set, None, folder)
        config = nucleus.PretrainedNucleusInferenceConfig()
        facts = learning.summary_of(run, folder)
    for values in shift_rows(model, config, nucleus.load_dataset(arguments.dataset, "val")):
        results.add({**key, **facts, **values})


if __name__ == "__main__":
    main()
