"""The pixels of many cropped masks as bits of one array, which may lie in a file."""

from collections.abc import Iterator, Sequence

import numpy as np


class PackedCrops(Sequence[np.ndarray]):
    """A sequence of bool crops [h, w] that takes one bit per pixel. Each crop is unpacked when it is read.

    Args:
        bits: uint8 [B], in memory or mapped from a file. Each crop begins at a new byte.
        starts: int64 [N], the first byte of each crop.
        sizes: int [N, (h, w)].
    """

    def __init__(self, bits: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> None:
        self.bits = bits
        self.starts = np.asarray(starts, np.int64)
        self.sizes = np.asarray(sizes, np.int64).reshape(-1, 2)

    @classmethod
    def pack(cls, crops: Sequence[np.ndarray]) -> "PackedCrops":
        """Pack bool crops [h, w]."""
        parts = [np.packbits(crop) for crop in crops]
        lengths = np.array([len(part) for part in parts], np.int64)
        bits = np.concatenate(parts) if parts else np.zeros(0, np.uint8)
        return cls(bits, np.cumsum(lengths) - lengths, np.array([crop.shape for crop in crops], np.int64))

    def select(self, rows: np.ndarray) -> "PackedCrops":
        """Return some of the crops, which share the bits of these."""
        return PackedCrops(self.bits, self.starts[rows], self.sizes[rows])

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # the overloads of Sequence
        if isinstance(index, slice):
            return self.select(np.arange(len(self))[index])
        height, width = (int(side) for side in self.sizes[index])
        start, count = int(self.starts[index]), height * width
        packed = np.asarray(self.bits[start : start - (-count // 8)])
        return np.unpackbits(packed, count=count).reshape(height, width).view(bool)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))
