"""The grid of tiles of an image."""

from collections.abc import Sequence

import numpy as np

from mrcnn.typing import Box

# Part of a tile's side that neighbors share by default.
DEFAULT_OVERLAP = 1 / 8
SMALLEST_TILE = 8


def check_tile(tile: int, overlap: int | None) -> tuple[int, int]:
    """Return the side of the tiles and their overlap in pixels; the overlap is an eighth by default.

    Raises:
        ValueError: If the tile is too small, or the overlap is not less than half of it.
    """
    if isinstance(tile, bool) or not isinstance(tile, int | np.integer) or tile < SMALLEST_TILE:
        raise ValueError(
            f"`tile` must be a number of pixels of at least {SMALLEST_TILE}. Received: tile={tile!r}"
        )
    if overlap is None:
        overlap = int(tile * DEFAULT_OVERLAP)
    if isinstance(overlap, bool) or not isinstance(overlap, int | np.integer) or not 1 <= overlap < tile / 2:
        raise ValueError(
            "`overlap` must be a number of pixels from 1 to less than half of `tile`. Received: "
            f"tile={tile}, overlap={overlap!r}. Use larger tiles or a smaller overlap. Objects may be "
            "longer than the overlap."
        )
    return int(tile), int(overlap)


def check_batch(batch: int) -> int:
    """Return the number of tiles that the network gets at once.

    Raises:
        ValueError: If it is not a number of at least 1.
    """
    if isinstance(batch, bool) or not isinstance(batch, int | np.integer) or batch < 1:
        raise ValueError(
            f"`batch`, the number of tiles in a batch, must be an integer of at least 1. Received: "
            f"batch={batch!r}"
        )
    return int(batch)


def starts_of(length: int, tile: int, overlap: int) -> list[int]:
    """Return the starts of the tiles along one axis.

    They are evenly spaced, and neighbors share at least `overlap` pixels. The first tile begins at 0, and the
    last one ends at `length`. An axis shorter than a tile has one tile.
    """
    if length <= tile:
        return [0]
    count = -(-(length - overlap) // (tile - overlap))
    return [round(index * (length - tile) / (count - 1)) for index in range(count)]


def grid(shape: Sequence[int], tile: int, overlap: int) -> list[list[Box]]:
    """Return the tiles of an image, row by row.

    Args:
        shape: (height, width) of the image.
        tile: Side of the tiles; those of a smaller image have its height or width.
        overlap: Smallest number of pixels that neighbors share.
    """
    height, width = int(shape[0]), int(shape[1])
    rows, columns = starts_of(height, tile, overlap), starts_of(width, tile, overlap)
    return [[(y, x, min(y + tile, height), min(x + tile, width)) for x in columns] for y in rows]


def quarters(tile: Box, overlap: int, multiple: int = 1) -> list[Box]:
    """Return four smaller tiles that cover a tile, or none if impossible.

    Args:
        tile: The tile.
        overlap: Smallest number of pixels that they share.
        multiple: Their sides are multiples of this number.
    """
    y1, x1, y2, x2 = tile
    height, width = (-(-(side + overlap) // (2 * multiple)) * multiple for side in (y2 - y1, x2 - x1))
    if min(height, width) <= 2 * overlap or height >= y2 - y1 or width >= x2 - x1:
        return []
    return [(top, left, top + height, left + width) for top in (y1, y2 - height) for left in (x1, x2 - width)]
