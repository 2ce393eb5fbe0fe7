"""Make the pictures of docs/inside.md from a running model.

    python docs/make_pictures.py --logs logs

The model is that of samples/coins: its newest weights in the folder of `--logs`; without any, it is trained
first, which takes minutes on a laptop. The photograph of the coins comes with scikit-image.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "samples" / "coins")]

import coins  # noqa: E402

from mrcnn import inspection  # noqa: E402
from mrcnn.model import MaskRCNN, load_image_gt  # noqa: E402

NAMES = coins.CLASS_NAMES


def detector(logs: Path) -> MaskRCNN:
    """The trained network for whole pictures."""
    model = MaskRCNN("inference", coins.CoinsInferenceConfig(), logs)
    try:
        weights = model.find_last()
    except FileNotFoundError:
        weights = coins.train(logs, epochs=5).find_last()
    model.load_weights(weights, resume=False)
    return model


def held_out() -> coins.CoinsDataset:
    """The half of the photograph that the network has not seen."""
    dataset = coins.CoinsDataset()
    picture, labels = coins.halves()[1]
    dataset.load_coins([picture], [labels])
    dataset.prepare()
    return dataset


def figures(model: MaskRCNN, dataset: coins.CoinsDataset) -> dict[str, Any]:
    """Every figure of the page, by the name of its file."""
    image = dataset.load_image(0)
    resized, _, class_ids, boxes, _ = load_image_gt(dataset, model.config, 0)
    labelled = inspection.label_anchors(resized, class_ids, boxes, model.config)
    found = inspection.sort_anchors(model, image)
    refined = inspection.refine_boxes(model, image)
    maps = inspection.layer_activations(
        model, image, names=[*inspection.stage_names(model)[:3], "fpn_p2", "fpn_p3"]
    )
    print("Recall of the RPN at IoU 0.7:", inspection.proposal_recall(found, boxes))
    print("Boxes that the filters leave:", refined.counts)
    return {
        "1-anchor-labels": inspection.draw_anchor_labels(labelled, limit=60),
        "1-top-anchors": inspection.draw_top_anchors(found, limit=60),
        "1-refined-anchors": inspection.draw_refined_anchors(found, limit=25),
        "1-proposals": inspection.draw_proposals(found, limit=40),
        "2-box-filters": inspection.draw_box_filters(refined, NAMES),
        "2-detections": inspection.draw_detections(refined, NAMES),
        "3-masks": inspection.draw_masks(inspection.generate_masks(model, image), NAMES, limit=3),
        "4-activations": inspection.draw_activations(maps, channels=5),
        "5-weights": inspection.draw_weight_histograms(
            model, "rpn_.*|mrcnn_class_conv1|mrcnn_mask|mrcnn_mask_deconv"
        ),
        "7-result": inspection.draw_result(inspection.compose_result(model, image), NAMES),
    }


def save(figure: Any, path: Path) -> None:
    """Write a figure as a JPEG without its empty border."""
    options = {"quality": 88, "subsampling": 0, "optimize": True}
    figure.savefig(path, dpi=75, bbox_inches="tight", pad_inches=0.1, pil_kwargs=options)


def main() -> None:
    """Draw every step and write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="folder of the coins' weights")
    parser.add_argument("--output", type=Path, default=HERE / "images", help="folder of the pictures")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, figure in figures(detector(arguments.logs), held_out()).items():
        path = arguments.output / f"{name}.jpg"
        save(figure, path)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
