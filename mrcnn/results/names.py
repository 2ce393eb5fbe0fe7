"""The class names that results are written with."""

from typing import Any


def names_of(model: Any) -> dict[int, str]:
    """Return {class id: name} of a model without the background. Classes without a name have numbers.

    Args:
        model: A `MaskRCNN`, or a `Runner` of an exported file.
    """
    names = list(getattr(model, "class_names", None) or ())
    count = int(model.config.NUM_CLASSES)
    return {index: names[index] if len(names) == count else f"class {index}" for index in range(1, count)}
