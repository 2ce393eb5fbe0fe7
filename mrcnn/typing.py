"""Type aliases for the arrays and tensors of the package."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

# A tensor of the running backend, symbolic or not. The backends share no base class.
Tensor: TypeAlias = Any
# The shape of a tensor; None for an axis whose length is unknown in the graph.
Shape: TypeAlias = tuple[int | None, ...]

# An image [height, width, channels], or gray [height, width]; uint8, uint16 or float.
Image: TypeAlias = NDArray[Any]
# Boxes [N, (y1, x1, y2, x2)]: half-open pixel boxes, or normalized boxes where the docstring says so.
Boxes: TypeAlias = NDArray[Any]
# One box (y1, x1, y2, x2) in whole pixels; row y2 and column x2 are outside.
Box: TypeAlias = tuple[int, int, int, int]
# Instance masks [height, width, N], bool.
Masks: TypeAlias = NDArray[np.bool_]
# Class ids [N], int32; 0 is the background.
ClassIds: TypeAlias = NDArray[np.int32]
