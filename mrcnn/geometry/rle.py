"""Masks as texts of run lengths, as the 2018 Data Science Bowl and other competitions take them.

Pixels count from 1, column by column: "5 3" is the fifth, sixth and seventh pixel.
"""

import numpy as np


def rle_encode(mask: np.ndarray) -> str:
    """Run lengths of a mask [h, w], column by column, as "start length start length ...", from 1."""
    if mask.ndim != 2:
        raise ValueError(f"mask must be [height, width]. Received: shape {mask.shape}")
    pixels = np.concatenate([[0], mask.astype(bool).T.flatten().astype(np.int8), [0]])
    changes = np.flatnonzero(np.diff(pixels)) + 1
    runs = changes.reshape(-1, 2)
    runs[:, 1] -= runs[:, 0]
    return " ".join(map(str, runs.flatten()))


def rle_decode(rle: str, shape: tuple[int, int]) -> np.ndarray:
    """Inverse of `rle_encode`: bool [h, w]. Raises ValueError if a run leaves the image."""
    runs = np.array(rle.split(), dtype=int).reshape(-1, 2)
    mask = np.zeros(shape[0] * shape[1], dtype=bool)
    for start, length in runs:
        if start < 1 or start - 1 + length > mask.size:
            raise ValueError(f"The run {start} {length} leaves an image of shape {tuple(shape)}")
        mask[start - 1 : start - 1 + length] = True
    return mask.reshape(shape[1], shape[0]).T


def mask_to_rle(image_id: str, mask: np.ndarray, scores: np.ndarray) -> str:
    """Lines of a submission file for masks [h, w, N]; a pixel goes to the best-scoring mask on it."""
    if mask.ndim != 3:
        raise ValueError(f"mask must be [height, width, N]. Received: shape {mask.shape}")
    lines = []
    free = np.ones(mask.shape[:2], dtype=bool)
    for index in np.argsort(-np.asarray(scores), kind="stable"):
        own = mask[:, :, index].astype(bool) & free
        free &= ~own
        if own.any():
            lines.append(f"{image_id}, {rle_encode(own)}")
    return "\n".join(lines) if lines else f"{image_id},"
