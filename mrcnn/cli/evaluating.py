"""The command `mrcnn evaluate`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mrcnn.cli.datasets import check_paths, open_dataset, warn_left_out
from mrcnn.cli.models import load_model, warn_of_min_score
from mrcnn.errors import InvalidDataError
from mrcnn.geometry.preprocessing import check_choice
from mrcnn.results.names import names_of


def evaluate_model(
    data: Path,
    model: str,
    images: Path | None,
    *,
    limit: int | None,
    min_score: float | None,
    settings: Sequence[str],
    quiet: bool,
    choice: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], str]:
    """Measure a model on a dataset; see the command."""
    from mrcnn.evaluation.class_names import joined_numbers
    from mrcnn.evaluation.evaluate import evaluate

    check_paths(data, images)
    loaded = load_model(model, settings)
    warn_of_min_score(loaded, min_score)
    check_choice((choice or {}).get("channels"), loaded.config)
    names = names_of(loaded)
    dataset = open_dataset(data, images, list(names.values()), choice, part="val")
    warn_left_out(dataset)
    classes = [info["name"] for info in dataset.class_info[1:]]
    if len(classes) != len(names) and not joined_numbers(["", *names.values()], ["", *classes]):
        raise InvalidDataError(
            "The dataset and the model must have classes in common. Received: the dataset has "
            f"{', '.join(classes)}; the model has {', '.join(names.values())}.",
            file=data,
        )
    table = evaluate(
        lambda batch: loaded.detect(batch),
        dataset,
        dataset.image_ids[:limit],
        max_detections=(1, 10, max(100, int(loaded.config.DETECTION_MAX_INSTANCES))),
        min_score=min_score,
        verbose=0 if quiet else 1,
        max_instances=int(loaded.config.DETECTION_MAX_INSTANCES),
    )
    return {name: [_plain(value) for value in column] for name, column in table.items()}, ""


def _plain(value: Any) -> Any:
    """Return a number of a table as JSON has it: null if it is not defined."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and value != value else value
