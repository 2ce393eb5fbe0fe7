"""The command `mrcnn inspect`."""

import base64
import contextlib
import html
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mrcnn.cli.models import load_keras_model
from mrcnn.files import atomic_write
from mrcnn.files.images import read_image
from mrcnn.geometry.preprocessing import check_choice
from mrcnn.results.names import names_of

# Name, title and sentence of each figure, in the order of the paper.
STEPS = (
    ("1-anchors", "1. Anchors", "The RPN scores anchors, boxes at fixed locations. These score best."),
    (
        "2-proposals",
        "2. Proposals",
        "The RPN refines the best anchors. Of those that overlap, NMS keeps the one with the best score.",
    ),
    ("3-levels", "3. Pyramid levels", "The size of a proposal determines the level that it is pooled from."),
    ("4-roi-align", "4. ROIAlign", "ROIAlign samples the level at regular points of each proposal."),
    ("5-boxes", "5. Boxes", "The box head predicts a class, a score and a better box for each proposal."),
    ("6-masks", "6. Masks", "The mask head predicts a small mask for each box, which is resized to the box."),
    ("7-result", "7. Result", "All steps together: the result of detection."),
)
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body {{ font-family: sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }}
img {{ max-width: 100%; }}</style></head>
<body><h1>{title}</h1>
{sections}
</body></html>
"""


def inspect_image(
    model: str,
    image: Path,
    output: Path,
    *,
    settings: Sequence[str],
    choice: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], str]:
    """Draw the steps of a model for one image; see the command.

    Args:
        model: A weight file, or a published name.
        image: The image file.
        output: The folder to write to.
        settings: Settings that differ from those of the file, such as "DETECTION_MIN_CONFIDENCE=0.5".
        choice: The `page` and `channels` of the image; see `read_image`.

    Returns:
        The paths of the page and of the figures, and a sentence that names the page.

    Raises:
        DataError: If the image or the weights cannot be read.
    """
    pixels = read_image(image, **(choice or {}))
    loaded = load_keras_model(model, settings)
    check_choice((choice or {}).get("channels"), loaded.config)
    output.mkdir(parents=True, exist_ok=True)
    sections, figures = [], []
    with contextlib.redirect_stdout(io.StringIO()):  # `run_graph` prints the shape of each array
        drawings = _drawings(loaded, pixels)
    for (name, title, sentence), draw in zip(STEPS, drawings, strict=True):
        path = output / f"{name}.png"
        with atomic_write(path) as unfinished, contextlib.redirect_stdout(io.StringIO()):
            draw().savefig(unfinished, dpi=80, bbox_inches="tight", format="png")
        figures.append(str(path))
        data = base64.b64encode(path.read_bytes()).decode()
        sections.append(
            f'<h2>{title}</h2>\n<p>{sentence}</p>\n<img alt="{title}" src="data:image/png;base64,{data}">'
        )
    page = output / "index.html"
    title = html.escape(f"{image.name}, inspected with {Path(model).name}")
    with atomic_write(page) as unfinished:
        unfinished.write_text(PAGE.format(title=title, sections="\n".join(sections)), encoding="utf-8")
    return {"page": str(page), "pictures": figures}, f"Saved {page}. Open it in a browser."


def _drawings(model: Any, image: Any) -> list[Callable[[], Any]]:
    """Return the functions that draw the steps. Each returns a figure."""
    import matplotlib

    matplotlib.use("Agg")
    from mrcnn import inspection

    names = ["background", *names_of(model).values()]
    anchors = inspection.sort_anchors(model, image)
    return [
        lambda: inspection.draw_top_anchors(anchors, limit=60),
        lambda: inspection.draw_proposals(anchors, limit=40),
        lambda: inspection.draw_levels(
            inspection.assign_levels(anchors.input.image, anchors.proposals, model.config)
        ),
        lambda: inspection.draw_pooled_rois(inspection.pool_rois(model, image), limit=2),
        lambda: inspection.draw_box_filters(inspection.refine_boxes(model, image), names),
        lambda: inspection.draw_masks(inspection.generate_masks(model, image), names, limit=3),
        lambda: inspection.draw_result(inspection.compose_result(model, image), names),
    ]
