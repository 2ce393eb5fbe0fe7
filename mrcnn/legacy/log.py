"""The `log` of the Keras 2 library."""

import numpy as np


def log(text: str, array: np.ndarray | None = None) -> None:
    """Print a line of text, and with an array also its shape, smallest and largest value, and dtype."""
    if array is not None:
        array = np.asarray(array)
        text = f"{text:<25}shape: {array.shape!s:<20}  "
        if array.size:
            text += f"min: {array.min():10.5f}  max: {array.max():10.5f}"
        else:
            text += f"min: {'':10}  max: {'':10}"
        text += f"  {array.dtype}"
    print(text)
