import pytest
from golden_files import unpack_bits


@pytest.fixture
def golden_scene():
    """Takes a recording and the name of a scene, gives the seven arrays that matching takes."""

    def arguments(recording, name):
        gt = [recording[f"{name}_gt_{part}"] for part in ("boxes", "class_ids")]
        pred = [recording[f"{name}_pred_{part}"] for part in ("boxes", "class_ids", "scores")]
        gt_masks = unpack_bits(recording, f"{name}_gt_masks")
        return (*gt, gt_masks, *pred, unpack_bits(recording, f"{name}_pred_masks"))

    return arguments
