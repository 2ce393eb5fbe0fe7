"""Make the figures of "Look inside", "Evaluate", "Recipes", "Results", "Large images", tutorials 1 and 3.

    python docs/make_pictures.py --logs logs
    python docs/make_pictures.py --nuclei nuclei

The second command makes that of the model card of the nuclei, with the dataset of samples/nucleus.

All but those of "Evaluate", "Recipes", "Results" and "Large images" come from running models: that of
samples/coins, with its newest weights in the folder of `--logs`, and the one of samples/nucleus. Without
weights for coins, that model is trained first, which takes minutes on a laptop. All other images come with
scikit-image.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import numpy as np  # noqa: E402
from matplotlib.colors import to_rgb  # noqa: E402
from PIL import Image  # noqa: E402
from skimage import data, draw  # noqa: E402

import mrcnn  # noqa: E402
from mrcnn import formats, inspection, utils, visualize  # noqa: E402
from mrcnn.data.augmentation_policies import scale_jitter  # noqa: E402
from mrcnn.data.copy_paste import CopyPaste  # noqa: E402
from mrcnn.data.generator import DataGenerator  # noqa: E402
from mrcnn.data.stains import hematoxylin  # noqa: E402
from mrcnn.evaluation import coco, instances  # noqa: E402
from mrcnn.geometry import preprocessing  # noqa: E402
from mrcnn.geometry.mask_crops import MaskCrops  # noqa: E402
from mrcnn.model import MaskRCNN, load_image_gt  # noqa: E402
from mrcnn.results import Detections, outlines, overlays  # noqa: E402
from mrcnn.tiles.seams import Sweep, located  # noqa: E402
from samples.coins import coins  # noqa: E402
from samples.nucleus import nucleus  # noqa: E402
from samples.stand_ins import write_coins_as_via  # noqa: E402

NAMES = coins.CLASS_NAMES
JPEG = {"quality": 88, "subsampling": 0, "optimize": True}


def coin_detector(logs: Path) -> MaskRCNN:
    """The network for coins in whole images."""
    model = MaskRCNN("inference", coins.CoinsInferenceConfig(), logs)
    try:
        weights = model.find_last()
    except FileNotFoundError:
        weights = coins.train(logs, epochs=8).find_last()
    model.load_weights(weights, resume=False)
    return model


def held_out() -> coins.CoinsDataset:
    """The half of the photograph that the network has not seen."""
    dataset = coins.CoinsDataset()
    image, labels = coins.halves()[1]
    dataset.load_coins([image], [labels])
    dataset.prepare()
    return dataset


def inside(model: MaskRCNN, dataset: coins.CoinsDataset) -> dict[str, Any]:
    """The figures of the page "Look inside", by name."""
    image = dataset.load_image(0)
    molded, _, class_ids, boxes, _ = load_image_gt(dataset, model.config, 0)
    labels = inspection.label_anchors(molded, class_ids, boxes, model.config)
    anchors = inspection.sort_anchors(model, image)
    levels = inspection.assign_levels(molded.repeat(3, axis=0).repeat(3, axis=1), 3 * boxes)
    refined = inspection.refine_boxes(model, image)
    maps = inspection.layer_activations(
        model, image, names=[*inspection.stage_names(model)[:3], "fpn_p2", "fpn_p3"]
    )
    return {
        "anchor-labels": inspection.draw_anchor_labels(labels, limit=60),
        "top-anchors": inspection.draw_top_anchors(anchors, limit=60),
        "refined-anchors": inspection.draw_refined_anchors(anchors, limit=25),
        "proposals": inspection.draw_proposals(anchors, limit=40),
        "levels": inspection.draw_levels(levels),
        "roi-align": inspection.draw_pooled_rois(inspection.pool_rois(model, image), limit=2),
        "box-filters": inspection.draw_box_filters(refined, NAMES),
        "detections": inspection.draw_detections(refined, NAMES),
        "masks": inspection.draw_masks(inspection.generate_masks(model, image), NAMES, limit=3),
        "mask-loss": inspection.draw_mask_losses(mask_losses(model, dataset), NAMES, limit=2),
        "activations": inspection.draw_activations(maps, channels=5),
        "weights": inspection.draw_weight_histograms(
            model, "rpn_.*|mrcnn_class_conv1|mrcnn_mask|mrcnn_mask_deconv"
        ),
        "result": inspection.draw_result(inspection.compose_result(model, image), NAMES),
    }


def mask_losses(model: MaskRCNN, dataset: coins.CoinsDataset) -> Any:
    """The mask loss of a crop, from a training network with the same weights."""
    trainer = MaskRCNN("training", coins.CoinsConfig(), model.model_dir)
    trainer.copy_weights(model)
    return inspection.mask_losses(trainer, DataGenerator(dataset, trainer.config)[0][0])


def tutorial_1(logs: Path) -> Image.Image:
    """A part of the stained section with its nuclei."""
    config = nucleus.RECIPES[nucleus.SHIPPED_RECIPE][1]()
    config.IMAGE_MIN_SCALE = 3
    config.DETECTION_MIN_CONFIDENCE = nucleus.MIN_SCORE
    model = MaskRCNN("inference", config, logs)
    model.load_weights(nucleus.SHIPPED_WEIGHTS, resume=False)
    section = data.immunohistochemistry()
    image = hematoxylin(section)[320:, 160:352]
    section = section[320:, 160:352]
    result = model.detect([image])[0]
    names = ["background", "nucleus"]
    boxes, masks, class_ids = result["rois"], result["masks"], result["class_ids"]
    painted = visualize.overlay_instances(section, boxes, masks, class_ids, names, result["scores"], scale=4)
    return Image.fromarray(painted)


def drawn_by_lot(dataset_dir: Path) -> dict[str, Any]:
    """Five validation images of fluorescence and five others: annotations in green, detections in red."""
    dataset = nucleus.load_dataset(dataset_dir, "val")
    groups = nucleus.modalities(dataset, dataset_dir)
    rng = np.random.default_rng(0)
    chosen = [image_id for name in groups for image_id in rng.choice(groups[name], 5, replace=False)]
    model = mrcnn.load("nucleus-light")
    figure, axes = visualize.figures.pyplot().subplots(2, 5, figsize=(20, 8), layout="constrained")
    for ax, image_id in zip(axes.flat, chosen, strict=True):
        image = preprocessing.stretch_contrast(dataset.load_image(image_id)[..., :3], (1, 99.8))
        truth, _ = dataset.load_mask(image_id)
        found = model.detect([dataset.load_image(image_id)])[0]
        ax.imshow(image)
        for masks, color in ((truth, "lime"), (found["masks"], "red")):
            for mask in np.moveaxis(masks, 2, 0):
                ax.contour(mask, levels=[0.5], colors=color, linewidths=1)
        ax.set(xlim=(0, min(image.shape[1], 320)), ylim=(min(image.shape[0], 256), 0))
        ax.axis("off")
    return {"validation": figure}


def tutorial_3(model: MaskRCNN) -> dict[str, Any]:
    """The numbers of a dataset, the labels of one image, and differences of detections from labels."""
    dataset = formats.ViaDataset()
    with tempfile.TemporaryDirectory() as folder:
        train = write_coins_as_via(folder) / "train" / "via_region_data.json"
        dataset.load(train, classes=["coin"])
        val = formats.ViaDataset()
        val.load(Path(folder) / "val" / "via_region_data.json", classes=["coin"])
        val.prepare()
        dataset.prepare()
        numbers = formats.describe(dataset)
        image = dataset.load_image(0)
        masks, class_ids = dataset.load_mask(0)
        labels = visualize.display_instances(
            image, utils.extract_bboxes(masks), masks, class_ids, dataset.class_names, figsize=(7, 7)
        )
        image = val.load_image(0)
        masks, class_ids = val.load_mask(0)
    result = model.detect([image])[0]
    figure, ax = visualize.figures.pyplot().subplots(figsize=(7, 7))
    visualize.display_differences(
        image,
        utils.extract_bboxes(masks),
        class_ids,
        masks,
        result["rois"],
        result["class_ids"],
        result["scores"],
        result["masks"],
        val.class_names,
        ax=ax,
    )
    return {"dataset": numbers["figure"], "labels": labels, "differences": figure}


def evaluation() -> dict[str, Any]:
    """The plots of an evaluation of simulated detections: some objects are missed, some taken for others."""
    names = {1: "cell", 2: "dividing cell", 3: "dead cell", 4: "dirt"}
    rng = np.random.default_rng(0)
    matched, ranked = instances.InstanceMetrics(names), coco.CocoMetrics(names)
    for image_id in range(40):
        true, found = [], []
        for x in range(0, 192, 16):
            is_object, class_id = rng.random() < 0.8, int(rng.choice([1, 1, 1, 2, 2, 3]))
            if is_object:
                true.append((10, x, 40, x + 12, class_id))
            if rng.random() < (0.85 if is_object else 0.35):
                y, x1 = (10 + rng.integers(0, 12), x + rng.integers(0, 3)) if is_object else (10, x)
                if is_object and rng.random() < 0.2:
                    class_id = int(rng.choice(list(names)))
                score = rng.beta(5, 2) if is_object else rng.beta(2, 5)
                found.append((y, x1, 40, x + 12, class_id, score))
        truth = coco.annotations_of(_bars(true), [row[4] for row in true])
        detections = {
            "rois": np.array([row[:4] for row in found], int).reshape(-1, 4),
            "masks": _bars(found),
            "class_ids": np.array([row[4] for row in found], int),
            "scores": np.array([row[5] for row in found]),
        }
        matched.add(truth, detections)
        ranked.add(image_id, (60, 200), truth, coco.detections_of(detections))
    figure, axes = visualize.figures.pyplot().subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    visualize.plot_confusion_matrix(matched.confusion_matrix(), ax=axes[0])
    visualize.plot_precision_recall_curves(ranked.precision_recall("mask"), ax=axes[1])
    visualize.plot_f1(matched.score_curves(), ax=axes[2])
    return {"plots": figure}


def copy_paste() -> dict[str, Any]:
    """The upper half of the coins three times: as it is, and after two draws of copy-paste."""
    image, labels = coins.halves()[0]
    dataset = coins.CoinsDataset()
    dataset.load_coins([image, image], [labels, labels])
    dataset.prepare()
    config = coins.CoinsInferenceConfig()
    augmentation = [scale_jitter(0.5, 2), CopyPaste(1)]
    figure, axes = visualize.figures.pyplot().subplots(1, 3, figsize=(15, 5), layout="constrained")
    for ax, seed in zip(axes, (None, 3, 6), strict=True):
        truth = load_image_gt(
            dataset,
            config,
            0,
            augmentation=None if seed is None else augmentation,
            rng=np.random.default_rng(seed),
        )
        visualize.display_instances(
            truth.image, truth.boxes, truth.masks, truth.class_ids, NAMES, ax=ax, show_bbox=False
        )
    return {"coins": figure}


def results() -> dict[str, Any]:
    """Labeled coins in color, and the outline of one with all its points and with those of LabelMe."""
    image, labels = coins.halves()[1]
    masks = labels[..., np.newaxis] == np.arange(1, labels.max() + 1)
    crops = MaskCrops.cut(masks)
    result = Detections(crops.boxes, np.ones(len(crops.boxes), int), None, crops, class_names=NAMES)
    y1, x1, y2, x2 = crops.boxes[3]
    figure, axes = visualize.figures.pyplot().subplots(
        1, 3, figsize=(15, 4.6), layout="constrained", width_ratios=(1.7, 1, 1)
    )
    axes[0].imshow(overlays.draw(result, image))
    axes[0].set_title("overlay")
    for ax, tolerance, title in ((axes[1], 0.0, "exact"), (axes[2], 1.0, "tolerance=1")):
        (rings,) = outlines.parts_of(outlines.shape_of(tuple(crops.boxes[3]), crops.crops[3], tolerance))
        x, y = np.vstack([rings[0], rings[0][:1]]).T
        ax.imshow(image, cmap="gray", extent=(0, image.shape[1], image.shape[0], 0))
        ax.plot(x, y, "-o", color="#56b4e9", markersize=4)
        ax.set(xlim=(x1 - 4, x2 + 4), ylim=(y2 + 4, y1 - 4), title=f"{title}: {len(rings[0])} points")
    for ax in axes:
        ax.axis("off")
    return {"formats": figure}


def seams() -> dict[str, Any]:
    """What two overlapping tiles see of five objects, and the objects after joining."""
    shape, tiles = (120, 230), [(0, 0, 120, 130), (0, 100, 120, 230)]
    drawn = [((18, 60), (10, 14)), ((28, 115), (10, 11)), ((55, 97), (9, 12)), ((60, 170), (14, 16))]
    regions = [draw.ellipse(*center, *radii, shape=shape) for center, radii in drawn]
    regions.append(draw.polygon([86, 84, 104, 108], [30, 205, 215, 25], shape=shape))
    found = []
    for tile in tiles:
        for region in regions:
            mask = np.zeros(shape, bool)
            mask[region] = True
            mask = mask[tile[0] : tile[2], tile[1] : tile[3]]
            if mask.any():
                cut = MaskCrops.cut(mask[..., np.newaxis])
                box = cut.boxes[0] + np.array([0, tile[1], 0, tile[1]])
                found.append(located(tile, shape, roi=box, class_id=1, score=1, box=box, crop=cut.crops[0]))
    sweep = Sweep()
    figure, axes = visualize.figures.pyplot().subplots(1, 3, figsize=(15, 3.2), layout="constrained")
    columns = [[one for one in found if one.tile == tile] for tile in tiles] + [sweep.add(found, None)]
    for ax, objects, title in zip(axes, columns, ("left tile", "right tile", "result"), strict=True):
        canvas = np.ones((*shape, 3))
        for number, one in enumerate(objects):
            color = (0.84, 0.37, 0) if not one.is_whole else (0, 0.45, 0.7)
            if title == "result":
                color = to_rgb(f"C{number}")
            part = np.zeros(shape, bool)
            part[one.box[0] : one.box[2], one.box[1] : one.box[3]] = one.crop
            canvas[part] = color
        ax.imshow(canvas)
        for tile, style in zip(tiles, ("--", ":"), strict=True):
            if title in ("result", ("left tile", "right tile")[tiles.index(tile)]):
                y1, x1, y2, x2 = tile
                ax.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], style, color="black")
        ax.set(xlim=(-2, shape[1] + 2), ylim=(shape[0] + 2, -2))
        ax.set_title(title if title == "result" else f"{title}: whole (blue) and pieces (orange)")
        ax.axis("off")
    return {"seams": figure}


def _bars(rows: list[Any]) -> np.ndarray:
    """Masks [60, 200, N] of boxes."""
    masks = np.zeros((60, 200, len(rows)), bool)
    for index, (y1, x1, y2, x2, *_) in enumerate(rows):
        masks[y1:y2, x1:x2, index] = True
    return masks


def write(figures: dict[str, Any], folder: Path) -> None:
    """Write figures by name as JPEG files."""
    for name, figure in figures.items():
        path = folder / f"{name}.jpg"
        figure.savefig(path, dpi=75, bbox_inches="tight", pad_inches=0.1, pil_kwargs=JPEG)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Draw every figure and write the image files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="folder of the coins' weights")
    parser.add_argument("--output", type=Path, default=HERE / "images", help="folder of the image files")
    parser.add_argument("--nuclei", type=Path, help="dataset of samples/nucleus, for its model card")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.nuclei:
        figures = {f"nuclei-{name}": figure for name, figure in drawn_by_lot(arguments.nuclei).items()}
        write(figures, arguments.output)
        return
    model = coin_detector(arguments.logs)
    figures = {f"inside-{name}": figure for name, figure in inside(model, held_out()).items()}
    figures |= {f"copy-paste-{name}": figure for name, figure in copy_paste().items()}
    figures |= {f"results-{name}": figure for name, figure in results().items()}
    figures |= {f"large-images-{name}": figure for name, figure in seams().items()}
    figures |= {f"evaluation-{name}": figure for name, figure in evaluation().items()}
    figures |= {f"tutorial-3-{name}": figure for name, figure in tutorial_3(model).items()}
    write(figures, arguments.output)
    tutorial_1(arguments.logs).save(arguments.output / "tutorial-1-detections.jpg", **JPEG)


if __name__ == "__main__":
    main()
