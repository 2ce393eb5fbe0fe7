"""From the array layouts of PyTorch models to those of Keras layers.

Axes: h and w rows and columns of a kernel or map, C input channels, F outputs (filters or units), A anchors
of a location, K classes.

A PyTorch convolution is [F, C, h, w], a Keras one [h, w, C, F]. Kernels and biases end with the outputs after
`kernel` and its relatives, so the functions that reorder outputs work on the last axis of both.
"""

from collections.abc import Sequence

import numpy as np

# Position of dy, dx, log(dh), log(dw) among dx, dy, log(dw), log(dh).
DELTA_ORDER = (1, 0, 3, 2)


def identity(values: np.ndarray) -> np.ndarray:
    """Biases, and the weights of batch norm."""
    return values


def kernel(values: np.ndarray) -> np.ndarray:
    """A convolution [F, C, h, w] to [h, w, C, F]."""
    return values.transpose(2, 3, 1, 0)


def depthwise_kernel(values: np.ndarray) -> np.ndarray:
    """A depthwise convolution [C, 1, h, w] to [h, w, C, 1]."""
    return values.transpose(2, 3, 0, 1)


def transposed_kernel(values: np.ndarray) -> np.ndarray:
    """A transposed convolution [C, F, h, w] to [h, w, F, C]. Neither library flips it."""
    return values.transpose(2, 3, 1, 0)


def dense(values: np.ndarray) -> np.ndarray:
    """A fully connected layer [F, C] to [C, F]."""
    return values.T


def dense_as_kernel(values: np.ndarray) -> np.ndarray:
    """A fully connected layer [F, C] to a 1x1 convolution [1, 1, C, F]."""
    return values.T[None, None]


def dense_of_map(values: np.ndarray, channels: int) -> np.ndarray:
    """A fully connected layer on a flattened square map [F, C * h * w] to a convolution [h, w, C, F].

    Args:
        values: The weights. PyTorch flattens a map [C, h, w], Keras convolves [h, w, C].
        channels: C.
    """
    units, inputs = values.shape
    side = round((inputs / channels) ** 0.5)
    return kernel(values.reshape(units, channels, side, side))


def stem_kernel(values: np.ndarray, std: Sequence[float], reverse_channels: bool = False) -> np.ndarray:
    """The first convolution, for RGB images of which only the mean is subtracted.

    Args:
        values: [F, C, h, w].
        std: What the other library divides the channels by, in the order of `values`.
        reverse_channels: Whether the other library's images are BGR.
    """
    scaled = values / np.asarray(std, np.float32)[:, None, None]
    return kernel(scaled[:, ::-1] if reverse_channels else scaled)


def objectness(values: np.ndarray) -> np.ndarray:
    """RPN logits of A anchors [..., A] to logits of background and foreground [..., 2 * A].

    The sigmoid of x is the softmax of (0, x): the background gets zeros.
    """
    logits = reversed_ratios(values[..., None])
    pairs = np.concatenate([np.zeros_like(logits), logits], axis=-1)
    return pairs.reshape(*values.shape[:-1], -1)


def anchor_deltas(values: np.ndarray) -> np.ndarray:
    """RPN deltas [..., A * (dx, dy, log(dw), log(dh))] to [..., A * (dy, dx, log(dh), log(dw))]."""
    deltas = values.reshape(*values.shape[:-1], -1, 4)[..., DELTA_ORDER]
    return reversed_ratios(deltas).reshape(values.shape)


def reversed_ratios(values: np.ndarray) -> np.ndarray:
    """Reverse the anchors [..., A, n] of a location.

    The other libraries list ratios of height to width in ascending order, we list width to height.
    """
    return values[..., ::-1, :]


def box_deltas(values: np.ndarray) -> np.ndarray:
    """Deltas of K classes [..., K * (dx, dy, log(dw), log(dh))] to [..., K * (dy, dx, log(dh), log(dw))]."""
    return values.reshape(*values.shape[:-1], -1, 4)[..., DELTA_ORDER].reshape(values.shape)


def background_first(values: np.ndarray) -> np.ndarray:
    """Class logits [..., K] with the background last, to the background first."""
    return np.roll(values, 1, axis=-1)


def with_background(values: np.ndarray, entries: int) -> np.ndarray:
    """Put zeros for the background before outputs [..., (K - 1) * entries] of the other classes."""
    zeros = np.zeros((*values.shape[:-1], entries), values.dtype)
    return np.concatenate([zeros, values], axis=-1)
