"""The command `mrcnn convert`: annotations to COCO JSON, weights to a file of this library."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mrcnn.cli.datasets import open_dataset, warn_left_out
from mrcnn.cli.models import load_keras_model
from mrcnn.cli.options import refuse


def convert(
    source: str,
    output: Path,
    images: Path | None,
    *,
    settings: Sequence[str],
    formats: Sequence[str] = (),
    copy_images: bool = False,
    overwrite: bool = False,
    choice: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], str]:
    """Convert a dataset or weights; see the command.

    Raises:
        FileExistsError: If a file would replace its source, or another file and `overwrite` is False.
        ValueError: If there is no format and the output ends in neither .json nor .h5, or an option would
            have no effect.
    """
    _refuse_unused(output, images, settings, formats, copy_images, choice or {})
    if formats:
        from mrcnn.formats import write_dataset

        dataset = open_dataset(Path(source), images, choice=choice)
        warn_left_out(dataset)
        counts = write_dataset(dataset, output, formats, copy_images=copy_images, overwrite=overwrite)
        value = {"path": str(output), "images": len(counts), "counts": counts}
        return value, f"Saved the annotations of {len(counts)} images to {output}."
    if output.suffix.lower() in (".json", ".h5"):
        _check_output(source, output, overwrite)
    if output.suffix.lower() == ".json":
        from mrcnn.formats import write_coco

        dataset = open_dataset(Path(source), images, choice=choice)
        warn_left_out(dataset)
        count = write_coco(dataset, output, images)
        return {"path": str(output), "images": count}, f"Saved the annotations of {count} images to {output}."
    if output.suffix.lower() == ".h5":
        model = load_keras_model(source, settings)
        model.save(output)
        return {"path": str(output)}, f"Saved the model to {output}."
    raise ValueError(
        "OUTPUT must end in .json, for annotations in the COCO format, or in .h5, for weights. For other "
        f"formats of annotations, pass --format. Received: {output}. For other programs, use mrcnn export."
    )


def _refuse_unused(
    output: Path,
    images: Path | None,
    settings: Sequence[str],
    formats: Sequence[str],
    copy_images: bool,
    choice: Mapping[str, Any],
) -> None:
    """Raise ValueError for options that do not apply to this kind of output."""
    kind = "" if formats else output.suffix.lower()
    if kind == ".h5":
        refuse(
            {"images": images, "copy-images": copy_images, **choice},
            "OUTPUT ends in .h5, which means weights. {given} can only be used with annotations. Leave out "
            "{given}.",
        )
    if formats or kind == ".json":
        refuse({"set": list(settings)}, "{given} can only be used with weights. Leave it out.")
    if kind == ".json":
        refuse(
            {"copy-images": copy_images},
            "{given} can only be used with --format, which writes a folder. Pass --format coco and a folder "
            "as OUTPUT, or leave out {given}.",
        )


def _check_output(source: str, output: Path, overwrite: bool) -> None:
    """Raise FileExistsError if a file would replace its source, or another file and `overwrite` is False."""
    if not output.exists():
        return
    if Path(source).exists() and output.samefile(source):
        raise FileExistsError(f"The result would replace its source {source}. Choose another OUTPUT.")
    if not overwrite:
        raise FileExistsError(
            f"The file {output} exists already. Choose another OUTPUT, or pass --overwrite to replace it."
        )
