"""How long does it take to draw many instances, as one image and as one patch per instance?

    python -m benchmarks.visualize_instances --instances 500 --size 1024

From arrays to the rendered figure, without a display. For each instance, "patches" adds a rectangle, an
outline from `find_contours` and a text to the figure, and blends the mask over the whole image.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Polygon, Rectangle
from skimage.measure import find_contours

from benchmarks import measure, synthetic
from mrcnn import visualize

CLASS_NAMES = ["BG", "nucleus"]
COLUMNS = {
    "contestant": "contestant",
    "instances": "instances",
    "size": "side",
    "median": "median s",
    "lower_quartile": "quartiles s",
    "upper_quartile": "",
    "times_faster": "times faster",
}


def discs(size: int, count: int) -> dict[str, np.ndarray]:
    """Return an image, and boxes, masks, class ids and scores of random discs of 3% of its side."""
    rng = np.random.default_rng(0)
    radius = max(2, round(0.015 * size))
    y, x = np.ogrid[: 2 * radius + 1, : 2 * radius + 1]
    disc = (y - radius) ** 2 + (x - radius) ** 2 <= radius**2
    corners = rng.integers(0, size - len(disc), (count, 2))
    masks = np.zeros((size, size, count), dtype=bool)
    for i, (top, left) in enumerate(corners):
        masks[top : top + len(disc), left : left + len(disc), i] = disc
    return {
        "image": synthetic.image(size, size, seed=0),
        "boxes": np.concatenate([corners, corners + len(disc)], axis=1),
        "masks": masks,
        "class_ids": np.ones(count, dtype=np.int32),
        "scores": rng.uniform(0.7, 1, count),
    }


def as_one_image(instances: dict[str, np.ndarray]) -> Any:
    """Return the figure of `display_instances`."""
    return visualize.display_instances(
        instances["image"],
        instances["boxes"],
        instances["masks"],
        instances["class_ids"],
        CLASS_NAMES,
        instances["scores"],
    )


def as_patches(instances: dict[str, np.ndarray]) -> Any:
    """Return the figure with a rectangle, an outline and a text for each instance."""
    figure, ax = plt.subplots(1, figsize=(16, 16))
    ax.axis("off")
    blended = instances["image"].astype(np.float32)
    colors = visualize.random_colors(len(instances["boxes"]))
    for i, (y1, x1, y2, x2) in enumerate(instances["boxes"]):
        mask, color = instances["masks"][..., i], colors[i]
        ax.add_patch(
            Rectangle(
                (x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linewidth=2, linestyle="dashed"
            )
        )
        ax.text(x1, y1 + 8, f"{CLASS_NAMES[1]} {instances['scores'][i]:.3f}", color="w", size=11)
        for channel in range(3):
            values = blended[..., channel]
            blended[..., channel] = np.where(mask, 0.5 * values + 127.5 * color[channel], values)
        for outline in find_contours(np.pad(mask, 1), 0.5):
            ax.add_patch(Polygon(outline[:, ::-1] - 1, facecolor="none", edgecolor=color))
    ax.imshow(blended.astype(np.uint8))
    return figure


def seconds(draw: Callable[[dict], Any], instances: dict[str, np.ndarray]) -> float:
    """Measure the time from the arrays to the pixels of the figure."""
    begin = time.perf_counter()
    figure = draw(instances)
    figure.canvas.draw()
    passed = time.perf_counter() - begin
    plt.close(figure)
    return passed


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--instances", type=int, nargs="+", default=[50, 500])
    parser.add_argument("--size", type=int, default=1024, help="side of the image in pixels")
    measure.add_arguments(parser, repeats=5, warmup=1)
    return parser


def main() -> None:
    """Measure both ways in turn for each number of instances."""
    arguments = options().parse_args()
    if arguments.quick:
        arguments.instances, arguments.size, arguments.repeats, arguments.warmup = [5], 128, 1, 0
    report = measure.Report("visualize_instances", arguments, ["matplotlib"])
    for count in arguments.instances:
        instances = discs(arguments.size, count)
        times: dict[str, list[float]] = {"one image": [], "patches": []}
        for turn in range(arguments.warmup + arguments.repeats):
            for name, draw in (("one image", as_one_image), ("patches", as_patches)):
                passed = seconds(draw, instances)
                if turn >= arguments.warmup:
                    times[name].append(passed)
        rows = [
            {
                "contestant": name,
                "instances": count,
                "size": arguments.size,
                **measure.summary(values),
                "seconds": values,
                "times_faster": measure.ratio(times["patches"], values),
            }
            for name, values in times.items()
        ]
        report.show(rows, COLUMNS, f"{count} instances on {arguments.size} x {arguments.size} pixels")
    report.finish()


if __name__ == "__main__":
    main()
