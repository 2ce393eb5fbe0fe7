"""Measure whether a model may detect in bfloat16.

check_bfloat16(model, dataset)
model.save("model.h5")  # mrcnn.load("model.h5", PRECISION="auto") now uses bfloat16 where it is faster
"""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mrcnn.dataset import Dataset
    from mrcnn.model import MaskRCNN

LARGEST_LOSS = 0.002


def check_bfloat16(
    model: "MaskRCNN",
    dataset: "Dataset",
    image_ids: Sequence[int] | None = None,
    *,
    largest_loss: float = LARGEST_LOSS,
    verbose: int = 1,
) -> dict[str, float]:
    """Measure the AP of a model in float32 and in bfloat16, and set its BFLOAT16_IS_SAFE.

    Every machine computes bfloat16, some of them slowly.

    Args:
        model: The model, in inference mode.
        dataset: A prepared Dataset that the model was not trained on.
        image_ids: The images to use, by default all.
        largest_loss: BFLOAT16_IS_SAFE becomes True if neither the AP of boxes nor that of masks is lower by
            more than this.
        verbose: 1 to show progress and print the result.

    Returns:
        The AP of boxes and masks, 0 to 1: box_AP_float32, mask_AP_float32, box_AP_bfloat16 and
        mask_AP_bfloat16.

    Raises:
        ValueError: If the model is in training mode, or there are no images.
    """
    found: dict[str, float] = {}
    for precision in ("float32", "bfloat16"):
        config = copy.deepcopy(model.config)
        config.PRECISION = precision
        table = model.inference_model(config).evaluate(dataset, image_ids, verbose=0)
        found |= {f"{kind}_AP_{precision}": float(table[f"{kind}_AP"][0]) for kind in ("box", "mask")}
    losses = {kind: found[f"{kind}_AP_float32"] - found[f"{kind}_AP_bfloat16"] for kind in ("box", "mask")}
    # An AP that is not defined, without objects, shows nothing.
    model.config.BFLOAT16_IS_SAFE = all(loss <= largest_loss for loss in losses.values())
    if verbose:
        for name, value in found.items():
            print(f"{name} {value:.4f}")
        print(f"BFLOAT16_IS_SAFE = {model.config.BFLOAT16_IS_SAFE}")
    return found
