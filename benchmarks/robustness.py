"""Do other cameras, light and compression harm a network for nuclei, and does the camera policy help?

    python -m benchmarks.robustness --dataset nuclei --row "whole recipe" --seed 0
    python -m benchmarks.robustness --dataset nuclei --row "whole recipe, turns only" --seed 0
    python -m benchmarks.robustness --dataset nuclei --row shipped
    python -m benchmarks.robustness --table

The rows are those of `benchmarks.nucleus_recipe`; with the same --work, a trained row is not trained again.
"shipped" measures the weights of the repository. Each shift of `mrcnn.evaluation.robustness` then changes the
images of `val.zip`, or, with `--held-back`, those of `train.zip` that the rows hold back: choose with these.
"AP50 kept" is the share of AP50 that is left.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mrcnn
from benchmarks import learning, measure, nucleus_recipe
from mrcnn.evaluation.robustness import evaluate_under_shifts
from samples.nucleus import nucleus

EXPERIMENT = "robustness"
SHIPPED = "shipped"


def shift_rows(
    model: mrcnn.MaskRCNN, config: mrcnn.Config, dataset: nucleus.NucleusDataset
) -> list[dict[str, Any]]:
    """Return a row for each shift, with the share of AP50 that is left."""
    table = evaluate_under_shifts(
        model.inference_model(config).detect,
        dataset,
        measures=("mask_AP", "mask_AP50"),
        max_detections=(1, 10, config.DETECTION_MAX_INSTANCES),
        verbose=0,
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
    learning.add_arguments(parser, [SHIPPED, *nucleus_recipe.ROWS])
    parser.add_argument("--held-back", action="store_true", help="measure on the held-back images")
    arguments = parser.parse_args(argv)
    results = learning.Results(arguments.output or measure.RESULTS / f"{EXPERIMENT}.json", EXPERIMENT)
    key = {
        "row": arguments.row,
        "detection": "plain",
        "seed": arguments.seed,
        "on": "held back" if arguments.held_back else "val.zip",
    }
    if not arguments.table and results.find(**key) is None:
        measure_row(arguments, results, key)
    print(results.table(("row", "detection", "on", "group")))
    return results.path


def measure_row(arguments: argparse.Namespace, results: learning.Results, key: dict[str, Any]) -> None:
    """Train a row, or load the shipped weights, and add its measures to the results."""
    facts: dict[str, Any] = {}
    if arguments.row == SHIPPED:
        model = mrcnn.load(nucleus.SHIPPED_WEIGHTS)
        config = model.config
    else:
        run, model, _, folder = nucleus_recipe.trained_row(arguments)
        config = nucleus_recipe.detection_config(run, {})
        facts = nucleus_recipe.facts_of(run, folder)
    dataset = nucleus.load_dataset(arguments.dataset, "train" if arguments.held_back else "val")
    if arguments.held_back:
        _, dataset = nucleus_recipe.divide(dataset, arguments.dataset)
    for values in shift_rows(model, config, dataset):
        results.add({**key, **facts, **values})


if __name__ == "__main__":
    main()
