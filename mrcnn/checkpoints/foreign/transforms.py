"""Convert the array layouts of PyTorch models to those of Keras layers.

Axes: h and w rows and columns of a kernel or map, C input channels, F outputs (filters or units), A anchors
of a location, K classes.

The kernel of a convolution is [F, C, h, w] in PyTorch and [h, w, C, F] in Keras. After conversion by `kernel`
and similar functions, the last axis of kernels and biases is that of the outputs, so the functions that
reorder outputs work on the last axis of both.
"""

from collections.abc import Sequence

import numpy as np

# Position of dy, dx, log(dh), log(dw) among dx, dy, log(dw), log(dh).
DELTA_ORDER = (1, 0, 3, 2)


def identity(values: np.ndarray) -> np.ndarray:
    """Return biases and weights of batch norm unchanged."""
    return values


def kernel(values: np.ndarray) -> np.ndarray:
    """Convert a convolution [F, C, h, w] to [h, w, C, F]."""
    return values.transpose(2, 3, 1, 0)


def depthwise_kernel(values: np.ndarray) -> np.ndarray:
    """Convert a depthwise convolution [C, 1, h, w] to [h, w, C, 1]."""
    return values.transpose(2, 3, 0, 1)


def transposed_kernel(values: np.ndarray) -> np.ndarray:
    """Convert a transposed convolution [C, F, h, w] to [h, w, F, C]. Neither library flips it."""
    return values.transpose(2, 3, 1, 0)


def dense(values: np.ndarray) -> np.ndarray:
    """Convert a fully connected layer [F, C] to [C, F]."""
    return values.T


def dense_as_kernel(values: np.ndarray) -> np.ndarray:
    """Convert a fully connected layer [F, C] to a 1x1 convolution [1, 1, C, F]."""
    return values.T[None, None]


def dense_of_map(values: np.ndarray, channels: int) -> np.ndarray:
    """Convert a fully connected layer on a square map [F, C * h * w] to a convolution [h, w, C, F].

    Args:
        values: The weights. PyTorch flattens a map [C, h, w], Keras convolves [h, w, C].
        channels: C.
    """
    units, inputs = values.shape
    side = round((inputs / channels) ** 0.5)
    return kernel(values.reshape(units, channels, side, side))


def stem_kernel(values: np.ndarray, std: Sequence[float], reverse_channels: bool = False) -> np.ndarray:
    """Convert the first convolution to take RGB images from which only the mean is subtracted.

    Args:
        values: [F, C, h, w].
        std: Standard deviations by which the other library divides the channels, in the order of `values`.
        reverse_channels: Whether the other library's images are BGR.
    """
    scaled = values / np.asarray(std, np.float32)[:, None, None]
    return kernel(scaled[:, ::-1] if reverse_channels else scaled)


def objectness(values: np.ndarray) -> np.ndarray:
    """Convert RPN logits of A anchors [..., A] to logits of background and foreground [..., 2 * A].

    The sigmoid of x is the softmax of (0, x): the background gets zeros.
    """
    logits = reversed_ratios(values[..., None])
    pairs = np.concatenate([np.zeros_like(logits), logits], axis=-1)
    return pairs.reshape(*values.shape[:-1], -1)


def anchor_deltas(values: np.ndarray) -> np.ndarray:
    """Convert RPN deltas [..., A * (dx, dy, log(dw), log(dh))] to [..., A * (dy, dx, log(dh), log(dw))]."""
    deltas = values.reshape(*values.shape[:-1], -1, 4)[..., DELTA_ORDER]
    return reversed_ratios(deltas).reshape(values.shape)


def reversed_ratios(values: np.ndarray) -> np.ndarray:
    """Reverse the anchors [..., A, n] of a location.

    The other libraries sort anchors by height / width, we sort them by width / height.
    """
    return values[..., ::-1, :]


def box_deltas(values: np.ndarray) -> np.ndarray:
    """Convert class deltas [..., K * (dx, dy, log(dw), log(dh))] to [..., K * (dy, dx, log(dh), log(dw))]."""
    return values.reshape(*values.shape[:-1], -1, 4)[..., DELTA_ORDER].reshape(values.shape)


def background_first(values: np.ndarray) -> np.ndarray:
    """Move the background of class logits [..., K] from the last to the first place."""
    return np.roll(values, 1, axis=-1)


def with_background(values: np.ndarray, entries: int) -> np.ndarray:
    """Prepend zeros for the background to outputs [..., (K - 1) * entries] of the other classes."""
    zeros = np.zeros((*values.shape[:-1], entries), values.dtype)
    return np.concatenate([zeros, values], axis=-1)
